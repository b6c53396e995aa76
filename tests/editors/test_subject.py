from __future__ import annotations

import pytest
from tiny_models import tiny_lm
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import PreTrainedTokenizerFast

from palimpsest.editors.subject import locate_subjects
from palimpsest.lm.load import LanguageModel


def sentencepiece() -> PreTrainedTokenizerFast:
    """As the files of Llama 2 are: characters, with spaces as ▁ and one in front."""
    characters = sorted(set("▁The mother tongue of Danielle Darrieux's is"))
    bpe = Tokenizer(models.BPE({c: i for i, c in enumerate(["<unk>", *characters])}, [], unk_token="<unk>"))
    bpe.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    bpe.decoder = decoders.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=bpe, unk_token="<unk>", eos_token="<unk>")


@pytest.mark.parametrize("adds_bos", [False, True])
@pytest.mark.parametrize(
    ("prompt", "subject", "start"),
    [
        ("The mother tongue of Danielle Darrieux is", "Danielle Darrieux", 21),
        ("Danielle Darrieux's tongue", "Danielle Darrieux", 0),
        ("Paris, like Paris, and the Parisian", "Paris", 12),  # the last whole word
        ("Annette and Joanne", "Ann", 0),  # only within a word
        ("Wrote C++ C++", "C++", 10),
        ("The 🙂 is", "🙂", 4),  # several tokens for one character
    ],
)
def test_the_tokens_of_the_subject(prompt: str, subject: str, start: int, adds_bos: bool) -> None:
    lm = tiny_lm(adds_bos=adds_bos)
    [located] = locate_subjects(lm, [prompt], [subject])
    assert list(located.ids) == lm.encode_prompts([prompt])[0]
    read = lambda end: lm.decode([located.ids[adds_bos:end]])[0]  # noqa: E731
    end = start + len(subject)
    assert read(located.last + 1).startswith(prompt[:end])
    assert not read(located.last).startswith(prompt[:end])
    assert prompt[:start].startswith(read(located.first))
    assert len(read(located.first + 1)) > start


def test_a_tokenizer_that_puts_a_space_in_front() -> None:
    lm = tiny_lm()
    lm = LanguageModel(lm.model, sentencepiece())
    prompt = "The mother tongue of Danielle Darrieux's is"
    [located] = locate_subjects(lm, [prompt], ["Danielle Darrieux"])
    assert (
        lm.decode([located.ids[located.first : located.last + 1]])[0].replace("▁", " ").strip() == "Danielle Darrieux"
    )


def test_the_prefix_does_not_count() -> None:
    lm = tiny_lm()
    prefix, prompt = "Oslo lies in Norway. ", "Oslo is Oslo"
    [alone] = locate_subjects(lm, [prompt], ["Oslo"])
    [within] = locate_subjects(lm, [prefix + prompt], ["Oslo"], [len(prefix)])
    assert within.ids[within.last :] == alone.ids[alone.last :]
    with pytest.raises(ValueError, match="the subject 'Norway' is not in the prompt 'Oslo is Oslo'"):
        locate_subjects(lm, [prefix + prompt], ["Norway"], [len(prefix)])


@pytest.mark.parametrize("subject", ["Marie Curie", "", " ", "paris"])
def test_a_subject_that_is_not_there(subject: str) -> None:
    with pytest.raises(ValueError, match="is not in the prompt 'Paris is'"):
        locate_subjects(tiny_lm(), ["Paris is"], [subject])
