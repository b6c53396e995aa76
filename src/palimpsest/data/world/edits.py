"""Counterfactual edits and questions about the world, in CounterFact's and ZsRE's sense.

An edit replaces the object of one fact by another entity of the same kind; its neighbours are other subjects of the
same relation with the same true object; its two-hop questions compose the new fact with a fact about the new object.
Neighbours, new objects and what locality asks about are taken from the facts of famous entities, which a language model
can know: whether an edit spoils a fact can be seen only where the model had it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from random import Random

from palimpsest.data.world.names import mix
from palimpsest.data.world.relations import Kind, Relation
from palimpsest.data.world.universe import Realm, Thing
from palimpsest.facts import Edit, Probe

Statement = tuple[Thing, Relation, Thing]

MIN_NEIGHBORS = 1
MAX_NEIGHBORS = 10
SHOWN = 10  # attribute and generation prompts an edit

# How the object of a relation can be named through its subject, to ask about it in a second hop.
PHRASES = {
    "P19": "the city where {s} was born",
    "P27": "the country of citizenship of {s}",
    "P26": "the spouse of {s}",
    "P108": "the employer of {s}",
    "P17": "the country of {s}",
    "P6": "the mayor of {s}",
    "P190": "the sister city of {s}",
    "P36": "the capital of {s}",
    "P159": "the city where {s} is based",
    "P112": "the founder of {s}",
    "P50": "the author of {s}",
    "P123": "the publisher of {s}",
}


def functional_facts(realm: Realm, ranks: Mapping[Kind, int]) -> list[Statement]:
    """The facts with one object only of the first ``ranks`` subjects of each kind."""
    return [
        (subject, relation, thing)
        for kind, count in ranks.items()
        for subject in (realm.thing(kind, rank) for rank in range(min(count, realm.sizes.of(kind))))
        for relation, thing in realm.facts(subject)
        if relation.functional
    ]


class EditWriter:
    """Writes edits whose surroundings are the facts of the ``famous``: a kind's first so many ranks."""

    def __init__(self, realm: Realm, famous: Mapping[Kind, int], seed: int) -> None:
        self.realm, self.seed = realm, seed
        statements = functional_facts(realm, famous)
        self._subjects: dict[tuple[str, Thing], list[Thing]] = defaultdict(list)
        objects: dict[str, dict[Thing, None]] = defaultdict(dict)
        for subject, relation, thing in statements:
            self._subjects[relation.pid, thing].append(subject)
            objects[relation.pid][thing] = None
        self._objects = {pid: list(things) for pid, things in objects.items()}
        self.statements = self.editable(statements)

    def editable(self, statements: Iterable[Statement]) -> list[Statement]:
        """Those whose object can be replaced: not where the relation has one object only, or none."""
        return [statement for statement in statements if len(self._objects.get(statement[1].pid, ())) > 1]

    def edits(self, statements: Iterable[Statement]) -> Iterator[Edit]:
        """CounterFact-like edits of those facts that have enough neighbours (others are passed over)."""
        shared = (statement for statement in statements if len(self._neighbors(statement)) >= MIN_NEIGHBORS)
        return self.recall(shared)

    def recall(self, statements: Iterable[Statement]) -> Iterator[Edit]:
        """The same records for every fact, with or without neighbours: what does the model know before any edit?"""
        return (self._edit(str(number), statement) for number, statement in enumerate(statements))

    def questions(self, statements: Iterable[Statement]) -> Iterator[Edit]:
        """ZsRE-like questions; locality asks about another subject and another relation."""
        name = self.realm.universe.name
        for number, statement in enumerate(statements):
            subject, relation, thing = statement
            rng = self._rng(statement, 1)
            other, other_relation, answer = rng.choice(self.statements)
            while other == subject or other_relation is relation:
                other, other_relation, answer = rng.choice(self.statements)
            yield Edit(
                case_id=str(number),
                subject=name(subject),
                prompt=rng.choice(relation.questions).replace("{s}", name(subject)),
                target_new=name(self._other(statement, rng)),
                target_true=(name(thing),),
                paraphrases=(relation.heldout_question.replace("{s}", name(subject)),),
                neighbors=(Probe(rng.choice(other_relation.questions).replace("{s}", name(other)), name(answer)),),
            )

    def _edit(self, case_id: str, statement: Statement) -> Edit:
        subject, relation, thing = statement
        name, rng = self.realm.universe.name, self._rng(statement, 0)
        new = self._other(statement, rng)
        neighbors = self._neighbors(statement)
        rng.shuffle(neighbors)
        attributes = [other for other in self._subjects[relation.pid, new] if other != subject]
        return Edit(
            case_id=case_id,
            subject=name(subject),
            relation=relation.pid,
            prompt=rng.choice(relation.prompts).prompt(name(subject)),
            target_new=name(new),
            target_true=(name(thing),),
            paraphrases=tuple(template.prompt(name(subject)) for template in relation.heldout),
            neighbors=tuple(
                Probe(rng.choice(relation.prompts).prompt(name(other)), name(thing))
                for other in neighbors[:MAX_NEIGHBORS]
            ),
            attribute_prompts=tuple(rng.choice(relation.prompts).prompt(name(other)) for other in attributes[:SHOWN]),
            generation_prompts=tuple(
                template.prompt(name(subject))
                for other_relation, _ in self.realm.facts(subject)
                for template in other_relation.prompts
            )[:SHOWN],
            portability=tuple(self._two_hop(statement, new, rng)),
        )

    def _two_hop(self, statement: Statement, new: Thing, rng: Random) -> Iterator[Probe]:
        """Questions whose answer changes when ``new`` takes the object's place."""
        subject, relation, thing = statement
        if relation.pid not in PHRASES:
            return
        name = self.realm.universe.name
        phrase = PHRASES[relation.pid].replace("{s}", name(subject))
        before = {second.pid: answer for second, answer in self.realm.facts(thing)}
        for second, answer in self.realm.facts(new):
            templates = [template for template in second.prompts if not template.text.startswith("{s}")]
            if second.functional and templates and second.pid in before and before[second.pid] != answer:
                prompt = rng.choice(templates).prompt(phrase)
                yield Probe(prompt, name(answer), name(before[second.pid]))

    def _neighbors(self, statement: Statement) -> list[Thing]:
        subject, relation, thing = statement
        return [other for other in self._subjects.get((relation.pid, thing), ()) if other != subject]

    def _other(self, statement: Statement, rng: Random) -> Thing:
        """Another object of the same relation, one that famous subjects have."""
        _, relation, thing = statement
        pool = self._objects[relation.pid]
        while (new := rng.choice(pool)) == thing:
            pass
        return new

    def _rng(self, statement: Statement, salt: int) -> Random:
        subject, relation, _ = statement
        return Random(mix(self.seed, salt, subject.number, int(relation.pid[1:])))
