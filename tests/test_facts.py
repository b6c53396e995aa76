from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palimpsest.data.docred import read_documents
from palimpsest.facts import Document, Entity, Fact, Mention, Triple, detokenize

DOCUMENT = Document(
    title="Apollo",
    sentences=(("Apollo", "'s", "crew", "(", "three", "men", ")", "landed", "."), (), ("They", "left", ".")),
    entities=(
        Entity((Mention("They", 2, 0, 1), Mention("crew", 0, 2, 3)), "PER"),
        Entity((Mention("Apollo 's crew", 0, 0, 3), Mention("Apollo", 0, 0, 1)), "ORG"),
    ),
    facts=(Fact(0, "P463", 1, (0,)),),
)


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        (["Dogs", "bark", "."], "Dogs bark."),
        (["He", "said", '"', "yes", '"', "twice", "."], 'He said "yes" twice.'),
        (["(", "1990", ")", ",", "$", "5", ";", "50", "%"], "(1990), $5; 50%"),
        (["It", "is", "n't", "Ann", "'s", "."], "It isn't Ann's."),
        (["Ann", ">>", "born", "in", ">>", "Oslo", "."], "Ann>> born in>> Oslo."),
        ([], ""),
    ],
)
def test_detokenize_spaces_as_in_print(tokens: list[str], text: str) -> None:
    assert detokenize(tokens)[0] == text


@given(st.lists(st.text(max_size=5) | st.sampled_from(['"', ".", "(", "'s"])))
def test_detokenize_keeps_every_token_in_its_span(tokens: list[str]) -> None:
    text, spans = detokenize(tokens)
    assert [text[start:end] for start, end in spans] == tokens
    gaps = [text[end:start] for (_, end), (start, _) in pairwise(spans)]
    assert set(gaps) <= {"", " "}


def test_layout_of_a_document() -> None:
    assert DOCUMENT.text == "Apollo's crew (three men) landed. They left."
    assert DOCUMENT.sentence_spans() == [(0, 33), (33, 33), (34, 44)]
    assert [DOCUMENT.span(mention) for _, mention in DOCUMENT.mentions()] == [(0, 13), (0, 6), (9, 13), (34, 38)]


def test_mentions_come_in_text_order_the_longer_first() -> None:
    order = [(index, mention.name) for index, mention in DOCUMENT.mentions()]
    assert order == [(1, "Apollo 's crew"), (1, "Apollo"), (0, "crew"), (0, "They")]


def test_triples_use_canonical_names_and_labels() -> None:
    assert DOCUMENT.triples({"P463": "member of"}) == [Triple("They", "member of", "Apollo 's crew")]


def test_real_documents_lay_out_as_their_tokens(samples: Path) -> None:
    """Text, sentences and mentions of each document against its own tokens, joined sentence by sentence."""
    for document in read_documents(samples / "redocred_dev_revised.json"):
        sentences = [detokenize(tokens)[0] for tokens in document.sentences]
        assert document.text == " ".join(sentences)
        assert [document.text[start:end] for start, end in document.sentence_spans()] == sentences
        starts = []
        for index, mention in document.mentions():
            start, end = document.span(mention)
            tokens = document.sentences[mention.sentence][mention.start : mention.end]
            assert document.text[start:end].replace(" ", "") == "".join(tokens).replace(" ", "")
            if '"' not in tokens:  # whether a quote opens or closes depends on those before it
                assert document.text[start:end] == detokenize(tokens)[0]
            assert mention in document.entities[index].mentions
            starts.append(start)
        assert starts == sorted(starts)
        assert len(starts) == sum(len(entity.mentions) for entity in document.entities)
