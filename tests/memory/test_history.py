"""What an update replaces is no answer any more, but stays in history."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from by_hand import ONE_YEAR, current, objects, subjects, t, ts

from palimpsest.memory import Counts, Source, TripleMemory


def test_an_update_replaces_the_object_and_keeps_history(memory: TripleMemory) -> None:
    memory.add(
        ts("France president Chirac", "France capital Paris", "Chirac born Paris"), Source("news", time=ONE_YEAR)
    )
    before = datetime.now(UTC)
    assert memory.update(t("France president Macron"), Source("later", 7, "model")) == ts("France president Chirac")
    assert objects(memory, "France", "president") == ["Macron"]
    assert subjects(memory, "president", "Chirac") == []
    assert current(memory) == ts("France capital Paris", "Chirac born Paris", "France president Macron")
    (old,) = memory.history()
    assert old.triple == t("France president Chirac")
    assert old.sources == (Source("news", time=ONE_YEAR),)
    assert old.replaced_by == "Macron"
    assert before - timedelta(microseconds=1) <= old.replaced_at <= datetime.now(UTC)
    assert memory.counts() == Counts(triples=3, entities=4, relations=3, replaced=1)
    assert len(memory) == 3
    assert t("France president Chirac") not in memory
    (new,) = memory.select(object="Macron")
    assert [(source.document, source.sentence, source.writer) for source in new.sources] == [("later", 7, "model")]
    assert (new.replaced_at, new.replaced_by) == (None, None)


def test_an_update_of_what_is_so_already_replaces_nothing(memory: TripleMemory) -> None:
    memory.add(ts("a r b"), Source("one", time=ONE_YEAR))
    assert memory.update(t("a r b"), Source("two", time=ONE_YEAR + timedelta(days=1))) == []
    (stored,) = memory
    assert [source.document for source in stored.sources] == ["one", "two"]
    assert list(memory.history()) == []


def test_an_update_of_something_new_just_stores_it(memory: TripleMemory) -> None:
    assert memory.update(t("a r b")) == []
    assert current(memory) == ts("a r b")


def test_an_update_replaces_all_rivals_and_nothing_else(memory: TripleMemory) -> None:
    memory.add(ts("a r x", "a r y", "a r z", "a q x", "b r x", "a r~0.1 x", "A r x"))
    assert memory.update(t("a r y")) == ts("a r x", "a r z")
    assert current(memory) == ts("a r y", "a q x", "b r x", "a r~0.1 x", "A r x")
    assert [(old.triple, old.replaced_by) for old in memory.history()] == [(t("a r x"), "y"), (t("a r z"), "y")]


def test_history_goes_on(memory: TripleMemory) -> None:
    memory.add(ts("a r 1"))
    for number in (2, 3, 1):  # 1 comes back, and stays in history too
        memory.update(t(f"a r {number}"))
    history = list(memory.history())
    assert [(old.triple.object, old.replaced_by) for old in history] == [("1", "2"), ("2", "3"), ("3", "1")]
    assert sorted(old.replaced_at for old in history) == [old.replaced_at for old in history]
    assert objects(memory, "a", "r") == ["1"]
    assert memory.counts() == Counts(triples=1, entities=4, relations=1, replaced=3)


def test_a_replaced_triple_that_is_added_again_is_current_again(memory: TripleMemory) -> None:
    memory.add(ts("a r b"))
    memory.update(t("a r c"))
    assert memory.add(ts("a r b")) == 1
    assert objects(memory, "a", "r") == ["b", "c"]  # b was stored first
    assert current(memory) == ts("a r c", "a r b")
    assert [old.triple for old in memory.history()] == ts("a r b")


def test_history_is_selected_by_exact_names(memory: TripleMemory) -> None:
    memory.add(ts("a r 1", "b r 1", "a q 2"))
    for triple in ts("b r 3", "a r 3", "a q 3"):
        memory.update(triple)
    assert [old.triple for old in memory.history()] == ts("b r 1", "a r 1", "a q 2")
    assert [old.triple for old in memory.history(subject="a")] == ts("a r 1", "a q 2")
    assert [old.triple for old in memory.history(relation="r", object="1")] == ts("b r 1", "a r 1")
    assert [old.triple for old in memory.history(subject="a", relation="r", object="2")] == []
    assert list(memory.history(subject="nobody")) == []
