"""Counterfactual documents: small ones by hand, generated and real ones by what must hold of every one."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from random import Random

import pytest

from palimpsest.data.docred import read_documents, write_documents
from palimpsest.data.world.corpus import Fame, sample_documents
from palimpsest.data.world.relations import Kind
from palimpsest.data.world.universe import Sizes, Universe
from palimpsest.facts import Document, Entity, Fact, Mention
from palimpsest.memllm.counterfactual import Pool, augment, swap


def document(*sentences: str, facts: tuple[Fact, ...] = (), title: str = "") -> Document:
    """A document whose mentions are written ``entity/TYPE:First_Last``."""
    entities: dict[str, tuple[str, list[Mention]]] = {}
    tokenised = []
    for number, sentence in enumerate(sentences):
        tokens: list[str] = []
        for word in sentence.split():
            key, _, name = word.rpartition(":")
            names = name.split("_")
            if key:
                label, kind = key.split("/")
                place = len(tokens)
                mention = Mention(" ".join(names), number, place, place + len(names))
                entities.setdefault(label, (kind, []))[1].append(mention)
            tokens += names
        tokenised.append(tuple(tokens))
    found = tuple(Entity(tuple(mentions), kind) for kind, mentions in entities.values())
    return Document(title, tuple(tokenised), found, facts)


LEE = document(
    "a/PER:Ann_Mary_Lee , born b/TIME:3_May_1951 , wrote c/MISC:Dawn for the d/ORG:Royal_Book_Club ( d/ORG:RBC ) .",
    "a/PER:Lee sold e/NUM:1,200 copies ; a/PER:Mary_Lee and a/PER:Ann thank the d/ORG:Club .",
    facts=(Fact(0, "P569", 1, (0,)), Fact(2, "P50", 0, (0,))),
    title="Ann Mary Lee",
)
ROE = document(
    "a/PER:Bob_Roe , born b/TIME:14_June_1902 , wrote c/MISC:Under_the_Hill for the d/ORG:New_Milk_Company .",
    "In f/TIME:1950 he sold e/NUM:80,000 copies and g/NUM:two houses .",
    facts=(Fact(0, "P569", 1, (0,)), Fact(2, "P50", 0, (0,))),
)


def texts(page: Document) -> list[str]:
    return [" ".join(tokens) for tokens in page.sentences]


def test_by_hand() -> None:
    new = swap(LEE, Pool([ROE]), Random(0))
    assert texts(new) == [
        "Bob Roe , born 14 June 1902 , wrote Under the Hill for the New Milk Company ( NMC ) .",
        "Roe sold 80,000 copies ; Roe and Bob thank the Company .",
    ]
    assert new.title == "Bob Roe"
    assert new.facts == LEE.facts
    assert new.entities[0] == Entity(
        (Mention("Bob Roe", 0, 0, 2), Mention("Roe", 1, 0, 1), Mention("Roe", 1, 5, 6), Mention("Bob", 1, 7, 8)), "PER"
    )
    assert new.entities[3].mentions[1] == Mention("NMC", 0, 18, 19)


def test_a_wording_of_the_other_entity_is_preferred_to_a_made_one() -> None:
    pool = Pool([document("a/PER:Hank_Van_Buren left .", "a/PER:Buren returned .")])
    assert texts(swap(document("a/PER:Ann_Lee came .", "a/PER:Lee left ."), pool, Random(0)))[1] == "Buren left ."
    pool = Pool([document("a/LOC:Japan is far .", "The a/LOC:Japanese live there .")])
    page = document("The a/LOC:French left a/LOC:France .")
    assert texts(swap(page, pool, Random(0))) == ["The Japanese left Japan ."]


@pytest.mark.parametrize(
    ("page", "other"),
    [
        ("a/PER:Ann_Lee met b/PER:Lee_Ann .", "a/PER:Lee_Ann sang ."),  # is in the document already
        ("a/LOC:American ships .", "a/LOC:Japan has ships ."),  # a demonym, not a country
        ("In a/TIME:May_1951 it rained .", "In a/TIME:1951 it rained ."),  # a date of another form
        ("In a/TIME:1951 it rained .", "a/NUM:1951 men ."),  # another type
        ("An a/ORG:Olga ship .", "A a/ORG:Volga ship ."),  # would need another article
        ("By a/ORG:The_Hills .", "By a/ORG:Hills ."),
        ("a/PER:Kurt_Tucholsky , called a/PER:Theobald_Tiger .", "a/PER:Bob_Roe ."),  # not a part of the name
        ("a/ORG:House_of_Lords or a/ORG:House", "a/ORG:of_Lords or that ."),  # "of" is no name
    ],
)
def test_an_entity_without_a_suitable_other_keeps_its_name(page: str, other: str) -> None:
    assert swap(document(page), Pool([document(other)]), Random(0)) == document(page)


def test_entities_that_share_a_token_keep_their_names_and_move() -> None:
    page = document("a/PER:Ann_Lee visited b/ORG:Oslo_University .", "b/ORG:Oslo_University slept .")
    nested = Entity((Mention("Oslo", 0, 3, 4),), "LOC")
    page = Document("", page.sentences, (*page.entities, nested), ())
    pool = Pool([document("a/PER:Bob_Carl_Roe left b/ORG:Bonn_University in c/LOC:Bonn .")])
    new = swap(page, pool, Random(0))
    assert texts(new) == ["Bob Carl Roe visited Oslo University .", "Oslo University slept ."]
    assert new.entities[1:] == (
        Entity((Mention("Oslo University", 0, 4, 6), Mention("Oslo University", 1, 0, 2)), "ORG"),
        Entity((Mention("Oslo", 0, 4, 5),), "LOC"),
    )


def test_the_most_alike_is_taken() -> None:
    """A country for a country, but not always the same."""
    pairs = (("Bonn", "Germany"), ("Paris", "France"), ("Lille", "Belgium"), ("Riga", "Latvia"))
    pool = Pool(
        document(f"a/LOC:{town} is in b/LOC:{country} .", facts=(Fact(0, "P17", 1),)) for town, country in pairs
    )
    page = document("a/LOC:Turin is in b/LOC:Malta .", facts=(Fact(0, "P17", 1),))
    found = [swap(page, pool, Random(seed)).sentences[0] for seed in range(100)]
    towns, countries = Counter(tokens[0] for tokens in found), Counter(tokens[3] for tokens in found)
    assert all(towns[town] > 10 for town in ("Bonn", "Paris", "Lille", "Riga"))
    assert all(countries[country] > 10 for country in ("Germany", "France", "Belgium", "Latvia"))
    assert sum(towns[country] + countries[town] for town, country in pairs) < 10


def test_the_seed_decides_and_more_copies_change_none() -> None:
    pages = world(40)
    two, three = list(augment(pages, 2, 5)), list(augment(pages, 3, 5))
    assert two == list(augment(pages, 2, 5))
    assert two != list(augment(pages, 2, 6))
    assert [three[3 * n : 3 * n + 2] for n in range(40)] == [two[2 * n : 2 * n + 2] for n in range(40)]
    assert all(two[2 * n] != two[2 * n + 1] for n in range(40))
    assert list(augment(pages, 0, 5)) == []
    with pytest.raises(ValueError, match="copies: expected at least 0, found -1"):
        list(augment(pages, -1, 5))


def world(count: int) -> list[Document]:
    sizes = {"countries": 8, "cities": 24, "companies": 60, "universities": 8, "people": 120, "books": 60}
    knee = {Kind.PERSON: 20, Kind.BOOK: 10, Kind.COMPANY: 10, Kind.CITY: 10, Kind.COUNTRY: 8}
    realm = Universe(3, {"train": Sizes(**sizes)}).realms["train"]
    return list(sample_documents(realm, Fame(dict.fromkeys(knee, 12), knee, 4), count, 3))


def wording(page: Document, mention: Mention) -> tuple[str, ...]:
    return page.sentences[mention.sentence][mention.start : mention.end]


def check(old: Document, new: Document) -> Counter[bool]:
    """Whatever must hold of a document and a copy; counts the entities that have another name (True) or the same."""
    assert new.facts == old.facts
    assert [entity.type for entity in new.entities] == [entity.type for entity in old.entities]
    known = {wording(old, mention) for entity in old.entities for mention in entity.mentions}
    swapped = []
    for before, after in zip(old.entities, new.entities, strict=True):
        pairs = [(wording(old, m), wording(new, n)) for m, n in zip(before.mentions, after.mentions, strict=True)]
        assert [m.sentence for m in before.mentions] == [n.sentence for n in after.mentions]
        swapped.append(pairs[0][0] != pairs[0][1])
        if swapped[-1]:
            assert all(found not in known for _, found in pairs)
            assert all(mention.name == " ".join(wording(new, mention)) for mention in after.mentions)
            assert len(dict(pairs)) == len(set(pairs))  # one wording, one new wording
        else:
            assert all(was == found for was, found in pairs)
            assert [m.name for m in before.mentions] == [n.name for n in after.mentions]
    assert blanked(new, swapped) == blanked(old, swapped)
    return Counter(swapped)


def blanked(page: Document, entities: list[bool]) -> list[list[str]]:
    """The sentences with a blank for each mention of some entities: these alone may change."""
    sentences = [list(tokens) for tokens in page.sentences]
    for index, mention in reversed(list(page.mentions())):
        if entities[index]:
            sentences[mention.sentence][mention.start : mention.end] = ["_"]
    return sentences


def test_generated_documents() -> None:
    pages = world(300)
    count: Counter[bool] = Counter()
    for page, copy in zip(pages, augment(pages, 1, 0), strict=True):
        count += check(page, copy)
        for name in {mention.name for entity in page.entities for mention in entity.mentions if len(mention.name) > 4}:
            assert name not in copy.text  # nothing is named but in mentions
    assert count[True] > 0.99 * count.total()


def test_real_documents(samples: Path, tmp_path: Path) -> None:
    pages = read_documents(samples / "redocred_dev_revised.json")[:200]
    copies = list(augment(pages, 1, 0))
    count = sum((check(page, copy) for page, copy in zip(pages, copies, strict=True)), Counter())
    assert count[True] > 0.95 * count.total()
    assert write_documents(tmp_path / "copies.json", copies) == 200
    assert read_documents(tmp_path / "copies.json") == copies
