"""A map of keys is learnt from wordings, and used by addressings."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from palimpsest.larimar.addressing import FeatureAddressing, NearestAddressing
from palimpsest.larimar.keys import KeyLearning, learn_keys
from palimpsest.larimar.wordings import Wordings

SIZE, FACTS, WORDED = 12, 40, 3
LEARNING = KeyLearning(steps=60, facts=32, learning_rate=0.05, evaluate_every=20)


class Wordy:
    """An encoder whose vectors tell more of the wording (8 numbers, loud) than of the fact (4 numbers)."""

    def __init__(self, identity: str = "wordy") -> None:
        self.identity = identity

    def encode(self, texts: Sequence[str]) -> Tensor:
        rows = []
        for text in texts:
            fact, wording = map(int, text.split("/"))
            parts = [torch.randn(4, generator=torch.Generator().manual_seed(fact)),
                     3 * torch.randn(8, generator=torch.Generator().manual_seed(1000 + wording))]  # fmt: skip
            rows.append(torch.cat(parts))
        return normalize(torch.stack(rows), dim=-1)


def facts(first: int) -> list[Wordings]:
    numbers = range(first, first + FACTS)
    return [Wordings(f"{n}/0", tuple(f"{n}/{wording}" for wording in range(1, WORDED))) for n in numbers]


DEV = {"unseen": facts(100)}


@pytest.fixture(scope="module")
def learnt() -> Tensor:
    return learn_keys(Wordy(), facts(0), DEV, LEARNING)[0]


def test_wordings_of_unseen_facts_meet() -> None:
    _, history = learn_keys(Wordy(), facts(0), DEV, LEARNING)
    found = history.set_index("step")["found"]
    assert list(found.index) == [0, 20, 40, 60]
    assert {*history["kind"]} == {"unseen"}
    assert {*history["facts"]} == {FACTS}
    assert found[0] < 0.5
    assert found[60] > 0.9
    assert history["loss"].iloc[-1] < history["loss"].iloc[1]


def test_the_same_seed_learns_the_same(learnt: Tensor) -> None:
    again, _ = learn_keys(Wordy(), facts(0), DEV, LEARNING)
    assert torch.equal(learnt, again)


@pytest.mark.parametrize("train", [facts(0)[:1], [Wordings("0/0", ()), Wordings("1/0", ())]], ids=["one", "one way"])
def test_there_must_be_something_to_tell_apart(train: list[Wordings]) -> None:
    with pytest.raises(ValueError, match="expected two facts"):
        learn_keys(Wordy(), train, DEV, LEARNING)


@pytest.mark.parametrize("kind", ["features", "nearest"])
def test_with_the_map_other_wordings_read_their_own_fact(kind: str, learnt: Tensor) -> None:
    encoder, values = Wordy(), torch.eye(FACTS)
    keys = encoder.encode([fact.written for fact in facts(100)])
    queries = encoder.encode([fact.others[0] for fact in facts(100)])

    def share_found(key_map: Tensor | None) -> float:
        addressing: FeatureAddressing | NearestAddressing
        if kind == "features":
            addressing = FeatureAddressing(512, SIZE, seed=0, kind="fourier", sharpness=3.0, key_map=key_map)
        else:
            addressing = NearestAddressing(64, SIZE, key_map=key_map)
        state = addressing.write(addressing.empty(FACTS), keys, values)  # type: ignore[arg-type]
        read = addressing.read_weights(state, queries) @ addressing.contents(state)  # type: ignore[arg-type]
        return float((read.argmax(1) == torch.arange(FACTS)).float().mean())

    assert share_found(None) < 0.5
    assert share_found(learnt) > 0.9


def test_what_is_written_under_another_map_does_not_mix(learnt: Tensor) -> None:
    for make in (
        lambda key_map: FeatureAddressing(8, SIZE, seed=0, key_map=key_map).identity,
        lambda key_map: NearestAddressing(8, SIZE, key_map=key_map).identity,
    ):
        assert len({make(None), make(learnt), make(2 * learnt)}) == 3


@pytest.mark.parametrize("key_map", [torch.eye(SIZE + 1), torch.full((SIZE, SIZE), float("nan")), torch.ones(SIZE)])
def test_a_map_of_another_size_or_of_no_numbers_is_refused(key_map: Tensor) -> None:
    with pytest.raises(ValueError, match="key_map: expected finite numbers \\(12, any\\)"):
        NearestAddressing(8, SIZE, key_map=key_map)
    with pytest.raises(ValueError, match="key_map"):
        FeatureAddressing(8, SIZE, seed=0, key_map=key_map)
