"""Rows that are read on, taken back, branched and joined, against one plain forward pass on each row alone."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import Tensor
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedTokenizerFast

from palimpsest.lm.load import LanguageModel
from palimpsest.lm.rows import Rows, continue_greedily

CONTEXT = 40
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": CONTEXT}
GATED = {"intermediate_size": 64, "num_key_value_heads": 2}
ARCHITECTURES: dict[str, dict[str, object]] = {
    "gpt2": {},
    "gpt_neox": {"intermediate_size": 64, "rotary_pct": 0.5},
    "gptj": {"rotary_dim": 4},
    "llama": GATED,
    "mistral": GATED | {"sliding_window": 128},
    "qwen2": GATED,
    "qwen3": GATED | {"head_dim": 8},
    "gemma2": GATED | {"head_dim": 8, "sliding_window": 128, "final_logit_softcapping": 4.0},
}
Make = Callable[..., LanguageModel]


@pytest.fixture(scope="module")
def make(tiny_tokenizer: PreTrainedTokenizerFast) -> Make:
    """``make(architecture, **changes)``: a random model whose predictions differ from one another."""

    def made(architecture: str, **changes: object) -> LanguageModel:
        settings = {"vocab_size": len(tiny_tokenizer), "bos_token_id": None, "eos_token_id": 0, "pad_token_id": None}
        config = CONFIG_MAPPING[architecture](**settings | SIZES | ARCHITECTURES[architecture] | changes)
        torch.manual_seed(1)
        model = AutoModelForCausalLM.from_config(config)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "norm" not in name and "ln_" not in name:
                    weight.normal_(0, 0.2)
        return LanguageModel(model, tiny_tokenizer)

    return made


@pytest.fixture(scope="module", params=ARCHITECTURES)
def lm(request: pytest.FixtureRequest, make: Make) -> LanguageModel:
    return make(request.param)


@torch.no_grad()
def plain(lm: LanguageModel, tokens: list[int]) -> Tensor:
    """Logits (T, V) after each token: one row, no cache, no mask."""
    return lm.model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0]


class Checked:
    """Rows beside the tokens that they should hold; what reading them gives is compared with :func:`plain`."""

    def __init__(self, lm: LanguageModel, rows: Rows, held: list[list[int]]) -> None:
        self.lm, self.rows, self.held = lm, rows, held
        assert len(rows) == len(held)
        assert rows.lengths.tolist() == [len(row) for row in held]

    @classmethod
    def empty(cls, lm: LanguageModel, count: int) -> Checked:
        return cls(lm, Rows(lm, count), [[] for _ in range(count)])

    def read(self, pieces: list[list[int]]) -> None:
        logits = self.rows.read(pieces)
        self.held = [row + piece for row, piece in zip(self.held, pieces, strict=True)]
        assert self.rows.lengths.tolist() == [len(row) for row in self.held]
        expected = [
            plain(self.lm, row)[-len(piece) :] for row, piece in zip(self.held, pieces, strict=True) if len(piece)
        ]
        torch.testing.assert_close(logits, torch.cat(expected), atol=1e-4, rtol=0)

    def branch(self, rows: list[int], lengths: list[int] | None = None) -> Checked:
        kept = [CONTEXT] * len(rows) if lengths is None else lengths
        held = [self.held[row][:length] for row, length in zip(rows, kept, strict=True)]
        return Checked(self.lm, self.rows.branch(rows, lengths), held)


def join(chosen: list[tuple[Checked, int]]) -> Checked:
    rows = Rows.join([(batch.rows, row) for batch, row in chosen])
    return Checked(chosen[0][0].lm, rows, [list(batch.held[row]) for batch, row in chosen])


def text(rng: random.Random, length: int) -> list[int]:
    return [rng.randrange(1, 400) for _ in range(length)]


def test_rows_read_in_pieces_of_different_lengths(lm: LanguageModel) -> None:
    rng = random.Random(0)
    rows = Checked.empty(lm, 4)
    for lengths in ([3, 0, 7, 1], [1, 2, 0, 1], [0, 0, 0, 5], [1, 1, 1, 1], [12, 4, 2, 9]):
        rows.read([text(rng, length) for length in lengths])


def test_branches_hold_the_first_tokens_of_rows_and_leave_these_alone(lm: LanguageModel) -> None:
    rng = random.Random(1)
    rows = Checked.empty(lm, 3)
    rows.read([text(rng, 5), [], text(rng, 9)])
    rows.read([text(rng, 4), text(rng, 6), text(rng, 1)])
    rows.branch([2, 0, 0, 1, 2], [10, 3, 9, 1, 7]).read([text(rng, length) for length in (2, 0, 1, 4, 6)])
    rows.branch([1, 1, 0], [0, 6, 2]).read([text(rng, length) for length in (3, 1, 1)])
    rows.branch([2, 1]).read([text(rng, 1), []])
    rows.branch([0, 2], [99, 99]).read([text(rng, 2), text(rng, 2)])  # no row has so many: all of them
    rows.read([text(rng, 2), [], text(rng, 3)])


def test_rows_of_several_batches_are_joined(lm: LanguageModel) -> None:
    rng = random.Random(2)
    one, other = Checked.empty(lm, 2), Checked.empty(lm, 3)
    one.read([text(rng, 8), text(rng, 3)])
    other.read([[], text(rng, 2), text(rng, 1)])
    other.read([text(rng, 4), [], text(rng, 11)])
    joined = join([(other, 2), (one, 0), (other, 0), (other, 2), (one, 1)])
    joined.read([text(rng, length) for length in (1, 3, 0, 5, 2)])
    one.read([[], text(rng, 2)])
    join([(joined, 4), (one, 1)]).read([text(rng, 1), text(rng, 1)])


def test_empty_rows_can_be_branched_and_joined(lm: LanguageModel) -> None:
    rng = random.Random(3)
    new, old = Checked.empty(lm, 2), Checked.empty(lm, 1)
    old.read([text(rng, 4)])
    new.branch([1, 0, 1]).read([text(rng, 2), [], text(rng, 1)])
    join([(new, 0), (old, 0), (new, 1)]).read([text(rng, 2), text(rng, 3), []])
    join([(new, 1), (new, 0)]).read([[], text(rng, 3)])
    old.branch([0, 0], [0, 0]).read([text(rng, 2), text(rng, 1)])


@pytest.mark.parametrize("seed", range(3))
def test_many_rounds_in_random_order(lm: LanguageModel, seed: int) -> None:
    rng = random.Random(seed)
    batches = [Checked.empty(lm, rng.randint(1, 4)) for _ in range(2)]
    for _ in range(16):
        batch = rng.choice(batches)
        match rng.choice(["read", "read", "branch", "join"]):
            case "read":
                room = [min(CONTEXT - len(row), rng.choice([0, 1, 1, 5])) for row in batch.held]
                if any(room):
                    batch.read([text(rng, length) for length in room])
            case "branch":
                chosen = rng.choices(range(len(batch.held)), k=rng.randint(1, 4))
                cut = [rng.randint(0, len(batch.held[row])) for row in chosen] if rng.random() < 0.7 else None
                batches[rng.randrange(2)] = batch.branch(chosen, cut)
            case "join":
                places = [(part, row) for part in batches for row in range(len(part.held))]
                batches[rng.randrange(2)] = join(rng.choices(places, k=rng.randint(1, 4)))


def test_a_row_that_fills_the_context_stays_while_others_are_read(lm: LanguageModel) -> None:
    rng = random.Random(4)
    rows = Checked.empty(lm, 2)
    rows.read([text(rng, CONTEXT), text(rng, 3)])
    rows.read([[], text(rng, 4)])


def test_what_cannot_be_read_changes_nothing(make: Make) -> None:
    lm, rng = make("llama"), random.Random(5)
    rows = Checked.empty(lm, 2)
    rows.read([text(rng, 4), text(rng, 2)])
    with pytest.raises(ValueError, match="1 token lists for 2 rows"):
        rows.rows.read([[1]])
    with pytest.raises(ValueError, match="nothing to read"):
        rows.rows.read([[], []])
    with pytest.raises(ValueError, match=f"a row of {CONTEXT + 1} tokens, but the model's context is {CONTEXT}"):
        rows.rows.read([[1] * (CONTEXT - 3), [1]])
    rows.read([text(rng, 1), text(rng, 3)])


def test_a_sliding_window_that_is_too_short_is_refused(make: Make) -> None:
    lm, rng = make("mistral", sliding_window=8), random.Random(6)
    rows = Checked.empty(lm, 2)
    rows.read([text(rng, 5), text(rng, 2)])
    rows.read([text(rng, 2), []])
    with pytest.raises(ValueError, match="sliding window of 8"):
        rows.rows.read([[1], []])
    rows.branch([1, 1]).read([text(rng, 4), text(rng, 1)])


def literal_continuation(lm: LanguageModel, row: list[int], stop: set[int], most: int) -> list[int]:
    written: list[int] = []
    while len(written) < most and len(row) + len(written) < lm.context_length and not stop & set(written):
        written.append(most_probable(lm, (*row, *written)))
    return written


@cache
def most_probable(lm: LanguageModel, tokens: tuple[int, ...]) -> int:
    """The token that a row goes on with."""
    return int(plain(lm, list(tokens))[-1].argmax())


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("most", [0, 1, 4, 14])
def test_greedy_continuation_is_that_of_a_naive_loop(lm: LanguageModel, keep: bool, most: int) -> None:
    rng = random.Random(7)
    starts = [text(rng, length) for length in (4, 9, 1, CONTEXT - 6, 6, CONTEXT)]
    unstopped = [literal_continuation(lm, row, set(), 8) for row in starts]
    stop = {unstopped[0][2], unstopped[1][0], unstopped[4][5]}  # rows stop at different steps, the last of them late
    rows = Rows(lm, len(starts))
    ends = torch.tensor([len(row) for row in starts]).cumsum(0) - 1
    logits = rows.read(starts)[ends]
    written = continue_greedily(rows, logits, stop=stop, max_new_tokens=most, keep=keep)
    assert written == [literal_continuation(lm, row, stop, most) for row in starts]
    if keep:
        held = [start + tokens for start, tokens in zip(starts, written, strict=True)]
        Checked(lm, rows, held).read([[5] if len(row) < CONTEXT else [] for row in held])


def test_tokens_are_chosen_as_told(make: Make) -> None:
    lm, rng = make("gpt2"), random.Random(8)
    starts = [text(rng, length) for length in (3, 5, 2)]
    rows = Rows(lm, 3)
    logits = rows.read(starts)[torch.tensor([2, 7, 9])]
    seen: list[list[int]] = []

    def second_or_row(live: list[int], logits: Tensor) -> Tensor:
        """Row 1 goes on with the second choice, the others with their own numbers."""
        seen.append(list(live))
        second = logits.topk(2).indices[:, 1].tolist()
        return torch.tensor([token if row == 1 else row for row, token in zip(live, second, strict=True)])

    written = continue_greedily(rows, logits, stop={2}, max_new_tokens=3, choose=second_or_row, keep=False)
    expected: list[int] = []
    while len(expected) < 3:
        expected.append(int(plain(lm, starts[1] + expected)[-1].topk(2).indices[1]))
    assert written == [[0, 0, 0], expected, [2]]
    assert seen == [[0, 1, 2], [0, 1], [0, 1]]
