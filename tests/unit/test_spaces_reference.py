"""Costs of spaces against torch modules: NAS-Bench-201 cells, bytes of deployed weights."""

from __future__ import annotations

import pytest
import torch
from fvcore.nn import FlopCountAnalysis
from torch import Tensor, nn

from hwnas.core.rng import rng
from hwnas.nets.subnet import build_subnet
from hwnas.spaces.cost import cost
from hwnas.spaces.space import SearchSpace
from tests.mobile_spaces import MOBILE_SPACES, some_archs
from tests.zoo import space

WIDTHS, N_CELLS, N_NODES = (16, 32, 64), 5, 4


def conv_bn(in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """ReLU-conv-BN."""
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(nn.ReLU(), conv, nn.BatchNorm2d(out_channels))


class Cell(nn.Module):
    """A NAS-Bench-201 cell as its paper draws it; `edges` by (source, target)."""

    def __init__(self, width: int, edges: dict[tuple[int, int], str]) -> None:
        super().__init__()
        make = {
            "skip_connect": nn.Identity,
            "avg_pool_3x3": lambda: nn.AvgPool2d(3, 1, 1, count_include_pad=False),
            "nor_conv_1x1": lambda: conv_bn(width, width, 1),
            "nor_conv_3x3": lambda: conv_bn(width, width, 3),
        }
        self.ends = [ends for ends, name in edges.items() if name != "none"]
        self.ops = nn.ModuleList([make[edges[ends]]() for ends in self.ends])

    def forward(self, x: Tensor) -> Tensor:
        nodes = [x] + [torch.zeros_like(x)] * (N_NODES - 1)
        for (source, target), op in zip(self.ends, self.ops, strict=True):
            nodes[target] = nodes[target] + op(nodes[source])
        return nodes[-1]


class Reduction(nn.Module):
    """The residual block between two stages."""

    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        self.main = nn.Sequential(conv_bn(before, width, 3, 2), conv_bn(width, width, 3))
        self.shortcut = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(before, width, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return self.main(x) + self.shortcut(x)


def nasbench201_net(edges: dict[tuple[int, int], str]) -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)]
    for stage, width in enumerate(WIDTHS):
        if stage:
            layers.append(Reduction(WIDTHS[stage - 1], width))
        layers += [Cell(width, edges) for _ in range(N_CELLS)]
    head = [nn.BatchNorm2d(64), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, *head, nn.Linear(64, 10))


def test_nasbench201_cells_cost_what_torch_modules_of_them_do():
    cells = space("nasbench201")
    codes = cells.sample(6, rng=rng(0, "cells"))
    macs, params = cost(cells, codes, "macs"), cost(cells, codes, "params")
    for row, expected_macs, expected_params in zip(codes, macs, params, strict=True):
        view = cells.view(cells.arch(row))
        edges = {(i, j): str(view[f"edge{i}{j}"]) for i, j in cells.macro.edges}
        model = nasbench201_net(edges).eval()
        assert sum(p.numel() for p in model.parameters()) == expected_params
        count = FlopCountAnalysis(model, torch.zeros(1, 3, 32, 32)).unsupported_ops_warnings(False)
        count.uncalled_modules_warnings(False)
        found = count.by_operator()
        assert found["conv"] + found["linear"] == expected_macs


@pytest.mark.parametrize("mobile", MOBILE_SPACES.values(), ids=MOBILE_SPACES)
def test_weight_bytes_are_those_of_the_folded_module(mobile: SearchSpace):
    """Weights, and a bias per output channel where BN folds into one; int8 adds scales."""
    archs = some_archs(mobile, 3)
    codes = mobile.codes(archs)
    found = {p: cost(mobile, codes, "weight_bytes", precision=p) for p in ("fp32", "fp16", "int8")}
    for i, arch in enumerate(archs):
        model = build_subnet(mobile, arch, seed=None)
        layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
        n_weights = sum(layer.weight.numel() for layer in layers)
        n_outputs = sum(layer.weight.shape[0] for layer in layers)
        n_biases = sum(layer.bias is not None and len(layer.bias) for layer in layers)
        n_biases += sum(norm.num_features for norm in norms)  # one BN behind one layer
        assert found["fp32"][i] == 4 * (n_weights + n_biases)
        assert found["fp16"][i] == 2 * (n_weights + n_biases)
        assert found["int8"][i] == n_weights + (4 + 4) * n_outputs
