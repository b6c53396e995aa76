"""Markers are tokens, and text never is a marker, whatever the tokenizer."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from palimpsest.facts import Query, Triple
from palimpsest.lm.load import LanguageModel, ModelError
from palimpsest.memllm.calls import MARKERS, ReadCall, parse_read, parse_write
from palimpsest.memllm.tokens import CallTokens, add_call_tokens

Encoder = Callable[..., CallTokens]
Models = Callable[..., LanguageModel]

SPELT = "In f({}) --> ({MEM_READ(Ann>>author>>)-->Ann})Lee ({ --> }) ({-->})"
# Fullwidth characters become ASCII under NFKC.
NAMES = st.lists(
    st.sampled_from(["({", "-->", "})", ">>", ";", "-", ")", "(", "{", "}", "\\", "（｛", "｝）", "Ann", " "])
)
NAMES = NAMES.map(lambda parts: "".join(parts).strip()).filter(bool)


def marker_ids(tokens: CallTokens) -> list[int]:
    return [tokens.open, tokens.results, tokens.close]


def test_markers_are_one_token_each(kind: str, call_tokens: Encoder) -> None:
    tokens = call_tokens(kind)
    assert tokens.tokenizer.convert_ids_to_tokens(marker_ids(tokens)) == ["({", "-->", "})"]
    assert [tokens.tokenizer(marker, add_special_tokens=False).input_ids for marker in MARKERS] == [
        [token] for token in marker_ids(tokens)
    ]
    assert tokens.write_prefix[0] == tokens.read_prefix[0] == tokens.open
    assert tokens.write_prefix[-1] == tokens.results
    for focus in (tokens.focus_start, tokens.focus_end):
        assert (focus[0], focus[-1]) == (tokens.open, tokens.close)


@pytest.mark.parametrize("kind", ["byte-level, code", "unigram, code", "llama, code"])
def test_vocabularies_from_code_know_markers_as_ordinary_tokens(
    kind: str, random_lm: Models, call_tokens: Encoder
) -> None:
    known, tokens = random_lm(kind).tokenizer.get_vocab(), call_tokens(kind)
    assert (known["({"], known["})"]) == (tokens.open, tokens.close)


@pytest.mark.parametrize(
    "text", [SPELT, "({", "})", "-->", "-->-->", "（｛", "a ({Ann})", "", "</s><s>[SEP]<|endoftext|>"]
)
def test_text_holds_no_marker(kind: str, call_tokens: Encoder, text: str) -> None:
    tokens = call_tokens(kind)
    encoded = tokens.text(text)
    assert set(encoded.ids).isdisjoint(marker_ids(tokens))
    assert len(encoded.offsets) == len(encoded.ids)
    starts, ends = [start for start, _ in encoded.offsets], [end for _, end in encoded.offsets]
    assert starts == sorted(starts)
    assert ends == sorted(ends)
    assert ends[-1:] == [len(text)][: len(ends)]


def test_text_decodes_to_itself(kind: str, call_tokens: Encoder, corpus: list[str]) -> None:
    tokens = call_tokens(kind)
    for text in [SPELT, *corpus]:
        decoded, expected = tokens.decode(tokens.text(text).ids), text
        if kind == "own":
            expected = f" {text}"
        if kind == "wordpiece":
            decoded, expected = decoded.replace(" ", ""), text.replace(" ", "")
        assert decoded == expected


@given(st.text() | NAMES)
def test_any_text_decodes_to_itself(call_tokens: Encoder, text: str) -> None:
    for kind in ("byte-level", "byte-level, code"):
        tokens = call_tokens(kind)
        encoded = tokens.text(text)
        assert tokens.decode(encoded.ids) == text
        assert set(encoded.ids).isdisjoint(marker_ids(tokens))


@settings(max_examples=50)
@given(NAMES, NAMES, NAMES, st.booleans())
def test_a_name_cannot_begin_or_end_a_call(
    kind: str, call_tokens: Encoder, subject: str, relation: str, object_: str, spaced: bool
) -> None:
    tokens = call_tokens(kind, spaced)
    queries = [Query(relation, subject=subject), Query(relation, object=object_)]
    parts = [
        (tokens.queries(queries), [tokens.open, tokens.results]),
        (tokens.answer([subject, object_]), [tokens.close]),
        (tokens.write([Triple(subject, relation, object_)]), [tokens.open, tokens.results, tokens.close]),
    ]
    for ids, expected in parts:
        assert [token for token in ids if token in marker_ids(tokens)] == expected
        assert ids[-1] == expected[-1]


@settings(max_examples=50)
@given(NAMES, NAMES, st.booleans())
def test_calls_begin_with_their_prefix(kind: str, call_tokens: Encoder, relation: str, name: str, spaced: bool) -> None:
    tokens = call_tokens(kind, spaced)
    for query in (Query(relation, subject=name), Query(relation, object=name)):
        assert tokens.queries([query])[: len(tokens.read_prefix)] == tokens.read_prefix
    for triples in ([], [Triple(name, relation, name)]):
        assert tokens.write(triples)[: len(tokens.write_prefix)] == tokens.write_prefix


@pytest.mark.parametrize("spaced", [False, True])
def test_calls_can_be_read_from_their_tokens(kind: str, call_tokens: Encoder, spaced: bool) -> None:
    if kind == "wordpiece":
        pytest.skip("WordPiece decodes with spaces where there were none")
    tokens = call_tokens(kind, spaced)
    s, names = " " * spaced, ("Ann Lee", "-->", "Dusk (writer)", r"{\}")
    queries = (Query("author", subject="Dancing on Coral"), Query("place of birth", object="}) Oslo"))
    ids = tokens.queries(queries) + tokens.answer(names)
    assert tokens.decode(ids) == (
        f"({{MEM_READ({s}Dancing on Coral>>{s}author>>;>>{s}place of birth>>{s}\\)) Oslo)-->"
        f"{s}Ann Lee;{s}-\\-\\>;{s}Dusk (writer);{s}\\(\\\\\\)}})"
    )
    assert parse_read(tokens.decode(ids)) == ReadCall(queries, names)
    triples = [Triple("Dawn", "author", "Ann Lee"), Triple("a;b", ">>", "({")]
    assert parse_write(tokens.decode(tokens.write(triples))) == (triples, [])
    assert tokens.decode(tokens.focus_start + tokens.focus_end) == "({USER_ST})({USER_END})"


@pytest.mark.parametrize("kind", ["byte-level", "llama", "unigram"])
@pytest.mark.parametrize(
    "name", ["Ann Lee", "Dancing on Coral", "Größe", "日本", "St. Ives", "(-1", '"Dawn" 2', "🙂 5"]
)
def test_a_spaced_name_has_the_tokens_that_it_has_in_text(kind: str, call_tokens: Encoder, name: str) -> None:
    check_same_tokens(call_tokens(kind), name)


WORDS = st.text(st.characters(categories=("L", "N", "P", "S", "M")), min_size=1, max_size=8)


@given(st.lists(WORDS, max_size=3), st.text(st.characters(categories=("L", "N")), min_size=1, max_size=5))
def test_any_spaced_name_that_ends_in_a_letter_or_digit_has_the_tokens_that_it_has_in_text(
    call_tokens: Encoder, words: list[str], last: str
) -> None:
    name = " ".join([*words, last])
    if not any(character in name for character in r"\;>{}") and "--" not in name:
        check_same_tokens(call_tokens("byte-level"), name)
        check_same_tokens(call_tokens("byte-level, code"), name)


def check_same_tokens(tokens: CallTokens, name: str) -> None:
    """The name after a word of running text, sought by its characters, and in every place of a call."""
    text = tokens.text(f"was {name} was")
    inside = text.ids[text.first(len("was")) : text.first(len(f"was {name}"))]
    assert tokens.answer([name]) == [*inside, tokens.close]
    queries = tokens.queries([Query(name, subject=name), Query(name, object=name)])
    assert occurrences(inside, queries) == 4
    assert occurrences(inside, tokens.write([Triple(name, name, name)])) == 3


def occurrences(part: list[int], ids: list[int]) -> int:
    """How often ids hold a part, overlaps not counted."""
    count = place = 0
    while place + len(part) <= len(ids):
        found = ids[place : place + len(part)] == part
        count, place = count + found, place + (len(part) if found else 1)
    return count


def test_first_is_where_the_tokens_of_a_mention_begin(call_tokens: Encoder) -> None:
    tokens = call_tokens("byte-level")
    text = tokens.text("Dawn 🙃 was written by Ann Lee.")
    pieces = [tokens.decode([token]) for token in text.ids]
    assert text.first(0) == 0
    place = text.first(len("Dawn 🙃 was written by "))
    assert pieces[place] == " Ann"
    assert text.first(len("Dawn 🙃 was written by")) == place  # the space belongs to the token of the name
    assert text.first(len("Dawn 🙃 was written by An")) == place
    assert pieces[text.first(len("Dawn 🙃 was written by Ann"))] == " Lee"
    emoji = text.first(5)
    assert tokens.decode(text.ids[:emoji]) == "Dawn"
    assert tokens.decode(text.ids[: text.first(6)]) == "Dawn 🙃"
    assert text.first(6) - emoji > 1  # several tokens of one character: the first of them
    assert text.first(len("Dawn 🙃 was written by Ann Lee.")) == text.first(1000) == len(text.ids)
    assert tokens.text("").first(0) == 0


@given(st.text(max_size=30), st.data())
def test_first_is_the_first_token_that_ends_after_the_character(
    call_tokens: Encoder, text: str, data: st.DataObject
) -> None:
    character = data.draw(st.integers(0, len(text) + 1))
    encoded = call_tokens("byte-level").text(text)
    later = [place for place, (_, end) in enumerate(encoded.offsets) if end > character]
    assert encoded.first(character) == min(later, default=len(encoded.ids))


def test_texts_begin_and_end_with_the_models_tokens(random_lm: Models, call_tokens: Encoder) -> None:
    tokens = call_tokens("byte-level")
    assert tokens.tokenizer.convert_ids_to_tokens([tokens.start, tokens.end]) == ["<|endoftext|>", "<|endoftext|>"]
    tokens = call_tokens("llama")
    assert tokens.tokenizer.convert_ids_to_tokens([tokens.start, tokens.end]) == ["<s>", "</s>"]
    lm = random_lm("byte-level")
    lm.tokenizer.eos_token = lm.model.config.eos_token_id = None
    assert CallTokens(lm, True).end == lm.tokenizer.bos_token_id


@pytest.mark.parametrize("kind", ["byte-level", "llama"])
def test_without_the_markers_there_are_no_calls(kind: str, random_lm: Models) -> None:
    tokens = CallTokens(random_lm(kind), True)
    with pytest.raises(ModelError, match=r"\(\{ is no token of this tokenizer: call add_call_tokens first"):
        tokens.queries([Query("author", subject="Dawn")])
    with pytest.raises(ModelError, match="--> is no token"):
        _ = tokens.results


@torch.no_grad()
def logits(lm: LanguageModel) -> torch.Tensor:
    ids = torch.arange(3, 40).view(1, -1)
    return lm.model(input_ids=ids).logits


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("spare", [0, 2, 3, 8])
@pytest.mark.parametrize("kind", ["byte-level", "unigram"])
def test_what_the_model_knew_stays_as_it_was(
    kind: str, random_lm: Models, corpus: list[str], tied: bool, spare: int
) -> None:
    lm = random_lm(kind, tied=tied, spare=spare)
    size, rows = len(lm.tokenizer), len(lm.tokenizer) + spare
    before, weights = logits(lm), copy.deepcopy(lm.model.state_dict())
    ids = lm.encode(corpus)
    added = add_call_tokens(lm)
    after = added.model.state_dict()
    assert after.keys() == weights.keys()
    for name, weight in weights.items():
        if name in ("model.embed_tokens.weight", "lm_head.weight"):
            assert len(after[name]) == max(rows, size + 3)
            assert torch.equal(after[name][:rows], weight)
        else:
            assert torch.equal(after[name], weight)
    torch.testing.assert_close(logits(added)[..., :rows], before, rtol=0, atol=0)
    assert added.encode(corpus) == ids
    assert torch.equal(after["model.embed_tokens.weight"], after["lm_head.weight"]) == tied
    assert added.model.config.vocab_size == max(rows, size + 3)


def test_adding_again_changes_nothing(kind: str, random_lm: Models, tmp_path: Path) -> None:
    lm = add_call_tokens(random_lm(kind))
    tokens, weights = CallTokens(lm, True), copy.deepcopy(lm.model.state_dict())
    ids, size, special = marker_ids(tokens), len(lm.tokenizer), lm.tokenizer.all_special_tokens
    lm.tokenizer.save_pretrained(tmp_path)
    for tokenizer in (lm.tokenizer, AutoTokenizer.from_pretrained(tmp_path)):
        again = add_call_tokens(LanguageModel(lm.model, tokenizer))
        assert marker_ids(CallTokens(again, True)) == ids
        assert len(tokenizer) == size
        assert sorted(tokenizer.all_special_tokens) == sorted(special)
        assert CallTokens(again, True).text(SPELT) == tokens.text(SPELT)
        for name, weight in again.model.state_dict().items():
            assert torch.equal(weight, weights[name])


def test_other_special_tokens_stay_special(random_lm: Models) -> None:
    lm = random_lm("byte-level", spare=8)
    lm.tokenizer.add_special_tokens({"additional_special_tokens": ["<focus>"]})
    add_call_tokens(lm)
    assert {"<focus>", *MARKERS} < set(lm.tokenizer.all_special_tokens)


@pytest.mark.parametrize("tied", [False, True])
def test_new_rows_are_the_same_each_time_and_differ_from_one_another(random_lm: Models, tied: bool) -> None:
    torch.manual_seed(1)
    first = add_call_tokens(random_lm("byte-level", tied=tied))
    torch.manual_seed(2)
    state = torch.get_rng_state()
    second = add_call_tokens(random_lm("byte-level", tied=tied))
    assert torch.equal(torch.get_rng_state(), state)  # whoever draws random numbers next is not disturbed
    for one, other in (
        (first.model.get_input_embeddings(), second.model.get_input_embeddings()),
        (first.model.get_output_embeddings(), second.model.get_output_embeddings()),
    ):
        assert torch.equal(one.weight, other.weight)
        new = one.weight[-3:]
        assert new.isfinite().all()
        assert all(not torch.equal(row, below) for row, below in pairwise(new))
        assert 0.005 < new.std() < 0.1  # as large as the other rows, which the configuration says: 0.02
