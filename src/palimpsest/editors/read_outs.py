"""Larimar's read-outs side by side, as editors made from the section ``larimar`` of the parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hydra.utils import instantiate

from palimpsest.editors.larimar import LarimarEditor
from palimpsest.larimar.addressing import SpanAddressing
from palimpsest.larimar.model import Larimar
from palimpsest.larimar.scope import NamedSubject, NearestKey, NearestPrompt, Scope

PUBLISHED, BEST, NEAREST = "published", "random features", "nearest keys"
READ_OUTS = {"published": PUBLISHED, "best": BEST}
"""What the read-outs of the headline figures are called in tables."""


def read_outs(
    models: Mapping[str, Larimar],
    settings: Mapping[str, Any],
    *,
    scoped: bool,
    thresholds: Mapping[str, float] | None = None,
) -> dict[str, LarimarEditor]:
    """An editor for each read-out.

    Args:
        models: ``published`` and ``best``.
        settings: ``addressings``, of which ``features`` and ``nearest`` are what Hydra instantiates.
        scoped: whether a scope detector decides if the memory is read, at the read-out's own one of ``thresholds``.
    """
    published, best = models["published"], models["best"]
    size = best.prior.shape[1]
    made: dict[str, tuple[Larimar, Any]] = {PUBLISHED: (published, SpanAddressing(published.prior))}
    given = {"key_size": size, "key_map": best.key_map, "device": best.device}
    chosen: dict[str, Any] = {"features": {"sharpness": float(best.sharpness)}, "nearest": {}}
    for name, key in ((BEST, "features"), (NEAREST, "nearest")):
        made[name] = (best, instantiate(settings["addressings"][key], **given, **chosen[key]))
    detectors: dict[str, Scope] = {PUBLISHED: NearestPrompt(published.encoder)}
    return {
        name: LarimarEditor(
            model,
            addressing=addressing,
            scope=NamedSubject(detectors.get(name) or NearestKey(best.key_map)) if scoped else None,
            threshold=(thresholds or {}).get(name, 0.0),
            focused=name != PUBLISHED,
        )
        for name, (model, addressing) in made.items()
    }
