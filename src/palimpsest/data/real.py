"""The public data sets as prepared data: fetched, verified, cut into splits and written in the same files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from palimpsest.data import counterfact, docred, text, zsre
from palimpsest.data.download import fetch
from palimpsest.data.prepared import PreparedData
from palimpsest.data.sources import SOURCES
from palimpsest.data.splits import parse_split, select
from palimpsest.facts import DataError

Record = TypeVar("Record")
RELATIONS = "wikidata/properties"


def build_real(
    folder: Path,
    *,
    downloads: str,
    mirror: str | None,
    documents: Mapping[str, str],
    text_from: Mapping[str, str],
    edits: Mapping[str, str],
    questions: Mapping[str, str],
    recall: Mapping[str, str],
) -> PreparedData:
    """Fetch what the splits need, or take it from a mirror, and write the prepared files.

    Args:
        folder: where the prepared files go.
        downloads: a folder for the files as published; what lies there already is verified and used.
        mirror: a folder that has the files already, or None to download them.
        documents, text_from, edits, questions, recall: what each split consists of: a name of
            :data:`palimpsest.data.sources.SOURCES`, or a slice of one, such as ``redocred/dev[:400]``.
            ``text_from`` names documents whose text is the training text.

    Raises:
        DataError: a source is unknown, cannot be had, or cannot be read.
    """
    data = PreparedData(folder)

    def read(reader: Callable[[Path], list[Record]], expression: str) -> Sequence[Record]:
        name = parse_split(expression).name
        return select(reader(_obtain(name, downloads, mirror)), expression)

    relations = docred.read_relations(_obtain(RELATIONS, downloads, mirror))
    docred.write_relations(folder / "relations.json", relations)
    for split, expression in documents.items():
        pages = read(lambda path: docred.read_documents(path, relations), expression)
        docred.write_documents(data.path("documents", split), pages)
    for split, expression in text_from.items():
        text.write_chunks(data.path("text", split), (page.text for page in read(docred.read_documents, expression)))
    for split, expression in edits.items():
        counterfact.write_edits(data.path("edits", split), read(counterfact.read_edits, expression))
    for split, expression in questions.items():
        zsre.write_questions(data.path("questions", split), read(zsre.read_questions, expression))
    for split, expression in recall.items():
        counterfact.write_edits(data.path("recall", split), read(counterfact.read_edits, expression))
    return data


def _obtain(name: str, downloads: str, mirror: str | None) -> Path:
    if name not in SOURCES:
        raise DataError(f"no data source is called {name!r}; there are {', '.join(sorted(SOURCES))}")
    source = SOURCES[name]
    return fetch(source, Path(downloads) / source.name, Path(mirror) if mirror else None)
