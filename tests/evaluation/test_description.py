"""Counts of a data set, by hand."""

from palimpsest.evaluation.description import document_sizes, names, relation_counts
from palimpsest.facts import Document, Entity, Fact, Mention

PAGES = [
    Document(
        "t",
        (("Ann", "was", "born", "in", "1961", "."), ("Ann", "knows", "Bo", ".")),
        (
            Entity((Mention("Ann", 0, 0, 1), Mention("Ann", 1, 0, 1)), "PER"),
            Entity((Mention("1961", 0, 4, 5),), "TIME"),
            Entity((Mention("Bo", 1, 2, 3),), "PER"),
        ),
        (Fact(0, "P569", 1, (0,)),),
    )
]


def test_relations_and_sizes() -> None:
    counts = relation_counts({"test": PAGES * 2}, {"P569": "date of birth"})
    assert counts.values.tolist() == [["test", "P569", "date of birth", 2]]
    sizes = document_sizes({"test": PAGES * 2}).set_index("measure")[["value", "count"]]
    assert sizes.loc["words"].tolist() == [10, 2]
    assert sizes.loc["mentions"].tolist() == [4, 2]
    assert sizes.loc["facts"].tolist() == [1, 2]


def test_names_leave_out_dates() -> None:
    assert names(PAGES) == {"Ann", "Bo"}
