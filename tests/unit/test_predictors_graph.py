"""Graph encoding against `spaces.ops.graph`, one arch at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hwnas.core.rng import rng
from hwnas.nets.graph_conv import GCN, EnsembleMLP
from hwnas.predictors.graph import graph_batch, op_features, space_features
from hwnas.spaces.graphs import chain, graph
from hwnas.spaces.index import enumerate_ops


def test_batches_hold_the_graph_of_every_arch(tiny_space):
    codes = tiny_space.sample(rng(0, "test"), 40)
    batch = graph_batch(tiny_space, codes)
    ops = enumerate_ops(tiny_space)
    for row, nodes, adjacency in zip(codes, batch.nodes, batch.adjacency, strict=True):
        expected_ops, expected_edges = graph(tiny_space, tiny_space.arch(row))
        present = np.flatnonzero(nodes[:-1] < len(ops))
        assert tuple(ops[node] for node in nodes[present]) == expected_ops
        edges = {
            (int(j), int(i)) for i, j in zip(*np.nonzero(adjacency[:-1]), strict=True) if i != j
        }
        assert edges == {(present[a], present[b]) for a, b in expected_edges}
        # the global node, last, reads itself and every present slot alike; nobody reads it
        assert nodes[-1] == len(ops) + 1
        np.testing.assert_array_equal(np.flatnonzero(adjacency[-1]), [*present, len(nodes) - 1])
        np.testing.assert_allclose(adjacency[-1, present], 1 / (len(present) + 1))
        # rows of present nodes are means; absent slots neither read nor are read
        np.testing.assert_allclose(adjacency[present].sum(1), 1, rtol=1e-6)
        absent = np.setdiff1d(np.arange(len(nodes) - 1), present)
        assert not adjacency[absent].any() and not adjacency[:, absent].any()


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
    n_nodes = graph_batch(tiny_space, tiny_space.sample(rng(0, "n"), 1)).nodes.shape[1]
    generator = torch.Generator().manual_seed(0)
    return GCN(table, n_nodes=n_nodes, members=2, width=8, depth=2, generator=generator)


def reference(gcn, member, nodes, adjacency):
    """One member on one graph, present nodes only, in plain float64 numpy."""
    weights = {name: p.detach().double().numpy()[member] for name, p in gcn.named_parameters()}
    kept = np.flatnonzero(adjacency.diagonal() > 0)
    a = adjacency[np.ix_(kept, kept)].astype(np.float64)
    x = gcn.table.double().numpy()[nodes[kept]] @ weights["embed.weight"] + weights["embed.bias"]
    x = x + weights["position"][kept]
    for layer in range(len(gcn.convs)):
        y = a @ x @ weights[f"convs.{layer}.neighbours.weight"]
        y += weights[f"convs.{layer}.neighbours.bias"] + x @ weights[f"convs.{layer}.itself"]
        y = (y - y.mean(1, keepdims=True)) / np.sqrt(y.var(1, keepdims=True) + 1e-5)
        x = x + np.maximum(y, 0)
    read = np.concatenate([x[-1], x[:-1].sum(0) / len(nodes)])
    hidden = read @ weights["head.layers.0.weight"] + weights["head.layers.0.bias"][0]
    hidden = np.maximum(hidden, 0)
    return (hidden @ weights["head.layers.1.weight"] + weights["head.layers.1.bias"][0]).item()


def test_gcn_equals_a_plain_computation_per_member_and_graph(gcn, tiny_space):
    batch = graph_batch(tiny_space, tiny_space.sample(rng(1, "test"), 12))
    with torch.inference_mode():
        scores = gcn(torch.from_numpy(batch.nodes).long(), torch.from_numpy(batch.adjacency))
    expected = [
        [reference(gcn, member, *graph) for graph in zip(batch.nodes, batch.adjacency, strict=True)]
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
