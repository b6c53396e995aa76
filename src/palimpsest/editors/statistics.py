"""The keys that an MLP sees in ordinary text: their uncentred second moment C = E[k kᵀ].

ROME, MEMIT and AlphaEdit all ask by it how much a change of the down projection would disturb what is not edited. The
papers read 44 million tokens for it; a few times as many vectors as a key has features do as well (Gupta et al. 2025,
arXiv 2506.04226), for all that is needed is that C can be inverted and points the right way.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from palimpsest.editors.weights import Block, hooked, take
from palimpsest.files import atomic_path
from palimpsest.lm.batching import DEFAULT_TOKENS_PER_BATCH, length_batches, padded
from palimpsest.lm.load import LanguageModel

log = logging.getLogger(__name__)

TEXTS_AT_ONCE = 256  # encoded at a time: a corpus is read no further than needed
NAME = "second_moment"


class SecondMoment:
    """C (F, F) in a form that solves: C + ridge · mean(diag C) · I, factored once in double precision (Cholesky).

    The ridge makes C positive definite where some feature never fires; it is too small to matter elsewhere.
    """

    def __init__(self, matrix: Tensor, *, ridge: float = 1e-6) -> None:
        self.matrix = matrix
        double = matrix.double()
        eye = torch.eye(len(matrix), dtype=torch.float64, device=matrix.device)
        self._factor = torch.linalg.cholesky(double + ridge * double.diagonal().mean() * eye)

    def solve(self, keys: Tensor) -> Tensor:
        """C⁻¹k of each of N keys: (N, F) to (N, F), in double precision."""
        return torch.cholesky_solve(keys.double().T, self._factor).T


def second_moments(
    lm: LanguageModel,
    texts: Sequence[str],
    blocks: Sequence[Block],
    *,
    per_feature: float = 10,
    seed: int = 0,
    cache: Path | None = None,
    max_tokens_per_batch: int = DEFAULT_TOKENS_PER_BATCH,
) -> list[Tensor]:
    """C of each block's keys, the inputs of its down projection: (F, F) float32, on the model's device.

    Texts are read as prompts are, in an order drawn from ``seed``, up to the model's context; every token but padding
    counts.

    Args:
        per_feature: how many vectors to average over, in multiples of F. The paper recommends 2 to 10.
        cache: folder for the results, one safetensors file a layer, named after the digest of the model's weights, the
            tokens read and the layer. None computes every time.

    Raises:
        ValueError: the texts have fewer tokens than a key has features, so that C could not be inverted.
    """
    features = max(block.matrix.shape[1] for block in blocks)
    rows = _sample(lm, texts, round(per_feature * features), features, seed)
    paths = [None] * len(blocks) if cache is None else _paths(lm.model, rows, blocks, cache)
    missing = [block for block, path in zip(blocks, paths, strict=True) if path is None or not path.is_file()]
    computed = dict(zip(missing, _moments(lm, rows, missing, max_tokens_per_batch), strict=True)) if missing else {}
    moments = []
    for block, path in zip(blocks, paths, strict=True):
        if block not in computed:
            moments.append(load_file(str(path))[NAME].to(block.matrix.device))
            continue
        moments.append(computed[block])
        if path is not None:
            with atomic_path(path) as temporary:
                save_file({NAME: computed[block].cpu().contiguous()}, temporary)
    return moments


def _sample(lm: LanguageModel, texts: Sequence[str], wanted: int, least: int, seed: int) -> list[list[int]]:
    """Token rows of texts drawn without repetition, with ``wanted`` tokens in all; the last one is cut."""
    rows: list[list[int]] = []
    count = 0
    for row in _encoded(lm, [texts[i] for i in np.random.default_rng(seed).permutation(len(texts))]):
        if count >= wanted:
            break
        rows.append(row[: wanted - count])
        count += len(rows[-1])
    if count < least:
        raise ValueError(f"the corpus has {count} tokens, expected at least {least}: as many as a key has features")
    if count < wanted:
        log.warning("the corpus has only %d tokens, %d vectors were asked for", count, wanted)
    return rows


def _encoded(lm: LanguageModel, texts: Sequence[str]) -> Iterator[list[int]]:
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        for row in lm.encode_prompts(texts[start : start + TEXTS_AT_ONCE]):
            yield row[: lm.context_length]


@torch.no_grad()
def _moments(lm: LanguageModel, rows: Sequence[list[int]], blocks: Sequence[Block], max_tokens: int) -> list[Tensor]:
    """E[k kᵀ] of several blocks in one pass over the rows, summed in double precision."""
    sums: dict[Block, Tensor] = {}

    def gather(block: Block, index: Tensor, state: Tensor) -> None:
        keys = take(state, index).double()
        sums[block] = sums.get(block, 0) + keys.T @ keys

    for batch in length_batches([len(row) for row in rows], max_tokens):
        tokens = padded([rows[i] for i in batch], lm.pad_id, lm.device)
        lengths = torch.tensor([len(rows[i]) for i in batch], device=lm.device)
        index = (torch.arange(tokens.shape[1], device=lm.device) < lengths[:, None]).flatten().nonzero()[:, 0]
        with ExitStack() as hooks:
            for block in blocks:
                hooks.enter_context(hooked(lm.model, block.down_name, partial(gather, block, index), "input"))
            lm.model(input_ids=tokens, use_cache=False, logits_to_keep=1)
    count = sum(map(len, rows))
    return [(sums[block] / count).float() for block in blocks]


def _paths(model: nn.Module, rows: Sequence[list[int]], blocks: Sequence[Block], folder: Path) -> list[Path | None]:
    """The file of each block's result: it is named after all that the result depends on."""
    digest = hashlib.sha256(json.dumps(rows).encode())
    for name, weight in sorted(model.named_parameters()):
        digest.update(f"{name}{tuple(weight.shape)}{weight.dtype}".encode())
        digest.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    texts = digest.hexdigest()
    return [folder / f"{hashlib.sha256(f'{texts}{b.down_name}'.encode()).hexdigest()}.safetensors" for b in blocks]
