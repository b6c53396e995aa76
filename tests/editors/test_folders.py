"""Editors that are opened from what was trained: what is there is taken, and set as described."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from every_editor import HOME, WordEncoder, copying_lm, tiny_larimar

from palimpsest.data.prepared import PreparedData
from palimpsest.editors.memllm import MemLlmEditor
from palimpsest.editors.read_outs import READ_OUTS
from palimpsest.editors.registry import build_editor
from palimpsest.larimar.addressing import FeatureAddressing, SpanAddressing
from palimpsest.memllm.adapters import Lora, attach_adapter, save_adapter

ADDRESSINGS = {
    "features": {"_target_": "palimpsest.larimar.addressing.FeatureAddressing", "slots": 8, "seed": 0},
    "nearest": {"_target_": "palimpsest.larimar.addressing.NearestAddressing", "slots": 8},
}
TOWNS = ["Oslo", "Bern", "Rome", "Lima"]


def test_memllm_is_opened_with_both_adapters(tmp_path: Path) -> None:
    for seed, adapter in enumerate(("edit_read", "edit_write")):
        lm = attach_adapter(copying_lm(), adapter, Lora(rank=2), seed)
        with torch.no_grad():
            for name, weight in lm.model.named_parameters():
                if "lora_B" in name:
                    weight.normal_(generator=torch.Generator().manual_seed(seed))
        save_adapter(lm, adapter, tmp_path / adapter)
    thresholds = {"_target_": "palimpsest.memory.Thresholds", "entity": 0.05, "relation": 0.15, "pair": 0.1}
    settings = {"_target_": f"{HOME}.memllm.MemLlmSettings", "thresholds": thresholds, "copied": False}
    described = {"_target_": f"{HOME}.memllm_folder.open_memllm_editor", "folder": str(tmp_path), "spaced": True}
    resources = {"lm": copying_lm(), "new_lm": copying_lm, "encoder": WordEncoder()}
    editor = build_editor(described | {"settings": settings}, resources)
    assert isinstance(editor, MemLlmEditor)
    assert (editor.settings.thresholds.entity, editor.settings.copied, editor.reader.spaced) == (0.05, False, True)
    assert len(editor.memory) == 0
    weights = [
        lm.model.get_submodule("model.layers.0.mlp.down_proj").weight
        for lm in (editor.lm, editor.reader.lm, editor.writer.lm)
    ]
    assert all(not torch.equal(one, other) for one, other in zip(weights, [*weights[1:], weights[0]], strict=True))
    assert torch.equal(weights[0], copying_lm().model.get_submodule("model.layers.0.mlp.down_proj").weight)


@pytest.fixture
def prepared(tmp_path: Path) -> PreparedData:
    """Edits of dev and train with neighbours, and other facts about those of dev."""
    for kind, split, relation, prompt in (
        ("edits", "dev", "P19", "{} was born in"),
        ("edits", "train", "P19", "{} was born in"),
        ("recall", "train", "P20", "{} died in"),
    ):
        about = "dev" if kind == "recall" else split
        edits = [
            {
                "case_id": number,
                "requested_rewrite": {
                    "prompt": prompt,
                    "relation_id": relation,
                    "subject": f"{about}{number}",
                    "target_new": {"str": TOWNS[number % 4]},
                    "target_true": {"str": TOWNS[(number + 1) % 4]},
                },
                "paraphrase_prompts": [],
                "neighborhood_prompts": [f"someone else {number} was born in"],
                "attribute_prompts": [],
                "generation_prompts": [],
            }
            for number in range(6)
        ]
        (tmp_path / kind).mkdir(exist_ok=True)
        (tmp_path / kind / f"{split}.json").write_text(json.dumps(edits))
    return PreparedData(tmp_path)


@pytest.mark.parametrize(("read_out", "addressing"), [("published", SpanAddressing), ("best", FeatureAddressing)])
def test_larimar_is_opened_with_thresholds_for_numbers_of_edits(
    read_out: str, addressing: type, prepared: PreparedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_larimar(copying_lm())
    opened = f"{HOME}.larimar_folder.open_remembering"
    monkeypatch.setattr(opened, lambda folder, names, device: dict.fromkeys(names, model))
    described = {
        "_target_": f"{HOME}.larimar_folder.open_larimar_editor",
        "_recursive_": False,
        "folder": "models",
        "read_out": read_out,
        "slots": 5,
        "addressings": ADDRESSINGS,
        "dev": 4,
        "counts": [1, 2, 8],
    }
    editor = build_editor(described, {"prepared": prepared, "device": "cpu"})
    assert isinstance(editor.addressing, addressing)
    assert set(READ_OUTS) == {"published", "best"}
    assert editor.addressing.slots == 5
    assert list(editor.threshold) == [1, 2, 8]
    assert editor.memory.history == []
    edit = prepared.edits("dev")[0]
    editor.apply([edit])
    [inside, outside] = editor.read([edit.prompt, edit.neighbors[0].prompt])
    assert inside.z is not None
    assert outside.z is None
