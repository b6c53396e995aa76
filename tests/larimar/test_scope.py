"""Scope detectors: what each sees in a prompt, and how a threshold is chosen."""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from palimpsest.larimar import MatrixMemory, NearestAddressing
from palimpsest.larimar.scope import (
    Familiarity,
    NamedSubject,
    NearestKey,
    NearestPrompt,
    Scope,
    choose_threshold,
    operating_characteristic,
    words,
)

NO_QUERIES, NO_MEMORY = torch.zeros(0, 2), MatrixMemory(NearestAddressing(4, 2), 2)


class Plane:
    """An encoder of texts that are two numbers, of any length."""

    identity = "plane"

    def __init__(self) -> None:
        self.seen: list[str] = []

    def encode(self, texts: Sequence[str]) -> Tensor:
        if "broken" in texts:
            raise OSError("broken")
        self.seen += texts
        return torch.tensor([[float(number) for number in text.split()] for text in texts]).view(-1, 2)


def scores(scope: Scope, prompts: Sequence[str]) -> list[float]:
    found = scope.scores(prompts, NO_QUERIES, NO_MEMORY)
    assert found.shape == (len(prompts),)
    assert found.dtype == torch.float64
    return found.tolist()


# -- the nearest prompt ------------------------------------------------------------------------------------------------


def test_similarity_to_the_nearest_prompt_by_hand() -> None:
    scope = NearestPrompt(Plane())
    assert scores(scope, ["3 4", "0 1"]) == [-1, -1]
    scope.remember(["a", "b"], ["2 0", "0 5"])
    assert scores(scope, ["3 4", "-3 0", "-1 -1", "0 7"]) == pytest.approx([0.8, 0, -(0.5**0.5), 1])
    assert scores(scope, []) == []
    scope.forget(["b"], ["0 5"])
    assert scores(scope, ["3 4"]) == pytest.approx([0.6])
    scope.forget(["a"], ["2 0"])
    assert scores(scope, ["3 4"]) == [-1]


def test_a_prompt_stays_as_long_as_one_of_its_facts() -> None:
    scope = NearestPrompt(encoder := Plane())
    scope.remember(["a", "a"], ["1 0", "1 0"])
    scope.remember(["a"], ["1 0"])
    assert encoder.seen == ["1 0"]
    scope.forget(["a", "a"], ["1 0", "1 0"])
    assert scores(scope, ["1 0"]) == [1]
    scope.forget(["a"], ["1 0"])
    assert scores(scope, ["1 0"]) == [-1]


@pytest.mark.parametrize("make", [NearestPrompt, lambda encoder: NamedSubject(NearestPrompt(encoder))])
def test_what_raises_changes_nothing(make: type[NearestPrompt]) -> None:
    scope, prompts = make(Plane()), ["1 0", "0 1", "1 1"]
    scope.remember(["1", "x y"], ["1 0", "0 1"])
    before = scores(scope, prompts)
    with pytest.raises(OSError, match="broken"):
        scope.remember(["0", "x y"], ["1 1", "broken"])
    for subjects, forgotten in ((["1", "1"], ["1 0", "1 0"]), (["1", "0"], ["1 0", "1 1"])):
        with pytest.raises(KeyError, match="cannot be forgotten"):
            scope.forget(subjects, forgotten)
    assert scores(scope, prompts) == before
    scope.forget(["1", "x y"], ["1 0", "0 1"])
    assert max(scores(scope, prompts)) < 0


# -- the memory itself -------------------------------------------------------------------------------------------------


def test_the_nearest_key_by_hand() -> None:
    memory = MatrixMemory(NearestAddressing(4, 2), 2)
    scope, queries = NearestKey(torch.tensor([[1.0, 0.0], [0.0, 0.0]])), torch.tensor([[3.0, 4.0], [-1.0, 5.0]])
    assert scope.scores(["a", "b"], queries, memory).tolist() == [-1, -1]
    assert scope.scores([], queries[:0], memory).tolist() == []
    keys = torch.tensor([[2.0, 7.0], [-1.0, 1.0]])
    memory.write(keys, keys, ["one", "two"])
    assert scope.scores(["a", "b"], queries, memory).tolist() == [1, 1]  # of the first number the sign alone
    memory.forget(["two"])
    assert scope.scores(["a", "b"], queries, memory).tolist() == [1, -1]


def test_familiarity_is_the_memorys() -> None:
    memory = MatrixMemory(NearestAddressing(4, 2), 2)
    memory.write(torch.tensor([[2.0, 0.0]]), torch.ones(1, 2), ["a"])
    scope, queries = Familiarity(), torch.tensor([[3.0, 4.0], [-1.0, 0.0]])
    scope.remember(["a"], ["2 0"])
    assert scope.scores(["3 4", "-1 0"], queries, memory).tolist() == pytest.approx([0.6, 0])
    scope.forget(["a"], ["2 0"])
    memory.forget(["a"])
    assert scope.scores(["3 4", "-1 0"], queries, memory).tolist() == [0, 0]


# -- subjects ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "expected"), [
    ("Ann Lee's novel, 'Dusk'.", ["Ann", "Lee", "'", "s", "novel", ",", "'", "Dusk", "'", "."]),
    ("U.S.A. 3,794m", ["U", ".", "S", ".", "A", ".", "3", ",", "794m"]),
    ("  Ann\t\u00a0Lee\n", ["Ann", "Lee"]),
    ("Ærø naïve", ["Ærø", "naïve"]),
    (unicodedata.normalize("NFD", "Ærø naïve"), ["Ærø", "naïve"]),
    ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
    ("東京は", ["東", "京", "は"]),
    ("서울의", ["서", "울", "의"]),
    ("กรุงเทพ", ["ก", "รุ", "ง", "เ", "ท", "พ"]),
    ("\u200eAnn\u200f Le\u00ade", ["Ann", "Lee"]),
    ("🙂🙂 C++", ["🙂", "🙂", "C", "+", "+"]),
    ("", []),
    ("\u0301a", ["\u0301", "a"]),
])  # fmt: skip
def test_words(text: str, expected: list[str]) -> None:
    assert words(text) == expected


@pytest.mark.parametrize(("subject", "named", "unnamed"), [
    ("Ann Lee", ["Where was Ann Lee born?", "Ann  Lee", "Ann Lee's mother", "(Ann Lee)", "Joann; Ann Lee"],
     ["Ann Leeds was", "Joann Lee was", "Lee Ann was", "ann lee", "Ann, Lee", "Ann", ""]),
    ("Who?", ["Is Who? a play?"], ["Who is it", "Who"]),
    ("AC/DC", ["When did AC/DC form"], ["AC and DC", "TRAC/DC", "AC/DCs"]),
    ("C++", ["Who made C++?"], ["Who made C?", "Who made C+?"]),
    ("José", [unicodedata.normalize("NFD", "Is José here"), "José"], ["Jose", "Joséphine"]),
    ("東京", ["東京はどこ", "新東京"], ["東の京", "京東"]),
    ("हि", ["हि है"], ["हिन्दी"]),
    ("!!!", ["a song by !!! is"], ["a song! is"]),
])  # fmt: skip
def test_a_subject_is_named_in_whole_words(subject: str, named: list[str], unnamed: list[str]) -> None:
    scope = NamedSubject(Familiarity())
    scope.remember([subject, "Mount Erebus"], ["", ""])
    assert [prompt for prompt in named if not scope.names(prompt)] == []
    assert [prompt for prompt in unnamed if scope.names(prompt)] == []


@given(before=st.text(max_size=5), subject=st.text(min_size=1, max_size=8), after=st.text(max_size=5))
def test_any_subject_is_found_among_other_words(before: str, subject: str, after: str) -> None:
    scope = NamedSubject(Familiarity())
    scope.remember([subject], [""])
    assert scope.names(f"{before} {subject} {after}") == bool(words(subject))
    scope.forget([subject], [""])
    assert not scope.names(f"{before} {subject} {after}")


def test_scores_are_lowered_where_no_subject_is_named() -> None:
    scope = NamedSubject(NearestPrompt(Plane()), penalty=0.5)
    scope.remember(["4", ""], ["1 0", "0 1"])
    assert scores(scope, ["3 4", "4 3", "3 5"]) == pytest.approx([0.8, 0.8, 5 / 34**0.5 - 0.5])
    scope.remember(["4"], ["1 1"])
    scope.forget(["4"], ["1 0"])
    assert scores(scope, ["4 0"]) == pytest.approx([0.5**0.5])
    scope.forget(["4"], ["1 1"])
    assert scores(scope, ["4 0"]) == pytest.approx([0 - 0.5])
    scope.forget([""], ["0 1"])
    assert scores(scope, ["4 0"]) == [-1.5]


def test_looking_for_subjects_takes_no_longer_the_more_there_are() -> None:
    """And long prompts take no more than their length."""
    scope, prompt = NamedSubject(Familiarity()), "the author of this book is " * 500
    scope.remember(names := [f"Ann {number} Lee" for number in range(20_000)], names)
    started = time.perf_counter()
    assert not scope.names(prompt)
    assert scope.names(f"{prompt} Ann 19999 Lee")
    assert time.perf_counter() - started < 2


# -- threshold ---------------------------------------------------------------------------------------------------------


def test_a_curve_by_hand() -> None:
    curve = operating_characteristic(torch.tensor([0.9, 0.5, 0.7]), torch.tensor([0.6, 0.1]))
    assert curve.thresholds.tolist() == pytest.approx([1.9, 0.9, 0.7, 0.6, 0.5, 0.1])
    assert curve.true_positives.tolist() == pytest.approx([0, 1 / 3, 2 / 3, 2 / 3, 1, 1])
    assert curve.false_positives.tolist() == pytest.approx([0, 0, 0, 1 / 2, 1 / 2, 1])
    assert curve.area == pytest.approx(5 / 6)  # of six pairs, 0.5 with 0.6 is the wrong way round
    assert choose_threshold(curve) == pytest.approx(0.65)


def test_ties_count_half() -> None:
    curve = operating_characteristic(torch.tensor([0.5, 0.8, 0.8]), torch.tensor([0.5, 0.5, 0.2, 0.8]))
    # Pairs: 0.5 beats 0.2 and ties with two; 0.8 beats three and ties with one, twice.
    assert curve.area == pytest.approx((1 + 2 / 2 + 2 * (3 + 1 / 2)) / 12)
    assert curve.thresholds.tolist() == pytest.approx([1.8, 0.8, 0.5, 0.2])
    assert choose_threshold(curve) == pytest.approx(0.65)


def test_kinds_that_are_told_apart() -> None:
    curve = operating_characteristic(torch.tensor([0.8, 1.0]), torch.tensor([0.4, -1.0]))
    assert curve.area == 1
    assert choose_threshold(curve) == pytest.approx(0.6)


def test_scores_that_tell_nothing_put_nothing_in_scope() -> None:
    for inside, outside in (([0.5, 0.5], [0.5]), ([0.1], [0.9])):
        curve = operating_characteristic(torch.tensor(inside), torch.tensor(outside))
        assert choose_threshold(curve) > max(inside + outside)
        assert np.isfinite(choose_threshold(curve))
    assert operating_characteristic(torch.ones(2), torch.ones(3)).area == 0.5
    assert operating_characteristic(torch.zeros(2), torch.ones(3)).area == 0


def test_of_equally_good_thresholds_the_highest() -> None:
    curve = operating_characteristic(torch.tensor([0.9, 0.5, 0.1]), torch.tensor([0.7, 0.3, 0.0]))
    # The shares are 1/3 apart at 0.9, at 0.5 and at 0.1.
    assert choose_threshold(curve) == pytest.approx(0.8)
    everything = operating_characteristic(torch.tensor([1.0, 1.0]), torch.tensor([0.0]))
    assert choose_threshold(everything) == 0.5


@given(
    inside=st.lists(st.integers(0, 9), min_size=1, max_size=12),
    outside=st.lists(st.integers(0, 9), min_size=1, max_size=12),
)
def test_curves_as_counting_has_them(inside: list[int], outside: list[int]) -> None:
    curve = operating_characteristic(torch.tensor(inside).float(), torch.tensor(outside).float())
    for threshold, *shares in zip(curve.thresholds, curve.true_positives, curve.false_positives, strict=True):
        for share, kind in zip(shares, (inside, outside), strict=True):
            assert share == pytest.approx(sum(score >= threshold for score in kind) / len(kind))
    pairs = [(one > other) + (one == other) / 2 for one in inside for other in outside]
    assert curve.area == pytest.approx(sum(pairs) / len(pairs))

    def apart(threshold: float) -> float:
        return np.mean(np.array(inside) >= threshold) - np.mean(np.array(outside) >= threshold)

    assert apart(choose_threshold(curve)) == pytest.approx(max(map(apart, np.arange(-0.5, 11))))


def test_scores_that_make_no_curve() -> None:
    for inside, outside, message in (
        ([], [1.0], "0 scores in scope and 1 out of it"),
        ([1.0], [], "1 scores in scope and 0 out of it"),
        ([1.0], [float("nan")], "not finite"),
        ([float("inf")], [0.0], "not finite"),
    ):
        with pytest.raises(ValueError, match=message):
            operating_characteristic(torch.tensor(inside), torch.tensor(outside))
