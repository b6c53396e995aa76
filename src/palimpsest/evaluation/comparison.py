"""All editing methods side by side: one tidy table out of the rows that each of them has left.

The rows are those of :mod:`palimpsest.evaluation.editing` and its neighbours, one file a method and experiment:
``FOLDER/METHOD/EXPERIMENT.jsonl``. A method, or a number of edits, that was not run has no rows, and is left out of
every table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from palimpsest.evaluation.editing import COUNTERFACT, FREE, MEANS, SHARES, Kind, Row, score, summarize
from palimpsest.evaluation.editing_runs import AFTER_LAST
from palimpsest.evaluation.rows import read_rows
from palimpsest.evaluation.same_subject import SAME_SUBJECT
from palimpsest.evaluation.selection import interval_of
from palimpsest.evaluation.statistics import Interval

EXPERIMENTS = {
    "single": ("counterfact", "single"),
    "sequential": ("zsre", "sequence"),
    "batch": ("counterfact", "batch"),
}
"""By file, the form of its edits and how they are made."""
SCORE = "score"
SCORES: dict[str, Mapping[Kind, str]] = {"success_mean": COUNTERFACT, "exact": FREE}
"""What a harmonic mean is made of, by the protocol that it goes under: a comparison of probabilities, or free
generation."""
GROUPS = ["method", "dataset", "setting", "run"]
EVERY_RUN = "all"
Measure = tuple[str, str]  # a metric and its protocol
FIGURES = ["value", "low", "high", "n"]

COMPARED: dict[str, Measure] = {  # of single edits, as ROME's and Larimar's tables on CounterFact have them
    "success": ("edit", "success_mean"),
    "paraphrase": ("paraphrase", "success_mean"),
    "neighborhood": ("neighbor", "success_mean"),
    "score": (SCORE, "success_mean"),
    "difference": ("edit", "difference"),
    "neighborhood_difference": ("neighbor", "difference"),
    "portability": ("portability", "success_mean"),
}
GENERATED: dict[str, Measure] = {  # as MEND's, WISE's and MemLLM's tables on ZsRE have them
    "reliability": ("edit", "exact"),
    "generalization": ("paraphrase", "exact"),
    "locality": ("neighbor", "unchanged"),
    "same_subject": (SAME_SUBJECT, "unchanged"),  # of single edits
    "score": (SCORE, "exact"),
}


def read_experiment(folder: Path, methods: Iterable[str], experiment: str) -> pd.DataFrame:
    """The rows of an experiment of all ``methods`` that have any, in their order, with a column ``method``.

    Those of :data:`EXPERIMENTS` get ``dataset``, ``setting`` and ``run``, and are counted by the ``length`` of their
    sequence or batch: an edit that was asked about right after it was made goes with the whole of its sequence.

    Raises FileNotFoundError if no method has any.
    """
    paths = {method: folder / method / f"{experiment}.jsonl" for method in methods}
    rows = [{"method": method, **row} for method, path in paths.items() if path.is_file() for row in read_rows(path)]
    if not rows:
        raise FileNotFoundError(f"no method has rows: there is no {folder}/METHOD/{experiment}.jsonl with any")
    table = pd.DataFrame(rows)
    if experiment in EXPERIMENTS:
        dataset, setting = EXPERIMENTS[experiment]
        runs = table["run"].astype(str) if "run" in table else "0"
        table = table.assign(dataset=dataset, setting=setting, run=runs, edits=table.get("length", table["edits"]))
    return table


def tabulated(table: pd.DataFrame, by: Sequence[str], summary: Callable[[pd.DataFrame], pd.DataFrame]) -> pd.DataFrame:
    """A summary of each method's rows, for each combination of some columns apart.

    Returns:
        Columns ``method``, ``by``, and those of the summary.
    """
    columns = ["method", *by]
    parts = [
        pd.DataFrame([key], columns=columns).merge(summary(rows), how="cross")
        for key, rows in table.groupby(columns, sort=False)
    ]
    return pd.concat(parts, ignore_index=True)


def editing_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Averages and scores by method, data set, setting, run, number of edits, metric, protocol and phase.

    Args:
        rows: of :func:`read_experiment`, as of :func:`palimpsest.evaluation.editing.probe`.

    Returns:
        A tidy table: :data:`GROUPS`, ``edits``, ``metric`` (a kind of question, or :data:`SCORE`), ``protocol``,
        ``phase``, ``value``, ``low``, ``high`` and ``n``. All runs together are the run :data:`EVERY_RUN`; where there
        are several of more than one edit, each has rows of its own too, of what was generated after the last edit.
    """
    runs = rows.groupby(["method", "dataset", "setting", "edits"])["run"].transform("nunique")
    each = rows[(runs > 1) & (rows["edits"] > 1) & (rows["phase"] == AFTER_LAST)]
    each = each.drop(columns={*SHARES, *MEANS} - {*FREE.values()})
    table = tabulated(pd.concat([rows.assign(run=EVERY_RUN), each]), GROUPS[1:], _averages_and_scores)
    return table[[*GROUPS, "edits", "metric", "protocol", "phase", *FIGURES]]


def _averages_and_scores(rows: pd.DataFrame) -> pd.DataFrame:
    scores: list[Row] = []
    for (phase, edits), group in rows.groupby(["phase", "edits"], sort=False):
        scores += [
            {"phase": phase, "edits": edits, "kind": SCORE, "protocol": protocol, **asdict(score(group, parts))}
            for protocol, parts in SCORES.items()
            if all(group.loc[group["kind"] == kind, part].notna().any() for kind, part in parts.items())
        ]
    averages = summarize(rows)
    return pd.concat([averages, pd.DataFrame(scores, columns=averages.columns)]).rename(columns={"kind": "metric"})


def headline(table: pd.DataFrame, measures: Mapping[str, Measure]) -> dict[str, dict[str, Interval]]:
    """By method its figures under the names of ``measures``; absent ones are left out.

    Args:
        table: of :func:`editing_table`, with one data set, setting, run, phase and number of edits.

    Raises:
        ValueError: the table has a figure several times.
    """
    there = set(zip(table["method"], table["metric"], table["protocol"], strict=True))
    return {
        method: {
            name: interval_of(table, method=method, metric=metric, protocol=protocol)
            for name, (metric, protocol) in measures.items()
            if (method, metric, protocol) in there
        }
        for method in dict.fromkeys(table["method"])
    }


def by_number(table: pd.DataFrame) -> dict[str, dict[int, dict[str, Interval]]]:
    """By method and number of edits, of all runs together after the last edit: :data:`GENERATED`.

    Args:
        table: of :func:`editing_table`, with one data set and setting.
    """
    found: dict[str, dict[int, dict[str, Interval]]] = {}
    chosen = table[(table["phase"] == AFTER_LAST) & (table["run"] == EVERY_RUN)]
    for edits in sorted(set(chosen["edits"])):
        for method, figures in headline(chosen[chosen["edits"] == edits], GENERATED).items():
            found.setdefault(method, {})[int(edits)] = figures
    return found


def most_divided(table: pd.DataFrame) -> str:
    """The method of which protocols and moments differ most about whether edits work."""
    asked = table[(table["metric"] == "edit") & (table["protocol"].isin(["success_mean", "token_accuracy", "exact"]))]
    spread = asked.groupby("method")["value"].agg(lambda values: values.max() - values.min())
    return str(spread.idxmax())


def readable(figures: Mapping[str, Mapping[str, Interval]]) -> pd.DataFrame:
    """Headline figures to read: a row a method, in percent with intervals."""
    cells = {
        method: {name: f"{one.value:.1%} ({one.low:.1%} – {one.high:.1%})" for name, one in own.items()}
        for method, own in figures.items()
    }
    return pd.DataFrame.from_dict(cells, orient="index").fillna("")
