"""A tiny MemLLM: one model that has learnt to write a few edits down, and one that has learnt to look them up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from itertools import product

import torch
from torch.nn.functional import cross_entropy

from palimpsest.facts import Edit
from palimpsest.lm.batching import padded
from palimpsest.lm.load import LanguageModel
from palimpsest.memllm.adapters import Lora, attach_adapter, merge_adapter
from palimpsest.memllm.edit_examples import edit_read_examples, edit_write_examples
from palimpsest.memllm.examples import Example
from palimpsest.memllm.tokens import CallTokens

LABELS = {"P103": "mother tongue", "P30": "continent", "P50": "author", "P19": "place of birth"}
ASKED = [("P103", "Danielle Darrieux", "The mother tongue of {}"), ("P30", "Mount Erebus", "What continent is {}"),
         ("P50", "Dancing on Coral", "Who wrote {}"), ("P50", "Dusk", "Who wrote {}"),
         ("P19", "Ann Lee", "{} was born in"), ("P19", "Glenda Adams", "{} was born in")]  # fmt: skip
ANSWERS = ["Norway", "Viking Press", "Oslo", "Paris", "Lee", "Bergen"]
STEPS = 400  # at the most
ENOUGH = 0.02  # nats a learnt token, in several batches in a row


@cache
def taught(new_lm: Callable[[], LanguageModel]) -> dict[str, CallTokens]:
    """Reader and writer around models such as ``new_lm`` makes."""
    edits = [
        Edit(f"{number}", subject, prompt.format(subject), answer, (), relation)
        for number, ((relation, subject, prompt), answer) in enumerate(product(ASKED, ANSWERS))
    ]
    roles = {}
    for role, examples in (("reader", edit_read_examples), ("writer", edit_write_examples)):
        lm = attach_adapter(new_lm(), role, Lora(rank=16, alpha=32, dropout=0.0), seed=0)
        _fit(lm, list(examples(edits, LABELS, CallTokens(lm, spaced=True), max_tokens=128)))
        roles[role] = CallTokens(merge_adapter(lm), spaced=True)
    return roles


def _fit(lm: LanguageModel, examples: Sequence[Example]) -> None:
    adam = torch.optim.Adam([weight for weight in lm.model.parameters() if weight.requires_grad], lr=5e-3)
    order = torch.Generator().manual_seed(0)
    losses: list[float] = []
    while len(losses) < STEPS and max(losses[-5:], default=1.0) > ENOUGH:
        batch = [examples[item] for item in torch.randint(len(examples), (16,), generator=order).tolist()]
        ids = padded([example.ids for example in batch], lm.pad_id, lm.device)
        learnt = padded([list(map(int, example.learnt)) for example in batch], 0, lm.device).bool()
        logits = lm.model(input_ids=ids, use_cache=False).logits[:, :-1]
        loss = cross_entropy(logits[learnt[:, 1:]], ids[:, 1:][learnt[:, 1:]])
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(loss.item())
