"""The same notebooks on real documents, edits and questions, as by hand.

DVC and papermill have no part in it: what they do does not depend on the data, and each stage would import all anew.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from pipelines import commands, compose, missing, run_here

from children import Start, finished
from palimpsest.pipeline.results import read_metrics

RUNNERS = {"notebooks", "seconds"}  # folders of what is written by the runner, which is left out here


@pytest.mark.slow
def test_the_same_stages_run_on_real_documents(copy: Path, samples: Path, start: Start) -> None:
    compose(copy, "data=real", f"data.mirror={samples}")
    finished(start(run_here, copy, commands(copy)))
    assert [path for path in missing(copy) if path.parent.name not in RUNNERS] == []
    headline = read_metrics(copy / "results" / "real" / "metrics" / "headline.json")
    assert headline["data.documents.train"] == 400
    assert headline["lm.ppl.target.test"] > 1
