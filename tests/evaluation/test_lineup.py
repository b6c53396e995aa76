"""Resources are opened when they are asked for, and once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from palimpsest.data import counterfact, zsre
from palimpsest.data.prepared import PreparedData
from palimpsest.editors.none import NoEdit
from palimpsest.editors.registry import build_editor
from palimpsest.evaluation import lineup
from palimpsest.evaluation.lineup import Resources
from palimpsest.facts import Edit, Probe


def test_only_what_an_editor_asks_for_is_opened_and_shared(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    opened = []

    def open_lm(folder: Path, device: str, dtype: str) -> object:
        opened.append((folder, device, dtype))
        return object()

    monkeypatch.setattr(lineup, "open_base_lm", open_lm)
    resources = Resources(PreparedData(tmp_path), tmp_path / "lm", {"device": "cpu", "dtype": "float32"})
    described = {"_target_": "palimpsest.editors.none.NoEdit"}
    first, second = (build_editor(described, resources) for _ in range(2))
    assert isinstance(first, NoEdit)
    assert first.lm is second.lm is resources["lm"]
    assert opened == [(tmp_path / "lm", "cpu", "float32")]
    assert resources["new_lm"]() is not resources["lm"]
    assert len(opened) == 2
    with pytest.raises(KeyError):
        resources["memory"]


def test_texts_and_prompts_are_of_the_training_split(tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "train.txt").write_text("One two.\n\nThree four.\n")
    resources = Resources(PreparedData(tmp_path), tmp_path, {"device": "cpu", "dtype": "float32"})
    assert resources["corpus"] == ["One two.", "Three four."]
    assert set(resources) == {"lm", "new_lm", "encoder", "corpus", "irrelevant", "prepared", "device"}


def test_irrelevant_are_the_training_splits_edits_and_its_questions_if_it_has_any(tmp_path: Path) -> None:
    prepared = PreparedData(tmp_path)
    edit = Edit("1", "Ada", "Ada was born in", "Oslo", ("Rome",), "P19")
    counterfact.write_edits(prepared.path("edits", "train"), [edit])
    hardware = {"device": "cpu", "dtype": "float32"}
    assert Resources(prepared, tmp_path, hardware)["irrelevant"] == ["Ada was born in"]
    other = Probe("Who wrote Dusk?", "Lee")
    question = replace(edit, prompt="Where was Ada born?", relation=None, neighbors=(other,))
    zsre.write_questions(prepared.path("questions", "train"), [question])
    assert Resources(prepared, tmp_path, hardware)["irrelevant"] == ["Ada was born in", "Where was Ada born?"]
