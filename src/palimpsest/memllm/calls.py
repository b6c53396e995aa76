"""The language in which a model talks to its memory: rendering and parsing of calls (MemLLM, section 3.2).

=======  ==========================================================================================
read     ``({MEM_READ(Dancing on Coral>>author>>)-->Glenda Adams})``
focus    ``context({USER_ST})focus sentence({USER_END})``
write    ``({MEM_WRITE-->Dancing on Coral>>author>>Glenda Adams;Glenda Adams>>occupation>>writer})``
=======  ==========================================================================================

``>>relation>>object`` asks for the subject; up to three queries, and any number of results, are joined by ``;``.

A name that contains syntax is escaped by backslashes, braces as parentheses, so whatever a name is, what is rendered
parses to it again and holds no marker but the call's own. Spaces around a name are not part of it. ``spaced`` rendering
puts one before each name, as in running text: for a byte-level tokenizer the tokens of a name are then the same in a
call and in the text, so that it can be copied.

Parsing is strict and total: a string gives a call, or a :class:`Malformed` that says why not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from palimpsest.facts import Query, Triple

OPEN, RESULTS, CLOSE = MARKERS = ("({", "-->", "})")
"""What begins a call, what stands between its question and its answer, and what ends it: a token each."""

FOCUS_START, FOCUS_END = f"{OPEN}USER_ST{CLOSE}", f"{OPEN}USER_END{CLOSE}"
READ, WRITE = "MEM_READ", "MEM_WRITE"
MAX_QUERIES = 3

# A brace turns into a parenthesis and a second hyphen is escaped too, lest `})` or `-->` arise with what follows.
_ESCAPES = {"\\": r"\\", ";": r"\;", ">": r"\>", "-": r"\-", "{": r"\(", "}": r"\)"}
_PLAIN = {escaped: plain for plain, escaped in _ESCAPES.items()}
_SYNTAX = re.compile(r"[\\;>{}]|(?<=-)-")
_ESCAPED = re.compile(r"\\.")
_NAME = re.compile(r"(?:\\[\\;>()-]|[^\\;>{}])*")


class CallError(ValueError):
    """A call that cannot be rendered."""


@dataclass(frozen=True, slots=True)
class Malformed:
    """Text that is no call, and why."""

    text: str
    reason: str


@dataclass(frozen=True, slots=True)
class ReadCall:
    """Queries, and what the memory answered; ``results`` is None as long as it has not been asked."""

    queries: tuple[Query, ...]
    results: tuple[str, ...] | None = None


def render_queries(queries: Sequence[Query], *, spaced: bool = False) -> str:
    """A read call up to the point where the memory answers: ``({MEM_READ(subject>>relation>>)-->``.

    Raises:
        CallError: no query or more than three, or a name that is blank or has spaces around it.
    """
    if not 1 <= len(queries) <= MAX_QUERIES:
        raise CallError(f"a read call has 1 to {MAX_QUERIES} queries, not {len(queries)}")
    rendered = (_joined((query.subject, query.relation, query.object), spaced) for query in queries)
    return f"{OPEN}{READ}({';'.join(rendered)}){RESULTS}"


def render_results(names: Iterable[str], *, spaced: bool = False) -> str:
    """The rest of a read call: ``name;name})``. Raises CallError as :func:`render_queries` does."""
    return ";".join(_escaped(name, spaced) for name in names) + CLOSE


def render_write(triples: Iterable[Triple], *, spaced: bool = False) -> str:
    """A write call: ``({MEM_WRITE-->subject>>relation>>object;…})``. Errors as in :func:`render_queries`."""
    rendered = (_joined((triple.subject, triple.relation, triple.object), spaced) for triple in triples)
    return f"{OPEN}{WRITE}{RESULTS}{';'.join(rendered)}{CLOSE}"


def parse_read(text: str) -> ReadCall | Malformed:
    """Parse a read call, with its results or up to the point where the memory answers."""
    head, marker, tail = text.partition(RESULTS)
    opening = f"{OPEN}{READ}("
    if not (head.startswith(opening) and head.endswith(")") and marker):
        return Malformed(text, f"expected {opening}…){RESULTS}")
    queries = [_query(part) for part in _split(head[len(opening) : -1], ";")]
    for query in queries:
        if isinstance(query, Malformed):
            return query
    if len(queries) > MAX_QUERIES:
        return Malformed(text, f"expected at most {MAX_QUERIES} queries, found {len(queries)}")
    asked = tuple(query for query in queries if isinstance(query, Query))
    if not tail:
        return ReadCall(asked)
    if not tail.endswith(CLOSE):
        return Malformed(text, f"expected the results to end with {CLOSE}")
    results = parse_results(tail.removesuffix(CLOSE))
    return results if isinstance(results, Malformed) else ReadCall(asked, results)


def parse_results(text: str) -> tuple[str, ...] | Malformed:
    """Parse what stands between ``-->`` and ``})`` of a read call; there may be nothing."""
    names = [_name(part) for part in _split(text, ";")] if text else []
    for name in names:
        if isinstance(name, Malformed) or not name:
            return Malformed(text, name.reason if isinstance(name, Malformed) else "expected a name between semicolons")
    return tuple(str(name) for name in names)


def parse_write(text: str) -> tuple[list[Triple], list[Malformed]] | Malformed:
    """Parse a write call: its triples, and those parts that are none (one bad part does not spoil the others)."""
    opening = f"{OPEN}{WRITE}{RESULTS}"
    if not (text.startswith(opening) and text.endswith(CLOSE)):
        return Malformed(text, f"expected {opening}…{CLOSE}")
    body = text[len(opening) : -len(CLOSE)]
    parts = [_triple(part) for part in _split(body, ";")] if body else []
    triples = [part for part in parts if isinstance(part, Triple)]
    return triples, [part for part in parts if isinstance(part, Malformed)]


def _query(text: str) -> Query | Malformed:
    names = _three_names(text)
    if isinstance(names, Malformed):
        return names
    subject, relation, object_ = names
    if not relation:
        return Malformed(text, "expected a relation")
    if bool(subject) == bool(object_):
        return Malformed(text, "expected a subject or an object, and not both")
    return Query(relation, subject=subject or None, object=object_ or None)


def _triple(text: str) -> Triple | Malformed:
    names = _three_names(text)
    if isinstance(names, Malformed):
        return names
    return Triple(*names) if all(names) else Malformed(text, "expected a subject, a relation and an object")


def _three_names(text: str) -> tuple[str, str, str] | Malformed:
    parts = _split(text, ">>")
    if len(parts) != 3:
        return Malformed(text, f"expected three parts between >>, found {len(parts)}")
    names = [_name(part) for part in parts]
    for name in names:
        if isinstance(name, Malformed):
            return Malformed(text, name.reason)
    subject, relation, object_ = map(str, names)
    return subject, relation, object_


def _split(text: str, separator: str) -> list[str]:
    """Split at separators that are not escaped."""
    parts, start = [], 0
    for match in re.finditer(rf"\\.|{separator}", text):
        if match[0] == separator:
            parts.append(text[start : match.start()])
            start = match.end()
    return [*parts, text[start:]]


def _name(text: str) -> str | Malformed:
    """A name without its escapes and the spaces around it; it may be empty."""
    if not _NAME.fullmatch(text):
        return Malformed(text, "a character of the syntax is not escaped")
    return _ESCAPED.sub(lambda match: _PLAIN[match[0]], text.strip())


def _joined(names: Iterable[str | None], spaced: bool) -> str:
    return ">>".join("" if name is None else _escaped(name, spaced) for name in names)


def _escaped(name: str, spaced: bool) -> str:
    if not name or name != name.strip():
        raise CallError(f"{name!r}: expected a name without spaces around it")
    return " " * spaced + _SYNTAX.sub(lambda match: _ESCAPES[match[0]], name)
