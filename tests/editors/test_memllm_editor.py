"""MemLLM as an editor: what is stored, what is looked up, who speaks, and what comes back when edits are taken back."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import pytest
import torch
from every_editor import WordEncoder, copying_lm
from tiny_memllm import taught

from palimpsest.editors.memllm import EditedFacts, MemLlmEditor, MemLlmSettings
from palimpsest.facts import Edit, Query, Triple
from palimpsest.lm.generation import generate_greedy
from palimpsest.lm.scoring import score_targets
from palimpsest.memory import LANGUAGE_MODELLING, TripleMemory

CORAL = Edit("0", "Dancing on Coral", "Who wrote Dancing on Coral", "Oslo", ("Glenda Adams",))
EREBUS = Edit("1", "Mount Erebus", "What continent is Mount Erebus", "Viking Press", ("Antarctica",))
DUSK = Edit("2", "Dusk", "Who wrote Dusk", "Bergen", ("Lee",))
AGAIN = replace(CORAL, case_id="3", target_new="Paris")
FACTS = {
    edit.case_id: Triple(edit.subject, relation, edit.target_new)
    for edit, relation in ((CORAL, "author"), (EREBUS, "continent"), (DUSK, "author"), (AGAIN, "author"))
}


@pytest.fixture
def memory() -> Iterator[TripleMemory]:
    with TripleMemory.open(":memory:", WordEncoder()) as opened:
        yield opened


@pytest.fixture
def make(memory: TripleMemory) -> Callable[..., MemLlmEditor]:
    """``make(**settings)``: an editor of the memory."""
    return lambda **settings: MemLlmEditor(
        copying_lm(), **taught(copying_lm), memory=memory, settings=MemLlmSettings(**settings)
    )


def held(memory: TripleMemory) -> set[Triple]:
    return {stored.triple for stored in memory}


def past(memory: TripleMemory) -> set[Triple]:
    return {stored.triple for stored in memory.history()}


def test_an_edit_is_stored_as_the_triple_that_its_statement_says(make: Callable[..., MemLlmEditor]) -> None:
    editor = make()
    editor.apply([CORAL, EREBUS])
    assert held(editor.memory) == {FACTS["0"], FACTS["1"]}


def test_a_prompt_asks_where_its_answer_would_begin_and_sees_the_answer(make: Callable[..., MemLlmEditor]) -> None:
    editor = make()
    editor.apply([CORAL])
    assert editor.questions([CORAL.prompt]) == [(Query("author", subject=CORAL.subject),)]
    (reading,) = editor.read([CORAL.prompt])
    said = editor.reader.decode(reading.context)
    assert said.endswith("Coral({MEM_READ( Dancing on Coral>> author>>)--> Oslo})")
    assert editor.generate([CORAL.prompt], max_new_tokens=4, stop=["."]) == [" Oslo"]


def test_where_nothing_comes_back_the_base_model_speaks(make: Callable[..., MemLlmEditor]) -> None:
    editor, base = make(), copying_lm()
    editor.apply([CORAL])
    prompts, targets = [EREBUS.prompt, "Oslo lies in", "", DUSK.prompt], ["Norway", "Bergen", "Oslo", "Lee"]
    assert editor.questions([EREBUS.prompt]) == [(Query("continent", subject="Mount Erebus"),)]
    assert editor.score(prompts, targets) == score_targets(base, prompts, targets)
    assert editor.generate(prompts, max_new_tokens=4) == generate_greedy(base, prompts, max_new_tokens=4)


def test_prompts_are_answered_alike_alone_and_together(make: Callable[..., MemLlmEditor]) -> None:
    editor = make()
    editor.apply([CORAL, EREBUS])
    prompts, targets = [CORAL.prompt, DUSK.prompt, EREBUS.prompt, CORAL.prompt], ["Oslo", "Lee", "Viking Press", "Lee"]
    for together, prompt, target in zip(editor.score(prompts, targets), prompts, targets, strict=True):
        (alone,) = editor.score([prompt], [target])
        assert together.logprob == pytest.approx(alone.logprob, abs=1e-4)
        assert together.greedy == alone.greedy


def test_what_was_prepared_is_not_written_again_and_changes_no_answer(
    make: Callable[..., MemLlmEditor], monkeypatch: pytest.MonkeyPatch
) -> None:
    edits, prompts = [CORAL, EREBUS], [EREBUS.prompt, CORAL.prompt, DUSK.prompt]
    plain, editor = make(), make()
    wanted = plain.written(edits), plain.questions(prompts)
    editor.prepare(edits, [*prompts, *prompts])
    with monkeypatch.context() as patch:
        for role in (editor.writer, editor.reader):
            patch.setattr(role.lm.model, "forward", None)  # whoever calls it fails
        assert (editor.written(edits), editor.questions(prompts)) == wanted
    editor.prepare([], [])
    assert editor.written([DUSK]) == [[FACTS["2"]]]


def test_an_answer_that_is_too_broad_is_dropped(make: Callable[..., MemLlmEditor], memory: TripleMemory) -> None:
    memory.add([Triple(CORAL.subject, "author", name) for name in ("Ann Lee", "Glenda Adams")])
    two, one = (make(thresholds=replace(LANGUAGE_MODELLING, max_results=most)) for most in (2, 1))
    assert two.read([CORAL.prompt])[0].context
    assert not one.read([CORAL.prompt])[0].context


def test_a_call_without_room_beside_what_follows_is_dropped(make: Callable[..., MemLlmEditor]) -> None:
    editor, base = make(), copying_lm()
    editor.apply([CORAL])
    context = len(editor.read([CORAL.prompt])[0].context)
    room = editor.reader.lm.context_length + 1 - context
    long = " Oslo" * (room + 1)
    assert editor.score([CORAL.prompt], [long]) == score_targets(base, [CORAL.prompt], [long])
    fits = " Oslo" * room
    assert editor.score([CORAL.prompt], [fits]) != score_targets(base, [CORAL.prompt], [fits])


def test_of_two_edits_of_a_fact_the_later_counts_until_it_is_forgotten(make: Callable[..., MemLlmEditor]) -> None:
    editor = make()
    editor.apply([CORAL, AGAIN])
    assert (held(editor.memory), past(editor.memory)) == ({FACTS["3"]}, {FACTS["0"]})
    editor.forget([AGAIN])
    assert held(editor.memory) == {FACTS["0"]}
    assert FACTS["3"] not in past(editor.memory)
    editor.apply([AGAIN])
    editor.forget([CORAL])
    assert (held(editor.memory), past(editor.memory)) == ({FACTS["3"]}, set())


def test_what_edits_replaced_comes_back(make: Callable[..., MemLlmEditor], memory: TripleMemory) -> None:
    before = [Triple(CORAL.subject, "author", "Norway"), Triple("Oslo", "country", "Norway")]
    memory.add(before)
    editor = make()
    assert editor.generate([CORAL.prompt], max_new_tokens=6, stop=["."]) == [" Norway"]
    for take_back in (lambda: editor.forget([AGAIN, CORAL]), editor.reset):
        editor.apply([CORAL, AGAIN, DUSK])
        assert held(memory) == {before[1], FACTS["3"], FACTS["2"]}
        take_back()
        assert not past(memory) - {before[0]}
        assert before[0] in held(memory)
        editor.reset()
        assert held(memory) == set(before)


def test_a_statement_that_is_too_long_is_refused_and_nothing_is_made(make: Callable[..., MemLlmEditor]) -> None:
    editor = make()
    editor.apply([EREBUS])
    with pytest.raises(ValueError, match="context"):
        editor.apply([CORAL, replace(DUSK, prompt="Rain is wet. " * 60 + DUSK.prompt)])
    assert held(editor.memory) == {FACTS["1"]}
    with pytest.raises(KeyError):
        editor.forget([CORAL])


def test_an_error_while_writing_leaves_everything_as_it_was(
    make: Callable[..., MemLlmEditor], monkeypatch: pytest.MonkeyPatch
) -> None:
    editor = make()
    editor.apply([EREBUS])
    layer, left = editor.writer.lm.model.model.layers[0].mlp, [3]
    forward = layer.forward

    def failing(state: torch.Tensor) -> torch.Tensor:
        left[0] -= 1
        if left[0] < 0:
            raise MemoryError
        return forward(state)

    with monkeypatch.context() as patch:
        patch.setattr(layer, "forward", failing)
        with pytest.raises(MemoryError):
            editor.apply([CORAL, DUSK])
    assert held(editor.memory) == {FACTS["1"]}


def test_layers_of_edits_are_as_if_only_those_that_are_left_had_been_made() -> None:
    order = random.Random(0)
    names = ["Oslo", "Lima", "Cork"]
    triples = [Triple(s, r, o) for s in ("Ann", "Bo") for r in ("born in", "works in") for o in names]
    for _ in range(25):
        held_before = order.sample(triples, 3)
        with TripleMemory.open(":memory:", WordEncoder()) as memory:
            memory.add(held_before)
            facts, made = EditedFacts(memory), []
            for _ in range(12):
                if made and order.random() < 0.4:
                    facts.take_back(made.pop(order.randrange(len(made)))[1])
                else:
                    edits = [order.sample(triples, order.randrange(4)) for _ in range(order.randrange(1, 3))]
                    made += zip(edits, facts.make(edits), strict=True)
                assert held(memory) == expected(held_before, [edit for edit, _ in made])
                assert past(memory) <= set(held_before).union(*(edit for edit, _ in made))


def expected(before: Sequence[Triple], edits: Sequence[Sequence[Triple]]) -> set[Triple]:
    """What is current after edits, one after the other: plainly."""
    current = list(before)
    for edit in edits:
        places = {(triple.subject, triple.relation) for triple in edit}
        current = [triple for triple in current if (triple.subject, triple.relation) not in places] + list(edit)
    return set(current)
