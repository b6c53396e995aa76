"""Finetune one adapter on several devices at once, with the parameters that notebooks/memllm_finetune.ipynb takes.

    accelerate launch -m palimpsest.memllm.launch write

trains the adapter ``write``, or another of that notebook's, on all GPUs of this machine and leaves it where it does.
On CPUs ``accelerate launch --multi_gpu --num_processes 2 …`` starts two processes (with ``--cpu`` it starts only one).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from accelerate import PartialState

from palimpsest.data.prepared import PreparedData
from palimpsest.lm.base import open_base_lm
from palimpsest.memllm.tokens import CallTokens, add_call_tokens
from palimpsest.memllm.training import ADAPTERS, FinetuningData, options, train_adapter
from palimpsest.pipeline import project, tracking


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; every process runs it, and the main one writes."""
    parser = argparse.ArgumentParser(prog="accelerate launch -m palimpsest.memllm.launch", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("adapter", choices=ADAPTERS)
    adapter = parser.parse_args(arguments).adapter
    project.enter()
    memllm, hardware = project.section("memllm"), project.section("hardware")
    state = PartialState(cpu=hardware["device"] == "cpu")
    lm = add_call_tokens(open_base_lm(project.section("base_lm"), **hardware | {"device": str(state.device)}))
    prepared = PreparedData(Path(project.section("data_folder")))
    data = FinetuningData(prepared, memllm, project.section("targets"), hardware)
    examples, held_out = data.examples(adapter, CallTokens(lm, memllm["spaced"]))
    folder = Path(memllm["folder"])
    settings = project.section("tracking") | ({} if state.is_main_process else {"mode": "disabled"})
    with tracking.start(**settings, name=f"memllm_{adapter}", config=memllm) as run:
        train_adapter(lm, adapter, examples, held_out, folder, **options(memllm, adapter), log=run.log)
    state.destroy_process_group()


if __name__ == "__main__":
    main()
