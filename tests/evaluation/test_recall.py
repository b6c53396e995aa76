"""Recall: what counts as exact, how mentions are counted, and the headline's groups."""

import pandas as pd
import pytest

from palimpsest.evaluation.recall import (
    begins_with,
    count_mentions,
    majority_recall,
    recall_curve,
    summarize,
    with_counts,
)
from palimpsest.facts import Edit


@pytest.mark.parametrize(
    ("text", "answer", "exact"),
    [(" Oslo.", "Oslo", True), ("Oslo", "Oslo", True), (" Oslofjord", "Oslo", False), (" in Oslo", "Oslo", False),
     (" 19612", "1961", False), (" 12,000 people", "12,000", True), ("", "Oslo", False),
     (" Ann Lee and", "Ann Lee", True)],
)  # fmt: skip
def test_exact_means_to_begin_with_the_answer(text: str, answer: str, exact: bool) -> None:
    assert begins_with(text, [answer]) is exact
    assert begins_with(text, ["nothing", answer]) is exact


def test_mentions_are_counted_by_whole_words() -> None:
    chunks = ["Ann Lee met Ann Lee in Oslo.", "Ann Leeson left Oslo.", "Oslo's mayor is Bo.", "Ann Lee, 12,000."]
    counts = count_mentions(chunks, [("Ann Lee", "Oslo"), ("Oslo", "Bo"), ("Ann Lee", "12,000"), ("Ann Lee", "Nobody")])
    assert counts.mentions == {"Ann Lee": 3, "Oslo": 3, "Bo": 1, "12,000": 1}
    assert counts.together == {("Ann Lee", "Oslo"): 1, ("Oslo", "Bo"): 1, ("Ann Lee", "12,000"): 1}


def test_names_within_names_count_too() -> None:
    counts = count_mentions(["University of York"], [("University of York", "York")])
    assert counts.mentions == {"University of York": 1, "York": 1}
    assert counts.together == {("University of York", "York"): 1}


def fact(subject: str, answer: str) -> Edit:
    return Edit("0", subject, f"{subject} is in", "X", (answer,), relation="P17")


def test_chance_is_the_commonest_known_answer() -> None:
    known = [fact("a", "France"), fact("b", "France"), fact("c", "Spain")]
    chance = majority_recall([fact("d", "France"), fact("e", "Italy")], known)
    assert (chance.value, chance.n) == (0.5, 2)


def test_summary_groups() -> None:
    rows = pd.DataFrame(
        [
            {"split": "train", "template": "train", "mentions": 200, "exact": True, "case_id": "0"},
            {"split": "train", "template": "heldout", "mentions": 200, "exact": False, "case_id": "0"},
            {"split": "train", "template": "heldout", "mentions": 200, "exact": True, "case_id": "0"},
            {"split": "train", "template": "train", "mentions": 1, "exact": False, "case_id": "1"},
            {"split": "test", "template": "train", "mentions": 0, "exact": False, "case_id": "0"},
        ]
    )
    facts = {"train": [fact("a", "France")], "test": [fact("b", "Spain")]}
    summary = summarize(rows, facts, frequent=100)
    assert {name: (figure.value, figure.n) for name, figure in summary.items()} == {
        "train_templates": (1.0, 1), "heldout_templates": (0.5, 1), "rare_entities": (0.0, 1),
        "test_entities": (0.0, 1), "test_entities_chance": (0.0, 1),
    }  # fmt: skip
    assert set(summarize(rows[:0], {"train": []}, frequent=100)) == set()


def test_curve_bins_by_doublings() -> None:
    rows = pd.DataFrame(
        {"subject": "Ann", "answer": "Bo", "template": "train", "exact": [True, False], "case_id": ["0", "1"]}
    )
    counted = with_counts(rows, ["Ann knows Bo.", "Ann.", "Bo and Ann."])
    assert counted["mentions"].tolist() == [3, 3]
    assert counted["stated"].tolist() == [2, 2]
    curve = recall_curve(counted.assign(stated=[5, 999]))
    assert curve[["stated", "value", "n"]].values.tolist() == [["4–7", 1.0, 1], ["≥ 128", 0.0, 1]]
