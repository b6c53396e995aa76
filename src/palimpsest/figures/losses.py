"""How a language model reads a document, to look at in a notebook."""

from __future__ import annotations

from html import escape

from IPython.display import HTML

from palimpsest.facts import Document
from palimpsest.lm.scoring import TextLosses

DARKEST = 10.0  # nats


def show_losses(document: Document, losses: TextLosses) -> HTML:
    """A document token by token: the darker the ground, the higher the loss; the number is on hovering."""
    text, pieces = document.text, []
    for (start, end), loss in zip(losses.offsets, losses.losses, strict=True):
        alpha = min(1.0, float(loss) / DARKEST)
        style = f"background:rgba(213,94,0,{alpha:.2f})"
        pieces.append(f'<span title="{loss:.2f} nats" style="{style}">{escape(text[start:end])}</span>')
    return HTML(f"<h4>{escape(document.title)}</h4><p style='line-height:2'>{''.join(pieces)}</p>")
