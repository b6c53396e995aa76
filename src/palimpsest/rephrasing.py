"""Other prompts for the same fact: in forms that other edits, or questions, of its relation have, or after a sentence.

To be written along with a fact, or to learn from which prompts ask the same. The forms are those of prompts that edits
of the training split have themselves, so that nothing is known of the words in which an edit will be judged.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from random import Random

from palimpsest.facts import Edit

SUBJECT = "{s}"


class Rephrasing:
    """Gives an edit ``count`` prompts in forms that other edits of its relation have, as far as there are so many.

    Args:
        edits: whose prompts give the forms: what stands around the subject.
        count: of prompts an edit.
        seed: of which forms are drawn.
    """

    def __init__(self, edits: Iterable[Edit], count: int, seed: int) -> None:
        self.count, self.seed = count, seed
        forms: dict[str | None, dict[str, None]] = defaultdict(dict)
        for edit in edits:
            if (form := _form(edit)) is not None:
                forms[edit.relation][form] = None
        self._forms = {relation: sorted(found) for relation, found in forms.items()}

    def __call__(self, edit: Edit) -> Sequence[str]:
        """Prompts other than the edit's own."""
        others = [form for form in self._forms.get(edit.relation, ()) if form != _form(edit)]
        drawn = Random(f"{self.seed}/{edit.prompt}").sample(others, min(self.count, len(others)))
        return [form.replace(SUBJECT, edit.subject) for form in drawn]


def _form(edit: Edit) -> str | None:
    """A prompt without its subject; None where it does not name it once."""
    return edit.prompt.replace(edit.subject, SUBJECT) if edit.prompt.count(edit.subject) == 1 else None


def prefixed(edit: Edit, prompt: str, sentences: Sequence[str], seed: str) -> str:
    """A prompt after a sentence that names neither the edit's subject nor its answers.

    Args:
        sentences: to choose from; case does not tell names apart.
        seed: the same seed gives the same sentence.

    Raises:
        ValueError: every sentence names one of them; says which case.
    """
    names = [name.casefold() for name in (edit.subject, edit.target_new, *edit.target_true) if name]
    rng = Random(f"{seed}/{edit.case_id}/{prompt}")
    for sentence in rng.sample(sentences, len(sentences)):
        if not any(name in sentence.casefold() for name in names):
            return f"{sentence} {prompt}"
    raise ValueError(f"case {edit.case_id}: each of {len(sentences)} sentences names its subject or an answer")


def with_relations(questions: Iterable[Edit], edits: Iterable[Edit]) -> list[Edit]:
    """Those questions whose relation is known from edits of the same fact, with it.

    ZsRE does not say which relation a question is about. A fact is the same if subject and true answer are; where that
    leaves several relations, none is taken.
    """
    relations: dict[tuple[str, str], set[str]] = {}
    for edit in edits:
        for answer in edit.target_true if edit.relation else ():
            relations.setdefault((edit.subject, answer), set()).add(edit.relation or "")
    known = []
    for question in questions:
        found = {pid for answer in question.target_true for pid in relations.get((question.subject, answer), ())}
        if len(found) == 1:
            known.append(replace(question, relation=found.pop()))
    return known
