"""How sharp features are is chosen by what other wordings read, and of about equals the sharpest is taken."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from palimpsest.facts import Edit
from palimpsest.larimar.sharpness import TOLERANCE, choose_sharpness

SIZE = 24
EDITS = [
    Edit(str(n), f"S{n}", f"{n}/0", f"answer {n}", (f"old {n}",), paraphrases=(f"{n}/1", f"{n}/2")) for n in range(30)
]


def drawn(seed: int) -> Tensor:
    return torch.randn(SIZE, generator=torch.Generator().manual_seed(seed))


def encode(texts: Sequence[str]) -> Tensor:
    """Prompts of one fact are near one another, and every answer is far from all others."""
    rows = []
    for text in texts:
        fact, _, wording = text.partition("/")
        if wording:
            rows.append(drawn(int(fact)) + 0.4 * drawn(1000 + 10 * int(fact) + int(wording)))
        else:
            rows.append(drawn(sum(map(ord, text)) + 5000))
    return normalize(torch.stack(rows), dim=-1)


MODEL: Any = SimpleNamespace(encode=encode, key_map=torch.eye(SIZE), device=torch.device("cpu"))


def chosen(*candidates: float, counts: Sequence[int] = (10, 30)) -> tuple[float, Any]:
    return choose_sharpness(MODEL, EDITS, candidates, slots=256, counts=counts, asked=20, seed=0)


def test_features_so_sharp_that_no_other_wording_is_found_are_not_chosen() -> None:
    sharpness, table = chosen(1.0, 40.0)
    assert sharpness == 1.0
    found = table.set_index(["sharpness", "edits"])["found"]
    assert {*found.index} == {(1.0, 10), (1.0, 30), (40.0, 10), (40.0, 30)}
    assert found[1.0].min() > 0.9
    assert found[40.0].max() < 0.5


def test_of_about_equals_the_sharpest_is_chosen() -> None:
    sharpness, table = chosen(1.5, 1.0, 0.5)
    means = table.groupby("sharpness")["found"].mean()
    assert sharpness == max(means.index[means >= means.max() - TOLERANCE])
    assert means[1.5] >= means.max() - TOLERANCE
    assert sharpness == 1.5


def test_memories_hold_no_more_than_there_is() -> None:
    _, table = chosen(1.0, counts=(10, 900, 1000))
    assert table["edits"].tolist() == [10, 30]
