"""The base language model of the experiments: trained here, or one that exists already."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

from palimpsest.data.prepared import PreparedData
from palimpsest.data.text import write_chunks
from palimpsest.lm.base import POINTER, adopt_base_lm, open_base_lm, train_base_lm
from palimpsest.lm.load import ModelError
from palimpsest.lm.scoring import score_targets
from palimpsest.lm.train import Architecture, Schedule

TEXTS = [f"Person {n} was born in City {n % 3}." for n in range(60)]


@pytest.fixture
def data(tmp_path: Path) -> PreparedData:
    prepared = PreparedData(tmp_path / "prepared")
    write_chunks(prepared.path("text", "train"), TEXTS)
    write_chunks(prepared.path("text", "dev"), TEXTS[:10])
    return prepared


def test_trained_saved_opened_and_used(data: PreparedData, tmp_path: Path) -> None:
    folder = tmp_path / "models" / "base"
    (folder / "old").mkdir(parents=True)  # a former model gives way whole
    history = train_base_lm(
        folder,
        data,
        vocabulary=300,
        architecture=Architecture(layers=2, width=32, feedforward=64, heads=2, context_length=64),
        schedule=Schedule(
            epochs=40, batch_size=4, learning_rate=1e-2, matrix_learning_rate=2e-2, warmup=5, weight_decay=0.1
        ),
        window=48,
        device="cpu",
    )
    assert history["dev_loss"].iloc[-1] < 1
    assert sorted(path.name for path in folder.parent.iterdir()) == ["base"]  # no checkpoint, no partial copy
    assert not (folder / "old").exists()
    lm = open_base_lm(folder)
    assert lm.context_length == 64
    right, wrong = score_targets(lm, ["Person 31 was born in"] * 2, ["City 1", "Person 1"])
    assert right.logprob > wrong.logprob + 1
    saved = Tokenizer.from_file(str(folder / "tokenizer.json"))  # which AutoTokenizer would take for a Qwen2's
    for text in ["Person 31 was born in City 1.", "It counts 150,000 souls."]:
        assert lm.encode([text]) == [saved.encode(text, add_special_tokens=False).ids]


def test_a_pretrained_model_is_adopted_by_name_or_folder(
    data: PreparedData, tmp_path: Path, tiny_folder: Callable[[str], Path]
) -> None:
    tiny = tiny_folder("mistral")
    history = adopt_base_lm(tmp_path / "base", data, name=str(tiny), device="cpu", log=print)
    assert len(history) == 0
    assert json.loads((tmp_path / "base" / POINTER).read_text()) == {"name": str(tiny)}
    lm = open_base_lm(tmp_path / "base", dtype="bfloat16")
    assert lm.model.config.model_type == "mistral"
    assert lm.model.dtype is torch.bfloat16


def test_a_folder_without_a_model_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="empty"):
        open_base_lm(tmp_path / "empty")
