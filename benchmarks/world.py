"""How fast the generated world is written, and whether memory stays flat however much is written.

``python -m benchmarks world`` writes annotated documents to a temporary file, in a process of their own for each size.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from palimpsest.data.docred import write_documents
from palimpsest.data.world.corpus import Fame, sample_documents
from palimpsest.data.world.relations import Kind
from palimpsest.data.world.universe import Sizes, Universe

FEW, MANY = 10_000, 100_000


def run() -> dict[str, float]:
    """Measure writing 10,000 and 100,000 documents.

    - ``bench.world.docs_per_second``: of the larger run, on one core, until the file is safe on disk.
    - ``bench.world.seconds_100k``: how long that took, start-up of the process left out.
    - ``bench.world.memory_ratio``: peak memory of the larger run over that of the smaller; about 1 if memory is flat.
    """
    few, many = _in_own_process(FEW), _in_own_process(MANY)
    return {
        "bench.world.docs_per_second": MANY / many["seconds"],
        "bench.world.seconds_100k": many["seconds"],
        "bench.world.memory_ratio": many["peak"] / few["peak"],
    }


def _in_own_process(count: int) -> dict[str, float]:
    done = subprocess.run([sys.executable, "-m", "benchmarks.world", str(count)], check=True, capture_output=True)
    return json.loads(done.stdout)


def _measure(count: int) -> dict[str, float]:
    """Write ``count`` documents about as many entities; seconds, and the process's peak memory in KiB."""
    sizes = Sizes(countries=60, cities=2000, companies=count // 10, universities=400, people=count, books=count // 2)
    knee = dict.fromkeys((Kind.PERSON, Kind.BOOK, Kind.COMPANY, Kind.CITY), 100)
    realm = Universe(0, {"train": sizes}).realms["train"]
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        documents = sample_documents(realm, Fame(dict.fromkeys(knee, 70), knee, 25), count, seed=0)
        written = write_documents(Path(folder, "documents.json"), documents)
        seconds = time.perf_counter() - started
    assert written == count
    return {"seconds": seconds, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}


if __name__ == "__main__":
    print(json.dumps(_measure(int(sys.argv[1]))))
