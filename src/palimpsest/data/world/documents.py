"""Documents about the entities of a realm: facts, asides about related entities, pronouns, aliases and filler."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from palimpsest.data.world.relations import DOCRED_TYPE, Kind, Relation, Template
from palimpsest.data.world.universe import Realm, Thing
from palimpsest.facts import Document, Entity, Fact, Mention

SENTENCES = (5, 10)
ASIDE = 0.15  # probability that a fact about the main entity is followed by one about its object
FILLER = 0.06  # probability that a sentence is followed by one that states nothing
RESTATED_AT_ONCE = 0.5  # of the documents that state everything twice; the others start over
PRONOUN, ALIAS = 0.25, 0.12  # how an entity is mentioned again; otherwise by its full name

FILLERS = tuple(
    Template(text)
    for text in (
        "Little more is known about {s}.",
        "Several articles mention {s}.",
        "{s} is often in the news.",
        "{s} has many admirers and a few critics.",
        "Visitors still ask about {s}.",
        "This is well known.",
        "The records on this point are good.",
        "Much has been said about it since.",
        "Not everyone agrees on the details.",
        "The newspapers wrote about it for weeks.",
    )
)

Statement = tuple[Thing, Relation, Thing]
Say = Callable[[Statement, Random], None]


def write_document(realm: Realm, main: Thing, rng: Random, restated: bool = False) -> Document:
    """A document of 5 to 10 sentences about ``main``; the annotations list exactly what the sentences state.

    One that is ``restated`` says everything twice and is twice as long: in two wordings, or once in words and once as a
    record, *subject>> relation>> object*, which is how a memory call names a triple.
    """
    page = _Page(realm, main)
    count = rng.randint(*SENTENCES)
    statements = _plan(realm, main, rng, count)
    plan: list[tuple[Statement, Say]] = [(statement, page.state) for statement in statements]
    if restated:
        count, plan = 2 * count, _twice(page, statements, rng)
    for statement, say in plan:
        if len(page.sentences) == count:
            break
        say(statement, rng)
        if len(page.sentences) < count and rng.random() < FILLER:
            page.fill(rng)
    while len(page.sentences) < SENTENCES[0]:
        page.fill(rng)
    return page.document()


def write_questions(realm: Realm, main: Thing, rng: Random) -> str:
    """A line of questions about ``main``, each followed by its answer."""
    name = realm.universe.name
    facts = list(realm.facts(main))
    rng.shuffle(facts)
    return " ".join(
        f"{rng.choice(relation.questions).replace('{s}', name(main))} {name(thing)}."
        for relation, thing in facts[: rng.randint(3, 6)]
    )


def _plan(realm: Realm, main: Thing, rng: Random, count: int) -> list[Statement]:
    """What to say: facts of ``main`` in random order with asides; more asides where it has too few facts."""
    own = list(realm.facts(main))
    rng.shuffle(own)
    plan: list[Statement] = []
    for relation, thing in own:
        plan.append((main, relation, thing))
        if rng.random() < ASIDE:
            plan.extend(_aside(realm, thing, rng, plan))
    for subject in [thing for _, _, thing in plan]:
        if len(plan) >= count:
            break
        plan.extend(_aside(realm, subject, rng, plan))
    return plan[:count]


def _twice(page: _Page, statements: list[Statement], rng: Random) -> list[tuple[Statement, Say]]:
    """Each statement again: at once, or all of them in the end, in another order."""
    # A record of what was just said is the commonest, as most of writing a memory is that.
    forms: list[tuple[Say, Say]] = [(page.state, page.state), (page.record, page.state), (page.state, page.record)]
    first, second = rng.choices(forms, (1, 1, 2))[0]
    if rng.random() < RESTATED_AT_ONCE:
        return [(statement, say) for statement in statements for say in (first, second)]
    again = rng.sample(statements, len(statements))
    return [(statement, first) for statement in statements] + [(statement, second) for statement in again]


def _aside(realm: Realm, subject: Thing, rng: Random, said: list[Statement]) -> list[Statement]:
    """At most one fact about ``subject`` that has not been said, in either direction."""
    pairs = {frozenset((head, tail)) for head, _, tail in said}
    fresh = [
        (subject, relation, thing)
        for relation, thing in realm.facts(subject)
        if frozenset((subject, thing)) not in pairs
    ]
    return [rng.choice(fresh)] if fresh else []


class _Page:
    """A document while it is written."""

    def __init__(self, realm: Realm, main: Thing) -> None:
        self.realm, self.main = realm, main
        self.sentences: list[tuple[str, ...]] = []
        self.entities: dict[Thing, int] = {}
        self.mentions: list[list[Mention]] = []
        self.wordings: dict[tuple[Thing, str, Thing], dict[str, int]] = {}  # of each fact, each in its sentence
        self.topic: Thing | None = None  # whom a pronoun would mean: the subject of the last sentence

    def state(self, statement: Statement, rng: Random) -> None:
        """State a fact in words that it has not been stated in yet."""
        subject, relation, thing = statement
        wordings = self.wordings.setdefault((subject, relation.pid, thing), {})
        template = rng.choice([template for template in relation.statements if template.text not in wordings])
        wordings[template.text] = len(self.sentences)
        self._write(template, subject, thing, rng)

    def record(self, statement: Statement, rng: Random) -> None:
        """State a fact without words."""
        subject, relation, thing = statement
        name, row = self.realm.universe.name, list[str]()
        self._mention(subject, name(subject), row)
        row += [">>", *relation.label.split(), ">>"]
        self._mention(thing, name(thing), row)
        wordings = self.wordings.setdefault((subject, relation.pid, thing), {})
        wordings["record"] = len(self.sentences)
        self.sentences.append((*row, "."))

    def fill(self, rng: Random) -> None:
        self._write(rng.choice(FILLERS), self.main, None, rng)

    def document(self) -> Document:
        entities = tuple(
            Entity(tuple(mentions), DOCRED_TYPE[thing.kind])
            for thing, mentions in zip(self.entities, self.mentions, strict=True)
        )
        facts = tuple(
            Fact(self.entities[head], relation, self.entities[tail], tuple(wordings.values()))
            for (head, relation, tail), wordings in self.wordings.items()
        )
        return Document(self.realm.universe.name(self.main), tuple(self.sentences), entities, facts)

    def _write(self, template: Template, subject: Thing, thing: Thing | None, rng: Random) -> None:
        out: list[str] = []
        pattern = list(template.tokens)
        while pattern:
            token = pattern.pop(0)
            if token == "{o}" and thing is not None:
                self._mention(thing, self.realm.universe.name(thing), out)
            elif token == "{s}":
                possessive = bool(pattern) and pattern[0] == "'s"
                if pronoun := self._pronoun(subject, possessive, first=not out, rng=rng):
                    out.append(pronoun)
                    if possessive:
                        pattern.pop(0)
                else:
                    self._mention(subject, self._wording(subject, rng), out)
                self.topic = subject
            else:
                out.append(token)
        self.sentences.append(tuple(out))

    def _pronoun(self, subject: Thing, possessive: bool, first: bool, rng: Random) -> str | None:
        """A pronoun where one can stand: at the start of a sentence, for the subject of the sentence before."""
        if not first or subject != self.topic or subject not in self.entities or rng.random() >= PRONOUN:
            return None
        if subject.kind is not Kind.PERSON:
            return "Its" if possessive else "It"
        if self.realm.universe.is_female(subject):
            return "Her" if possessive else "She"
        return "His" if possessive else "He"

    def _wording(self, thing: Thing, rng: Random) -> str:
        name, alias = self.realm.universe.name(thing), self.realm.universe.short_name(thing)
        return alias if alias and thing in self.entities and rng.random() < ALIAS else name

    def _mention(self, thing: Thing, wording: str, out: list[str]) -> None:
        index = self.entities.setdefault(thing, len(self.entities))
        if index == len(self.mentions):
            self.mentions.append([])
        tokens = wording.split()
        self.mentions[index].append(Mention(wording, len(self.sentences), len(out), len(out) + len(tokens)))
        out.extend(tokens)
