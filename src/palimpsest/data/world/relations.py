"""The relation types of the generated world, with Wikidata's ids and labels, and the sentences that state them.

A template names the subject ``{s}`` and the object ``{o}``. Training text uses ``statements`` and ``questions``;
``heldout`` and ``heldout_question`` never occur in it: they are the paraphrases. Held-out statements are new
combinations of known parts: openings (*The records show that …*) that are taught with other statements or relations.
A template that ends in ``{o}.`` also serves as a prompt, the text before the object.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property


class Kind(StrEnum):
    """What an entity is. The last four are values: dates, years and quantities are not named entities."""

    COUNTRY = "country"
    CITY = "city"
    COMPANY = "company"
    UNIVERSITY = "university"
    PERSON = "person"
    BOOK = "book"
    LANGUAGE = "language"
    CONTINENT = "continent"
    CONCEPT = "concept"
    DATE = "date"
    YEAR = "year"
    NUMBER = "number"


DOCRED_TYPE = {
    Kind.COUNTRY: "LOC", Kind.CITY: "LOC", Kind.COMPANY: "ORG", Kind.UNIVERSITY: "ORG", Kind.PERSON: "PER",
    Kind.BOOK: "MISC", Kind.LANGUAGE: "MISC", Kind.CONTINENT: "LOC", Kind.CONCEPT: "MISC", Kind.DATE: "TIME",
    Kind.YEAR: "TIME", Kind.NUMBER: "NUM",
}  # fmt: skip


@dataclass(frozen=True)
class Template:
    """A sentence pattern, cut into tokens."""

    text: str

    @cached_property
    def tokens(self) -> tuple[str, ...]:
        return tuple(re.findall(r"\{[so]\}|'s|[\w-]+|[^\w\s]", self.text))

    @property
    def is_prompt(self) -> bool:
        """Whether the object comes last, so that what precedes it can be completed."""
        return self.text.endswith("{o}.")

    def prompt(self, subject: str) -> str:
        """The text before the object."""
        return self.text.removesuffix(" {o}.").replace("{s}", subject)


@dataclass(frozen=True)
class Relation:
    """A relation type. ``cardinality`` reads subject-to-object: many-to-one means one object for many subjects."""

    pid: str
    label: str
    subject: Kind
    object: Kind
    cardinality: str
    statements: tuple[Template, ...]
    heldout: tuple[Template, ...]
    questions: tuple[str, ...]
    heldout_question: str

    @property
    def functional(self) -> bool:
        """Whether a subject has exactly one object, so that replacing it makes sense."""
        return self.cardinality in ("one-to-one", "many-to-one")

    @property
    def prompts(self) -> tuple[Template, ...]:
        """The training statements that can serve as prompts."""
        return tuple(template for template in self.statements if template.is_prompt)


OPENINGS = ("The records show that", "It is known that", "As everyone knows,", "According to the papers,")


def _relation(
    pid: str, label: str, subject: Kind, object: Kind, cardinality: str, *, noun: str, statements: str, questions: str
) -> Relation:
    """The first statement begins with the subject. It is taught plainly and after one opening, and held out after
    another; the constructions with ``noun`` are taught plainly, and one of them is held out after a third opening."""
    *asked, heldout_question = _lines(questions)
    plain = [*_lines(statements), f"{{s}}'s {noun} is {{o}}.", f"The {noun} of {{s}} is {{o}}."]
    first = int(pid[1:]) % len(OPENINGS)
    taught, held, other = (OPENINGS[(first + shift) % len(OPENINGS)] for shift in (0, 1, 2))
    return Relation(
        pid,
        label,
        subject,
        object,
        cardinality,
        statements=tuple(map(Template, [*plain, f"{taught} {plain[0]}"])),
        heldout=(Template(f"{held} {plain[0]}"), Template(f"{other} the {noun} of {{s}} is {{o}}.")),
        questions=tuple(asked),
        heldout_question=heldout_question,
    )


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.strip().splitlines()]


RELATIONS: tuple[Relation, ...] = (
    _relation(
        "P19", "place of birth", Kind.PERSON, Kind.CITY, "many-to-one",
        noun="birthplace",
        statements="""{s} was born in {o}.
                      {s} comes from the city of {o}.
                      {s} is a native of {o}.
                      {o} is the city where {s} was born.""",
        questions="""Where was {s} born?
                     What is the birthplace of {s}?
                     In which city was {s} born?""",
    ),
    _relation(
        "P569", "date of birth", Kind.PERSON, Kind.DATE, "many-to-one",
        noun="date of birth",
        statements="""{s} was born on {o}.
                      Records date the birth of {s} to {o}.""",
        questions="""When was {s} born?
                     What is the date of birth of {s}?
                     On which date was {s} born?""",
    ),
    _relation(
        "P27", "country of citizenship", Kind.PERSON, Kind.COUNTRY, "many-to-one",
        noun="country of citizenship",
        statements="""{s} is a citizen of {o}.
                      {s} holds the citizenship of {o}.
                      {s} travels on a passport of {o}.
                      {o} counts {s} among its citizens.""",
        questions="""Which country is {s} a citizen of?
                     What is the country of citizenship of {s}?
                     Of which country is {s} a citizen?""",
    ),
    _relation(
        "P26", "spouse", Kind.PERSON, Kind.PERSON, "one-to-one",
        noun="spouse",
        statements="""{s} is married to {o}.
                      {s} married {o}.
                      {s} shares a home with a spouse, {o}.""",
        questions="""Who is {s} married to?
                     Who is the spouse of {s}?
                     Who did {s} marry?""",
    ),
    _relation(
        "P40", "child", Kind.PERSON, Kind.PERSON, "one-to-many",
        noun="child",
        statements="""{s} has a child named {o}.
                      {s} is the parent of {o}.
                      {o} is a child of {s}.""",
        questions="""Who is a child of {s}?
                     Which child does {s} have?
                     Who is {s} the parent of?""",
    ),
    _relation(
        "P106", "occupation", Kind.PERSON, Kind.CONCEPT, "many-to-one",
        noun="occupation",
        statements="""{s} is by profession {o}.
                      {s} chose the profession of {o}.
                      The profession {o} suited {s} well.""",
        questions="""What is the occupation of {s}?
                     What is {s} by profession?
                     What is the profession of {s}?""",
    ),
    _relation(
        "P69", "educated at", Kind.PERSON, Kind.UNIVERSITY, "many-to-one",
        noun="alma mater",
        statements="""{s} was educated at {o}.
                      {s} studied at {o}.
                      {s} holds a degree from {o}.
                      {s} is a graduate of {o}.
                      {o} lists {s} among its graduates.""",
        questions="""Where was {s} educated?
                     Where did {s} study?
                     At which school did {s} study?""",
    ),
    _relation(
        "P108", "employer", Kind.PERSON, Kind.COMPANY, "many-to-one",
        noun="employer",
        statements="""{s} works for {o}.
                      {s} is employed by {o}.
                      {s} has a post at {o}.
                      {o} employs {s}.""",
        questions="""Who does {s} work for?
                     Who is the employer of {s}?
                     Which company employs {s}?""",
    ),
    _relation(
        "P1412", "languages spoken or written", Kind.PERSON, Kind.LANGUAGE, "one-to-many",
        noun="language",
        statements="""{s} speaks {o}.
                      {s} is fluent in {o}.
                      A language spoken by {s} is {o}.
                      {s} writes letters in {o}.""",
        questions="""Which language does {s} speak?
                     What language is {s} fluent in?
                     In which language is {s} fluent?""",
    ),
    _relation(
        "P17", "country", Kind.CITY, Kind.COUNTRY, "many-to-one",
        noun="country",
        statements="""{s} is a city in {o}.
                      {s} lies in {o}.
                      {s} belongs to {o}.
                      One of the cities of {o} is {s}.""",
        questions="""In which country is {s}?
                     What country does {s} belong to?
                     Which country does {s} lie in?""",
    ),
    _relation(
        "P1082", "population", Kind.CITY, Kind.NUMBER, "many-to-one",
        noun="population",
        statements="""{s} has a population of {o}.
                      The number of people who live in {s} is {o}.
                      {s} counts {o} inhabitants.""",
        questions="""What is the population of {s}?
                     How many people live in {s}?
                     How many inhabitants does {s} have?""",
    ),
    _relation(
        "P6", "head of government", Kind.CITY, Kind.PERSON, "one-to-one",
        noun="mayor",
        statements="""{s} is governed by {o}.
                      {s} elected as its mayor {o}.
                      {o} governs {s}.""",
        questions="""Who is the mayor of {s}?
                     Who governs {s}?
                     Who is the head of government of {s}?""",
    ),
    _relation(
        "P190", "sister city", Kind.CITY, Kind.CITY, "one-to-one",
        noun="sister city",
        statements="""{s} is a sister city of {o}.
                      {s} is twinned with {o}.
                      {s} signed a twin city treaty with {o}.""",
        questions="""What is the sister city of {s}?
                     Which city is {s} twinned with?
                     With which city is {s} twinned?""",
    ),
    _relation(
        "P36", "capital", Kind.COUNTRY, Kind.CITY, "one-to-one",
        noun="capital",
        statements="""{s} has its capital at {o}.
                      {s} is ruled from its capital, {o}.
                      {o} is the capital of {s}.""",
        questions="""What is the capital of {s}?
                     Which city is the capital of {s}?
                     Which capital does {s} have?""",
    ),
    _relation(
        "P37", "official language", Kind.COUNTRY, Kind.LANGUAGE, "one-to-one",
        noun="official language",
        statements="""{s} has as its official language {o}.
                      The laws of {s} are written in {o}.
                      The schools of {s} teach in {o}.""",
        questions="""What is the official language of {s}?
                     In which language are the laws of {s} written?
                     Which official language does {s} have?""",
    ),
    _relation(
        "P30", "continent", Kind.COUNTRY, Kind.CONTINENT, "many-to-one",
        noun="continent",
        statements="""{s} is a country in {o}.
                      {s} lies on the continent of {o}.
                      {s} is part of {o}.""",
        questions="""On which continent is {s}?
                     What is the continent of {s}?
                     Which continent is {s} part of?""",
    ),
    _relation(
        "P159", "headquarters location", Kind.COMPANY, Kind.CITY, "many-to-one",
        noun="base",
        statements="""{s} has its headquarters in {o}.
                      The headquarters of {s} are in {o}.
                      {s} is based in {o}.
                      {s} is run from offices in {o}.
                      {o} is home to the headquarters of {s}.""",
        questions="""Where are the headquarters of {s}?
                     In which city is {s} based?
                     Where is {s} based?""",
    ),
    _relation(
        "P112", "founder", Kind.COMPANY, Kind.PERSON, "many-to-one",
        noun="founder",
        statements="""{s} was founded by {o}.
                      {s} was set up by {o}.
                      {s} owes its start to {o}.
                      {o} founded {s}.""",
        questions="""Who founded {s}?
                     Who is the founder of {s}?
                     By whom was {s} founded?""",
    ),
    _relation(
        "P571", "inception", Kind.COMPANY, Kind.YEAR, "many-to-one",
        noun="founding year",
        statements="""{s} was founded in {o}.
                      {s} was set up in {o}.
                      The year in which {s} was founded is {o}.
                      {s} has traded since {o}.""",
        questions="""When was {s} founded?
                     In which year was {s} set up?
                     In which year was {s} founded?""",
    ),
    _relation(
        "P452", "industry", Kind.COMPANY, Kind.CONCEPT, "many-to-one",
        noun="industry",
        statements="""{s} is active in the industry of {o}.
                      {s} makes its money in {o}.
                      {s} is a company in {o}.""",
        questions="""What is the industry of {s}?
                     In which industry is {s} active?
                     Which industry is {s} active in?""",
    ),
    _relation(
        "P50", "author", Kind.BOOK, Kind.PERSON, "many-to-one",
        noun="author",
        statements="""{s} was written by {o}.
                      {s} is a book by {o}.
                      {s} came from the pen of {o}.
                      {o} wrote {s}.""",
        questions="""Who wrote {s}?
                     Who is the author of {s}?
                     By whom was {s} written?""",
    ),
    _relation(
        "P577", "publication date", Kind.BOOK, Kind.YEAR, "many-to-one",
        noun="publication year",
        statements="""{s} was published in {o}.
                      {s} first appeared in {o}.
                      The year in which {s} was published is {o}.
                      {s} went on sale in {o}.""",
        questions="""When was {s} published?
                     In which year did {s} first appear?
                     In which year was {s} published?""",
    ),
    _relation(
        "P136", "genre", Kind.BOOK, Kind.CONCEPT, "many-to-one",
        noun="genre",
        statements="""{s} is a work of {o}.
                      {s} belongs to the genre of {o}.
                      Critics list {s} under {o}.""",
        questions="""What is the genre of {s}?
                     To which genre does {s} belong?
                     Which genre does {s} belong to?""",
    ),
    _relation(
        "P123", "publisher", Kind.BOOK, Kind.COMPANY, "many-to-one",
        noun="publisher",
        statements="""{s} was published by {o}.
                      {s} was printed by {o}.
                      {s} appeared in the list of {o}.
                      {o} published {s}.""",
        questions="""Who published {s}?
                     Who is the publisher of {s}?
                     Which company published {s}?""",
    ),
    _relation(
        "P407", "language of work or name", Kind.BOOK, Kind.LANGUAGE, "many-to-one",
        noun="language",
        statements="""{s} was written in {o}.
                      {s} is read in {o}.
                      The text of {s} is in {o}.""",
        questions="""In which language was {s} written?
                     What is the language of {s}?
                     What language was {s} written in?""",
    ),
    _relation(
        "P1104", "number of pages", Kind.BOOK, Kind.NUMBER, "many-to-one",
        noun="page count",
        statements="""{s} has a length in pages of {o}.
                      {s} runs to {o} pages.""",
        questions="""How many pages does {s} have?
                     What is the number of pages of {s}?
                     What is the page count of {s}?""",
    ),
)  # fmt: skip

BY_PID: dict[str, Relation] = {relation.pid: relation for relation in RELATIONS}
LABELS: dict[str, str] = {relation.pid: relation.label for relation in RELATIONS}
