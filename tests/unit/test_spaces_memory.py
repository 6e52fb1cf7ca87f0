"""Peak activation memory against the liveness of tensors in the network as it was built."""

from __future__ import annotations

import operator
from itertools import accumulate

import pytest
import torch
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn import functional as F

from hwnas.nets.plain_net import ChannelShuffle
from hwnas.nets.subnet import build_subnet
from hwnas.spaces.cost import cost
from hwnas.spaces.lowering import resolution
from hwnas.spaces.space import SearchSpace
from tests.mobile_spaces import MOBILE_SPACES, some_archs

NEW = (nn.Conv2d, nn.Linear, nn.AvgPool2d, nn.MaxPool2d, nn.AdaptiveAvgPool2d, ChannelShuffle)
"""Modules that write a tensor of their own; all others work in place (BN, activations) or view."""
IN_PLACE = {operator.add, operator.iadd, operator.mul, F.dropout, torch.flatten, "flatten", "view"}


class Tracer(fx.Tracer):
    """Down to torch's modules and what inherits from them: fast layers, timm's BN."""

    def is_leaf_module(self, m: nn.Module, qualified_name: str) -> bool:
        is_one = isinstance(m, (*NEW, nn.BatchNorm2d))
        return is_one or super().is_leaf_module(m, qualified_name)


def peak_values(model: nn.Module, x: torch.Tensor) -> int:
    """Most values alive at once when the traced calls run in order and free what is read last."""
    graph = fx.GraphModule(model, Tracer().trace(model))
    ShapeProp(graph).propagate(x)
    modules = dict(graph.named_modules())
    storage: dict[fx.Node, fx.Node] = {}  # whose memory a value lies in
    for node in graph.graph.nodes:
        makes_one = node.op == "placeholder" or (
            isinstance(modules[node.target], NEW)
            if node.op == "call_module"
            else node.target not in IN_PLACE
        )
        sources = node.all_input_nodes
        storage[node] = node if makes_one or not sources else storage[sources[0]]
    steps = [node for node in graph.graph.nodes if node.op != "output"]
    born, last_read = {}, {}
    for number, node in enumerate(steps):
        born.setdefault(storage[node], number)
        for source in (node, *node.all_input_nodes):
            last_read[storage[source]] = number
    changes = [0] * (len(steps) + 1)
    for owner, number in born.items():
        size = owner.meta["tensor_meta"].shape.numel()
        changes[number] += size
        changes[last_read[owner] + 1] -= size
    return max(accumulate(changes))


@pytest.mark.parametrize("space", MOBILE_SPACES.values(), ids=MOBILE_SPACES)
def test_peak_memory_is_that_of_the_built_network(space: SearchSpace):
    for arch in some_archs(space, 5):
        px = resolution(space, arch)
        model = build_subnet(space, arch).eval()
        expected = peak_values(model, torch.zeros(1, space.macro.in_channels, px, px))
        codes = space.codes([arch])
        for precision, size in (("fp32", 4), ("fp16", 2), ("int8", 1)):
            found = cost(space, codes, "peak_memory_bytes", precision=precision)[0]
            assert found == size * expected, precision
