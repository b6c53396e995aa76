"""Names are kept exactly as they are given, or refused."""

from __future__ import annotations

import unicodedata
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from palimpsest.facts import Query, Triple
from palimpsest.memory import Counts, Source, TripleMemory

LIMIT = 2000  # bytes of UTF-8

NAMES = [
    "Ulysses",
    "u",
    "0",
    "1e3",
    "null",
    "None",
    "true",
    "🙂",
    "👩\u200d👩\u200d👧",  # joined
    "🏴\U000e0067\U000e0062\U000e0077\U000e006c\U000e0073\U000e007f",  # the flag of Wales
    "日本語",
    "\u0627\u0644\u0639\u0631\u0628\u064a\u0629",  # right to left
    "\u200f\u05e2\u05d1\u05e8\u05d9\u05ea\u200e",
    "\u202eoverride\u202c",
    "\u03a9",  # Omega
    "\u2126",  # Ohm, which is the same after normalisation
    unicodedata.normalize("NFC", "Zoë"),
    unicodedata.normalize("NFD", "Zoë"),
    unicodedata.normalize("NFC", "zoë"),
    "straße",
    "STRASSE",
    "\ufb01",  # the ligature fi
    "fi",
    "\u0130stanbul",
    "i\u0307stanbul",
    "a\u200bb",
    "ab",
    "\ufeffBOM",
    "\ue000",
    "\uffff",
    "\ufffd",
    "\U0010ffff",
    "\x01\x02\x7f\x80",
    "\x1b[31mred",
    '"',
    "'",
    '""',
    "''",
    "`",
    'it\'s "so"',
    ">>",
    "a>>b>>c",
    ";",
    "a;b",
    "})",
    "({",
    "-->",
    "({MEM_READ(a>>b>>)-->c})",
    "%",
    "%s",
    "%(name)s",
    "%%",
    "_",
    "a_b",
    "a%b",
    "\\",
    "\\'",
    "\\n",
    "\\u0041",
    "\\x41",
    "E'\\x41'",
    "$1",
    "$$",
    "?",
    ":name",
    "{0}",
    "{}",
    "[1, 2]",
    '{"a": 1}',
    "'); DROP TABLE triples;--",
    '"); DROP TABLE triples;--',
    "' OR '1'='1",
    "x' UNION SELECT name FROM entities --",
    "*/ /* --",
    "line\nline",
    "line\r\nline",
    "tab\tbed",
    " leading",
    "trailing ",
    "  both\n",
    "name",
    " name",
    "name ",
    "\xa0no break\xa0",
    "\u2028separators\u2029",
    "x" * LIMIT,
    "é" * (LIMIT // 2),
    "🙂" * (LIMIT // 4),
    "'" * LIMIT,
    "\n" * (LIMIT - 1) + "x",
]

REFUSED = {
    "empty": ("", "blank"),
    "blank": (" ", "blank"),
    "line breaks": ("\n\r\n\t", "blank"),
    "other blanks": ("\xa0\u2003\u3000\u2028\x1f", "blank"),
    "NUL": ("\0", "NUL"),
    "NUL within": ("before\0after", "NUL"),
    "NUL at the end": ("name\0", "NUL"),
    "high surrogate": ("\ud83d", "cannot encode"),
    "low surrogate": ("name \ude42", "cannot encode"),
    "surrogates in the wrong order": ("\ude42\ud83d", "cannot encode"),
    "a byte too long": ("x" * (LIMIT + 1), "longer than 2000 bytes"),
    "long in bytes": ("é" * (LIMIT // 2) + "x", "longer than 2000 bytes"),
    "100 kB": ("x" * 100_000, "longer than 2000 bytes"),
    "100 kB of blanks": (" " * 100_000, "blank"),
    "bytes": (b"Ulysses", "expected text, got bytes"),
    "a number": (7, "expected text, got int"),
    "nothing": (None, "expected text, got NoneType"),
    "a list": (["Ulysses"], "expected text, got list"),
}


def storable(name: str) -> bool:
    """Whether a name can be kept, and its vector be made by these tests' embedder, for which ``~`` says something."""
    return bool(name.strip()) and len(name.encode()) <= LIMIT and "~" not in name


names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=40)
spiced = st.lists(st.sampled_from(NAMES[:-5]) | names, min_size=1, max_size=4).map("".join)
any_names = (names | spiced).filter(storable)


def assert_found_exactly(memory: TripleMemory, triple: Triple) -> None:
    """A stored triple can be found by its names in every way."""
    subject, relation, thing = triple.subject, triple.relation, triple.object
    assert triple in memory
    assert [stored.triple for stored in memory.select(subject=subject, relation=relation, object=thing)] == [triple]
    for query in (Query(relation, subject=subject), Query(relation, object=thing)):
        assert triple in [result.triple for result in memory.query(query).results]
    assert thing in memory.query(Query(relation, subject=subject)).names
    assert subject in memory.query(Query(relation, object=thing)).names


def test_a_name_is_kept_to_the_letter(memory: TripleMemory) -> None:
    for name in NAMES:
        triples = [Triple(name, f"{name[: LIMIT // 5]}r", name), Triple("subject", name, "object")]
        memory.add(triples, Source(name, 0, name))
        assert [(stored.triple, stored.sources[0].document, stored.sources[0].writer) for stored in memory] == [
            (triple, name, name) for triple in triples
        ]
        for triple in triples:
            assert_found_exactly(memory, triple)
        assert memory.query(Query(name, subject="subject")).names == ["object"]
        assert [stored.triple for stored in memory.select(document=name)] == triples
        memory.update(Triple("subject", name, name))
        (old,) = memory.history(relation=name, object="object")
        assert old.replaced_by == name
        assert memory.delete_entity(name) == 2
        assert memory.delete_document(name) == 1
        assert memory.counts() == Counts(0, 0, 0, 0)
    memory.check()


def test_all_these_names_are_different(memory: TripleMemory) -> None:
    assert len(set(NAMES)) == len(NAMES)
    triples = [Triple(name, "is", name) for name in NAMES] + [Triple("x", name, "y") for name in NAMES]
    assert memory.add(triples) == len(triples)
    assert memory.add(reversed(triples)) == 0
    assert [stored.triple for stored in memory] == triples
    assert memory.counts() == Counts(len(triples), len({*NAMES, "x", "y"}), len({*NAMES, "is"}), 0)
    for name in NAMES:
        assert [stored.triple for stored in memory.select(subject=name)] == [Triple(name, "is", name)]
        assert name in memory.query(Query("is", subject=name)).names
    memory.check()
    assert memory.delete(triples[:-1]) == len(triples) - 1
    assert [stored.triple for stored in memory] == triples[-1:]


@pytest.mark.parametrize("name", ["'); DROP TABLE triples;--", "'; DELETE FROM entities; --", "x' OR '1'='1", "%", "_"])
def test_no_name_is_taken_for_sql_or_a_pattern(memory: TripleMemory, name: str) -> None:
    kept = [Triple("a", "r", "b"), Triple("c", "r", "d")]
    memory.add(kept, Source("doc"))
    before = list(memory)
    assert list(memory.select(subject=name)) == list(memory.select(relation=name)) == []
    assert list(memory.select(object=name, document=name)) == list(memory.history(subject=name)) == []
    assert memory.delete([Triple(name, name, name), Triple("a", "r", name)]) == 0
    assert memory.delete_entity(name) == memory.delete_document(name) == 0
    memory.query_batch([Query(name, subject=name), Query(name, object=name)])
    assert list(memory) == before
    memory.check()


def test_the_same_letters_composed_otherwise_are_another_name(memory: TripleMemory) -> None:
    composed, decomposed = (unicodedata.normalize(form, "Zoë") for form in ("NFC", "NFD"))
    assert memory.add([Triple(composed, "r", "one"), Triple(decomposed, "r", "two")]) == 2
    assert memory.query(Query("r", subject=composed)).names == ["one"]
    assert memory.delete_entity(decomposed) == 1
    assert [stored.triple.subject for stored in memory] == [composed]


def test_any_unicode_is_kept(memory: TripleMemory) -> None:
    @settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.lists(st.tuples(any_names, any_names, any_names), min_size=1, max_size=12), any_names)
    @example([("a", "r", "A"), ("A", "r", "a"), ("a ", "r", "a")], "\n.")
    def kept(rows: list[tuple[str, str, str]], document: str) -> None:
        triples = list(dict.fromkeys(Triple(*row) for row in rows))
        try:
            assert memory.add(triples, Source(document, 0, document)) == len(triples)
            assert [stored.triple for stored in memory] == triples
            assert {source.document for stored in memory for source in stored.sources} == {document}
            for triple in triples:
                assert_found_exactly(memory, triple)
            memory.check()
            assert memory.delete_document(document) == len(triples)
            assert memory.counts() == Counts(0, 0, 0, 0)
        finally:  # empty for the next example
            memory.delete(triples)

    kept()


# -- refused -------------------------------------------------------------------------------------------------------


@pytest.fixture
def told(memory: TripleMemory) -> TripleMemory:
    memory.add([Triple("a", "r", "b")], Source("doc"))
    return memory


@pytest.mark.parametrize("case", REFUSED)
def test_a_name_that_cannot_be_kept_is_refused_with_its_whole_batch(told: TripleMemory, case: str) -> None:
    name, reason = REFUSED[case]
    before = list(told), told.counts()
    for role in ("subject", "relation", "object"):
        bad = Triple(**({"subject": "new", "relation": "new", "object": "new"} | {role: name}))
        with pytest.raises(ValueError, match=f"^{role} .*{reason}") as refusal:
            told.add([Triple("c", "q", "d"), bad, Triple("e", "q", "f")])
        assert len(str(refusal.value)) < 200  # not all of 100 kB
        with pytest.raises(ValueError, match=f"^{role} .*{reason}"):
            told.update(bad)
    for role in ("document", "writer") if name is not None else ():
        with pytest.raises(ValueError, match=f"^{role} .*{reason}"):
            told.add([Triple("c", "q", "d"), Triple("a", "r", "b")], [Source("fine"), Source(**{role: name})])
        with pytest.raises(ValueError, match=f"^{role} .*{reason}"):
            told.update(Triple("a", "r", "c"), Source(**{role: name}))
    assert (list(told), told.counts()) == before
    assert told.query(Query("q", subject="c")).total == 0
    told.check()


@pytest.mark.parametrize("case", [case for case in REFUSED if case != "nothing"])
def test_nothing_is_asked_about_such_names(told: TripleMemory, case: str) -> None:
    name, reason = REFUSED[case]
    with pytest.raises(ValueError, match=f"^subject .*{reason}"):
        told.query(Query("r", subject=name))
    with pytest.raises(ValueError, match=f"^object .*{reason}"):
        told.query_batch([Query("r", subject="a"), Query("r", object=name)])
    with pytest.raises(ValueError, match=f"^relation .*{reason}"):
        told.query(Query(name, subject="a"))


@pytest.mark.parametrize("case", [case for case, (name, _) in REFUSED.items() if isinstance(name, str)])
def test_nothing_is_found_or_deleted_by_such_names(told: TripleMemory, case: str) -> None:
    """What cannot be stored is not there: none found, or refused; and nothing else is taken for it."""
    before = list(told), told.counts()
    for name in (REFUSED[case][0], f"a{REFUSED[case][0]}x"):
        for ask in (
            lambda name=name: Triple(name, "r", "b") in told,
            lambda name=name: list(told.select(subject=name)),
            lambda name=name: list(told.select(relation=name)),
            lambda name=name: list(told.select(object=name)),
            lambda name=name: list(told.select(document=name)),
            lambda name=name: list(told.history(subject=name)),
            lambda name=name: told.delete([Triple(name, "r", "b")]),
            lambda name=name: told.delete([Triple("a", name, "b")]),
            lambda name=name: told.delete_entity(name),
            lambda name=name: told.delete_document(name),
        ):
            with suppress(ValueError):
                assert not ask()
    assert (list(told), told.counts()) == before
    told.check()
