"""Other prompts for the same fact, to be written along with it: forms that other edits of its relation have.

They are taken from edits of another split, so that nothing is known of how an edit will be judged.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
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
