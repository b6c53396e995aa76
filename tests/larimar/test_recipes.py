"""From prepared data and parameters to trained models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny_encoder, tiny_lm
from worlds import small_world

from palimpsest.data.prepared import PreparedData
from palimpsest.larimar.recipes import PARAPHRASE, QUESTION, Recipes
from palimpsest.lm.encoder import SentenceEncoder

SCHEDULE = {
    "_target_": "palimpsest.larimar.training.Schedule",
    "epochs": 0.5,
    "batch_size": 8,
    "plain_size": 2,
    "decoder_rate": 0.1,
    "learning_rate": 1e-2,
    "weight_decay": 0.0,
    "precision": "fp32",
    "log_every": 1,
    "evaluate_every": 2,
    "checkpoint_every": 1,
}
LORA = {"_target_": "palimpsest.memllm.adapters.Lora", "rank": 2, "head": False}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    return small_world(tmp_path_factory.mktemp("world"), seed=6)


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, Any]:
    return {
        "folder": str(tmp_path / "larimar"),
        "slots": 8,
        "code": 16,
        "seed": 0,
        "models": {"published": {"tune_code": True, "tuning": LORA}, "best": {"tune_code": False, "tuning": "frozen"}},
        "others": {"published": 0, "best": 1},
        "plain": {"train": 4, "dev": 2},
        "episodes": {"sizes": [1, 2], "max_tokens": 24},
        "answers": {"noise": [0.0, 0.5], "scale": [0.6, 1.0], "max_tokens": 24},
        "edits": {"train": 10, "questions": 8, "dev": 4},
        "schedules": {"best": SCHEDULE, "published": SCHEDULE},
        "keys": {
            "edits": 10, "questions": 8, "each": 1, "dev": 5,
            "sharpness": {"candidates": [0.5, 2.5], "slots": 16, "counts": [4, 8]},
            "learning": {"_target_": "palimpsest.larimar.keys.KeyLearning", "steps": 2, "facts": 4},
        },
    }  # fmt: skip


@pytest.fixture
def encoder(tmp_path: Path) -> SentenceEncoder:
    return tiny_encoder(tmp_path / "encoder")


def test_both_models_are_trained_saved_and_leave_nothing_else(
    world: PreparedData, settings: dict[str, Any], encoder: SentenceEncoder, tmp_path: Path
) -> None:
    recipes = Recipes(world, settings)
    frozen = tiny_lm("llama").model.state_dict()
    for name, tuned in (("published", True), ("best", False)):
        tables = recipes.train(name, encoder, tiny_lm("llama"), lambda row, step: None)
        assert {*tables["training"]["model"]} == {name}
        assert tables["training"]["dev_loss"].notna().any()
        assert ("keys" in tables) == (name == "best")
        model = recipes.load(name, "cpu")
        decoder = model.lm.model.state_dict()
        assert any(not torch.equal(decoder[part], weight) for part, weight in frozen.items()) == tuned
    assert {*tables["keys"]["kind"]} == {PARAPHRASE, QUESTION}
    assert not torch.equal(model.key_map, torch.eye(16))
    assert float(model.sharpness) in (0.5, 2.5)
    assert {*tables["sharpness"]["edits"]} == {4, 8}
    assert sorted(path.name for path in Path(settings["folder"]).iterdir()) == ["best", "published"]
    assert not list(tmp_path.glob(".larimar.checkpoints/*"))


def test_prompts_are_those_of_training_edits_and_questions_with_as_many_other_answers_as_are_asked_for(
    world: PreparedData, settings: dict[str, Any]
) -> None:
    recipes = Recipes(world, settings)
    asked = [*world.edits("train")[:10], *recipes.questions]
    assert 0 < len(recipes.questions) <= 8
    assert all(question.relation for question in recipes.questions)
    assert [prompt for prompt, _ in recipes.pairs("published")] == [edit.prompt for edit in asked for _ in range(2)]
    assert len(recipes.pairs("best")) == 3 * len(asked)


def test_data_without_training_questions_will_do(world: PreparedData, settings: dict[str, Any], tmp_path: Path) -> None:
    class Real(PreparedData):
        def splits(self, kind: str) -> list[str]:
            return ["dev", "test"] if kind == "questions" else super().splits(kind)

    recipes = Recipes(Real(world.folder), settings)
    assert recipes.questions == []
    assert len(recipes.wordings) == len(recipes.edits)
