"""Generation by a model that looks things up as it writes (MemLLM, section 3.3), and a trace of what it looked up.

A row of text goes on until the model opens a call; it asks, the memory answers, and the text goes on with the answer in
sight. A call that is malformed, repeats the one before, or comes back empty-handed is dropped, and no call may begin in
its place. Only the last call stays in the context: a question is asked without the call before it in sight, which is
taken out for good once there is an answer, and only the text since then is read again.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from palimpsest.facts import Query
from palimpsest.lm.load import LanguageModel
from palimpsest.lm.rows import Rows, continue_greedily
from palimpsest.memllm.calls import RESULTS, Malformed, ReadCall, parse_read
from palimpsest.memllm.copying import CopiedNames
from palimpsest.memllm.lookup import Found, Lookup
from palimpsest.memllm.tokens import CallTokens

MAX_CALL_TOKENS = 96  # a longer question is given up

Outcome = Literal["answered", "empty", "repeated", "malformed", "too long"]
"""``too long``: the context has no room for the answer and the text that is to follow."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call that the model made: what it wrote, what that asks, what came back."""

    text: str
    outcome: Outcome
    queries: tuple[Query, ...] = ()
    results: tuple[Found, ...] = ()
    reason: str = ""
    """Why a malformed call is malformed."""


@dataclass(slots=True)
class Span:
    """Text that was generated with one call, or none, in sight; ``dropped`` are calls that came to nothing in it."""

    text: str
    call: Call | None = None
    dropped: list[Call] = field(default_factory=list)


@dataclass(slots=True)
class Trace:
    """A prompt and what was generated after it, span by span."""

    prompt: str
    spans: list[Span]

    @property
    def text(self) -> str:
        """What was generated, without calls."""
        return "".join(span.text for span in self.spans)

    @property
    def calls(self) -> list[Call]:
        """All calls in order, dropped ones included."""
        return [call for span in self.spans for call in ([span.call] if span.call else []) + span.dropped]


@dataclass(slots=True)
class _Row:
    """A row while it is generated: its text so far as tokens, and what of it stands in the model's context."""

    ids: list[int]  # the text, prompt included, without calls
    spans: list[tuple[int, Call | None, list[Call]]]  # where spans begin in the text
    place: int | None = None  # where the call in sight stands
    asked: tuple[Query, ...] = ()  # what it asks
    suppressed: bool = False
    done: bool = False


def write_questions(
    tokens: CallTokens, rows: Rows, logits: Tensor, *, keep: bool, texts: Sequence[Sequence[int]] | None = None
) -> list[tuple[str, ReadCall | Malformed]]:
    """Let a model ask in rows that end with the beginning of a call, ``tokens.read_prefix``.

    Args:
        rows: they grow by what is written; ``logits`` (B, V) stand after each row's last token.
        keep: whether the rows are wanted afterwards.
        texts: for each row the tokens from which entities are copied, see :mod:`palimpsest.memllm.copying`; if not
            given, they are free.

    Returns:
        The text of each call, and what it asks.
    """
    stop = {tokens.results, tokens.open, tokens.close, tokens.end}
    names = None if texts is None else CopiedNames(tokens, texts)

    def choose(live: list[int], logits: Tensor) -> Tensor:
        if names is None:
            return logits.argmax(1)
        chosen = names.restrict(live, logits).argmax(1)
        names.add(live, chosen.tolist())
        return chosen

    written = continue_greedily(rows, logits, stop=stop, max_new_tokens=MAX_CALL_TOKENS, choose=choose, keep=keep)
    calls = []
    for ids in written:
        text = tokens.decode([*tokens.read_prefix, *ids])
        asked = ids[-1:] == [tokens.results]  # what is merely spelt like the marker does not count
        calls.append((text, parse_read(text) if asked else Malformed(text, f"expected a question before {RESULTS}")))
    return calls


def read_on(
    lm: LanguageModel,
    tokens: CallTokens,
    lookup: Lookup,
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    stop: str | None = None,
    copied: bool = False,
) -> list[Trace]:
    """Continue prompts greedily, looking things up, until the end of the text or a marker that belongs to no call.

    Args:
        lm: speaks with its read adapter.
        max_new_tokens: of text; calls do not count.
        stop: end a row after the token in which its generated text first contains this.
        copied: whether what is asked about must be copied from the text, see :mod:`palimpsest.memllm.copying`.

    Raises ValueError if ``max_new_tokens`` is not positive, the model in training mode, or a prompt so long that the
    model's context has no room for ``max_new_tokens`` more.
    """
    traces: list[Trace] = []
    steps = stream(lm, tokens, lookup, prompts, max_new_tokens=max_new_tokens, stop=stop, copied=copied)
    for traces in steps:  # noqa: B007
        pass
    return traces


def stream(
    lm: LanguageModel,
    tokens: CallTokens,
    lookup: Lookup,
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    stop: str | None = None,
    copied: bool = False,
) -> Iterator[list[Trace]]:
    """As :func:`read_on`, but yields the traces so far after every token and every call."""
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens must be at least 1, not {max_new_tokens}")
    if lm.model.training:
        raise ValueError("the model is in training mode, where dropout would change its choices: call model.eval()")
    generation = _Generation(lm, tokens, lookup, prompts, max_new_tokens, stop, copied)
    while generation.live:
        generation.advance()
        yield generation.traces()


class _Generation:
    def __init__(
        self,
        lm: LanguageModel,
        tokens: CallTokens,
        lookup: Lookup,
        prompts: Sequence[str],
        max_new_tokens: int,
        stop: str | None,
        copied: bool,
    ) -> None:
        self.lm, self.tokens, self.lookup = lm, tokens, lookup
        self.prompts, self.stop, self.copied = list(prompts), stop, copied
        self.states = [_Row(list(tokens.text(prompt).ids), []) for prompt in prompts]
        self.starts = [len(state.ids) for state in self.states]
        self.limits = [start + max_new_tokens for start in self.starts]
        for index, limit in enumerate(self.limits):
            if limit + 1 > lm.context_length:
                raise ValueError(
                    f"prompt {index} has {self.starts[index]} tokens, which leaves no room for {max_new_tokens} more "
                    f"in a context of {lm.context_length}"
                )
        self.live = list(range(len(prompts)))
        if self.live:
            self.rows = Rows(lm, len(prompts))
            self.logits = self._read(self.rows, [[tokens.start, *state.ids] for state in self.states])
            for state in self.states:
                state.spans.append((len(state.ids), None, []))

    def advance(self) -> None:
        """One token of text for every live row; rows that would open a call make it first."""
        silent = torch.tensor([self.states[row].suppressed or not self._can_call(row) for row in self.live])
        self.logits[silent, self.tokens.open] = -torch.inf
        chosen = self.logits.argmax(1).tolist()
        calling = [place for place, token in enumerate(chosen) if token == self.tokens.open]
        if calling:
            self._call(calling)
            return
        feed = []
        for row, token in zip(self.live, chosen, strict=True):
            state = self.states[row]
            state.suppressed = False
            state.done = token in (self.tokens.end, self.tokens.results, self.tokens.close)
            if not state.done:
                state.ids.append(token)
                state.done = len(state.ids) >= self.limits[row] or self._stops(row)
            feed.append(token)
        going = [place for place, row in enumerate(self.live) if not self.states[row].done]
        if len(going) < len(self.live):
            self.rows = self.rows.branch(going) if going else self.rows
        self.live = [self.live[place] for place in going]
        if self.live:
            self.logits = self._read(self.rows, [[feed[place]] for place in going])

    def _can_call(self, row: int) -> bool:
        """Whether the context has room for a call's beginning."""
        return 1 + len(self.states[row].ids) + len(self.tokens.read_prefix) <= self.lm.context_length

    def _call(self, places: Sequence[int]) -> None:
        """Let some rows of the batch ask; those that are answered go on with the answer in sight."""
        states = [self.states[self.live[place]] for place in places]
        # The former call leaves the context: text up to it is kept, text since is read again.
        kept = [len(state.ids) if state.place is None else state.place for state in states]
        rows = self.rows.branch(places, [1 + length for length in kept])
        prefix = self.tokens.read_prefix
        logits = self._read(rows, [state.ids[length:] + prefix for state, length in zip(states, kept, strict=True)])
        texts = [state.ids for state in states] if self.copied else None
        calls = self._answered(states, write_questions(self.tokens, rows, logits, keep=True, texts=texts))
        answers = {}
        for item, (row, state, call) in enumerate(zip((self.live[p] for p in places), states, calls, strict=True)):
            answer = self.tokens.answer([found.name for found in call.results])
            remaining = self.limits[row] - len(state.ids)
            if call.outcome == "answered" and rows.lengths[item] + len(answer) + remaining > self.lm.context_length:
                call = replace(call, outcome="too long")
            if call.outcome == "answered":
                answers[item] = answer
                state.place, state.asked = len(state.ids), call.queries
                state.spans.append((len(state.ids), call, []))
            else:
                state.spans[-1][2].append(call)
                state.suppressed = True
        if answers:
            chosen = list(answers)
            answered = rows.branch(chosen)
            logits = self._read(answered, [answers[item] for item in chosen])
            where = {places[item]: index for index, item in enumerate(chosen)}
            picks = [(answered, where[p]) if p in where else (self.rows, p) for p in range(len(self.live))]
            self.rows = Rows.join(picks)
            for place, index in where.items():
                self.logits[place] = logits[index]

    def _answered(self, states: Sequence[_Row], questions: Sequence[tuple[str, ReadCall | Malformed]]) -> list[Call]:
        """Execute calls, all queries at once."""
        wanted = [
            () if isinstance(call, Malformed) or call.queries == state.asked else call.queries
            for (_, call), state in zip(questions, states, strict=True)
        ]
        calls = []
        for (text, call), queries, results in zip(questions, wanted, self.lookup(wanted), strict=True):
            if isinstance(call, Malformed):
                calls.append(Call(text, "malformed", reason=call.reason))
            elif not queries:
                calls.append(Call(text, "repeated", call.queries))
            else:
                calls.append(Call(text, "answered" if results else "empty", queries, tuple(results)))
        return calls

    def traces(self) -> list[Trace]:
        """What there is so far."""
        return [self._trace(row) for row in range(len(self.prompts))]

    def _trace(self, row: int) -> Trace:
        state = self.states[row]
        texts = self._pieces(state.ids, [start for start, _, _ in state.spans] + [len(state.ids)])
        spans = [Span(text, call, list(dropped)) for text, (_, call, dropped) in zip(texts, state.spans, strict=True)]
        return Trace(self.prompts[row], spans)

    def _pieces(self, ids: Sequence[int], cuts: Sequence[int]) -> list[str]:
        """The text between cuts; a character whose bytes a cut divides goes to the later piece."""
        texts = [self.tokens.decode(ids[:cut]).rstrip("\ufffd") for cut in cuts]
        return [after[len(before) :] for before, after in itertools.pairwise(texts)]

    def _stops(self, row: int) -> bool:
        return self.stop is not None and self.stop in self.tokens.decode(self.states[row].ids[self.starts[row] :])

    def _read(self, rows: Rows, feed: Sequence[Sequence[int]]) -> Tensor:
        """Read on and return the logits after each row's last token."""
        logits = rows.read(feed)
        ends = torch.tensor([len(tokens) for tokens in feed]).cumsum(0) - 1
        return logits[ends.to(logits.device)].float()
