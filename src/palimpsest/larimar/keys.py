"""Keys that are learnt: a linear map of a sentence encoder's vectors, under which the wordings of one fact meet.

A sentence encoder puts prompts of one wording close together, whoever they are about: the nearest key to a paraphrase
is then often that of another subject. The map is learnt by telling each fact's wordings from those of other facts
(InfoNCE; van den Oord et al. 2018, arXiv 1807.03748), on facts that are none of those edited later. It takes the
encoder's vectors once, and no decoder. Addressings take it as ``key_map``, and a model keeps it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize
from tqdm import tqdm

from palimpsest.larimar.memory import Encoder
from palimpsest.larimar.wordings import Wordings


@dataclass(frozen=True, kw_only=True)
class KeyLearning:
    """How the map is learnt: Adam, with a rate that falls to nothing.

    ``facts`` are told apart at a time; ``temperature`` divides cosines.
    """

    steps: int = 300
    facts: int = 1024
    learning_rate: float = 3e-3
    temperature: float = 0.05
    evaluate_every: int = 50
    seed: int = 0


def learn_keys(
    encoder: Encoder, train: Sequence[Wordings], dev: Mapping[str, Sequence[Wordings]], learning: KeyLearning
) -> tuple[Tensor, pd.DataFrame]:
    """Learn the map (C, C) of an encoder's vectors of C numbers, from the identity.

    Returns:
        The map, and a table: ``step``, ``loss`` (nats; of that step), ``kind`` (a name of ``dev``), how many ``facts``
        it has, and ``found``, the share of its other wordings whose nearest key, of all those facts, is their own
        fact's. Step 0 is before learning.

    Raises:
        ValueError: there are fewer than two facts, or none that is worded in several ways.
    """
    data, watched = _Encoded(encoder, train), {kind: _Encoded(encoder, facts) for kind, facts in dev.items()}
    generator = torch.Generator().manual_seed(learning.seed)
    size = data.written.shape[1]
    key_map = torch.eye(size, device=data.written.device, requires_grad=True)
    optimizer = torch.optim.Adam([key_map], lr=learning.learning_rate)
    rows: list[dict[str, Any]] = []

    def note(step: int, loss: float) -> None:
        for kind, facts in watched.items():
            found = {"kind": kind, "facts": len(facts.written), "found": facts.found(key_map)}
            rows.append({"step": step, "loss": loss, **found})

    note(0, float("nan"))
    for step in tqdm(range(1, learning.steps + 1), desc="learning keys", unit=" steps", mininterval=1):
        for group in optimizer.param_groups:
            group["lr"] = learning.learning_rate * (1 - (step - 1) / learning.steps)
        loss = data.loss(key_map, learning, generator)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step % learning.evaluate_every == 0 or step == learning.steps:
            note(step, loss.item())
    return key_map.detach(), pd.DataFrame(rows)


class _Encoded:
    """What the encoder says of the wordings of some facts."""

    def __init__(self, encoder: Encoder, facts: Sequence[Wordings]) -> None:
        own = [place for place, fact in enumerate(facts) for _ in fact.others]
        if len(facts) < 2 or not own:
            raise ValueError(f"{len(facts)} facts in {len(own)} other wordings: expected two facts and some wordings")
        texts = [fact.written for fact in facts] + [text for fact in facts for text in fact.others]
        vectors = encoder.encode(texts).detach().clone()  # not of inference mode, for gradients pass through
        self.written, self.others = vectors[: len(facts)], vectors[len(facts) :]  # (F, C), (N, C)
        self.fact = torch.tensor(own, device=vectors.device)  # (N,)

    def loss(self, key_map: Tensor, learning: KeyLearning, generator: torch.Generator) -> Tensor:
        """Facts drawn at random, and as many of their other wordings: which of the facts is each about?"""
        facts = torch.randperm(len(self.written), generator=generator)[: learning.facts].to(self.fact.device)
        place = torch.full((len(self.written),), -1, device=self.fact.device)
        place[facts] = torch.arange(len(facts), device=self.fact.device)
        asked = (place[self.fact] >= 0).nonzero()[:, 0]
        asked = asked[torch.randperm(len(asked), generator=generator)[: len(facts)].to(asked.device)]
        cosines = _keys(self.others[asked], key_map) @ _keys(self.written[facts], key_map).mT
        return cross_entropy(cosines / learning.temperature, place[self.fact[asked]])

    @torch.no_grad()
    def found(self, key_map: Tensor) -> float:
        cosines = _keys(self.others, key_map) @ _keys(self.written, key_map).mT
        return float((cosines.argmax(1) == self.fact).float().mean())


def _keys(vectors: Tensor, key_map: Tensor) -> Tensor:
    """Keys (N, C) of length 1."""
    return normalize(vectors @ key_map, dim=-1)
