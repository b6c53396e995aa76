"""Which of the edits that were made are left when some are taken back."""

from __future__ import annotations

from collections.abc import Sequence

from palimpsest.facts import Edit


def without(made: Sequence[Edit], taken_back: Sequence[Edit]) -> list[int]:
    """Positions of the edits that stay, in order; of an edit that was made more than once the latest goes first.

    Two edits are the same if they set the same answer to the same prompt: how they will be judged is not part of them.

    Raises:
        KeyError: an edit was never made, or not as often as it is taken back; names its case.
    """
    positions: dict[tuple[str, str], list[int]] = {}
    for position, edit in enumerate(made):
        positions.setdefault((edit.prompt, edit.target_new), []).append(position)
    gone = set()
    for edit in taken_back:
        left = positions.get((edit.prompt, edit.target_new))
        if not left:
            raise KeyError(f"case {edit.case_id}: the edit of {edit.prompt!r} to {edit.target_new!r} was never made")
        gone.add(left.pop())
    return [position for position in range(len(made)) if position not in gone]
