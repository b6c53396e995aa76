"""What both users of an hnswlib graph here need: a search that ends with an answer."""

from __future__ import annotations

from typing import Any

import numpy as np


def nearest(graph: Any, vectors: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels and distances of the nearest, one row each; fewer than ``count`` where the graph cannot reach as many.

    A graph of similar names now and then has nodes to which no edge leads, whatever order its threads came in.
    """
    while True:
        try:
            return graph.knn_query(vectors, k=count)
        except RuntimeError:
            if count == 1:
                raise
            count -= max(1, count // 20)
