"""Converts operators to ONNX without torch: whole networks, and micro-nets for latency tables.

The graphs have the same nodes as those of the torch.export-based exporter for the same network
(tested), with folded BN. So the timed graph equals the deployed one. Weights are random at the
scale of a trained network, because zeros or denormal numbers would take a different time.
"""

from __future__ import annotations

from collections.abc import Iterable

import onnx

from hwnas.builders.onnx_nodes import INPUT, OPSET, OUTPUT, GraphBuilder, with_least_ir
from hwnas.builders.onnx_recurrent import RecurrentBuilder, is_recurrent
from hwnas.core.errors import UserError
from hwnas.spaces.network import IMAGE, Network
from hwnas.spaces.ops import RECORDED, Act, OpSpec

__all__ = [
    "INPUT",
    "OPSET",
    "OUTPUT",
    "context",
    "micro",
    "network",
    "require_computable",
    "with_least_ir",
]

BATCH_AXIS = "batch"
NEIGHBOUR_CHANNELS = 8  # channels at both ends of a micro-net; one block of the NCHWc layouts


def require_computable(ops: Iterable[OpSpec], *, where: str) -> None:
    """Refuses operators of spaces that are only for records.

    Raises:
        UserError: names the kinds of operators.
    """
    if recorded := sorted({op.kind for op in ops if op.kind in RECORDED}):
        raise UserError(
            "networks of this space cannot be built",
            expected="operators that a runtime can compute",
            found=f"operators that are only read from records: {', '.join(recorded)}",
            where=where,
            fix="choose another space",
        )


def network(net: Network, *, batch: int | None = 1, seed: int = 0) -> onnx.ModelProto:
    """A whole network: `input` [batch, C, px, px] -> `logits` [batch, classes].

    `batch=None` gives an open batch axis (named `batch`). Equal arguments give equal bytes.

    An operator with several sources reads their sum, by one `Add` per further source. Operators on
    no path from the image to the logits, and repeated poolings, are left out (`Network.deployed`).
    If there is no such path, an operator without input reads zeros.

    A recurrent network becomes one step: `token` int64 [batch] and `state` [batch, width] ->
    `logits` and `next_state`.

    Raises:
        UserError: the network has operators of spaces that are only for records (`RECORDED`).
    """
    net = net.deployed()
    require_computable(net.ops, where=f"a network of {len(net.ops)} operators")
    if is_recurrent(net):
        graph: GraphBuilder = RecurrentBuilder(seed, net)
    else:
        graph = GraphBuilder(seed, act_first=net.act_first)
    steps = tuple(net.steps())
    flat = {value for s in steps if s.op and s.op.kind == "linear" for value in s.reads}
    values = {IMAGE: INPUT}
    for step in steps:
        reads = [values[value] for value in step.reads]
        name = f"{step.position}"
        if step.op is None:
            values[step.writes] = graph.sum(reads, f"{name}.sum{step.writes}")
        else:
            value = reads[0] if reads else graph.zeros(step.op, name)
            if len(reads) > 1:
                values[step.writes] = graph.concat(reads, name)
                continue
            feeds_linear = step.writes in flat
            values[step.writes] = graph.add(step.op, value, name, feeds_linear=feeds_linear)
    axis = BATCH_AXIS if batch is None else batch
    first, last = net.ops[0], net.ops[-1]
    outputs: list[int | str] = [axis, last.out_channels]
    if last.kind != "linear":
        outputs += [last.out_hw, last.out_hw]
    return graph.model([axis, first.in_channels, first.in_hw, first.in_hw], outputs)


def micro(
    op: OpSpec, *, before: bool = True, after: bool = True, batch: int = 1, seed: int = 0
) -> onnx.ModelProto:
    """`op` between two 1x1 convolutions, as inside a network.

    The neighbours keep the internal layout of the runtime at both sides of the operator. Set
    `before` to False for an operator that reads the image, and `after` to False for one that
    computes the logits. The activation of a convolution always follows it, even in networks with
    `Network.act_first`. A ReLU comes before padded max pooling, which LiteRT pads with zeros.
    """
    ops = [op]
    if before:
        act: Act = "relu" if op.kind == "max_pool" and op.padding else "none"
        ends = NEIGHBOUR_CHANNELS, op.in_channels, op.in_hw, op.in_hw
        ops.insert(0, OpSpec("conv", *ends, act=act))
    if after:
        ops.append(OpSpec("conv", op.out_channels, NEIGHBOUR_CHANNELS, op.out_hw, op.out_hw))
    return network(Network(tuple(ops)), batch=batch, seed=seed)


def context(channels: int, hw: int, *, batch: int = 1, seed: int = 0) -> onnx.ModelProto:
    """The empty context: the two convolutions of `micro`, with `channels` channels in between."""
    before = OpSpec("conv", NEIGHBOUR_CHANNELS, channels, hw, hw)
    return micro(before, before=False, batch=batch, seed=seed)
