"""The same stages on real documents, edits and questions."""

from __future__ import annotations

from pathlib import Path

import pytest
from pipelines import run_pipeline

from palimpsest.pipeline.results import read_metrics


@pytest.mark.slow
def test_the_same_stages_run_on_real_documents(copy: Path, samples: Path) -> None:
    run_pipeline(copy, copy / "results" / "real", "data=real", f"data.mirror={samples}")
    headline = read_metrics(copy / "results" / "real" / "metrics" / "headline.json")
    assert headline["data.documents.train"] == 400
    assert headline["lm.ppl.target.test"] > 1
