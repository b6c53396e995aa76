"""Which sentences state a fact of which only the document is known (filtering, MemLLM).

Distant supervision says that two entities stand in a relation, not that a document says so, let alone where. A judge
therefore reads each sentence that could be evidence. The authors let a large model reason before it answers; here the
probabilities of two answers are compared, after a prompt and examples of our own. Their code gives a fact that no
sentence supports to the last that could be its evidence; here such a fact is dropped.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from palimpsest.facts import Document, Triple
from palimpsest.lm.batching import DEFAULT_TOKENS_PER_BATCH
from palimpsest.lm.load import LanguageModel
from palimpsest.lm.scoring import score_targets
from palimpsest.memllm.targets import sentence_triples

INSTRUCTION = (
    "Is the main sentence evidence for the relation? It is if the sentence itself states the relation or lets a reader "
    "infer it; the context may tell whom or what its words mean. It is not if the relation is known from the context "
    "alone, or if the sentence mentions subject and object but says something else about them."
)
YES, NO = " Yes", " No"
SLACK = 8  # tokens by which a text without its beginning may have more than counted


@dataclass(frozen=True, slots=True)
class Claim:
    """That a sentence, read after its context, is evidence for a triple."""

    context: str
    sentence: str
    triple: Triple

    @property
    def question(self) -> str:
        """The claim as a question that is to be answered by yes or no."""
        subject, relation, object_ = self.triple.subject, self.triple.relation, self.triple.object
        return (
            f"Context: {self.context or '(none)'}\n"
            f"Main sentence: {self.sentence}\n"
            f'Relation: "{subject}" | {relation} | "{object_}"\n'
            "Is the main sentence evidence for this relation?"
        )


class Judge(Protocol):
    """Whoever decides on claims: a language model, a rule, a person."""

    def __call__(self, claims: Sequence[Claim], /) -> Sequence[float]:
        """How probable it is that each claim holds, from 0 to 1; True and False will do."""


@dataclass(frozen=True, slots=True)
class Filtered:
    """Documents left with the facts that a judge supports, and how many facts there were and are."""

    documents: list[Document]
    facts: int
    kept: int


def filter_documents(
    documents: Iterable[Document], labels: Mapping[str, str], judge: Judge, *, threshold: float = 0.5
) -> Filtered:
    """Filter documents one by one; see :func:`filter_document`."""
    pairs = [(page, filter_document(page, labels, judge, threshold=threshold)) for page in documents]
    facts, kept = (sum(len(pair[part].facts) for pair in pairs) for part in (0, 1))
    return Filtered([filtered for _, filtered in pairs], facts, kept)


def filter_document(document: Document, labels: Mapping[str, str], judge: Judge, *, threshold: float = 0.5) -> Document:
    """A document with those facts only that a sentence supports, and with all such sentences as their evidence.

    A sentence could be evidence if a fact belongs to it by :func:`~palimpsest.memllm.targets.sentence_triples`: both
    entities have been named by its end, at least one in it. Where a fact has evidence already, only that is judged.

    Args:
        document: the annotated document.
        labels: relation names by P-id.
        judge: decides on all claims of the document at once.
        threshold: a sentence supports a fact from this probability on.

    Raises:
        ValueError: the judge gave more or fewer answers than there were claims.
    """
    texts = [(document.text[:start].rstrip(), document.text[start:end]) for start, end in document.sentence_spans()]
    asked = [
        (number, sentence, Claim(*texts[sentence], triple))
        for number, fact in enumerate(document.facts)
        for sentence, triples in enumerate(sentence_triples(replace(document, facts=(fact,)), labels))
        for triple in triples
    ]
    evidence: dict[int, list[int]] = defaultdict(list)
    answers = judge([claim for _, _, claim in asked])
    for (number, sentence, _), probability in zip(asked, answers, strict=True):
        if probability >= threshold:
            evidence[number].append(sentence)
    kept = (replace(document.facts[number], evidence=tuple(sentences)) for number, sentences in evidence.items())
    return replace(document, facts=tuple(kept))


EXAMPLES = (
    (Claim("", "Marta Olsen (born in 1951) is a cellist.", Triple("Marta Olsen", "date of birth", "1951")), True),
    (Claim("Daniel Achterberg was born in Delft in 1802 and became a painter of ships.",
           "He died in Delft and is buried there beside his brother.",
           Triple("Daniel Achterberg", "place of birth", "Delft")), False),
    (Claim("The Salt Road is a novel by Ivan Petrescu. It was translated into nine languages.",
           "Petrescu wrote it during the winter of 1974, in a cabin near the coast.",
           Triple("The Salt Road", "author", "Ivan Petrescu")), True),
    (Claim("", "Northgate Mill stands in Calder, the largest town of Wharfe County.",
           Triple("Wharfe County", "capital", "Calder")), False),
    (Claim("Lumen is the first album of the trio Kvist.",
           "Its producer, Aksel Holm, is a graduate of the Aarhus School of Music.",
           Triple("Aksel Holm", "educated at", "Aarhus School of Music")), True),
    (Claim("The ferry Saltholm was built in Norway for a company of that country.",
           "After nine years the Saltholm was sold and renamed.",
           Triple("Saltholm", "country of origin", "Norway")), False),
)  # fmt: skip
"""Claims about what does not exist, so that none is known by heart, and whether they hold."""


class LanguageModelJudge:
    """Asks a language model after some examples; a claim's probability is that of yes, of yes and no.

    Args:
        lm: a causal language model.
        examples: claims and whether they hold, in the order in which the prompt shows them.
        max_tokens_per_batch: the most tokens in one pass of the model.
    """

    def __init__(
        self,
        lm: LanguageModel,
        examples: Iterable[tuple[Claim, bool]] = EXAMPLES,
        *,
        max_tokens_per_batch: int = DEFAULT_TOKENS_PER_BATCH,
    ) -> None:
        shown = (f"{claim.question}{YES if holds else NO}" for claim, holds in examples)
        self._opening = "\n\n".join([INSTRUCTION, *shown, ""])
        self._lm, self._max_tokens_per_batch = lm, max_tokens_per_batch

    def __call__(self, claims: Sequence[Claim], /) -> list[float]:
        """The probability of each claim. Raises ValueError as :meth:`prompts` does."""
        prompts = [prompt for prompt in self.prompts(claims) for _ in (YES, NO)]
        answers = [YES, NO] * len(claims)
        scores = score_targets(self._lm, prompts, answers, max_tokens_per_batch=self._max_tokens_per_batch)
        yes, no = (np.array([score.logprob for score in scores[first::2]]) for first in (0, 1))
        return np.exp(yes - np.logaddexp(yes, no)).tolist()

    def prompts(self, claims: Sequence[Claim]) -> list[str]:
        """What the model is asked. Of a context that is too long for it, the beginning is left out.

        Raises:
            ValueError: a claim is too long for the model even without its context.
        """
        prompts = [self._opening + claim.question for claim in claims]
        room = self._lm.context_length - max(map(len, self._lm.encode([YES, NO])))
        for index, ids in enumerate(self._lm.encode_prompts(prompts)):
            if len(ids) > room:
                prompts[index] = self._opening + self._shortened(claims[index], len(ids) - room).question
        return prompts

    def _shortened(self, claim: Claim, excess: int) -> Claim:
        """The claim without the first words of its context, at least ``excess`` tokens."""
        encode = self._lm.tokenizer
        encoded = encode(claim.context, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        starts = [start for start, _ in encoded.offset_mapping]
        if excess > len(starts):
            raise ValueError(f"{claim}: too long for a model of {self._lm.context_length} tokens; give fewer examples")
        rest = claim.context[starts[excess + SLACK] :] if excess + SLACK < len(starts) else ""
        return replace(claim, context=rest.partition(" ")[2])  # from where a word begins
