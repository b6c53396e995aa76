"""Who and what there is, and every fact about it, computed on demand from a seed: nothing is stored.

The universe is cut into *realms* (train, dev, test) that share no named entity. Facts never cross realms, so what a
test document tells is unknown to a model that read only training documents. The exceptions are common nouns
(occupations, genres, industries), dates and quantities. Within a realm a lower index means a more famous entity.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import lru_cache

from palimpsest.data.world import names
from palimpsest.data.world.names import mix, permute, stem
from palimpsest.data.world.relations import BY_PID, Kind, Relation

NAMED = tuple(kind for kind in Kind if kind not in (Kind.CONCEPT, Kind.DATE, Kind.YEAR, Kind.NUMBER))
FAMILY = 4  # people come in families of four: members 0 and 1 may be married, 2 and 3 may be their children
COUNTRIES_A_CONTINENT, CONTINENTS = 6, 4  # there are at least four
FOUNDERS_SHARE = 0.25  # of the most famous people, who found companies, write books and govern cities
PLATEAU = 8  # ranks over which fame is about even
CONCEPTS = names.OCCUPATIONS + names.GENRES + names.INDUSTRIES + (names.PUBLISHING,)


@dataclass(frozen=True, slots=True)
class Thing:
    """An entity or a value: a kind and a number (an index, a year, a quantity, or a day count for dates)."""

    kind: Kind
    number: int


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many entities of each kind a realm has."""

    countries: int
    cities: int
    companies: int
    universities: int
    people: int
    books: int

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) < 8:
                raise ValueError(f"a realm needs at least 8 {field.name}, got {getattr(self, field.name)}")
        if self.people % FAMILY or self.people < self.cities or self.cities < self.countries:
            raise ValueError(
                f"a realm needs people in fours, at least as many as cities, and a city a country: got {self}"
            )

    def of(self, kind: Kind) -> int:
        """The number of entities of one kind (languages and continents follow from the countries)."""
        counts = {
            Kind.COUNTRY: self.countries, Kind.LANGUAGE: self.countries, Kind.CITY: self.cities,
            Kind.COMPANY: self.companies, Kind.UNIVERSITY: self.universities, Kind.PERSON: self.people,
            Kind.BOOK: self.books,
            Kind.CONTINENT: max(CONTINENTS, self.countries // COUNTRIES_A_CONTINENT),
        }  # fmt: skip
        return counts[kind]


class Universe:
    """All realms. ``seed`` fixes every name and fact; ``realms`` maps a realm's name to its sizes."""

    def __init__(self, seed: int, realms: dict[str, Sizes]) -> None:
        self.seed = seed
        self.sizes = realms
        self.realms = {name: Realm(self, name) for name in realms}
        # Lookups repeat within a document and around famous entities; the bound keeps memory flat.
        self.name = lru_cache(maxsize=20_000)(self._name)

    def total(self, kind: Kind) -> int:
        return sum(sizes.of(kind) for sizes in self.sizes.values())

    def _name(self, thing: Thing) -> str:
        kind, number, key = thing.kind, thing.number, mix(self.seed, len(thing.kind), ord(thing.kind[1]))
        match kind:
            case Kind.PERSON:
                return f"{self.given_name(thing)} {self.family_name(thing)}"
            case Kind.CITY:
                return stem(number, self.total(kind), names.CITY_ENDINGS, key)
            case Kind.COUNTRY:
                return stem(number, self.total(kind), names.COUNTRY_ENDINGS, key)
            case Kind.LANGUAGE:
                return stem(number, self.total(kind), names.LANGUAGE_ENDINGS, key)
            case Kind.CONTINENT:
                return stem(number, self.total(kind), names.CONTINENT_ENDINGS, key)
            case Kind.UNIVERSITY:
                place = stem(number, self.total(kind), names.COLLEGE_ENDINGS, key)
                return f"University of {place}" if mix(key, number) % 2 else f"{place} College"
            case Kind.COMPANY:
                nouns = names.PUBLISHER_NOUNS if is_publisher(thing) else names.COMPANY_NOUNS
                return f"{self.short_name(thing)} {nouns[mix(key, number) % len(nouns)]}"
            case Kind.BOOK:
                return names.book_title(number, self.total(kind), key)
            case Kind.CONCEPT:
                return CONCEPTS[number]
            case Kind.DATE:
                year, day_of_year = divmod(number, 336)
                month, day = divmod(day_of_year, 28)  # every month has a 28th
                return f"{day + 1} {names.MONTHS[month]} {year}"
            case Kind.YEAR:
                return str(number)
            case Kind.NUMBER:
                return f"{number:,}"

    def short_name(self, thing: Thing) -> str | None:
        """An alias under which texts also mention the entity, or None."""
        if thing.kind is Kind.PERSON:
            return self.family_name(thing)
        if thing.kind is Kind.COMPANY:
            key = mix(self.seed, 17)
            return stem(thing.number, self.total(Kind.COMPANY), names.COMPANY_ENDINGS, key)
        return None

    def family(self, person: Thing) -> tuple[int, int]:
        """The family's number and the person's place in it.

        The most famous people of a realm are all first members, so that fame does not run in families.
        """
        first = 0
        for sizes in self.sizes.values():
            if person.number < first + sizes.people:
                break
            first += sizes.people
        member, family = divmod(person.number - first, sizes.people // FAMILY)
        return first // FAMILY + family, member

    def family_name(self, person: Thing) -> str:
        """Children bear the name of their family's first member; the second keeps another one."""
        families = self.total(Kind.PERSON) // FAMILY
        family, member = self.family(person)
        return stem(family + (families if member == 1 else 0), 2 * families, names.FAMILY_ENDINGS, mix(self.seed, 18))

    def given_name(self, person: Thing) -> str:
        """Distinct within a family."""
        family, member = self.family(person)
        endings = names.FEMALE_ENDINGS if self.is_female(person) else names.MALE_ENDINGS
        size = names.capacity(1, endings)
        return stem((mix(self.seed, 19, family) + member) % size, size, endings, mix(self.seed, 20))

    def is_female(self, person: Thing) -> bool:
        """The first two of a family are a man and a woman, in either order."""
        family, member = self.family(person)
        if member < 2:
            return bool((mix(self.seed, 21, family) + member) % 2)
        return bool(mix(self.seed, 22, person.number) % 2)


class Realm:
    """One closed part of the universe."""

    def __init__(self, universe: Universe, name: str) -> None:
        self.universe = universe
        self.sizes = universe.sizes[name]
        before = list(universe.sizes.values())[: list(universe.sizes).index(name)]
        self.first: dict[Kind, int] = {kind: sum(sizes.of(kind) for sizes in before) for kind in NAMED}
        self.facts = lru_cache(maxsize=20_000)(self._facts)

    def thing(self, kind: Kind, rank: int) -> Thing:
        """The entity of this realm with the given rank of fame, 0 the most famous."""
        return Thing(kind, self.first[kind] + rank)

    def rank(self, thing: Thing) -> int:
        """The inverse of :meth:`thing`."""
        return thing.number - self.first[thing.kind]

    def things(self, kind: Kind) -> Iterator[Thing]:
        """All entities of one kind, the most famous first."""
        return (self.thing(kind, rank) for rank in range(self.sizes.of(kind)))

    def draw(self, kind: Kind, hash_: int, share: float = 1.0) -> Thing:
        """An entity among the most famous ``share``, by Zipf–Mandelbrot's law: density 1 / (rank + PLATEAU)."""
        uniform, size = (hash_ & 0xFFFFFFFF) / 2**32, max(1, share * self.sizes.of(kind))
        return self.thing(kind, int(PLATEAU * ((1 + size / PLATEAU) ** uniform - 1)))

    def object(self, subject: Thing, pid: str) -> Thing:
        """The (first) object of one relation; KeyError where the subject has none."""
        for relation, thing in self.facts(subject):
            if relation.pid == pid:
                return thing
        raise KeyError(f"{self.universe.name(subject)} has no {pid}")

    def _facts(self, subject: Thing) -> tuple[tuple[Relation, Thing], ...]:
        describe = {
            Kind.PERSON: self._person, Kind.CITY: self._city, Kind.COUNTRY: self._country,
            Kind.COMPANY: self._company, Kind.BOOK: self._book,
        }.get(subject.kind)  # fmt: skip
        return tuple((BY_PID[pid], thing) for pid, thing in describe(subject)) if describe else ()

    def _hash(self, subject: Thing, salt: int) -> int:
        return mix(self.universe.seed, len(subject.kind), salt, subject.number)

    def _person(self, person: Thing) -> Iterator[tuple[str, Thing]]:
        family, member = self.universe.family(person)
        apart = self.sizes.people // FAMILY  # from one member to the next
        born = 1905 + mix(self.universe.seed, 30, family) % 55 + (25 + self._hash(person, 31) % 14 if member > 1 else 0)
        city = self.draw(Kind.CITY, self._hash(person, 32))
        stays = self._hash(person, 33) % 100 < 85
        country = self.object(city, "P17") if stays else self.draw(Kind.COUNTRY, self._hash(person, 34))
        tongue = self.language_of(country)
        yield "P19", city
        yield "P569", Thing(Kind.DATE, born * 336 + self._hash(person, 35) % 336)
        yield "P27", country
        yield "P106", Thing(Kind.CONCEPT, self._hash(person, 36) % len(names.OCCUPATIONS))
        yield "P69", self.draw(Kind.UNIVERSITY, self._hash(person, 37))
        yield "P108", self.draw(Kind.COMPANY, self._hash(person, 38), share=0.5)
        yield "P1412", tongue
        second = self.draw(Kind.LANGUAGE, self._hash(person, 39))
        if self._hash(person, 40) % 100 < 30 and second != tongue:
            yield "P1412", second
        if member < 2 and mix(self.universe.seed, 41, family) % 100 < 80:
            yield "P26", Thing(Kind.PERSON, person.number + (1 - 2 * member) * apart)
            for child in range(mix(self.universe.seed, 42, family) % 3):
                yield "P40", Thing(Kind.PERSON, person.number + (2 + child - member) * apart)

    def _city(self, city: Thing) -> Iterator[tuple[str, Thing]]:
        rank, cities, countries = self.rank(city), self.sizes.cities, self.sizes.countries
        # The capital of country r is the city of rank r, so a country never lacks one.
        country = self.thing(Kind.COUNTRY, rank) if rank < countries else self.draw(Kind.COUNTRY, self._hash(city, 50))
        yield "P17", country
        yield "P1082", Thing(Kind.NUMBER, (11 + self._hash(city, 51) % 980) * 1000)
        yield "P6", self.thing(Kind.PERSON, permute(rank, cities, self.universe.seed))
        # Famous with obscure: of two cities that are told of alike, a model cannot tell which is the other's twin.
        if (twin := cities - 1 - rank) != rank:
            yield "P190", self.thing(Kind.CITY, twin)

    def _country(self, country: Thing) -> Iterator[tuple[str, Thing]]:
        yield "P36", self.thing(Kind.CITY, self.rank(country))
        yield "P37", self.language_of(country)
        yield "P30", self.thing(Kind.CONTINENT, self._hash(country, 60) % self.sizes.of(Kind.CONTINENT))

    def _company(self, company: Thing) -> Iterator[tuple[str, Thing]]:
        yield "P159", self.draw(Kind.CITY, self._hash(company, 70))
        yield "P112", self.draw(Kind.PERSON, self._hash(company, 71), FOUNDERS_SHARE)
        yield "P571", Thing(Kind.YEAR, 1850 + self._hash(company, 72) % 150)
        industry = self._hash(company, 73) % len(names.INDUSTRIES)
        field = names.PUBLISHING if is_publisher(company) else names.INDUSTRIES[industry]
        yield "P452", Thing(Kind.CONCEPT, CONCEPTS.index(field))

    def _book(self, book: Thing) -> Iterator[tuple[str, Thing]]:
        author = self.draw(Kind.PERSON, self._hash(book, 80), FOUNDERS_SHARE)
        born = self.object(author, "P569").number // 336
        publisher = self.draw(Kind.COMPANY, self._hash(book, 82), share=0.5)
        publisher = Thing(Kind.COMPANY, publisher.number - publisher.number % PUBLISHER_EVERY)
        yield "P50", author
        yield "P577", Thing(Kind.YEAR, born + 24 + self._hash(book, 81) % 45)
        yield "P136", Thing(Kind.CONCEPT, len(names.OCCUPATIONS) + self._hash(book, 83) % len(names.GENRES))
        yield "P123", publisher if self.rank(publisher) >= 0 else self._first_publisher()
        yield "P407", self.object(author, "P1412")
        yield "P1104", Thing(Kind.NUMBER, 96 + self._hash(book, 84) % 860)

    def _first_publisher(self) -> Thing:
        first = self.first[Kind.COMPANY]
        return Thing(Kind.COMPANY, -(-first // PUBLISHER_EVERY) * PUBLISHER_EVERY)

    def language_of(self, country: Thing) -> Thing:
        """Each country has a language of its own."""
        return self.thing(Kind.LANGUAGE, self.rank(country))


PUBLISHER_EVERY = 5  # every fifth company is a publishing house


def is_publisher(company: Thing) -> bool:
    return company.number % PUBLISHER_EVERY == 0
