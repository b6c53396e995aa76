"""Larimar: a language model with a memory that is written, read and forgotten by linear algebra (arXiv 2403.11901)."""

from palimpsest.larimar.addressing import (
    Addressing,
    FeatureAddressing,
    MemoryFullError,
    NearestAddressing,
    SpanAddressing,
)
from palimpsest.larimar.algebra import ConvergenceError, NotWrittenError
from palimpsest.larimar.memory import Entry, MatrixMemory, Text, TextMemory
from palimpsest.larimar.memory_file import MemoryFileError

__all__ = [
    "Addressing",
    "ConvergenceError",
    "Entry",
    "FeatureAddressing",
    "MatrixMemory",
    "MemoryFileError",
    "MemoryFullError",
    "NearestAddressing",
    "NotWrittenError",
    "SpanAddressing",
    "Text",
    "TextMemory",
]
