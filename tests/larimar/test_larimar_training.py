from __future__ import annotations

import math
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch
from tiny import CORPUS, tiny_encoder, tiny_lm

from palimpsest.larimar.examples import answer_examples, text_examples
from palimpsest.larimar.model import Larimar
from palimpsest.larimar.sources import Codes, Episodes, NoisyValues
from palimpsest.larimar.training import Schedule, Task, evaluate, train_larimar
from palimpsest.lm.encoder import SentenceEncoder
from palimpsest.memllm.adapters import Lora

WORDS = " ".join(CORPUS).replace(".", "").replace("?", "").split()
TEXTS = [" ".join(WORDS[start : start + 5]) for start in range(0, len(WORDS) - 5, 3)]
ANSWERS = ["French", "Paris", "Bordeaux", "Glenda", "Viking", "Antarctica", "Coral", "Erebus"]
PROMPT = "The mother tongue of Danielle Darrieux is"
SCHEDULE = Schedule(
    epochs=2,
    batch_size=4,
    learning_rate=5e-3,
    weight_decay=0.01,
    precision="fp32",
    log_every=2,
    evaluate_every=3,
    checkpoint_every=2,
    beta=0.01,
    cycles=2,
)
LONG = replace(SCHEDULE, learning_rate=2e-2, weight_decay=0.0, log_every=1000, evaluate_every=1000)


@pytest.fixture(scope="module")
def encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoder")
    tiny_encoder(folder)
    return folder


def make(encoder_folder: Path, architecture: str = "llama", **options: object) -> Larimar:
    encoder = SentenceEncoder.load(encoder_folder)
    return Larimar(encoder, tiny_lm(architecture), **{"slots": 6, "code": 16, "tuning": "full"} | options)


def published(model: Larimar, texts: list[str] = TEXTS, sizes: tuple[int, ...] = (1, 2, 3)) -> Task:
    examples = text_examples(model.lm, texts)
    return Task(examples, Episodes(Codes(model, texts), sizes), examples)


def apart(model: Larimar, noise: tuple[float, float] = (0.0, 0.3)) -> Task:
    examples = answer_examples(model.lm, [PROMPT] * len(ANSWERS), ANSWERS)
    return Task(examples, NoisyValues(Codes(model, ANSWERS), noise), text_examples(model.lm, TEXTS))


def test_texts_and_answers_as_examples(encoder_folder: Path) -> None:
    lm = make(encoder_folder).lm
    (whole,) = text_examples(lm, ["Mount Erebus"])
    ids = lm.encode(["Mount Erebus"])[0]
    assert whole.ids == [lm.bos_id, *ids, lm.eos_id]
    (short,) = text_examples(lm, ["Mount Erebus"], max_tokens=3)
    assert short.ids == whole.ids[:3]
    assert whole.learnt == [False] + [True] * (len(ids) + 1)
    (answer,) = answer_examples(lm, [PROMPT], ["French"])
    assert answer.ids == [lm.bos_id, *lm.encode([f"{PROMPT} French"])[0]]
    assert answer.learnt == [False] * (1 + len(lm.encode([PROMPT])[0])) + [True] * len(lm.encode([" French"])[0])


def test_the_kl_terms_weight_goes_through_cycles() -> None:
    schedule = replace(SCHEDULE, beta=0.5, cycles=10)
    weights = [schedule.divergence_weight(step, 400) for step in range(400)]
    assert weights[:40] == weights[40:80] == weights[360:]
    assert weights[:21] == [0] * 21
    assert weights[25] == pytest.approx(0.25)
    assert weights[30:40] == [0.5] * 10
    assert weights[20:31] == sorted(weights[20:31])
    assert max(schedule.divergence_weight(step, 7) for step in range(7)) <= 0.5, "fewer steps than cycles"


def test_learning_rate_rises_and_falls() -> None:
    schedule = replace(SCHEDULE, warmup=0.1)
    factors = [schedule.factor(step, 100) for step in range(100)]
    assert factors[0] == pytest.approx(0.1)
    assert max(factors) == factors[9] == factors[10] == 1
    assert factors[99] == pytest.approx(1 / 90)


def test_an_episode_gives_back_what_was_written(encoder_folder: Path) -> None:
    model = make(encoder_folder)
    codes = Codes(model, TEXTS)
    items = [5, 0, 3, 7, 1]
    read_outs, divergence = Episodes(codes, (2, 3))(items, torch.Generator().manual_seed(0))
    z = model.encode([TEXTS[item] for item in items])
    assert torch.allclose(read_outs["autoencoding"], z, atol=1e-5)
    assert torch.allclose(read_outs["reconstruction"], z, atol=1e-3)
    w = z[:, :6]  # with the identity as prior and σ = 1
    assert divergence.item() == pytest.approx(0.5 * w.square().sum(1).mean().item(), rel=1e-3)
    model.train()
    noisy = Episodes(codes, (2, 3))(items, torch.Generator().manual_seed(0)).read_outs["reconstruction"]
    again = Episodes(codes, (2, 3))(items, torch.Generator().manual_seed(0)).read_outs["reconstruction"]
    assert torch.equal(noisy, again)
    assert (noisy - z).abs().mean() > 0.1
    with pytest.raises(ValueError, match="episode sizes"):
        Episodes(codes, ())


def test_a_texts_read_out_depends_on_its_episode_alone(encoder_folder: Path) -> None:
    model = make(encoder_folder, slots=2)  # so small that an episode does not fit
    source = Episodes(Codes(model, TEXTS), (3,))
    generator = torch.Generator()
    both = source([0, 1, 2, 3, 4], generator).read_outs["reconstruction"]
    first, second = (source(items, generator).read_outs["reconstruction"] for items in ([0, 1, 2], [3, 4]))
    assert torch.allclose(both, torch.cat([first, second]), atol=1e-4)
    assert not torch.allclose(first, Codes(model, TEXTS)([0, 1, 2]), atol=0.1)


@pytest.mark.parametrize("tune_encoder", [False, True])
def test_noise_of_a_value_is_measured_by_the_value(encoder_folder: Path, tune_encoder: bool) -> None:
    model = make(encoder_folder, tune_encoder=tune_encoder)
    codes = Codes(model, ANSWERS * 50)
    items = range(len(ANSWERS) * 50)
    z = codes(items)
    for scale in (1.0, 10.0):
        model.to_code.weight.data *= scale
        found, divergence = NoisyValues(codes, (0.5, 0.5))(items, torch.Generator().manual_seed(0))
        ratio = (found["answer"] - codes(items)).square().mean() / codes(items).square().mean()
        assert math.sqrt(ratio.item()) == pytest.approx(0.5, rel=0.05)
        assert divergence == 0
    assert torch.equal(NoisyValues(codes)(items, torch.Generator()).read_outs["answer"], codes(items))
    weak = NoisyValues(codes, scale=(0.25, 0.5))(items, torch.Generator().manual_seed(0)).read_outs["answer"]
    parts = weak / codes(items)
    torch.testing.assert_close(parts, parts[:, :1].expand_as(parts))
    assert 0.25 <= float(parts.min()) < float(parts.max()) <= 0.5
    assert z.requires_grad


def trained(folder: Path, encoder_folder: Path, kind: str, stop_at: int | None, **options: object) -> tuple:
    model = make(encoder_folder, **options)
    task = published(model) if kind == "published" else apart(model)

    def log(row: dict[str, float], step: int) -> None:
        if stop_at is not None and step >= stop_at:
            raise KeyboardInterrupt

    history = train_larimar(model, task, task, SCHEDULE, checkpoints=folder, log=log)
    return model, history


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("published", {"tuning": "full"}),
        ("published", {"tuning": Lora(rank=2, head=False), "tune_encoder": True, "architecture": "gpt2"}),
        ("apart", {"tuning": "frozen", "absent": "zero"}),
        ("apart", {"tuning": "full", "tune_encoder": True}),
    ],
    ids=str,
)
def test_a_killed_run_ends_like_an_unbroken_one(
    tmp_path: Path, encoder_folder: Path, kind: str, options: dict[str, object]
) -> None:
    unbroken, history = trained(tmp_path / "one", encoder_folder, kind, None, **options)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "two", encoder_folder, kind, 3, **options)
    resumed, resumed_history = trained(tmp_path / "two", encoder_folder, kind, None, **options)
    for (name, weight), other in zip(unbroken.named_parameters(), resumed.parameters(), strict=True):
        assert torch.equal(weight, other), name
    assert [row | {"seconds": 0} for row in history] == [row | {"seconds": 0} for row in resumed_history]
    start = make(encoder_folder, **options)
    for (name, weight), other in zip(start.named_parameters(), unbroken.parameters(), strict=True):
        used = not (kind == "apart" and name in ("prior", "log_variance")) and "pooler" not in name
        if not name.startswith(("encoder_model.", "decoder.model.")):
            assert torch.equal(weight, other) is not used, name
        if not weight.requires_grad:
            assert torch.equal(weight, other), name


def test_curves_hold_every_term(tmp_path: Path, encoder_folder: Path) -> None:
    rows = []
    model = make(encoder_folder)
    task = published(model)
    history = train_larimar(
        model, task, task, SCHEDULE, checkpoints=tmp_path, log=lambda row, step: rows.append((step, dict(row)))
    )
    assert rows == [(row["step"], row) for row in history]
    last = history[-1]
    terms = evaluate(model, task, SCHEDULE)
    assert set(terms) == {"reconstruction", "autoencoding", "language"}
    assert {name: last[f"dev_{name}"] for name in terms} == terms
    assert last["dev_loss"] == pytest.approx(sum(terms.values()))
    assert all(math.isfinite(value) for row in history for value in row.values())
    assert not model.training


def test_a_frozen_decoder_learns_nothing_from_plain_text(tmp_path: Path, encoder_folder: Path) -> None:
    model = make(encoder_folder, tuning="frozen")
    assert "language" not in evaluate(model, published(model), SCHEDULE)
    with pytest.raises(ValueError, match="0 training and 0 dev examples"):
        train_larimar(model, published(model, []), published(model, []), SCHEDULE, checkpoints=tmp_path)


def test_evaluation_does_not_depend_on_batches_without_noise(encoder_folder: Path) -> None:
    model = make(encoder_folder)
    task = apart(model, (0.0, 0.0))
    one, other = (evaluate(model, task, replace(SCHEDULE, batch_size=size)) for size in (3, 50))
    assert one == pytest.approx(other, abs=1e-5)
    scores = model.decoder.score([PROMPT] * len(ANSWERS), ANSWERS, model.encode(ANSWERS))
    tokens = sum(len(score.token_ids) for score in scores)
    assert one["answer"] == pytest.approx(-sum(score.logprob for score in scores) / tokens, abs=1e-4)


def test_a_decoder_learns_to_say_what_it_is_given(tmp_path: Path, encoder_folder: Path) -> None:
    """The same prompt, another answer for each read-out."""
    model = make(encoder_folder)
    task = apart(model, (0.0, 0.1))
    history = train_larimar(model, task, task, replace(LONG, epochs=120, batch_size=8), checkpoints=tmp_path)
    assert history[-1]["dev_answer"] < 0.1
    said = model.decoder.generate([PROMPT] * len(ANSWERS), model.encode(ANSWERS), max_new_tokens=4)
    assert [text.startswith(f" {answer}") for text, answer in zip(said, ANSWERS, strict=True)] == [True] * len(ANSWERS)


def test_a_frozen_decoder_learns_too_and_stays_what_it_was_without_memory(tmp_path: Path, encoder_folder: Path) -> None:
    model = make(encoder_folder, tuning="frozen")
    before = [score.logprob for score in model.decoder.score(TEXTS, ["is"] * len(TEXTS))]
    task = apart(model, (0.0, 0.1))
    start = evaluate(model, task, LONG)["answer"]
    history = train_larimar(model, task, task, replace(LONG, epochs=40, batch_size=8), checkpoints=tmp_path)
    assert history[-1]["dev_answer"] < start - 1
    assert [score.logprob for score in model.decoder.score(TEXTS, ["is"] * len(TEXTS))] == before


def test_the_published_objective_learns_to_say_what_was_written(tmp_path: Path, encoder_folder: Path) -> None:
    """Pairs of words, of which the first tells nothing of the second: only a read-out can."""
    pairs = [f"{first} {second}" for first, second in product(ANSWERS[:4], repeat=2)]
    model = make(encoder_folder)
    task = published(model, pairs, (1, 2, 4))
    schedule = replace(LONG, epochs=60, batch_size=16, beta=1e-3)
    last = train_larimar(model, task, task, schedule, checkpoints=tmp_path)[-1]
    assert last["dev_reconstruction"] == pytest.approx(last["dev_autoencoding"], abs=0.02)
    assert last["dev_reconstruction"] < 0.6 * last["dev_language"]
