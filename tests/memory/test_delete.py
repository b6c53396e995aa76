"""What is deleted is gone, with the names that nothing mentions any more."""

from __future__ import annotations

from by_hand import ONE_YEAR, current, objects, subjects, t, ts, within

from palimpsest.facts import Query
from palimpsest.memory import Counts, Source, TripleMemory


def test_a_deleted_triple_is_gone_and_so_are_names_that_nothing_mentions(memory: TripleMemory) -> None:
    memory.add(ts("a r b", "a q c", "b q c"))
    assert memory.delete(ts("a r b", "a r c", "unknown r b")) == 1
    assert current(memory) == ts("a q c", "b q c")
    assert objects(memory, "a", "r") == []
    assert memory.counts() == Counts(triples=2, entities=3, relations=1, replaced=0)
    assert memory.delete(ts("a q c", "b q c", "a q c")) == 2
    assert memory.counts() == Counts(0, 0, 0, 0)
    assert memory.delete(ts("a q c")) == 0
    assert memory.delete([]) == 0
    memory.check()


def test_deleted_names_are_no_candidates_any_more(memory: TripleMemory) -> None:
    memory.add(ts("s r gone", "s~0.1 r stays"))
    memory.delete(ts("s r gone"))
    assert objects(memory, "s", "r", within(max_entities=1)) == ["stays"]


def test_a_deleted_triple_leaves_history_too(memory: TripleMemory) -> None:
    memory.add(ts("a r b", "a q b"))
    memory.update(t("a r c"))
    assert memory.delete(ts("a r b")) == 1
    assert list(memory.history()) == []
    assert memory.counts() == Counts(triples=2, entities=3, relations=2, replaced=0)
    memory.check()


def test_history_remembers_that_a_deleted_triple_came_after(memory: TripleMemory) -> None:
    memory.add(ts("a r 1"))
    memory.update(t("a r 2"))
    memory.update(t("a r 3"))
    memory.delete(ts("a r 3"))
    assert [(old.triple.object, old.replaced_by) for old in memory.history()] == [("1", "2"), ("2", None)]
    assert all(old.replaced_at for old in memory.history())
    memory.delete(ts("a r 2"))
    assert [(old.triple.object, old.replaced_by) for old in memory.history()] == [("1", None)]
    assert memory.counts() == Counts(triples=0, entities=2, relations=1, replaced=1)


def test_a_triple_deleted_and_added_again_starts_anew(memory: TripleMemory) -> None:
    memory.add(ts("a r b"), Source("old", time=ONE_YEAR))
    memory.delete(ts("a r b"))
    assert memory.add(ts("a r b"), Source("new", time=ONE_YEAR)) == 1
    assert [stored.sources for stored in memory] == [(Source("new", time=ONE_YEAR),)]
    assert objects(memory, "a", "r") == ["b"]


def test_an_entity_goes_with_all_that_mentions_it(memory: TripleMemory) -> None:
    memory.add(ts("a r b", "b r c", "c r a", "c q d", "b r b"))
    memory.update(t("a r e"))  # (a r b) is history
    assert memory.delete_entity("b") == 3
    assert current(memory) == ts("c r a", "c q d", "a r e")
    assert list(memory.history()) == []
    assert subjects(memory, "r", "b") == objects(memory, "b", "r") == []
    assert memory.counts() == Counts(triples=3, entities=4, relations=2, replaced=0)
    assert memory.delete_entity("b") == 0
    assert memory.delete_entity("r") == 0  # a relation
    assert memory.delete_entity("B") == 0
    memory.check()


def test_a_document_goes_with_what_it_alone_says(memory: TripleMemory) -> None:
    day = ONE_YEAR
    memory.add(ts("a r b", "b r c", "c q d"), [Source("first", n, time=day) for n in range(3)])
    memory.add(ts("a r b", "b r c"), Source("second", time=day))
    memory.add(ts("b r c"), Source(None, None, "somebody", day))
    memory.add(ts("c q d"), Source("first", 9, "model", day))  # twice in the same document
    assert [stored.triple for stored in memory.select(document="second")] == ts("a r b", "b r c")
    assert memory.delete_document("first") == 1
    assert [(stored.triple, stored.sources) for stored in memory] == [
        (t("a r b"), (Source("second", time=day),)),
        (t("b r c"), (Source(None, None, "somebody", day), Source("second", time=day))),
    ]
    assert memory.counts() == Counts(triples=2, entities=3, relations=1, replaced=0)
    assert list(memory.select(document="first")) == []
    assert memory.delete_document("second") == 1
    assert current(memory) == ts("b r c")
    assert memory.delete_document("second") == memory.delete_document("unknown") == 0
    memory.check()


def test_a_document_leaves_history_too(memory: TripleMemory) -> None:
    memory.add(ts("a r 1", "b r 1"), Source("rumour", time=ONE_YEAR))
    memory.add(ts("b r 1"), Source("book", time=ONE_YEAR))
    memory.update(t("a r 2"), Source("book"))
    memory.update(t("b r 2"), Source("rumour"))
    assert memory.delete_document("rumour") == 2  # (a r 1), which was history, and (b r 2)
    assert current(memory) == ts("a r 2")
    assert [(old.triple, old.sources, old.replaced_by) for old in memory.history()] == [
        (t("b r 1"), (Source("book", time=ONE_YEAR),), None)
    ]
    memory.check()


def test_erasing_can_wait_but_nothing_deleted_is_seen_meanwhile(memory: TripleMemory) -> None:
    memory.add(ts("a r b", "b r c", "c r d", "d r e"), [Source(f"doc {n}", time=ONE_YEAR) for n in range(4)])
    assert memory.delete(ts("a r b"), erase=False) == 1
    assert memory.delete_entity("c", erase=False) == 2
    assert memory.delete_document("doc 3", erase=False) == 1
    assert memory.counts() == Counts(0, 0, 0, 0)
    assert memory.query(Query("r", subject="a")).total == 0
    memory.erase()
    assert memory.add(ts("a r b")) == 1
    assert objects(memory, "a", "r") == ["b"]
    memory.check()
