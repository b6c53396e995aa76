"""What all editors that change weights share: exact copies to go back to, and hooks that are always removed.

A block is one layer of a transformer. Its MLP ends in the *down projection* W (D, F), which turns a *key* of F features
into a *value* of D, the model's width: ROME and its heirs read the MLP as a memory v = W k and edit this one matrix. It
is found by its place and shape, for its name differs from one architecture to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from palimpsest.editors.editor import Editor
from palimpsest.lm.batching import DEFAULT_TOKENS_PER_BATCH, length_batches, padded
from palimpsest.lm.load import LanguageModel, ModelError

Side = Literal["input", "output"]
Tap = tuple[str, Side]
"""A state to read: a module's name, and whether what goes in or what comes out is meant."""


class Halted(Exception):
    """Raised by a hook: enough of the model has been computed."""


class KeptWeights:
    """Exact copies of some weights of a model, as they are now.

    Raises ModelError if the model has no weight of one of the names.
    """

    def __init__(self, model: nn.Module, names: Iterable[str]) -> None:
        weights = dict(model.named_parameters(remove_duplicate=False))
        self._weights: dict[str, nn.Parameter] = {}
        for name in names:
            if name not in weights:
                raise ModelError(f"{type(model).__name__} has no weight {name!r}")
            self._weights[name] = weights[name]
        self._copies = {name: weight.detach().clone() for name, weight in self._weights.items()}

    def __getitem__(self, name: str) -> Tensor:
        """The copy of a weight; not to be changed."""
        return self._copies[name]

    @torch.no_grad()
    def restore(self) -> None:
        """Put the copies back, bit for bit."""
        for name, weight in self._weights.items():
            weight.copy_(self._copies[name])

    @contextmanager
    def all_or_nothing(self) -> Iterator[None]:
        """If the block raises, the weights are what they were when it began (which may be after earlier edits)."""
        before = {name: weight.detach().clone() for name, weight in self._weights.items()}
        try:
            yield
        except BaseException:
            with torch.no_grad():
                for name, weight in self._weights.items():
                    weight.copy_(before[name])
            raise


class WeightEditor(Editor):
    """An editor that changes the named weights in place and can put them back."""

    def __init__(self, lm: LanguageModel, names: Iterable[str]) -> None:
        super().__init__(lm)
        self.kept = KeptWeights(lm.model, names)

    def reset(self) -> None:
        """Put the weights back that the editor found, bit for bit."""
        self.kept.restore()


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """No weight asks for a gradient inside: the graph then begins where something else does, and is smaller."""
    learning = [weight for weight in model.parameters() if weight.requires_grad]
    for weight in learning:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in learning:
            weight.requires_grad_(True)


@dataclass(frozen=True, eq=False)
class Block:
    """One layer of a transformer: ``name`` is that of its module, ``down`` its MLP's down projection."""

    name: str
    down_name: str
    down: nn.Module

    @property
    def matrix(self) -> Tensor:
        """W (D, F) as a view of the weight, whichever way round the architecture stores it: to change it in place
        changes the model."""
        weight: Any = self.down.weight
        return weight.detach().T if isinstance(self.down, Conv1D) else weight.detach()

    def assign(self, matrix: Tensor) -> None:
        """Give W the values of a matrix (D, F) of any precision.

        Raises ArithmeticError, and changes nothing, if they are not all finite.
        """
        if not matrix.isfinite().all():
            raise ArithmeticError(f"the edit would put values into {self.weight_name} that are not finite")
        self.matrix.copy_(matrix)

    @property
    def weight_name(self) -> str:
        """What the model calls W."""
        return f"{self.down_name}.weight"


def find_blocks(model: Any) -> list[Block]:
    """The layers of a causal LM of transformers, first to last.

    The blocks are the list of as many modules as the configuration has layers. The down projection is, of the linear
    layers of a block that are outside its attention and lead to the model's width, the last.

    Raises:
        ModelError: there is no such list, or no such layer, or several that stand side by side (experts).
    """
    config = model.config.get_text_config()
    count, width = config.num_hidden_layers, config.hidden_size
    lists = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.ModuleList) and len(m) == count]
    if not lists:
        raise ModelError(f"{type(model).__name__} has no list of {count} modules that could be its layers")
    name, modules = lists[0]
    return [_block(f"{name}.{index}", module, width) for index, module in enumerate(modules)]


def choose_blocks(model: Any, layers: Sequence[int]) -> list[Block]:
    """The blocks of some layers, counted from 0, in the order given; :func:`find_blocks` says what may be wrong.

    Raises ValueError for layers that the model does not have.
    """
    blocks = find_blocks(model)
    if wrong := [layer for layer in layers if not 0 <= layer < len(blocks)]:
        raise ValueError(f"there is no layer {wrong[0]}: the model has layers 0 to {len(blocks) - 1}")
    return [blocks[layer] for layer in layers]


def _block(name: str, block: nn.Module, width: int) -> Block:
    linear = [
        (path, module)
        for path, module in block.named_modules()
        if isinstance(module, nn.Linear | Conv1D)
        and not any("attn" in part or "attention" in part for part in path.split("."))
        and (module.nf if isinstance(module, Conv1D) else module.out_features) == width
    ]
    if not linear:
        raise ModelError(f"{name} has no linear layer outside its attention that leads to the model's width of {width}")
    path, module = linear[-1]
    namesakes = [other for other, _ in linear if other.rpartition(".")[2] == path.rpartition(".")[2]]
    if len(namesakes) > 1:
        raise ModelError(f"{name} has {len(namesakes)} down projections side by side, expected one: {namesakes}")
    return Block(name, f"{name}.{path}", module)


@contextmanager
def hooked(
    model: nn.Module, name: str, change: Callable[[Tensor], Tensor | None], side: Side = "output"
) -> Iterator[None]:
    """Look at what goes into or comes out of a module at every call inside the block, and replace it if wanted.

    Args:
        change: gets the state, usually (B, T, width), of the module's first argument or result; what it returns takes
            the state's place, unless it is None. Some architectures flatten B and T: :func:`take` and :func:`put`
            serve both.

    Raises:
        ModelError: the model has no module of that name.
    """

    def on_input(_: nn.Module, arguments: tuple) -> tuple | None:
        state = change(arguments[0])
        return None if state is None else (state, *arguments[1:])

    def on_output(_: nn.Module, __: tuple, output: Any) -> Any:
        state = change(output[0] if isinstance(output, tuple) else output)
        return (state, *output[1:]) if state is not None and isinstance(output, tuple) else state

    try:
        module = model.get_submodule(name)
    except AttributeError as error:
        raise ModelError(f"{type(model).__name__} has no module {name!r}") from error
    handle = module.register_forward_pre_hook(on_input) if side == "input" else module.register_forward_hook(on_output)
    try:
        yield
    finally:
        handle.remove()


def take(state: Tensor, index: Tensor) -> Tensor:
    """States (n, width) at some tokens of a batch, each given as ``row * T + place``."""
    return state.reshape(-1, state.shape[-1])[index.to(state.device)]


def put(state: Tensor, index: Tensor, values: Tensor, *, add: bool = False) -> Tensor:
    """The batch's states with ``values`` (n, width) in place of those at ``index``, or added to them.

    The state given stays as it is. Gradients flow into ``values``.
    """
    flat = state.reshape(-1, state.shape[-1])
    values = values.to(state.device, state.dtype)
    return flat.index_put((index.to(state.device),), values, accumulate=add).view_as(state)


@torch.no_grad()
def read_at(
    lm: LanguageModel,
    rows: Sequence[Sequence[int]],
    places: Sequence[int],
    taps: Sequence[Tap],
    *,
    max_tokens_per_batch: int = DEFAULT_TOKENS_PER_BATCH,
) -> list[Tensor]:
    """States of N rows of token ids, each at one place in it: one tensor (N, width) for each of ``taps``.

    What follows the place is not computed, for it cannot be seen from there, nor what follows the last state in the
    model.
    """
    rows = [row[: place + 1] for row, place in zip(rows, places, strict=True)]
    states: list[dict[int, Tensor]] = [{} for _ in taps]
    for batch in length_batches([len(row) for row in rows], max_tokens_per_batch):
        tokens = padded([rows[i] for i in batch], lm.pad_id, lm.device)
        ends = [number * tokens.shape[1] + len(rows[i]) - 1 for number, i in enumerate(batch)]
        found = _read(lm, tokens, taps, torch.tensor(ends, device=lm.device))
        for kept, state in zip(states, found, strict=True):
            kept |= zip(batch, state, strict=True)
    return [torch.stack([kept[i] for i in range(len(rows))]) for kept in states]


def _read(lm: LanguageModel, tokens: Tensor, taps: Sequence[Tap], index: Tensor) -> list[Tensor]:
    """States at ``index`` of a batch (B, T) that is padded on the right."""
    found: dict[int, Tensor] = {}

    def keep(number: int, state: Tensor) -> None:
        found[number] = take(state, index)
        if len(found) == len(taps):
            raise Halted

    with ExitStack() as hooks:
        for number, (name, side) in enumerate(taps):
            hooks.enter_context(hooked(lm.model, name, partial(keep, number), side))
        with suppress(Halted):
            lm.model(input_ids=tokens, use_cache=False, logits_to_keep=1)
    return [found[number] for number in range(len(taps))]
