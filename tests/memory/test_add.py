"""Adding triples with their sources."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone

import pytest
from by_hand import ONE_YEAR, current, t, ts

from palimpsest.memory import Source, StoredTriple, TripleMemory


def test_adding_twice_changes_nothing(memory: TripleMemory) -> None:
    triples = ts("a r b", "a r c")
    assert memory.add(triples, Source("doc", 3, "model", ONE_YEAR)) == 2
    before = list(memory), memory.counts()
    assert memory.add(triples, Source("doc", 3, "model", ONE_YEAR + timedelta(days=1))) == 0
    assert (list(memory), memory.counts()) == before
    assert before[0] == [StoredTriple(triple, (Source("doc", 3, "model", ONE_YEAR),)) for triple in triples]


def test_a_batch_may_repeat_itself(memory: TripleMemory) -> None:
    assert memory.add(ts("a r b", "a r b", "a r c", "a r b")) == 2
    assert current(memory) == ts("a r b", "a r c")
    assert [len(stored.sources) for stored in memory] == [1, 1]
    assert memory.add([]) == 0


def test_a_triple_collects_its_sources_oldest_first(memory: TripleMemory) -> None:
    days = [ONE_YEAR + timedelta(days=n) for n in range(4)]
    memory.add(ts("a r b"), Source("late", 0, "model", days[3]))
    assert memory.add(ts("a r b"), Source("early", 0, "model", days[0])) == 0
    memory.add(ts("a r b") * 2, [Source("late", 1, "model", days[1]), Source("late", 0, "annotator", days[2])])
    (stored,) = memory
    assert [(source.document, source.sentence, source.writer, source.time) for source in stored.sources] == [
        ("early", 0, "model", days[0]),
        ("late", 1, "model", days[1]),
        ("late", 0, "annotator", days[2]),
        ("late", 0, "model", days[3]),
    ]
    assert memory.counts().triples == 1


def test_each_triple_may_have_a_source_of_its_own(memory: TripleMemory) -> None:
    sources = [Source("one", 0, time=ONE_YEAR), Source("two", time=ONE_YEAR)]
    memory.add(ts("a r b", "a r c"), sources)
    assert [stored.sources for stored in memory] == [(sources[0],), (sources[1],)]
    memory.add((triple for triple in ts("a r d")), sources[:1])
    with pytest.raises(ValueError, match="2 triples but 1 sources"):
        memory.add(ts("a r e", "a r f"), sources[:1])
    assert len(memory) == 3


def test_what_is_not_known_of_a_source_stays_unknown(memory: TripleMemory) -> None:
    before = datetime.now(UTC)
    memory.add(ts("a r b"))
    ((source,),) = [stored.sources for stored in memory]
    assert (source.document, source.sentence, source.writer) == (None, None, None)
    assert before - timedelta(microseconds=1) <= source.time <= datetime.now(UTC)


def test_times_are_kept_to_the_microsecond_in_utc(memory: TripleMemory) -> None:
    kolkata = timezone(timedelta(hours=5, minutes=30))
    memory.add(ts("a r b"), Source(time=datetime(1999, 12, 31, 23, 59, 59, 123456, kolkata)))
    ((source,),) = [stored.sources for stored in memory]
    assert source.time == datetime(1999, 12, 31, 18, 29, 59, 123456, UTC)
    assert source.time.utcoffset() == timedelta(0)


def test_a_source_makes_sense() -> None:
    with pytest.raises(ValueError, match="needs a time zone"):
        Source(time=datetime(2001, 1, 1))
    with pytest.raises(ValueError, match="counted from 0"):
        Source(sentence=-1)


def test_a_name_that_goes_while_it_is_needed_is_stored_anew(memory: TripleMemory) -> None:
    memory.add(ts("a r b"))
    unknown, asked = memory.store.unknown, []

    def racing(entities: Sequence[str], relations: Sequence[str]) -> tuple[list[str], list[str]]:
        """After the question for what is new, another client removes what is known."""
        answer = unknown(entities, relations)
        if not asked:
            memory.delete_entity("a")
        asked.append(answer)
        return answer

    memory.store.unknown = racing
    assert memory.add(ts("a r c", "d r b")) == 2
    assert asked == [(["c", "d"], []), (["a", "c", "d", "b"], ["r"])]
    asked.clear()
    assert memory.update(t("a r e")) == []  # racing() has deleted a again
    assert current(memory) == ts("d r b", "a r e")
    memory.check()
