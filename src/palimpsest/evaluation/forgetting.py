"""Selective forgetting: what is left of facts that were taken back, and what is lost of the others.

All edits are made, some forgotten, and both groups asked: plainly, and by attacks
(:mod:`palimpsest.evaluation.attacks`). What then comes out of the forgotten is judged against an editor that never saw
them, for a fact can also be guessed; and what does not come out against the same editor before it forgot.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from random import Random

import pandas as pd
from tqdm import tqdm

from palimpsest.editors.editor import Editor
from palimpsest.evaluation.attacks import OWN_PROMPT, Attempt, Family, says
from palimpsest.evaluation.editing import Probing, Question, Row, probe
from palimpsest.evaluation.rows import FORGETFUL, Sink
from palimpsest.evaluation.selection import interval_of
from palimpsest.evaluation.statistics import Interval, ratio, share
from palimpsest.facts import Edit

BEFORE, AFTER, NEVER = "before forgetting", "after forgetting", "never seen"
FORGOTTEN, KEPT = "forgotten", "kept"
PROTOCOLS = ("success_mean", "exact", "leaked", "retained")
PLAIN = (OWN_PROMPT, "paraphrase")
ATTEMPT = ["case_id", "family", "number"]


@dataclass(frozen=True)
class Round:
    """What is forgotten at once: ``groups`` are the edits asked about, of those forgotten (all) and of those kept."""

    count: int
    turn: int
    groups: Mapping[str, Sequence[Edit]]


def plan_rounds(edits: Sequence[Edit], turns: Mapping[int, int], limit: int, seed: int) -> list[Round]:
    """Take as many edits from the front as are to be forgotten at once, and in the next turn those after them.

    Args:
        turns: by how many are forgotten at once, how often that is done, each time with others. One turn of few
            forgotten facts says little.
        limit: of kept facts, how many are asked about in all turns of a number together; drawn at random.

    Raises:
        ValueError: there are fewer edits than would be forgotten.
    """
    rounds = []
    for count, times in turns.items():
        if count * times > len(edits):
            raise ValueError(f"{times} times {count} edits to forget, but there are {len(edits)} edits")
        for turn in range(times):
            forgotten = edits[turn * count : (turn + 1) * count]
            kept = [*edits[: turn * count], *edits[(turn + 1) * count :]]
            asked = Random(f"{seed}/{count}/{turn}").sample(kept, min(len(kept), -(-limit // times)))
            rounds.append(Round(count, turn, {FORGOTTEN: forgotten, KEPT: asked}))
    return rounds


def forget_some(
    editor: Editor,
    edits: Sequence[Edit],
    rounds: Sequence[Round],
    families: Mapping[str, Family],
    probing: Probing,
    *,
    plain: Sequence[str] = PLAIN,
    sink: Sink = FORGETFUL,
    progress: bool = False,
) -> list[Row]:
    """Make all edits, forget those of a round, ask; then make only those that are not forgotten, and ask the same.

    Args:
        editor: one that ``forgets``.
        edits: all of them, each with a prompt of its own.
        rounds: of :func:`plan_rounds` for the same edits.
        families: how the facts are asked for.
        probing: tokens of generation and where it ends.
        plain: names of the families by which kept facts are asked; forgotten ones are by all.
        sink: keeps what was asked before forgetting, and each round.

    Returns:
        A row an attempt and state (:data:`BEFORE`, :data:`AFTER`, :data:`NEVER`): ``forgotten`` (how many at once),
        ``turn``, ``group``, ``state``, ``case_id``, ``family``, ``number``, ``prompt``, ``generated``, and the
        outcomes: ``success_mean`` and ``exact`` as in :mod:`palimpsest.evaluation.editing`; ``leaked``, whether the
        answer came out as its family judges it; ``retained``, which is ``exact`` for those that were before.

    Raises:
        ValueError: the editor cannot forget, or two edits have the same prompt, so that one hides the other.
        KeyError: ``plain`` names a family that is not there.
    """
    if not editor.forgets:
        raise ValueError(f"{type(editor).__name__} cannot forget single edits")
    if len({edit.prompt for edit in edits}) < len(edits):
        raise ValueError("two edits have the same prompt: what is left of the one cannot be told from the other")
    by_group = {FORGOTTEN: families, KEPT: {name: families[name] for name in plain}}
    everyone = {group: _once(each.groups[group] for each in rounds) for group in by_group}
    try:
        before = sink.load("forgetting-before")
        if before is None:
            _make(editor, edits)
            before = _ask(editor, everyone, by_group, probing)
            sink.save("forgetting-before", before)
        rows = []
        for each in tqdm(rounds, desc="forgetting", disable=not progress):
            name = f"forgetting-{each.count}-{each.turn}"
            found = sink.load(name)
            if found is None:
                found = _round(editor, edits, each, before, by_group, probing)
                sink.save(name, found)
            rows += found
    finally:
        editor.reset()
    return rows


def _round(
    editor: Editor,
    edits: Sequence[Edit],
    each: Round,
    before: Sequence[Row],
    families: Mapping[str, Mapping[str, Family]],
    probing: Probing,
) -> list[Row]:
    forgotten = each.groups[FORGOTTEN]
    gone = {edit.prompt for edit in forgotten}
    _make(editor, edits)
    editor.forget(forgotten)
    states = {AFTER: _ask(editor, each.groups, families, probing)}
    _make(editor, [edit for edit in edits if edit.prompt not in gone])
    states[NEVER] = _ask(editor, each.groups, families, probing)
    asked = {_attempt(row) for row in states[NEVER]}
    states = {BEFORE: [row for row in before if _attempt(row) in asked]} | states
    known = {_attempt(row) for row in states[BEFORE] if row["exact"]}
    return [
        {"forgotten": each.count, "turn": each.turn, "state": state}
        | row
        | {"retained": row["exact"] if state != BEFORE and _attempt(row) in known else None}
        for state, rows in states.items()
        for row in rows
    ]


def _once(groups: Iterable[Sequence[Edit]]) -> list[Edit]:
    """Every edit of some groups once."""
    return list({edit.case_id: edit for group in groups for edit in group}.values())


def _make(editor: Editor, edits: Sequence[Edit]) -> None:
    """These edits and no others."""
    editor.reset()
    editor.apply(edits)


def _attempt(row: Row) -> tuple:
    return tuple(row[name] for name in ("group", *ATTEMPT))


def _ask(
    editor: Editor,
    groups: Mapping[str, Sequence[Edit]],
    families: Mapping[str, Mapping[str, Family]],
    probing: Probing,
) -> list[Row]:
    """Every attempt of every family of a group at the group's edits, all in one go."""
    attempts: list[tuple[Row, Attempt]] = [
        ({"group": group, "case_id": edit.case_id, "family": family, "number": number}, attempt)
        for group, members in groups.items()
        for edit in members
        for family, make in families[group].items()
        for number, attempt in enumerate(make(edit))
    ]
    asked = [
        Question(name["case_id"], "edit", place, attempt.prompt, attempt.answer, attempt.rivals)
        for place, (name, attempt) in enumerate(attempts)
    ]
    asking = Probing(max_new_tokens=probing.max_new_tokens, stop=probing.stop, generated=("edit",))
    rows = []
    for (name, attempt), outcome in zip(attempts, probe(editor, asked, asking, {}), strict=True):
        outcomes = outcome | {"said": says(outcome["generated"], attempt.answer)}
        row = {**name, "prompt": attempt.prompt}
        row |= {protocol: outcomes[protocol] for protocol in ("generated", "success_mean", "exact")}
        rows.append(row | {"leaked": outcomes[attempt.judged]})
    return rows


def summarize_forgetting(rows: Sequence[Row]) -> pd.DataFrame:
    """Shares by number forgotten, group, family, state and protocol; intervals are over cases.

    Returns:
        Columns ``forgotten``, ``group``, ``family``, ``state``, ``protocol``, ``value``, ``low``, ``high`` and ``n``
        (cases).
    """
    by = ["forgotten", "group", "family", "state"]
    table: list[Row] = []
    for key, group in pd.DataFrame(rows, columns=[*by, "case_id", *PROTOCOLS]).groupby(by, sort=False):
        for protocol in PROTOCOLS:
            known = group[group[protocol].notna()]
            if len(known):
                figure = share(known[protocol].astype(float), known["case_id"])
                table.append(dict(zip(by, key, strict=True)) | {"protocol": protocol, **asdict(figure)})
    return pd.DataFrame(table, columns=[*by, "protocol", "value", "low", "high", "n"])


def headline(table: pd.DataFrame) -> dict[int, dict[str, Interval]]:
    """By how many are forgotten at once, shares of facts said to their own prompts.

    Args:
        table: of :func:`summarize_forgetting`, of one editor.

    Returns:
        ``forgotten`` facts after forgetting, the same by an editor that has ``never_seen`` them, and ``kept`` ones
        after forgetting and ``kept_before``.
    """
    parts = {
        "forgotten": (FORGOTTEN, AFTER),
        "never_seen": (FORGOTTEN, NEVER),
        "kept": (KEPT, AFTER),
        "kept_before": (KEPT, BEFORE),
    }
    asked = table[(table["family"] == OWN_PROMPT) & (table["protocol"] == "exact")]
    return {
        int(count): {
            name: interval_of(asked, forgotten=count, group=group, state=state)
            for name, (group, state) in parts.items()
        }
        for count in dict.fromkeys(table["forgotten"])
    }


def excess_leakage(rows: Sequence[Row]) -> pd.DataFrame:
    """How much more of the forgotten comes out than if it had never been seen: the difference attempt by attempt.

    Paired differences are told from zero with far fewer cases than two shares from one another. The interval is from
    resampling cases; where no attempt differs it is of no width, and ``n`` alone tells how much that means.

    Returns:
        Columns ``forgotten``, ``family``, ``value``, ``low``, ``high`` and ``n`` (attempts).
    """
    frame = pd.DataFrame(rows, columns=["forgotten", "group", "state", "leaked", *ATTEMPT])
    frame = frame[(frame["group"] == FORGOTTEN) & frame["state"].isin([AFTER, NEVER])].dropna(subset="leaked")
    wide = frame.assign(leaked=frame["leaked"].astype(float)).set_index(["forgotten", *ATTEMPT, "state"])["leaked"]
    pairs = wide.unstack("state", sort=False)
    differences = (pairs[AFTER] - pairs[NEVER]).rename("difference").reset_index()
    table: list[Row] = []
    for (forgotten, family), group in differences.groupby(["forgotten", "family"], sort=False):
        by_case = group.groupby("case_id")["difference"]
        figure = ratio(by_case.sum(), by_case.size())
        table.append({"forgotten": forgotten, "family": family, **asdict(figure)})
    return pd.DataFrame(table, columns=["forgotten", "family", "value", "low", "high", "n"])
