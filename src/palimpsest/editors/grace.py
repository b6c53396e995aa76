"""GRACE: a codebook beside one layer that answers for prompts near those that were edited (Hartvigsen et al. 2023,
arXiv 2211.11031).

Each entry holds a key (what enters the layer at the last token of an edit's prompt), a value (what the layer shall
return there, trained to yield the target) and a deferral radius ε. Of a prompt whose key is within the radius of its
nearest entry, the layer's output at the last token is replaced by the entry's value (eq. 1); every other prompt passes
untouched.

The layer is an MLP's down projection, as in the authors' experiments with T5 and BERT.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from palimpsest.editors.editor import Editor
from palimpsest.editors.history import without
from palimpsest.editors.objective import TargetBatch, descend, target_batches, target_loss
from palimpsest.editors.weights import Side, choose_blocks, frozen, hooked, put, read_at, take
from palimpsest.facts import Edit
from palimpsest.lm.load import LanguageModel
from palimpsest.lm.scoring import TargetScore


@dataclass(frozen=True, kw_only=True)
class GraceSettings:
    """The defaults are those of the authors' code, which has no early stop.

    Attributes:
        layer: whose MLP's down projection gets the codebook, counted from 0.
        radius: ε of a new entry, a Euclidean distance of keys.
        learning_rate: of Adam, on the value.
        steps: of Adam, at most.
        enough: the loss (nats a token) at which a value is trained.
    """

    layer: int
    radius: float = 1.0
    learning_rate: float = 1.0
    steps: int = 100
    enough: float = 1e-2


@dataclass(frozen=True, eq=False)
class Entry:
    """One place of the codebook."""

    key: Tensor
    """(F,)."""
    value: Tensor
    """(D,)."""
    radius: float
    target: str
    taught: tuple[tuple[str, str], ...]
    """The edits that the value was trained on, in order."""


class Grace(Editor):
    """Edits are made one after the other, also those of a batch.

    The codebook is a function of the sequence of edits: a key does not depend on other edits (it is read below the
    codebook), nor does the value of a new entry. So :meth:`forget` replays the edits that stay, radii and all, and
    leaves bit for bit what would be there had the forgotten ones never been made, though later edits may have expanded
    or split radii in between. Values are kept, so that a replay trains only those whose own history changed.

    Raises ModelError or ValueError if the model has no such layer.
    """

    forgets: ClassVar[bool] = True

    def __init__(self, lm: LanguageModel, *, settings: GraceSettings) -> None:
        super().__init__(lm)
        self.settings = settings
        [self.block] = choose_blocks(lm.model, [settings.layer])
        self.codebook: list[Entry] = []
        self._edits: list[Edit] = []
        self._keys: list[Tensor] = []
        self._values: dict[tuple[tuple[str, str], ...], Tensor] = {}  # by the edits that taught them

    def apply(self, edits: Sequence[Edit]) -> None:
        keys = [self._state(edit.prompt, "input") for edit in edits]
        self.codebook = self._written(self.codebook, edits, keys)
        self._edits += edits
        self._keys += keys

    def forget(self, edits: Sequence[Edit]) -> None:
        kept = without(self._edits, edits)
        left, keys = [self._edits[place] for place in kept], [self._keys[place] for place in kept]
        self.codebook = self._written([], left, keys)
        self._edits, self._keys = left, keys

    def reset(self) -> None:
        self.codebook, self._edits, self._keys, self._values = [], [], [], {}

    def score(self, prompts: Sequence[str], targets: Sequence[str]) -> list[TargetScore]:
        # One call for all prompts of a length: their last tokens then stand in the same place.
        lengths = [len(ids) for ids in self.lm.encode_prompts(prompts)]
        scores: dict[int, TargetScore] = {}
        for length in sorted(set(lengths)):
            chosen = [index for index, own in enumerate(lengths) if own == length]
            with self._answering(_last_of(length)):
                found = super().score([prompts[i] for i in chosen], [targets[i] for i in chosen])
            scores |= zip(chosen, found, strict=True)
        return [scores[index] for index in range(len(prompts))]

    def generate(self, prompts: Sequence[str], *, max_new_tokens: int, stop: Sequence[str] = ()) -> list[str]:
        with self._answering(_last_of_first_call):
            return super().generate(prompts, max_new_tokens=max_new_tokens, stop=stop)

    def _written(self, codebook: Sequence[Entry], edits: Sequence[Edit], keys: Sequence[Tensor]) -> list[Entry]:
        """The codebook after some more edits; the one given stays as it is (algorithm 1)."""
        entries = list(codebook)
        for edit, key in zip(edits, keys, strict=True):
            identity = (edit.prompt, edit.target_new)
            if not entries:
                entries.append(self._new(edit, key, self.settings.radius))
                continue
            distances = _distances(key[None], torch.stack([entry.key for entry in entries]))[0]
            place = int(distances.argmin())
            distance, nearest = float(distances[place]), entries[place]
            if distance > nearest.radius + self.settings.radius:
                entries.append(self._new(edit, key, self.settings.radius))
            elif nearest.target == edit.target_new:  # expand: the entry reaches to the new key
                taught = (*nearest.taught, identity)
                value = self._value(edit, nearest.value, taught)
                radius = max(nearest.radius, distance)
                entries[place] = replace(nearest, value=value, radius=radius, taught=taught)
            elif distance == 0:  # the same prompt gets another answer: two entries could not be told apart
                entries[place] = self._new(edit, key, min(nearest.radius, self.settings.radius))
            else:  # split: each reaches half-way, and no radius grows by it
                entries[place] = replace(nearest, radius=min(nearest.radius, distance / 2))
                entries.append(self._new(edit, key, min(self.settings.radius, distance / 2)))
        return entries

    def _new(self, edit: Edit, key: Tensor, radius: float) -> Entry:
        """An entry whose value starts from what the layer itself returns."""
        taught = ((edit.prompt, edit.target_new),)
        return Entry(key, self._value(edit, None, taught), radius, edit.target_new, taught)

    def _state(self, prompt: str, side: Side) -> Tensor:
        """What enters or leaves the layer at a prompt's last token, without any edit. Prompts are read one by one, so
        that a state does not depend, in its last bits, on the company."""
        [ids] = self.lm.encode_prompts([prompt])
        [state] = read_at(self.lm, [ids], [len(ids) - 1], [(self.block.down_name, side)])
        return state[0]

    def _value(self, edit: Edit, start: Tensor | None, taught: tuple[tuple[str, str], ...]) -> Tensor:
        """The value that makes the model say the edit's target after its prompt, trained from ``start``, or else from
        what the layer itself returns."""
        if taught not in self._values:
            batches = target_batches(self.lm, [edit.prompt], [edit.target_new], 1)
            start = self._state(edit.prompt, "output") if start is None else start
            value = start.float().clone().requires_grad_(True)

            def loss(batch: TargetBatch) -> Tensor:
                with hooked(self.lm.model, self.block.down_name, lambda out: put(out, batch.prompt_ends, value[None])):
                    return target_loss(self.lm, batch)

            with torch.enable_grad(), frozen(self.lm.model):
                adam = torch.optim.Adam([value], lr=self.settings.learning_rate)
                descend(adam, loss, batches, steps=self.settings.steps, enough=self.settings.enough)
            self._values[taught] = value.detach()
        return self._values[taught]

    @contextmanager
    def _answering(self, place_of: Callable[[int, int], int]) -> Iterator[None]:
        """Let the codebook answer inside the block.

        Args:
            place_of: from how many tokens the cache holds and how many are read now, where among these the prompts'
                last token stands, if it does.
        """
        if not self.codebook:
            yield
            return
        keys = torch.stack([entry.key for entry in self.codebook])  # (N, F)
        values = torch.stack([entry.value for entry in self.codebook])  # (N, D)
        radii = torch.tensor([entry.radius for entry in self.codebook], device=keys.device)
        ends = torch.empty(0, dtype=torch.long)  # (B,) the rows' last prompt tokens, if they are read in this call
        entering = torch.empty(0)

        def on_call(_: nn.Module, __: tuple, arguments: dict[str, Any]) -> None:
            nonlocal ends
            rows, width = arguments["input_ids"].shape
            cache = arguments.get("past_key_values")
            place = place_of(cache.get_seq_length() if cache is not None else 0, width)
            ends = torch.arange(rows, device=keys.device) * width + place if 0 <= place < width else ends[:0]

        def on_input(state: Tensor) -> None:
            nonlocal entering
            entering = state

        def on_output(state: Tensor) -> Tensor | None:
            if not len(ends):
                return None
            distances, nearest = _distances(take(entering, ends), keys).min(1)
            near = distances <= radii[nearest]
            return put(state, ends[near], values[nearest[near]]) if near.any() else None

        handle = self.lm.model.register_forward_pre_hook(on_call, with_kwargs=True)
        name = self.block.down_name
        try:
            with hooked(self.lm.model, name, on_input, "input"), hooked(self.lm.model, name, on_output):
                yield
        finally:
            handle.remove()


def _last_of(length: int) -> Callable[[int, int], int]:
    """Where the last token of prompts of a length stands, wherever the scorer begins to read."""
    return lambda start, width: length - 1 - start


def _last_of_first_call(start: int, width: int) -> int:
    """Where the last token of prompts stands that are padded on the left: at the end of the first call."""
    return width - 1 if start == 0 else -1


def _distances(queries: Tensor, keys: Tensor) -> Tensor:
    """Euclidean distances (B, N) of queries (B, F) to keys (N, F), not by way of dot products, which round small
    distances away."""
    return torch.cdist(queries.float(), keys.float(), compute_mode="donot_use_mm_for_euclid_dist")
