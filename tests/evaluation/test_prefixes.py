"""Unrelated sentences before paraphrases: which, and how their rows are told apart."""

from __future__ import annotations

from fake_editors import Notebook

from palimpsest.evaluation.editing import Probing
from palimpsest.evaluation.editing_runs import single_edits
from palimpsest.evaluation.prefixes import PREFIXED, label_prefixed, with_prefixed
from palimpsest.facts import Edit

ANN = Edit("0", "Ann", "Ann was born in", "Oslo", ("Rome",), paraphrases=("The birthplace of Ann is", "Ann's town is"))
BO = Edit("1", "Bo", "Bo was born in", "Lima", ("Rome",), paraphrases=("The birthplace of Bo is",))
SENTENCES = ["It rained."]


def test_an_edit_has_its_paraphrases_with_and_without_prefix() -> None:
    ann, bo = with_prefixed([ANN, BO], SENTENCES, seed=0)
    assert ann.paraphrases == (*ANN.paraphrases, *(f"It rained. {prompt}" for prompt in ANN.paraphrases))
    assert bo.paraphrases == (*BO.paraphrases, "It rained. The birthplace of Bo is")
    assert (ann.case_id, ann.prompt, ann.target_new) == (ANN.case_id, ANN.prompt, ANN.target_new)


def test_rows_of_prefixed_paraphrases_are_a_kind_of_their_own() -> None:
    edits = with_prefixed([ANN, BO], SENTENCES, seed=0)
    rows = single_edits(Notebook({}), edits, Probing(kinds=("edit", "paraphrase")), {})
    labelled = [(row["case_id"], row["kind"], row["number"]) for row in label_prefixed(rows, [ANN, BO])]
    assert labelled == [
        ("0", "edit", 0), ("0", "paraphrase", 0), ("0", "paraphrase", 1), ("0", PREFIXED, 0), ("0", PREFIXED, 1),
        ("1", "edit", 0), ("1", "paraphrase", 0), ("1", PREFIXED, 0),
    ]  # fmt: skip
