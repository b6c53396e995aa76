"""Figures of Larimar's experiments but for forgetting: single and many edits, long texts, scope detection.

Tables have a column ``method``, by which read-outs (or editors) are told apart, and shares with their intervals.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator, PercentFormatter

from palimpsest.figures.style import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY, canvas

COLOURS = (BLUE, ORANGE, GREEN, PURPLE, RED, SKY, GREY)
SINGLE = {
    ("edit", "success_mean"): "new answer\nabove the old",
    ("edit", "exact"): "new answer\nsaid",
    ("paraphrase", "success_mean"): "in other words",
    ("prefixed", "success_mean"): "and after an\nunrelated sentence",
    ("neighbor", "success_mean"): "neighbours\nleft alone",
    ("same subject", "unchanged"): "other facts of\nthe subject kept",
}
RETAINED = {
    ("edit", "success_mean"): "Edits: new answer above the old",
    ("edit", "exact"): "Edits: new answer said",
    ("paraphrase", "success_mean"): "Edits in other words: new above old",
    ("unrelated", "exact"): "Unrelated facts: still said",
}
MODES = {"batch": "at once", "sequence": "one after the other"}
WORDINGS = {"edit": "Asked as it was written", "paraphrase": "Asked in other words"}
READ = "always read"
ABSENT = {"masked": ":", "zero vector": "--"}
"""What stands before a text without memory, and how its line is drawn."""
PALEST = 0.65  # how much white is mixed in for the smallest memory


def single_edits(table: pd.DataFrame) -> Figure:
    """A group of bars a measure; a colour a method, pale without scope detection and full with it.

    Args:
        table: columns ``method``, ``scope`` (whether it is detected), ``kind``, ``protocol``, ``value``, ``low``,
            ``high``; measures that it lacks are left out.
    """
    present = set(zip(table["kind"], table["protocol"], strict=True))
    measures = [measure for measure in SINGLE if measure in present]
    bars = [(str(m), bool(s)) for m, s in table[["method", "scope"]].drop_duplicates().itertuples(index=False)]
    colours = _colours(table["method"])
    with canvas(width=9.5, height=3.8) as (figure, (axes,)):
        width = 0.84 / len(bars)
        for number, (method, scope) in enumerate(bars):
            rows = table[(table["method"] == method) & (table["scope"] == scope)]
            rows = rows.set_index(["kind", "protocol"]).reindex(pd.MultiIndex.from_tuples(measures))
            axes.bar(
                np.arange(len(measures)) + (number - (len(bars) - 1) / 2) * width,
                rows["value"],
                width * 0.93,
                yerr=_errors(rows),
                error_kw={"elinewidth": 1},
                capsize=2,
                color=colours[method] if scope else _pale(colours[method], PALEST),
                label=f"{method}, {'scope detected' if scope else 'always read'}",
            )
        axes.set_xticks(np.arange(len(measures)), [SINGLE[measure] for measure in measures])
        axes.grid(axis="x", visible=False)
        axes.set(ylabel="questions", title="One edit at a time: what changes, and what stays (higher is better)")
        _percent(axes)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2, fontsize=9)
        return figure


def retention(table: pd.DataFrame, mode: str) -> Figure:
    """What is retained against how many edits were made: a colour a method, the darker the larger its memory.

    Args:
        table: columns ``mode``, ``method``, ``slots``, ``edits``, ``kind``, ``protocol``, ``value``, ``low``, ``high``.
        mode: how the edits were made, ``batch`` or ``sequence``; other rows are left out.
    """
    table = table[table["mode"] == mode]
    colours, slots = _colours(table["method"]), sorted(set(table["slots"]))
    shades = dict(zip(slots, np.linspace(PALEST, 0, len(slots)) if len(slots) > 1 else [0.0], strict=True))
    with canvas(2, 2, width=9.5, height=6.2) as (figure, panels):
        for axes, ((kind, protocol), title) in zip(panels, RETAINED.items(), strict=True):
            chosen = table[(table["kind"] == kind) & (table["protocol"] == protocol)]
            for (method, count), rows in chosen.groupby(["method", "slots"], sort=False):
                _line(axes, rows, "edits", _pale(colours[str(method)], shades[count]))
            _percent(axes)
            _powers(axes, table["edits"])
            axes.set_title(title)
            axes.set_xlabel("edits in the memory" if axes in panels[2:] else "")
            axes.set_ylabel("questions" if axes in panels[::2] else "")
        figure.suptitle(
            f"Edits made {MODES[mode]}: how many are still there, and what they did to other facts",
            x=0.01,
            ha="left",
            fontsize=11,
        )
        handles = [Line2D([], [], marker="o", color=colour, label=method) for method, colour in colours.items()]
        handles += [
            Line2D([], [], marker="o", color=_pale("#000000", shade), label=f"{count:,} slots")
            for count, shade in (shades.items() if len(shades) > 1 else ())
        ]
        figure.legend(handles=handles, loc="outside right center", fontsize=9)
        return figure


def rephrased(table: pd.DataFrame) -> Figure:
    """Success against how many other wordings were written along with each edit; a panel a wording asked.

    Args:
        table: columns ``method``, ``rephrased`` (wordings written along), ``kind``, ``protocol``, ``value``, ``low``,
            ``high``, all at one number of edits.
    """
    success = table[table["protocol"] == "success_mean"]
    colours = _colours(table["method"])
    with canvas(1, len(WORDINGS), width=9.5, height=3.5) as (figure, panels):
        for axes, (kind, title) in zip(panels, WORDINGS.items(), strict=True):
            for method, rows in success[success["kind"] == kind].groupby("method", sort=False):
                _line(axes, rows, "rephrased", colours[str(method)], str(method))
            _percent(axes)
            axes.set_xticks(sorted(set(table["rephrased"])))
            axes.set_title(title, fontsize=10)
        panels[0].set_ylabel("new answer above the old")
        figure.supxlabel("other wordings written along with each edit", fontsize=10)
        figure.suptitle("Does it help to write an edit in several wordings?", x=0.01, ha="left", fontsize=11)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right center", fontsize=9)
        return figure


def ablations(noise: pd.DataFrame, slots: pd.DataFrame, beside: pd.DataFrame) -> Figure:
    """What noise, fewer slots, and reading where nothing should be read cost.

    Args:
        noise: columns ``method``, ``noise``, ``value``, ``low``, ``high``: edits said.
        slots: the same with ``slots``, and ``edits``, how many there are.
        beside: columns ``method``, ``written``, ``setting``, ``value``, ``low``, ``high``: perplexity of other text, as
            a multiple. With ``written`` 0 memory is absent, and the setting says how.
    """
    colours = _colours(pd.concat([noise["method"], beside["method"]]))
    with canvas(1, 3, width=12.5, height=3.7) as (figure, (left, middle, right)):
        for axes, rows, column in ((left, noise, "noise"), (middle, slots, "slots")):
            for method, part in rows.groupby("method", sort=False):
                _line(axes, part, column, colours[str(method)], str(method))
            _percent(axes)
        left.set(title="Noise on the addressing weights", xlabel="multiple of their size", ylabel="edits said")
        _powers(middle, slots["slots"])
        middle.set(title=f"{int(slots['edits'].iloc[0]):,} edits in smaller memories", xlabel="slots")
        read, absent = beside[beside["written"] > 0], beside[beside["written"] == 0]
        for key, part in read.groupby(["method", "setting"], sort=False):
            _line(right, part, "written", _pale(colours[str(key[0])], 0 if key[1] == READ else PALEST))
        for setting, value in dict.fromkeys(zip(absent["setting"], absent["value"], strict=True)):
            right.axhline(value, color=GREY, linestyle=ABSENT[setting], label=f"no memory: {setting}")
        _powers(right, read["written"])
        right.set(title="Perplexity of text that no edit is about", xlabel="edits in the memory that is read")
        right.set_ylabel("multiple of the language model's")
        right.ticklabel_format(axis="y", useOffset=False)
        right.legend(fontsize=9)
        handles, labels = left.get_legend_handles_labels()
        handles.append(Line2D([], [], marker="o", color=_pale("#000000", PALEST), label="scope detected"))
        figure.legend(handles, [*labels, "scope detected"], loc="outside lower center", ncols=4, fontsize=9)
        return figure


def recall_by_length(table: pd.DataFrame) -> Figure:
    """Share of a long document's facts that are said when asked, against its length; a line a method.

    Args:
        table: columns ``method``, ``chunks``, ``kind``, ``protocol``, ``value``, ``low``, ``high``; a panel a wording.
    """
    exact = table[table["protocol"] == "exact"]
    kinds = [kind for kind in WORDINGS if kind in set(exact["kind"])]
    colours = _colours(table["method"])
    with canvas(1, len(kinds), width=1.5 + 4.4 * len(kinds), height=3.9) as (figure, panels):
        for axes, kind in zip(panels, kinds, strict=True):
            for method, rows in exact[exact["kind"] == kind].groupby("method", sort=False):
                _line(axes, rows, "chunks", colours[str(method)], str(method))
            _percent(axes)
            _powers(axes, exact["chunks"])
            axes.set_title(WORDINGS[kind], fontsize=10)
        panels[0].set_ylabel("facts said")
        figure.supxlabel("sentences in the document, each a fact about somebody else", fontsize=10)
        figure.suptitle(
            "A long text in a memory and in the context: how much can still be asked for",
            x=0.01,
            ha="left",
            fontsize=11,
        )
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right center", fontsize=9)
        return figure


def scope_curves(table: pd.DataFrame) -> Figure:
    """Receiver operating characteristics of scope detectors, a panel a kind of prompts that are out of scope.

    Args:
        table: columns ``outside`` (that kind), ``detector``, ``false_positives`` and ``true_positives`` (shares of
            prompts out of scope and in scope that are taken for in scope, from the strictest threshold on), and
            ``chosen``, whether the threshold is the one that is used, which gets a point.
    """
    colours = _colours(table["detector"])
    kinds = list(dict.fromkeys(table["outside"]))
    with canvas(1, len(kinds), width=5.2 * len(kinds), height=4.0) as (figure, panels):
        for axes, kind in zip(panels, kinds, strict=True):
            for detector, rows in table[table["outside"] == kind].groupby("detector", sort=False):
                area = np.trapezoid(rows["true_positives"], rows["false_positives"])
                colour, chosen = colours[str(detector)], rows[rows["chosen"]]
                label = f"{detector} (area {area:.3f})"
                axes.plot(rows["false_positives"], rows["true_positives"], color=colour, label=label)
                axes.plot(chosen["false_positives"], chosen["true_positives"], "o", color=colour)
            axes.plot([0, 1], [0, 1], ":", color=GREY)
            axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
            axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
            axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), title=kind, xlabel="mistaken for prompts about the edit")
            axes.legend(loc="lower right", fontsize=9)
        panels[0].set_ylabel("prompts about an edit that are recognised")
        return figure


def _colours(names: pd.Series) -> dict[str, str]:
    """A colour a name, in the order in which they come."""
    return {str(name): COLOURS[place % len(COLOURS)] for place, name in enumerate(dict.fromkeys(names))}


def _pale(colour: str, white: float) -> str:
    """A colour with a share of white."""
    red, green, blue = (part + (1 - part) * white for part in to_rgb(colour))
    return to_hex((red, green, blue))


def _errors(rows: pd.DataFrame) -> list[pd.Series]:
    return [rows["value"] - rows["low"], rows["high"] - rows["value"]]


def _line(axes: Axes, rows: pd.DataFrame, column: str, colour: str, label: str | None = None) -> None:
    rows = rows.sort_values(column)
    axes.errorbar(
        rows[column],
        rows["value"],
        _errors(rows),
        fmt="o-",
        color=colour,
        ecolor=_pale(colour, 0.5),
        markersize=4,
        linewidth=1.4,
        elinewidth=1,
        label=label,
    )


def _percent(axes: Axes) -> None:
    axes.set_ylim(-0.03, 1.05)
    axes.yaxis.set_major_formatter(PercentFormatter(1))


def _powers(axes: Axes, numbers: pd.Series) -> None:
    """A scale of doublings, labelled at every second of many."""
    places = sorted(set(numbers.tolist()))
    shown = places if len(places) <= 7 else places[::-2]
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(shown))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.xaxis.set_minor_locator(NullLocator())
