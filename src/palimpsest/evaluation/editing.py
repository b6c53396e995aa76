"""Did an edit work? Three protocols, named and never mixed, on four kinds of questions.

Kinds: ``edit`` is the edit's own prompt (reliability), a ``paraphrase`` asks it in other words (generalization), a
``neighbor`` asks what must stay as it is (neighbourhood, locality), and ``portability`` composes the edit with another
fact.

Each question has an answer that should win, and rivals that should not: after an edit the new answer and the old ones;
of a neighbour its own answer and the edit's new one. The protocols:

- *success*: the answer is more probable than its rivals. ``success_mean`` compares mean log-probabilities a token, as
  ROME's evaluation on CounterFact does; ``success_total`` compares log-probabilities of whole answers, which favour
  short ones. ``difference`` is the probability (exponential of the mean a token) of the answer minus its best rival's.
- *token accuracy*: the share of the answer's tokens that are the most probable in their place, under teacher forcing.
- *exact*: free greedy generation begins with the answer, as whole words. Of neighbours also ``unchanged``: greedy
  generation says what it says without any edit, right or wrong, which is locality as for ZsRE (WISE, MEND).

And the phases: ``after_edit``, right after the edit was made, and ``after_last``, after the last one of a sequence or
batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from palimpsest.editors.editor import Editor, ReadingEditor
from palimpsest.evaluation.recall import begins_with
from palimpsest.evaluation.statistics import LEVEL, RESAMPLES, Interval, ratio, share
from palimpsest.facts import Edit
from palimpsest.lm.scoring import TargetScore

Kind = Literal["edit", "paraphrase", "neighbor", "portability"]
Row = dict[str, Any]
"""What one question showed: a value by column, JSON alone; ``None`` where a protocol does not apply."""

KINDS: tuple[Kind, ...] = ("edit", "paraphrase", "neighbor", "portability")
SHARES = ("success_mean", "success_total", "exact", "unchanged")  # protocols whose outcome is yes or no
MEANS = ("difference", "token_accuracy")  # protocols whose outcome is a number
COUNTERFACT: dict[Kind, str] = dict.fromkeys(("edit", "paraphrase", "neighbor"), "success_mean")
"""The parts of ROME's score: efficacy, paraphrase and neighbourhood success."""
FREE: dict[Kind, str] = {"edit": "exact", "paraphrase": "exact", "neighbor": "unchanged"}
"""Reliability, generalization and locality by free generation."""


@dataclass(frozen=True, slots=True)
class Question:
    """A prompt by which an edit is judged; ``number`` is its place among those of its kind."""

    case_id: str
    kind: Kind
    number: int
    prompt: str
    answer: str
    rivals: tuple[str, ...] = ()


Baseline = Mapping[Question, str]
"""What the unedited model says to each question, by :func:`greedy_answers`."""


@dataclass(frozen=True, kw_only=True)
class Probing:
    """How to ask: tokens of free generation and where it ends, and of which kinds of questions (it costs the most).

    A stop string that an answer contains does not end the generation for its question.
    """

    max_new_tokens: int = 16
    stop: tuple[str, ...] = (".", "\n")
    kinds: tuple[Kind, ...] = KINDS
    generated: tuple[Kind, ...] = KINDS


def questions(edits: Iterable[Edit], kinds: Sequence[Kind] = KINDS) -> list[Question]:
    """All questions about some edits of the given kinds, edit by edit."""
    asked = []
    for edit in edits:
        old, new = edit.target_true, (edit.target_new,)
        probes: list[tuple[Kind, int, str, str, tuple[str, ...]]] = [
            *(("edit", 0, edit.prompt, edit.target_new, old),),
            *(("paraphrase", n, prompt, edit.target_new, old) for n, prompt in enumerate(edit.paraphrases)),
            *(("neighbor", n, probe.prompt, probe.answer, new) for n, probe in enumerate(edit.neighbors)),
            *(
                ("portability", n, probe.prompt, probe.answer, (probe.before,) if probe.before else ())
                for n, probe in enumerate(edit.portability)
            ),
        ]
        asked += [
            Question(edit.case_id, kind, number, prompt, answer, tuple(rival for rival in rivals if rival != answer))
            for kind, number, prompt, answer, rivals in probes
            if kind in kinds
        ]
    return asked


def greedy_answers(editor: Editor, asked: Sequence[Question], probing: Probing) -> dict[Question, str]:
    """Free greedy generation after each question's prompt, without surrounding white space.

    Questions of kinds that ``probing`` does not generate for are left out. Of the unedited model this is the baseline.
    """
    texts = _generated(editor.generate, [question.prompt for question in asked], asked, probing)
    return {question: text for question, text in zip(asked, texts, strict=True) if text is not None}


def _generated(
    generate: Callable[..., list[str]], prompts: Sequence[Any], asked: Sequence[Question], probing: Probing
) -> list[str | None]:
    """What follows each question's prompt, in whatever form ``generate`` takes it; one call a set of stop strings."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for place, question in enumerate(asked):
        if question.kind in probing.generated:
            stop = tuple(string for string in probing.stop if string not in question.answer)
            groups.setdefault(stop, []).append(place)
    texts: list[str | None] = [None] * len(asked)
    for stop, group in groups.items():
        found = generate([prompts[place] for place in group], max_new_tokens=probing.max_new_tokens, stop=stop)
        for place, text in zip(group, found, strict=True):
            texts[place] = text.strip()
    return texts


def probe(
    editor: Editor,
    asked: Sequence[Question],
    probing: Probing,
    baseline: Baseline,
    readings: Sequence[Any] | None = None,
) -> list[Row]:
    """Ask an editor; all questions are scored in one call, and generated in one a set of stop strings.

    Args:
        readings: of a :class:`~palimpsest.editors.editor.ReadingEditor`, what it read for each question's prompt.
            Without them an editor is asked as it is.

    Returns:
        A row a question: ``case_id``, ``kind``, ``number``, the protocols' outcomes, and ``generated``, the text.

    Raises:
        KeyError: the baseline lacks a neighbour for which there is generation.
    """
    prompts: Sequence[Any] = [question.prompt for question in asked]
    score: Callable[..., list[TargetScore]] = editor.score
    generate: Callable[..., list[str]] = editor.generate
    if isinstance(editor, ReadingEditor):
        prompts = editor.read(prompts) if readings is None else readings
        score, generate = editor.score_read, editor.generate_read
    pairs = [
        (prompt, target)
        for prompt, question in zip(prompts, asked, strict=True)
        for target in (question.answer, *question.rivals)
    ]
    scores = iter(score([prompt for prompt, _ in pairs], [target for _, target in pairs]) if pairs else ())
    generated = _generated(generate, prompts, asked, probing)
    rows = []
    for question, text in zip(asked, generated, strict=True):
        answer, rivals = next(scores), [next(scores) for _ in question.rivals]
        rows.append(
            {
                "case_id": question.case_id,
                "kind": question.kind,
                "number": question.number,
                **_comparison(answer, rivals),
                "token_accuracy": answer.token_accuracy,
                "exact": None if text is None else begins_with(text, [question.answer]),
                "unchanged": None if text is None or question.kind != "neighbor" else text == baseline[question],
                "generated": text,
            }
        )
    return rows


def _comparison(answer: TargetScore, rivals: Sequence[TargetScore]) -> Row:
    """Is the answer more probable than all rivals, and by how much? A tie is no success."""
    if not rivals:
        return {"success_mean": None, "success_total": None, "difference": None}
    best = max(map(mean_logprob, rivals))
    difference = math.exp(mean_logprob(answer)) - math.exp(best)
    return {
        "success_mean": mean_logprob(answer) > best,
        "success_total": answer.logprob > max(rival.logprob for rival in rivals),
        "difference": difference if math.isfinite(difference) else None,  # edits can break a model entirely
    }


def mean_logprob(score: TargetScore) -> float:
    """Mean log-probability a token."""
    return score.logprob / len(score.token_logprobs)


def summarize(rows: Iterable[Row] | pd.DataFrame) -> pd.DataFrame:
    """Averages over questions by phase, number of edits made, kind and protocol; intervals are over cases.

    Returns:
        Columns ``phase``, ``edits``, ``kind``, ``protocol``, ``value``, ``low``, ``high`` and ``n`` (cases for shares,
        questions for means).
    """
    table: list[Row] = []
    asked = pd.DataFrame(rows, columns=["phase", "edits", "kind", "case_id", *SHARES, *MEANS])
    for (phase, edits, kind), group in asked.groupby(["phase", "edits", "kind"], sort=False):
        for protocol in (*SHARES, *MEANS):
            known = group[group[protocol].notna()]
            if len(known):
                figure = _average(known, protocol)
                table.append({"phase": phase, "edits": edits, "kind": kind, "protocol": protocol, **asdict(figure)})
    return pd.DataFrame(table, columns=["phase", "edits", "kind", "protocol", "value", "low", "high", "n"])


def _average(known: pd.DataFrame, protocol: str) -> Interval:
    values = known[protocol].astype(float)
    if protocol in SHARES:
        return share(values, known["case_id"])
    by_case = values.groupby(known["case_id"])
    return ratio(by_case.sum(), by_case.size())


def score(rows: Iterable[Row] | pd.DataFrame, parts: Mapping[Kind, str], seed: int = 0) -> Interval:
    """The harmonic mean of one protocol's average for each kind, such as :data:`COUNTERFACT`; zero if one of them is.

    Args:
        rows: of one phase and number of edits; the interval is from resampling their cases.
        parts: which protocol of which kind.

    Raises:
        ValueError: there is no outcome for one of the parts.
    """
    table = pd.DataFrame(rows)
    cases = table["case_id"].unique()
    totals, counts = np.zeros((2, len(parts), len(cases)))
    for part, (kind, protocol) in enumerate(parts.items()):
        values = table.loc[table["kind"] == kind].set_index("case_id")[protocol].dropna().astype(float)
        if values.empty:
            raise ValueError(f"a score over nothing: there is no {protocol} of kind {kind}")
        by_case = values.groupby(level=0)
        totals[part] = by_case.sum().reindex(cases, fill_value=0)
        counts[part] = by_case.size().reindex(cases, fill_value=0)
    draws = np.random.default_rng(seed).integers(len(cases), size=(RESAMPLES, len(cases)))
    resampled = harmonic_mean(_ratios(totals[:, draws], counts[:, draws]))
    low, high = np.nanquantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(harmonic_mean(_ratios(totals, counts))), float(low), float(high), len(cases))


def _ratios(totals: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Averages over the last axis; not a number where a resample holds no case with such a question."""
    with np.errstate(invalid="ignore"):
        return totals.sum(-1) / counts.sum(-1)


def harmonic_mean(values: np.ndarray) -> np.ndarray:
    """Harmonic mean over the first axis; zero where a value is."""
    with np.errstate(divide="ignore"):
        return len(values) / (1 / np.asarray(values, float)).sum(0)
