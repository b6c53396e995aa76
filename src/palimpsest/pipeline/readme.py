"""Keep the README's numbers equal to the result files.

    python -m palimpsest.pipeline.readme [--check]

Between ``<!-- results NAME -->`` and ``<!-- end -->`` the README shows a table that is made from the committed results.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from palimpsest.figures.methods import method, ordered
from palimpsest.files import atomic_path
from palimpsest.pipeline import project
from palimpsest.pipeline.papers import papers_table
from palimpsest.pipeline.results import SECONDS, read_metrics

README = Path("README.md")
BLOCK = re.compile(r"(<!-- results (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
Figures = Mapping[str, float]

RECALL = {
    "train_templates": "facts of frequent entities, wording seen in training",
    "heldout_templates": "facts of frequent entities, held-out wording",
    "rare_entities": "facts of entities mentioned once or twice",
    "test_entities": "facts of entities never mentioned",
    "test_entities_chance": "the same by chance (commonest answer of the relation)",
}
CLASSES = {"all": "all tokens", "entity": "entity mentions", "target": "target mentions"}
SETTINGS = {"training": "training", "language_modelling": "language modelling", "editing": "editing"}
ASKED = {
    "as_stored": "as stored: found",
    "other_relation_name": "by another name of the relation: found",
    "other_entity_name": "by another name of the entity: found",
    "unknown_fact": "a relation of the entity that is not stored: answered",
    "unknown_entity": "an entity that is not stored: answered",
}
HELP = (  # of MemLLM's reads, from none to all
    "no_memory",
    "finetuned_no_memory",
    "own_writes",
    "gold_writes",
    "gold_position",
    "gold_query",
    "gold_result",
    "gold_position_and_query",
    "gold_all",
)
ENTITIES = {"train": "known entities", "test": "unknown entities"}


def recall_table(figures: Figures) -> list[str]:
    """What the base LM knows before any edit."""
    rows = ["| recall before any edit (exact) | share | 95 % interval | n |", "| --- | --- | --- | --- |"]
    for key, words in RECALL.items():
        name = f"lm.recall.{key}"
        if name in figures:
            bounds = f"{figures[f'{name}.low']:.1%} – {figures[f'{name}.high']:.1%}"
            rows.append(f"| {words} | {figures[name]:.1%} | {bounds} | {figures[f'{name}.n']:,} |")
    return rows


def perplexity_table(figures: Figures) -> list[str]:
    """Perplexity of the base LM on unread documents."""
    splits = [split for split in ENTITIES if f"lm.ppl.all.{split}" in figures]
    # Real documents are not sorted by what the model has read of their entities: there is the test split alone.
    titles = [ENTITIES[split] for split in splits] if len(splits) > 1 else ["test documents"]
    rows = ["| perplexity, unread documents | " + " | ".join(titles) + " |"]
    rows.append("| --- " * (1 + len(splits)) + "|")
    for key, words in CLASSES.items():
        cells = []
        for split in splits:
            name = f"lm.ppl.{key}.{split}"
            value, low, high = (_number(figures[name + part]) for part in ("", ".low", ".high"))
            cells.append(f"{value} ({low} – {high})")
        rows.append(f"| {words} | {' | '.join(cells)} |")
    return rows


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def seconds_table(figures: Figures) -> list[str]:
    """How long each stage took."""
    rows = [f"| stage | seconds on {figures['repro.cores']:.0f} cores |", "| --- | --- |"]
    for name, number in figures.items():
        stage = name.removeprefix(SECONDS)
        if name.startswith(SECONDS) and stage != "total":
            rows.append(f"| `{stage}` | {number:.0f} |")
    return [*rows, f"| **all** | **{figures[f'{SECONDS}total']:.0f}** |"]


def memory_table(figures: Figures) -> list[str]:
    """What a memory of triples finds, and what it should not."""
    rows = ["| asked | " + " | ".join(SETTINGS.values()) + " |", "| --- " * (1 + len(SETTINGS)) + "|"]
    for key, words in ASKED.items():
        names = [f"memory.found.{setting}.{key}" for setting in SETTINGS]
        if all(name in figures for name in names):
            cells = [f"{figures[n]:.1%} ({figures[f'{n}.low']:.1%} – {figures[f'{n}.high']:.1%})" for n in names]
            rows.append(f"| {words} (n = {figures[f'{names[0]}.n']:,}) | {' | '.join(cells)} |")
    return rows


def memllm_perplexity_table(figures: Figures) -> list[str]:
    """Perplexity of MemLLM in each setting of its experiments."""
    rows = ["| perplexity, documents about unknown entities | " + " | ".join(CLASSES.values()) + " |"]
    rows.append("| --- " * (1 + len(CLASSES)) + "|")
    for setting in HELP:
        cells = []
        for key in CLASSES:
            name = f"memllm.ppl.{key}.{setting}"
            value, low, high = (_number(figures[name + part]) for part in ("", ".low", ".high"))
            cells.append(f"{value} ({low} – {high})")
        rows.append(f"| {setting.replace('_', ' ')} | {' | '.join(cells)} |")
    return rows


def memllm_write_table(figures: Figures) -> list[str]:
    """How well MemLLM extracts triples, with and without late stopping, all stored, and freely, as in the paper."""
    kinds = {
        "late": "late stopping",
        "early": "early stopping",
        "late_all": "late stopping, all stored",
        "late_free": "late stopping alone",
    }
    rows = [f"| extracted triples | {' | '.join(kinds.values())} |", "| --- " * (1 + len(kinds)) + "|"]
    for key, words in {"precision": "precision", "recall": "recall", "f1": "F1"}.items():
        names = [f"memllm.write.{key}.{kind}" for kind in kinds]
        cells = [f"{figures[n]:.1%} ({figures[f'{n}.low']:.1%} – {figures[f'{n}.high']:.1%})" for n in names]
        rows.append(f"| {words} | {' | '.join(cells)} |")
    return rows


LARIMAR_SINGLE = {
    "single.success": "the new answer is more probable than the old",
    "single.exact": "the new answer is said",
    "single.paraphrase": "more probable, asked in other words",
    "single.paraphrase_prefixed": "… and after an unrelated sentence",
    "single.neighborhood": "neighbours keep their answer, memory always read",
    "single.neighborhood_scope": "… with scope detection",
    "single.same_subject_scope": "other facts of the subject are answered as before, with scope detection",
}
LARIMAR_MANY = {
    "sequential.512.success": "after 512 edits, the new answer is more probable than the old",
    "sequential.512.paraphrase": "… asked in other words",
    "sequential.512.retained": "… facts that no edit is about are still said",
    "sequential.4096.success": "after 4,096 edits, the new answer is more probable",
    "sequential.4096.paraphrase": "… asked in other words",
    "sequential.4096.retained": "… facts that no edit is about are still said",
    "forget.100.forgotten": "of 100 facts that were forgotten, still said",
    "forget.100.never_seen": "… said if they were never written",
    "forget.100.kept": "of the other 400, still said",
    "recall.256": "said of facts in a text of 256 sentences",
}


def larimar_single_table(figures: Figures) -> list[str]:
    """Single edits by Larimar's published read-out and by the best."""
    return _read_outs_table(figures, "one edit in memory", LARIMAR_SINGLE)


def larimar_many_table(figures: Figures) -> list[str]:
    """Many facts in Larimar's memory, by read-outs."""
    return _read_outs_table(figures, "many facts in memory", LARIMAR_MANY)


def _read_outs_table(figures: Figures, title: str, measures: Mapping[str, str]) -> list[str]:
    rows = [f"| {title} | published | best |", "| --- | --- | --- |"]
    for key, words in measures.items():
        names = [f"larimar.{kind}{key}" for kind in ("", "best.")]
        cells = [f"{figures[n]:.1%} ({figures[f'{n}.low']:.1%} – {figures[f'{n}.high']:.1%})" for n in names]
        rows.append(f"| {words} | {' | '.join(cells)} |")
    return rows


EDITORS = {
    "single.reliability": "says the new answer",
    "single.generalization": "in other words",
    "single.locality": "leaves others alone",
    "single.same_subject": "and the subject's other facts",
    "sequential.1000.score": "all three after 1,000 edits",
    "forget.forgotten": "still said when forgotten",
    "seconds_per_edit": "seconds an edit",
}


def editors_table(figures: Figures) -> list[str]:
    """All editing methods, by free generation; what was not measured, or is not there to be measured, has a dash."""
    names = ordered(name.split(".")[1] for name in figures if name.startswith("editors.") and ".single." in name)
    rows = ["| method | its edits live | " + " | ".join(EDITORS.values()) + " |", "| --- " * (2 + len(EDITORS)) + "|"]
    for name in names:
        cells = [_editor_cell(figures, f"editors.{name}.{key}") for key in EDITORS]
        rows.append(f"| {method(name).label} | {method(name).home} | {' | '.join(cells)} |")
    return rows


def _editor_cell(figures: Figures, name: str) -> str:
    if name not in figures:
        return "–"
    value, low, high = (figures[name + part] for part in ("", ".low", ".high"))
    if name.endswith("seconds_per_edit"):
        return f"{value:.2g}"
    return f"{value:.1%} ({low:.1%} – {high:.1%})"


def bench_table(figures: Figures) -> list[str]:
    """The benchmarks, with the range of their repetitions."""
    rows = ["| benchmark | figure | range |", "| --- | --- | --- |"]
    for name, number in figures.items():
        if not name.endswith((".low", ".high", ".n")):
            low, high = (figures.get(f"{name}.{bound}") for bound in ("low", "high"))
            bounds = "" if low is None or high is None else f"{_number(low)} – {_number(high)}"
            rows.append(f"| `{name}` | {_number(number)} | {bounds} |")
    return rows


TABLES: dict[str, tuple[Callable[[Figures], list[str]], str]] = {
    "recall": (recall_table, "results/metrics/headline.json"),
    "perplexity": (perplexity_table, "results/metrics/headline.json"),
    "real_perplexity": (perplexity_table, "results/real/metrics/headline.json"),
    "memory": (memory_table, "results/metrics/headline.json"),
    "memllm_perplexity": (memllm_perplexity_table, "results/metrics/headline.json"),
    "memllm_write": (memllm_write_table, "results/metrics/headline.json"),
    "larimar_single": (larimar_single_table, "results/metrics/headline.json"),
    "larimar_many": (larimar_many_table, "results/metrics/headline.json"),
    "editors": (editors_table, "results/metrics/headline.json"),
    "papers": (papers_table, "results/metrics/headline.json"),
    "seconds": (seconds_table, "results/metrics/headline.json"),
    "bench": (bench_table, "results/metrics/bench.json"),
}


def rendered(text: str) -> str:
    """The README with its tables made anew. KeyError for a table that nobody knows."""

    def table(match: re.Match[str]) -> str:
        make, source = TABLES[match[2]]
        if not Path(source).exists():
            return match[0]  # nothing measured yet, so nothing changes
        return match[1] + "\n".join(make(read_metrics(source))) + "\n" + match[3]

    return BLOCK.sub(table, text)


def main() -> int:
    """The command line; returns the exit status: with ``--check``, 1 if the README is out of date."""
    parser = argparse.ArgumentParser(prog="python -m palimpsest.pipeline.readme", description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="change nothing, fail if a number is out of date")
    options = parser.parse_args()
    project.enter()
    text = README.read_text(encoding="utf-8")
    if (new := rendered(text)) == text:
        return 0
    if options.check:
        print(f"error: {README} shows other numbers than the results; run python -m palimpsest.pipeline.readme")
        return 1
    with atomic_path(README) as path:
        path.write_text(new, encoding="utf-8")
    print(f"{README} brought up to date")
    return 0


if __name__ == "__main__":
    sys.exit(main())
