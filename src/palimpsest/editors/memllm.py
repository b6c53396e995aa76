"""MemLLM as an editor: an edit is read as a sentence and written into the memory of triples; a prompt looks it up
(Modarressi et al., arXiv 2404.11672).

The write adapter writes down what an edit's statement says, and each triple takes the place of what the memory had for
its subject and relation. At the end of a prompt, where the answer would begin, the read adapter asks the memory. If an
answer comes back the read adapter goes on with the call in sight; if not, the base model speaks, without adapter and
call, so that what was not edited stays as it was to the bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, cast

import torch

from palimpsest.editors.editor import ReadingEditor, statement
from palimpsest.editors.history import without
from palimpsest.facts import Document, Edit, Query, Triple
from palimpsest.larimar.pointers import EncodedPrompts
from palimpsest.lm.batching import DEFAULT_TOKENS_PER_BATCH, length_batches
from palimpsest.lm.generation import generate_greedy
from palimpsest.lm.load import LanguageModel
from palimpsest.lm.prompts import encode_targets
from palimpsest.lm.rows import Rows
from palimpsest.lm.scoring import TargetScore, score_ids, score_targets
from palimpsest.memllm.calls import OPEN, ReadCall
from palimpsest.memllm.lookup import Lookup
from palimpsest.memllm.reading import write_questions
from palimpsest.memllm.tokens import CallTokens
from palimpsest.memllm.writing import write_calls
from palimpsest.memory import EDITING, Thresholds, TripleMemory
from palimpsest.memory.memory import storable

CALL_TOKENS = 32  # what a question is expected to take up in a batch


@dataclass(frozen=True, kw_only=True)
class MemLlmSettings:
    """How edits are written and looked up.

    ``thresholds`` are those of queries. ``copied``: entities in calls are copied from the text, see
    :mod:`palimpsest.memllm.copying`. ``stopping_delay`` is of late stopping: one fact a statement needs none.
    """

    thresholds: Thresholds = EDITING
    copied: bool = True
    stopping_delay: int = 0


class Reading(NamedTuple):
    """A prompt, and what the reader goes on from: prompt and call as tokens; nothing if nothing came back."""

    prompt: str
    context: tuple[int, ...] = ()


class MemLlmEditor(ReadingEditor[Reading]):
    """Edits are triples in a memory; the weights stay as they are.

    What is written of a statement, and asked at a prompt, depends on nothing else: :meth:`prepare` makes use of it. A
    question that is malformed, whose answer is empty or has too many names, or that has no room beside what is to
    follow, is dropped.

    Args:
        lm: the base model.
        reader: the same with the read adapter, and the form of calls.
        writer: the same with the write adapter.
        memory: what it holds already is looked up too; what edits replace of it comes back when they are taken back.
    """

    forgets: ClassVar[bool] = True
    one_by_one: ClassVar[bool] = True

    def __init__(
        self,
        lm: LanguageModel,
        *,
        reader: CallTokens,
        writer: CallTokens,
        memory: TripleMemory,
        settings: MemLlmSettings,
    ) -> None:
        super().__init__(lm)
        self.reader, self.writer, self.memory, self.settings = reader, writer, memory, settings
        self._lookup, self._edited = Lookup(memory, settings.thresholds), EditedFacts(memory)
        self._filled = len(memory) > 0  # before any edit
        self._made: list[tuple[Edit, Layers]] = []
        self._drafts: dict[str, list[Triple]] = {}  # by statement
        self._questions: dict[str, tuple[Query, ...]] = {}  # by prompt

    def apply(self, edits: Sequence[Edit]) -> None:
        """Write the edits down. One in whose statement the writer finds no triple is made, but stores nothing.

        Raises ValueError for an edit without a target, or a statement longer than the model's context; none is then
        made.
        """
        if empty := [edit.case_id for edit in edits if not edit.target_new]:
            raise ValueError(f"case {empty[0]}: the target is empty")
        self._made += zip(edits, self._edited.make(self.written(edits)), strict=True)

    def forget(self, edits: Sequence[Edit]) -> None:
        kept = set(without([edit for edit, _ in self._made], edits))
        for position, (_, layers) in reversed(list(enumerate(self._made))):
            if position not in kept:
                self._edited.take_back(layers)
        self._made = [made for position, made in enumerate(self._made) if position in kept]
        self.memory.erase()

    def reset(self) -> None:
        while self._made:
            self._edited.take_back(self._made.pop()[1])

    def prepare(self, edits: Sequence[Edit], prompts: Sequence[str]) -> None:
        """Write what the statements say, and the questions, in batches; they are remembered until the next call."""
        statements, asked = list(dict.fromkeys(map(statement, edits))), list(dict.fromkeys(prompts))
        self._drafts = dict(zip(statements, self._written(statements), strict=True))
        self._questions = dict(zip(asked, self._asked(asked), strict=True))

    def written(self, edits: Sequence[Edit]) -> list[list[Triple]]:
        """What the writer finds to store in each edit's statement; nothing is stored yet."""
        statements = list(map(statement, edits))
        new = [text for text in dict.fromkeys(statements) if text not in self._drafts]
        found = self._drafts | dict(zip(new, self._written(new), strict=True))
        return [found[text] for text in statements]

    def questions(self, prompts: Sequence[str]) -> list[tuple[Query, ...]]:
        """What the reader asks where the answers to some prompts would begin; nothing if it is malformed."""
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._questions]
        found = self._questions | dict(zip(new, self._asked(new), strict=True))
        return [found[prompt] for prompt in prompts]

    def read(self, prompts: Sequence[str]) -> list[Reading]:
        unique = list(dict.fromkeys(prompts)) if self._made or self._filled else []
        questions, found = self.questions(unique), {}
        for prompt, queries, names in zip(unique, questions, self._lookup.names(questions), strict=True):
            if names:
                call = self.reader.queries(queries) + self.reader.answer(names)
                found[prompt] = (*self._opened(prompt), *call)
        return [Reading(prompt, found.get(prompt, ())) for prompt in prompts]

    def score_read(self, readings: Sequence[Reading], targets: Sequence[str]) -> list[TargetScore]:
        prompts, lm = [reading.prompt for reading in readings], self.reader.lm
        wanted = encode_targets(lm, prompts, targets)
        alone, answered = self._shares(readings, list(map(len, wanted)))
        scores = dict(
            zip(
                alone,
                score_targets(self.lm, [prompts[row] for row in alone], [targets[row] for row in alone]),
                strict=True,
            )
        )
        contexts = [readings[row].context for row in answered]
        scores |= zip(answered, score_ids(lm, contexts, [wanted[row] for row in answered]), strict=True)
        return [scores[row] for row in range(len(readings))]

    def generate_read(self, readings: Sequence[Reading], *, max_new_tokens: int, stop: Sequence[str] = ()) -> list[str]:
        """As the interface has it; what the reader says also ends where it would ask again."""
        alone, answered = self._shares(readings, [max_new_tokens] * len(readings))
        prompts = [readings[row].prompt for row in alone]
        texts = dict(
            zip(alone, generate_greedy(self.lm, prompts, max_new_tokens=max_new_tokens, stop=stop), strict=True)
        )
        lm, contexts = self.reader.lm, cast("Any", [readings[row].context for row in answered])
        view = EncodedPrompts(lm.model, lm.tokenizer, add_bos=False, context_limit=lm.context_length)
        found = generate_greedy(view, contexts, max_new_tokens=max_new_tokens, stop=[*stop, OPEN])
        texts |= zip(answered, found, strict=True)
        return [texts[row] for row in range(len(readings))]

    def _shares(self, readings: Sequence[Reading], new: Sequence[int]) -> tuple[list[int], list[int]]:
        """Which readings the base model goes on from, and which the reader; ``new`` counts the tokens to follow."""
        room = self.reader.lm.context_length + 1  # the last token is never read
        shares: tuple[list[int], list[int]] = [], []
        for row, (reading, count) in enumerate(zip(readings, new, strict=True)):
            shares[bool(reading.context) and len(reading.context) + count <= room].append(row)
        return shares

    def _written(self, statements: Sequence[str]) -> list[list[Triple]]:
        writes = write_calls(
            self.writer.lm,
            self.writer,
            [Document(text, ((text,),)) for text in statements],
            window=self.writer.lm.context_length,
            delay=self.settings.stopping_delay,
            copied=self.settings.copied,
        )
        return [[t for t in write.triples if storable(t.subject, t.relation, t.object)] for write in writes]

    def _asked(self, prompts: Sequence[str]) -> list[tuple[Query, ...]]:
        lm, prefix = self.reader.lm, self.reader.read_prefix
        opened = [self._opened(prompt) for prompt in prompts]
        asked: list[tuple[Query, ...]] = [()] * len(prompts)
        fits = [row for row, ids in enumerate(opened) if len(ids) + len(prefix) <= lm.context_length]
        sizes = [len(opened[row]) + len(prefix) + CALL_TOKENS for row in fits]
        for batch in length_batches(sizes, DEFAULT_TOKENS_PER_BATCH):
            members = [fits[item] for item in batch]
            rows, feed = Rows(lm, len(members)), [opened[row] + prefix for row in members]
            ends = torch.tensor([len(ids) for ids in feed], device=lm.device).cumsum(0) - 1
            texts = [opened[row][1:] for row in members] if self.settings.copied else None
            calls = write_questions(self.reader, rows, rows.read(feed)[ends].float(), keep=False, texts=texts)
            for row, (_, call) in zip(members, calls, strict=True):
                asked[row] = call.queries if isinstance(call, ReadCall) else ()
        return asked

    def _opened(self, prompt: str) -> list[int]:
        """A prompt's tokens as the adapters know text: in which nothing is a marker, after the token that opens it."""
        return [self.reader.start, *self.reader.text(prompt).ids]


Place = tuple[str, str]
Layers = dict[Place, list[Triple]]
"""What one edit has stored, by subject and relation."""


class EditedFacts:
    """What edits have stored in a memory, and what stood there before: facts of functional relations.

    The triples of one edit with one subject and relation make up a layer, under which lie those of earlier edits and,
    lowest, what the memory held. The uppermost layer is current, those below are history. What is current again after
    an edit was taken back stays in the history too, which then tells when it was replaced, and no longer by what.
    """

    def __init__(self, memory: TripleMemory) -> None:
        self.memory = memory
        self._places: dict[Place, list[list[Triple]]] = {}

    def make(self, edits: Sequence[Sequence[Triple]]) -> list[Layers]:
        """Let each edit's triples take the place of others with their subjects and relations, edit by edit."""
        made = [_layers(triples) for triples in edits]
        fresh, covering = list[Triple](), list[list[Triple]]()
        for place, layer in (item for layers in made for item in layers.items()):
            if place not in self._places:
                held = self.memory.select(subject=place[0], relation=place[1])
                self._places[place] = [[stored.triple for stored in held]]
            below = self._places[place]
            if below == [[]]:
                fresh += layer
            else:
                covering.append(layer)
            below.append(layer)
        self.memory.add(fresh)
        for layer in covering:
            self._show(layer)
        return made

    def take_back(self, layers: Layers) -> None:
        """Remove one edit's triples for good, and let what lay below appear; a file is left to be rewritten."""
        for place, layer in layers.items():
            left = [other for other in self._places[place] if other is not layer]
            if layer is self._places[place][-1]:
                self._show(left[-1])
            shared = {triple for other in left for triple in other}
            self.memory.delete([triple for triple in layer if triple not in shared], erase=False)
            self._places[place] = left
            if len(left) == 1:
                del self._places[place]

    def _show(self, layer: Sequence[Triple]) -> None:
        """Make a layer's triples the current ones of their subject and relation."""
        if layer:
            self.memory.update(layer[0])
            self.memory.add(layer[1:])


def _layers(triples: Sequence[Triple]) -> Layers:
    """Triples by subject and relation, each once."""
    layers: Layers = {}
    for triple in dict.fromkeys(triples):
        layers.setdefault((triple.subject, triple.relation), []).append(triple)
    return layers
