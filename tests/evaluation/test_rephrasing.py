"""Rephrased prompts have the forms of other edits of the relation, and never those by which an edit is judged."""

from __future__ import annotations

from palimpsest.evaluation.rephrasing import Rephrasing
from palimpsest.facts import Edit


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
