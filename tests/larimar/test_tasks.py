"""What Larimar is trained on."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from tiny import tiny_encoder, tiny_lm

from palimpsest.facts import Edit
from palimpsest.larimar.model import Larimar
from palimpsest.larimar.tasks import answer_task, edit_pairs, episode_task

EDITS = [
    Edit("0", "Danielle Darrieux", "The mother tongue of Danielle Darrieux is", "Paris", ("French",), relation="P103"),
    Edit("1", "Glenda Adams", "The mother tongue of Glenda Adams is", "French", ("Coral", "Viking"), relation="P103"),
    Edit("2", "Mount Erebus", "Mount Erebus is located in", "Bordeaux", ("Antarctica",), relation="P30"),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Larimar:
    return Larimar(tiny_encoder(tmp_path_factory.mktemp("encoder")), tiny_lm("qwen2"), slots=8, code=16, seed=0)


def test_a_prompt_is_shown_with_its_answers_and_others_of_its_relation() -> None:
    pairs = list(edit_pairs(EDITS, others=40, seed=0))
    tongues = {"Paris", "French", "Coral", "Viking"}
    by_prompt = {edit.prompt: Counter(answer for prompt, answer in pairs if prompt == edit.prompt) for edit in EDITS}
    assert [sum(counts.values()) for counts in by_prompt.values()] == [42, 43, 42]
    assert set(by_prompt[EDITS[0].prompt]) == set(by_prompt[EDITS[1].prompt]) == tongues
    assert set(by_prompt[EDITS[2].prompt]) == {"Bordeaux", "Antarctica"}
    assert pairs == list(edit_pairs(EDITS, others=40, seed=0)) != list(edit_pairs(EDITS, others=40, seed=1))
    assert list(edit_pairs(EDITS[:1], others=0, seed=0)) == [(EDITS[0].prompt, "Paris"), (EDITS[0].prompt, "French")]


def test_answers_alone_are_learnt_from_their_values(model: Larimar) -> None:
    pairs = list(edit_pairs(EDITS, others=0, seed=0))
    task = answer_task(model, pairs, ["Coral", "Paris."], noise=(0.0, 0.0), scale=(1.0, 1.0), max_tokens=8)
    for example, (prompt, answer) in zip(task.examples, pairs, strict=True):
        learnt = [token for token, wanted in zip(example.ids, example.learnt, strict=True) if wanted]
        assert model.lm.decode([learnt])[0] == f" {answer}"
        assert model.lm.decode([example.ids])[0].endswith(f"{prompt} {answer}")
    sourced = task.source([0, 3], torch.Generator().manual_seed(0))
    torch.testing.assert_close(sourced.read_outs["answer"], model.encode([pairs[0][1], pairs[3][1]]))
    assert len(task.plain) == 2


def test_statements_are_written_and_said_again(model: Larimar) -> None:
    pairs = list(edit_pairs(EDITS, others=0, seed=0))
    task = episode_task(model, pairs, [], sizes=[2], max_tokens=64)
    assert [model.lm.decode([example.ids[1:-1]])[0] for example in task.examples] == [
        f"{prompt} {answer}." for prompt, answer in pairs
    ]
    sourced = task.source([0, 1], torch.Generator().manual_seed(0))
    texts = [" ".join(pair) + "." for pair in pairs[:2]]
    torch.testing.assert_close(sourced.read_outs["autoencoding"], model.encode(texts))
    # What was written in an episode of two is read back.
    torch.testing.assert_close(sourced.read_outs["reconstruction"], model.encode(texts), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("trained", [True, False])
def test_the_map_to_the_code_may_be_left_as_it_is(model: Larimar, trained: bool) -> None:
    made = Larimar(model.encoder, tiny_lm("qwen2"), slots=8, code=16, tune_code=trained)
    assert made.to_code.weight.requires_grad == trained
