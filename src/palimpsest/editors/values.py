"""Which vector at the subject makes the model say the new answer: the search that ROME, MEMIT and AlphaEdit share.

A vector δ is added to a module's output at the subject's last token, and is found by gradient descent (ROME, eq. 4;
MEMIT, section 4.3). ROME adds it to what the MLP returns, MEMIT and AlphaEdit to the hidden state after the block. The
edits of a batch do not see one another and are searched for at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from palimpsest.editors.replay import Replay, first_layer
from palimpsest.editors.subject import Located, locate_subjects
from palimpsest.editors.weights import Block, Tap, frozen, hooked, put, read_at
from palimpsest.facts import Edit
from palimpsest.lm.batching import DEFAULT_TOKENS_PER_BATCH, length_batches
from palimpsest.lm.load import LanguageModel
from palimpsest.lm.prompts import encode_targets, fit_context


@dataclass(frozen=True, kw_only=True)
class ValueSettings:
    """How a value is searched for. The defaults are those of ROME's authors for GPT-2 XL and GPT-J.

    Attributes:
        steps: of Adam, at most.
        learning_rate: of Adam. It is in units of the activations, which differ in size between models.
        kl_weight: of KL(edited ‖ unedited) of the next token after "{subject} is a", which keeps what the subject is.
        weight_decay: factor of ‖δ‖ / ‖v‖², as the authors' code has it; v is the output before the edit.
        clamp: bounds ‖δ‖, in multiples of ‖v‖.
        enough: an edit is done once its target's tokens have this probability (their geometric mean, also over
            prefixes). The authors stop at a loss of 0.05, which is 0.95.
        prefixes: how many texts stand before the prompt in turn, besides none: an edit shall not depend on them.
        prefix_words: the longest prefix, in words; the shortest has two.
        per_feature: vectors for the second moment of the keys, in multiples of the keys' size.
        seed: of the prefixes and of the texts for the second moment.
    """

    steps: int = 20
    learning_rate: float = 0.5
    kl_weight: float = 0.0625
    weight_decay: float = 0.5
    clamp: float = 4.0
    enough: float = 0.95
    prefixes: int = 20
    prefix_words: int = 10
    per_feature: float = 10
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or not 0 < self.enough < 1 or self.prefixes < 0 or self.prefix_words < 2:
            raise ValueError(f"expected steps >= 1, 0 < enough < 1, prefixes >= 0 and prefix_words >= 2, got {self}")


@dataclass(frozen=True, slots=True)
class Request:
    """An edit as tokens: the prompt alone and after each prefix, its target after each, and "{subject} is a"."""

    contexts: tuple[Located, ...]
    targets: tuple[tuple[int, ...], ...]
    essence: Located


def draw_prefixes(texts: Sequence[str], count: int, most_words: int, seed: int) -> list[str]:
    """The empty prefix and ``count`` random ones. The papers let the model write them; these are openings of the texts
    it has learnt from, which look the same and cost nothing.

    Raises ValueError if all texts are empty.
    """
    texts = [text for text in texts if text.strip()]
    if count and not texts:
        raise ValueError("there is no text from which prefixes could be drawn")
    random = np.random.default_rng(seed)
    prefixes = [""]
    for _ in range(count):
        words = texts[random.integers(len(texts))].split()[: random.integers(2, most_words + 1)]
        prefixes.append(f"{' '.join(words).rstrip('.,;:!?')}. ")
    return prefixes


def prepare(lm: LanguageModel, edits: Sequence[Edit], prefixes: Sequence[str]) -> list[Request]:
    """The edits as tokens.

    Raises:
        ValueError: a prompt does not name its subject, a target is empty, or they do not fit the model's context. Names
            the case.
    """
    requests = []
    for edit in edits:
        prompts = [prefix + edit.prompt for prefix in prefixes]
        try:
            contexts = locate_subjects(lm, prompts, [edit.subject] * len(prompts), [len(prefix) for prefix in prefixes])
            targets = encode_targets(lm, prompts, [edit.target_new] * len(prompts))
            [essence] = locate_subjects(lm, [f"{edit.subject} is a"], [edit.subject])
            for number, (context, target) in enumerate(zip(contexts, targets, strict=True)):
                fit_context(lm, context.ids, len(target), number, "error")
        except ValueError as error:
            raise ValueError(f"case {edit.case_id}: {error}") from error
        requests.append(Request(tuple(contexts), tuple(map(tuple, targets)), essence))
    return requests


def mean_keys(lm: LanguageModel, requests: Sequence[Request], blocks: Sequence[Block]) -> list[Tensor]:
    """For each block the keys (N, F) of N edits: what its down projection gets at the subject's last token, averaged
    over the prefixes (ROME, eq. 3), in double precision."""
    contexts = [context for request in requests for context in request.contexts]
    taps: list[Tap] = [(block.down_name, "input") for block in blocks]
    states = read_at(lm, [context.ids for context in contexts], [context.last for context in contexts], taps)
    return [state.double().view(len(requests), -1, state.shape[-1]).mean(1) for state in states]


def current_values(lm: LanguageModel, requests: Sequence[Request], module: str) -> Tensor:
    """What a module returns at the subject's last token of N prompts without prefix: (N, D)."""
    bare = [request.contexts[0] for request in requests]
    [state] = read_at(lm, [context.ids for context in bare], [context.last for context in bare], [(module, "output")])
    return state.float()


def find_changes(
    lm: LanguageModel,
    requests: Sequence[Request],
    module: str,
    before: Tensor,
    settings: ValueSettings,
    *,
    max_tokens_per_batch: int = DEFAULT_TOKENS_PER_BATCH,
) -> Tensor:
    """δ (N, D) for N edits: the mean over prefixes of the target's negative log-likelihood a token, plus the terms that
    :class:`ValueSettings` names, is made small. The weights are not changed.

    Args:
        module: to whose output δ is added.
        before: v (N, D), its outputs as :func:`current_values` gives them.
    """
    lengths = [max(len(row) for row, _ in _rows(request)) for request in requests]
    changes: dict[int, Tensor] = {}
    for batch in length_batches(lengths, max_tokens_per_batch, [len(request.contexts) + 1 for request in requests]):
        inputs = _Inputs.of(lm, [requests[i] for i in batch], module)
        changes |= zip(batch, _search(inputs, before[batch].norm(dim=1), settings), strict=True)
    return torch.stack([changes[i] for i in range(len(requests))])


def _search(inputs: _Inputs, sizes: Tensor, settings: ValueSettings) -> Tensor:
    """Gradient descent for N edits at once, with ‖v‖ (N,); those that are done leave the batch."""
    lm = inputs.replay.lm
    width = lm.model.config.get_text_config().hidden_size
    delta = torch.zeros(len(sizes), width, device=lm.device, requires_grad=True)
    adam = torch.optim.Adam([delta], lr=settings.learning_rate)
    unedited = torch.empty(0)
    going = torch.arange(len(sizes), device=lm.device)
    with torch.enable_grad(), frozen(lm.model):
        for step in range(settings.steps):
            loss, essence = inputs.predict(delta[going])
            if step == 0:
                unedited = essence.detach()  # δ is still zero
            left = loss.detach() > -math.log(settings.enough)
            if not left.any():
                break
            kl = (essence.exp() * (essence - unedited[going])).sum(1)
            decay = delta[going].norm(dim=1) / sizes[going] ** 2
            total = (loss + settings.kl_weight * kl + settings.weight_decay * decay)[left].sum()
            [delta.grad] = torch.autograd.grad(total, [delta])
            if not left.all():
                going, inputs = going[left], inputs.narrowed(left)
            before = delta.detach().clone()
            adam.step()
            with torch.no_grad():
                shrink = (settings.clamp * sizes / delta.norm(dim=1)).clamp(max=1)
                # Adam's momentum moves also those that are done: they stay where they were.
                before[going] = (delta * shrink[:, None])[going]
                delta.copy_(before)
    return delta.detach()


def _rows(request: Request) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """What is read of an edit and what shall follow each token at its end: the targets' last tokens are only predicted.

    After "{subject} is a" the whole distribution is wanted; the token stands for one place.
    """
    pairs = zip(request.contexts, request.targets, strict=True)
    return [((*context.ids, *target[:-1]), target) for context, target in pairs] + [(request.essence.ids, (0,))]


@dataclass(frozen=True, eq=False)
class _Inputs:
    """R rows of token ids of several edits; each edit has P contexts and its essence, in order.

    Nothing before the subject's last token can change: it is the first of the S columns that are computed.
    """

    module: str
    replay: Replay
    scored: Tensor  # (R, S): whether what follows a token counts
    wanted: Tensor  # (R, S): the token that shall follow
    size: int  # rows an edit: P + 1

    @classmethod
    def of(cls, lm: LanguageModel, requests: Sequence[Request], module: str) -> _Inputs:
        """The rows of all requests, for a search for what is added to a module's output."""
        rows = [row for request in requests for row in _rows(request)]
        places = [located.last for request in requests for located in (*request.contexts, request.essence)]
        replay = Replay.of(lm, [ids for ids, _ in rows], places, first_layer(lm.model, module))
        scored = torch.zeros_like(replay.tokens, dtype=torch.bool)
        wanted = torch.zeros_like(replay.tokens)
        for number, ((ids, target), place) in enumerate(zip(rows, places, strict=True)):
            end = len(ids) - place
            scored[number, end - len(target) : end] = True
            wanted[number, end - len(target) : end] = torch.tensor(target, device=lm.device)
        return cls(module, replay, scored, wanted, len(requests[0].contexts) + 1)

    def narrowed(self, left: Tensor) -> _Inputs:
        """Only the edits that are left (E,)."""
        rows = left.repeat_interleave(self.size).nonzero()[:, 0]
        return replace(self, replay=self.replay.narrowed(rows), scored=self.scored[rows], wanted=self.wanted[rows])

    def predict(self, delta: Tensor) -> tuple[Tensor, Tensor]:
        """For E edits, with δ (E, D) in place: the targets' mean negative log-likelihood a token (E,), and the
        log-probabilities (E, V) after the essence."""
        rows, width = self.scored.shape
        index = torch.arange(rows, device=delta.device) * width
        added = delta.repeat_interleave(self.size, 0)
        with hooked(self.replay.lm.model, self.module, lambda state: put(state, index, added, add=True)):
            logprobs = self.replay.logits(self.scored).float().log_softmax(-1)
        row = self.scored.nonzero()[:, 0]  # the row of each scored place
        essence = row % self.size == self.size - 1
        nll = -logprobs.gather(1, self.wanted[self.scored][:, None])[:, 0] / self.scored.sum(1)[row]
        nll = nll.new_zeros(len(delta)).index_add(0, (row // self.size)[~essence], nll[~essence])
        return nll / (self.size - 1), logprobs[essence]
