"""A memory of relation triples, on its own: usable without any language model."""

from palimpsest.facts import Query
from palimpsest.memory.embedding import Embedder, FunctionEmbedder
from palimpsest.memory.memory import TripleMemory
from palimpsest.memory.query import EDITING, LANGUAGE_MODELLING, TRAINING, Answer, Result, Thresholds
from palimpsest.memory.store import Counts, Source, StoredTriple, TripleMemoryError

__all__ = [
    "EDITING",
    "LANGUAGE_MODELLING",
    "TRAINING",
    "Answer",
    "Counts",
    "Embedder",
    "FunctionEmbedder",
    "Query",
    "Result",
    "Source",
    "StoredTriple",
    "Thresholds",
    "TripleMemory",
    "TripleMemoryError",
]
