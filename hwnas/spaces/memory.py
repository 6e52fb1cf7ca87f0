"""Peak activation memory: the largest set of values alive at once, in layer order at batch 1.

A value is alive until its last read. BN, activations and sums work in place if their input is not
read again.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hwnas.spaces.choice import Codes
from hwnas.spaces.index import enumerate_ops, op_index
from hwnas.spaces.network import IMAGE, POOLING, Network, edge_list
from hwnas.spaces.ops import ACT_FIRST, OpSpec, layers

if TYPE_CHECKING:
    from hwnas.spaces.space import SearchSpace

__all__ = ["graph_peaks", "op_peak_values", "peak_values"]

CHUNK = 128  # graphs per chunk; their edges are a dense array
MAX_KNOWN = 1 << 16  # maximum number of peaks cached per space


def op_peak_values(op: OpSpec, *, input_is_kept: bool = False, act_first: bool = False) -> int:
    """Largest number of activation values alive inside one operator at batch 1.

    While a layer runs, its input and output are alive. Values that a later layer of the operator
    reads are alive too: the input of a block until its residual add, and the features that an SE
    gate scales.

    input_is_kept: other operators read the input afterwards.
    act_first: see `Network`.
    """
    block_input = op.in_channels * op.in_hw**2
    block_output = op.out_channels * op.out_hw**2
    if op.kind == "identity":
        return block_input
    if op.kind == "norm":
        return block_input + input_is_kept * block_output
    if not layers(op):
        return block_input + block_output
    if op.kind == "factorized":  # the activation, its shifted copy, and one half of the output
        shifted = op.in_channels * op.in_hw * (op.in_hw - 1)  # by a row first, then by a column
        peak = block_input + shifted + block_output // 2
        return max(peak, 2 * block_output) + input_is_kept * block_input
    keeps_input = op.skip or input_is_kept
    peak, before_gate = 0, 0
    for position, layer in enumerate(layers(op)):
        live = layer.in_channels * layer.in_hw**2 + layer.out_channels * layer.out_hw**2
        if layer.name == "conv_shortcut":
            live += block_output  # output of the main branch, kept for the sum
            live += block_input * (input_is_kept and op.pools_shortcut)
        elif keeps_input and position > 0:
            live += block_input
        if layer.shuffles:  # the channel shuffle writes a second map
            written = layer.out_channels * layer.out_hw**2
            peak = max(peak, 2 * written + keeps_input * block_input)
        if layer.name.startswith("se."):
            live += before_gate
        else:
            before_gate = layer.out_channels * layer.out_hw**2
        is_first = op.kind in ACT_FIRST or (op.kind == "conv" and act_first)
        if position == 0 and is_first and op.act != "none" and input_is_kept:
            live += block_input  # the activation does not work in place
        peak = max(peak, live)
    if op.pools_shortcut:  # pools the input, keeps the main branch
        peak = max(peak, block_input + op.in_channels * op.out_hw**2 + block_output)
    return peak


def peak_values(network: Network) -> int:
    """Largest number of activation values alive at once while `network` runs at batch 1.

    In a chain this is the largest `op_peak_values`.
    """
    steps = tuple(network.deployed().steps())
    last_read = {value: t for t, step in enumerate(steps) for value in step.reads}
    first = network.ops[0]
    sizes = {IMAGE: first.in_channels * first.in_hw**2}
    alive = sizes[IMAGE] if IMAGE in last_read else 0
    peak = 0
    for t, step in enumerate(steps):
        is_free = not step.reads or any(last_read[value] == t for value in step.reads)
        if step.op is None:
            written = sizes[step.reads[0]]
            peak = max(peak, alive + (0 if is_free else written))
        else:
            written = step.op.out_channels * step.op.out_hw**2
            own, own_if_kept = _op_peaks(step.op, network.act_first)
            others = alive - sum(sizes[value] for value in step.reads)
            peak = max(peak, others + (own if is_free else own_if_kept))
        sizes[step.writes] = written
        alive += written - sum(sizes[v] for v in set(step.reads) if last_read[v] == t)
    return peak


@lru_cache(maxsize=1 << 14)
def _op_peaks(op: OpSpec, act_first: bool) -> tuple[int, int]:
    """`op_peak_values` without and with the input kept."""
    own, own_if_kept = (
        op_peak_values(op, input_is_kept=kept, act_first=act_first) for kept in (False, True)
    )
    return own, own_if_kept


def graph_peaks(space: SearchSpace, codes: Codes) -> NDArray[np.int64]:
    """`peak_values` of every row of `codes`, int64 [n].

    Archs whose operators differ only in fields that do not affect memory are computed once. Their
    poolings must be equal, because repeated ones are merged. Results are cached.

    Raises:
        UserError: codes that the space does not allow.
    """
    ops, act_first = enumerate_ops(space), space.macro.act_first
    classes: dict[tuple[object, ...], int] = {}
    alike = []
    for i, op in enumerate(ops):
        computed = op if op.kind in POOLING else op.kind == "identity"
        size = op.out_channels * op.out_hw**2
        alike.append(classes.setdefault((computed, size, *_op_peaks(op, act_first)), i))
    index = np.array([*alike, -1], dtype=np.int32)[op_index(space, codes)]
    rows, inverse = np.unique(index, axis=0, return_inverse=True)
    known = _known(space)
    if len(known) + len(rows) > MAX_KNOWN:
        known.clear()
    keys = [row.tobytes() for row in rows]
    fresh = [i for i, key in enumerate(keys) if key not in known]
    for start in range(0, len(fresh), CHUNK):
        part = fresh[start : start + CHUNK]
        present = rows[part] >= 0
        for i, edges, here in zip(
            part, space.macro.slot_graph.edges(present), present, strict=True
        ):
            network = Network(
                tuple(ops[number] for number in rows[i][here]), edge_list(edges, here), act_first
            )
            known[keys[i]] = peak_values(network)
    peaks = np.array([known[key] for key in keys], dtype=np.int64)
    return peaks[inverse.reshape(-1)]


@lru_cache(maxsize=8)
def _known(space: SearchSpace) -> dict[bytes, int]:
    """Cached peaks by the operators of an arch."""
    return {}
