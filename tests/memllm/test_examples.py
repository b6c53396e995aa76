"""Finetuning examples: by hand, and against plain concatenation of strings on real documents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from itertools import accumulate, groupby
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM

from palimpsest.data.docred import read_documents, read_relations
from palimpsest.facts import Document, Entity, Fact, Mention, Query
from palimpsest.lm.load import LanguageModel
from palimpsest.lm.tokenizer import train_tokenizer
from palimpsest.memllm.examples import (
    Example,
    plain_example,
    planned_calls,
    read_examples,
    write_examples,
    write_prompts,
)
from palimpsest.memllm.targets import AnswerCounts, ReadTarget, read_targets, sentence_triples
from palimpsest.memllm.tokens import CallTokens, add_call_tokens

END = "<|endoftext|>"
LABELS = {"P50": "author", "P17": "country", "P19": "place of birth"}
PAGE = Document(
    "Dawn",
    (
        ("Dawn", "was", "written", "by", "Ann", "Lee", "."),
        ("Lee", "was", "born", "in", "Oslo", "."),
        (),
        ("Oslo", "lies", "in", "Norway", "."),
    ),
    (
        Entity((Mention("Dawn", 0, 0, 1),), "MISC"),
        Entity((Mention("Ann Lee", 0, 4, 6), Mention("Lee", 1, 0, 1)), "PER"),
        Entity((Mention("Oslo", 1, 4, 5), Mention("Oslo", 3, 0, 1)), "LOC"),
        Entity((Mention("Norway", 3, 3, 4),), "LOC"),
    ),
    (Fact(0, "P50", 1), Fact(1, "P19", 2), Fact(2, "P17", 3)),
)
AUTHOR = Query("author", subject="Dawn")
BORN = (Query("place of birth", subject="Ann Lee"), Query("place of birth", subject="Lee"))
TARGETS = [
    ReadTarget(1, PAGE.entities[1].mentions[0], (AUTHOR,)),
    ReadTarget(2, PAGE.entities[2].mentions[0], BORN),
    ReadTarget(3, PAGE.entities[3].mentions[0], (Query("country", subject="Oslo"),)),
]
MEMORY = {AUTHOR: ["Ann Lee"], BORN[0]: ["Oslo"], BORN[1]: ["Bergen", "Oslo"]}


def answers(queries: Sequence[Query]) -> list[str]:
    return list(dict.fromkeys(name for query in queries for name in MEMORY.get(query, [])))


@pytest.fixture(scope="module")
def tokens(call_tokens: Callable[..., CallTokens]) -> CallTokens:
    """Byte-level, so that what is decoded is what was encoded."""
    return call_tokens("byte-level")


def runs(example: Example, tokens: CallTokens) -> list[tuple[bool, str]]:
    """What an example says after its opening token, in stretches that are learnt and that are not."""
    assert len(example.ids) == len(example.learnt)
    assert (example.ids[0], example.learnt[0]) == (tokens.start, False)
    pairs = zip(example.learnt[1:], example.ids[1:], strict=True)
    return [
        (wanted, tokens.decode([token for _, token in group])) for wanted, group in groupby(pairs, lambda pair: pair[0])
    ]


def reads(document: Document, targets: Sequence[ReadTarget], tokens: CallTokens, **options) -> list:
    examples = read_examples(document, targets, tokens, answers, **{"max_tokens": 512, **options})
    return [runs(example, tokens) for example in examples]


FIRST = "Dawn was written by({MEM_READ( Dawn>> author>>)-->"
SECOND = "MEM_READ( Ann Lee>> place of birth>>; Lee>> place of birth>>)-->"


def test_read_examples(tokens: CallTokens) -> None:
    assert reads(PAGE, TARGETS, tokens) == [
        [(True, FIRST), (False, " Ann Lee})"), (True, " Ann Lee. Lee was born in({")],
        [
            (False, "Dawn was written by Ann Lee. Lee was born in({"),
            (True, SECOND),
            (False, " Oslo; Bergen})"),
            (True, " Oslo. Oslo lies in({"),
        ],
        [
            (False, "Dawn was written by Ann Lee. Lee was born in Oslo. Oslo lies in({"),
            (True, "MEM_READ( Oslo>> country>>)-->"),
            (False, "})"),
            (True, " Norway." + END),
        ],
    ]


def test_read_examples_as_the_official_code_learns_them(tokens: CallTokens) -> None:
    assert reads(PAGE, TARGETS, tokens, learnt="first call and its results") == [
        [(True, FIRST + " Ann Lee})" + " Ann Lee. Lee was born in({")],
        [
            (False, "Dawn was written by Ann Lee. Lee was born in({" + SECOND + " Oslo; Bergen})"),
            (True, " Oslo. Oslo lies in({"),
        ],
        [
            (
                False,
                "Dawn was written by Ann Lee. Lee was born in Oslo. Oslo lies in({MEM_READ( Oslo>> country>>)-->})",
            ),
            (True, " Norway." + END),
        ],
    ]


def test_calls_may_be_without_spaces(call_tokens: Callable[..., CallTokens]) -> None:
    tokens = call_tokens("byte-level", spaced=False)
    assert reads(PAGE, TARGETS[:1], tokens) == [
        [
            (True, "Dawn was written by({MEM_READ(Dawn>>author>>)-->"),
            (False, "Ann Lee})"),
            (True, " Ann Lee. Lee was born in Oslo. Oslo lies in Norway." + END),
        ]
    ]


@pytest.mark.parametrize("learnt", ["text and calls", "first call and its results"])
def test_a_document_without_a_target_is_an_example_without_a_call(tokens: CallTokens, learnt: str) -> None:
    expected = [(True, PAGE.text + END)]
    assert reads(PAGE, [], tokens, learnt=learnt) == [expected]
    assert runs(plain_example(PAGE, tokens, max_tokens=512), tokens) == expected
    assert plain_example(Document("", ()), tokens, max_tokens=512) == Example([tokens.start, tokens.end], [False, True])


def test_a_call_may_begin_the_text(tokens: CallTokens) -> None:
    target = ReadTarget(0, PAGE.entities[0].mentions[0], (Query("author", object="Ann Lee"),))
    assert reads(PAGE, [target], tokens) == [
        [(True, "({MEM_READ(>> author>> Ann Lee)-->"), (False, "})"), (True, PAGE.text + END)]
    ]


def test_targets_that_share_a_place_or_a_query_make_one_call(tokens: CallTokens) -> None:
    text = tokens.text(PAGE.text)
    by, norway = (text.first(PAGE.text.index(name)) for name in (" Ann", " Norway"))
    longer, person = PAGE.entities[1].mentions[0], Mention("Ann", 0, 4, 5)
    same_place = [TARGETS[0], ReadTarget(4, person, BORN)]
    assert [(call.place, call.queries, call.mention) for call in planned_calls(PAGE, same_place, text)] == [
        (by, (AUTHOR,), longer)
    ]
    same_query = [TARGETS[0], ReadTarget(3, PAGE.entities[3].mentions[0], (AUTHOR, *BORN))]
    assert [call.place for call in planned_calls(PAGE, same_query, text)] == [by]
    assert len(reads(PAGE, same_query, tokens)) == 1
    # Another call in between takes those results out of sight, and a query that is not the best one is another call.
    again = [TARGETS[0], TARGETS[1], ReadTarget(3, PAGE.entities[3].mentions[0], (AUTHOR,))]
    assert [call.place for call in planned_calls(PAGE, again, text)] == [
        by,
        text.first(PAGE.text.index(" Oslo")),
        norway,
    ]
    second_best = [TARGETS[0], ReadTarget(3, PAGE.entities[3].mentions[0], (*BORN, AUTHOR))]
    assert [call.place for call in planned_calls(PAGE, second_best, text)] == [by, norway]


def test_markers_of_the_text_are_text(tokens: CallTokens) -> None:
    document = Document("({", (("({", "Dawn", "-->", "Ann", "})"),), (Entity((Mention("Ann", 0, 3, 4),), "PER"),))
    (example,) = read_examples(
        document,
        [ReadTarget(0, document.entities[0].mentions[0], (Query("-->", subject="({"),))],
        tokens,
        lambda queries: ["})"],
        max_tokens=512,
    )
    markers = [token for token in example.ids if token in (tokens.open, tokens.results, tokens.close)]
    assert markers == [tokens.open, tokens.results, tokens.close]
    assert runs(example, tokens) == [
        (True, r"({ Dawn -->({MEM_READ( (\(>> --\>>>)-->".replace(r"--\>", r"-\-\>")),
        (False, r" \))})"),
        (True, " Ann })" + END),
    ]


def test_write_examples(tokens: CallTokens) -> None:
    examples = [runs(example, tokens) for example in write_examples(PAGE, LABELS, tokens, max_tokens=512)]
    assert examples == [
        [
            (False, "({USER_ST})Dawn was written by Ann Lee.({USER_END})"),
            (True, "({MEM_WRITE--> Dawn>> author>> Ann Lee})" + END),
        ],
        [
            (False, "Dawn was written by Ann Lee.({USER_ST}) Lee was born in Oslo.({USER_END})"),
            (True, "({MEM_WRITE--> Dawn>> author>> Ann Lee; Ann Lee>> place of birth>> Oslo})" + END),
        ],
        [
            (False, "Dawn was written by Ann Lee. Lee was born in Oslo.({USER_ST}) Oslo lies in Norway.({USER_END})"),
            (True, "({MEM_WRITE--> Ann Lee>> place of birth>> Oslo; Oslo>> country>> Norway})" + END),
        ],
    ]
    assert [bool(prompt) for prompt in write_prompts(PAGE, tokens)] == [True, True, False, True]


def test_a_sentence_without_triples_writes_nothing(tokens: CallTokens) -> None:
    document = Document("", (("It", "rained", "."),))
    assert [runs(example, tokens) for example in write_examples(document, {}, tokens, max_tokens=512)] == [
        [(False, "({USER_ST})It rained.({USER_END})"), (True, "({MEM_WRITE-->})" + END)]
    ]


@pytest.mark.parametrize(("count", "examples"), [(31, 2), (32, 1)])
def test_a_sentence_with_more_than_31_triples_is_no_example(tokens: CallTokens, count: int, examples: int) -> None:
    sentences = (("It", "rained", "."), ("Lee", *map(str, range(count))))
    entities = [Entity((Mention("Lee", 1, 0, 1),), "PER")]
    entities += [Entity((Mention(str(number), 1, number + 1, number + 2),), "NUM") for number in range(count)]
    facts = tuple(Fact(0, "P50", number + 1) for number in range(count))
    document = Document("", sentences, tuple(entities), facts)
    found = list(write_examples(document, LABELS, tokens, max_tokens=1000))
    assert len(found) == examples
    assert tokens.decode(found[-1].ids).count("author") == (31 if count == 31 else 0)


@given(st.lists(st.tuples(st.lists(st.integers(1, 9), max_size=4), st.booleans())), st.integers(1, 12))
def test_what_is_too_long_loses_its_oldest_tokens(parts: list[tuple[list[int], bool]], max_tokens: int) -> None:
    example = Example.of(0, *parts, max_tokens=max_tokens)
    pairs = [(token, wanted) for ids, wanted in parts for token in ids]
    while len(pairs) >= max_tokens and pairs:
        pairs.pop(0)
    assert list(zip(example.ids, example.learnt, strict=True)) == [(0, False), *pairs]


def test_long_examples_keep_their_opening_token_and_their_end(tokens: CallTokens) -> None:
    whole = list(read_examples(PAGE, TARGETS, tokens, answers, max_tokens=512))
    short = list(read_examples(PAGE, TARGETS, tokens, answers, max_tokens=20))
    assert [len(example.ids) for example in short] == [20, 20, 20]
    for example, original in zip(short, whole, strict=True):
        assert example.ids == [tokens.start, *original.ids[-19:]]
        assert example.learnt == [False, *original.learnt[-19:]]
    (*_, last) = write_examples(PAGE, LABELS, tokens, max_tokens=45)
    assert len(last.ids) == 45
    (_, prompt), (_, call) = runs(last, tokens)
    assert "Norway.({USER_END})" in prompt
    assert not prompt.startswith("Dawn")
    assert call.startswith("({MEM_WRITE--> Ann Lee>>")


# -- real documents ----------------------------------------------------------------------------------------------------

SKIP = [
    "(?, country, X)", "(?, place of birth, X)", "(?, date of birth, X)", "(X, continent, ?)",
    "(X, contains administrative territorial entities, ?)", "(?, country of citizenship, X)",
]  # fmt: skip


@pytest.fixture(scope="module")
def labels(samples: Path) -> dict[str, str]:
    return read_relations(samples / "wikidata_properties_en.json")


@pytest.fixture(scope="module")
def documents(samples: Path, labels: dict[str, str]) -> list[Document]:
    return read_documents(samples / "redocred_dev_revised.json", labels)


@pytest.fixture(scope="module")
def real_tokens(documents: list[Document]) -> CallTokens:
    tokenizer = train_tokenizer((document.text for document in documents), 2000, 2048)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # as GPT-2's
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **sizes))
    return CallTokens(add_call_tokens(LanguageModel(model, tokenizer)), spaced=True)


class Literal:
    """The same examples from strings alone: what is to be read is put together and only then made into tokens."""

    def __init__(self, documents: Sequence[Document], labels: dict[str, str], tokens: CallTokens) -> None:
        self.labels, self.tokenizer = labels, tokens.tokenizer
        known = {
            (head.name, labels[fact.relation], tail.name)
            for document in documents
            for fact in document.facts
            for head in document.entities[fact.head].mentions
            for tail in document.entities[fact.tail].mentions
        }
        self.objects = Counter((subject, relation) for subject, relation, _ in known)
        self.subjects = Counter((relation, object_) for _, relation, object_ in known)
        # At which bytes of a text its tokens begin: byte-level, a character of a token is a byte of the text.
        self.begins = cache(lambda text: [0, *accumulate(map(len, self.tokenizer.tokenize(text)))])

    def answers(self, queries: Sequence[Query]) -> list[str]:
        """Any names will do, as long as each call gets its own."""
        return [f"{query.relation} of {query.entity}" for query in queries][: len(queries[0].entity) % 4]

    def cut(self, text: str, character: int) -> int:
        """Where the token that holds a character begins."""
        raw, place = text.encode(), len(text[:character].encode())
        return len(raw[: max(begins for begins in self.begins(text) if begins <= place)].decode())

    def targets(self, document: Document) -> list[tuple[int, list[tuple[str, str, str]]]]:
        """Where to look up, and ``(subject, relation, object)`` of what to ask, one of which is empty."""
        mentions = [
            (mention.sentence, mention.start, -mention.end, index, mention.name, document.span(mention))
            for index, entity in enumerate(document.entities)
            for mention in entity.mentions
        ]
        mentions.sort(key=lambda mention: mention[:4])
        found = []
        for number, (*_, index, _, (start, end)) in enumerate(mentions):
            before = [mention[3] for mention in mentions[:number]]
            if index in before or document.text[start:end] in document.text[:start]:
                continue  # what is known of an entity is completed where it is first named
            queries = []
            for fact in document.facts:
                other = fact.tail if fact.head == index else fact.head
                if index not in (fact.head, fact.tail) or other not in before or other == index:
                    continue
                relation, names = self.labels[fact.relation], [m[4] for m in mentions[:number] if m[3] == other]
                for name in names:
                    if fact.tail == index:
                        many, pattern = self.objects[name, relation], f"(X, {relation}, ?)"
                        query = (name, relation, "")
                    else:
                        many, pattern = self.subjects[relation, name], f"(?, {relation}, X)"
                        query = ("", relation, name)
                    if pattern not in SKIP and many <= 30 and (many, query) not in queries:
                        queries.append((many, query))
            queries.sort(key=lambda query: query[0])
            if queries:
                found.append((start, [query for _, query in queries[:3]]))
        return found

    def reads(self, document: Document) -> list[list[tuple[bool, str]]]:
        """The stretches of each read example, learnt and not."""
        text, calls = document.text, []
        for start, queries in self.targets(document):
            cut = self.cut(text, start)
            if not calls or (calls[-1][0] != cut and calls[-1][1][0] != queries[0]):
                calls.append((cut, queries))
        if not calls:
            return [[(True, text + END)]]
        examples = []
        for number, (cut, queries) in enumerate(calls):
            end = calls[number + 1][0] if number + 1 < len(calls) else len(text)
            asked = ";".join(">>".join(" " + name if name else "" for name in query) for query in queries)
            names = self.answers([Query(r, subject=s or None, object=o or None) for s, r, o in queries])
            examples.append(
                [
                    (number == 0, text[:cut] + "({"),
                    (True, "MEM_READ(" + asked + ")-->"),
                    (False, ";".join(" " + name for name in names) + "})"),
                    (True, text[cut:end] + ("({" if number + 1 < len(calls) else END)),
                ]
            )
        return examples

    def writes(self, document: Document) -> list[list[tuple[bool, str]]]:
        """The stretches of each write example."""
        text, examples = document.text, []
        for (start, end), triples in zip(
            document.sentence_spans(), sentence_triples(document, self.labels), strict=True
        ):
            if len(triples) < 32:
                start, end = self.cut(text, start), self.cut(text, end)
                body = ";".join(f" {triple.subject}>> {triple.relation}>> {triple.object}" for triple in triples)
                prompt = text[:start] + "({USER_ST})" + text[start:end] + "({USER_END})"
                examples.append([(False, prompt), (True, "({MEM_WRITE-->" + body + "})" + END)])
        return examples

    def ids(self, example: list[tuple[bool, str]]) -> list[int]:
        """The tokens of an example's whole string, after the token that begins a text."""
        return self.tokenizer("".join(text for _, text in example)).input_ids


def merged(example: list[tuple[bool, str]]) -> list[tuple[bool, str]]:
    """Neighbouring stretches joined if both or neither are learnt."""
    return [(wanted, "".join(text for _, text in group)) for wanted, group in groupby(example, lambda part: part[0])]


def learnt_tokens(examples: Sequence[list[tuple[bool, str]]], tokens: CallTokens) -> int:
    """How many tokens the learnt stretches have."""
    texts = [text for example in examples for wanted, text in example if wanted]
    return sum(map(len, tokens.tokenizer(texts, add_special_tokens=False).input_ids))


@pytest.mark.slow
def test_real_read_examples_against_plain_strings(
    documents: list[Document], labels: dict[str, str], real_tokens: CallTokens
) -> None:
    literal, counts = Literal(documents, labels, real_tokens), AnswerCounts(documents, labels)
    rules = {"skip": SKIP, "results": counts, "max_results": 30, "max_queries": 3}
    totals: Counter[str] = Counter()
    for document in documents:
        targets = list(read_targets(document, labels, **rules))
        found = list(read_examples(document, targets, real_tokens, literal.answers, max_tokens=1024))
        expected = literal.reads(document)
        assert [runs(example, real_tokens) for example in found] == [merged(example) for example in expected]
        assert [example.ids for example in found] == [literal.ids(example) for example in expected]
        learnt = sum(sum(example.learnt) for example in found)
        assert learnt == learnt_tokens(expected, real_tokens)
        calls = planned_calls(document, targets, real_tokens.text(document.text))
        totals.update(
            {"examples": len(found), "calls": len(calls), "queries": sum(len(call.queries) for call in calls)}
        )
    assert totals == {"examples": 4246, "calls": 4244, "queries": 8919}


@pytest.mark.slow
def test_real_write_examples_against_plain_strings(
    documents: list[Document], labels: dict[str, str], real_tokens: CallTokens
) -> None:
    literal = Literal(documents, labels, real_tokens)
    total = 0
    for document in documents:
        found = list(write_examples(document, labels, real_tokens, max_tokens=2048))
        expected = literal.writes(document)
        assert [runs(example, real_tokens) for example in found] == expected
        assert [example.ids for example in found] == [literal.ids(example) for example in expected]
        assert sum(sum(example.learnt) for example in found) == learnt_tokens(expected, real_tokens)
        total += len(found)
    sentences = sum(bool(sentence) for document in documents for sentence in document.sentences)
    assert (total, sentences) == (4083, 4110)
