"""Calls to show in a notebook: finetuning examples, and what a model looked up while it wrote."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from itertools import groupby

from IPython.display import HTML

from palimpsest.facts import Query, Triple
from palimpsest.figures.style import GREEN, GREY, ORANGE, PURPLE, RED
from palimpsest.memllm.examples import Example
from palimpsest.memllm.reading import Call, Trace
from palimpsest.memllm.tokens import CallTokens
from palimpsest.memory import TripleMemory

LEARNT, READ_ONLY = "background:#CDE5F5", "color:#666"
STYLE = "font-family:monospace;white-space:pre-wrap;line-height:1.7;border-left:3px solid #ddd;padding:4px 10px"
OUTCOMES = {"answered": GREEN, "empty": ORANGE, "repeated": GREY, "malformed": RED, "too long": PURPLE}


def show_examples(examples: Iterable[Example], tokens: CallTokens) -> HTML:
    """Examples as text; what is learnt is shaded."""
    blocks = []
    for example in examples:
        pairs = list(zip(example.ids, example.learnt, strict=True))[1:]
        parts = [
            (learnt, tokens.decode([token for token, _ in part])) for learnt, part in groupby(pairs, lambda p: p[1])
        ]
        spans = (f'<span style="{LEARNT if learnt else READ_ONLY}">{escape(text)}</span>' for learnt, text in parts)
        blocks.append(f'<div style="{STYLE}">{"".join(spans)}</div>')
    return HTML("".join(blocks))


def show_traces(traces: Sequence[Trace], memory: TripleMemory) -> HTML:
    """What was generated, each span after the call that was in sight, with the results and where they are from."""
    blocks = []
    for trace in traces:
        parts = [f"<b>{escape(trace.prompt)}</b>"]
        for span in trace.spans:
            if span.call:
                parts.append(_call(span.call, memory))
            parts.append(f"<span>{escape(span.text)}</span>")
            parts += [_call(call, memory) for call in span.dropped]
        blocks.append(f'<div style="{STYLE}">{"".join(parts)}</div>')
    return HTML("".join(blocks))


def _call(call: Call, memory: TripleMemory) -> str:
    asked = "; ".join(map(_question, call.queries)) or call.text
    found = "; ".join(f"{result.name} ({_origin(memory, result.triple)})" for result in call.results[:3])
    more = f" and {len(call.results) - 3} more" if len(call.results) > 3 else ""
    answer = f" → {found}{more}" if found else f" → {call.outcome}{': ' if call.reason else ''}{call.reason}"
    style = f"color:{OUTCOMES[call.outcome]};font-size:85%"
    return f'<span style="{style}"> [{escape(asked + answer)}] </span>'


def _question(query: Query) -> str:
    return f"({query.subject or '?'}, {query.relation}, {query.object or '?'})"


def _origin(memory: TripleMemory, triple: Triple) -> str:
    stored = next(memory.select(subject=triple.subject, relation=triple.relation, object=triple.object), None)
    documents = dict.fromkeys(source.document for source in stored.sources if source.document) if stored else {}
    return f"from “{'”, “'.join(documents)}”" if documents else "no source"
