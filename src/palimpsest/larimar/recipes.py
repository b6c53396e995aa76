"""From prepared data and parameters to trained models: what each learns from, and where it is kept."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from hydra.utils import instantiate

from palimpsest.data.prepared import PreparedData
from palimpsest.facts import Edit
from palimpsest.larimar import tasks
from palimpsest.larimar.keys import learn_keys
from palimpsest.larimar.model import Larimar
from palimpsest.larimar.sharpness import choose_sharpness
from palimpsest.larimar.training import HISTORY, Task, train_larimar
from palimpsest.larimar.wordings import Wordings, judged_wordings, learnt_wordings
from palimpsest.lm.descent import Log
from palimpsest.lm.encoder import SentenceEncoder
from palimpsest.lm.load import LanguageModel
from palimpsest.rephrasing import with_relations

PARAPHRASE, QUESTION = "paraphrase", "question"


@dataclass(frozen=True)
class Recipes:
    """What Larimar's models learn from, as the parameters say. The dev split is only watched.

    Args:
        settings: the section ``larimar`` of the parameters.
    """

    prepared: PreparedData
    settings: Mapping[str, Any]

    @cached_property
    def edits(self) -> list[Edit]:
        """Those of the training split, first of famous subjects."""
        return self.prepared.edits("train")[: self.settings["edits"]["train"]]

    @cached_property
    def questions(self) -> list[Edit]:
        """Those of the training split, where there is one, whose relation is known."""
        if "train" not in self.prepared.splits("questions"):
            return []
        known = with_relations(self.prepared.questions("train"), self.prepared.edits("train"))
        return known[: self.settings["edits"]["questions"]]

    @cached_property
    def dev(self) -> list[Edit]:
        """Edits that are watched."""
        return self.prepared.edits("dev")[: self.settings["edits"]["dev"]]

    def pairs(self, name: str) -> list[tasks.Pair]:
        """Prompts, of edits and questions, with the answers that a model learns to give."""
        asked = [*self.edits, *self.questions]
        return list(tasks.edit_pairs(asked, self.settings["others"][name], self.settings["seed"]))

    @cached_property
    def wordings(self) -> list[Wordings]:
        """What keys are learnt from."""
        chosen = self.settings["keys"]
        edits, questions = self.edits[: chosen["edits"]], self.questions[: chosen["questions"]]
        return list(learnt_wordings(edits, questions, each=chosen["each"], seed=self.settings["seed"]))

    @cached_property
    def judged(self) -> dict[str, list[Wordings]]:
        """What keys are judged by: facts of dev in wordings that are not learnt."""
        count = self.settings["keys"]["dev"]
        statements, questions = self.prepared.edits("dev")[:count], self.prepared.questions("dev")[:count]
        return {PARAPHRASE: judged_wordings(statements), QUESTION: judged_wordings(questions)}

    def model(self, name: str, encoder: SentenceEncoder, lm: LanguageModel) -> Larimar:
        """A new model; ``models`` says what of it is trained."""
        slots, code, seed = (self.settings[part] for part in ("slots", "code", "seed"))
        tune_code, tuning = (self.settings["models"][name][part] for part in ("tune_code", "tuning"))
        tuning = instantiate(tuning) if isinstance(tuning, Mapping) else tuning
        return Larimar(encoder, lm, slots=slots, code=code, seed=seed, tune_code=tune_code, tuning=tuning)

    @property
    def folder(self) -> Path:
        """Of the trained models."""
        return Path(self.settings["folder"])

    def load(self, name: str, device: str) -> Larimar:
        """A model that was trained."""
        return Larimar.load(self.folder / name, device)

    def task(self, name: str, model: Larimar, pairs: list[tasks.Pair], plain: list[str]) -> Task:
        """``published``: statements are said again. Any other: answers are given to prompts."""
        if name == "published":
            return tasks.episode_task(model, pairs, plain, **self.settings["episodes"])
        return tasks.answer_task(model, pairs, plain, **self.settings["answers"])

    def train(self, name: str, encoder: SentenceEncoder, lm: LanguageModel, log: Log) -> dict[str, pd.DataFrame]:
        """Train a model and save it under its name; a run that was killed goes on where it was.

        Returns:
            ``training``, its history; and, if it has keys apart from values, ``keys``, theirs, and ``sharpness``, by
            which that of random features was chosen.
        """
        model = self.model(name, encoder, lm)
        checkpoints = self.folder.with_name(f".{self.folder.name}.checkpoints") / name
        plain = {split: tasks.chunks(self.prepared, split, self.settings["plain"][split]) for split in ("train", "dev")}
        watched = [(edit.prompt, edit.target_new) for edit in self.dev]
        rows = train_larimar(
            model,
            self.task(name, model, self.pairs(name), plain["train"]),
            self.task(name, model, watched, plain["dev"]),
            instantiate(self.settings["schedules"][name]),
            checkpoints=checkpoints,
            log=log,
        )
        tables = {"training": pd.DataFrame(rows).assign(model=name).reindex(columns=HISTORY)}
        if name != "published":
            tables |= self._learn_keys(model)
        model.save(self.folder / name)
        shutil.rmtree(checkpoints, ignore_errors=True)
        return tables

    def _learn_keys(self, model: Larimar) -> dict[str, pd.DataFrame]:
        chosen = self.settings["keys"]
        model.key_map, keys = learn_keys(model, self.wordings, self.judged, instantiate(chosen["learning"]))
        sharpness, table = choose_sharpness(
            model, self.prepared.edits("dev"), **chosen["sharpness"], asked=chosen["dev"], seed=self.settings["seed"]
        )
        model.sharpness.fill_(sharpness)
        return {"keys": keys, "sharpness": table}
