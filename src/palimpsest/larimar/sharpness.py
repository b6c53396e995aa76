"""How sharp random features should be, by what a memory of the dev split's edits gives back.

The sharper they are, the less facts share, those that should be told apart and the wordings of one alike. No decoder is
needed to see which counts for more: a read-out should be nearest to the value of the right answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pandas as pd
from torch.nn.functional import normalize

from palimpsest.facts import Edit
from palimpsest.larimar.addressing import FeatureAddressing
from palimpsest.larimar.model import Larimar

TOLERANCE = 0.01  # of the share of paraphrases that read the right answer


def choose_sharpness(
    model: Larimar,
    edits: Sequence[Edit],
    candidates: Iterable[float],
    *,
    slots: int,
    counts: Sequence[int],
    asked: int,
    seed: int,
) -> tuple[float, pd.DataFrame]:
    """The sharpness of Fourier features with which paraphrases read the right answer, in the mean over ``counts``.

    It is the sharpest of those that find no less than the best but for one in a hundred: what is sharp gives least to
    prompts about other things.

    Args:
        model: with its map of keys.
        edits: of the dev split.
        slots: of the memory; what counts is how many facts there are for each.
        counts: numbers of edits in memory, as far as there are so many.
        asked: of how many of them the paraphrases are asked.

    Returns:
        It, and a table: ``sharpness``, ``edits``, and ``found``, the share of paraphrases whose read-out is nearer to
        the new answer than to any other answer in memory, and to the old ones.
    """
    made = {
        sharpness: FeatureAddressing(
            slots,
            model.key_map.shape[0],
            seed=seed,
            kind="fourier",
            sharpness=sharpness,
            key_map=model.key_map,
            device=model.device,
        )
        for sharpness in sorted(candidates)
    }
    rows = [
        (sharpness, count, _found(model, addressing, edits[:count], asked))
        for sharpness, addressing in made.items()
        for count in dict.fromkeys(min(count, len(edits)) for count in counts)
    ]
    table = pd.DataFrame(rows, columns=["sharpness", "edits", "found"])
    found = table.groupby("sharpness")["found"].mean()
    return float(max(found.index[found >= found.max() - TOLERANCE].tolist())), table


def _found(model: Larimar, addressing: FeatureAddressing, edits: Sequence[Edit], asked: int) -> float:
    answers = list(dict.fromkeys(answer for edit in edits for answer in (edit.target_new, *edit.target_true)))
    place = {answer: number for number, answer in enumerate(answers)}
    values = model.encode(answers)
    wanted = [place[edit.target_new] for edit in edits]
    state = addressing.write(
        addressing.empty(values.shape[1]), model.encode([edit.prompt for edit in edits]), values[wanted]
    )
    questions = [(prompt, place[edit.target_new]) for edit in edits[:asked] for prompt in edit.paraphrases]
    weights = addressing.read_weights(state, model.encode([prompt for prompt, _ in questions]))
    read = normalize(weights @ addressing.contents(state), dim=-1)
    nearest = (read @ normalize(values.double(), dim=-1).mT).argmax(1).tolist()
    return sum(found == right for found, (_, right) in zip(nearest, questions, strict=True)) / len(questions)
