"""Calls whose entities are copied from the text: whatever a model would like to write."""

from __future__ import annotations

from random import Random

import pytest
import torch
from support import PAGES, memory, page, plan, remembered, trained, triples, untrained

from palimpsest.lm.rows import Rows
from palimpsest.memllm.calls import parse_write
from palimpsest.memllm.copying import CopiedNames
from palimpsest.memllm.lookup import Lookup
from palimpsest.memllm.perplexity import Reading, read_losses
from palimpsest.memllm.reading import read_on, write_questions
from palimpsest.memllm.tokens import CallTokens
from palimpsest.memllm.writing import write_calls
from palimpsest.memory import LANGUAGE_MODELLING

ENDS = {">", ";", ")", "({", "-->", "})", "<|endoftext|>"}
TEXT = " The Long Road was written by Ann Lee. Lee was born in Oslo; Oslo (a city) lies in Norway."


def words(text: str) -> list[str]:
    return "".join(character if character.isalnum() else f" {character} " for character in text).split()


def stands_in(name: str, text: str) -> bool:
    """Whether a name is a stretch of whole words of a text."""
    wanted, found = words(name), words(text)
    return any(found[start : start + len(wanted)] == wanted for start in range(len(found)))


def first(tokens: CallTokens, text: str) -> str:
    """The first token of a text, as text."""
    return tokens.decode(tokens.text(text).ids[:1])


def allowed(tokens: CallTokens, text: str, written: str) -> set[str]:
    """What a call may go on with, as text, after something that was written."""
    names = CopiedNames(tokens, [tokens.text(text).ids])
    encoded = tokens.text("\n" + written)  # a space before what begins a text would belong to the line feed
    for token in encoded.ids[encoded.first(1) :]:
        names.add([0], [token])
    logits = names.restrict([0], torch.zeros(1, len(tokens.tokenizer)))
    return {tokens.decode([token]) for token in (logits[0] == 0).nonzero()[:, 0].tolist()}


def test_a_name_begins_where_a_word_begins() -> None:
    tokens = untrained()
    begins = allowed(tokens, TEXT, "") - ENDS
    assert {first(tokens, f" {word}") for word in ("Ann", "The", "Road", "Oslo")} <= begins
    assert {piece for piece in begins if piece[0].isalnum()} == {"a"}  # after the bracket
    assert tokens.decode(tokens.text(" by Oslo").ids[-1:]) in begins
    assert first(tokens, " Quito") not in begins


@pytest.mark.parametrize("opening", ["", "(", "It is “"])
def test_a_name_needs_no_space_before_it_in_the_text(opening: str) -> None:
    tokens = untrained()
    text = f"{opening}Norway) is big"
    ids = tokens.name("Norway")
    for place in range(len(ids)):
        assert tokens.decode([ids[place]]) in allowed(tokens, text, tokens.decode(ids[:place]))
    assert allowed(tokens, text, " Norway") >= ENDS


def test_a_name_goes_on_as_the_text_does_and_ends_with_a_word() -> None:
    tokens = untrained()
    after = allowed(tokens, TEXT, " Ann")
    assert after == ENDS | {first(tokens, " Lee")}
    ids = tokens.text(" Zanzibar").ids
    assert len(ids) > 1
    assert allowed(tokens, " Zanzibar", tokens.decode(ids[:1])) == {tokens.decode([ids[1]])}


def test_relations_are_free_and_what_cannot_be_copied_ends() -> None:
    tokens = untrained()
    everything = len({tokens.decode([token]) for token in range(len(tokens.tokenizer))})
    assert len(allowed(tokens, TEXT, " Ann Lee>>")) == everything
    assert len(allowed(tokens, TEXT, " Ann Lee>> born in")) == everything
    assert len(allowed(tokens, TEXT, " Ann Lee>> born in>>")) < everything
    assert allowed(tokens, TEXT, " Zoe") == ENDS


@pytest.mark.parametrize("steps", [0, 20, 150])
def test_whatever_the_model_writes_names_stand_in_the_text(steps: int) -> None:
    tokens = trained(steps) if steps else untrained()
    pages = [page(1), page(3, 4), page(6)]
    for write in write_calls(tokens.lm, tokens, pages, window=120, copied=True, max_new_tokens=60):
        end = pages[write.document].sentence_spans()[write.sentence][1]
        for triple in write.triples:
            assert stands_in(triple.subject, pages[write.document].text[:end])
            assert stands_in(triple.object, pages[write.document].text[:end])


def test_calls_written_by_dice_are_made_of_the_text() -> None:
    tokens = untrained()
    text, (end,) = tokens.text(TEXT).ids, tokens.text(">").ids
    found = 0
    for seed in range(60):
        dice, names, ids = Random(seed), CopiedNames(tokens, [text]), list[int]()
        while len(ids) < 60 and tokens.close not in ids:
            free = names.restrict([0], torch.zeros(1, len(tokens.tokenizer)))[0] == 0
            wanted = [end] if ids[-1:] == [end] != ids[-2:-1] or dice.random() < 0.3 else []  # both halves of an end
            wanted += [tokens.close] if ids.count(end) == 4 and dice.random() < 0.3 else []
            common = [token for token in free.nonzero()[:, 0].tolist() if tokens.decode([token]) not in ENDS]
            ids.append(next((token for token in wanted if free[token]), None) or dice.choice(common or [tokens.close]))
            names.add([0], ids[-1:])
        parsed = parse_write(tokens.decode([*tokens.write_prefix, *ids]))
        for triple in parsed[0] if isinstance(parsed, tuple) else []:
            assert stands_in(triple.subject, TEXT)
            assert stands_in(triple.object, TEXT)
            found += 1
    assert found > 3


def test_calls_must_be_spaced() -> None:
    with pytest.raises(ValueError, match="spaced"):
        CopiedNames(CallTokens(untrained().lm, spaced=False), [[1, 2]])


def test_a_model_that_copies_well_writes_as_it_would() -> None:
    tokens = trained(150)
    free, copied = (write_calls(tokens.lm, tokens, PAGES, window=120, copied=copied) for copied in (False, True))
    assert [write.call for write in copied] == [write.call for write in free]


@pytest.mark.parametrize("steps", [20, 60])
def test_questions_are_about_what_was_mentioned(steps: int) -> None:
    tokens = trained(steps)
    texts = [tokens.text(document.text).ids[:20] for document in PAGES]
    rows = Rows(tokens.lm, len(texts))
    rows.read([[tokens.start, *ids] for ids in texts])
    logits = rows.read([tokens.read_prefix] * len(texts)).view(len(texts), len(tokens.read_prefix), -1)[:, -1]
    asked = write_questions(tokens, rows, logits, keep=False, texts=texts)
    for (_, call), ids in zip(asked, texts, strict=True):
        for query in getattr(call, "queries", ()):
            assert stands_in(query.entity, tokens.decode(ids))


def test_perplexity_and_generation_ask_under_the_constraint() -> None:
    tokens = trained(40)
    texts, calls = [tokens.text(document.text) for document in PAGES], [plan(tokens, document) for document in PAGES]
    asked = []
    for copied in (False, True):
        reading = Reading(lambda calls: [remembered(queries) for queries in calls])
        ((_, made),) = read_losses(tokens.lm, tokens, texts, calls, [reading], window=120, copied=copied)
        asked.append([query.entity for document in made for call in document for query in call.queries])
    assert asked[0] != asked[1]
    mentioned = " ".join(document.text for document in PAGES)
    assert all(stands_in(name, mentioned) for name in asked[1])
    prompts = [f"{document.entities[0].name} was written by" for document in PAGES]
    with memory(triples()) as stored:
        lookup = Lookup(stored, LANGUAGE_MODELLING)
        tokens = trained(150)
        traces = read_on(tokens.lm, tokens, lookup, prompts, max_new_tokens=20, copied=True)
    asked = [(trace, query) for trace in traces for call in trace.calls for query in call.queries]
    assert asked
    for trace, query in asked:
        assert stands_in(query.entity, trace.prompt + trace.text)
