"""The generated world, written out as prepared data in all four formats."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice, zip_longest
from pathlib import Path
from random import Random
from typing import TypeVar

from tqdm import tqdm

from palimpsest.data import counterfact, docred, text, zsre
from palimpsest.data.prepared import PreparedData
from palimpsest.data.world.corpus import Corpus, Fame, interleave, sample_documents
from palimpsest.data.world.edits import EditWriter, Statement, functional_facts
from palimpsest.data.world.names import mix
from palimpsest.data.world.relations import LABELS, Kind
from palimpsest.data.world.universe import Realm, Sizes, Universe

Item = TypeVar("Item")


def build_world(
    folder: Path,
    *,
    seed: int,
    realms: Mapping[str, Mapping[str, int]],
    peak: Mapping[str, int],
    knee: Mapping[str, int],
    reach: int,
    questions: float,
    documents: Mapping[str, int],
    edits: Mapping[str, int],
    recall: Mapping[str, int],
) -> PreparedData:
    """Write the world's files; the same arguments give the same bytes, in any process.

    Args:
        folder: where the files go.
        seed: fixes every name, fact and sentence.
        realms: sizes of the realms ``train``, ``rare``, ``dev`` and ``test``, which share no named entity. Of ``rare``
            the training text tells little; it has many of every kind, so that a name cannot be guessed by its kind.
        peak: by kind, how many documents of the training text are about the most famous entities.
        knee: by kind, the rank at which it is half as many (see :class:`~palimpsest.data.world.corpus.Fame`);
            entities before it are called famous.
        reach: from rank ``reach * knee`` on no document of the training text is about an entity.
        questions: the share of chunks of the training text that are lines of questions and answers.
        documents: how many annotated documents a split has. ``train`` are about entities of the realm ``rare`` (a
            memory is to be used where the model does not know; more of them than it has are about kinds of which it
            has few, so that their relations are learnt, too), ``seen`` about famous ones of ``train``, ``dev`` and
            ``test`` about entities of their own realms. ``text`` counts the unread chunks of the dev text, ``restated``
            those documents of the training text that are about entities of ``rare`` and state everything twice: what
            is said again can only be copied, so from them a model learns to copy.
        edits: how many edits and questions each split has at the most; they are about facts of entities that the
            training text tells of, first the famous, and no subject is in two splits. From ``train`` methods learn.
        recall: how many facts are asked before any edit, per realm: first those of famous entities, then of others.
    """
    universe = Universe(seed, {name: Sizes(**sizes) for name, sizes in realms.items()})
    fame = Fame(_by_kind(peak), _by_kind(knee), reach)
    train = universe.realms["train"]
    data = PreparedData(folder)
    docred.write_relations(folder / "relations.json", LABELS)

    corpus = Corpus(train, fame, mix(seed, 100))
    chunks = (corpus.chunk(index, questions) for index in range(corpus.length))
    restated = sample_documents(universe.realms["rare"], fame, documents["restated"], mix(seed, 102), restated=True)
    mixed = interleave(chunks, corpus.length, (page.text for page in restated), documents["restated"])
    text.write_chunks(data.path("text", "train"), _bar(mixed, corpus.length + documents["restated"], "training text"))
    unread = Corpus(train, fame, mix(seed, 101))
    text.write_chunks(data.path("text", "dev"), (unread.chunk(i, questions) for i in range(documents["text"])))

    # Not 113 or 114: the test documents that they drew have informed from how much MemLLM learns to write, and that it
    # stores only what it is sure of (see the README).
    draws: dict[str, tuple[str, int, dict[str, bool]]] = {
        "train": ("rare", 110, {"balanced": True}),
        "seen": ("train", 111, {"famous": True}),
        "dev": ("dev", 112, {}),
        "test": ("test", 115, {}),
    }
    for split, (source, draw, chosen) in draws.items():
        pages = sample_documents(universe.realms[source], fame, documents[split], mix(seed, draw), **chosen)
        docred.write_documents(data.path("documents", split), _bar(pages, documents[split], f"{split} documents"))

    writer = EditWriter(train, fame.knee, mix(seed, 120))
    told = writer.editable(functional_facts(train, {kind: reach * rank for kind, rank in fame.knee.items()}))
    for split, statements in _by_subject(told, edits, mix(seed, 125)).items():
        statements.sort(key=lambda statement: not fame.covers(train, statement[0]))
        counterfact.write_edits(data.path("edits", split), islice(writer.edits(statements), edits[split]))
        zsre.write_questions(data.path("questions", split), islice(writer.questions(statements), edits[split]))
    for split in ("train", "test"):
        realm = universe.realms[split]
        everyone = EditWriter(realm, {kind: realm.sizes.of(kind) for kind in fame.knee}, mix(seed, 121))
        facts = _by_fame(everyone.statements, realm, fame, mix(seed, 130))
        counterfact.write_edits(data.path("recall", split), everyone.recall(islice(facts, recall[split])))
    return data


def _by_kind(numbers: Mapping[str, int]) -> dict[Kind, int]:
    return {Kind(kind): number for kind, number in numbers.items()}


def _bar(items: Iterable[Item], total: int, what: str) -> Iterable[Item]:
    return tqdm(items, total=total, desc=what, unit=" documents", mininterval=1)


def _by_subject(statements: Iterable[Statement], shares: Mapping[str, float], seed: int) -> dict[str, list[Statement]]:
    """Deal shuffled statements out to splits by their subjects, in proportion to ``shares``."""
    names, weights = list(shares), list(shares.values())
    dealt: dict[str, list[Statement]] = {name: [] for name in names}
    for statement in statements:
        subject = statement[0]
        rng = Random(mix(seed, len(subject.kind), subject.number))
        dealt[rng.choices(names, weights)[0]].append(statement)
    for chosen in dealt.values():
        Random(seed).shuffle(chosen)
    return dealt


def _by_fame(statements: Iterable[Statement], realm: Realm, fame: Fame, seed: int) -> Iterator[Statement]:
    """All statements about famous entities; then the others, taken in turn from each doubling of the number of
    documents about the subject; both in random order."""
    famous: list[Statement] = []
    octaves: dict[int, list[Statement]] = defaultdict(list)
    for statement in statements:
        subject = statement[0]
        if fame.covers(realm, subject):
            famous.append(statement)
        else:
            octaves[fame.documents(subject.kind, realm.rank(subject)).bit_length()].append(statement)
    for chosen in (famous, *octaves.values()):
        Random(seed).shuffle(chosen)
    yield from famous
    for row in zip_longest(*octaves.values()):
        yield from (statement for statement in row if statement is not None)
