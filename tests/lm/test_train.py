"""Training from scratch: it learns, packs every token once, and survives being killed at any moment."""

import random
import signal
import time
from collections import Counter
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from children import Start, finished, received
from palimpsest.lm.checkpoint import Checkpoints
from palimpsest.lm.packing import PADDING, PackedTexts
from palimpsest.lm.tokenizer import END_OF_TEXT, train_tokenizer
from palimpsest.lm.train import Architecture, Schedule, _optimizers, batch_loss, evaluate, train_lm

TEXTS = [f"Person {n} was born in City {n % 5}. The capital of Land {n % 7} is City {n % 5}." for n in range(200)]
SHAPE = Architecture(layers=2, width=32, feedforward=64, heads=2, context_length=64)


def schedule(**changes) -> Schedule:
    values = {"epochs": 2, "batch_size": 4, "learning_rate": 5e-3, "matrix_learning_rate": 2e-2, "warmup": 5}
    values |= {"weight_decay": 0.1, "log_every": 5, "evaluate_every": 20}
    return Schedule(**{**values, "checkpoint_every": 7, **changes})


@pytest.fixture(scope="module")
def packed():
    tokenizer = train_tokenizer(TEXTS, 400, 64)
    return tokenizer, PackedTexts.encode(TEXTS, tokenizer, 32)


def test_tokenizer_is_lossless_and_begins_with_end_of_text(packed) -> None:
    tokenizer, _ = packed
    for text in ["Person 3 was born", "naïve ☃ \n\t x", "  two  spaces "]:
        ids = tokenizer(text)["input_ids"]
        assert ids[0] == tokenizer.eos_token_id == tokenizer.bos_token_id
        assert tokenizer.decode(ids[1:]) == (text if text.startswith(" ") else f" {text}")
    assert tokenizer("Person 3")["input_ids"] == tokenizer(" Person 3")["input_ids"]
    assert tokenizer.convert_tokens_to_ids(END_OF_TEXT) == tokenizer.eos_token_id != tokenizer.pad_token_id


def test_packing_keeps_texts_whole_and_uses_each_once(packed) -> None:
    tokenizer, _ = packed
    packs = PackedTexts.encode(TEXTS, tokenizer, 128)
    end = tokenizer.eos_token_id
    texts = [tokenizer(text)["input_ids"] for text in TEXTS]
    found = []
    for row in packs.windows.tolist():
        tokens = [token for token in row if token != PADDING]
        assert row[: len(tokens)] == tokens  # padding comes last
        assert row[0] == end
        starts = [place for place, token in enumerate(tokens) if token == end] + [len(tokens)]
        found += [tuple(tokens[start:stop]) for start, stop in pairwise(starts) if stop - start > 1]
    assert sorted(found) == sorted(map(tuple, texts))
    assert packs.predicted == sum((row[1:] != PADDING).sum() for row in packs.windows)
    assert (packs.windows != PADDING).mean() > 0.9


def test_a_long_text_goes_on_in_the_next_window(packed) -> None:
    tokenizer, _ = packed
    (ids,) = tokenizer([TEXTS[0] * 5])["input_ids"]
    packs = PackedTexts.encode([TEXTS[0] * 5], tokenizer, 16)
    rows = packs.windows[np.lexsort(packs.windows.T[::-1])]
    assert sorted(token for row in rows.tolist() for token in row if token != PADDING) in (
        sorted(ids),
        sorted([*ids, tokenizer.eos_token_id]),
    )


def test_an_epoch_uses_every_window_once_in_an_order_of_its_own(packed) -> None:
    _, packs = packed
    per_epoch = len(packs) // 4
    everything = Counter(map(tuple, packs.windows.tolist()))
    orders = []
    for epoch in (0, 1):
        batches = [packs.shuffled(epoch * per_epoch + i, 4, seed=1) for i in range(per_epoch)]
        seen = [tuple(row) for batch in batches for row in batch.tolist()]
        assert len(seen) == 4 * per_epoch
        assert Counter(seen) <= everything
        orders.append(seen)
    assert orders[0] != orders[1]


def test_no_text_is_an_error(packed) -> None:
    with pytest.raises(ValueError, match="no text"):
        PackedTexts.encode([], packed[0], 32)


def test_padding_is_not_predicted(packed) -> None:
    tokenizer, packs = packed
    model = SHAPE.build(tokenizer, seed=0)
    row = torch.from_numpy(packs.windows[:1].astype(np.int64))
    cut = row.clone()
    cut[:, 20:] = PADDING
    assert batch_loss(model, cut, schedule(precision="fp32")).item() == pytest.approx(
        batch_loss(model, row[:, :20], schedule(precision="fp32")).item(), rel=1e-5
    )


def test_learning_rate_rises_and_falls() -> None:
    plan = schedule(warmup=10, floor=0.1)
    rates = [plan.factor(step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.1, abs=0.01)
    assert max(rates) == rates[9] == pytest.approx(1.0, abs=0.03)
    assert rates[-1] == pytest.approx(0.1, abs=0.01)
    assert rates[55] == pytest.approx(0.1 + 0.9 * 0.5 * (1 + np.cos(np.pi * 0.55)))


def test_training_learns_and_reports(packed, tmp_path: Path) -> None:
    tokenizer, windows = packed
    model = SHAPE.build(tokenizer, seed=0)
    before = evaluate(model, windows, schedule())
    seen: list[int] = []
    rows = train_lm(model, windows, windows, schedule(), checkpoints=tmp_path, log=lambda row, step: seen.append(step))
    assert before == pytest.approx(np.log(len(tokenizer)), rel=0.1)  # an untrained model guesses
    assert rows[-1]["dev_loss"] < 0.6 * before
    assert rows[-1]["dev_loss"] == pytest.approx(evaluate(model, windows, schedule()))
    assert [row["step"] for row in rows] == seen
    assert rows[-1]["tokens"] == rows[-1]["step"] * 4 * 32
    assert not model.training


def train_to_the_end(connection: Connection, checkpoints: Path, out: Path) -> None:
    """Say that training begins, and train."""
    tokenizer = train_tokenizer(TEXTS, 400, 64)
    windows = PackedTexts.encode(TEXTS, tokenizer, 32)
    model = SHAPE.build(tokenizer, seed=0)
    connection.send("ready")
    train_lm(model, windows, windows, schedule(epochs=6), checkpoints=checkpoints)
    model.save_pretrained(out)


@pytest.mark.slow
def test_a_run_killed_anywhere_ends_with_the_same_weights(tmp_path: Path, start: Start) -> None:
    undisturbed = start(train_to_the_end, tmp_path / "a", tmp_path / "whole")
    next(received(undisturbed))
    began = time.monotonic()
    finished(undisturbed)
    length = time.monotonic() - began
    rng, kills = random.Random(0), 0
    for _ in range(3):
        child = start(train_to_the_end, tmp_path / "b", tmp_path / "resumed")
        next(received(child))
        time.sleep(rng.uniform(0.1, 0.3) * length)
        child.process.kill()
        child.process.join()
        kills += child.process.exitcode == -signal.SIGKILL
    assert kills
    assert list((tmp_path / "b").glob("*/*")), "no checkpoint was left by the killed runs"
    finished(start(train_to_the_end, tmp_path / "b", tmp_path / "resumed"))
    whole, resumed = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "resumed"))
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_changed_run_does_not_go_on_from_anothers_checkpoint(packed, tmp_path: Path) -> None:
    tokenizer, windows = packed
    for rate in (5e-3, 1e-3):
        model = SHAPE.build(tokenizer, seed=0)
        train_lm(model, windows, windows, schedule(epochs=0.3, learning_rate=rate), checkpoints=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_half_written_checkpoints_are_passed_over(packed, tmp_path: Path) -> None:
    tokenizer, _ = packed
    model = SHAPE.build(tokenizer, seed=0)
    optimizers = _optimizers(model, schedule())
    model(torch.zeros(1, 4, dtype=torch.long)).logits.sum().backward()
    for optimizer in optimizers:
        optimizer.step()
    state = Checkpoints(tmp_path, "f" * 64)
    state.save(5, model, optimizers, {"note": 1})
    (state.folder / "000000009.partial").mkdir()
    other = SHAPE.build(tokenizer, seed=1)
    fresh = _optimizers(other, schedule())
    assert state.restore(other, fresh) == (5, {"note": 1})
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)
    for saved, restored in zip(optimizers, fresh, strict=True):
        one, two = saved.state_dict()["state"], restored.state_dict()["state"]
        assert one
        assert all(torch.equal(one[i][key], two[i][key]) for i in one for key in one[i])
    state.clear()
    assert state.restore(other, fresh) == (0, {})


def test_auto_is_bf16_only_where_the_processor_multiplies_it(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    for capabilities, dtype in (
        ({"avx2": True, "avx512_bf16": False, "amx_bf16": False}, torch.float32),
        ({"avx2": True, "avx512_bf16": True}, torch.bfloat16),
    ):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=capabilities: found)
        assert schedule(precision="auto").dtype(cpu) == dtype
        with schedule(precision="auto").autocast(cpu):
            assert (torch.eye(2) @ torch.eye(2)).dtype == dtype
    assert schedule(precision="bf16").dtype(cpu) == torch.bfloat16
    with pytest.raises(ValueError, match="precision 'half'"):
        schedule(precision="half")
