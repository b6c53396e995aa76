"""WISE's side memory: who is routed to it, what a shard may change, and how shards are merged."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from every_editor import IRRELEVANT, METHODS, make

from palimpsest.editors.wise import Wise, merge, prompt_mean
from palimpsest.facts import Edit
from palimpsest.lm.load import LanguageModel
from palimpsest.lm.scoring import score_targets

EDITS = [
    Edit("0", "Danielle Darrieux", "The mother tongue of Danielle Darrieux", "Norway", ("French",)),
    Edit("1", "Mount Erebus", "What continent is Mount Erebus", "Viking Press", ("Antarctica",)),
    Edit("2", "Dancing on Coral", "Who wrote Dancing on Coral", "Oslo", ("Glenda Adams",)),
]
PROMPTS = [edit.prompt for edit in EDITS]


@pytest.fixture
def wise(lm: LanguageModel) -> Wise:
    editor = make("wise", lm)
    assert isinstance(editor, Wise)
    return editor


def test_ties_by_hand() -> None:
    first = torch.tensor([[4.0, -3.0, 0.5], [0.0, 2.0, 1.0]])
    second = torch.tensor([[2.0, 5.0, -0.1], [0.0, -2.0, 3.0]])
    # Half of six entries each: 4, −3, 2 of the first and 2, 5, 3 or −2 (a tie keeps both) of the second.
    merged = merge([first, second], 0.5)
    assert merged.tolist() == [[3.0, 5.0, 0.0], [0.0, 0.0, 3.0]]
    assert torch.equal(merge([first], 1.0), first)
    apart = torch.tensor([[0.0, 7.0], [0.0, 0.0]]), torch.tensor([[-1.0, 0.0], [0.0, 0.0]])
    assert merge(apart, 0.5).tolist() == [[-1.0, 7.0], [0.0, 0.0]]  # where shards do not meet, nothing is lost


def test_a_mean_over_the_prompt_alone() -> None:
    sizes = torch.tensor([[1.0, 3.0, 100.0], [2.0, 4.0, 6.0]])
    assert prompt_mean(sizes, torch.tensor([2, 3])).tolist() == [2.0, 4.0]


def test_activation_is_the_change_of_the_down_projections_output(wise: Wise, lm: LanguageModel) -> None:
    wise.apply(EDITS[:1])
    assert wise.side is not None
    plain, changed = [], []
    module = lm.model.model.layers[1].mlp.down_proj
    for prompt in PROMPTS:
        for outputs, weight in ((plain, 0.0), (changed, wise.side)):
            handle = module.register_forward_hook(lambda _, __, out, outputs=outputs: outputs.append(out[0]))
            module.weight.data += weight
            lm.model(input_ids=torch.tensor(lm.encode_prompts([prompt])))
            module.weight.data -= weight
            handle.remove()
    expected = [(new - old).norm(dim=1).mean().item() for old, new in zip(plain, changed, strict=True)]
    assert wise.activations(PROMPTS, wise.side).tolist() == pytest.approx(expected, rel=1e-4)


def test_edits_go_to_the_side_memory_and_others_to_the_main_one(wise: Wise, lm: LanguageModel) -> None:
    assert wise.routes(PROMPTS) == [False] * 3
    wise.apply(EDITS[:2])
    prompts = [*IRRELEVANT, *PROMPTS[:2]]
    assert wise.routes(prompts) == [False] * 4 + [True] * 2
    # Together with edits, unrelated prompts are scored as the unedited model scores them, to the bit.
    targets = ["Oslo", "Norway", "Viking", "Dusk"]
    assert wise.score(prompts, [*targets, "Norway", "Viking Press"])[:4] == score_targets(lm, IRRELEVANT, targets)
    assert wise.score(PROMPTS[:1], ["Norway"])[0].logprob > -0.5


def test_the_side_memory_speaks_as_if_its_weights_were_in_place(wise: Wise, lm: LanguageModel) -> None:
    wise.apply(EDITS[:2])
    assert wise.side is not None
    scores = wise.score(PROMPTS[:2], ["Norway", "Viking Press"])
    texts = wise.generate(PROMPTS[:2], max_new_tokens=4)
    lm.model.model.layers[1].mlp.down_proj.weight.data += wise.side
    for score, expected in zip(scores, score_targets(lm, PROMPTS[:2], ["Norway", "Viking Press"]), strict=True):
        assert score.token_logprobs == pytest.approx(expected.token_logprobs, abs=1e-3)
    wise.reset()  # which does not touch the weights
    assert wise.generate(PROMPTS[:2], max_new_tokens=4) == texts


def test_each_shard_changes_its_own_random_part(wise: Wise) -> None:
    wise.apply(EDITS)  # two edits a shard
    assert [shard.edits for shard in wise.shards] == [2, 1]
    for shard in wise.shards:
        assert shard.mask.float().mean() == pytest.approx(0.5, abs=0.02)
        assert not shard.delta[~shard.mask].any()
        assert shard.delta[shard.mask].any()
    first, second = (shard.mask for shard in wise.shards)
    assert (first & second).float().mean() == pytest.approx(0.25, abs=0.02)
    assert torch.equal(wise.side, merge([shard.delta for shard in wise.shards], wise.settings.density))


def test_the_margins_part_edits_from_others(wise: Wise) -> None:
    part = lambda edited, other: wise._margin(torch.tensor([[edited]]), torch.tensor([[other]])).item()  # noqa: E731
    assert part(0.5, 0.05) == 0  # alpha 0.1, beta 0.4, gamma 0.2
    assert part(0.5, 0.2) == pytest.approx(0.1)
    assert part(0.3, 0.1) == pytest.approx(0.1)
    assert part(0.4, 0.3) == pytest.approx(0.2 + 0.1)


def test_the_bound_holds(lm: LanguageModel) -> None:
    editor = make("wise", lm)
    assert isinstance(editor, Wise)
    editor.settings = replace(editor.settings, bound=1e-3)
    editor.apply(EDITS[:1])
    assert editor.shards[0].delta.abs().max() == pytest.approx(1e-3)


def test_it_needs_prompts_to_keep_out_of(lm: LanguageModel) -> None:
    assert "irrelevant" not in METHODS["wise"]
    with pytest.raises(ValueError, match="irrelevant"):
        Wise(lm, irrelevant=[], corpus=["some text"], settings=make("wise", lm).settings)
