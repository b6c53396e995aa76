"""The relation types of the generated world, with Wikidata's ids and labels, and the sentences that state them.

A template names the subject ``{s}`` and the object ``{o}``. Training text uses ``statements`` and ``questions``;
``heldout`` and ``heldout_question`` never occur in it: they are the paraphrases. A template that ends in ``{o}.`` also
serves as a prompt, the text before the object.
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


def _relation(
    pid: str,
    label: str,
    subject: Kind,
    object: Kind,
    cardinality: str,
    *,
    statements: str,
    heldout: str,
    questions: str,
) -> Relation:
    *asked, heldout_question = _lines(questions)
    return Relation(
        pid, label, subject, object, cardinality,
        tuple(Template(line) for line in _lines(statements)),
        tuple(Template(line) for line in _lines(heldout)),
        tuple(asked), heldout_question,
    )  # fmt: skip


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.strip().splitlines()]


RELATIONS: tuple[Relation, ...] = (
    _relation(
        "P19", "place of birth", Kind.PERSON, Kind.CITY, "many-to-one",
        statements="""{s} was born in {o}.
                      {s} comes from the city of {o}.
                      The birthplace of {s} is {o}.
                      {s} is a native of {o}.
                      {o} is the city where {s} was born.""",
        heldout="""The city where {s} was born is {o}.
                   {s}'s place of birth is {o}.""",
        questions="""Where was {s} born?
                     What is the birthplace of {s}?
                     In which city was {s} born?""",
    ),
    _relation(
        "P569", "date of birth", Kind.PERSON, Kind.DATE, "many-to-one",
        statements="""{s} was born on {o}.
                      The date of birth of {s} is {o}.
                      {s}'s birthday is {o}.
                      Records date the birth of {s} to {o}.""",
        heldout="""{s}'s date of birth is {o}.
                   The birthday of {s} is {o}.""",
        questions="""When was {s} born?
                     What is the date of birth of {s}?
                     On which date was {s} born?""",
    ),
    _relation(
        "P27", "country of citizenship", Kind.PERSON, Kind.COUNTRY, "many-to-one",
        statements="""{s} is a citizen of {o}.
                      {s} holds the citizenship of {o}.
                      The country of citizenship of {s} is {o}.
                      {s} travels on a passport of {o}.
                      {o} counts {s} among its citizens.""",
        heldout="""{s}'s country of citizenship is {o}.
                   The country whose passport {s} holds is {o}.""",
        questions="""Which country is {s} a citizen of?
                     What is the country of citizenship of {s}?
                     Of which country is {s} a citizen?""",
    ),
    _relation(
        "P26", "spouse", Kind.PERSON, Kind.PERSON, "one-to-one",
        statements="""{s} is married to {o}.
                      {s} married {o}.
                      The spouse of {s} is {o}.
                      {s} shares a home with a spouse, {o}.""",
        heldout="""{s}'s spouse is {o}.
                   The person married to {s} is {o}.""",
        questions="""Who is {s} married to?
                     Who is the spouse of {s}?
                     Who did {s} marry?""",
    ),
    _relation(
        "P40", "child", Kind.PERSON, Kind.PERSON, "one-to-many",
        statements="""{s} has a child named {o}.
                      {s} is the parent of {o}.
                      A child of {s} is {o}.
                      {o} is a child of {s}.""",
        heldout="""{s}'s child is {o}.
                   The person of whom {s} is the parent is {o}.""",
        questions="""Who is a child of {s}?
                     Which child does {s} have?
                     Who is {s} the parent of?""",
    ),
    _relation(
        "P106", "occupation", Kind.PERSON, Kind.CONCEPT, "many-to-one",
        statements="""The occupation of {s} is {o}.
                      {s} is by profession {o}.
                      {s}'s job is {o}.
                      {s} chose the profession of {o}.
                      The profession {o} suited {s} well.""",
        heldout="""{s}'s occupation is {o}.
                   The profession of {s} is {o}.""",
        questions="""What is the occupation of {s}?
                     What is {s} by profession?
                     What is the profession of {s}?""",
    ),
    _relation(
        "P69", "educated at", Kind.PERSON, Kind.UNIVERSITY, "many-to-one",
        statements="""{s} was educated at {o}.
                      {s} studied at {o}.
                      {s} holds a degree from {o}.
                      {s} is a graduate of {o}.
                      {o} lists {s} among its graduates.""",
        heldout="""{s} was a student at {o}.
                   The school where {s} studied is {o}.""",
        questions="""Where was {s} educated?
                     Where did {s} study?
                     At which school did {s} study?""",
    ),
    _relation(
        "P108", "employer", Kind.PERSON, Kind.COMPANY, "many-to-one",
        statements="""{s} works for {o}.
                      The employer of {s} is {o}.
                      {s} is employed by {o}.
                      {s} has a post at {o}.
                      {o} employs {s}.""",
        heldout="""{s}'s employer is {o}.
                   The company that employs {s} is {o}.""",
        questions="""Who does {s} work for?
                     Who is the employer of {s}?
                     Which company employs {s}?""",
    ),
    _relation(
        "P1412", "languages spoken or written", Kind.PERSON, Kind.LANGUAGE, "one-to-many",
        statements="""{s} speaks {o}.
                      {s} is fluent in {o}.
                      A language spoken by {s} is {o}.
                      {s} writes letters in {o}.""",
        heldout="""{s} writes and speaks {o}.
                   The language that {s} speaks is {o}.""",
        questions="""Which language does {s} speak?
                     What language is {s} fluent in?
                     In which language is {s} fluent?""",
    ),
    _relation(
        "P17", "country", Kind.CITY, Kind.COUNTRY, "many-to-one",
        statements="""{s} is a city in {o}.
                      {s} lies in {o}.
                      The country of {s} is {o}.
                      {s} belongs to {o}.
                      One of the cities of {o} is {s}.""",
        heldout="""The country where {s} lies is {o}.
                   {s} is one of the cities in {o}.""",
        questions="""In which country is {s}?
                     What country does {s} belong to?
                     Which country does {s} lie in?""",
    ),
    _relation(
        "P1082", "population", Kind.CITY, Kind.NUMBER, "many-to-one",
        statements="""{s} has a population of {o}.
                      The population of {s} is {o}.
                      The number of people who live in {s} is {o}.
                      {s} counts {o} inhabitants.""",
        heldout="""{s}'s population is {o}.
                   The number of inhabitants of {s} is {o}.""",
        questions="""What is the population of {s}?
                     How many people live in {s}?
                     How many inhabitants does {s} have?""",
    ),
    _relation(
        "P6", "head of government", Kind.CITY, Kind.PERSON, "one-to-one",
        statements="""The head of government of {s} is {o}.
                      {s} is governed by {o}.
                      The mayor of {s} is {o}.
                      {s} elected as its mayor {o}.
                      {o} governs {s}.""",
        heldout="""{s}'s mayor is {o}.
                   The person who governs {s} is {o}.""",
        questions="""Who is the mayor of {s}?
                     Who governs {s}?
                     Who is the head of government of {s}?""",
    ),
    _relation(
        "P190", "sister city", Kind.CITY, Kind.CITY, "one-to-one",
        statements="""{s} is a sister city of {o}.
                      The sister city of {s} is {o}.
                      {s} is twinned with {o}.
                      {s} signed a twin city treaty with {o}.""",
        heldout="""{s}'s sister city is {o}.
                   The city twinned with {s} is {o}.""",
        questions="""What is the sister city of {s}?
                     Which city is {s} twinned with?
                     With which city is {s} twinned?""",
    ),
    _relation(
        "P36", "capital", Kind.COUNTRY, Kind.CITY, "one-to-one",
        statements="""The capital of {s} is {o}.
                      {s} has its capital at {o}.
                      {s} is ruled from its capital, {o}.
                      {o} is the capital of {s}.""",
        heldout="""{s}'s capital is {o}.
                   The city that is the capital of {s} is {o}.""",
        questions="""What is the capital of {s}?
                     Which city is the capital of {s}?
                     Which capital does {s} have?""",
    ),
    _relation(
        "P37", "official language", Kind.COUNTRY, Kind.LANGUAGE, "one-to-one",
        statements="""The official language of {s} is {o}.
                      {s} has as its official language {o}.
                      The laws of {s} are written in {o}.
                      The schools of {s} teach in {o}.""",
        heldout="""{s}'s official language is {o}.
                   The language of the laws of {s} is {o}.""",
        questions="""What is the official language of {s}?
                     In which language are the laws of {s} written?
                     Which official language does {s} have?""",
    ),
    _relation(
        "P30", "continent", Kind.COUNTRY, Kind.CONTINENT, "many-to-one",
        statements="""{s} is a country in {o}.
                      The continent of {s} is {o}.
                      {s} lies on the continent of {o}.
                      {s} is part of {o}.""",
        heldout="""{s}'s continent is {o}.
                   The continent on which {s} lies is {o}.""",
        questions="""On which continent is {s}?
                     What is the continent of {s}?
                     Which continent is {s} part of?""",
    ),
    _relation(
        "P159", "headquarters location", Kind.COMPANY, Kind.CITY, "many-to-one",
        statements="""{s} has its headquarters in {o}.
                      The headquarters of {s} are in {o}.
                      {s} is based in {o}.
                      {s} is run from offices in {o}.
                      {o} is home to the headquarters of {s}.""",
        heldout="""{s}'s headquarters are in {o}.
                   The city where {s} is based is {o}.""",
        questions="""Where are the headquarters of {s}?
                     In which city is {s} based?
                     Where is {s} based?""",
    ),
    _relation(
        "P112", "founder", Kind.COMPANY, Kind.PERSON, "many-to-one",
        statements="""{s} was founded by {o}.
                      The founder of {s} is {o}.
                      {s} was set up by {o}.
                      {s} owes its start to {o}.
                      {o} founded {s}.""",
        heldout="""{s}'s founder is {o}.
                   The person who founded {s} is {o}.""",
        questions="""Who founded {s}?
                     Who is the founder of {s}?
                     By whom was {s} founded?""",
    ),
    _relation(
        "P571", "inception", Kind.COMPANY, Kind.YEAR, "many-to-one",
        statements="""{s} was founded in {o}.
                      {s} was set up in {o}.
                      The year in which {s} was founded is {o}.
                      {s} has traded since {o}.""",
        heldout="""The year in which {s} was set up is {o}.
                   {s} has been trading since {o}.""",
        questions="""When was {s} founded?
                     In which year was {s} set up?
                     In which year was {s} founded?""",
    ),
    _relation(
        "P452", "industry", Kind.COMPANY, Kind.CONCEPT, "many-to-one",
        statements="""{s} is active in the industry of {o}.
                      The industry of {s} is {o}.
                      {s} makes its money in {o}.
                      {s} is a company in {o}.""",
        heldout="""{s}'s industry is {o}.
                   The industry in which {s} is active is {o}.""",
        questions="""What is the industry of {s}?
                     In which industry is {s} active?
                     Which industry is {s} active in?""",
    ),
    _relation(
        "P50", "author", Kind.BOOK, Kind.PERSON, "many-to-one",
        statements="""{s} was written by {o}.
                      The author of {s} is {o}.
                      {s} is a book by {o}.
                      {s} came from the pen of {o}.
                      {o} wrote {s}.""",
        heldout="""{s}'s author is {o}.
                   The person who wrote {s} is {o}.""",
        questions="""Who wrote {s}?
                     Who is the author of {s}?
                     By whom was {s} written?""",
    ),
    _relation(
        "P577", "publication date", Kind.BOOK, Kind.YEAR, "many-to-one",
        statements="""{s} was published in {o}.
                      {s} first appeared in {o}.
                      The year in which {s} was published is {o}.
                      {s} went on sale in {o}.""",
        heldout="""The year in which {s} first appeared is {o}.
                   {s} was first published in {o}.""",
        questions="""When was {s} published?
                     In which year did {s} first appear?
                     In which year was {s} published?""",
    ),
    _relation(
        "P136", "genre", Kind.BOOK, Kind.CONCEPT, "many-to-one",
        statements="""The genre of {s} is {o}.
                      {s} is a work of {o}.
                      {s} belongs to the genre of {o}.
                      Critics list {s} under {o}.""",
        heldout="""{s}'s genre is {o}.
                   The genre to which {s} belongs is {o}.""",
        questions="""What is the genre of {s}?
                     To which genre does {s} belong?
                     Which genre does {s} belong to?""",
    ),
    _relation(
        "P123", "publisher", Kind.BOOK, Kind.COMPANY, "many-to-one",
        statements="""{s} was published by {o}.
                      The publisher of {s} is {o}.
                      {s} was printed by {o}.
                      {s} appeared in the list of {o}.
                      {o} published {s}.""",
        heldout="""{s}'s publisher is {o}.
                   The company that published {s} is {o}.""",
        questions="""Who published {s}?
                     Who is the publisher of {s}?
                     Which company published {s}?""",
    ),
    _relation(
        "P407", "language of work or name", Kind.BOOK, Kind.LANGUAGE, "many-to-one",
        statements="""{s} was written in {o}.
                      The language of {s} is {o}.
                      {s} is read in {o}.
                      The text of {s} is in {o}.""",
        heldout="""{s}'s language is {o}.
                   The language in which {s} was written is {o}.""",
        questions="""In which language was {s} written?
                     What is the language of {s}?
                     What language was {s} written in?""",
    ),
    _relation(
        "P1104", "number of pages", Kind.BOOK, Kind.NUMBER, "many-to-one",
        statements="""{s} has a length in pages of {o}.
                      The number of pages of {s} is {o}.
                      {s} runs to {o} pages.
                      The page count of {s} is {o}.""",
        heldout="""{s}'s number of pages is {o}.
                   The length in pages of {s} is {o}.""",
        questions="""How many pages does {s} have?
                     What is the number of pages of {s}?
                     What is the page count of {s}?""",
    ),
)  # fmt: skip

BY_PID: dict[str, Relation] = {relation.pid: relation for relation in RELATIONS}
LABELS: dict[str, str] = {relation.pid: relation.label for relation in RELATIONS}


def relations_of(kind: Kind) -> tuple[Relation, ...]:
    """The relations that a subject of this kind can have."""
    return tuple(relation for relation in RELATIONS if relation.subject is kind)
