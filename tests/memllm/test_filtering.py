"""Filtering by a judge: by hand, against literal computations on generated and real documents, and by a trained LM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path
from random import Random
from zlib import crc32

import pytest
import torch
from torch.nn.functional import cross_entropy

from palimpsest.data.docred import read_documents, read_relations
from palimpsest.data.world.corpus import Fame, sample_documents
from palimpsest.data.world.relations import LABELS, Kind
from palimpsest.data.world.universe import Sizes, Universe
from palimpsest.facts import Document, Entity, Fact, Mention, Triple
from palimpsest.lm.batching import padded
from palimpsest.lm.load import LanguageModel
from palimpsest.lm.tokenizer import train_tokenizer
from palimpsest.lm.train import Architecture
from palimpsest.memllm.filtering import (
    EXAMPLES,
    INSTRUCTION,
    Claim,
    LanguageModelJudge,
    filter_document,
    filter_documents,
)
from palimpsest.memllm.targets import sentence_triples

PAGE = Document(
    "Dawn",
    (
        ("Dawn", "was", "written", "by", "Ann", "Lee", "."),
        ("Lee", "was", "born", "in", "Oslo", "."),
        ("Oslo", "is", "large", "."),
        ("Dawn", "sold", "well", "in", "Oslo", "."),
    ),
    (
        Entity((Mention("Dawn", 0, 0, 1), Mention("Dawn", 3, 0, 1)), "MISC"),
        Entity((Mention("Ann Lee", 0, 4, 6), Mention("Lee", 1, 0, 1)), "PER"),
        Entity((Mention("Oslo", 1, 4, 5), Mention("Oslo", 2, 0, 1), Mention("Oslo", 3, 4, 5)), "LOC"),
    ),
    (Fact(0, "P50", 1), Fact(1, "P19", 2), Fact(0, "P840", 2)),
)
NAMES = {"P50": "author", "P19": "place of birth", "P840": "narrative location"}
STATED = {"author": "written", "place of birth": "born", "narrative location": "set"}


def by_rule(claims: Sequence[Claim]) -> list[bool]:
    return [STATED[claim.triple.relation] in claim.sentence for claim in claims]


def yes(claims: Sequence[Claim]) -> list[bool]:
    return [True] * len(claims)


def by_chance(claims: Sequence[Claim]) -> list[float]:
    return [crc32(repr(claim).encode()) / 2**32 for claim in claims]


def test_by_hand() -> None:
    asked: list[Claim] = []

    def judge(claims: Sequence[Claim]) -> list[bool]:
        asked.extend(claims)
        return by_rule(claims)

    filtered = filter_documents([PAGE], NAMES, judge)
    assert filtered.documents == [replace(PAGE, facts=(Fact(0, "P50", 1, (0,)), Fact(1, "P19", 2, (1,))))]
    assert (filtered.facts, filtered.kept) == (3, 2)
    first, birth = "Dawn was written by Ann Lee.", Triple("Ann Lee", "place of birth", "Oslo")
    assert asked[:2] == [
        Claim("", first, Triple("Dawn", "author", "Ann Lee")),
        Claim(first, "Lee was born in Oslo.", Triple("Dawn", "author", "Ann Lee")),
    ]
    assert [claim.sentence for claim in asked if claim.triple == birth] == [
        "Lee was born in Oslo.",
        "Oslo is large.",
        "Dawn sold well in Oslo.",
    ]


def test_only_given_evidence_is_judged() -> None:
    page = replace(PAGE, facts=(Fact(0, "P50", 1, (3,)), Fact(1, "P19", 2, (0, 2))))
    assert filter_document(page, NAMES, yes).facts == (Fact(0, "P50", 1, (3,)), Fact(1, "P19", 2, (2,)))


def test_a_document_without_facts() -> None:
    assert filter_document(replace(PAGE, facts=()), NAMES, yes).facts == ()


def test_a_judge_that_leaves_claims_open_is_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        filter_document(PAGE, NAMES, lambda claims: yes(claims)[1:])


def test_the_generated_world_is_told_as_it_was_annotated() -> None:
    """Without their evidence, the facts of generated documents are found again by a judge who knows what is stated."""
    sizes = {"countries": 8, "cities": 24, "companies": 60, "universities": 8, "people": 120, "books": 60}
    knee = {Kind.PERSON: 20, Kind.BOOK: 10, Kind.COMPANY: 10}
    realm = Universe(3, {"train": Sizes(**sizes)}).realms["train"]
    for document in sample_documents(realm, Fame(dict.fromkeys(knee, 12), knee, 4), 100, 3):
        starts = [start for start, _ in document.sentence_spans()]
        stated = {
            (document.text[: starts[sentence]].rstrip(), triple)
            for sentence, triples in enumerate(sentence_triples(document, LABELS))
            for triple in triples
        }
        bare = replace(document, facts=tuple(replace(fact, evidence=()) for fact in document.facts))
        found = filter_document(bare, LABELS, lambda claims: [(c.context, c.triple) in stated for c in claims])  # noqa: B023
        assert found == document


def test_real_documents_against_a_literal_computation(samples: Path) -> None:
    labels = read_relations(samples / "wikidata_properties_en.json")
    documents = read_documents(samples / "redocred_dev_revised.json", labels)[:60]
    bare = [replace(d, facts=tuple(replace(fact, evidence=()) for fact in d.facts)) for d in documents]
    filtered = filter_documents(bare, labels, yes)
    assert filtered.facts == sum(len(document.facts) for document in documents)
    assert filtered.kept == sum(len(document.facts) for document in filtered.documents)
    for document, found in zip(bare, filtered.documents, strict=True):
        where = [{mention.sentence for mention in entity.mentions} for entity in document.entities]
        expected = [
            tuple(
                s
                for s in sorted(where[fact.head] | where[fact.tail])
                if min(where[fact.head]) <= s >= min(where[fact.tail])
            )
            for fact in document.facts
        ]
        assert [fact.evidence for fact in found.facts] == expected


def test_a_higher_threshold_supports_less() -> None:
    supported = [
        {
            (fact.relation, s)
            for fact in filter_document(PAGE, NAMES, by_chance, threshold=t).facts
            for s in fact.evidence
        }
        for t in (0, 0.25, 0.5, 0.75, 1.1)
    ]
    assert all(above <= below for below, above in pairwise(supported))
    assert (len(supported[0]), len(supported[-1])) == (9, 0)
    assert len(filter_document(PAGE, NAMES, lambda claims: [0.5] * len(claims), threshold=0.5).facts) == 3


PEOPLE = ("Ann", "Bob", "Cleo", "Dan", "Eve", "Finn")
BOOKS = ("Dawn", "Dusk", "Rain", "Salt", "Ash")


def claim(verb: str, person: str, book: str, context: str = "") -> Claim:
    return Claim(context, f"{person} {verb} {book}.", Triple(book, "author", person))


CLAIMS = [
    claim(verb, person, book, context)
    for verb, person, book, context in product(("wrote", "sold"), PEOPLE, BOOKS, ("", "Rain wrote Ash. It was late."))
]


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    """A tiny model with random weights, which its tests may train."""
    tokenizer = train_tokenizer([INSTRUCTION, *(claim.question + " Yes No" for claim in CLAIMS)], 500, 1024)
    shape = Architecture(layers=2, width=32, feedforward=64, heads=2, context_length=1024)
    return LanguageModel(shape.build(tokenizer, 0), tokenizer)


def test_the_prompt_holds_instruction_examples_and_claim(lm: LanguageModel) -> None:
    asked = claim("wrote", "Ann", "Dawn", "It was late.")
    (prompt,) = LanguageModelJudge(lm).prompts([asked])
    *shown, last = prompt.removeprefix(f"{INSTRUCTION}\n\n").split("\n\n")
    assert prompt.startswith(INSTRUCTION)
    assert last.splitlines() == [
        "Context: It was late.",
        "Main sentence: Ann wrote Dawn.",
        'Relation: "Dawn" | author | "Ann"',
        "Is the main sentence evidence for this relation?",
    ]
    for text, (example, holds) in zip(shown, EXAMPLES, strict=True):
        assert text == example.question + (" Yes" if holds else " No")
    assert {holds for _, holds in EXAMPLES} == {True, False}
    assert any(example.context and not holds for example, holds in EXAMPLES)


def test_a_long_context_loses_its_beginning(lm: LanguageModel) -> None:
    context = " ".join(f"Sentence {number} says nothing." for number in range(200))
    asked = [claim("wrote", "Ann", "Dawn", context), claim("sold", "Bob", "Dusk", "It was late.")]
    short = LanguageModel(lm.model, lm.tokenizer, context_limit=400)
    judge = LanguageModelJudge(short, EXAMPLES[:1])
    cut, whole = judge.prompts(asked)
    kept = cut.split("Context: ")[-1].split("\n")[0]
    assert context.endswith(f" {kept}")
    assert len(kept) > 100
    assert cut == LanguageModelJudge(lm, EXAMPLES[:1]).prompts([replace(asked[0], context=kept)])[0]
    assert "Context: It was late.\n" in whole
    assert 380 < len(short.encode([cut])[0]) < 400
    assert all(0 < probability < 1 for probability in judge(asked))
    with pytest.raises(ValueError, match=r"Dawn.*too long for a model of 100 tokens; give fewer examples"):
        LanguageModelJudge(LanguageModel(lm.model, lm.tokenizer, context_limit=100)).prompts(asked)


@torch.no_grad()
def test_probabilities_are_those_of_yes_against_no_in_any_batch(lm: LanguageModel) -> None:
    judge = LanguageModelJudge(lm, EXAMPLES[:2])
    expected = []
    for prompt in judge.prompts(CLAIMS[::7]):
        (ids,), ((yes_id,), (no_id,)) = lm.encode_prompts([prompt]), lm.encode([" Yes", " No"])
        logits = lm.model(torch.tensor([ids])).logits[0, -1]
        expected.append(torch.sigmoid(logits[yes_id] - logits[no_id]).item())
    assert judge(CLAIMS[::7]) == pytest.approx(expected, abs=1e-5)
    assert [judge([asked])[0] for asked in CLAIMS[::7]] == pytest.approx(expected, abs=1e-5)
    assert LanguageModelJudge(lm, EXAMPLES[:2], max_tokens_per_batch=1)(CLAIMS[::7]) == pytest.approx(
        expected, abs=1e-5
    )
    assert judge([]) == []


def test_a_model_that_has_learnt_a_rule_judges_by_it(lm: LanguageModel) -> None:
    """Trained on some people and books, it supports those sentences about others that say "wrote"."""
    judge = LanguageModelJudge(lm, ())
    learnt = [asked for asked in CLAIMS if asked.triple.object != "Finn"]
    answers = [" Yes" if "wrote" in asked.sentence else " No" for asked in learnt]
    rows = lm.encode([prompt + answer for prompt, answer in zip(judge.prompts(learnt), answers, strict=True)])
    optimizer, rng = torch.optim.AdamW(lm.model.parameters(), lr=5e-3), Random(0)
    for _ in range(150):
        batch = rng.sample(rows, 16)
        ids = padded(batch, lm.pad_id, lm.device)
        places = torch.tensor([len(row) - 2 for row in batch])
        logits = lm.model(ids[:, :-1]).logits[torch.arange(16), places]
        loss = cross_entropy(logits, torch.tensor([row[-1] for row in batch]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    unseen = [asked for asked in CLAIMS if asked.triple.object == "Finn"]
    for asked, probability in zip(unseen, judge(unseen), strict=True):
        assert probability > 0.9 if "wrote" in asked.sentence else probability < 0.1
