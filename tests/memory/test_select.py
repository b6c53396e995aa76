"""Triples are looked for, read out and counted by exact names."""

from __future__ import annotations

import threading
import time

import pytest
from by_hand import ONE_YEAR, Opened, current, t, ts

from palimpsest.facts import Triple
from palimpsest.memory import Counts, Source, TripleMemory

# -- is it there ---------------------------------------------------------------------------------------------------


def test_a_triple_is_there_by_its_exact_names(memory: TripleMemory) -> None:
    assert t("a r b") not in memory
    memory.add(ts("a r b", "b q c"))
    assert all(triple in memory for triple in ts("a r b", "b q c"))
    assert not any(
        triple in memory for triple in ts("A r b", "a R b", "a~0.01 r b", "b r a", "a q b", "a r c", "r r b")
    )
    assert not any(triple in memory for triple in ts("unknown r b", "a unknown b", "a r unknown"))


def test_what_was_replaced_or_deleted_is_not_there(memory: TripleMemory) -> None:
    old, new = ts("a r old", "a r new")
    memory.add([old])
    memory.update(new)
    assert (old in memory, new in memory) == (False, True)
    memory.add([old])
    assert (old in memory, new in memory) == (True, True)
    memory.delete([new])
    assert (old in memory, new in memory) == (True, False)
    memory.delete_entity("old")
    assert (old in memory, new in memory) == (False, False)


def test_others_see_at_once_whether_a_triple_is_there(lasting: str, opened: Opened) -> None:
    here, there, reader = opened(), opened(), opened(read_only=True)
    triple = t("a r b")
    assert [triple in memory for memory in (here, there, reader)] == [False] * 3
    here.add([triple])
    assert [triple in memory for memory in (here, there, reader)] == [True] * 3
    there.delete([triple])
    assert [triple in memory for memory in (here, there, reader)] == [False] * 3


def test_to_look_for_a_triple_needs_no_further_connection(
    memory: TripleMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("a further connection")

    memory.add(ts("a r b"))
    monkeypatch.setattr(memory.store, "_connect", refuse)
    assert t("a r b") in memory
    assert t("a r c") not in memory


@pytest.mark.usefixtures("hasty")
def test_threads_look_for_triples_while_one_writes(memory: TripleMemory) -> None:
    last, errors, done = 0, [], threading.Event()
    memory.add(ts("s r 0"))

    def look() -> None:
        try:
            while not done.is_set():
                seen = last
                assert t(f"s r {seen}") in memory
                assert t(f"s r {seen + 5}") not in memory or last > seen
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(1, 51):
        memory.add(ts(f"s r {number}"))
        last = number
    done.set()
    for thread in threads:
        thread.join(60)
    if errors:
        raise errors[0]


# -- all that fit --------------------------------------------------------------------------------------------------


def test_triples_are_looked_up_by_exact_names(memory: TripleMemory) -> None:
    stored = ts("a r b", "a q b", "b r a", "A r b", "a~0.01 r b")
    memory.add(stored, Source("doc", time=ONE_YEAR))
    assert current(memory) == stored

    def select(**names: str) -> list[Triple]:
        return [found.triple for found in memory.select(**names)]

    assert select(subject="a") == stored[:2]
    assert select(relation="r") == [stored[0], *stored[2:]]
    assert select(object="b") == [*stored[:2], *stored[3:]]
    assert select(subject="a", object="b") == stored[:2]
    assert select(subject="a", relation="r", object="b", document="doc") == stored[:1]
    assert select(subject="a", document="other") == []
    assert select(subject="nobody") == select(object="") == []
    assert len(memory) == 5


def test_counts(memory: TripleMemory) -> None:
    assert memory.counts() == Counts(0, 0, 0, 0)
    memory.add(ts("a r b", "b r c", "a q c"))
    assert memory.counts() == Counts(triples=3, entities=3, relations=2, replaced=0)


def test_iteration_shows_one_state_though_something_is_written_meanwhile(memory: TripleMemory) -> None:
    memory.add([Triple("s", "r", f"o {n}") for n in range(5)])
    seen = []
    for stored in memory:
        seen.append(stored.triple.object)
        memory.add([Triple("s", "r", f"{stored.triple.object} again")])
    assert seen == [f"o {n}" for n in range(5)]
    assert len(memory) == 10


def test_what_is_listed_can_be_deleted_one_by_one(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("palimpsest.memory.sqlite.BUSY_SECONDS", 1.0)  # that long it would wait for itself
    memory = opened()
    memory.add([Triple("s", "r", f"o {n}") for n in range(3)])
    start = time.monotonic()
    for stored in memory.select(subject="s"):
        assert memory.delete([stored.triple]) == 1
        assert stored.triple not in memory
    assert len(memory) == 0
    assert time.monotonic() - start < 1


def test_a_half_read_iteration_keeps_nobody_from_writing(memory: TripleMemory) -> None:
    memory.add(ts("a r b", "a r c"))
    iteration = iter(memory)
    assert next(iteration).triple == t("a r b")
    writer = threading.Thread(target=memory.add, args=(ts("a r d"),), daemon=True)
    writer.start()
    writer.join(1)
    waiting = writer.is_alive()
    assert [stored.triple for stored in iteration] == ts("a r c")
    writer.join(5)
    assert not waiting
    assert len(memory) == 3
