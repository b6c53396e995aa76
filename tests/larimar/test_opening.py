"""Opened models are those that were saved, and encode each text once for all of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import CORPUS, tiny_encoder, tiny_lm

from palimpsest.larimar.model import Larimar
from palimpsest.larimar.opening import open_remembering


def test_models_say_the_same_and_share_their_encoder(tmp_path: Path) -> None:
    encoder = tiny_encoder(tmp_path / "encoder")
    other = tiny_encoder(tmp_path / "other", seed=1)
    for number, (name, chosen) in enumerate((("a", encoder), ("b", encoder), ("c", other))):
        Larimar(chosen, tiny_lm("qwen2"), slots=4, code=8, seed=number).save(tmp_path / name)
    opened = open_remembering(tmp_path, ["a", "b", "c"], "cpu")
    for name, model in opened.items():
        torch.testing.assert_close(model.encode(CORPUS), Larimar.load(tmp_path / name).encode(CORPUS))
    assert opened["a"].encoder is opened["b"].encoder is not opened["c"].encoder
    assert set(opened["a"].encoder.known) == set(CORPUS)  # type: ignore[attr-defined]
    assert opened["a"].identity != opened["b"].identity
    with pytest.raises(FileNotFoundError):
        open_remembering(tmp_path, ["d"], "cpu")
