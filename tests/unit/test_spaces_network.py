"""Networks as operators and edges: what is live, in which order it is computed, what it holds."""

from __future__ import annotations

from dataclasses import fields, make_dataclass
from itertools import accumulate

import numpy as np
import onnx
import pytest
import torch
from onnx import shape_inference

from hwnas.builders.onnx import network as build_onnx
from hwnas.core.records import sparse
from hwnas.core.rng import rng
from hwnas.core.store import content_hash
from hwnas.nets.supernet import Supernet
from hwnas.spaces.cost import cost
from hwnas.spaces.graphs import is_connected
from hwnas.spaces.index import enumerate_ops, op_max
from hwnas.spaces.load import build_space
from hwnas.spaces.lowering import lower, network_key
from hwnas.spaces.memory import op_peak_values, peak_values
from hwnas.spaces.network import IMAGE, Network
from hwnas.spaces.ops import OpSpec, conv, linear, mean
from hwnas.spaces.running import graph_values, live_counts, live_sum
from hwnas.spaces.skeleton import SlotGraph
from hwnas.spaces.space import SearchSpace
from tests.mobile_spaces import MOBILE_SPACES, some_archs

QUICK = {
    "nats_topology": {"resolutions": [8], "width": 4, "cells_per_stage": 1},
    "nasbench101": {"resolutions": [8], "width": 8, "cells_per_stage": 1},
    "darts": {"resolutions": [8], "width": 4, "n_cells": 3},
}
CELLS = build_space("nasbench201", num_classes=10)
BIG = 16 * 32 * 32  # values of a map of the first stage


def cell(**ops: str) -> Network:
    """The network of a cell; edges that are not given are `none`."""
    values = [choice.values.index(ops.get(choice.name, "none")) for choice in CELLS.choices[1:]]
    return lower(CELLS, CELLS.arch([0, *values]))


def maps(n: int) -> tuple[OpSpec, ...]:
    """n operators on 4 channels of 2 px, the first from an image, then mean and classifier."""
    inner = conv(4, 4, 2, 1, 1, "relu")
    return (conv(3, 4, 2, 1, 1, "relu"), *[inner] * n, mean(4, 2), linear(4, 2))


# --- liveness and order ---------------------------------------------------------------------------


def test_a_chain_implies_its_edges() -> None:
    net = Network(maps(1))
    assert net.is_chain and net.sources == ((), (0,), (1,), (2,))
    assert net.live() is net
    assert [(s.reads, s.writes) for s in net.steps()] == [((i,), i + 1) for i in range(4)]
    assert list(net) == list(net.ops) and len(net) == 4


def test_dead_ends_and_what_nothing_feeds_are_not_live() -> None:
    """Operator 2 feeds nobody, operator 3 is fed by nobody."""
    net = Network(maps(3), ((0, 1), (0, 2), (1, 4), (3, 4), (4, 5)))
    assert net.live() == Network(maps(1), ((0, 1), (1, 2), (2, 3)))


def test_where_no_path_joins_the_ends_both_stay_and_the_rest_reads_zeros() -> None:
    net = Network(maps(2), ((0, 1), (2, 3), (3, 4)))
    live = net.live()
    assert live == Network(maps(1), ((1, 2), (2, 3)))
    assert [step.reads for step in live.steps()] == [(), (1,), (2,)]


def test_a_sum_is_shared_by_its_readers_and_grows_as_soon_as_it_can() -> None:
    net = Network(maps(4), ((0, 1), (0, 2), (1, 3), (1, 4), (2, 3), (2, 4), (3, 5), (4, 5), (5, 6)))
    steps = [(step.op is None, step.reads, step.writes) for step in net.steps()]
    assert steps == [
        (False, (0,), 1),
        (False, (1,), 2),
        (False, (1,), 3),
        (True, (2, 3), 4),
        (False, (4,), 5),
        (False, (4,), 6),
        (True, (5, 6), 7),
        (False, (7,), 8),
        (False, (8,), 9),
    ]


def test_an_identity_hands_its_input_on() -> None:
    ops = (*maps(0)[:1], OpSpec("identity", 4, 4, 2, 2), *maps(0)[1:])
    assert [step.reads for step in Network(ops).steps()] == [(0,), (1,), (2,)]


def test_a_slot_without_an_operator_hands_on_or_ends() -> None:
    """Slots 1 and 2 read the first, slot 3 their sum; slot 1 is absent."""
    reads, present = ((), (0,), (0,), (1, 2)), np.array([[True, False, True, True]])
    passing = SlotGraph((0, 1, 2, 3), reads, True).edges(present)[0]
    ending = SlotGraph((0, 1, 2, 3), reads, False).edges(present)[0]
    assert np.argwhere(passing).tolist() == [[2, 0], [3, 0], [3, 2]]
    assert np.argwhere(ending).tolist() == [[2, 0], [3, 2]]


def test_edges_are_part_of_the_key_of_a_graph() -> None:
    """Two cells of the same operators in the same order: one after the other, or one of them."""
    first = cell(edge01="nor_conv_1x1", edge13="nor_conv_1x1")
    second = cell(edge01="nor_conv_1x1", edge03="nor_conv_1x1")
    assert first.ops == second.ops and first.edges != second.edges
    assert first.key != second.key
    tiny = MOBILE_SPACES["mobilenet_tiny"]
    assert lower(tiny, tiny.largest()).key == network_key(tiny, tiny.largest())


def test_a_cell_is_wired_as_its_paper_says() -> None:
    net = cell(edge03="nor_conv_3x3")
    n = len(net)  # stem, 5 cells, 4 parts, 5 cells, 4 parts, 5 cells, norm, mean, classifier
    assert n == 1 + 3 * 5 + 2 * 4 + 3
    at = 5  # the last cell of the first stage; behind it conv_a, conv_b, pool, shortcut
    assert net.sources[at + 1] == net.sources[at + 3] == (at,)
    assert net.sources[at + 2] == (at + 1,) and net.sources[at + 4] == (at + 3,)
    assert net.sources[at + 5] == (at + 2, at + 4), "the next cell reads the sum of both branches"
    full = lower(CELLS, CELLS.largest())
    assert full.sources[1:8] == ((0,), (0,), (1,), (0,), (1,), (2, 3), (4, 5, 6))
    assert full.act_first


# --- keys -----------------------------------------------------------------------------------------


def test_fields_with_defaults_leave_keys_of_operators_and_skeletons_as_they_are() -> None:
    """`branches` is still to come: a class that gains one hashes as before."""
    for record in (maps(1)[1], CELLS.macro, MOBILE_SPACES["mixed"].macro.stages[0]):
        kept = {f.name: getattr(record, f.name) for f in fields(record)}
        grown = make_dataclass(
            type(record).__name__,
            [*((f.name, f.type, f) for f in fields(record)), ("later", int, 1)],
            frozen=True,
        )
        assert content_hash(sparse(grown(**kept))) == content_hash(sparse(record))
        assert content_hash(sparse(grown(**kept, later=2))) != content_hash(sparse(record))


# --- peak memory ----------------------------------------------------------------------------------

SKIP, POOL, CONV = "skip_connect", "avg_pool_3x3", "nor_conv_3x3"


@pytest.mark.parametrize(
    ("ops", "expected"),
    [
        # the reduction: its input, the activation beside it, 32 maps of 16 px
        ({"edge03": CONV}, 2 * BIG + BIG // 2),
        ({"edge03": SKIP}, 2 * BIG + BIG // 2),
        # the input, kept for the shortcut; the activation beside it; the output
        ({"edge01": CONV, "edge13": CONV, "edge03": SKIP}, 3 * BIG),
        # a pooling has no activation: input and output; hence again the reduction
        ({"edge01": POOL, "edge13": POOL}, 2 * BIG + BIG // 2),
        # input, edges 01 and 02, activation of edge 12 beside node 1, output of edge 12
        ({f"edge{ends}": CONV for ends in ("01", "02", "12", "03", "13", "23")}, 5 * BIG),
        # nothing: zeros of the last stage are normalised in place, and averaged
        ({}, BIG // 4 + 64),
    ],
    ids=["one convolution", "one shortcut", "residual", "poolings", "all", "none"],
)
def test_peak_memory_of_a_cell_is_what_counting_by_hand_gives(
    ops: dict[str, str], expected: int
) -> None:
    net = cell(**ops)
    assert peak_values(net) == expected
    edges = CELLS.choices[1:]
    row = np.array([[0, *(e.values.index(ops.get(e.name, "none")) for e in edges)]], np.int16)
    for precision, size in (("fp32", 4), ("fp16", 2), ("int8", 1)):
        found = cost(CELLS, row, "peak_memory_bytes", precision=precision)
        assert found.tolist() == [size * expected]


def test_a_block_whose_input_is_read_again_keeps_it() -> None:
    block = OpSpec("mbconv", 16, 16, 8, 8, mid_channels=32, kernel=3, padding=1)
    assert op_peak_values(block) == 64 * (32 + 32)
    assert op_peak_values(block, input_is_kept=True) == 64 * (32 + 32 + 16)
    residual = OpSpec("mbconv", 16, 16, 8, 8, mid_channels=32, kernel=3, padding=1, skip=True)
    assert op_peak_values(residual, input_is_kept=True) == op_peak_values(residual)


@pytest.mark.parametrize("space", MOBILE_SPACES.values(), ids=MOBILE_SPACES)
def test_of_chains_liveness_and_the_largest_operator_are_the_same(space: SearchSpace) -> None:
    archs = some_archs(space, 6)
    codes = space.codes(archs)
    per_op = np.array([op_peak_values(op) for op in enumerate_ops(space)], dtype=np.int64)
    expected = op_max(space, codes, per_op)
    assert (cost(space, codes, "peak_memory_bytes") // 4).tolist() == expected.tolist()
    assert [peak_values(lower(space, arch)) for arch in archs] == expected.tolist()
    # the same chains, told as graphs
    for arch, value in zip(archs, expected, strict=True):
        ops = lower(space, arch).ops
        assert peak_values(Network(ops, tuple((i, i + 1) for i in range(len(ops) - 1)))) == value


IN_PLACE = {"Relu", "Add", "BatchNormalization"}


def onnx_peak(model: onnx.ModelProto) -> int:
    """Most values alive at once when the nodes run in order, from the graph alone."""
    graph = shape_inference.infer_shapes(model, strict_mode=True).graph
    sizes = {
        value.name: int(np.prod([d.dim_value for d in value.type.tensor_type.shape.dim]))
        for value in (*graph.input, *graph.value_info, *graph.output)
    }
    last = {name: t for t, node in enumerate(graph.node) for name in node.input if name in sizes}
    storage = {graph.input[0].name: 0}
    size_of, born, dies = {0: sizes[graph.input[0].name]}, {0: 0}, {}
    for t, node in enumerate(graph.node):
        reads = [name for name in node.input if name in sizes]
        over = [name for name in reads if last[name] == t and node.op_type in IN_PLACE]
        (output,) = node.output
        storage[output] = storage[over[0]] if over else len(size_of)
        if not over:
            size_of[storage[output]], born[storage[output]] = sizes[output], t
        for name in (*reads, output):
            dies[storage[name]] = t
    changes = [0] * (len(graph.node) + 1)
    for buffer, size in size_of.items():
        changes[born[buffer]] += size
        changes[dies[buffer] + 1] -= size
    return max(accumulate(changes))


def test_peak_memory_of_cells_is_that_of_the_graph_that_is_timed() -> None:
    codes = CELLS.sample(40, rng=rng(0, "memory"))
    found = cost(CELLS, codes, "peak_memory_bytes") // 4
    nets = [lower(CELLS, CELLS.arch(row)) for row in codes]
    joined = [any(step.reads == (0,) for step in net.live().steps()) for net in nets]
    assert sum(joined) > 30
    for net, value, has_path in zip(nets, found, joined, strict=True):
        if has_path:
            assert onnx_peak(build_onnx(net)) == value


SUMMING = ["nats_topology", "nats_size", "nasbench101", "darts"]
GRAPHS = ["nats_topology", "nasbench101", "darts", "darts_ptb"]


def running(name: str) -> tuple[SearchSpace, np.ndarray, list[Network]]:
    """Archs with a path from image to logits, and what exports compute of them."""
    space = build_space(name, num_classes=10)
    codes = space.sample(80, rng=rng(1, "live"))
    codes = codes[is_connected(space, codes)]
    return space, codes, [lower(space, space.arch(row)).deployed() for row in codes]


@pytest.mark.parametrize("name", GRAPHS)
def test_sums_of_live_operators_are_those_of_the_steps_that_run(name: str) -> None:
    """In the timed graph, without dead operators and repeated poolings."""
    space, codes, nets = running(name)
    ops = enumerate_ops(space)
    prices = rng(0, "prices").random(len(ops))
    of = dict(zip(ops, prices, strict=True))
    expected = [sum(of[op] for op in net) for net in nets]
    np.testing.assert_allclose(live_sum(space, codes, prices, once=True), expected, rtol=1e-12)
    each = [sum(of[op] for op in lower(space, space.arch(row)).live()) for row in codes]
    np.testing.assert_allclose(live_sum(space, codes, prices), each, rtol=1e-12)
    np.testing.assert_allclose(live_counts(space, codes) @ prices, each, rtol=1e-12)


def between(net: Network) -> tuple[int, int]:
    """Values that steps read and the step before did not write, and values that sums write."""
    newest, late, summed = IMAGE, 0, 0
    sizes = {IMAGE: net.ops[0].in_channels * net.ops[0].in_hw ** 2}
    for step in net.steps():
        late += sum(sizes[value] for value in step.reads if value != newest)
        written = step.op or net.ops[step.position]
        sizes[step.writes] = written.out_channels * written.out_hw**2
        newest = step.writes
        summed += sizes[newest] * (step.op is None)
    return late, summed


@pytest.mark.parametrize("name", [*GRAPHS, "nats_size", "mobilenet_tiny"])
def test_values_between_operators_are_those_of_the_steps_that_run(name: str) -> None:
    space, codes, nets = running(name)
    expected = np.array([between(net) for net in nets])
    np.testing.assert_array_equal(graph_values(space, codes), expected)
    has_late, has_sums = expected.any(axis=0)
    assert (has_late, has_sums) == (name != "mobilenet_tiny", name in SUMMING)


def expression(net: Network) -> str:
    """What a network computes, as nested operators; the order of terms does not matter."""
    found: list[str] = []
    for op, sources in zip(net.ops, net.sources, strict=True):
        found.append(f"{op.key}({'+'.join(sorted(found[source] for source in sources))})")
    return content_hash([found[-1]])


@pytest.mark.parametrize("name", ["nats_topology", "nasbench101", "darts"])
def test_networks_without_repeated_poolings_compute_the_same(name: str) -> None:
    space = build_space(name, QUICK[name], num_classes=10)
    merged = 0
    for row in space.sample(60, rng=rng(2, "deployed")):
        net = lower(space, space.arch(row)).live()
        assert expression(net.deployed()) == expression(net)
        merged += len(net.deployed()) < len(net)
    assert merged or name == "nasbench101"


def test_two_equal_terms_of_a_sum_stay() -> None:
    pool = OpSpec("avg_pool", 4, 4, 2, 2, kernel=3, padding=1)
    first, *_, second, third = maps(1)
    ops = (first, pool, pool, pool, second, third)
    both = Network(ops[:3] + ops[4:], ((0, 1), (0, 2), (1, 3), (2, 3), (3, 4)))
    assert both.deployed() == both
    inner = conv(4, 4, 2, 1, 1, "relu")
    ops = (first, pool, pool, inner, second, third)
    apart = Network(ops, ((0, 1), (0, 2), (1, 3), (2, 4), (3, 4), (4, 5)))
    kept = (first, pool, inner, second, third)
    assert apart.deployed() == Network(kept, ((0, 1), (1, 2), (1, 3), (2, 3), (3, 4)))


def test_repeated_poolings_are_computed_once_by_exports() -> None:
    """The number of poolings is that of torch's export, which knows nothing of the rule."""
    space = build_space("nats_topology", QUICK["nats_topology"], num_classes=10)
    pool = next(c for c in space.choices if c.name == "edge01").values.index("avg_pool_3x3")
    conv = next(c for c in space.choices if c.name == "edge01").values.index("nor_conv_1x1")
    arch = space.arch((0, pool, pool, pool, conv, pool, conv))  # two poolings of node 0, two of 1
    net = lower(space, arch)
    x = torch.randn(1, 3, 8, 8)
    graph = torch.onnx.export(
        Supernet(space, seed=0).extract(arch).eval(), (x,), dynamo=True, verbose=False
    ).model_proto.graph
    in_file = sum(node.op_type == "AveragePool" for node in graph.node)
    n_reductions = 2
    assert in_file == sum(op.kind == "avg_pool" for op in net.deployed()) == 3 * 2 + n_reductions
    assert sum(op.kind == "avg_pool" for op in net.live()) == 3 * 4 + n_reductions
