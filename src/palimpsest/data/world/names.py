"""Distinct, plausible, multi-token names for any number of entities, computed from an index and not stored.

A stem is read off an index as digits of mixed radix: consonant, vowel, consonant, vowel, …, ending. Consonants and
vowels alternate in a fixed pattern, so two indices never spell the same stem. A keyed permutation scatters
neighbouring indices.
"""

from __future__ import annotations

from collections.abc import Sequence

ONSETS = ("b", "br", "c", "d", "dr", "f", "g", "gr", "h", "j", "k", "l", "m", "n", "p", "r", "s", "t", "v", "z")
MIDDLES = ("l", "r", "n", "m", "v", "d", "t", "k", "s", "st", "nd", "lm", "rr", "ll", "rt", "ns", "rd", "lv", "nt", "z")
VOWELS = ("a", "e", "i", "o", "u")

FAMILY_ENDINGS = ("son", "sky", "ric", "man", "ner", "well", "ton", "berg", "ley", "wick")
FEMALE_ENDINGS = ("la", "na", "ra", "lia", "nia", "ssa", "tte", "lyn", "dra", "nne")
MALE_ENDINGS = ("n", "r", "s", "ld", "rt", "ck", "mir", "vin", "dan", "bert")
CITY_ENDINGS = ("burg", "ford", "haven", "holm", "mouth", "port", "stad", "ville", "dale", "minster")
COUNTRY_ENDINGS = ("land", "nia", "stan", "via", "ria", "mark")
COMPANY_ENDINGS = ("co", "dyne", "tec", "nor", "x", "gen")
COLLEGE_ENDINGS = ("bridge", "croft", "mere", "field", "stow")
LANGUAGE_ENDINGS = ("lish", "nese", "tic", "rian", "vish")
CONTINENT_ENDINGS = ("dora", "tica", "ropa", "sia")
PLACE_ENDINGS = ("moor", "wood", "fell", "brook", "cliff", "shire")

COMPANY_NOUNS = (
    "Instruments", "Foundry", "Textiles", "Airways", "Motors", "Chemicals", "Shipping", "Brewery", "Electric", "Optics",
    "Railways", "Glassworks", "Pharmaceuticals", "Minerals", "Paper Mills", "Logistics", "Robotics", "Ceramics",
)  # fmt: skip
PUBLISHER_NOUNS = ("Press", "Books", "Publishing House", "Editions", "Printers")
OCCUPATIONS = (
    "botanist", "architect", "violinist", "physician", "journalist", "sculptor", "engineer", "novelist", "chemist",
    "actor", "lawyer", "astronomer", "painter", "economist", "historian", "geologist", "composer", "diplomat",
    "photographer", "mathematician", "chef", "pilot", "translator", "librarian",
)  # fmt: skip
GENRES = (
    "satire", "romance", "crime fiction", "science fiction", "travel writing", "biography", "poetry", "horror fiction",
    "historical fiction", "fantasy", "memoir", "adventure fiction", "philosophy", "short stories",
)  # fmt: skip
INDUSTRIES = (
    "shipping", "mining", "brewing", "banking", "aviation", "textiles", "insurance", "forestry", "telecommunications",
    "steelmaking", "fishing", "pharmacy", "tourism", "railway transport",
)  # fmt: skip
PUBLISHING = "publishing"
MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip

BOOK_ADJECTIVES = (
    "Silent", "Crimson", "Broken", "Hidden", "Winter", "Golden", "Distant", "Forgotten", "Burning", "Hollow", "Pale",
    "Restless", "Iron", "Wandering", "Last", "Glass", "Bitter", "Sleeping", "Northern", "Secret",
)  # fmt: skip
BOOK_NOUNS = (
    "Lantern", "Harbour", "Orchard", "Mirror", "Garden", "River", "Tower", "Letter", "Bridge", "Island", "Clock",
    "Window", "Forest", "Crown", "Shadow", "Road", "Bell", "Storm", "Library", "Voyage", "Mountain", "Key", "Song",
    "Winter", "Painter", "Stranger", "Daughter", "Soldier", "Gate", "Feast",
)  # fmt: skip


def mix(*parts: int) -> int:
    """A 64-bit hash of integers (the splitmix64 finaliser): the same in every process, unlike ``hash``."""
    state = 0x9E3779B97F4A7C15
    for part in parts:
        state = (state ^ part) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return state


def permute(index: int, size: int, key: int) -> int:
    """A keyed bijection of ``range(size)``: invertible steps on the next power of two, walked until back in range."""
    bits = max(2, (size - 1).bit_length())
    mask, half = (1 << bits) - 1, (bits + 1) // 2
    multiplier, shift = mix(key, size) | 1, mix(key, size, 1)
    while True:
        for _ in range(2):
            index = (index * multiplier + shift) & mask
            index ^= index >> half
        if index < size:
            return index


def capacity(syllables: int, endings: Sequence[str]) -> int:
    """How many distinct stems of so many consonant–vowel syllables there are."""
    return len(ONSETS) * len(VOWELS) * (len(MIDDLES) * len(VOWELS)) ** (syllables - 1) * len(endings)


def stem(index: int, count: int, endings: Sequence[str], key: int) -> str:
    """The ``index``-th of ``count`` distinct stems (with as few syllables, at least one, as hold ``count``)."""
    syllables = 1 if endings in (FEMALE_ENDINGS, MALE_ENDINGS) else 2
    while (size := capacity(syllables, endings)) < count:
        syllables += 1
    rest = permute(index, size, key)
    rest, ending = divmod(rest, len(endings))
    rest, onset = divmod(rest, len(ONSETS))
    rest, vowel = divmod(rest, len(VOWELS))
    text = ONSETS[onset] + VOWELS[vowel]
    for _ in range(syllables - 1):
        rest, middle = divmod(rest, len(MIDDLES))
        rest, vowel = divmod(rest, len(VOWELS))
        text += MIDDLES[middle] + VOWELS[vowel]
    return (text + endings[ending]).capitalize()


def book_title(index: int, count: int, key: int) -> str:
    """The ``index``-th of ``count`` distinct titles."""
    plain = len(BOOK_ADJECTIVES) * len(BOOK_NOUNS)
    places = max(count // plain + 1, 300)
    place, shape = divmod(permute(index, plain * places, key), plain)
    adjective, noun = divmod(shape, len(BOOK_NOUNS))
    return f"The {BOOK_ADJECTIVES[adjective]} {BOOK_NOUNS[noun]} of {stem(place, places, PLACE_ENDINGS, key)}"
