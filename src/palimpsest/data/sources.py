"""The published files that this project uses, where they lie, and how to know them."""

from __future__ import annotations

from palimpsest.data.download import Source

RE_DOCRED = "https://raw.githubusercontent.com/tonytan48/Re-DocRED/main/data"
ROME = "https://rome.baulab.info/data/dsets"
MEMLLM = "https://raw.githubusercontent.com/amodaresi/MemLLM/main/utils"

SOURCES: dict[str, Source] = {
    # Re-DocRED: 3,053 + 500 + 500 annotated documents (DocRED's format).
    "redocred/train": Source(
        "train_revised.json",
        f"{RE_DOCRED}/train_revised.json",
        git_blob="1ba485adf8e4cb789c441de2f6fe41de95690caa",
        aliases=("redocred_train_revised.json",),
    ),
    "redocred/dev": Source(
        "dev_revised.json",
        f"{RE_DOCRED}/dev_revised.json",
        size=3_245_588,
        sha256="051ee1d057204a5d08ef5502beacdadf191245b5eaf0e29ec2c607cf002c016f",
        aliases=("redocred_dev_revised.json",),
    ),
    "redocred/test": Source(
        "test_revised.json",
        f"{RE_DOCRED}/test_revised.json",
        size=3_207_228,
        sha256="ea673b7ef91e16510d7eb88863d3903e47318dc5653ef361266f27ae3b84723c",
        aliases=("redocred_test_revised.json",),
    ),
    # Wikidata's property names, for the relations of Re-DocRED (2,407, of which it uses 96). MemLLM's copy of them.
    "wikidata/properties": Source(
        "wikidata_props_en.json",
        f"{MEMLLM}/wikidata_props_en.json",
        size=78_377,
        sha256="bd06f4a9d7ecf05ebacaf48339f8f390465f8ec1fcebe21a2485161003288bba",
        aliases=("wikidata_properties_en.json",),
    ),
    # CounterFact: 21,919 edits (ROME's form).
    "counterfact": Source(
        "counterfact.json",
        f"{ROME}/counterfact.json",
        size=45_108_470,
        sha256="d017056125178a13728594e66a801357a8db9ed7973a7425554bb4271de9fc6f",
    ),
    # ZsRE: 19,086 questions for evaluation and those for training (MEND's form).
    "zsre/eval": Source(
        "zsre_mend_eval.json",
        f"{ROME}/zsre_mend_eval.json",
        size=8_091_864,
        sha256="8a371d512f8a6ab175db4ef672181d5c0e52da23298cb51e5a2eeea2f89aa9cd",
    ),
    "zsre/train": Source(
        "zsre_mend_train.json",
        f"{ROME}/zsre_mend_train.json",
        size=69_136_174,
        sha256="4f3ac245e9c0baaf633f9e6cb765ffa8e83d594a74520a6cc3539497328c0722",
    ),
    # Parts in other forms, which have no public address of their own: from a mirror folder only.
    "counterfact/easyedit10k": Source(
        "counterfact_easyedit.json",
        None,
        size=3_950_774,
        sha256="bfe31a7081932739406e282bb625d74222549c3386c15b1df3dfbc3978c69eec",
    ),
    "zsre/mend1k": Source(
        "zsre_mend_1k.json",
        None,
        size=537_970,
        sha256="e62596101d8ed551889c26c0d2a5277f92eaef3b14416d8eaee39b04a244ab60",
    ),
}
