"""Memories of another size: as many slots as asked for, and beyond its learned rows a prior that adds nothing."""

from __future__ import annotations

import pytest
import torch
from every_editor import copying_lm, tiny_larimar

from palimpsest.editors.memory_sizes import resized, sized_read_outs
from palimpsest.editors.read_outs import PUBLISHED, read_outs
from palimpsest.facts import Edit

SETTINGS = {
    "addressings": {
        "features": {
            "_target_": "palimpsest.larimar.addressing.FeatureAddressing",
            "slots": 8,
            "seed": 0,
            "kind": "fourier",
        },
        "nearest": {"_target_": "palimpsest.larimar.addressing.NearestAddressing", "slots": 8},
    }
}
EDIT = Edit("0", "Mount Erebus", "What continent is Mount Erebus", "Viking Press", ("Antarctica",))


def test_every_memory_has_the_slots_asked_for() -> None:
    models = dict.fromkeys(("published", "best"), tiny_larimar(copying_lm()))
    editors = sized_read_outs(models, SETTINGS, 5, scoped=True)
    assert editors.keys() == read_outs(models, SETTINGS, scoped=True).keys()
    for editor in editors.values():
        assert editor.addressing.slots == editor.memory.memory.addressing.slots == 5
        assert editor.scope is not None
        editor.apply([EDIT])
        assert editor.memory.memory.used == pytest.approx(1, rel=0.01)


def test_a_prior_keeps_its_rows_and_is_gone_on_with_as_the_identity() -> None:
    prior = torch.arange(6.0).reshape(2, 3) + 1
    assert torch.equal(resized(prior, 1), prior[:1])
    expected = torch.tensor([[1.0, 2, 3], [4, 5, 6], [0, 0, 1], [0, 0, 0]])
    assert torch.equal(resized(prior, 4), expected)


def test_more_slots_than_the_code_has_numbers_change_no_published_read_out() -> None:
    model = tiny_larimar(copying_lm())
    read = []
    for slots in (model.prior.shape[1], 3 * model.prior.shape[1]):
        editor = sized_read_outs({"published": model, "best": model}, SETTINGS, slots, scoped=False)[PUBLISHED]
        editor.apply([EDIT])
        read.append(editor.memory.read(["What is Mount Erebus"]))
    torch.testing.assert_close(*read)
