"""Wordings that keys are learnt from are none of those in which edits are judged."""

from __future__ import annotations

import pytest
from worlds import small_world

from palimpsest.data.prepared import PreparedData
from palimpsest.facts import Edit
from palimpsest.larimar.wordings import Wordings, judged_wordings, learnt_wordings
from palimpsest.rephrasing import SUBJECT, with_relations


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    return small_world(tmp_path_factory.mktemp("world"), seed=5)


def learnt(world: PreparedData, each: int = 9) -> list[Wordings]:
    edits = world.edits("train")
    return list(learnt_wordings(edits, with_relations(world.questions("train"), edits), each=each, seed=0))


def form(prompt: str, subjects: set[str]) -> str:
    """What stands around the subject."""
    named = max((subject for subject in subjects if subject in prompt), key=len)
    return prompt.replace(named, SUBJECT)


def test_no_wording_of_a_paraphrase_is_learnt(world: PreparedData) -> None:
    splits = ("train", "dev", "test")
    edits = [edit for split in splits for edit in (*world.edits(split), *world.questions(split))]
    subjects = {edit.subject for edit in edits}
    judged = {form(prompt, subjects) for edit in edits for prompt in edit.paraphrases}
    known = {form(prompt, subjects) for fact in learnt(world) for prompt in (fact.written, *fact.others)}
    assert len(judged) > 40
    assert len(known) > 60
    assert not judged & known


def test_no_subject_of_another_split_is_learnt_from(world: PreparedData) -> None:
    held_out = {edit.subject for split in ("dev", "test") for edit in (*world.edits(split), *world.questions(split))}
    subjects = held_out | {edit.subject for edit in world.edits("train")}
    for fact in learnt(world, each=1):
        assert max((subject for subject in subjects if subject in fact.written), key=len) not in held_out


def test_a_fact_is_asked_for_in_statements_and_questions_of_its_relation_each_once() -> None:
    def edit(subject: str, prompt: str) -> Edit:
        return Edit(subject, subject, prompt, "Oslo", ("Rome",), "P19", paraphrases=(f"So {prompt}",))

    edits = [edit("Ada", "Ada was born in"), edit("Bo", "The birthplace of Bo is"), edit("Cy", "Cy comes from")]
    questions = [edit("Ada", "Where was Ada born?"), edit("Bo", "What is the birthplace of Bo?")]
    facts = list(learnt_wordings(edits, questions, each=9, seed=0))
    assert len(facts) == len(edits)
    ada = next(fact for fact in facts if "Ada" in fact.written)
    assert {ada.written, *ada.others} == {
        "Ada was born in",
        "The birthplace of Ada is",
        "Ada comes from",
        "Where was Ada born?",
        "What is the birthplace of Ada?",
    }
    assert len(ada.others) == 4
    assert list(learnt_wordings(edits, questions, each=9, seed=0)) == facts
    assert {len(fact.others) for fact in learnt_wordings(edits, questions, each=1, seed=0)} == {2}


def test_an_edit_is_judged_by_its_paraphrases() -> None:
    edit = Edit("1", "A", "A lies in", "B", (), paraphrases=("A is in", "Where is A?"))
    assert judged_wordings([edit]) == [Wordings("A lies in", ("A is in", "Where is A?"))]
