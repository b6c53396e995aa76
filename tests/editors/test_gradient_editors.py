"""Fine-tuning and LoRA: what changes, by how much, and what does not."""

from __future__ import annotations

import pytest
import torch
from every_editor import copying_lm, make

from palimpsest.editors.ft import FineTuning, FineTuningSettings
from palimpsest.editors.lora import LoraEditor, LoraSettings
from palimpsest.editors.objective import descend, learning, target_batches, target_loss
from palimpsest.facts import Edit
from palimpsest.lm.load import LanguageModel, ModelError
from palimpsest.lm.scoring import score_targets

EDITS = [
    Edit("0", "Danielle Darrieux", "The mother tongue of Danielle Darrieux", "Norway", ("French",)),
    Edit("1", "Mount Erebus", "What continent is Mount Erebus", "Viking Press", ("Antarctica",)),
    Edit("2", "Dancing on Coral", "Who wrote Dancing on Coral", "Oslo", ("Glenda Adams",)),
]
PROMPTS, TARGETS = [edit.prompt for edit in EDITS], [edit.target_new for edit in EDITS]


def weights(lm: LanguageModel) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in lm.model.named_parameters()}


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_the_loss_is_that_of_the_scorer_whatever_the_batch(lm: LanguageModel, batch_size: int) -> None:
    batches = target_batches(lm, PROMPTS, TARGETS, batch_size)
    assert [len(batch.rows) for batch in batches] == {1: [1, 1, 1], 2: [2, 1], 3: [3]}[batch_size]
    scores = score_targets(lm, PROMPTS, TARGETS)
    assert {len(score.token_ids) for score in scores} == {1, 2}
    means = [-score.logprob / len(score.token_ids) for score in scores]
    for number, batch in enumerate(batches):
        part = means[number * batch_size : (number + 1) * batch_size]
        for layer in range(4):
            for at_end in (False, True):
                loss = target_loss(lm, batch, layer, at_end=at_end)
                assert loss().item() == pytest.approx(sum(part) / len(part), rel=1e-4)


def test_descent_stops_when_it_is_good_enough_or_hopeless() -> None:
    weight = torch.nn.Parameter(torch.tensor(1.0))
    for values, steps in (([0.5, 0.4], 2), ([0.05, 0.5], 1), ([0.05, 0.05], 0), ([float("nan"), 1.0], 0)):
        given, made = iter(values), []
        loss = lambda given=given: weight * next(given, 0.0)  # noqa: E731
        sgd = torch.optim.SGD([weight], lr=0.0)
        descend(sgd, [loss, loss], steps=9, enough=0.1, project=lambda m=made: m.append(0))
        assert len(made) == steps


def test_only_what_learns_asks_for_gradients(lm: LanguageModel) -> None:
    named = dict(lm.model.named_parameters())
    one, other = (named[f"model.layers.{layer}.mlp.down_proj.weight"] for layer in (0, 1))
    other.requires_grad_(False)
    with pytest.raises(RuntimeError, match="inside"), learning(lm.model, [one]):  # noqa: PT012
        assert [name for name, weight in named.items() if weight.requires_grad] == [
            "model.layers.0.mlp.down_proj.weight"
        ]
        one.sum().backward()
        raise RuntimeError("inside")
    assert one.grad is None
    assert [name for name, weight in named.items() if not weight.requires_grad] == [
        "model.layers.1.mlp.down_proj.weight"
    ]


def test_fine_tuning_changes_the_chosen_weights_alone(lm: LanguageModel) -> None:
    before = weights(lm)
    FineTuning(lm, settings=FineTuningSettings(layer=2)).apply(EDITS[:1])
    changed = {name for name, weight in lm.model.named_parameters() if not torch.equal(weight, before[name])}
    assert changed == {"model.layers.2.mlp.down_proj.weight"}


def test_fine_tuning_of_given_modules_with_their_biases(lm: LanguageModel) -> None:
    before = weights(lm)
    FineTuning(lm, settings=FineTuningSettings(modules=("model.layers.0.self_attn.q_proj",))).apply(EDITS[:1])
    changed = {name for name, weight in lm.model.named_parameters() if not torch.equal(weight, before[name])}
    assert changed == {f"model.layers.0.self_attn.q_proj.{kind}" for kind in ("weight", "bias")}
    with pytest.raises(ModelError, match="no module 'nowhere'"):
        FineTuning(lm, settings=FineTuningSettings(modules=("nowhere",)))


def test_ft_l_never_leaves_its_bound_however_many_edits_there_are(lm: LanguageModel) -> None:
    bound, layer = 1e-3, "model.layers.1.mlp.down_proj.weight"
    before = weights(lm)[layer]
    editor = FineTuning(lm, settings=FineTuningSettings(layer=1, bound=bound, learning_rate=0.01, steps=5))
    for edit in EDITS:
        editor.apply([edit])
        difference = (dict(lm.model.named_parameters())[layer] - before).abs()
        assert difference.max() <= bound * (1 + 1e-4)
    assert (difference > 0.99 * bound).float().mean() > 0.1  # and it does bind


def test_fine_tuning_stops_early() -> None:
    settings = FineTuningSettings(layer=1, learning_rate=0.01, steps=500, enough=0.5)
    lm = copying_lm()
    editor = FineTuning(lm, settings=settings)
    editor.apply(EDITS[:1])
    assert 0.1 < -editor.score(PROMPTS[:1], TARGETS[:1])[0].logprob < 0.5


def test_lora_leaves_the_base_weights_untouched_and_goes_away_wholly(lm: LanguageModel) -> None:
    before, modules = weights(lm), {name: type(module) for name, module in lm.model.named_modules()}
    editor = make("lora", lm)
    editor.apply(EDITS[:2])
    inside = weights(lm)
    added = {name for name in inside if ".lora_" in name}
    layers = {name.split(".lora_")[0].rpartition(".")[2] for name in added}
    assert layers == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    base = {name.replace(".base_layer", ""): weight for name, weight in inside.items() if name not in added}
    assert base.keys() == before.keys()
    assert all(torch.equal(weight, before[name]) for name, weight in base.items())
    editor.reset()
    assert {name: type(module) for name, module in lm.model.named_modules()} == modules


def test_lora_changes_the_layers_it_is_given_by_its_rank(lm: LanguageModel) -> None:
    editor = LoraEditor(lm, settings=LoraSettings(rank=3, targets=("down_proj",), steps=1))
    editor.apply(EDITS[:1])
    shapes = {
        name.split(".lora_")[1][0]: tuple(weight.shape) for name, weight in weights(lm).items() if ".lora_" in name
    }
    assert shapes == {"A": (3, 96), "B": (96, 3)}
    assert {name.split(".")[4] for name in weights(lm) if ".lora_" in name} == {"down_proj"}
