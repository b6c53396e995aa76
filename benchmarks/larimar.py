"""How fast Larimar's memory is written and read, against the algorithm that was published, on the same tensors; and how
fast an edit is.

The published way (Larimar, arXiv 2403.11901) inverts two matrices to write, the prior and the addressing
weights, and one to read, the memory; each by 15 steps of X ← 2X − X A X on a batch of full matrices, in float32. Ours
solves for the products: see :mod:`palimpsest.larimar.algebra`.

An edit is measured from its text to the first answer, beside one forward pass of the decoder over the prompt.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from benchmarks.memory.timing import Report
from benchmarks.scoring import compare
from palimpsest.data.prepared import PreparedData
from palimpsest.editors.larimar import LarimarEditor
from palimpsest.facts import Edit
from palimpsest.larimar import Addressing, FeatureAddressing
from palimpsest.larimar.algebra import Memory, pseudo_inverse, read, write
from palimpsest.larimar.model import Larimar
from palimpsest.larimar.scope import NamedSubject, NearestPrompt
from palimpsest.lm.prompts import encode_targets
from palimpsest.pipeline import project

STEPS = 15
PUBLISHED_SCALE = 5e-4  # of Aᵀ, where the iteration begins
ROUNDING = 1e-6  # a residual below this is float32's own
REPETITIONS = 15
MODEL = Path("models/larimar/best")
SLOTS, HELD = 2048, 512  # the largest memory of the experiments, and how many edits it holds before those measured

Found = TypeVar("Found")
Start = Callable[[Tensor], Tensor | float]


@dataclass(frozen=True)
class Case:
    """Random encodings of unit variance, for which the published start is made, and a prior near the identity."""

    facts: tuple[int, ...] = (1, 16, 512)
    slots: int = 512
    code: int = 768
    episodes: int = 1
    seed: int = 0

    def episode(self, facts: int) -> Tensor:
        """Encodings (B, N, C)."""
        return torch.randn(self.episodes, facts, self.code, generator=torch.Generator().manual_seed(self.seed))

    def prior(self) -> Tensor:
        """M₀ (K, C)."""
        noise = torch.randn(self.slots, self.code, generator=torch.Generator().manual_seed(self.seed + 1))
        return torch.eye(self.slots, self.code) + 1e-3 * noise


def published_write(encodings: Tensor, prior: Tensor, start: Start) -> Tensor:
    """M (B, K, C) of encodings (B, N, C); each episode has a prior of its own, as in the published code."""
    weights = encodings @ _iterate(prior.expand(len(encodings), -1, -1).contiguous(), start)
    return _iterate(weights, start) @ encodings


def published_read(queries: Tensor, memory: Tensor, start: Start) -> Tensor:
    """Z_read (B, N, C)."""
    return queries @ _iterate(memory, start) @ memory


def _iterate(a: Tensor, start: Start) -> Tensor:
    x = start(a) * a.mT
    for _ in range(STEPS):
        x = 2 * x - torch.bmm(torch.bmm(x, a), x)
    return x


def published_start(a: Tensor) -> float:
    """The published constant; the iteration diverges for matrices whose norm is above 63."""
    return PUBLISHED_SCALE


def safe_start(a: Tensor) -> Tensor:
    """A factor (B, 1, 1) with which the iteration always converges, if more slowly: 1 / (‖A‖₁ ‖A‖_∞)."""
    size = a.abs()
    return 1 / (size.sum(-2).amax(-1) * size.sum(-1).amax(-1))[:, None, None]


STARTS: tuple[Start, ...] = (published_start, safe_start)


def run(case: Case | None = None, repetitions: int = REPETITIONS, model: Path = MODEL) -> dict[str, float]:
    """Measure the memory (:func:`algebra_figures`) and, if the pipeline has trained a model, :func:`edit_figures`."""
    figures = algebra_figures(case or Case(), repetitions)
    if not model.is_dir():
        print(f"  edits are not measured, for {model} is absent: `make repro` makes it")
        return figures
    return figures | edit_figures(prepared_edits(model, repetitions))


@torch.no_grad()
def algebra_figures(case: Case, repetitions: int) -> dict[str, float]:
    """For each N; ``.low`` and ``.high`` are the smallest and largest ratio of the repetitions, the name their
    median. Without ``_nN`` it is that of the N where the gain is smallest.

    - ``bench.larimar.write_speedup_nN``: an episode of N facts, from encodings to the memory.
    - ``bench.larimar.read_speedup_nN``: N queries of a memory that each way has written itself.
    - ``bench.larimar.read_matrix_speedup_nN``: the same, where ours is given nothing but the matrix.
    - ``bench.larimar.write_residual_nN``: ‖W₀ M − Z‖ / ‖Z‖, where W₀ = Z M₀⁺; ``bench.larimar.read_residual_nN``:
      ‖Z_read − Z‖ / ‖Z‖ of what was written; each followed by ``_published``, of the better of two starts.

    Raises RuntimeError if a residual of ours is larger than the published way's (and than rounding).
    """
    report = Report()
    prior = case.prior()
    ratios: dict[str, list[list[float]]] = {"write": [], "read": []}
    for facts in case.facts:
        z = case.episode(facts)
        ours, theirs = write(z, prior), published_write(z, prior, published_start)
        slow_write = partial(published_write, z, prior, published_start)
        slow_read = partial(published_read, z, theirs, published_start)
        ratios["write"].append(compare(slow_write, partial(write, z, prior), repetitions))
        ratios["read"].append(compare(slow_read, partial(read, z, ours), repetitions))
        bare = compare(slow_read, partial(read, z, ours.matrix), repetitions)
        report.spread(f"bench.larimar.read_matrix_speedup_n{facts}", bare)
        for name, spread in ratios.items():
            report.spread(f"bench.larimar.{name}_speedup_n{facts}", spread[-1])
        report.figures |= _residuals(z, prior, ours)
    for name, spreads in ratios.items():
        report.spread(f"bench.larimar.{name}_speedup", min(spreads, key=statistics.median))
    return report.figures


def _residuals(z: Tensor, prior: Tensor, ours: Memory) -> dict[str, float]:
    """What is left to be explained by each way, checked."""
    weights = z.double() @ pseudo_inverse(prior.double())
    written = [published_write(z, prior, start) for start in STARTS]
    published = {
        "write": [_relative(weights @ memory.double(), z) for memory in written],
        "read": [_relative(published_read(z, memory, start), z) for memory, start in zip(written, STARTS, strict=True)],
    }
    own = {"write": _relative(weights @ ours.matrix, z), "read": _relative(read(z, ours).values, z)}
    figures: dict[str, float] = {}
    for name, residual in own.items():
        best = min(other for other in published[name] if other == other)  # without NaN, where it diverged
        if residual > max(best, ROUNDING):
            raise RuntimeError(f"{name}: a residual of {residual:.3g}, where the published way has {best:.3g}")
        figure = f"bench.larimar.{name}_residual_n{z.shape[1]}"
        figures |= {figure: residual, f"{figure}_published": best}
    return figures


def _relative(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected.double()).norm() / expected.double().norm())


# -- edits -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class EditCase:
    """Edits that are made and measured one after the other, each in a memory that holds others already."""

    model: Larimar
    addressing: Addressing[Any]
    edits: Sequence[Edit]
    held: Sequence[Edit]

    def editor(self) -> LarimarEditor:
        """With the costlier scope detector, which encodes by itself; every prompt is in scope, and so is answered."""
        scope = NamedSubject(NearestPrompt(self.model.encoder))
        editor = LarimarEditor(self.model, addressing=self.addressing, scope=scope, threshold=-torch.inf)
        editor.apply(self.held)
        return editor


class Stopwatch:
    """Adds up milliseconds by name; what the device has still to do is waited for."""

    def __init__(self, device: torch.device) -> None:
        self._wait = partial(torch.cuda.synchronize, device) if device.type == "cuda" else lambda: None
        self.milliseconds: defaultdict[str, float] = defaultdict(float)

    def time(self, name: str, do: Callable[..., Found], *arguments: Any) -> Found:
        """What a call returns."""
        self._wait()
        started = time.perf_counter()
        found = do(*arguments)
        self._wait()
        self.milliseconds[name] += 1000 * (time.perf_counter() - started)
        return found


def prepared_edits(model: Path, repetitions: int) -> EditCase:
    """A trained model and the first test edits, to be written by their features."""
    hardware, prepared = project.section("hardware"), PreparedData(Path(project.section("data_folder")))
    larimar = Larimar.load(model, hardware["device"], getattr(torch, hardware["dtype"]))
    addressing = FeatureAddressing(SLOTS, larimar.prior.shape[1], seed=0, device=larimar.device)
    edits = prepared.edits("test")[: repetitions + HELD]
    return EditCase(larimar, addressing, edits[:repetitions], edits[repetitions:])


@torch.no_grad()
def edit_figures(case: EditCase) -> dict[str, float]:
    """Make each edit and take it back; ``.low`` and ``.high`` are the fastest and the slowest, the name their median.

    - ``bench.larimar.edit_ms``: milliseconds from the edit's text to the whole answer to its prompt.
    - ``bench.larimar.edit_PART_ms``: of these, in a second edit step by step, for ``encoding`` (prompt and answer to
      write, the prompt to read), ``write`` and ``read`` (of the memory), ``scope`` (to tell the detector and to ask it)
      and ``answer`` (greedy, of as many tokens as the target has).
    - ``bench.larimar.forward_pass_ms``: the decoder reads the prompt once.
    - ``bench.larimar.edit_forward_passes``, ``bench.larimar.edit_PART_forward_passes``: each time over that of the
      forward pass beside it.
    """
    editor, rows = case.editor(), []
    for edit in [case.edits[0], *case.edits]:  # the first to warm up
        watch = Stopwatch(case.model.device)
        watch.time("forward_pass", _forward_pass(editor, edit))
        watch.time("edit", _edit, editor, edit)
        editor.forget([edit])
        _edit_step_by_step(editor, edit, watch)
        rows.append(watch.milliseconds)
    report = Report()
    for name in rows[0]:
        report.spread(f"bench.larimar.{name}_ms", [row[name] for row in rows[1:]])
        if name != "forward_pass":
            passes = [row[name] / row["forward_pass"] for row in rows[1:]]
            report.spread(f"bench.larimar.{name}_forward_passes", passes)
    return report.figures


def _forward_pass(editor: LarimarEditor, edit: Edit) -> Callable[[], object]:
    lm = editor.lm
    ids = torch.tensor(lm.encode_prompts([edit.prompt]), device=lm.device)
    return partial(lm.model, input_ids=ids, use_cache=False)


def _edit(editor: LarimarEditor, edit: Edit) -> list[str]:
    editor.apply([edit])
    return editor.generate([edit.prompt], max_new_tokens=_tokens(editor, edit))


def _edit_step_by_step(editor: LarimarEditor, edit: Edit, watch: Stopwatch) -> None:
    """What :func:`_edit` does, except that it ends without the edit."""
    model, scope, memory = editor.model, editor.scope, editor.memory.memory.copy()
    assert scope is not None
    told, text = ([edit.subject], [edit.prompt]), (edit.prompt, edit.target_new)
    sides = text if memory.addressing.apart else [" ".join(text)]
    z = watch.time("edit_encoding", model.encode, sides)
    watch.time("edit_write", memory.write, z[:1], z[-1:], ["measured"])
    watch.time("edit_scope", scope.remember, *told)
    queries = watch.time("edit_encoding", model.encode, [edit.prompt])
    found = watch.time("edit_read", memory.read, queries)
    watch.time("edit_scope", scope.scores, [edit.prompt], queries, memory)
    answer = partial(model.decoder.generate, max_new_tokens=_tokens(editor, edit))
    watch.time("edit_answer", answer, [edit.prompt], found)
    scope.forget(*told)


def _tokens(editor: LarimarEditor, edit: Edit) -> int:
    return len(encode_targets(editor.lm, [edit.prompt], [edit.target_new])[0])
