"""What a memory is filled with: a model's own writes, or what the annotation of documents says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path

from palimpsest.facts import Document, Triple
from palimpsest.memllm.writing import SentenceWrite
from palimpsest.memory import Source, StoredTriple, TripleMemory
from palimpsest.memory.exchange import write_jsonl
from palimpsest.memory.memory import storable

GOLD, MODEL = "annotation", "MemLLM"


def store_gold(memory: TripleMemory, documents: Sequence[Document], labels: Mapping[str, str]) -> int:
    """Store every fact of documents under every name of its entities; returns how many triples are new."""
    triples, sources = [], []
    for document in documents:
        for fact in document.facts:
            heads, tails = (dict.fromkeys(m.name for m in document.entities[end].mentions) for end in fact.ends)
            sentence = fact.evidence[0] if fact.evidence else None
            for head, tail in product(heads, tails):
                triples.append(Triple(head, labels[fact.relation], tail))
                sources.append(Source(document.title, sentence, GOLD))
    return memory.add(triples, sources)


def save_writes(path: Path, documents: Sequence[Document], writes: Iterable[SentenceWrite]) -> int:
    """Save what a model wrote while it read ``documents``, in the form in which memories are exchanged (JSON Lines).

    Returns how many triples there are. Those with a name that no memory can hold are left out.
    """
    return write_jsonl(path, (StoredTriple(triple, (source,)) for triple, source in _sourced(documents, writes)))


def _sourced(documents: Sequence[Document], writes: Iterable[SentenceWrite]) -> Iterator[tuple[Triple, Source]]:
    """Triples that a memory can hold, each with where it was written."""
    for write in writes:
        for triple in write.triples:
            if storable(triple.subject, triple.relation, triple.object):
                yield triple, Source(documents[write.document].title, write.sentence, MODEL)
