from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_models import EDITS, FACTS, STRANGER, knowing_lm, probabilities, tiny_lm

from palimpsest.editors.subject import locate_subjects
from palimpsest.editors.tracing import trace
from palimpsest.editors.weights import find_blocks, hooked
from palimpsest.facts import Edit
from palimpsest.lm.load import LanguageModel


def reference(lm: LanguageModel, fact: Edit, scale: float, samples: int, seed: int) -> list[float]:
    """Probabilities, one run at a time: clean, noised, and with each layer's hidden state and MLP output restored."""
    [located] = locate_subjects(lm, [fact.prompt], [fact.subject])
    tokens = torch.tensor([[*located.ids, *lm.encode([f" {fact.target_true[0]}"])[0]]])
    blocks = find_blocks(lm.model)
    names = [block.name for block in blocks] + [block.down_name for block in blocks]
    noise = scale * torch.randn(
        samples, located.last + 1 - located.first, 16, generator=torch.Generator().manual_seed(seed)
    )
    clean_states: dict[str, torch.Tensor] = {}

    def run(sample: torch.Tensor | None, restored: str | None) -> float:
        handles = []
        for name in names:

            def look(module: object, given: object, output: object, name: str = name) -> object:
                state = output[0] if isinstance(output, tuple) else output
                rows = state.view(-1, 16)
                if sample is None:
                    clean_states[name] = rows[located.last].clone()
                elif name == restored:
                    rows[located.last] = clean_states[name]
                return output

            handles.append(lm.model.get_submodule(name).register_forward_hook(look))
        embedded = lm.model.get_input_embeddings()(tokens).detach().clone()
        if sample is not None:
            embedded[0, located.first : located.last + 1] += sample
        with torch.no_grad():
            logprobs = lm.model(inputs_embeds=embedded).logits[0].log_softmax(-1)
        for handle in handles:
            handle.remove()
        answer = tokens[0, len(located.ids) :]
        places = torch.arange(len(located.ids) - 1, tokens.shape[1] - 1)
        return logprobs[places, answer].sum().exp().item()

    clean = run(None, None)
    return [clean, *(float(np.mean([run(sample, name) for sample in noise])) for name in [None, *names])]


@pytest.mark.parametrize(("architecture", "budget"), [("qwen2", 300), ("gpt2", 1), ("gptj", 8192), ("opt", 8192)])
def test_effects_are_those_of_one_run_at_a_time(architecture: str, budget: int) -> None:
    lm = tiny_lm(architecture, layers=3)
    fact = replace(EDITS[0], prompt="Is Danielle Darrieux from", target_true=("Paris in Norway",))
    rows = trace(lm, [fact], samples=3, noise=1.5, seed=4, max_tokens_per_batch=budget)
    [located] = locate_subjects(lm, [fact.prompt], [fact.subject])
    embeddings = lm.model.get_input_embeddings().weight[list(located.ids[located.first : located.last + 1])]
    clean, noised, *restored = reference(lm, fact, 1.5 * embeddings.std().item(), 3, 4)
    assert rows["kind"].tolist() == ["hidden"] * 3 + ["mlp"] * 3
    assert rows["layer"].tolist() == [0, 1, 2] * 2
    assert rows["clean"].tolist() == pytest.approx([clean] * 6, rel=1e-3)
    assert rows["noised"].tolist() == pytest.approx([noised] * 6, rel=1e-3)
    assert rows["restored"].tolist() == pytest.approx(restored, rel=1e-3)
    assert rows["indirect_effect"].tolist() == pytest.approx((rows["restored"] - noised).tolist(), rel=1e-2, abs=1e-9)
    assert rows["total_effect"].tolist() == pytest.approx([clean - noised] * 6, rel=1e-2, abs=1e-9)


def test_no_noise_no_effect_and_a_window_of_all_layers() -> None:
    lm = tiny_lm(layers=3)
    quiet = trace(lm, EDITS, samples=2, noise=0.0)
    assert len(quiet) == 3 * 6
    assert quiet[["total_effect", "indirect_effect"]].abs().max().max() < 1e-6
    assert quiet["case_id"].tolist() == [edit.case_id for edit in EDITS for _ in range(6)]
    wide = trace(lm, EDITS, samples=2, window=9)
    spread = wide[wide["kind"] == "mlp"].groupby("case_id")["restored"].agg(lambda values: values.max() - values.min())
    assert (spread < 1e-6).all()  # all layers' outputs are put back, whichever is in the middle


def test_the_early_layers_look_facts_up() -> None:
    lm = knowing_lm()
    assert min(probabilities(lm, FACTS, new=False)) > 0.9
    rows = trace(lm, FACTS[::3], samples=4, seed=1)
    effects = rows.groupby(["kind", "layer"])["indirect_effect"].mean()
    assert rows["total_effect"].mean() > 0.4
    assert effects["hidden", 0] > 0.1
    # What the last layer returns at the subject cannot reach the end of the prompt any more.
    assert abs(effects["hidden", 2]) < 1e-6
    again = trace(lm, FACTS[::3], samples=4, seed=1)
    pd.testing.assert_frame_equal(rows, again)


def test_nothing_is_left_behind_and_what_is_wrong_is_named() -> None:
    lm = tiny_lm()
    tokens = torch.tensor([[5, 6, 7]])
    before = lm.model(input_ids=tokens).logits
    trace(lm, EDITS, samples=2)
    assert torch.equal(lm.model(input_ids=tokens).logits, before)
    with pytest.raises(ValueError, match="case 9: the subject 'Marie Curie' is not in the prompt"):
        trace(lm, [STRANGER])
    with pytest.raises(ValueError, match="no fact"):
        trace(lm, [])
    with hooked(lm.model, "lm_head", lambda state: None):
        assert torch.equal(lm.model(input_ids=tokens).logits, before)
