"""GRACE's codebook: where it answers, where it is silent, and how its radii grow and split."""

from __future__ import annotations

import pytest
import torch

from palimpsest.editors.grace import Grace, GraceSettings, _last_of
from palimpsest.editors.weights import Side
from palimpsest.facts import Edit
from palimpsest.lm.load import LanguageModel

PROMPTS = ["The mother tongue of Danielle Darrieux", "What continent is Mount Erebus", "Who wrote Dancing on Coral"]
SETTINGS = GraceSettings(layer=1, radius=1.0, learning_rate=0.1, steps=30)


def edit(case: str, prompt: str, target: str) -> Edit:
    return Edit(case, prompt, prompt, target, ())


class Placed(Grace):
    """A codebook whose keys are given: prompts are places on a line."""

    places: dict[str, float]

    def _state(self, prompt: str, side: Side) -> torch.Tensor:
        if side == "output":
            return super()._state(prompt, side)
        return torch.tensor([self.places[prompt], 0.0])


@pytest.fixture
def placed(lm: LanguageModel) -> Placed:
    return Placed(lm, settings=SETTINGS)


def book(editor: Grace) -> list[tuple[float, float, str]]:
    """Place, radius and target of each entry."""
    return [(entry.key[0].item(), pytest.approx(entry.radius), entry.target) for entry in editor.codebook]


def put(editor: Placed, *edits: tuple[float, str]) -> list[Edit]:
    """Make edits at places of the line; each place is a prompt of its own."""
    made = [edit(str(place), f"Ann Lee wrote {place}", target) for place, target in edits]
    editor.places = {one.prompt: place for one, (place, _) in zip(made, edits, strict=True)} | getattr(
        editor, "places", {}
    )
    editor.apply(made)
    return made


def test_far_edits_get_entries_of_their_own(placed: Placed) -> None:
    put(placed, (0.0, "Oslo"), (2.1, "Norway"), (-2.1, "Oslo"))
    assert book(placed) == [(0.0, 1.0, "Oslo"), (pytest.approx(2.1), 1.0, "Norway"), (pytest.approx(-2.1), 1.0, "Oslo")]


def test_a_near_edit_to_the_same_target_expands_the_entry(placed: Placed) -> None:
    put(placed, (0.0, "Oslo"), (1.5, "Oslo"), (0.5, "Oslo"))
    assert book(placed) == [(0.0, 1.5, "Oslo")]
    assert len(placed.codebook[0].taught) == 3


def test_a_near_edit_to_another_target_splits_the_distance(placed: Placed) -> None:
    put(placed, (0.0, "Oslo"), (1.0, "Norway"))
    assert book(placed) == [(0.0, 0.5, "Oslo"), (1.0, 0.5, "Norway")]
    put(placed, (1.4, "Paris"))  # nearest is the second, at 0.4; the first stays
    assert book(placed) == [(0.0, 0.5, "Oslo"), (1.0, 0.2, "Norway"), (pytest.approx(1.4), 0.2, "Paris")]
    put(placed, (-1.4, "Paris"))  # within reach of the first, but half the distance is more than its radius
    assert book(placed)[0] == (0.0, 0.5, "Oslo")
    assert book(placed)[3] == (pytest.approx(-1.4), 0.7, "Paris")


def test_the_same_prompt_takes_its_new_target(placed: Placed) -> None:
    put(placed, (0.0, "Oslo"), (0.0, "Norway"))
    assert book(placed) == [(0.0, 1.0, "Norway")]


def test_forgetting_undoes_what_an_edit_did_to_radii(lm: LanguageModel) -> None:
    for others in ([(0.0, "Oslo"), (3.0, "Paris")], [(0.0, "Oslo")], [(3.0, "Oslo"), (0.5, "Oslo")]):
        for place, target in ((1.0, "Norway"), (1.2, "Oslo"), (0.0, "Paris")):
            for position in range(len(others) + 1):
                editor, never = Placed(lm, settings=SETTINGS), Placed(lm, settings=SETTINGS)
                made = put(editor, *others[:position], (place, target), *others[position:])
                put(never, *others)
                editor.forget([made[position]])
                assert book(editor) == book(never)
                for ours, theirs in zip(editor.codebook, never.codebook, strict=True):
                    assert torch.equal(ours.value, theirs.value)


def test_forgetting_a_prompts_new_target_brings_back_the_former(lm: LanguageModel) -> None:
    editor = Grace(lm, settings=SETTINGS)
    old, new = edit("0", PROMPTS[0], "Oslo"), edit("1", PROMPTS[0], "Norway")
    editor.apply([old])
    before = editor.score([PROMPTS[0]] * 2, ["Oslo", "Norway"])
    editor.apply([new])
    assert editor.generate(PROMPTS[:1], max_new_tokens=1) == [" Norway"]
    editor.forget([new])
    assert editor.score([PROMPTS[0]] * 2, ["Oslo", "Norway"]) == before


@torch.no_grad()
def logits(editor: Grace, prompt: str) -> torch.Tensor:
    """Logits (T, V) at a prompt, as the scorer of prompts of its length would see them."""
    [ids] = editor.lm.encode_prompts([prompt])
    with editor._answering(editor.read([prompt]), _last_of(len(ids))):
        return editor.lm.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]


def test_it_is_silent_outside_every_radius_and_before_the_last_token(lm: LanguageModel) -> None:
    editor = Grace(lm, settings=SETTINGS)
    plain = [logits(editor, prompt) for prompt in PROMPTS]
    editor.apply([edit("0", PROMPTS[0], "Norway")])
    key, radius = editor.codebook[0].key, editor.codebook[0].radius
    distances = [(editor._state(prompt, "input") - key).norm().item() for prompt in PROMPTS]
    assert distances[0] == 0
    assert 0 < distances[1] < radius  # of 1.0 on keys as small as these: everything is near
    assert not torch.equal(logits(editor, PROMPTS[1])[-1], plain[1][-1])
    editor = Grace(lm, settings=GraceSettings(layer=1, radius=0.9 * min(distances[1:]), learning_rate=0.1, steps=30))
    editor.apply([edit("0", PROMPTS[0], "Norway")])
    for prompt, before in zip(PROMPTS[1:], plain[1:], strict=True):
        assert torch.equal(logits(editor, prompt), before)
    answered = logits(editor, PROMPTS[0])
    assert torch.equal(answered[:-1], plain[0][:-1])
    assert answered[-1].argmax() == lm.encode([" Norway"])[0][0]


def test_an_answer_does_not_depend_on_the_company(lm: LanguageModel) -> None:
    """Prompts of several lengths, targets that share a prompt, and several rows: all in one call, and each alone."""
    editor = Grace(lm, settings=GraceSettings(layer=1, radius=0.01, learning_rate=0.1, steps=30))
    editor.apply([edit("0", PROMPTS[0], "Norway"), edit("1", PROMPTS[1], "Viking Press")])
    prompts = [*PROMPTS, *PROMPTS, "Oslo lies in"]
    targets = ["Norway", "Viking Press", "Oslo", "Oslo lies in Norway and", "Viking", "Oslo", "Norway"]
    together = editor.score(prompts, targets)
    for prompt, target, score in zip(prompts, targets, together, strict=True):
        [alone] = editor.score([prompt], [target])
        assert score.token_logprobs == pytest.approx(alone.token_logprobs, abs=1e-4)
    texts = editor.generate(prompts, max_new_tokens=3)
    assert texts[0].startswith(" Norway")
    for prompt, text in zip(prompts, texts, strict=True):
        assert editor.generate([prompt], max_new_tokens=3) == [text]
        for token in (1, 2, 3):  # what is generated is what scoring finds most probable, token by token
            assert all(editor.score([prompt], [editor.generate([prompt], max_new_tokens=token)[0]])[0].greedy)
