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

from palimpsest.editors.editor import ReadingEditor
from palimpsest.editors.history import without
from palimpsest.editors.objective import descend, target_batches, target_loss
from palimpsest.editors.weights import Side, choose_blocks, frozen, hooked, put, read_at, take
from palimpsest.facts import Edit
from palimpsest.lm.generation import generate_greedy
from palimpsest.lm.load import LanguageModel
from palimpsest.lm.scoring import TargetScore, score_targets

Taught = tuple[tuple[str, str], ...]
"""The edits that a value was trained on, in order: prompt and target of each."""
Values = dict[Taught, Tensor]


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
    taught: Taught


@dataclass(frozen=True, eq=False)
class Reading:
    """A prompt, what enters the layer at its last token (F,), and what the layer shall return there (D,), if anything
    but what it does by itself."""

    prompt: str
    key: Tensor | None = None
    value: Tensor | None = None


class Grace(ReadingEditor[Reading]):
    """Edits are made one after the other, also those of a batch.

    The codebook is a function of the sequence of edits: a key does not depend on other edits (it is read below the
    codebook), nor does the value of a new entry. So :meth:`forget` replays the edits that stay, radii and all, and
    leaves bit for bit what would be there had the forgotten ones never been made, though later edits may have expanded
    or split radii in between. Values are kept, so that a replay trains only those whose own history changed.

    Raises ModelError or ValueError if the model has no such layer.
    """

    forgets: ClassVar[bool] = True
    one_by_one: ClassVar[bool] = True

    def __init__(self, lm: LanguageModel, *, settings: GraceSettings) -> None:
        super().__init__(lm)
        self.settings = settings
        [self.block] = choose_blocks(lm.model, [settings.layer])
        self.codebook: list[Entry] = []
        self._edits: list[Edit] = []
        self._keys: list[Tensor] = []
        self._values: Values = {}

    def apply(self, edits: Sequence[Edit]) -> None:
        keys = [self._state(edit.prompt, "input") for edit in edits]
        values = dict(self._values)
        self.codebook = self._written(self.codebook, edits, keys, values)
        self._edits += edits
        self._keys += keys
        self._values = values

    def forget(self, edits: Sequence[Edit]) -> None:
        kept = without(self._edits, edits)
        left, keys = [self._edits[place] for place in kept], [self._keys[place] for place in kept]
        values: Values = {}
        self.codebook = self._written([], left, keys, values)
        self._edits, self._keys, self._values = left, keys, values

    def reset(self) -> None:
        self.codebook, self._edits, self._keys, self._values = [], [], [], {}

    def read(self, prompts: Sequence[str]) -> list[Reading]:
        if not self.codebook or not prompts:
            return [Reading(prompt) for prompt in prompts]
        unique = list(dict.fromkeys(prompts))
        rows = self.lm.encode_prompts(unique)
        [states] = read_at(self.lm, rows, [len(row) - 1 for row in rows], [(self.block.down_name, "input")])
        distances, nearest = _distances(states, torch.stack([entry.key for entry in self.codebook])).min(1)
        found = {}
        for prompt, state, distance, place in zip(unique, states, distances.tolist(), nearest.tolist(), strict=True):
            entry = self.codebook[place]
            found[prompt] = Reading(prompt, state, entry.value) if distance <= entry.radius else Reading(prompt)
        return [found[prompt] for prompt in prompts]

    def score_read(self, readings: Sequence[Reading], targets: Sequence[str]) -> list[TargetScore]:
        # One call for all prompts of a length that the codebook answers for: their last tokens stand in the same place.
        lengths = [len(row) for row in self.lm.encode_prompts([reading.prompt for reading in readings])]
        scores: dict[int, TargetScore] = {}
        for chosen in _calls(readings, lengths):
            with self._answering([readings[i] for i in chosen], _last_of(lengths[chosen[0]])):
                prompts = [readings[i].prompt for i in chosen]
                found = score_targets(self.lm, prompts, [targets[i] for i in chosen])
            scores |= zip(chosen, found, strict=True)
        return [scores[index] for index in range(len(readings))]

    def generate_read(self, readings: Sequence[Reading], *, max_new_tokens: int, stop: Sequence[str] = ()) -> list[str]:
        texts: dict[int, str] = {}
        for chosen in _calls(readings, [0] * len(readings)):
            with self._answering([readings[i] for i in chosen], _last_of_first_call):
                prompts = [readings[i].prompt for i in chosen]
                found = generate_greedy(self.lm, prompts, max_new_tokens=max_new_tokens, stop=stop)
            texts |= zip(chosen, found, strict=True)
        return [texts[index] for index in range(len(readings))]

    def _written(
        self, codebook: Sequence[Entry], edits: Sequence[Edit], keys: Sequence[Tensor], values: Values
    ) -> list[Entry]:
        """The codebook after some more edits; the one given stays as it is (algorithm 1). The values that the way to it
        takes are put into ``values``."""
        entries = list(codebook)
        for edit, key in zip(edits, keys, strict=True):
            identity = (edit.prompt, edit.target_new)
            if not entries:
                entries.append(self._new(edit, key, self.settings.radius, values))
                continue
            distances = _distances(key[None], torch.stack([entry.key for entry in entries]))[0]
            place = int(distances.argmin())
            distance, nearest = float(distances[place]), entries[place]
            if distance > nearest.radius + self.settings.radius:
                entries.append(self._new(edit, key, self.settings.radius, values))
            elif nearest.target == edit.target_new:  # expand: the entry reaches to the new key
                taught = (*nearest.taught, identity)
                value = self._value(edit, nearest.value, taught, values)
                radius = max(nearest.radius, distance)
                entries[place] = replace(nearest, value=value, radius=radius, taught=taught)
            elif distance == 0:  # the same prompt gets another answer: two entries could not be told apart
                entries[place] = self._new(edit, key, min(nearest.radius, self.settings.radius), values)
            else:  # split: each reaches half-way, and no radius grows by it
                entries[place] = replace(nearest, radius=min(nearest.radius, distance / 2))
                entries.append(self._new(edit, key, min(self.settings.radius, distance / 2), values))
        return entries

    def _new(self, edit: Edit, key: Tensor, radius: float, values: Values) -> Entry:
        """An entry whose value starts from what the layer itself returns."""
        taught = ((edit.prompt, edit.target_new),)
        return Entry(key, self._value(edit, None, taught, values), radius, edit.target_new, taught)

    def _state(self, prompt: str, side: Side) -> Tensor:
        """What enters or leaves the layer at a prompt's last token, without any edit. Prompts are read one by one, so
        that a state does not depend, in its last bits, on the company."""
        [ids] = self.lm.encode_prompts([prompt])
        [state] = read_at(self.lm, [ids], [len(ids) - 1], [(self.block.down_name, side)])
        return state[0]

    def _value(self, edit: Edit, start: Tensor | None, taught: Taught, values: Values) -> Tensor:
        """The value that makes the model say the edit's target after its prompt, trained from ``start``, or else from
        what the layer itself returns. One that is known already is taken as it is."""
        known = values.get(taught, self._values.get(taught))
        values[taught] = self._trained(edit, start) if known is None else known
        return values[taught]

    def _trained(self, edit: Edit, start: Tensor | None) -> Tensor:
        [batch] = target_batches(self.lm, [edit.prompt], [edit.target_new], 1)
        start = self._state(edit.prompt, "output") if start is None else start
        value = start.float().clone().requires_grad_(True)
        with torch.enable_grad(), frozen(self.lm.model):
            loss = target_loss(self.lm, batch, self.settings.layer, at_end=True)
            end = torch.zeros(1, dtype=torch.long)  # the prompt's last token, the first that is read anew
            with hooked(self.lm.model, self.block.down_name, lambda out: put(out, end, value[None])):
                adam = torch.optim.Adam([value], lr=self.settings.learning_rate)
                descend(adam, [loss], steps=self.settings.steps, enough=self.settings.enough)
        return value.detach()

    @contextmanager
    def _answering(self, readings: Sequence[Reading], place_of: Callable[[int, int], int]) -> Iterator[None]:
        """Let the layer return the readings' values inside the block, if they have any.

        Whose prompt a row of a batch is, its key tells.

        Args:
            place_of: from how many tokens the cache holds and how many are read now, where among these the prompts'
                last token stands, if it does.
        """
        pairs = [(reading.key, reading.value) for reading in readings if reading.key is not None]
        if not pairs:
            yield
            return
        keys, values = (torch.stack(tensors) for tensors in zip(*pairs, strict=True))  # (N, F), (N, D)
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
            return put(state, ends, values[_distances(take(entering, ends), keys).argmin(1)])

        handle = self.lm.model.register_forward_pre_hook(on_call, with_kwargs=True)
        name = self.block.down_name
        try:
            with hooked(self.lm.model, name, on_input, "input"), hooked(self.lm.model, name, on_output):
                yield
        finally:
            handle.remove()


def _calls(readings: Sequence[Reading], lengths: Sequence[int]) -> list[list[int]]:
    """Positions of readings that can be asked in one call: all without a value; and of the others those of a length,
    but not of one prompt with two values."""
    values: dict[str, list[Tensor]] = {}
    calls: dict[tuple[int, int], list[int]] = {}
    for index, (reading, length) in enumerate(zip(readings, lengths, strict=True)):
        call = (0, -1)
        if reading.value is not None:
            seen = values.setdefault(reading.prompt, [])
            places = [place for place, value in enumerate(seen) if value is reading.value] or [len(seen)]
            seen += [reading.value] * (places[0] == len(seen))
            call = (length, places[0])
        calls.setdefault(call, []).append(index)
    return list(calls.values())


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
