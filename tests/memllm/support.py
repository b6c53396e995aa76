"""A page's worth of world, and a tiny language model that has learnt by heart to look it up and to write it down."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from functools import cache
from hashlib import sha256

import numpy as np
import torch
from tokenizers import pre_tokenizers
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM

from palimpsest.facts import Document, Entity, Fact, Mention, Query, Triple
from palimpsest.lm.batching import padded
from palimpsest.lm.load import LanguageModel
from palimpsest.lm.tokenizer import train_tokenizer
from palimpsest.memllm.examples import Example, PlannedCall, planned_calls, read_examples, write_examples
from palimpsest.memllm.targets import AnswerCounts, read_targets
from palimpsest.memllm.tokens import CallTokens, add_call_tokens
from palimpsest.memory import FunctionEmbedder, TripleMemory

CONTEXT = 160
STEPS = (20, 40, 60, 150)  # of training: after the last the pages are known well, after the first badly
LABELS = {"P50": "author", "P19": "place of birth", "P17": "country"}
RULES = {"skip": ["(?, country, X)"], "max_results": 30, "max_queries": 2}
BOOKS = ["Dawn", "Dusk", "Red Moon", "Tides", "Salt", "The Long Road", "Ember", "Glass"]
PEOPLE = ["Ann Lee", "Bo Tan", "Cleo Diaz", "Dev Rao", "Eva Lind", "Finn Moe", "Gia Ricci", "Hal Kerr"]
CITIES = ["Oslo", "Lima", "Porto", "Turin", "Kyoto", "Cork", "Accra", "Quito"]
LANDS = ["Norway", "Peru", "Portugal", "Italy", "Japan", "Ireland", "Ghana", "Ecuador"]


def page(*numbers: int, sentences: int = 3) -> Document:
    """Books in turn: for each as many sentences that state a fact, an empty one, and one that states nothing."""
    text: list[tuple[str, ...]] = []
    named: dict[str, str] = {}
    facts = []
    for number in numbers:
        book, person, city, land = (names[number % len(names)] for names in (BOOKS, PEOPLE, CITIES, LANDS))
        text += [
            (*book.split(), "was", "written", "by", *person.split(), "."),
            (*person.split(), "was", "born", "in", city, "."),
            (city, "lies", "in", land, "."),
        ][:sentences]
        text += [(), ("Rain", "is", "wet", ".")]
        named |= {book: "MISC", person: "PER", city: "LOC", land: "LOC"}
        facts += [(book, "P50", person), (person, "P19", city), (city, "P17", land)][:sentences]
    entities = {name: Entity(found, kind) for name, kind in named.items() if (found := tuple(_mentions(name, text)))}
    order = list(entities)
    stated = tuple(Fact(order.index(head), relation, order.index(tail)) for head, relation, tail in facts)
    return Document(f"Page {numbers}", tuple(text), tuple(entities.values()), stated)


def _mentions(name: str, text: Sequence[Sequence[str]]) -> list[Mention]:
    words = tuple(name.split())
    return [
        Mention(name, number, start, start + len(words))
        for number, sentence in enumerate(text)
        for start in range(len(sentence))
        if tuple(sentence[start : start + len(words)]) == words
    ]


PAGES = [page(number) for number in range(8)]
ANSWERS = AnswerCounts(PAGES, LABELS)


def plan(tokens: CallTokens, document: Document) -> list[PlannedCall]:
    """The calls that belong into a document."""
    return planned_calls(
        document, list(read_targets(document, LABELS, results=ANSWERS, **RULES)), tokens.text(document.text)
    )


def triples() -> list[Triple]:
    """All that the pages state."""
    return [triple for document in PAGES for triple in document.triples(LABELS)]


def remembered(queries: Sequence[Query]) -> list[str]:
    """What a memory of all pages returns to the queries of one call, by exact names."""
    found = {
        triple.object if query.known == "subject" else triple.subject: None
        for query in queries
        for triple in triples()
        if triple.relation == query.relation
        and query.entity == (triple.subject if query.known == "subject" else triple.object)
    }
    return list(found)


def trained(steps: int) -> CallTokens:
    """A Llama of 2 layers that has learnt to read and write the pages, for one of :data:`STEPS`."""
    return _course()[steps]


@cache
def _course() -> dict[int, CallTokens]:
    """The same model after each number of :data:`STEPS`, from one training run."""
    tokens, examples = untrained(), []
    for document in PAGES:
        targets = list(read_targets(document, LABELS, results=ANSWERS, **RULES))
        examples += read_examples(document, targets, tokens, remembered, max_tokens=CONTEXT)
        examples += write_examples(document, LABELS, tokens, max_tokens=CONTEXT)
    course = {}

    def keep(step: int) -> None:
        if step in STEPS:
            course[step] = CallTokens(replace(tokens.lm, model=deepcopy(tokens.lm.model)), spaced=True)

    fit(tokens.lm, examples, max(STEPS), after=keep)
    return course


def untrained() -> CallTokens:
    """The same Llama with random weights."""
    words = ["MEM_READ(", "MEM_WRITE", "USER_ST", "USER_END", *LABELS.values()]
    texts = [document.text for document in PAGES] * 2 + words
    tokenizer = train_tokenizer(texts, 420, CONTEXT)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer = tokenizer.train_new_from_iterator(texts, 420, show_progress=False)  # as GPT-2's
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
    return CallTokens(add_call_tokens(LanguageModel(model, tokenizer)), spaced=True)


def fit(
    lm: LanguageModel, examples: Sequence[Example], steps: int, after: Callable[[int], object] = lambda step: None
) -> None:
    """Train all weights on what is learnt of examples; ``after`` is called with the number of each step."""
    optimizer = torch.optim.AdamW(lm.model.parameters(), lr=4e-3)
    choice = torch.Generator().manual_seed(0)
    lm.model.train()
    for step in range(1, steps + 1):
        batch = [examples[item] for item in torch.randperm(len(examples), generator=choice)[:12].tolist()]
        ids = padded([example.ids for example in batch], lm.pad_id, lm.device)
        learnt = padded([list(map(int, example.learnt)) for example in batch], 0, lm.device).bool()
        logits = lm.model(input_ids=ids, use_cache=False).logits[:, :-1]
        loss = cross_entropy(logits[learnt[:, 1:]], ids[:, 1:][learnt[:, 1:]])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        after(step)
    lm.model.eval()


@contextmanager
def keen(tokens: CallTokens, marker: int, factor: float) -> Iterator[None]:
    """For a while a model writes a marker the more readily, the larger ``factor`` is, which scales its embedding."""
    weight = tokens.lm.model.get_input_embeddings().weight.data
    kept = weight[marker].clone()
    next_logits.cache_clear()
    weight[marker] *= factor
    try:
        yield
    finally:
        weight[marker] = kept
        next_logits.cache_clear()


@torch.no_grad()
def plain_logits(model: LlamaForCausalLM, ids: Sequence[int]) -> Tensor:
    """Logits (T, V) after each of T tokens: one row, no cache, no mask."""
    return model(input_ids=torch.tensor([list(ids)]), use_cache=False).logits[0].double()


@cache
def next_logits(model: LlamaForCausalLM, ids: tuple[int, ...]) -> Tensor:
    """Logits (V,) of what comes next, of a model whose weights change under :func:`keen` alone; not to be changed."""
    return plain_logits(model, ids)[-1].clone()


def plain_question(tokens: CallTokens, context: Sequence[int]) -> list[int]:
    """What the model writes after the beginning of a call, token by token."""
    ends = {tokens.open, tokens.results, tokens.close, tokens.end}
    written: list[int] = []
    while len(written) < 96 and len(context) + len(written) < tokens.lm.context_length and not ends & set(written):
        written.append(int(next_logits(tokens.lm.model, (*context, *written)).argmax()))
    return written


def embed(names: Sequence[str]) -> np.ndarray:
    """A random direction of its own for each name: none is near another."""
    seeds = (int.from_bytes(sha256(name.encode()).digest()[:8], "little") for name in names)
    vectors = np.array([np.random.default_rng(seed).standard_normal(64) for seed in seeds])
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@contextmanager
def memory(stored: Sequence[Triple]) -> Iterator[TripleMemory]:
    """A memory in RAM that knows names exactly."""
    with TripleMemory.open(":memory:", FunctionEmbedder(embed, "exact", 64)) as opened:
        opened.add(stored)
        yield opened
