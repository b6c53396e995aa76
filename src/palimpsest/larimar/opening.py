"""Trained models opened for experiments that ask the same prompts of many memories."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from palimpsest.larimar.decoder import LatentDecoder
from palimpsest.larimar.model import Larimar
from palimpsest.lm.encoder_cache import REMEMBERING, RememberingEncoder
from palimpsest.lm.scoring import TargetScore

Found = TypeVar("Found")


def open_remembering(folder: Path, names: Sequence[str], device: str | torch.device) -> dict[str, Larimar]:
    """The models of a folder, frozen, by name; each text is encoded once, for all that have the same encoder.

    Nor does a decoder speak twice after the same prompt with the same read-out: whatever a scope detector keeps from
    the memory, it says once, for all memories.

    Raises what :meth:`palimpsest.larimar.model.Larimar.load` raises.
    """
    encoders: dict[str, RememberingEncoder] = {}
    models = {}
    for name in names:
        model = Larimar.load(folder / name, device)
        model.encoder = encoders.setdefault(model.encoder.identity, RememberingEncoder.of(model.encoder))
        model.decoder = RememberingDecoder.of(model.decoder)
        models[name] = model
    return models


class RememberingDecoder(LatentDecoder):
    """Scores and generates each text once, for as long as it lives; its weights must not change."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.known: dict[Hashable, Any] = {}

    @classmethod
    def of(cls, decoder: LatentDecoder) -> RememberingDecoder:
        """The same decoder with a memory of what it has said."""
        made = cls.__new__(cls)
        made.__dict__.update(decoder.__dict__, known={})
        return made

    def score(
        self,
        prompts: Sequence[str],
        targets: Sequence[str],
        z: Tensor | None = None,
        present: Tensor | None = None,
        **options: Any,
    ) -> list[TargetScore]:
        """See :meth:`palimpsest.larimar.decoder.LatentDecoder.score`."""
        keys = self._asked(prompts, z, present)
        asked = [("score", *options.items(), *pair) for pair in zip(targets, keys, strict=True)]

        def find(rows: list[int]) -> list[TargetScore]:
            texts, wanted = [prompts[row] for row in rows], [targets[row] for row in rows]
            return LatentDecoder.score(self, texts, wanted, *_rows(z, present, rows), **options)

        return self._once(asked, find)

    def generate(
        self, prompts: Sequence[str], z: Tensor | None = None, present: Tensor | None = None, **options: Any
    ) -> list[str]:
        """See :meth:`palimpsest.larimar.decoder.LatentDecoder.generate`."""
        said = tuple((name, tuple(value) if name == "stop" else value) for name, value in options.items())
        asked = [("generate", *said, key) for key in self._asked(prompts, z, present)]

        def find(rows: list[int]) -> list[str]:
            return LatentDecoder.generate(self, [prompts[row] for row in rows], *_rows(z, present, rows), **options)

        return self._once(asked, find)

    def _asked(self, prompts: Sequence[str], z: Tensor | None, present: Tensor | None) -> list[Hashable]:
        """What determines the answer to each prompt: it, and what stands before it, if anything."""
        z, seen = self._memory(len(prompts), z, present)
        if z is None:
            return [(prompt, None) for prompt in prompts]
        shown = [
            row.numpy().tobytes() if visible else None for row, visible in zip(z.detach().cpu(), seen, strict=True)
        ]
        return list(zip(prompts, shown, strict=True))

    def _once(self, asked: Sequence[Hashable], find: Callable[[list[int]], list[Found]]) -> list[Found]:
        """What is known for each key; the others' rows are found in one go, equal ones once."""
        known = self.known if REMEMBERING.get() else {}
        new = {key: row for row, key in enumerate(asked) if key not in known}
        if new:
            known.update(zip(new, find(list(new.values())), strict=True))
        return [known[key] for key in asked]


def _rows(z: Tensor | None, present: Tensor | None, rows: list[int]) -> tuple[Tensor | None, Tensor | None]:
    return None if z is None else z[rows], None if present is None else present[rows]
