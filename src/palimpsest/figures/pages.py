"""Annotated documents to look at in a notebook."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from IPython.display import HTML

from palimpsest.facts import Document
from palimpsest.figures.style import BLUE, GREEN, ORANGE, PURPLE, RED, SKY

TYPE_COLOURS = {"PER": BLUE, "LOC": GREEN, "ORG": ORANGE, "TIME": PURPLE, "NUM": RED, "MISC": SKY}


def show_document(document: Document, labels: Mapping[str, str]) -> HTML:
    """A document with its mentions marked by entity type and number, and its triples listed."""
    text, parts, position = document.text, [], 0
    for index, mention in document.mentions():
        start, end = document.span(mention)
        if start < position:
            continue  # within a longer mention, which is marked already
        colour = TYPE_COLOURS.get(document.entities[index].type, SKY)
        parts.append(escape(text[position:start]))
        parts.append(
            f'<span style="border-bottom:3px solid {colour}">{escape(text[start:end])}<sub>{index}</sub></span>'
        )
        position = end
    parts.append(escape(text[position:]))
    legend = " ".join(f'<span style="color:{colour}">■</span> {name}' for name, colour in TYPE_COLOURS.items())
    rows = "".join(
        f"<tr><td>{escape(triple.subject)}<sub>{fact.head}</sub></td><td>{escape(triple.relation)}</td>"
        f"<td>{escape(triple.object)}<sub>{fact.tail}</sub></td><td>{', '.join(map(str, fact.evidence))}</td></tr>"
        for triple, fact in zip(document.triples(dict(labels)), document.facts, strict=True)
    )
    return HTML(
        f"<h4>{escape(document.title)}</h4><p style='line-height:2'>{''.join(parts)}</p><p>{legend}</p><table><tr>"
        f"<th>subject</th><th>relation</th><th>object</th><th>sentences</th></tr>{rows}</table>"
    )
