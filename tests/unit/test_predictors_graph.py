"""Graph encoding against `spaces.ops.graph`, one arch at a time."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from hwnas.core.rng import rng
from hwnas.nets.graph_conv import GCN, EnsembleMLP
from hwnas.predictors.graph import (
    FLAT_VARIANCE,
    _summary,
    choice_features,
    flat_features,
    graph_batch,
    op_features,
    space_features,
)
from hwnas.spaces.graphs import graph, live_graph
from hwnas.spaces.index import enumerate_ops
from hwnas.spaces.load import build_space
from hwnas.spaces.skeleton import chain


def test_batches_hold_the_graph_of_every_arch(tiny_space):
    codes = tiny_space.sample(40, rng=rng(0, "test"))
    batch = graph_batch(tiny_space, codes)
    ops = enumerate_ops(tiny_space)
    for row, nodes, reads, feeds in zip(codes, batch.nodes, batch.reads, batch.feeds, strict=True):
        expected_ops, expected_edges = graph(tiny_space, tiny_space.arch(row))
        present = np.flatnonzero(nodes[:-1] < len(ops))
        assert tuple(ops[node] for node in nodes[present]) == expected_ops
        edges = {(int(j), int(i)) for i, j in zip(*np.nonzero(reads[:-1]), strict=True) if i != j}
        assert edges == {(present[a], present[b]) for a, b in expected_edges}
        assert {(int(i), int(j)) for i, j in zip(*np.nonzero(feeds), strict=True)} == edges
        # the global node, last, reads itself and every present slot alike; nobody reads it
        assert nodes[-1] == len(ops) + 1
        np.testing.assert_array_equal(np.flatnonzero(reads[-1]), [*present, len(nodes) - 1])
        np.testing.assert_allclose(reads[-1, present], 1 / (len(present) + 1))
        # rows of present nodes are means; absent slots neither read nor are read
        np.testing.assert_allclose(reads[present].sum(1), 1, rtol=1e-6)
        absent = np.setdiff1d(np.arange(len(nodes) - 1), present)
        assert not reads[absent].any() and not reads[:, absent].any()


@pytest.fixture(scope="module")
def cells():
    return build_space("nasbench201", num_classes=10)


def cell(space, **ops):
    """Codes [1, d] of a cell; edges that are not given are `none`."""
    codes = [
        0,
        *(choice.values.index(ops.get(choice.name, "none")) for choice in space.choices[1:]),
    ]
    return np.array([codes], dtype=np.int16)


def test_operators_that_reach_nothing_are_left_out(cells):
    alive = cell(cells, edge01="nor_conv_3x3", edge13="nor_conv_1x1", edge03="skip_connect")
    dead_ends = cell(
        cells,
        edge01="nor_conv_3x3",
        edge13="nor_conv_1x1",
        edge03="skip_connect",
        edge12="nor_conv_3x3",  # node 2 feeds nobody
    )
    unfed = cell(
        cells,
        edge01="nor_conv_3x3",
        edge13="nor_conv_1x1",
        edge03="skip_connect",
        edge23="avg_pool_3x3",  # node 2 is fed by nobody
    )
    batch = graph_batch(cells, np.concatenate([alive, dead_ends, unfed]))
    for array in (batch.nodes, batch.reads, batch.feeds, batch.summary):
        np.testing.assert_array_equal(array[1], array[0])
        np.testing.assert_array_equal(array[2], array[0])
    assert (batch.nodes[0, :-1] < len(enumerate_ops(cells))).sum() == 5  # three edges, two ends


def test_live_operators_are_those_on_a_path_found_by_search(cells):
    codes = cells.sample(300, rng=rng(0, "test/live"))
    slots, edges = live_graph(cells, codes)
    for row, found in zip(codes, slots[:, 1:-1] >= 0, strict=True):
        chosen = cells.view(cells.arch(row))
        used = set()
        for path in ((0, 3), (0, 1, 3), (0, 2, 3), (0, 1, 2, 3)):
            steps = [f"edge{i}{j}" for i, j in pairwise(path)]
            if all(chosen[step] != "none" for step in steps):
                used.update(steps)
        names = [choice.name for choice in cells.choices[1:]]
        assert {name for name, is_live in zip(names, found, strict=True) if is_live} == used
    assert not (edges & ~(slots >= 0)[:, :, None]).any()


def test_summary_counts_paths_and_depth(cells):
    codes = np.concatenate(
        [
            cell(cells),
            cell(cells, edge03="nor_conv_1x1"),
            cell(cells, edge03="skip_connect", edge01="nor_conv_3x3", edge13="nor_conv_3x3"),
            cells.codes([cells.largest()]),
        ]
    )
    summary = _summary(cells, *live_graph(cells, codes))
    macs, params, ways, longest, shortest, nodes = summary.T
    # in operators with weights; without a path only the ends are left, and the pooling is unfed
    np.testing.assert_array_equal(longest - longest[0], [0, 1, 2, 3])
    np.testing.assert_array_equal(shortest - shortest[0], [0, 1, 0, 1])
    np.testing.assert_allclose(np.expm1(ways), [0, 1, 2, 4])
    np.testing.assert_array_equal(nodes, [2, 3, 5, 8])
    assert (np.diff(macs) > 0).all() and (np.diff(params) > 0).all()


def test_summaries_are_near_standard_over_the_space(tiny_space):
    summary = graph_batch(tiny_space, tiny_space.sample(500, rng=rng(1, "test"))).summary
    assert summary.shape[1] == 5  # a chain has one path: that number is left out
    np.testing.assert_allclose(summary.mean(axis=0), 0, atol=0.2)
    np.testing.assert_allclose(summary.std(axis=0), 1, atol=0.2)


def test_flat_features_have_the_stated_variance(tiny_space):
    codes = tiny_space.sample(2000, rng=rng(1, "test"))
    flat = flat_features(tiny_space, graph_batch(tiny_space, codes))
    chosen = choice_features(tiny_space, codes)
    for features in (flat, chosen):
        assert features.var(axis=0).sum() == pytest.approx(FLAT_VARIANCE, rel=0.1)
    one_hot = tiny_space.encode(codes)  # other archs, other features
    assert len(np.unique(chosen, axis=0)) == len(np.unique(one_hot, axis=0))


def test_chain_skips_absent_slots():
    edges = chain(np.array([[True, False, False, True, True], [False, True, False, True, False]]))
    assert [tuple(map(int, edge)) for edge in np.argwhere(edges)] == [
        (0, 3, 0),
        (0, 4, 3),
        (1, 3, 1),
    ]


def test_features_are_standardised_and_tell_operators_apart(tiny_space):
    ops = enumerate_ops(tiny_space)
    features = op_features(ops)
    np.testing.assert_allclose(features.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(features.std(axis=0), 1, atol=1e-5)
    assert len(np.unique(features.round(4), axis=0)) == len(ops)
    table = space_features(tiny_space)
    assert not table[len(ops) :].any() and len(table) == len(ops) + 2


@pytest.fixture
def gcn(tiny_space):
    table = torch.from_numpy(space_features(tiny_space))
    batch = graph_batch(tiny_space, tiny_space.sample(1, rng=rng(0, "n")))
    return GCN(
        table,
        n_nodes=batch.nodes.shape[1],
        n_summary=batch.summary.shape[1],
        members=2,
        width=8,
        depth=2,
        generator=torch.Generator().manual_seed(0),
    )


def reference(gcn, member, nodes, reads, feeds, summary):
    """One member on one graph, present nodes only, in plain float64 numpy."""
    weights = {name: p.detach().double().numpy()[member] for name, p in gcn.named_parameters()}
    kept = np.flatnonzero(reads.diagonal() > 0)
    reads, feeds = (a[np.ix_(kept, kept)].astype(np.float64) for a in (reads, feeds))
    x = gcn.table.double().numpy()[nodes[kept]] @ weights["embed.weight"] + weights["embed.bias"]
    x = x + weights["position"][kept]
    whole = summary @ weights["summarise.weight"] + weights["summarise.bias"][0]
    x[-1] += whole
    for layer in range(len(gcn.convs)):
        conv = f"convs.{layer}.directions."
        products = np.split(weights[f"{conv}weight"], 3, axis=1)
        biases = np.split(weights[f"{conv}bias"], 3, axis=1)
        messages = [x @ product + bias for product, bias in zip(products, biases, strict=True)]
        y = reads @ messages[0] + feeds @ messages[1] + messages[2]
        y = (y - y.mean(1, keepdims=True)) / np.sqrt(y.var(1, keepdims=True) + 1e-5)
        x = x + np.maximum(y, 0)
    read = np.concatenate([x[-1], x[:-1].sum(0) / len(nodes), whole])
    hidden = read @ weights["head.layers.0.weight"] + weights["head.layers.0.bias"][0]
    hidden = np.maximum(hidden, 0)
    return (hidden @ weights["head.layers.1.weight"] + weights["head.layers.1.bias"][0]).item()


def test_gcn_equals_a_plain_computation_per_member_and_graph(gcn, tiny_space):
    batch = graph_batch(tiny_space, tiny_space.sample(12, rng=rng(1, "test")))
    arrays = (batch.nodes, batch.reads, batch.feeds, batch.summary)
    nodes, *rest = map(torch.from_numpy, arrays)
    with torch.inference_mode():
        scores = gcn(nodes.long(), *rest)
    expected = [
        [reference(gcn, member, *graph) for graph in zip(*arrays, strict=True)]
        for member in range(2)
    ]
    np.testing.assert_allclose(scores.numpy(), expected, rtol=1e-4, atol=1e-5)


def test_members_are_independent():
    generator = torch.Generator().manual_seed(0)
    mlp = EnsembleMLP(3, (5, 4, 1), generator)
    outputs = mlp(torch.randn(6, 5, generator=generator))
    assert outputs.shape == (3, 6, 1)
    outputs[1].sum().backward()
    for layer in mlp.layers:
        touched = layer.weight.grad.abs().sum((1, 2)) > 0
        assert touched.tolist() == [False, True, False]
