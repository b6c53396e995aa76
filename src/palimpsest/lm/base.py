"""The base language model of all experiments: trained from scratch, or adopted from the hub or a folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path

import pandas as pd
import torch
from tqdm import tqdm

from palimpsest.data.prepared import PreparedData
from palimpsest.files import atomic_path
from palimpsest.lm.load import LanguageModel, load_lm
from palimpsest.lm.packing import PackedTexts
from palimpsest.lm.tokenizer import train_tokenizer
from palimpsest.lm.train import Architecture, Row, Schedule, train_lm

POINTER = "pretrained.json"
TOKENIZER_CHUNKS = 20_000  # BPE merges settle long before a large corpus ends
HISTORY = ["step", "tokens", "seconds", "loss", "learning_rate", "gradient_norm", "dev_loss"]


def train_base_lm(
    folder: Path,
    data: PreparedData,
    *,
    vocabulary: int,
    architecture: Architecture,
    schedule: Schedule,
    window: int,
    device: str,
    log: Callable[[Row, int], None] = lambda row, step: None,
) -> pd.DataFrame:
    """Train tokenizer and model on the training text and save both in ``folder``.

    A run that was killed goes on from its last checkpoint. Returns the history of
    :func:`palimpsest.lm.train.train_lm` as a table.
    """
    checkpoints = folder.with_name(f".{folder.name}.checkpoints")
    sample = _bar(islice(data.text("train"), TOKENIZER_CHUNKS), "learning the tokenizer from")
    tokenizer = train_tokenizer(sample, vocabulary, architecture.context_length)
    train = PackedTexts.encode(_bar(data.text("train"), "tokenizing"), tokenizer, window)
    dev = PackedTexts.encode(data.text("dev"), tokenizer, window)
    model = architecture.build(tokenizer, schedule.seed).to(torch.device(device))
    history = train_lm(model, train, dev, schedule, checkpoints=checkpoints, log=log)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    shutil.rmtree(checkpoints, ignore_errors=True)
    return pd.DataFrame(history, columns=HISTORY)


def _bar(chunks: Iterable[str], what: str) -> Iterable[str]:
    return tqdm(chunks, desc=what, unit=" chunks", mininterval=1)


def adopt_base_lm(folder: Path, data: PreparedData, *, name: str, **_: object) -> pd.DataFrame:
    """Take a pretrained model: ``folder`` then only says which. Returns an empty history.

    Takes and ignores the run's arguments of :func:`train_base_lm`, which training alone needs.
    """
    with atomic_path(folder / POINTER) as path:
        path.write_text(json.dumps({"name": name}))
    return pd.DataFrame(columns=HISTORY)


def open_base_lm(folder: str | Path, device: str = "cpu", dtype: str = "float32") -> LanguageModel:
    """The base language model that :func:`train_base_lm` or :func:`adopt_base_lm` left in ``folder``."""
    pointer = Path(folder) / POINTER
    name = json.loads(pointer.read_text())["name"] if pointer.exists() else str(folder)
    return load_lm(name, device, getattr(torch, dtype))
