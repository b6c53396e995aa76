"""How much caching and batching gain MemLLM: its perplexity and its writing, against the plain way to compute both.

The plain way is the one of the code that the MemLLM authors published. Perplexity: document after document, segment
after segment, each read from the beginning of the text in passes of one row that keep nothing. Writing: sentence after
sentence, one ``generate`` each. Both ways give the same answers, which is checked.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor
from transformers import LogitsProcessorList

from benchmarks.memory.timing import Report
from benchmarks.scoring import compare
from palimpsest.data.prepared import PreparedData
from palimpsest.evaluation.lookup_perplexity import Pages
from palimpsest.facts import Document, Query
from palimpsest.lm.base import open_base_lm
from palimpsest.lm.encoder import SentenceEncoder
from palimpsest.lm.scoring import windows
from palimpsest.memllm.calls import ReadCall, parse_read
from palimpsest.memllm.filling import store_gold
from palimpsest.memllm.lookup import Lookup
from palimpsest.memllm.perplexity import Ask, Reading, read_losses
from palimpsest.memllm.reading import MAX_CALL_TOKENS
from palimpsest.memllm.tokens import CallTokens
from palimpsest.memllm.training import Adapter, open_adapters
from palimpsest.memllm.writing import MAX_NEW_TOKENS, LateStopping, write_calls
from palimpsest.memory import Thresholds, TripleMemory
from palimpsest.pipeline import project

DOCUMENTS = 30
REPETITIONS = 3  # the plain way takes its time
TOLERANCE = 1e-3  # of the total loss: room for a question in which two tokens tie, not for another computation

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Case:
    """What is read and written, and by whom; ``reader`` and ``writer`` bring the language model of the adapter.

    ``window`` is in tokens of text, ``delay`` that of :class:`palimpsest.memllm.writing.LateStopping`.
    """

    reader: CallTokens
    writer: CallTokens
    pages: Pages
    ask: Ask
    window: int
    delay: int


def prepared_case(documents: int = DOCUMENTS) -> Case:
    """The first test documents, the trained adapters, and a memory of what the annotation of the test split states.

    Raises FileNotFoundError if the pipeline has not made the data or the models yet.
    """
    memllm = project.section("memllm")
    data_folder, base_lm = Path(project.section("data_folder")), project.section("base_lm")
    for folder in (data_folder, Path(base_lm), *(Path(memllm["folder"], name) for name in ("read", "write"))):
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} is absent: `make repro` makes it")

    def speaker(adapter: Adapter) -> CallTokens:
        lm = open_base_lm(base_lm, **project.section("hardware"))
        return CallTokens(open_adapters(lm, Path(memllm["folder"]), [adapter]), memllm["spaced"])

    prepared = PreparedData(data_folder)
    test, labels = prepared.documents("test"), prepared.relations
    memory = TripleMemory.open(":memory:", SentenceEncoder.load(project.section("memory")["encoder"]))
    store_gold(memory, test, labels)
    reader, inference = speaker("read"), project.section("memllm_inference")
    return Case(
        reader,
        speaker("write"),
        Pages.prepare(test[:documents], labels, project.section("targets"), reader),
        Lookup(memory, Thresholds(**inference["thresholds"])).names,
        inference["window"],
        inference["stopping_delay"],
    )


def batched_loss(case: Case) -> float:
    """Total loss (nats) of the pages by our own means."""
    lm, pages = case.reader.lm, case.pages
    ((losses, _),) = read_losses(lm, case.reader, pages.texts, pages.calls, [Reading(case.ask)], window=case.window)
    return sum(float(text.losses.sum()) for text in losses)


def batched_writes(case: Case) -> list[str]:
    """The write call of each sentence by our own means."""
    written = write_calls(case.writer.lm, case.writer, case.pages.documents, window=case.window, delay=case.delay)
    return [write.call for write in written]


def plain_loss(case: Case) -> float:
    """Total loss (nats) of the pages, segment by segment."""
    total = 0.0
    for text, calls in zip(case.pages.texts, case.pages.calls, strict=True):
        for first, start, end in windows(len(text.ids), case.window, case.window // 2):
            places = [call.place - first for call in calls if start <= call.place < end]
            logprobs = _window_logprobs(case.reader, case.ask, text.ids[first:end], places)
            total -= logprobs[start - first :].sum().item()
    return total


def _window_logprobs(tokens: CallTokens, ask: Ask, ids: Sequence[int], places: Sequence[int]) -> Tensor:
    """Log-probabilities (T,) of the tokens of one window, in which a call may stand before each of ``places``."""
    segments = [_segment_logprobs(tokens, [], ids[: [*places, len(ids)][0]])]
    for place, end in pairwise([*places, len(ids)]):
        before, text = ids[:place], ids[place:end]
        calling = segments[-1][-1].exp()
        logprobs = _segment_logprobs(tokens, before, text, silent=True)
        call = _answered_call(tokens, ask, before)
        if call and 1 + end + len(call) <= tokens.lm.context_length:
            looked_up = _segment_logprobs(tokens, [*before, *call], text)
            logprobs = (calling * looked_up.exp() + (1 - calling) * logprobs.exp()).log()
        segments.append(logprobs)
    return torch.cat([segment[:-1] for segment in segments])


@torch.no_grad()
def _segment_logprobs(
    tokens: CallTokens, context: Sequence[int], segment: Sequence[int], *, silent: bool = False
) -> Tensor:
    """Log-probabilities (T + 1,) of a segment of T tokens after its context, and of a call that begins at its end.

    ``silent`` says that no call begins before the segment.
    """
    ids = torch.tensor([[tokens.start, *context, *segment]], device=tokens.lm.device)
    logits = tokens.lm.model(input_ids=ids, use_cache=False).logits[0, len(context) :].float()
    if silent:
        logits[0, tokens.open] = -torch.inf
    wanted = torch.tensor([*segment, tokens.open], device=tokens.lm.device)
    logprobs: Tensor = logits.log_softmax(-1).gather(1, wanted[:, None])[:, 0].double()
    return logprobs


def _answered_call(tokens: CallTokens, ask: Ask, before: Sequence[int]) -> list[int]:
    """The tokens of the call that the model makes after some text, with its results; nothing if it comes to nothing."""
    ends = [tokens.results, tokens.open, tokens.close, tokens.end]
    written = _generate(tokens, [tokens.start, *before, *tokens.read_prefix], ends, MAX_CALL_TOKENS)
    call = parse_read(tokens.decode([*tokens.read_prefix, *written]))
    queries: Sequence[Query] = call.queries if isinstance(call, ReadCall) and written[-1] == tokens.results else ()
    (names,) = ask([queries]) if queries else [[]]
    return [*tokens.queries(queries), *tokens.answer(names)] if names else []


def plain_writes(case: Case) -> list[str]:
    """The write call of each sentence, one ``generate`` after another."""
    return [
        _write_call(case.writer, prompt, case.delay)
        for document in case.pages.documents
        for prompt in _write_prompts(case.writer, document, case.window)
    ]


def _write_prompts(tokens: CallTokens, document: Document, window: int) -> list[list[int]]:
    """For each sentence that is not empty, the window's text before it, and the sentence marked."""
    text = tokens.text(document.text)
    prompts = []
    for span in document.sentence_spans():
        head, tail = map(text.first, span)
        for first, start, end in windows(len(text.ids), window, window // 2):
            if start <= head < end and head < tail:
                focus = [*tokens.focus_start, *text.ids[head:tail], *tokens.focus_end]
                prompts.append([tokens.start, *text.ids[first:head], *focus, *tokens.write_prefix])
    return prompts


def _write_call(tokens: CallTokens, prompt: list[int], delay: int) -> str:
    stopper = LateStopping(tokens.close, delay, 1)
    written = _generate(tokens, prompt, [tokens.close, tokens.open, tokens.end], MAX_NEW_TOKENS, stopper)
    best = int(stopper.best)
    return tokens.decode([*tokens.write_prefix, *([*written[:best], tokens.close] if best >= 0 else written)])


def _generate(
    tokens: CallTokens, prompt: list[int], ends: list[int], most: int, *processors: LateStopping
) -> list[int]:
    """What transformers' own ``generate`` writes after a prompt, greedily and with its usual cache."""
    ids = torch.tensor([prompt], device=tokens.lm.device)
    output = tokens.lm.model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=min(most, tokens.lm.context_length - len(prompt)),
        do_sample=False,
        eos_token_id=ends,
        pad_token_id=tokens.lm.pad_id,
        logits_processor=LogitsProcessorList(processors),
    )
    written: list[int] = output[0, len(prompt) :].tolist()
    return written


def run(case: Case | None = None, repetitions: int = REPETITIONS) -> dict[str, float]:
    """Measure; ``.low`` and ``.high`` are the smallest and largest ratio of the repetitions, the name their median.

    The names that are asked have been embedded in the warm-up, so that embedding costs neither way.

    - ``bench.memllm.ppl_speedup``: perplexity with everything left to the model, against segment by segment, each
      planned call with both its futures in passes of one row without a cache, its question by ``generate``.
    - ``bench.memllm.write_speedup``: late-stopped write calls, against one ``generate`` a sentence.
    - ``bench.memllm.same_writes``: share of the sentences for which both ways write the same call, letter by letter; a
      tie between two tokens may go either way.

    Raises RuntimeError if the total losses of both ways differ by more than a thousandth.
    """
    case = case or prepared_case()
    report = Report()
    ratios, plain, ours = _compare(plain_loss, batched_loss, case, repetitions)
    if not math.isclose(plain, ours, rel_tol=TOLERANCE):
        raise RuntimeError(f"a loss of {ours:.6g} nats, but {plain:.6g} segment by segment: these are not the same")
    report.spread("bench.memllm.ppl_speedup", ratios)
    ratios, calls, our_calls = _compare(plain_writes, batched_writes, case, repetitions)
    report.spread("bench.memllm.write_speedup", ratios)
    same = [one == other for one, other in zip(calls, our_calls, strict=True)]
    report.figures["bench.memllm.same_writes"] = sum(same) / len(same)
    return report.figures


def _compare(
    slow: Callable[[Case], Answer], fast: Callable[[Case], Answer], case: Case, repetitions: int
) -> tuple[list[float], Answer, Answer]:
    """Time ratios slow / fast, and the answers of both."""
    answers: dict[str, Answer] = {}
    ratios = compare(lambda: answers.update(slow=slow(case)), lambda: answers.update(fast=fast(case)), repetitions)
    return ratios, answers["slow"], answers["fast"]
