"""Where the read-outs come from that the decoder learns to speak from.

:class:`Episodes` is the published objective: what is read from a memory is what was just written there, and the decoder
is to reconstruct the text. :class:`NoisyValues` is for memories that keep keys and values apart: a read-out is some
value, not quite exact, and the decoder is to answer with it whatever the prompt is.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from palimpsest.larimar.algebra import address_kl, read, write
from palimpsest.larimar.model import Larimar


class Sourced(NamedTuple):
    """The read-outs for a few texts."""

    read_outs: dict[str, Tensor]
    """z (B, C) for the B texts, of one or several kinds, each of which is a term of the loss."""
    divergence: Tensor
    """KL of the addressing weights from their prior, in nats a text."""


class Source(Protocol):
    """Gives read-outs for the texts at some positions; ``identity`` says what they depend on besides the model."""

    @property
    def identity(self) -> str: ...

    def __call__(self, items: Sequence[int], generator: torch.Generator) -> Sourced: ...


class Codes:
    """z of texts by position. What a frozen encoder says of each text is computed once, at the start."""

    def __init__(self, model: Larimar, texts: Sequence[str]) -> None:
        self.model, self.texts = model, texts
        unique = {text: place for place, text in enumerate(dict.fromkeys(texts))}
        self._places = [unique[text] for text in texts]
        self._features = None if model.tunes_encoder else model.features(list(unique))

    def __call__(self, items: Sequence[int]) -> Tensor:
        """z (B, C) of the texts at B positions."""
        if self._features is None:
            return self.model.project(self.model.features([self.texts[item] for item in items]))
        return self.model.project(self._features[[self._places[item] for item in items]])

    @cached_property
    def identity(self) -> str:
        """Of encoder and texts."""
        return f"{self.model.encoder.identity}/{sha256(json.dumps(list(self.texts)).encode()).hexdigest()}"


@dataclass(frozen=True)
class Episodes:
    """The texts of a step in episodes, each written to a memory of its own and read back; and z itself.

    Gives ``reconstruction`` (from the read-out) and ``autoencoding`` (from z). The sizes of the episodes are drawn at
    random from ``sizes``; the last has what is left. In training, addressing weights have noise of the model's learned
    variance, and what is written noise of standard deviation ``observation_noise``.
    """

    codes: Codes
    sizes: tuple[int, ...] = (16,)
    observation_noise: float = 1e-6

    def __post_init__(self) -> None:
        if not self.sizes or min(self.sizes) < 1:
            raise ValueError(f"episode sizes: expected one or more positive numbers, not {self.sizes}")

    @property
    def identity(self) -> str:
        return f"episodes/{list(self.sizes)}/{self.observation_noise}/{self.codes.identity}"

    def __call__(self, items: Sequence[int], generator: torch.Generator) -> Sourced:
        model, z = self.codes.model, self.codes(items)
        mask = self._mask(len(items), generator).to(z.device)  # (episodes, longest)
        with torch.autocast(z.device.type, enabled=False):
            queries = z.new_zeros(*mask.shape, z.shape[1]).masked_scatter(mask[..., None], z)
            if model.training:
                written = queries + self.observation_noise * _normal(queries, generator)
                memory = write(written, model.prior, mask=mask)
                sigma = (0.5 * model.log_variance).exp()
                reading = read(queries, memory, mask=mask, noise=sigma, generator=generator)
            else:
                reading = read(queries, write(queries, model.prior, mask=mask), mask=mask)
            divergence = address_kl(reading.mean, model.log_variance, mask)[mask].mean()
        return Sourced({"reconstruction": reading.values[mask], "autoencoding": z}, divergence)

    def _mask(self, texts: int, generator: torch.Generator) -> Tensor:
        """Which places of a batch of episodes hold one of so many texts."""
        lengths: list[int] = []
        while (left := texts - sum(lengths)) > 0:
            drawn = int(torch.randint(len(self.sizes), (), generator=generator))
            lengths.append(min(left, self.sizes[drawn]))
        return torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]


@dataclass(frozen=True)
class NoisyValues:
    """z of a value, such as an answer or a statement, weakened and with Gaussian noise: gives ``answer``.

    What a memory gives back for a prompt in other words, or when it is full, is a part of the value and something of
    others. ``scale`` is that part; ``noise`` is the standard deviation beside the root mean square of z, so that 1 is
    as much noise as there is signal in the whole value. Both stay when the model is evaluated, for so will the
    read-outs' be. Ranges are drawn from uniformly, row by row.
    """

    codes: Codes
    noise: tuple[float, float] = (0.0, 0.0)
    scale: tuple[float, float] = (1.0, 1.0)

    @property
    def identity(self) -> str:
        return f"values/{self.noise}/{self.scale}/{self.codes.identity}"

    def __call__(self, items: Sequence[int], generator: torch.Generator) -> Sourced:
        z = self.codes(items)
        noise, scale = (
            (low + (high - low) * torch.rand(len(items), 1, generator=generator)).to(z.device)
            for low, high in (self.noise, self.scale)
        )
        # Without a gradient through the size: louder codes would drown the noise.
        size = z.detach().square().mean(1, keepdim=True).sqrt() * noise
        return Sourced({"answer": scale * z + size * _normal(z, generator)}, z.new_zeros(()))


def _normal(like: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal numbers, the same on every device."""
    return torch.randn(like.shape, generator=generator, dtype=like.dtype).to(like.device)
