"""A small generated world, with edits and questions of a training split."""

from __future__ import annotations

from pathlib import Path

from palimpsest.data.prepared import PreparedData
from palimpsest.data.world.build import build_world

SIZES = {"countries": 8, "cities": 24, "companies": 60, "universities": 8, "people": 200, "books": 80}
KINDS = ("person", "book", "company", "city", "country")


def small_world(folder: Path, seed: int) -> PreparedData:
    """Hundreds of edits and questions in the training split, a hundred in each of the others."""
    return build_world(
        folder,
        seed=seed,
        realms=dict.fromkeys(("train", "rare", "dev", "test"), SIZES),
        peak=dict.fromkeys(KINDS, 12),
        knee={"person": 20, "book": 10, "company": 10, "city": 10, "country": 8},
        reach=10,
        questions=0.2,
        documents={"text": 5, "restated": 5, "train": 5, "seen": 5, "dev": 5, "test": 5},
        edits={"train": 400, "dev": 100, "test": 100},
        recall={"train": 5, "test": 5},
    )
