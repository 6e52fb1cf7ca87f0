"""NAS-Bench-101: canonical cells, their counts, bad matrices, and the network of the paper."""

from __future__ import annotations

import json
from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hwnas.core.errors import UserError
from hwnas.core.rng import rng
from hwnas.nets.extract import extract
from hwnas.nets.subnet import build_subnet
from hwnas.nets.supernet import Supernet
from hwnas.spaces.arch import Arch
from hwnas.spaces.cell_graphs import canonical_cell, graphs_of, pruned
from hwnas.spaces.enumeration import rank, unrank
from hwnas.spaces.graphs import is_connected
from hwnas.spaces.load import build_space, read_arch

SPACE = build_space(
    "nasbench101", {"resolutions": [8], "width": 10, "cells_per_stage": 1}, num_classes=10
)
IMAGES = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
CONV3, CONV1, POOL = "conv3x3-bn-relu", "conv1x1-bn-relu", "maxpool3x3"
DIAMOND = [[0, 1, 1, 0], [0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 0]]
COUNTS = {2: 1, 3: 6, 4: 84, 5: 2441, 6: 62010, 7: 359082}  # 1902.09635, appendix S1


def text(matrix: Any, *ops: str) -> str:
    return json.dumps({"matrix": matrix, "ops": ["input", *ops, "output"]})


# --- equal cells ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "n", [*(2, 3, 4, 5), *(pytest.param(n, marks=pytest.mark.full) for n in (6, 7))]
)
def test_the_numbers_of_distinct_cells_are_the_published_ones(n: int):
    assert sum(graph.n_cells(3) for graph in graphs_of(n)) == COUNTS[n]
    assert sum(COUNTS.values()) == 423_624


def test_the_space_lists_every_cell_once():
    full = build_space("nasbench101", num_classes=10)
    assert (
        full.size() == len(np.unique(full.listed, axis=0)) == sum(COUNTS[n] for n in (2, 3, 4, 5))
    )
    numbers = np.arange(full.size())
    assert (rank(full, unrank(full, numbers)) == numbers).all()
    assert full.validate(full.listed).all() and is_connected(full, full.listed).all()


def test_isomorphic_cells_are_one_arch():
    """Every order of the vertices in which edges still lead to later ones."""
    matrix = np.zeros((5, 5), dtype=int)
    for i, j in ((0, 1), (0, 2), (0, 3), (1, 4), (2, 4), (3, 4), (0, 4)):
        matrix[i, j] = 1
    found = set()
    for order in permutations((1, 2, 3)):
        new = [0, *order, 4]
        ops = [(CONV3, POOL, CONV1)[v - 1] for v in order]
        found.add(read_arch(SPACE, text(matrix[np.ix_(new, new)].tolist(), *ops)))
    assert len(found) == 1
    chain = np.eye(4, k=1, dtype=int).tolist()
    forth, back = (read_arch(SPACE, text(chain, *ops)) for ops in ((CONV3, POOL), (POOL, CONV3)))
    assert forth != back
    one, two = (read_arch(SPACE, text(DIAMOND, *ops)) for ops in ((CONV3, POOL), (POOL, CONV3)))
    assert one == two and one.key == two.key


def test_vertices_on_no_path_do_not_count():
    dead = [[0, 1, 0, 1], [0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0]]
    assert read_arch(SPACE, text(dead, CONV3, POOL)) == read_arch(SPACE, text([[0, 1], [0, 0]]))


def test_codes_that_are_not_canonical_are_no_member():
    arch = read_arch(SPACE, text(DIAMOND, CONV3, POOL))
    swapped = (*arch.codes[:2], arch.codes[3], arch.codes[2], *arch.codes[4:])
    assert SPACE.arch(swapped) == arch != Arch(SPACE.id, swapped)
    assert not SPACE.validate(np.array([swapped], dtype=np.int16))[0]
    with pytest.raises(UserError, match="not the canonical codes"):
        SPACE.check(Arch(SPACE.id, swapped))


def test_a_restriction_keeps_samples_and_counts_right():
    narrow = SPACE.restrict({"vertex1": (CONV3,)})
    codes = narrow.sample(300, seed=0)
    assert narrow.validate(codes).all() and SPACE.validate(codes).all()
    assert narrow.size() == len(narrow.listed) < SPACE.size()


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (text([[0, 1, 0], [0, 0, 1], [1, 0, 0]], CONV3), "(?s)not upper triangular.*2 to vertex 0"),
        (text([[1, 1], [0, 0]]), "(?s)not upper triangular.*0 to vertex 0"),
        (text([[0, 1, 0], [0, 0, 0], [0, 0, 0]], CONV3), "no path from its input"),
        (text([[0, 1], [0]]), "not an adjacency matrix"),
        (text([[0, 2], [0, 0]]), "numbers 0 and 1"),
        (text([[0, 0.5], [0, 0]]), "numbers 0 and 1"),
        (text([[0, 1]]), "not an adjacency matrix"),
        (text([]), "not an adjacency matrix"),
        (text(None), "not an adjacency matrix"),
        (text(DIAMOND, CONV3), "wrong number of operators"),
        (text(DIAMOND, CONV3, "conv5x5"), "(?s)operator that is not in the space.*conv5x5"),
        (text(np.eye(7, k=1, dtype=int).tolist(), *[CONV3] * 5), "too many vertices"),
        (text(np.triu(np.ones((5, 5), dtype=int), 1).tolist(), *[CONV3] * 3), "too many edges"),
        ('{"ops": []}', "not an adjacency matrix"),
        ('{"matrix"', "not JSON"),
        ("|skip_connect~0|+|none~0|none~1|+|none~0|none~1|none~2|", "cannot read the arch"),
    ],
)
def test_a_bad_cell_is_refused(cell: str, message: str):
    with pytest.raises(UserError, match=message):
        read_arch(SPACE, cell)


# --- networks -------------------------------------------------------------------------------------


class ConvBnRelu(nn.Sequential):
    def __init__(self, before: int, width: int, kernel: int) -> None:
        conv = nn.Conv2d(before, width, kernel, padding=kernel // 2, bias=False)
        super().__init__(conv, nn.BatchNorm2d(width), nn.ReLU())


def vertex_channels(before: int, width: int, matrix: np.ndarray) -> list[int]:
    """The released rule (nasbench/lib/model_builder.py, `compute_vertex_channels`), retold."""
    n = len(matrix)
    channels = [before, *[0] * (n - 2), width]
    if n == 2:
        return channels
    degree = matrix[1:, -1].sum()
    share, rest = width // degree, width % degree
    for v in range(1, n - 1):
        if matrix[v, -1]:
            channels[v] = share + (rest > 0)
            rest -= rest > 0
    for v in range(n - 3, 0, -1):
        if not matrix[v, -1]:
            channels[v] = max(channels[w] for w in range(v + 1, n - 1) if matrix[v, w])
    return channels


class Cell(nn.Module):
    """A cell by its matrix."""

    def __init__(self, before: int, width: int, matrix: np.ndarray, ops: list[str]) -> None:
        super().__init__()
        self.matrix, n = matrix, len(matrix)
        self.channels = vertex_channels(before, width, matrix)
        make = {
            CONV3: lambda c: ConvBnRelu(c, c, 3),
            CONV1: lambda c: ConvBnRelu(c, c, 1),
            POOL: lambda c: nn.MaxPool2d(3, 1, 1),
        }
        self.parts = nn.ModuleDict()
        for v in range(1, n - 1):
            if matrix[0, v]:
                self.parts[f"in{v}"] = ConvBnRelu(before, self.channels[v], 1)
            self.parts[f"op{v}"] = make[ops[v - 1]](self.channels[v])
        if matrix[0, -1]:
            self.parts["project"] = ConvBnRelu(before, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        n, values = len(self.matrix), {0: x}
        for v in range(1, n - 1):
            terms = [values[u][:, : self.channels[v]] for u in range(1, v) if self.matrix[u, v]]
            if self.matrix[0, v]:
                terms.append(self.parts[f"in{v}"](x))
            values[v] = self.parts[f"op{v}"](sum(terms))
        last = [values[v] for v in range(1, n - 1) if self.matrix[v, -1]]
        outputs = [torch.cat(last, 1)] if last else []
        if self.matrix[0, -1]:
            outputs.append(self.parts["project"](x))
        return sum(outputs)  # type: ignore[return-value]


def reference(arch: Arch) -> nn.Sequential:
    graph = SPACE.macro.graphs[arch.codes[1]]
    matrix = np.zeros((graph.n_vertices,) * 2, dtype=int)
    for i, j in graph.edges:
        matrix[i, j] = 1
    ops = [SPACE.macro.ops[code] for code in arch.codes[2 : graph.n_vertices]]
    parts: list[nn.Module] = [ConvBnRelu(3, 10, 3)]
    before = 10
    for s in range(3):
        parts += [nn.MaxPool2d(2, 2)] if s else []
        parts.append(Cell(before, 10 << s, matrix, ops))
        before = 10 << s
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, 10))


def test_widths_are_those_of_the_released_code():
    for graph in graphs_of(5):
        matrix = np.zeros((5, 5), dtype=int)
        for i, j in graph.edges:
            matrix[i, j] = 1
        for width in (10, 13, 128):
            assert list(graph.widths(7, width)) == vertex_channels(7, width, matrix)


def test_a_network_is_the_one_of_the_paper():
    archs = [SPACE.largest(), SPACE.smallest()]
    archs += [SPACE.arch(row) for row in SPACE.sample(20, rng=rng(1, "cells"))]
    for arch in archs:
        net, expected = build_subnet(SPACE, arch, seed=2).train(), reference(arch)
        weights = [t for m in net.modules() for t in m.parameters(recurse=False)]
        theirs = [t for m in expected.modules() for t in m.parameters(recurse=False)]
        assert sum(t.numel() for t in theirs) == SPACE.cost([arch], "params")[0]
        with torch.no_grad():
            for source, target in zip(weights, theirs, strict=True):
                target.copy_(source)
            torch.testing.assert_close(net(IMAGES), expected(IMAGES), rtol=0, atol=1e-5)


def test_the_supernet_computes_what_extracted_networks_do():
    """In training mode, on 50 random archs; weights of a vertex and operator are sliced."""
    supernet = Supernet(SPACE, seed=0)
    shape = supernet.elastic(f"stage0.cell0.vertex1.{CONV3}.conv").weight.shape
    assert shape == (10, 10, 3, 3)
    with torch.no_grad():
        for row in SPACE.sample(50, rng=rng(0, "cells")):
            arch = SPACE.arch(row)
            expected = supernet(IMAGES, arch)
            torch.testing.assert_close(extract(supernet, arch)(IMAGES), expected, rtol=0, atol=1e-5)


def test_the_canonical_form_does_not_depend_on_the_order_given():
    n, edges, labels = pruned(DIAMOND, [CONV3, POOL])
    graph, first = canonical_cell(n, edges, labels)
    assert canonical_cell(n, edges, labels[::-1]) == (graph, first)
    assert graph.symmetries == ((0, 1), (1, 0)) and graph.n_cells(3) == 6
