"""A kind of network that hwnas does not know goes through every door, from one class.

The class is the example of docs/search-spaces.md, "A new kind of skeleton".
"""

from __future__ import annotations

import inspect
import re
import runpy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor
from torch.nn import functional as F

from hwnas.builders.onnx import INPUT, micro, network
from hwnas.core.errors import UserError
from hwnas.core.rng import rng
from hwnas.nets.subnet import build_subnet
from hwnas.nets.supernet import Supernet
from hwnas.predictors.graph import graph_batch
from hwnas.reporting.drawing import draw_network
from hwnas.spaces.choice import Choice
from hwnas.spaces.cost import cost, op_macs, op_params
from hwnas.spaces.graphs import graph
from hwnas.spaces.index import enumerate_ops, op_index
from hwnas.spaces.lowering import lower
from hwnas.spaces.ops import OpSpec, conv, linear, mean
from hwnas.spaces.skeleton import Skeleton
from hwnas.spaces.space import SearchSpace


@dataclass(frozen=True)
class Branches(Skeleton):
    """A stem, blocks of two convolutions side by side, pooling, classifier."""

    in_channels: int
    num_classes: int
    resolutions: tuple[int, ...]
    width: int = 8
    depths: tuple[int, ...] = (1, 2)
    kernels: tuple[int, ...] = (1, 3)

    def choices(self) -> tuple[Choice, ...]:
        found = [
            Choice("resolution", "resolution", self.resolutions),
            Choice("depth", "depth", self.depths),
        ]
        for b in range(max(self.depths)):
            deep = tuple(code for code, depth in enumerate(self.depths) if depth > b)
            name = f"block{b}.kernel"
            found.append(Choice(name, "kernel", self.kernels, parent=1, parent_codes=deep))
        return tuple(found)

    def slot_names(self) -> tuple[str, ...]:
        n, parts = max(self.depths), ("main", "side")
        blocks = [f"block{b}.{part}" for b in range(n) for part in parts]
        return ("stem", *blocks, "pool", "classifier")

    def lower_slots(self, codes: tuple[int, ...]) -> tuple[OpSpec | None, ...]:
        px, depth = self.resolutions[codes[0]], self.depths[codes[1]]
        found: list[OpSpec | None] = [conv(self.in_channels, self.width, px, 3, 1, "relu")]
        for b, code in enumerate(codes[2:]):
            main = conv(self.width, self.width, px, self.kernels[code], 1, "relu")
            side = conv(self.width, self.width, px, 1, 1, "none")
            found += [main, side] if b < depth else [None, None]
        return (*found, mean(self.width, px), linear(self.width, self.num_classes))

    def reads(self) -> tuple[tuple[int, ...], ...]:
        found: list[tuple[int, ...]] = [()]
        value: tuple[int, ...] = (0,)
        for _ in range(max(self.depths)):
            found += [value, value]
            value = (len(found) - 2, len(found) - 1)  # the sum of both
        return (*found, value, (len(found),))


SPACE = SearchSpace("branches", Branches(3, 5, (6, 8)))
SHALLOW = SPACE.restrict({"depth": (1,)})


def test_the_documentation_shows_this_class_in_a_file_that_runs(tmp_path: Path) -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "search-spaces.md"
    blocks = re.findall(r"^```python branches.py\n(.*?)^```", page.read_text("utf-8"), re.M | re.S)
    assert inspect.getsource(Branches) in blocks[0]
    file = tmp_path / "branches.py"
    file.write_text(blocks[0], encoding="utf-8")
    module = runpy.run_path(str(file))
    space = module["build"](module["Config"](resolutions=(32, 24)), num_classes=7)
    assert space.id == SearchSpace("branches", Branches(3, 7, (24, 32))).id


def test_it_has_archs_operators_and_edges() -> None:
    assert SPACE.size() == 2 * (2 + 2 * 2)
    net = lower(SPACE, SPACE.largest())
    assert [op.kernel for op in net] == [3, 3, 1, 3, 1, 1, 1]
    assert net.edges == ((0, 1), (0, 2), (1, 3), (1, 4), (2, 3), (2, 4), (3, 5), (4, 5), (5, 6))
    shallow = lower(SPACE, SHALLOW.largest())
    assert shallow.edges == ((0, 1), (0, 2), (1, 3), (2, 3), (3, 4)), "a block left out hands on"
    assert SPACE.id == "branches-" + SPACE.id[-8:] and SHALLOW.id == SPACE.id


def test_the_index_equals_lower_and_costs_are_sums_over_it() -> None:
    codes = SPACE.sample(50, rng=rng(0, "toy"))
    ops = enumerate_ops(SPACE)
    nets = [lower(SPACE, SPACE.arch(row)) for row in codes]
    for index, net in zip(op_index(SPACE, codes), nets, strict=True):
        assert tuple(ops[i] for i in index if i >= 0) == net.ops
    assert cost(SPACE, codes, "macs").tolist() == [sum(map(op_macs, net)) for net in nets]
    assert cost(SPACE, codes, "params").tolist() == [sum(map(op_params, net)) for net in nets]


@dataclass(frozen=True)
class Selected(Branches):
    """One of two convolutions, if the choice `kind` is "on"; the last kind has neither."""

    def choices(self) -> tuple[Choice, ...]:
        return (
            Choice("resolution", "resolution", self.resolutions),
            Choice("kind", "op", ("off", "on", "other")),
            Choice("side", "op", ("main", "side"), parent=1, parent_codes=(1,)),
        )

    def slot_names(self) -> tuple[str, ...]:
        return ("stem", "main", "side", "pool", "classifier")

    def lower_slots(self, codes: tuple[int, ...]) -> tuple[OpSpec | None, ...]:
        px = self.resolutions[codes[0]]
        ops = [conv(self.width, self.width, px, kernel, 1, "none") for kernel in (1, 3)]
        inner = [op if codes[1:] == (1, side) else None for side, op in enumerate(ops)]
        stem = conv(self.in_channels, self.width, px, 3, 1, "relu")
        return (stem, *inner, mean(self.width, px), linear(self.width, self.num_classes))

    def reads(self) -> tuple[tuple[int, ...], ...]:
        return ((), (0,), (0,), (1, 2), (3,))


def test_a_slot_may_exist_for_one_value_of_an_active_choice() -> None:
    """The largest arch lacks the slot, and still lacks it if any one choice is changed."""
    space = SearchSpace("selected", Selected(3, 5, (8,)))
    assert space.size() == 4
    codes = space.sample(200, rng=rng(0, "selected"))
    ops = enumerate_ops(space)
    for row, index in zip(codes, op_index(space, codes), strict=True):
        assert tuple(ops[i] for i in index if i >= 0) == lower(space, space.arch(row)).ops


def test_peak_memory_holds_both_branches_and_what_they_read() -> None:
    """At the second branch: the block's input, the first branch's output, its own output."""
    values = cost(SPACE, SPACE.codes([SPACE.largest(), SPACE.smallest()]), "peak_memory_bytes")
    assert (values / 4).tolist() == [3 * 8 * 8 * 8, 3 * 8 * 6 * 6]


def test_predictors_see_all_of_it() -> None:
    codes = SPACE.codes([SPACE.largest(), SHALLOW.largest()])
    batch = graph_batch(SPACE, codes)
    for row, nodes, reads in zip(codes, batch.nodes, batch.reads, strict=True):
        ops, edges = graph(SPACE, SPACE.arch(row))
        assert (ops, edges) == (
            lower(SPACE, SPACE.arch(row)).ops,
            lower(SPACE, SPACE.arch(row)).edges,
        )
        present = np.flatnonzero(nodes[:-1] < len(enumerate_ops(SPACE)))
        found = {(int(j), int(i)) for i, j in zip(*np.nonzero(reads[:-1]), strict=True) if i != j}
        assert found == {(present[a], present[b]) for a, b in edges}


def test_it_is_drawn() -> None:
    net = lower(SPACE, SPACE.largest())
    svg = ElementTree.fromstring(draw_network(net))
    assert len(svg.findall(".//rect")) == len(net)
    assert len(list(svg.iter("circle"))) == 2, "one sum per block"


def reference(weights: dict[str, Tensor], depth: int, x: Tensor) -> Tensor:
    """The network written down in torch; BN is folded into the weights."""

    def at(position: int, value: Tensor) -> Tensor:
        weight = weights[f"{position}.conv.weight"]
        bias = weights[f"{position}.conv.bias"]
        return F.conv2d(value, weight, bias, padding=weight.shape[-1] // 2)

    x = F.relu(at(0, x))
    for b in range(depth):
        x = F.relu(at(2 * b + 1, x)) + at(2 * b + 2, x)
    last = 2 * depth + 2
    return F.linear(
        x.mean((2, 3)), weights[f"{last}.linear.weight"], weights[f"{last}.linear.bias"]
    )


@pytest.mark.parametrize("space", [SPACE, SHALLOW], ids=["deep", "shallow"])
def test_its_onnx_computes_what_torch_computes(space: SearchSpace) -> None:
    model = network(lower(space, space.largest()), batch=2)
    onnx.checker.check_model(model, full_check=True)
    weights = {
        t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in model.graph.initializer
    }
    x = np.random.default_rng(0).standard_normal((2, 3, 8, 8), dtype=np.float32)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (found,) = session.run(None, {INPUT: x})
    depth = int(space.view(space.largest())["depth"])
    expected = reference(weights, depth, torch.from_numpy(x))
    assert expected.std() > 0.1
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-5)
    assert sum(node.op_type == "Add" for node in model.graph.node) == depth


def test_every_operator_has_a_micro_net_for_tables() -> None:
    for op in enumerate_ops(SPACE):
        model = micro(op, before=op.in_channels != 3, after=op.kind != "linear")
        onnx.checker.check_model(model, full_check=True)


@pytest.mark.parametrize(
    "build",
    [lambda s: Supernet(s, seed=0), lambda s: build_subnet(s, s.largest())],
    ids=["supernet", "static net"],
)
def test_what_it_has_not_said_it_can_do_is_refused(build: Callable[[SearchSpace], object]) -> None:
    with pytest.raises(UserError, match=r"space branches has no (supernet|static net)"):
        build(SPACE)
