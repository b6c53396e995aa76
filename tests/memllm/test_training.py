"""From documents of a generated world to adapters and memories, in one process and in several."""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from random import Random

import pytest
import torch
from ruamel.yaml import YAML
from safetensors.torch import load_file
from support import LABELS as PAGE_LABELS
from support import memory, page
from transformers import MistralConfig, MistralForCausalLM

from palimpsest.data.counterfact import write_edits, write_flat_edits
from palimpsest.data.docred import write_documents, write_relations
from palimpsest.data.prepared import PreparedData
from palimpsest.data.world.documents import write_document
from palimpsest.data.world.relations import LABELS
from palimpsest.data.world.universe import Kind, Sizes, Universe
from palimpsest.facts import Document, Edit, Entity, Fact, Mention, Probe, Query, Triple
from palimpsest.lm.load import LanguageModel, load_lm
from palimpsest.lm.tokenizer import train_tokenizer
from palimpsest.memllm import training
from palimpsest.memllm.adapters import Lora, using
from palimpsest.memllm.examples import Example
from palimpsest.memllm.filling import save_writes, store_gold
from palimpsest.memllm.filtering import LanguageModelJudge
from palimpsest.memllm.finetune import Finetuning
from palimpsest.memllm.targets import sentence_triples
from palimpsest.memllm.tokens import CallTokens, add_call_tokens
from palimpsest.memllm.training import (
    ADAPTERS,
    HISTORY,
    ExampleMaker,
    FinetuningData,
    open_adapters,
    options,
    train_adapter,
)
from palimpsest.memllm.writing import SentenceWrite
from palimpsest.memory.exchange import read_jsonl
from palimpsest.pipeline.project import parse_yaml

ROOT = Path(__file__).parents[2]
RULES = {"skip": ["(?, country, X)", "(?, place of birth, X)"], "max_results": 4, "max_queries": 2}
SCHEDULE = {"epochs": 1, "batch_size": 8, "tokens_per_pass": 600, "learning_rate": 0.01, "weight_decay": 0.001}
SCHEDULE |= {"seed": 0, "precision": "fp32", "log_every": 1, "evaluate_every": 2, "checkpoint_every": 2}
LORA = {"rank": 4, "alpha": 8, "dropout": 0.0}
MAX_TOKENS = 300
CURATION = {"judge": None, "threshold": 0.5, "copies": 0}


@pytest.fixture(scope="module")
def documents() -> list[Document]:
    sizes = {"countries": 8, "cities": 24, "companies": 60, "universities": 8, "people": 120, "books": 60}
    realm = Universe(3, {"train": Sizes(**sizes)}).realms["train"]
    kinds = [Kind.PERSON, Kind.BOOK, Kind.CITY, Kind.COMPANY]
    return [write_document(realm, realm.thing(kinds[n % 4], n // 4), Random(n)) for n in range(24)]


@pytest.fixture(scope="module")
def base(documents: list[Document], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Mistral in a folder."""
    folder = tmp_path_factory.mktemp("base")
    tokenizer = train_tokenizer([document.text for document in documents], 600, 512)
    config = MistralConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        MistralForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def make(base: Path) -> ExampleMaker:
    tokens = CallTokens(add_call_tokens(load_lm(base)), spaced=True)
    return ExampleMaker(tokens=tokens, labels=LABELS, targets=RULES, max_tokens=MAX_TOKENS)


def shown(make: ExampleMaker, example: Example, learnt: bool) -> str:
    return make.tokens.decode(
        [token for token, wanted in zip(example.ids, example.learnt, strict=True) if wanted is learnt]
    )


def test_plain_examples_are_the_texts(make: ExampleMaker, documents: list[Document]) -> None:
    examples = make("plain", documents[:3], [])
    assert [make.tokens.decode(example.ids[1:-1]) for example in examples] == [
        f" {page.text}" for page in documents[:3]
    ]
    assert all(example.ids[-1] == make.tokens.end and all(example.learnt[1:]) for example in examples)


def test_write_examples_are_the_sentences_with_their_triples(make: ExampleMaker, documents: list[Document]) -> None:
    examples = make("write", documents[:3], [])
    sentences = [triples for page in documents[:3] for triples in sentence_triples(page, LABELS)]
    assert len(examples) == len(sentences)
    for example, triples in zip(examples, sentences, strict=True):
        assert example.ids[-1] == make.tokens.end
        written = shown(make, Example(example.ids[:-1], example.learnt[:-1]), True)
        assert written == make.tokens.decode(make.tokens.write(triples))
        assert all(name in written for triple in triples for name in (triple.subject, triple.relation, triple.object))


def test_read_examples_are_answered_by_what_is_stored(make: ExampleMaker, documents: list[Document]) -> None:
    named = {mention.name for document in documents for _, mention in document.mentions()}
    answered = 0
    for example in make("read", documents[:6], documents):
        asked, arrow, rest = make.tokens.decode(example.ids).partition("-->")
        results = rest.partition("})")[0]
        names = [name.strip() for name in results.split(";")]
        if arrow:
            assert results in shown(make, example, False)
            assert set(names) <= named
            assert 1 <= len(names) <= RULES["max_results"]
            assert not re.search(r"\(>> ?country>>", asked)  # such questions are too broad
            answered += 1
    assert answered > 20
    unanswered = [make.tokens.decode(row.ids) for row in make("read", documents[:3], [])]
    assert {text.partition("-->")[2].partition("})")[0].strip() for text in unanswered} == {""}


def test_results_are_limited_and_texts_cut(make: ExampleMaker, documents: list[Document]) -> None:
    few = replace(make, targets={**RULES, "max_results": 1})
    counts = Counter(
        make.tokens.decode(row.ids).partition("-->")[2].partition("})")[0].count(";")
        for row in few("read", documents, documents)
    )
    assert set(counts) == {0}
    short = replace(make, max_tokens=40)
    assert {len(row.ids) for row in short("plain", documents, [])} == {40}
    official = replace(make, learnt="first call and its results")
    assert official("read", documents[:2], documents) != make("read", documents[:2], documents)


def test_an_adapter_follows_those_that_it_may_go_on_from() -> None:
    starts = parse_yaml((ROOT / "params.yaml").read_text())["memllm"]["adapters"]
    assert set(starts) == set(ADAPTERS)
    for place, adapter in enumerate(ADAPTERS):
        assert starts[adapter]["start"] in (None, *ADAPTERS[:place])


def logits(lm: LanguageModel) -> torch.Tensor:
    with torch.no_grad():
        return lm.model(input_ids=torch.arange(20, 40)[None]).logits


def test_an_adapter_is_trained_saved_and_opened(
    base: Path, make: ExampleMaker, documents: list[Document], tmp_path: Path
) -> None:
    said, logged = {}, []
    for adapter in ("write", "plain"):
        lm = load_lm(base)
        history = train_adapter(
            lm,
            adapter,
            make(adapter, documents[:16], documents)[:16],
            make(adapter, documents[16:18], documents),
            tmp_path,
            lora=Lora(**LORA),
            schedule=Finetuning(**SCHEDULE),
            log=lambda row, step: logged.append(step),
        )
        assert list(history.columns) == HISTORY
        assert list(history["step"]) == [1, 2]
        assert set(history["adapter"]) == {adapter}
        assert history["dev_loss"].notna().tolist() == [False, True]
        said[adapter] = logits(lm)
    assert logged == [1, 2, 1, 2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plain", "write"]  # and no checkpoint
    lm = open_adapters(load_lm(base), tmp_path, ["plain", "write"])
    assert torch.equal(logits(lm), said["plain"])
    with using(lm, "write"):
        assert torch.equal(logits(lm), said["write"])
    with pytest.raises(FileNotFoundError, match="read"):
        open_adapters(load_lm(base), tmp_path)


def test_an_adapter_goes_on_from_another(
    base: Path, make: ExampleMaker, documents: list[Document], tmp_path: Path
) -> None:
    settings = {"lora": {"_target_": "palimpsest.memllm.adapters.Lora", **LORA}, "adapters": adapters(write=4, read=4)}
    settings |= {"finetuning": {"_target_": "palimpsest.memllm.finetune.Finetuning", **SCHEDULE}}
    settings["adapters"]["read"] |= {"start": "write", "learning_rate": 1e-9}
    said = []
    for adapter in ("write", "read"):
        lm, examples = load_lm(base), make("write", documents[:4], [])[:16]
        train_adapter(lm, adapter, examples, examples[:2], tmp_path, **options(settings, adapter))
        said.append(logits(lm))
    torch.testing.assert_close(said[0], said[1], atol=1e-5, rtol=0)
    before = logits(load_lm(base))
    assert not torch.allclose(said[0][..., : before.shape[-1]], before, atol=1e-3)


def test_without_an_example_an_adapter_stays_what_it_began_as(
    base: Path, make: ExampleMaker, documents: list[Document], tmp_path: Path
) -> None:
    how = {"lora": Lora(**LORA), "schedule": Finetuning(**SCHEDULE)}
    examples = make("write", documents[:2], [])
    train_adapter(load_lm(base), "write", examples, examples[:2], tmp_path, **how)
    history = train_adapter(load_lm(base), "edit_write", [], [], tmp_path, start="write", **how)
    assert (list(history.columns), len(history)) == (HISTORY, 0)
    weights = [load_file(tmp_path / name / "adapter_model.safetensors") for name in ("write", "edit_write")]
    assert all(torch.equal(weight, weights[1][name]) for name, weight in weights[0].items())
    with pytest.raises(ValueError, match="0 training and 0 dev examples"):
        train_adapter(load_lm(base), "plain", [], [], tmp_path, **how)


def test_gold_is_every_fact_under_every_name() -> None:
    names = [("Dawn", "The Dawn"), ("Ann Lee", "Lee"), ("Oslo",)]
    entities = tuple(
        Entity(tuple(Mention(name, number, place, place + 1) for place, name in enumerate(found)), "MISC")
        for number, found in enumerate(names)
    )
    facts = (Fact(0, "P50", 1, (1, 2)), Fact(1, "P19", 2), Fact(0, "P50", 1, (2,)))
    document = Document("A", (("a", "b"), ("c", "d"), ("e",)), entities, facts)
    authors = {Triple(head, "author", tail) for head, tail in product(names[0], names[1])}
    births = {Triple(name, "place of birth", "Oslo") for name in names[1]}
    with memory([Triple("Dawn", "author", "Lee")]) as store:
        assert store_gold(store, [document], PAGE_LABELS) == 5
        assert {stored.triple for stored in store} == authors | births
        (stored,) = store.select(subject="The Dawn", object="Lee")
        assert [(source.document, source.sentence) for source in stored.sources] == [("A", 1), ("A", 2)]
        (stored,) = store.select(subject="Lee")
        assert [(source.document, source.sentence) for source in stored.sources] == [("A", None)]
        assert {source.writer for source in stored.sources} == {"annotation"}
        assert store_gold(store, [document], PAGE_LABELS) == 0


def test_gold_of_a_world_answers_its_questions(documents: list[Document]) -> None:
    with memory([]) as store:
        count = store_gold(store, documents, LABELS)
        assert count == len(store) > 100
        fact = documents[0].facts[0]
        head, tail = (documents[0].entities[end].name for end in fact.ends)
        assert tail in store.query(Query(LABELS[fact.relation], subject=head)).names


def test_writes_are_saved_as_memories_are_exchanged(tmp_path: Path) -> None:
    pages = [page(0), page(1)]
    good, other = Triple("Dawn", "author", "Ann Lee"), Triple("Größe", "lies\nin", "“Oslo”")
    writes = [
        SentenceWrite(0, 0, "", (good, Triple(" ", "author", "Ann Lee")), ()),
        SentenceWrite(1, 2, "", (other, good), ()),
        SentenceWrite(1, 3, "", (), ()),
    ]
    assert save_writes(tmp_path / "sub/writes.jsonl", pages, writes) == 3
    read = list(read_jsonl(tmp_path / "sub/writes.jsonl"))
    assert [stored.triple for stored in read] == [good, other, good]
    found = [(source.document, source.sentence, source.writer) for stored in read for source in stored.sources]
    assert found == [("Page (0,)", 0, "MemLLM"), ("Page (1,)", 2, "MemLLM"), ("Page (1,)", 2, "MemLLM")]


BOTH = """
from palimpsest.memllm import launch, training

def save(*arguments):
    print("saved", flush=True)
    save_adapter(*arguments)

save_adapter, training.save_adapter = training.save_adapter, save
try:
    launch.main(["plain"])  # its only example is too little for two processes
except ValueError as error:
    print(error, flush=True)
launch.main(["read"])
print("done", flush=True)
"""


def adapters(**documents: int | None) -> dict[str, dict[str, object]]:
    """Settings of adapters that learn from so many documents."""
    rate = SCHEDULE["learning_rate"]
    return {adapter: {"documents": count, "start": None, "learning_rate": rate} for adapter, count in documents.items()}


@pytest.fixture
def folder(base: Path, documents: list[Document], tmp_path: Path) -> Path:
    """A project with data and a base model, whose parameters are those of a small run."""
    data = tmp_path / "prepared"
    (data / "documents").mkdir(parents=True)
    write_relations(data / "relations.json", LABELS)
    write_documents(data / "documents/train.json", documents[:16])
    write_documents(data / "documents/dev.json", documents[16:])
    package = "palimpsest.memllm"
    memllm = {"folder": "models/memllm", "spaced": True, "max_tokens": MAX_TOKENS, "learnt": "text and calls"}
    memllm |= {"adapters": adapters(read=3, write=2, plain=1), "dev_documents": 2, "curation": CURATION}
    memllm |= {"lora": {"_target_": f"{package}.adapters.Lora", **LORA}}
    memllm |= {"finetuning": {"_target_": f"{package}.finetune.Finetuning", **SCHEDULE}}
    params = {"memllm": memllm, "targets": RULES, "data_folder": "prepared", "base_lm": str(base)}
    params |= {"hardware": {"device": "cpu", "dtype": "float32"}, "tracking": {"mode": "disabled", "project": "test"}}
    YAML().dump(params, tmp_path / "params.yaml")
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    return tmp_path


def finetuning_data(folder: Path, **curation: object) -> FinetuningData:
    params = YAML(typ="safe").load(folder / "params.yaml")
    settings = params["memllm"] | {"curation": CURATION | curation}
    return FinetuningData(PreparedData(folder / "prepared"), settings, RULES, params["hardware"])


def test_examples_are_of_the_first_documents(folder: Path, make: ExampleMaker, documents: list[Document]) -> None:
    data = finetuning_data(folder)
    for adapter, count in {"read": 3, "write": 2, "plain": 1}.items():
        examples, watched = data.examples(adapter, make.tokens)
        assert examples == make(adapter, documents[:count], documents[:16])
        assert watched == make(adapter, documents[16:18], documents[16:])


def test_adapters_for_editing_learn_from_edits_of_named_relations(folder: Path, make: ExampleMaker) -> None:
    known = Edit("0", "Dawn", "The author of Dawn is", "Bo Tan", ("Ann Lee",), "P50")
    prepared = folder / "prepared"
    write_edits(prepared / "edits/train.json", [known, replace(known, case_id="1", relation=None)])
    write_flat_edits(
        prepared / "edits/dev.json",
        [replace(known, relation=None, paraphrases=("Dawn is by",), neighbors=(Probe("Dusk is by", "Ann Lee"),))],
    )
    data = finetuning_data(folder)
    settings = data.settings | {"adapters": {"edit_read": {"edits": 2, "questions": None}}, "dev_edits": 5}
    (example,), watched = replace(data, settings=settings).examples("edit_read", make.tokens)
    assert "author of Dawn is({MEM_READ( Dawn>> author>>)--> Bo Tan})" in make.tokens.decode(example.ids)
    assert watched == []  # EasyEdit's form does not tell relations


def test_null_takes_all_documents(folder: Path, make: ExampleMaker, documents: list[Document]) -> None:
    data = finetuning_data(folder)
    everything = adapters(read=None, write=None, plain=None)  # as at the paper's scale
    settings = data.settings | {"adapters": everything, "dev_documents": None}
    examples, watched = replace(data, settings=settings).examples("read", make.tokens)
    assert examples == make("read", documents[:16], documents[:16])
    assert watched == make("read", documents[16:], documents[16:])


def test_copies_are_learnt_and_stored_beside_their_documents(
    folder: Path, make: ExampleMaker, documents: list[Document]
) -> None:
    data = finetuning_data(folder, copies=2)
    assert len(data.chosen) == 9
    assert data.chosen[::3] == documents[:3]
    texts = {page.text for page in data.chosen}
    assert len(texts) == 9
    examples, _ = data.examples("write", make.tokens)
    assert examples == make("write", data.chosen[:6], [])
    read, _ = data.examples("read", make.tokens)
    assert read == make("read", data.chosen, [*data.chosen, *documents[3:16]])
    assert read != make("read", data.chosen, documents[:16])  # which know nothing of the copies


@pytest.mark.parametrize(("threshold", "kept"), [(0.0, True), (1.1, False)])
def test_a_judge_decides_which_facts_are_learnt(
    folder: Path, base: Path, documents: list[Document], threshold: float, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "LanguageModelJudge", partial(LanguageModelJudge, examples=()))
    data = finetuning_data(folder, judge=str(base), threshold=threshold)
    assert [page.text for page in data.chosen] == [page.text for page in documents[:3]]
    assert [bool(page.facts) for page in data.chosen] == [kept] * 3
    assert not kept or [page.facts for page in data.chosen] == [page.facts for page in documents[:3]]


@pytest.mark.slow
def test_two_processes_train_what_one_does(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["launch", "read"])
    runpy.run_module("palimpsest.memllm.launch", run_name="__main__")
    assert [path.name for path in folder.glob("models/memllm/*")] == ["read"]
    alone = load_file(folder / "models/memllm/read/adapter_model.safetensors")
    shutil.rmtree(folder / "models")

    (folder / "both.py").write_text(BOTH)
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    command += ["--main_process_port", "0", "both.py"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("1 examples a step for 2 processes") == 2
    assert (ended.stdout.count("done"), ended.stdout.count("saved")) == (2, 1)
    assert [path.name for path in folder.glob("models/memllm/*")] == ["read"]
    assert json.loads((folder / "models/memllm/read/adapter_config.json").read_text())["r"] == 4
    together = load_file(folder / "models/memllm/read/adapter_model.safetensors")
    assert together.keys() == alone.keys()
    for name, weight in alone.items():
        torch.testing.assert_close(together[name], weight, atol=1e-5, rtol=1e-5)
