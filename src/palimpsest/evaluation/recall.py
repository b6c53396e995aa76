"""What a language model knows before anything is edited, and how that depends on how often it was told."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

import pandas as pd

from palimpsest.evaluation.statistics import Interval, share
from palimpsest.facts import Edit
from palimpsest.lm.generation import generate_greedy
from palimpsest.lm.load import LanguageModel

MOST = 128  # statements of a fact; more are counted together
WORD = re.compile(r"\w+(?:[-,]\w+)*|[^\w\s]")


def begins_with(text: str, answers: Iterable[str]) -> bool:
    """The *exact* protocol: does free generation begin with one of the answers, as whole words?"""
    text = text.lstrip()
    return any(text.startswith(answer) and not text[len(answer) : len(answer) + 1].isalnum() for answer in answers)


def ask(lm: LanguageModel, facts: Sequence[Edit], max_new_tokens: int, progress: bool = False) -> pd.DataFrame:
    """Ask for each fact as it stands (``train`` template) and in other words (``heldout``: the paraphrases).

    Greedy generation, judged by :func:`begins_with`; the answer is not shown to the model.

    Returns:
        Columns ``case_id``, ``subject``, ``relation``, ``answer``, ``template``, ``prompt``, ``generated``, ``exact``.
    """
    asked = [(fact, "train", fact.prompt) for fact in facts]
    asked += [(fact, "heldout", prompt) for fact in facts for prompt in fact.paraphrases]
    generated = generate_greedy(
        lm, [prompt for _, _, prompt in asked], max_new_tokens=max_new_tokens, stop=(".", "\n"), progress=progress
    )
    return pd.DataFrame(
        {
            "case_id": fact.case_id,
            "subject": fact.subject,
            "relation": fact.relation,
            "answer": fact.target_true[0],
            "template": template,
            "prompt": prompt,
            "generated": text.strip(),
            "exact": begins_with(text, fact.target_true),
        }
        for (fact, template, prompt), text in zip(asked, generated, strict=True)
    )


@dataclass(frozen=True)
class MentionCounts:
    """How often a corpus names things: ``mentions`` of each name, ``together``: chunks that name both of a pair."""

    mentions: Counter[str]
    together: Counter[tuple[str, str]]


def count_mentions(chunks: Iterable[str], pairs: Iterable[tuple[str, str]]) -> MentionCounts:
    """Count by whole words how often names occur, and in how many chunks both names of a pair do.

    The second is Kandpal et al.'s (2023, arXiv 2211.08411) number of relevant documents of a fact.
    """
    partners: dict[str, set[str]] = defaultdict(set)
    pairs = set(pairs)
    for first, second in pairs:
        partners[first].add(second)
    words_of = {name: tuple(WORD.findall(name)) for pair in pairs for name in pair}
    names = {words: name for name, words in words_of.items()}
    longest: dict[str, int] = {}
    for words in names:
        longest[words[0]] = max(len(words), longest.get(words[0], 0))
    mentions: Counter[str] = Counter()
    together: Counter[tuple[str, str]] = Counter()
    for chunk in chunks:
        words = tuple(WORD.findall(chunk))
        found: set[str] = set()
        for start, word in enumerate(words):
            for length in range(1, longest.get(word, 0) + 1):
                if (name := names.get(words[start : start + length])) is not None:
                    mentions[name] += 1
                    found.add(name)
        together.update((first, second) for first in found for second in partners[first] & found)
    return MentionCounts(mentions, together)


def with_counts(rows: pd.DataFrame, chunks: Iterable[str]) -> pd.DataFrame:
    """Add ``mentions`` (of the subject) and ``stated`` (chunks that name subject and answer) in a training text."""
    counts = count_mentions(chunks, zip(rows["subject"], rows["answer"], strict=True))
    return rows.assign(
        mentions=[counts.mentions[subject] for subject in rows["subject"]],
        stated=[counts.together[pair] for pair in zip(rows["subject"], rows["answer"], strict=True)],
    )


def recall_curve(rows: pd.DataFrame) -> pd.DataFrame:
    """Recall by template and by doublings of ``stated``, up to 128 or more.

    Returns:
        Columns ``template``, ``stated`` (the range, as text), and ``value``, ``low``, ``high`` and ``n``.
    """
    least = [1 << int(min(count, MOST)).bit_length() >> 1 for count in rows["stated"]]
    points = []
    for key, group in rows.assign(least=least).groupby(["template", "least"], sort=False):
        template, low = str(key[0]), int(str(key[1]))
        high = max(low, 2 * low - 1)
        stated = f"≥ {low}" if low == MOST else f"{low}" if low == high else f"{low}–{high}"
        points.append({"template": template, "least": low, "stated": stated})
        points[-1] |= asdict(share(group["exact"], group["case_id"]))
    return pd.DataFrame(points).sort_values(["template", "least"], ascending=[False, True]).drop(columns="least")


def majority_recall(facts: Iterable[Edit], known: Iterable[Edit]) -> Interval:
    """Chance: how many ``facts`` one gets right who always gives the commonest answer of the relation in ``known``."""
    answers: dict[str | None, Counter[str]] = defaultdict(Counter)
    for fact in known:
        answers[fact.relation].update(fact.target_true)
    guesses = {relation: counts.most_common(1)[0][0] for relation, counts in answers.items()}
    return share([guesses.get(fact.relation) in fact.target_true for fact in facts])


def summarize(rows: pd.DataFrame, facts: Mapping[str, Sequence[Edit]], frequent: int) -> dict[str, Interval]:
    """The headline figures; those of which there are no cases are left out.

    ``train_templates`` and ``heldout_templates`` are about subjects that the training text mentions at least
    ``frequent`` times, ``test_entities`` about subjects that it never mentions, each asked in both wordings;
    ``rare_entities`` are subjects of the training text that it mentions once or twice.
    """
    train, test = rows[rows["split"] == "train"], rows[rows["split"] == "test"]
    often = train[train["mentions"] >= frequent]
    groups = {
        "train_templates": often[often["template"] == "train"],
        "heldout_templates": often[often["template"] == "heldout"],
        "rare_entities": train[train["mentions"].between(1, 2)],
        "test_entities": test,
    }
    summary = {name: share(group["exact"], group["case_id"]) for name, group in groups.items() if len(group)}
    if facts.get("test"):
        summary["test_entities_chance"] = majority_recall(facts["test"], facts["train"])
    return summary
