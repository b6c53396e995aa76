"""Which settings of an editing method are best on the dev split? A random search, as many trials for every method.

A *space* maps some of a method's settings to the values that they may take. Each trial makes the same edits: some
alone, each taken back before the next, and others one after the other. It is scored by the harmonic mean of
reliability, generalization and locality, all by free generation (:data:`~palimpsest.evaluation.editing.FREE`), right
after an edit alone and after the last of the sequence; the mean of these two is the trial's score. Some methods are
made for the one and some for the other, and all shall do both.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from random import Random
from typing import Any

import pandas as pd
import torch
from tqdm import tqdm

from palimpsest.editors.editor import Editor
from palimpsest.editors.registry import build_editor
from palimpsest.evaluation.cost import EDIT, Stopwatch
from palimpsest.evaluation.editing import FREE, Kind, Probing, Row, score, summarize
from palimpsest.evaluation.editing_runs import drawn, neighbor_answers, sequence, single_edits
from palimpsest.evaluation.rows import Sink, kept
from palimpsest.evaluation.selection import interval_of
from palimpsest.facts import Edit

SINGLE, SEQUENCE = MODES = ("single", "sequence")
PARTS: dict[str, tuple[Kind, str]] = {
    "success": ("edit", "success_mean"),  # reported, and no part of the score
    "reliability": ("edit", FREE["edit"]),
    "generalization": ("paraphrase", FREE["paraphrase"]),
    "locality": ("neighbor", FREE["neighbor"]),
}
Space = Mapping[str, Sequence[Any]]
Settings = dict[str, Any]


def draw_settings(space: Space, trials: int, seed: int) -> list[Settings]:
    """Different settings, drawn at random, but so that each value of each setting is tried about equally often.

    Raises ValueError if the space does not hold so many.
    """
    points = list(product(*(range(len(values)) for values in space.values())))
    if len(points) < trials:
        raise ValueError(f"expected a space of at least {trials} settings, got {len(points)}: {dict(space)}")
    Random(seed).shuffle(points)
    tried: Counter[tuple[int, int]] = Counter()
    drawn_points = []
    for _ in range(trials):
        point = min(points, key=lambda point: sum(tried[choice] for choice in enumerate(point)))
        points.remove(point)
        tried.update(enumerate(point))
        drawn_points.append(point)
    return [
        {name: values[place] for (name, values), place in zip(space.items(), point, strict=True)}
        for point in drawn_points
    ]


def described(description: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """A method's description as :func:`palimpsest.editors.registry.build_editor` takes it, with some other settings."""
    return {**description, "settings": {**description["settings"], **settings}}


@dataclass(frozen=True, kw_only=True)
class Task:
    """What each trial makes and is asked.

    Attributes:
        alone: edits made one at a time.
        in_turn: edits made one after the other.
    """

    alone: Sequence[Edit]
    in_turn: Sequence[Edit]
    probing: Probing

    @classmethod
    def of(
        cls,
        edits: Sequence[Edit],
        others: Sequence[Edit],
        *,
        alone: int,
        in_turn: int,
        neighbors: int,
        max_new_tokens: int,
        seed: int,
    ) -> Task:
        """The first of some edits to make alone, and a sample of others to make in turn.

        So it is in :mod:`palimpsest.evaluation.experiments`: single edits are about what comes first, famous subjects,
        and long sequences go on to others. Edits whose prompt does not name the subject (there are such in ZsRE) are
        left out: methods that look for it cannot make them.

        Args:
            neighbors: at most so many of an edit are asked.
        """

        def usable(some: Sequence[Edit]) -> list[Edit]:
            return [replace(edit, neighbors=edit.neighbors[:neighbors]) for edit in some if edit.subject in edit.prompt]

        kinds = tuple(FREE)
        probing = Probing(max_new_tokens=max_new_tokens, kinds=kinds, generated=kinds)
        return cls(alone=usable(edits)[:alone], in_turn=drawn(usable(others), in_turn, seed), probing=probing)


def run_trial(editor: Editor, task: Task) -> Row:
    """What an editor is worth.

    Args:
        editor: without edits, and so it ends up.

    Returns:
        ``score``, ``failed`` (empty, or why the score is 0 whatever was said: the edited model's weights or
        probabilities are no numbers), ``seconds_per_edit`` (of processor time, to make it), and for each of
        :data:`MODES` its :data:`PARTS` and score, such as ``single_reliability``. All but the first two are absent if
        an edit could not be made.
    """
    baseline = neighbor_answers(editor, [*task.alone, *task.in_turn], task.probing)
    watch = Stopwatch(editor.lm.device, time.process_time)
    try:
        with watch.splitting({EDIT: [(editor, "apply")]}):
            rows = {
                SINGLE: single_edits(editor, task.alone, task.probing, baseline),
                SEQUENCE: sequence(editor, task.in_turn, task.probing, baseline),
            }
    except (ArithmeticError, torch.linalg.LinAlgError) as error:
        return {"score": 0.0, "failed": str(error)}
    found: Row = {"seconds_per_edit": watch.seconds[EDIT] / (len(task.alone) + len(task.in_turn))}
    for mode in MODES:
        table = summarize(rows[mode])
        for part, (kind, protocol) in PARTS.items():
            found[f"{mode}_{part}"] = interval_of(table, kind=kind, protocol=protocol).value
        found[f"{mode}_score"] = score(rows[mode], FREE).value
    mean = sum(found[f"{mode}_score"] for mode in MODES) / len(MODES)
    broken = sum(_broken(row) for mode in MODES for row in rows[mode])
    failed = f"{broken} answers have no probability" if broken else ""
    return {"score": 0.0 if failed else mean, "failed": failed} | found


def _broken(row: Row) -> bool:
    """Whether an answer was to be compared with others and could not be."""
    return row["success_mean"] is not None and row["difference"] is None


def search(
    method: str,
    description: Mapping[str, Any],
    space: Space,
    resources: Mapping[str, Any],
    task: Task,
    *,
    trials: int,
    seed: int,
    sink: Sink,
    progress: bool = False,
) -> list[Row]:
    """Try some settings of a method; a search that was killed goes on from what its sink has.

    Args:
        description: of the method; what the space does not name stays as it is here.
        resources: for :func:`palimpsest.editors.registry.build_editor`.

    Returns:
        A row a trial: ``method``, ``settings``, and what :func:`run_trial` tells.
    """
    rows = []
    for settings in tqdm(draw_settings(space, trials, seed), desc=method, disable=not progress):
        tried = described(description, settings)
        name = f"{method}-{hashlib.sha256(json.dumps(tried).encode()).hexdigest()[:16]}"
        [found] = kept(sink, name, partial(_trial, tried, resources, task))
        rows.append({"method": method, "settings": settings, **found})
    return rows


def trial_table(trials: Sequence[Row]) -> pd.DataFrame:
    """Trials as a table, the best of each method marked as ``chosen``; of equally good ones the fastest.

    Args:
        trials: as of :func:`run_trial`, each with its ``method`` and ``settings``.

    Returns:
        A row a trial: ``method``, ``settings`` (JSON), ``chosen``, and what the trials hold.
    """
    table = pd.DataFrame(trials)
    order = table.sort_values(["score", "seconds_per_edit"], ascending=[False, True], kind="stable")
    best = order.groupby("method", sort=False).head(1).index
    settings = [json.dumps(settings) for settings in table["settings"]]
    first = table[["method"]].assign(settings=settings, chosen=table.index.isin(best))
    return pd.concat([first, table.drop(columns=["method", "settings"])], axis=1)


def _trial(description: Mapping[str, Any], resources: Mapping[str, Any], task: Task) -> list[Row]:
    return [run_trial(build_editor(description, resources), task)]


def chosen_settings(table: pd.DataFrame) -> dict[str, Settings]:
    """The best settings of each method, from what :func:`trial_table` made, also if read from its file."""
    best = table[table["chosen"]]
    return {method: json.loads(text) for method, text in zip(best["method"], best["settings"], strict=True)}


def headline(table: pd.DataFrame) -> dict[str, dict[str, float]]:
    """The figures of each method's best trial."""
    numbers = table[table["chosen"]].set_index("method").drop(columns=["settings", "chosen", "failed"])
    return {
        str(method): {str(name): float(value) for name, value in row.dropna().items()}
        for method, row in numbers.iterrows()
    }
