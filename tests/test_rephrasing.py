"""Rephrased prompts have the forms of other edits of the relation, and never those by which an edit is judged."""

from __future__ import annotations

from dataclasses import replace

import pytest

from palimpsest.facts import Edit
from palimpsest.rephrasing import Rephrasing, prefixed, with_relations


def edit(subject: str, prompt: str, relation: str = "P19") -> Edit:
    return Edit(subject, subject, prompt, "x", ("y",), relation, paraphrases=(f"It is known that {prompt}",))


OTHERS = [
    edit("Ada", "Ada was born in"),
    edit("Bo", "The birthplace of Bo is"),
    edit("Cy", "Cy comes from"),
    edit("Di", "Di comes from"),
    edit("Ed", "Ed works for", "P108"),
    edit("Al", "Al and Al were born in"),
    edit("", "nobody was born in"),
]


def test_prompts_have_the_other_forms_of_the_relation() -> None:
    asked = edit("Zoe", "Zoe was born in")
    assert sorted(Rephrasing(OTHERS, 9, seed=0)(asked)) == ["The birthplace of Zoe is", "Zoe comes from"]
    assert Rephrasing(OTHERS, 9, seed=0)(edit("Zoe", "Zoe works for", "P108")) == []
    assert Rephrasing(OTHERS, 9, seed=0)(edit("Zoe", "Zoe wrote", "P50")) == []


def test_so_many_are_drawn_and_the_same_each_time() -> None:
    rephrase = Rephrasing(OTHERS, 1, seed=0)
    prompts = [f"{name} was born in" for name in "ABCDEFGHIJ"]
    drawn = [rephrase(edit(prompt[0], prompt)) for prompt in prompts]
    assert [len(found) for found in drawn] == [1] * 10
    assert len({found[0].replace(prompt[0], "") for found, prompt in zip(drawn, prompts, strict=True)}) > 1
    assert drawn == [Rephrasing(OTHERS, 1, seed=0)(edit(prompt[0], prompt)) for prompt in prompts]
    assert Rephrasing(OTHERS, 0, seed=0)(edit("A", "A was born in")) == []


def test_a_sentence_put_before_a_prompt_names_nothing_of_the_edit() -> None:
    ann = Edit("0", "Ann", "Ann was born in", "Oslo", ("Rome",))
    sentences = ["It rained.", "Ann sang.", "OSLO is cold.", "He saw Rome.", "Dogs bark."]
    found = {prefixed(ann, ann.prompt, sentences, str(seed)) for seed in range(40)}
    assert found == {"It rained. Ann was born in", "Dogs bark. Ann was born in"}
    assert prefixed(ann, ann.prompt, sentences, "3") == prefixed(ann, ann.prompt, sentences, "3")
    with pytest.raises(ValueError, match="case 0: each of 3 sentences"):
        prefixed(ann, ann.prompt, sentences[1:4], "0")


DAWN = Edit("0", "Dawn", "The author of Dawn is", "Bo Tan", ("Ann Lee",), "P50")


def test_a_question_has_the_relation_of_the_edit_of_the_same_fact() -> None:
    question = Edit("q", "Dawn", "Who wrote Dawn?", "Cleo Diaz", ("Ann Lee",))
    assert with_relations([question], [DAWN]) == [replace(question, relation="P50")]


def test_a_question_of_no_fact_or_of_several_relations_is_left_out() -> None:
    edits = [DAWN, replace(DAWN, relation="P19"), replace(DAWN, subject="Dusk", relation=None)]
    stranger = Edit("q", "Salt", "Who wrote Salt?", "Bo Tan", ("Ann Lee",))
    ambiguous = Edit("q", "Dawn", "Who wrote Dawn?", "Bo Tan", ("Ann Lee",))
    nameless = Edit("q", "Dusk", "Who wrote Dusk?", "Bo Tan", ("Ann Lee",))
    assert with_relations([stranger, ambiguous, nameless], edits) == []
    assert len(with_relations([ambiguous], edits[:1])) == 1
