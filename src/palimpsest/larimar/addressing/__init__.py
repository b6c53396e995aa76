"""How a memory of K slots is addressed: what is written where, and what a query reads.

Three ways behind one interface, so that every experiment can show them side by side. Each turns keys (N, D) into
weights over slots, and is a set of pure functions from a state to the next: a call that raises has changed nothing.

- :class:`SpanAddressing`, as published (Larimar, arXiv 2403.11901): key and value are the same encoding, and a
  read-out is the query's projection on the span of what was written. A full memory gives every query back as it came.
- :class:`FeatureAddressing`: keys and values apart. The weights are random features of the key (Rahimi and Recht 2007;
  of rectified projections, Cho and Saul 2009), so that the memory is a kernel regression from keys to values whose
  size does not grow. Update and forgetting are Larimar's, since only W differs.
- :class:`NearestAddressing`: one fact a slot, read by attention over the stored keys, as in a modern Hopfield network
  (Ramsauer et al., arXiv 2008.02217).
"""

from palimpsest.larimar.addressing.features import FeatureAddressing
from palimpsest.larimar.addressing.interface import Addressing, MemoryFullError
from palimpsest.larimar.addressing.nearest import NearestAddressing
from palimpsest.larimar.addressing.span import SpanAddressing

__all__ = ["Addressing", "FeatureAddressing", "MemoryFullError", "NearestAddressing", "SpanAddressing"]
