"""The README's table of both papers: each table and figure, what it claims, and where it is measured here.

Claims are those of the abstracts, and of Larimar's text about the table or figure in question. MemLLM's (arXiv
2404.11672) go by what they show; Larimar's (arXiv 2403.11901) by their numbers. Its first version says 4 to 10 times
faster, later ones 8 to 10.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Figures = Mapping[str, float]

LONGEST = 1000  # edits of the sequence that MemLLM's and Larimar's tables have
EDITING = "improves knowledge-intensive tasks in particular"
MODELLING = "improves language modelling in general"
ACCURACY = "accuracy comparable to the most competitive baselines"


@dataclass(frozen=True)
class Item:
    """What a paper shows, and where it is shown here.

    ``measured`` has names of headline figures by what they are called in the table. A format is that of a number.
    """

    paper: str
    shows: str
    claim: str
    stages: tuple[str, ...]
    measured: Mapping[str, str] = field(default_factory=dict)
    format: str = ".1%"


ITEMS = (
    Item(
        "MemLLM",
        "perplexity of documents, with own and with gold writes, positions, queries and results",
        MODELLING,
        ("memllm_read",),
        {
            "target mentions, finetuned without memory": "memllm.ppl.target.finetuned_no_memory",
            "own writes": "memllm.ppl.target.own_writes",
            "gold all": "memllm.ppl.target.gold_all",
        },
        ".3g",
    ),
    Item(
        "MemLLM",
        "what it writes, with late stopping and without",
        "",
        ("memllm_write",),
        {"F1, late": "memllm.write.f1.late", "early": "memllm.write.f1.early"},
    ),
    Item(
        "MemLLM",
        "reading while the memory grows",
        "",
        ("memllm_growth",),
        {"perplexity with 10⁶ distractors, multiple": "memllm.growth.target_ppl_ratio_1e6"},
        ".3g",
    ),
    Item(
        "MemLLM",
        "edits of ZsRE in sequence: reliability, generalization, locality",
        EDITING,
        ("editors_sequential",),
        {name: f"editors.memllm.sequential.{LONGEST}.{name}" for name in ("reliability", "generalization", "locality")},
    ),
    Item(
        "Larimar",
        "Tables 1 and 7: time of an edit",
        "4 – 10 (later versions: 8 – 10) times faster than ROME and GRACE",
        ("editors_cost",),
        {
            "ROME, times as long": "editors.larimar_best.speedup.rome.edit",
            "GRACE": "editors.larimar_best.speedup.grace.edit",
        },
        ".3g",
    ),
    Item(
        "Larimar",
        "Table 2: single edits of CounterFact",
        ACCURACY,
        ("editors_single", "larimar_single"),
        {
            "success": "editors.larimar_best.single.success",
            "paraphrase": "editors.larimar_best.single.paraphrase",
            "neighbourhood": "editors.larimar_best.single.neighborhood",
        },
    ),
    Item(
        "Larimar",
        "Table 3: edits of ZsRE kept after 1,000 others",
        f"{ACCURACY}, also in sequence",
        ("editors_sequential", "larimar_capacity"),
        {
            "Larimar": f"editors.larimar_best.sequential.{LONGEST}.reliability",
            "GRACE": f"editors.grace.sequential.{LONGEST}.reliability",
        },
    ),
    Item(
        "Larimar",
        "Table 4: recall of forgotten and of kept facts",
        "a fact can be erased, the others stay",
        ("larimar_forgetting", "editors_sequential"),
        {
            "forgotten": "editors.larimar_best.forget.forgotten",
            "never seen": "editors.larimar_best.forget.never_seen",
            "kept": "editors.larimar_best.forget.kept",
        },
    ),
    Item(
        "Larimar",
        "Table 5: attacks by rephrasing",
        "fewer succeed than with ROME and MEMIT",
        ("larimar_forgetting", "editors_sequential"),
    ),
    Item(
        "Larimar",
        "Table 6: recall from long inputs",
        "hardly falls with length",
        ("larimar_recall",),
        {"of 256 sentences": "larimar.best.recall.256", "text in context": "incontext.recall.256"},
    ),
    Item(
        "Larimar",
        "Tables 8 and 13: with scope detection and without, and with rephrasings in memory",
        "scope detection is crucial for neighbours, rephrasings help",
        ("larimar_single", "larimar_capacity"),
        {
            "neighbourhood with": "larimar.best.single.neighborhood_scope",
            "without": "larimar.best.single.neighborhood",
        },
    ),
    Item(
        "Larimar",
        "Tables 9 – 11: training settings and scope detectors",
        "without scope detection neighbours are lost",
        ("larimar_single", "larimar_ablations"),
    ),
    Item(
        "Larimar",
        "Table 12: single edits of ZsRE",
        ACCURACY,
        ("editors_sequential",),
        {"reliability": "editors.larimar_best.sequential.1.reliability"},
    ),
    Item("Larimar", "Table 14 and Figure 5: ways of addressing, with rephrasings", "", ("larimar_capacity",)),
    Item(
        "Larimar",
        "Figures 2a, 3 and 4: batches, by memory size",
        "nearly all are said up to as many edits as slots",
        ("larimar_capacity", "editors_sequential"),
        {"512 edits, new above old": "larimar.best.sequential.512.success"},
    ),
    Item(
        "Larimar",
        "Figure 2b: unseen rephrasings over a sequence",
        "generalizes better than GRACE",
        ("larimar_capacity",),
        {"after 4,096 edits": "larimar.best.sequential.4096.paraphrase"},
    ),
    Item("Larimar", "Figure 6: noise on the reading weights", "robust up to a point", ("larimar_ablations",)),
)


def papers_table(figures: Figures) -> list[str]:
    """Each table and figure of both papers, with our value; a figure that was not measured is left out."""
    rows = ["| paper | table or figure | claimed | notebook and stage | here |", "| --- " * 5 + "|"]
    for item in ITEMS:
        stages = ", ".join(f"[`{stage}`](notebooks/{stage}.ipynb)" for stage in item.stages)
        values = "; ".join(
            f"{words} {_read(figures, name, item.format)}" for words, name in item.measured.items() if name in figures
        )
        rows.append(f"| {item.paper} | {item.shows} | {item.claim} | {stages} | {values or 'see the notebook'} |")
    return rows


def _read(figures: Figures, name: str, form: str) -> str:
    """A figure, with its interval if it has one."""
    bounds = [f"{figures[f'{name}.{end}']:{form}}" for end in ("low", "high") if f"{name}.{end}" in figures]
    return f"{figures[name]:{form}}" + (f" ({' – '.join(bounds)})" if bounds else "")
