"""What to time for a set of operators, and how rows follow from those timings.

An operator is timed between two 1x1 convolutions (`onnx_build.micro`), less half of the empty
context (the two convolutions alone) at either border. Summed along a network, what the halves
leave over is one session's overhead, as the network has it: on mobilenet_tiny at 16-24 px the sum
of rows is 0.99 of the whole network, and the fitted line has scale 1.00 and overhead 0.001 ms
(see tests/unit/test_latency_construction.py for the identity).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from hwnas.latency.samples import Timing
from hwnas.spaces.ops import OpSpec

__all__ = ["Border", "borders", "context_id", "op_id", "op_rows"]

MIN_SHARE = 0.01  # of the time of the op in its context: the least that noise may leave of a row

Border = tuple[int, int]
"""Channels and map size of a tensor between two operators."""


def borders(op: OpSpec) -> tuple[Border, ...]:
    """Where `op` meets its neighbours in `onnx_build.micro`, hence which contexts it needs."""
    before = () if op.reads_image else ((op.in_channels, op.in_hw),)
    after = () if op.kind == "linear" else ((op.out_channels, op.out_hw),)
    return (*before, *after)
