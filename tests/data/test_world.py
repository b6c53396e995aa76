"""The generated world: distinct names, consistent facts, disjoint realms, true annotations, reproducible bytes."""

import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from itertools import combinations, islice
from pathlib import Path
from random import Random

import pytest

from palimpsest.data.prepared import PreparedData
from palimpsest.data.world.build import _by_fame, build_world
from palimpsest.data.world.corpus import Corpus, Fame, interleave, sample_documents
from palimpsest.data.world.documents import write_document
from palimpsest.data.world.edits import EditWriter
from palimpsest.data.world.names import permute
from palimpsest.data.world.relations import BY_PID, LABELS, RELATIONS, Kind
from palimpsest.data.world.universe import NAMED, Sizes, Thing, Universe
from palimpsest.evaluation.description import names as names_in
from palimpsest.facts import DataError

REALMS = ("train", "rare", "dev", "test")
SIZES = {"countries": 8, "cities": 24, "companies": 60, "universities": 8, "people": 120, "books": 60}
KNEE = {Kind.PERSON: 20, Kind.BOOK: 10, Kind.COMPANY: 10, Kind.CITY: 10, Kind.COUNTRY: 8}
FAME = Fame(dict.fromkeys(KNEE, 12), KNEE, 4)
ARGUMENTS = {
    "realms": dict.fromkeys(REALMS, SIZES),
    "peak": {kind.value: 12 for kind in KNEE},
    "reach": 4,
    "knee": {kind.value: rank for kind, rank in FAME.knee.items()},
    "questions": 0.2,
    "documents": {"text": 5, "restated": 20, "train": 30, "seen": 10, "dev": 10, "test": 10},
    "edits": {"dev": 10, "test": 20},
    "recall": {"train": 40, "test": 20},
}


@pytest.fixture(scope="module")
def universe() -> Universe:
    return Universe(3, {name: Sizes(**SIZES) for name in REALMS})


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    return build_world(tmp_path_factory.mktemp("world"), seed=3, **ARGUMENTS)


def test_permute_is_a_bijection() -> None:
    for size in (1, 2, 3, 10, 97, 1000):
        assert sorted(permute(i, size, 5) for i in range(size)) == list(range(size))


def test_names_are_distinct_also_in_a_large_world() -> None:
    large = Universe(
        0, {"train": Sizes(60, 2000, 20000, 400, 40000, 20000), "test": Sizes(60, 2000, 500, 50, 4000, 900)}
    )
    things = [thing for realm in large.realms.values() for kind in NAMED for thing in realm.things(kind)]
    assert len({large.name(thing) for thing in things}) == len(things)
    people = [large.name(thing) for thing in islice(large.realms["train"].things(Kind.PERSON), 1000)]
    assert all(len(name.split()) == 2 for name in people)


def test_labels_are_wikidatas(samples: Path) -> None:
    official = json.loads((samples / "wikidata_properties_en.json").read_text())
    assert {pid: official[pid] for pid in LABELS} == LABELS


def test_catalogue_meets_the_specification() -> None:
    assert len(RELATIONS) >= 20
    assert {relation.cardinality for relation in RELATIONS} == {"one-to-one", "many-to-one", "one-to-many"}
    for relation in RELATIONS:
        assert len(relation.statements) >= 4
        assert relation.heldout
        assert all(template.is_prompt for template in relation.heldout)
        assert relation.prompts
        everything = [t.text for t in relation.statements + relation.heldout]
        assert len(set(everything)) == len(everything)
        assert relation.heldout_question not in relation.questions
        assert all(text.count("{s}") == 1 for text in [*everything, *relation.questions, relation.heldout_question])
        assert all(text.count("{o}") == 1 for text in everything)


def test_cardinalities_hold(universe: Universe) -> None:
    for realm in universe.realms.values():
        objects, subjects = Counter(), Counter()
        for kind in NAMED:
            for subject in realm.things(kind):
                for relation, thing in realm.facts(subject):
                    assert relation.subject is subject.kind
                    assert relation.object is thing.kind
                    objects[relation.pid, subject] += 1
                    subjects[relation.pid, thing] += 1
        many = {pid for (pid, _), count in objects.items() if count > 1}
        shared = {pid for (pid, _), count in subjects.items() if count > 1}
        assert all(not BY_PID[pid].functional for pid in many)
        assert all(BY_PID[pid].cardinality != "one-to-one" for pid in shared)
        assert shared >= {"P19", "P27", "P106"}


def test_marriage_is_mutual_and_children_are_younger(universe: Universe) -> None:
    realm = universe.realms["train"]
    married = 0
    for person in realm.things(Kind.PERSON):
        facts = {}
        for relation, thing in realm.facts(person):
            facts.setdefault(relation.pid, []).append(thing)
        for spouse in facts.get("P26", []):
            married += 1
            assert realm.object(spouse, "P26") == person
            assert universe.is_female(person) != universe.is_female(spouse)
        for child in facts.get("P40", []):
            assert realm.object(child, "P569").number > facts["P569"][0].number
    assert married > 20


def test_realms_share_no_named_entity(universe: Universe) -> None:
    def everyone(realm: str) -> set[str]:
        mine = universe.realms[realm]
        subjects = [thing for kind in NAMED for thing in mine.things(kind)]
        objects = [thing for subject in subjects for _, thing in mine.facts(subject)]
        return {universe.name(thing) for thing in subjects + objects if thing.kind in NAMED}

    for one, other in combinations(REALMS, 2):
        assert not everyone(one) & everyone(other)


def test_documents_state_true_facts_where_they_say(universe: Universe) -> None:
    realm = universe.realms["train"]
    by_name = {universe.name(thing): thing for kind in NAMED for thing in realm.things(kind)}
    pronouns = aliases = 0
    for number in range(300):
        main = realm.thing([Kind.PERSON, Kind.BOOK, Kind.CITY, Kind.COUNTRY, Kind.COMPANY][number % 5], number % 8)
        page = write_document(realm, main, Random(number))
        assert 5 <= len(page.sentences) <= 10
        assert page.title == universe.name(main)
        assert page.facts
        for fact in page.facts:
            subject = by_name[page.entities[fact.head].name]
            truth = {universe.name(t) for relation, t in realm.facts(subject) if relation.pid == fact.relation}
            assert page.entities[fact.tail].name in truth
            (sentence,) = fact.evidence
            assert any(mention.sentence == sentence for mention in page.entities[fact.tail].mentions)
        for _, mention in page.mentions():
            start, end = page.span(mention)
            assert page.text[start:end] == mention.name
        pronouns += any(tokens[0] in ("He", "She", "It", "His", "Her", "Its") for tokens in page.sentences)
        aliases += any(mention.name != entity.name for entity in page.entities for mention in entity.mentions)
    assert pronouns > 100
    assert aliases > 50


def test_corpus_has_a_long_tail_and_covers_everyone(universe: Universe) -> None:
    corpus = Corpus(universe.realms["train"], FAME, seed=1)
    counts = Counter(corpus.subject(index) for index in range(corpus.length))
    realm = universe.realms["train"]
    expected = {t: FAME.documents(kind, realm.rank(t)) for kind in FAME.knee for t in realm.things(kind)}
    assert counts == {thing: count for thing, count in expected.items() if count}
    assert 0 in expected.values()
    assert max(counts.values()) == 12
    assert Counter(counts.values()).most_common(1)[0][0] == 1


def test_training_text_never_uses_held_out_wordings(built: PreparedData) -> None:
    text = "\n".join(built.text("train"))
    asked = [prompt for fact in built.recall("train") for prompt in fact.paraphrases]
    asked += [prompt for edit in built.questions("test") for prompt in edit.paraphrases]
    assert asked
    assert not [prompt for prompt in asked if prompt in text]
    assert any(fact.prompt in text for fact in built.recall("train"))


def test_document_splits_share_no_names_but_common_nouns(built: PreparedData) -> None:
    train = names_in(built.documents("train")) | names_in(built.documents("seen"))
    for split in ("dev", "test"):
        shared = names_in(built.documents(split)) & train
        assert all(name == name.lower() for name in shared), shared


def test_documents_are_about_the_famous_or_about_all(universe: Universe) -> None:
    realm = universe.realms["train"]
    famous = {page.title for page in sample_documents(realm, FAME, 50, 1, famous=True)}
    anyone = {page.title for page in sample_documents(realm, FAME, 50, 1)}
    knees = {universe.name(realm.thing(kind, rank)) for kind, knee in FAME.knee.items() for rank in range(knee)}
    assert famous <= knees
    assert anyone & knees
    assert len(anyone - knees) > len(anyone & knees)


def test_balanced_documents_are_oftener_about_kinds_of_which_there_are_few(universe: Universe) -> None:
    realm = universe.realms["rare"]
    sizes = {kind: realm.sizes.of(kind) for kind in FAME.knee}
    kinds = {universe.name(thing): kind for kind in sizes for thing in realm.things(kind)}

    def shares(balanced: bool) -> dict[Kind, float]:
        pages = list(sample_documents(realm, FAME, 600, 1, balanced=balanced))
        return {kind: sum(kinds[page.title] is kind for page in pages) / len(pages) for kind in sizes}

    roots = {kind: size**0.5 for kind, size in sizes.items()}
    assert shares(False) == pytest.approx({kind: size / sum(sizes.values()) for kind, size in sizes.items()}, abs=0.06)
    assert shares(True) == pytest.approx({kind: root / sum(roots.values()) for kind, root in roots.items()}, abs=0.06)


def test_restated_documents_state_everything_twice_in_two_wordings(universe: Universe) -> None:
    once = twice = at_once = records = 0
    for page in sample_documents(universe.realms["rare"], FAME, 100, 1, restated=True):
        assert 5 <= len(page.sentences) <= 20
        for fact in page.facts:
            sentences = [page.sentences[number] for number in fact.evidence]
            assert len(set(sentences)) == len(sentences)
            once += len(sentences) == 1  # the document was long enough
            twice += len(sentences) == 2
            at_once += len(sentences) == 2 and fact.evidence[1] - fact.evidence[0] <= 2
            objects = page.entities[fact.tail].mentions
            assert all(any(mention.sentence == number for mention in objects) for number in fact.evidence)
            records += sum(">>" in sentence for sentence in sentences)
    assert 0.3 < records / (once + 2 * twice) < 0.45  # three in four documents say half of everything as a record
    assert twice > 10 * once
    assert 0.4 < at_once / twice < 0.8


def test_the_training_text_tells_of_the_rare_in_between(built: PreparedData, universe: Universe) -> None:
    chunks = list(built.text("train"))
    people = {universe.name(thing) for thing in universe.realms["rare"].things(Kind.PERSON)}
    rare = [number for number, chunk in enumerate(chunks) if any(name in chunk for name in people)]
    assert 12 <= len(rare) <= 20  # some of the 20 name no person
    assert rare[0] < len(chunks) / 4
    assert rare[-1] > 3 * len(chunks) / 4


def test_interleaving_keeps_both_orders() -> None:
    assert "".join(interleave(iter("abcdef"), 6, iter("xyz"), 3)) == "abxcdyefz"
    assert "".join(interleave(iter("ab"), 2, iter("uvwxyz"), 6)) == "auvwbxyz"
    assert "".join(interleave(iter("ab"), 2, iter(""), 0)) == "ab"


def test_edits_are_counterfactual_and_neighbours_share_relation_and_object(
    built: PreparedData, universe: Universe
) -> None:
    realm = universe.realms["train"]
    by_name = {universe.name(thing): thing for kind in NAMED for thing in realm.things(kind)}

    def truth(subject: str, pid: str) -> str:
        return universe.name(realm.object(by_name[subject], pid))

    two_hop = 0
    edits = built.edits("dev") + built.edits("test")
    for edit in edits:
        assert edit.target_true == (truth(edit.subject, edit.relation),)
        assert edit.target_new not in edit.target_true
        assert edit.subject in edit.prompt
        assert len(edit.paraphrases) >= 1
        assert len(edit.neighbors) >= 1
        for neighbor in edit.neighbors:
            (subject,) = [
                name for name in by_name if f"{name} " in f"{neighbor.prompt} " or f"{name}'s" in neighbor.prompt
            ]
            assert subject != edit.subject
            assert truth(subject, edit.relation) == neighbor.answer == edit.target_true[0]
        for probe in edit.portability:
            two_hop += 1
            facts = {universe.name(t) for _, t in realm.facts(by_name[edit.target_new])}
            assert probe.answer in facts
            assert probe.before != probe.answer
    assert two_hop
    assert not {e.subject for e in built.edits("dev")} & {e.subject for e in built.edits("test")}
    assert not {e.subject for e in built.questions("dev")} & {e.subject for e in built.edits("test")}


def test_new_objects_are_of_the_right_kind(universe: Universe) -> None:
    writer = EditWriter(universe.realms["train"], FAME.knee, 0)
    pools = {pid: {universe.name(t) for t in writer._objects[pid]} for pid in writer._objects}
    for edit in writer.recall(writer.statements[:200]):
        assert edit.target_new in pools[edit.relation]


def test_same_seed_same_bytes_in_any_process(built: PreparedData, tmp_path: Path) -> None:
    code = (
        "import json, sys; from pathlib import Path; from palimpsest.data.world.build import build_world; "
        "build_world(Path(sys.argv[1]), seed=3, **json.loads(sys.argv[2]))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    subprocess.run([sys.executable, "-c", code, tmp_path, json.dumps(ARGUMENTS)], check=True, env=environment)

    def digests(folder: Path) -> dict[str, str]:
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    assert digests(tmp_path) == digests(built.folder)
    assert len(digests(tmp_path)) == 13


def test_another_seed_makes_another_world(universe: Universe) -> None:
    other = Universe(4, universe.sizes)
    assert other.name(Thing(Kind.PERSON, 0)) != universe.name(Thing(Kind.PERSON, 0))


@pytest.mark.parametrize(
    ("change", "message"),
    [({"people": 121}, "fours"), ({"cities": 4}, "at least 8 cities"), ({"cities": 500}, "as many as cities")],
)
def test_impossible_sizes_are_refused(change: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sizes(**{**SIZES, **change})


def test_a_missing_split_is_named(built: PreparedData) -> None:
    assert built.splits("documents") == ["train", "dev", "seen", "test"]
    with pytest.raises(DataError, match=r"documents/nosuch\.json does not exist.*'seen'"):
        built.documents("nosuch")


def test_peaks_and_knees_name_the_same_kinds() -> None:
    with pytest.raises(ValueError, match="but knee for person, book"):
        Fame({Kind.PERSON: 3}, {Kind.PERSON: 3, Kind.BOOK: 3}, 2)


def test_edits_begin_with_the_famous_and_ask_around_them(tmp_path: Path, universe: Universe) -> None:
    data = build_world(tmp_path, seed=3, **{**ARGUMENTS, "edits": {"dev": 100, "test": 400}})
    realm = universe.realms["train"]
    famous = {universe.name(realm.thing(kind, rank)) for kind, knee in FAME.knee.items() for rank in range(knee)}
    for edits in (data.edits("dev"), data.edits("test"), data.questions("test")):
        order = [edit.subject not in famous for edit in edits]
        assert order == sorted(order)
        assert {False, True} == set(order)
    for edit in data.edits("test"):
        assert all(any(name in probe.prompt for name in famous) for probe in edit.neighbors)


def test_recall_asks_every_fact_of_famous_entities(built: PreparedData, universe: Universe) -> None:
    realm = universe.realms["train"]
    writer = EditWriter(realm, FAME.knee, 0)
    famous = {(universe.name(s), relation.pid) for s, relation, _ in writer.statements}
    everything = build_world_recall(universe)
    assert famous <= {(fact.subject, fact.relation) for fact in everything[: len(writer.statements)]}
    assert len(built.recall("train")) == ARGUMENTS["recall"]["train"]


def build_world_recall(universe: Universe) -> list:
    realm = universe.realms["train"]
    everyone = EditWriter(realm, {kind: realm.sizes.of(kind) for kind in FAME.knee}, 0)
    return list(everyone.recall(_by_fame(everyone.statements, realm, FAME, seed=1)))
