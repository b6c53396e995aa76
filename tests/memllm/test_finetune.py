"""Finetuning learns, computes what it says, and ends the same whether it is stopped, killed or cut into passes."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random

import pytest
import torch
from support import untrained
from torch import Tensor

from children import Start, received
from palimpsest.lm.load import LanguageModel
from palimpsest.memllm.adapters import Lora, attach_adapter
from palimpsest.memllm.examples import Example
from palimpsest.memllm.finetune import Batches, Finetuning, digest, finetune, summed_loss


def example(number: int) -> Example:
    """Noise of some length, a question and its answer; only the answer is learnt."""
    rng = Random(number)
    asked, noise = rng.randrange(6), [rng.randrange(100, 140) for _ in range(rng.randrange(1, 8))]
    return Example([0, *noise, 40 + asked, 60 + (5 * asked) % 6, 39], [False] * (2 + len(noise)) + [True, False])


EXAMPLES = [example(number) for number in range(96)]


def with_learnt(row: Example, place: int) -> Example:
    """The same, with one token more to learn."""
    return Example(row.ids, [learnt or number == place for number, learnt in enumerate(row.learnt)])


def plan(**changes: object) -> Finetuning:
    values: dict = {"epochs": 1, "batch_size": 12, "learning_rate": 1e-2, "weight_decay": 0.001, "precision": "fp32"}
    values |= {"tokens_per_pass": 10_000, "log_every": 1, "checkpoint_every": 3, "evaluate_every": 1000}
    return Finetuning(**values | changes)


def adapted(dropout: float = 0.0) -> LanguageModel:
    lora = Lora(rank=8, alpha=16, dropout=dropout)
    return attach_adapter(untrained().lm, "read", lora, seed=0)


def weights(lm: LanguageModel) -> dict[str, Tensor]:
    return {name: weight for name, weight in lm.model.named_parameters() if weight.requires_grad}


def literal_loss(lm: LanguageModel, examples: Sequence[Example]) -> Tensor:
    """Row by row and token by token: the mean of what is learnt."""
    losses = []
    for row in examples:
        logprobs = lm.model(input_ids=torch.tensor([row.ids]), use_cache=False).logits[0].log_softmax(-1)
        losses += [-logprobs[t - 1, row.ids[t]] for t in range(1, len(row.ids)) if row.learnt[t]]
    return torch.stack(losses).mean()


def test_it_learns_what_is_marked_as_learnt(tmp_path: Path) -> None:
    seen: list[int] = []
    rows = finetune(
        adapted(dropout=0.1),
        EXAMPLES,
        EXAMPLES[:20],
        plan(epochs=10, log_every=10, evaluate_every=40),
        checkpoints=tmp_path,
        log=lambda row, step: seen.append(step),
    )
    assert seen == [row["step"] for row in rows] == list(range(10, 81, 10))
    assert rows[0]["loss"] > 2
    assert rows[-1]["loss"] < 0.3
    assert [("dev_loss" in row) for row in rows] == [False, False, False, True] * 2
    assert rows[-1]["dev_loss"] < 0.1 < rows[3]["dev_loss"]
    assert rows[-1]["tokens"] == 10 * sum(len(row.ids) for row in EXAMPLES)


def test_steps_are_those_of_a_literal_computation(tmp_path: Path) -> None:
    schedule = plan(batch_size=24, weight_decay=0.1, warmup=0.5)
    examples = [with_learnt(row, 1) if number % 3 else row for number, row in enumerate(EXAMPLES)]
    lm, reference = adapted(), adapted()
    history = finetune(lm, examples, examples[:7], schedule, checkpoints=tmp_path)
    optimizer = torch.optim.AdamW(weights(reference).values(), lr=schedule.learning_rate, weight_decay=0.1)
    batches = Batches(examples, 24, schedule.seed)
    for step, factor in enumerate([1 / 2, 1, 1, 1 / 2]):
        for group in optimizer.param_groups:
            group["lr"] = factor * schedule.learning_rate
        loss = literal_loss(reference, [examples[item] for item in batches[step]])
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(weights(reference).values(), schedule.clip)
        optimizer.step()
        assert history[step]["learning_rate"] == pytest.approx(factor * schedule.learning_rate)
        assert history[step]["loss"] == pytest.approx(loss.item(), rel=1e-4)
        assert history[step]["gradient_norm"] == pytest.approx(norm.item(), rel=1e-3)
    assert history[-1]["dev_loss"] == pytest.approx(literal_loss(reference, examples[:7]).item(), rel=1e-3)
    for name, weight in weights(reference).items():
        torch.testing.assert_close(weights(lm)[name], weight, atol=2e-4, rtol=1e-3)


def gradient(lm: LanguageModel, examples: Sequence[Example]) -> Tensor:
    lm.model.zero_grad()
    summed_loss(lm, lm.model, examples, plan()).backward()
    return torch.cat([weight.grad.flatten() for weight in weights(lm).values() if weight.grad is not None])


def test_what_is_not_learnt_is_not_predicted() -> None:
    lm = adapted()
    torch.manual_seed(0)
    for weight in weights(lm).values():  # so that every weight has a gradient
        torch.nn.init.normal_(weight, 0, 0.1)
    rows = EXAMPLES[:5]
    whole = gradient(lm, rows)
    others = [Example([*row.ids[:-1], 41 + number], row.learnt) for number, row in enumerate(rows)]
    torch.testing.assert_close(gradient(lm, others), whole)
    longer = [Example([*row.ids, 42, 43, 44], [*row.learnt, False, False, False]) for row in rows]
    torch.testing.assert_close(gradient(lm, longer), whole, atol=1e-4, rtol=1e-4)
    mostly = [with_learnt(row, 1) for row in rows]
    assert not torch.allclose(gradient(lm, mostly), whole, atol=1e-2)
    torch.testing.assert_close(sum(gradient(lm, [row]) for row in rows), whole, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("tokens", [1, 40, 60])
def test_cutting_a_step_into_passes_changes_nothing(tokens: int, tmp_path: Path) -> None:
    whole, cut = adapted(), adapted()
    one = finetune(whole, EXAMPLES, EXAMPLES[:9], plan(epochs=0.5), checkpoints=tmp_path)
    two = finetune(cut, EXAMPLES, EXAMPLES[:9], plan(epochs=0.5, tokens_per_pass=tokens), checkpoints=tmp_path)
    assert [row["loss"] for row in two] == pytest.approx([row["loss"] for row in one], rel=1e-4)
    assert two[-1]["dev_loss"] == pytest.approx(one[-1]["dev_loss"], rel=1e-4)
    for name, weight in weights(whole).items():
        torch.testing.assert_close(weights(cut)[name], weight, atol=1e-4, rtol=1e-3)


class Stopped(Exception):
    """Raised to break a run off."""


def train(checkpoints: Path, stop: Callable[[int], object] = lambda step: None) -> tuple[dict[str, Tensor], list]:
    """Eight steps with dropout; ``stop`` is called after every other one, a checkpoint written after every third."""
    lm = adapted(dropout=0.3)
    schedule = plan(log_every=2)
    rows = finetune(lm, EXAMPLES, EXAMPLES[:9], schedule, checkpoints=checkpoints, log=lambda row, step: stop(step))
    return weights(lm), rows


def stop_at(wanted: int) -> Callable[[int], object]:
    def stop(step: int) -> None:
        if step == wanted:
            raise Stopped

    return stop


def same(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def without_time(rows: list) -> list:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


@pytest.mark.parametrize("steps", [[2], [4], [4, 6], [8]], ids=str)
def test_a_stopped_run_ends_with_the_same_weights(steps: list[int], tmp_path: Path) -> None:
    whole, history = train(tmp_path / "whole")
    for step in steps:
        with pytest.raises(Stopped):
            train(tmp_path / "stopped", stop_at(step))
        assert sorted(int(path.name) for path in tmp_path.glob("stopped/*/*")) == [(step - 1) // 3 * 3][step < 4 :]
        torch.rand(step)  # the state of the generator does not matter
    resumed, rows = train(tmp_path / "stopped")
    assert same(resumed, whole)
    assert without_time(rows) == without_time(history)


def train_until_killed(_: Connection, checkpoints: Path) -> None:
    train(checkpoints, lambda step: step == 4 and os.kill(os.getpid(), signal.SIGKILL))


def test_a_killed_run_ends_with_the_same_weights(tmp_path: Path, start: Start) -> None:
    child = start(train_until_killed, tmp_path / "killed")
    assert list(received(child)) == []
    child.process.join()
    assert child.process.exitcode == -signal.SIGKILL
    assert [path.name for path in tmp_path.glob("killed/*/*")] == ["000000003"]
    steps: list[int] = []
    resumed, _ = train(tmp_path / "killed", steps.append)
    assert steps == [4, 6, 8]
    assert same(resumed, train(tmp_path / "whole")[0])


def test_another_run_does_not_go_on_from_the_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        train(tmp_path, stop_at(4))
    others = [(EXAMPLES[1:], plan(log_every=2)), (EXAMPLES, plan(log_every=2, learning_rate=1e-3))]
    for examples, schedule in others:
        with pytest.raises(Stopped):
            finetune(
                adapted(0.3),
                examples,
                EXAMPLES[:9],
                schedule,
                checkpoints=tmp_path,
                log=lambda _, step: stop_at(2)(step),
            )


def test_digest_sees_tokens_and_what_is_learnt() -> None:
    assert digest(EXAMPLES) == digest([example(number) for number in range(96)])
    assert digest(EXAMPLES) != digest(EXAMPLES[::-1])
    assert digest(EXAMPLES[:1]) != digest([with_learnt(EXAMPLES[0], 1)])


@pytest.mark.parametrize(("count", "size"), [(96, 12), (100, 12), (100, 7), (5, 12), (12, 12), (700, 2)])
def test_an_epoch_has_every_example_at_most_once_in_an_order_of_its_own(count: int, size: int) -> None:
    examples = [example(number) for number in range(count)]
    batches = Batches(examples, size, seed=3)
    assert batches.per_epoch == count // min(size, count)
    epochs = [[batches[epoch * batches.per_epoch + step] for step in range(batches.per_epoch)] for epoch in (0, 1, 2)]
    for epoch in epochs:
        assert {len(batch) for batch in epoch} == {min(size, count)}
        assert max(Counter(item for batch in epoch for item in batch).values()) == 1
    assert batches.per_epoch == 1 or epochs[0] != epochs[1] != epochs[2] != epochs[0]


def test_batches_are_a_function_of_step_and_seed() -> None:
    steps = [9, 0, 23, 8, 0, 15]
    one, two = (Batches(EXAMPLES, 12, seed=3) for _ in range(2))
    in_order = [one[step] for step in range(24)]
    assert [two[step] for step in steps] == [in_order[step] for step in steps]
    assert [Batches(EXAMPLES, 12, seed=4)[step] for step in range(24)] != in_order


def test_lengths_are_much_alike_in_a_batch() -> None:
    examples = [Example([0] * (1 + number % 100), [False] * (1 + number % 100)) for number in range(1000)]
    batches = Batches(examples, 10, seed=0)
    lengths = [[len(examples[item].ids) for item in batches[step]] for step in range(100)]
    padding = sum(max(batch) * len(batch) for batch in lengths) / sum(map(sum, lengths))
    assert padding < 1.1  # 1.8 in random batches
    firsts = [batch[0] for batch in lengths]
    assert sum(a < b for a, b in pairwise(firsts)) in range(30, 70)  # short and long ones mixed


def test_rate_rises_and_falls_to_nothing() -> None:
    schedule = plan(warmup=0.1)
    rates = [schedule.factor(step, 20) for step in range(20)]
    assert rates == pytest.approx([1 / 2, 1, *(number / 18 for number in range(18, 0, -1))])
    assert [plan(warmup=0).factor(step, 4) for step in range(4)] == pytest.approx([1, 1, 2 / 3, 1 / 3])
    assert plan().factor(0, 1) == 1
    uneven = [plan(warmup=0.15).factor(step, 10) for step in range(10)]
    assert max(uneven) == 1
    assert uneven[0] == pytest.approx(1 / 1.5)


def test_no_example_is_an_error(tmp_path: Path) -> None:
    for train_on, dev in (([], EXAMPLES), (EXAMPLES, [])):
        with pytest.raises(ValueError, match="expected at least one of each"):
            finetune(adapted(), train_on, dev, plan(), checkpoints=tmp_path)
