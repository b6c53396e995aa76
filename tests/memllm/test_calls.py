"""The call grammar: whatever is rendered parses to the same, whatever is parsed is a call or says why not."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from palimpsest.facts import Query, Triple
from palimpsest.memllm.calls import (
    MARKERS,
    CallError,
    Malformed,
    ReadCall,
    parse_read,
    parse_results,
    parse_write,
    render_queries,
    render_results,
    render_write,
)

# Names made of the pieces of calls, and names of any characters: lone surrogates and unassigned ones too.
PIECES = [
    *r"\;>{}()-",
    "({",
    "-->",
    "})",
    ">>",
    ">>>",
    "MEM_READ(",
    "USER_END",
    "a",
    "É",
    "🙂",
    "\ud800",
    "\n",
    " ",
    "\x85",
]
NAMES = (
    (st.lists(st.sampled_from(PIECES), max_size=8).map("".join) | st.text(st.characters(exclude_categories=())))
    .map(str.strip)
    .filter(bool)
)
QUERIES = st.lists(
    st.builds(lambda relation, name: Query(relation, subject=name), NAMES, NAMES)
    | st.builds(lambda relation, name: Query(relation, object=name), NAMES, NAMES),
    min_size=1,
    max_size=3,
)
TRIPLES = st.lists(st.builds(Triple, NAMES, NAMES, NAMES), max_size=5)
RESULTS = st.lists(NAMES, max_size=5)
# Strings near the grammar: a call, or any pieces of one.
SCRAPS = st.lists(
    st.sampled_from(["({MEM_READ(", ")-->", "({MEM_WRITE-->", "})", ">>", ";", *PIECES]) | st.text(max_size=3),
    max_size=12,
).map("".join)


def markers(text: str) -> list[int]:
    """How often each marker stands in a text."""
    return [text.count(marker) for marker in MARKERS]


def by_hand_escaped(name: str) -> str:
    """A name as a call holds it, character by character."""
    stand_ins = {"\\": "\\\\", ";": "\\;", ">": "\\>", "{": "\\(", "}": "\\)"}
    written = ""
    for place, character in enumerate(name):
        second_hyphen = character == "-" and name[:place].endswith("-")
        written += "\\-" if second_hyphen else stand_ins.get(character, character)
    return written


@given(QUERIES, st.none() | RESULTS, st.booleans())
@example([Query("r", subject="a--")], None, False)  # its hyphens and `>>` would be `-->`
@example([Query("r", object="a}")], [], False)  # its brace and `)` would be `})`
@example([Query("})", object="a\\")], ["-->})", "({", "\\"], True)
def test_read_calls_parse_to_what_was_rendered(queries: list[Query], results: list[str] | None, spaced: bool) -> None:
    text = render_queries(queries, spaced=spaced)
    assert markers(text) == [1, 1, 0]
    if results is not None:
        text += render_results(results, spaced=spaced)
        assert markers(text) == [1, 1, 1]
    assert parse_read(text) == ReadCall(tuple(queries), None if results is None else tuple(results))


@given(TRIPLES, st.booleans())
@example([Triple("a--", "--", "})")], False)
@example([Triple(">", ">>", ">>>"), Triple("\\", ";", "{")], True)
def test_write_calls_parse_to_what_was_rendered(triples: list[Triple], spaced: bool) -> None:
    text = render_write(triples, spaced=spaced)
    assert markers(text) == [1, 1, 1]
    assert parse_write(text) == (triples, [])


@given(RESULTS, st.booleans())
def test_results_parse_to_what_was_rendered(names: list[str], spaced: bool) -> None:
    text = render_results(names, spaced=spaced)
    assert markers(text) == [0, 0, 1]
    assert parse_results(text.removesuffix("})")) == tuple(names)


@given(NAMES, NAMES, NAMES)
def test_rendering_by_string_concatenation(subject: str, relation: str, object_: str) -> None:
    s, r, o = map(by_hand_escaped, (subject, relation, object_))
    asked = [Query(relation, subject=subject), Query(relation, object=object_)]
    assert render_queries(asked) == "({MEM_READ(" + s + ">>" + r + ">>;>>" + r + ">>" + o + ")-->"
    assert render_queries(asked, spaced=True) == f"({{MEM_READ( {s}>> {r}>>;>> {r}>> {o})-->"
    assert render_results([subject, object_]) == s + ";" + o + "})"
    assert render_results([subject, object_], spaced=True) == " " + s + "; " + o + "})"
    assert render_write([Triple(subject, relation, object_)]) == "({MEM_WRITE-->" + s + ">>" + r + ">>" + o + "})"


@given(SCRAPS | SCRAPS.map(lambda text: "({MEM_READ(" + text) | st.text(st.characters(exclude_categories=())))
def test_any_text_is_a_read_call_or_says_why_not(text: str) -> None:
    parsed = parse_read(text)
    if isinstance(parsed, Malformed):
        assert parsed.text in text
        assert parsed.reason
        return
    again = render_queries(parsed.queries)
    if parsed.results is not None:
        again += render_results(parsed.results)
    assert parse_read(again) == parsed


@given(SCRAPS | SCRAPS.map(lambda text: "({MEM_WRITE-->" + text + "})") | st.text(st.characters(exclude_categories=())))
def test_any_text_is_a_write_call_or_says_why_not(text: str) -> None:
    parsed = parse_write(text)
    if isinstance(parsed, Malformed):
        assert parsed.text == text
        assert parsed.reason
        return
    triples, rejected = parsed
    assert all(part.text in text and part.reason for part in rejected)
    assert parse_write(render_write(triples)) == (triples, [])


@given(
    TRIPLES, TRIPLES, st.sampled_from(["", " ", "a", "a>>b", "a>>b>>", ">>b>>c", "a>>b>>c>>d", "a>>b>>{c", "a>>b>>c\\"])
)
def test_one_bad_triple_does_not_spoil_the_others(before: list[Triple], after: list[Triple], bad: str) -> None:
    parts = [render_write([triple])[len("({MEM_WRITE-->") : -len("})")] for triple in before + after]
    parts.insert(len(before), bad)
    triples, rejected = parse_write("({MEM_WRITE-->" + ";".join(parts) + "})")
    if not before + after and not bad:  # nothing at all between the markers: a call that writes nothing
        assert (triples, rejected) == ([], [])
    elif bad.endswith("\\") and after:  # the backslash escapes the semicolon: the next part is lost as well
        assert triples == before + after[1:]
    else:
        assert triples == before + after
        assert [part.text for part in rejected] == [bad]


AUTHOR = Query("author", subject="Dancing on Coral")


@pytest.mark.parametrize(
    ("text", "queries", "results"),
    [
        ("({MEM_READ(Dancing on Coral>>author>>)-->Glenda Adams})", [AUTHOR], ["Glenda Adams"]),
        ("({MEM_READ(Dancing on Coral>>author>>)-->", [AUTHOR], None),
        ("({MEM_READ(Dancing on Coral>>author>>)-->})", [AUTHOR], []),
        ("({MEM_READ( Dancing on Coral >> author >> )-->  Glenda Adams ; B})", [AUTHOR], ["Glenda Adams", "B"]),
        ("({MEM_READ(>>author>>Glenda Adams)-->", [Query("author", object="Glenda Adams")], None),
        ("({MEM_READ(a>>r>>;>>r>>b;c>>r>>)-->", [Query("r", "a"), Query("r", object="b"), Query("r", "c")], None),
        ("({MEM_READ(M (1931 film)>>director>>)-->", [Query("director", "M (1931 film)")], None),
        (r"({MEM_READ(a\;b\>c>>r>>)-->x\\;\)\(})", [Query("r", "a;b>c")], ["x\\", "}{"]),
        (r"({MEM_READ(C->>r>>)-->-\-\-\>;a--b})", [Query("r", "C-")], ["--->", "a--b"]),
        ("({MEM_READ(\u3000a\nb\x1f>>r>>)-->", [Query("r", "a\nb")], None),
    ],
)
def test_read_calls_by_hand(text: str, queries: list[Query], results: list[str] | None) -> None:
    assert parse_read(text) == ReadCall(tuple(queries), None if results is None else tuple(results))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "expected ({MEM_READ(…)-->"),
        ("({MEM_READ(a>>r>>)", "expected ({MEM_READ(…)-->"),
        ("({MEM_READ(-->", "expected ({MEM_READ(…)-->"),
        ("({MEM_READ-->b})", "expected ({MEM_READ(…)-->"),
        (" ({MEM_READ(a>>r>>)-->", "expected ({MEM_READ(…)-->"),
        ("({MEM_WRITE-->a>>r>>b})", "expected ({MEM_READ(…)-->"),
        ("({MEM_READ(a-->>r>>)-->", "expected ({MEM_READ(…)-->"),
        ("({MEM_READ()-->", "expected three parts between >>, found 1"),
        ("({MEM_READ(a>>r)-->", "expected three parts between >>, found 2"),
        ("({MEM_READ(a>>r>>>>)-->", "expected three parts between >>, found 4"),
        ("({MEM_READ(a>>>r>>)-->", "a character of the syntax is not escaped"),
        (r"({MEM_READ(a\b>>r>>)-->", "a character of the syntax is not escaped"),
        (r"({MEM_READ(>>r>>a\)-->", "a character of the syntax is not escaped"),
        ("({MEM_READ({a}>>r>>)-->", "a character of the syntax is not escaped"),
        ("({MEM_READ(a>>>>)-->", "expected a relation"),
        ("({MEM_READ(a>> >>)-->", "expected a relation"),
        ("({MEM_READ(>>r>>)-->", "expected a subject or an object, and not both"),
        ("({MEM_READ( >>r>>\t)-->", "expected a subject or an object, and not both"),
        ("({MEM_READ(a>>r>>b)-->", "expected a subject or an object, and not both"),
        ("({MEM_READ(a>>r>>;)-->", "expected three parts between >>, found 1"),
        ("({MEM_READ(a>>r>>;b>>r>>;c>>r>>;d>>r>>)-->", "expected at most 3 queries, found 4"),
        ("({MEM_READ(a>>r>>)-->b", "expected the results to end with })"),
        ("({MEM_READ(a>>r>>)-->b}) and on", "expected the results to end with })"),
        ("({MEM_READ(a>>r>>)-->b})c})", "a character of the syntax is not escaped"),
        ("({MEM_READ(a>>r>>)-->-->})})", "a character of the syntax is not escaped"),
        ("({MEM_READ(a>>r>>)-->b;})", "expected a name between semicolons"),
        ("({MEM_READ(a>>r>>)-->b; ;c})", "expected a name between semicolons"),
        ("({MEM_READ(a>>r>>)--> })", "expected a name between semicolons"),
    ],
)
def test_what_is_no_read_call(text: str, reason: str) -> None:
    parsed = parse_read(text)
    assert isinstance(parsed, Malformed)
    assert parsed.reason == reason


def test_write_calls_by_hand() -> None:
    text = "({MEM_WRITE-->Dancing on Coral>>author>>Glenda Adams;Glenda Adams>>occupation>>writer})"
    triples = [Triple("Dancing on Coral", "author", "Glenda Adams"), Triple("Glenda Adams", "occupation", "writer")]
    assert render_write(triples) == text
    assert parse_write(text) == (triples, [])
    assert render_write([]) == "({MEM_WRITE-->})"
    assert parse_write("({MEM_WRITE-->})") == ([], [])
    assert parse_write("({MEM_WRITE--> a >>r>> b;a>>r>>})") == (
        [Triple("a", "r", "b")],
        [Malformed("a>>r>>", "expected a subject, a relation and an object")],
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "({MEM_WRITE-->",
        "({MEM_WRITE})",
        "({MEM_WRITE-->a>>r>>b",
        "({MEM_WRITE-->a>>r>>b}) ",
        "({MEM_READ(a>>r>>)-->})",
    ],
)
def test_what_is_no_write_call(text: str) -> None:
    assert parse_write(text) == Malformed(text, "expected ({MEM_WRITE-->…})")


@pytest.mark.parametrize("name", ["", " ", "\n", "\u3000", " a", "a ", "a\t", "\xa0a", "a\u2028", "\x1fa"])
def test_a_name_that_is_blank_or_has_spaces_around_it_is_refused(name: str) -> None:
    for query in (Query("r", subject=name), Query("r", object=name), Query(name, subject="a")):
        with pytest.raises(CallError, match="expected a name without spaces around it"):
            render_queries([query])
    for triple in (Triple(name, "r", "o"), Triple("s", name, "o"), Triple("s", "r", name)):
        with pytest.raises(CallError, match="expected a name without spaces around it"):
            render_write([Triple("s", "r", "o"), triple])
    with pytest.raises(CallError, match="expected a name without spaces around it"):
        render_results(["a", name])


@pytest.mark.parametrize("count", [0, 4])
def test_a_read_call_has_one_to_three_queries(count: int) -> None:
    with pytest.raises(CallError, match=f"a read call has 1 to 3 queries, not {count}"):
        render_queries([AUTHOR] * count)
