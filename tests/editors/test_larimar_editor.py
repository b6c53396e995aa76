"""Larimar as an editor: what is replaced, shared, rephrased, left out of scope, and left alone by errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from every_editor import IRRELEVANT, WordEncoder, copying_lm, tiny_larimar

from palimpsest.editors.larimar import LarimarEditor
from palimpsest.facts import Edit, Probe
from palimpsest.larimar import Addressing, FeatureAddressing, MemoryFullError, NearestAddressing, SpanAddressing
from palimpsest.larimar.model import Larimar
from palimpsest.larimar.scope import NamedSubject, NearestPrompt
from palimpsest.lm.scoring import score_targets

MAKERS: dict[str, Callable[[], Addressing[Any]]] = {
    "span": lambda: SpanAddressing(torch.eye(32, 64)),
    "features": lambda: FeatureAddressing(64, 64, seed=0),
    "nearest": lambda: NearestAddressing(16, 64),
}
DARRIEUX = Edit("0", "Danielle Darrieux", "The mother tongue of Danielle Darrieux", "Norway", ("French",))
LATER = Edit("3", "Danielle Darrieux", "The mother tongue of Danielle Darrieux", "Oslo", ("French",))
EREBUS = Edit("1", "Mount Erebus", "What continent is Mount Erebus", "Viking Press", ("Antarctica",))
DUSK = Edit("2", "Dusk", "Who wrote Dusk", "Oslo", ("Lee",))
PROMPTS = [DARRIEUX.prompt, EREBUS.prompt, DUSK.prompt, *IRRELEVANT, "The tongue of Danielle Darrieux"]
TARGETS = ["Norway", "Viking Press", "Oslo", "Sydney", "Norway", "Viking", "Dusk", "French"]


@pytest.fixture(params=MAKERS)
def addressing(request: pytest.FixtureRequest) -> Addressing[Any]:
    return MAKERS[request.param]()


@pytest.fixture
def editor(addressing: Addressing[Any]) -> LarimarEditor:
    return make(addressing)


def make(addressing: Addressing[Any], model: Larimar | None = None, **options: Any) -> LarimarEditor:
    """With both detectors, of which the nearest prompt encodes by itself."""
    scope = NamedSubject(NearestPrompt(WordEncoder()))
    model = model or tiny_larimar(copying_lm())
    return LarimarEditor(model, addressing=addressing, **{"scope": scope, "threshold": 0.6} | options)


def said(editor: LarimarEditor) -> tuple[Any, ...]:
    """Everything that can be asked."""
    return editor.score(PROMPTS, TARGETS), editor.generate(PROMPTS, max_new_tokens=3), editor.memory.history


def assert_alike(editor: LarimarEditor, other: LarimarEditor) -> None:
    """They say the same, up to rounding, and hold the same."""
    (scores, texts, history), (expected, others, written) = said(editor), said(other)
    assert texts == others
    assert {text for text, _ in history} == {text for text, _ in written}
    for score, wanted in zip(scores, expected, strict=True):
        assert score.token_logprobs == pytest.approx(wanted.token_logprobs, abs=1e-4)
    torch.testing.assert_close(editor.scope_scores(PROMPTS), other.scope_scores(PROMPTS), rtol=0, atol=1e-5)


def after(editor: LarimarEditor, *calls: Sequence[Edit]) -> LarimarEditor:
    """Another editor of the same model, in which only these edits were made."""
    other = make(editor.addressing, editor.model, rephrase=editor.rephrase)
    for edits in calls:
        other.apply(edits)
    return other


# -- one edit a prompt -------------------------------------------------------------------------------------------------


def test_an_edit_is_what_is_said_of_its_prompt(editor: LarimarEditor) -> None:
    editor.apply([DARRIEUX])
    assert editor.generate([DARRIEUX.prompt], max_new_tokens=1) == [" Norway"]
    editor.apply([LATER])
    assert editor.generate([DARRIEUX.prompt], max_new_tokens=1) == [" Oslo"]


def test_a_later_edit_of_a_prompt_takes_the_earlier_ones_place(editor: LarimarEditor) -> None:
    editor.apply([DARRIEUX, EREBUS])
    editor.apply([LATER])
    assert_alike(editor, after(editor, [EREBUS], [LATER]))
    with pytest.raises(KeyError, match=r"case 0: 'The mother .*' is not edited to 'Norway'"):
        editor.forget([DARRIEUX])
    editor.forget([LATER])
    assert_alike(editor, after(editor, [EREBUS]))
    editor.apply([LATER, DUSK, DARRIEUX])  # of one call, the last
    assert_alike(editor, after(editor, [EREBUS], [DUSK, DARRIEUX]))
    editor.apply([DARRIEUX])  # once more
    assert_alike(editor, after(editor, [EREBUS], [DUSK, DARRIEUX]))
    editor.forget([DARRIEUX, EREBUS, DUSK])
    assert said(editor) == said(after(editor))


def test_what_was_not_made_is_not_forgotten(editor: LarimarEditor) -> None:
    editor.apply([DARRIEUX, DUSK])
    before = said(editor)
    for edits, case in (([DARRIEUX, EREBUS], "1"), ([LATER], "3"), ([DUSK, DARRIEUX, DUSK], "2")):
        with pytest.raises(KeyError, match=f"case {case}: "):
            editor.forget(edits)
        assert said(editor) == before
    editor.reset()
    with pytest.raises(KeyError, match="case 0: "):
        editor.forget([DARRIEUX])


# -- errors ------------------------------------------------------------------------------------------------------------


def broken(*_: object) -> Any:
    raise OSError("broken")


def broken_parts(editor: LarimarEditor) -> Iterator[tuple[object, str]]:
    """All that is asked for an edit, in the order in which it is asked."""
    yield editor.model, "encode"
    yield editor.addressing, "forget"
    yield editor.addressing, "write"
    yield editor.scope.detector.encoder, "encode"
    yield editor, "rephrase"


def test_an_error_anywhere_leaves_everything_as_it_was(addressing: Addressing[Any], monkeypatch: Any) -> None:
    editor = make(addressing, rephrase=lambda edit: [f"{edit.prompt} now"])
    editor.apply([DARRIEUX, EREBUS])
    before = said(editor), editor.scope_scores(PROMPTS).tolist()
    for place, name in broken_parts(editor):
        with monkeypatch.context() as patch:
            patch.setattr(place, name, broken)
            with pytest.raises(OSError, match="broken"):
                editor.apply([LATER, DUSK])
        assert (said(editor), editor.scope_scores(PROMPTS).tolist()) == before, name
    with monkeypatch.context() as patch:
        patch.setattr(editor.addressing, "forget", broken)
        with pytest.raises(OSError, match="broken"):
            editor.forget([EREBUS])
    assert (said(editor), editor.scope_scores(PROMPTS).tolist()) == before
    editor.apply([LATER, DUSK])
    editor.forget([EREBUS])
    assert_alike(editor, after(editor, [LATER, DUSK]))


def test_a_full_memory_stays_as_it_is() -> None:
    editor = make(NearestAddressing(2, 64))
    editor.apply([DARRIEUX])
    before = said(editor)
    with pytest.raises(MemoryFullError, match="2 facts to write, but of 2 slots 1 are free"):
        editor.apply([EREBUS, DUSK])
    assert said(editor) == before
    editor.apply([EREBUS])
    editor.apply([LATER, EREBUS])  # what takes another's place needs none of its own
    assert editor.generate([DARRIEUX.prompt], max_new_tokens=1) == [" Oslo"]


def test_bad_edits_and_questions_are_named(editor: LarimarEditor) -> None:
    with pytest.raises(ValueError, match="case 9: the target is empty"):
        editor.apply([DARRIEUX, Edit("9", "Dusk", "Who wrote Dusk", "", ())])
    assert editor.memory.history == []
    editor.apply([DARRIEUX])
    with pytest.raises(ValueError, match="2 prompts but 1 targets"):
        editor.score(PROMPTS[:2], ["Oslo"])
    with pytest.raises(ValueError, match="without a scope detector"):
        make(editor.addressing, editor.model, scope=None).scope_scores(PROMPTS)
    assert editor.score([], []) == editor.generate([], max_new_tokens=1) == []


# -- scope -------------------------------------------------------------------------------------------------------------


def test_out_of_scope_the_decoder_says_what_it_says_alone(editor: LarimarEditor) -> None:
    """To the bit, in whatever company."""
    editor.apply([DARRIEUX, EREBUS, DUSK])
    inside = (editor.scope_scores(PROMPTS) >= 0.6).tolist()
    assert inside == [True] * 3 + [False] * 4 + [True]
    alone, targets = PROMPTS[3:7], TARGETS[3:7]
    assert editor.score(PROMPTS, TARGETS)[3:7] == score_targets(editor.lm, alone, targets)
    assert editor.score(alone, targets) == score_targets(editor.lm, alone, targets)
    plain = LarimarEditor(editor.model, addressing=editor.addressing)
    assert editor.generate(PROMPTS, max_new_tokens=4)[3:7] == plain.generate(alone, max_new_tokens=4)
    editor.threshold = 3.0
    assert editor.score(PROMPTS, TARGETS) == plain.score(PROMPTS, TARGETS)


def test_a_threshold_holds_up_to_a_number_of_edits(editor: LarimarEditor) -> None:
    editor.threshold = {1: -2.0, 2: 3.0}
    inside = []
    for edit in (DARRIEUX, EREBUS, DUSK):
        editor.apply([edit])
        inside.append(sum(reading.z is not None for reading in editor.read(PROMPTS)))
    assert inside == [len(PROMPTS), 0, 0]


def test_without_a_scope_every_prompt_is_read_for(editor: LarimarEditor) -> None:
    everything = make(editor.addressing, editor.model, scope=None)
    before = editor.score(PROMPTS, TARGETS)
    everything.apply([DARRIEUX])
    after = everything.score(PROMPTS, TARGETS)
    assert all(one != other for one, other in zip(before, after, strict=True))


def test_after_other_sentences_a_prompt_is_looked_up_by_its_last(addressing: Addressing[Any]) -> None:
    after_others = f"Glenda Adams was born in Sydney. Is Oslo in the north? {DARRIEUX.prompt}"
    for scope in ({}, {"scope": None}):
        whole, focused = make(addressing, **scope), make(addressing, focused=True, **scope)
        for editor in (whole, focused):
            editor.apply([DARRIEUX, EREBUS])
        expected = whole.read([DARRIEUX.prompt])[0].z
        for prompts in ([DARRIEUX.prompt], [after_others, DUSK.prompt]):
            torch.testing.assert_close(focused.read(prompts)[0].z, expected)
    focused = make(addressing, focused=True)
    focused.apply([DARRIEUX, EREBUS])
    whole = make(addressing)
    whole.apply([DARRIEUX, EREBUS])
    assert whole.scope_scores([after_others]).item() < 0.9
    known, asked_first = focused.scope_scores([after_others, f"{DARRIEUX.prompt}? {IRRELEVANT[0]}"]).tolist()
    assert known == pytest.approx(1)
    assert asked_first < 1


def test_a_prompt_is_encoded_once_a_call(editor: LarimarEditor, monkeypatch: pytest.MonkeyPatch) -> None:
    editor.apply([DARRIEUX])
    seen: list[str] = []
    encode = editor.model.encode

    def counting(texts: Sequence[str]) -> torch.Tensor:
        seen.extend(texts)
        return encode(texts)

    monkeypatch.setattr(editor.model, "encode", counting)
    scores = editor.score([DARRIEUX.prompt, IRRELEVANT[0], DARRIEUX.prompt], ["Norway", "Oslo", "Norway"])
    assert seen == [DARRIEUX.prompt, IRRELEVANT[0]]
    assert scores[0] == scores[2]
    editor.generate([DARRIEUX.prompt] * 3, max_new_tokens=1)
    assert seen[2:] == [DARRIEUX.prompt]


# -- rephrasings -------------------------------------------------------------------------------------------------------


def test_rephrasings_are_written_and_forgotten_with_their_edit(addressing: Addressing[Any]) -> None:
    rephrased = "What mother tongue is Danielle Darrieux"
    editor = make(addressing, rephrase=lambda edit: [rephrased, edit.prompt, rephrased] if edit != DUSK else [])
    editor.apply([DARRIEUX])
    assert [text for text, _ in editor.memory.history] == [(DARRIEUX.prompt, "Norway"), (rephrased, "Norway")]
    assert editor.generate([DARRIEUX.prompt, rephrased], max_new_tokens=1) == [" Norway", " Norway"]
    assert editor.scope_scores([rephrased]).item() == pytest.approx(1)
    editor.apply([LATER, DUSK])
    assert editor.generate([DARRIEUX.prompt, rephrased], max_new_tokens=1) == [" Oslo", " Oslo"]
    editor.forget([LATER])
    assert_alike(editor, after(editor, [DUSK]))
    assert editor.scope_scores([rephrased]).item() < 0.6


def test_what_edits_have_in_common_stays_as_long_as_one_of_them(addressing: Addressing[Any]) -> None:
    """Two edits are rephrased alike; and one is, letter by letter, another's rephrasing."""
    shared, other = "Where was the book Dusk written", Edit("5", "Dusk", "Who wrote the book Dusk", "Oslo", ())
    same = Edit("6", "Dusk", shared, "Oslo", ())
    editor = make(addressing, rephrase=lambda edit: [shared])
    editor.apply([DUSK])
    editor.apply([other, same])
    assert len(editor.memory.history) == 3
    for edit, left in ((DUSK, [other, same]), (same, [other]), (other, [])):
        editor.forget([edit])
        assert_alike(editor, after(editor, left))


def test_rephrasing_does_not_see_how_an_edit_is_judged(addressing: Addressing[Any]) -> None:
    seen: list[Edit] = []

    def rephrase(edit: Edit) -> list[str]:
        seen.append(edit)
        return list(edit.paraphrases)

    judged = Edit(
        "0",
        DARRIEUX.subject,
        DARRIEUX.prompt,
        "Norway",
        ("French",),
        relation="P103",
        paraphrases=("Say it:",),
        neighbors=(Probe("Of another:", "Oslo"),),
        attribute_prompts=("As well:",),
        generation_prompts=("Tell me:",),
        portability=(Probe("And its capital:", "Bergen", "Paris"),),
    )
    editor = make(addressing, rephrase=rephrase)
    editor.apply([judged])
    assert seen == [Edit("0", DARRIEUX.subject, DARRIEUX.prompt, "Norway", ("French",), relation="P103")]
    assert len(editor.memory.history) == 1
