"""Folding of BN: only where a BN reads all that one convolution computes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from hwnas.exporters.fold import folded
from hwnas.exporters.formats import export

SHAPE = (4, 8, 8)


class Net(nn.Module):
    """Convolutions and BN, the BN registered after the convolutions `a` and `b`."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.a_bn = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.b, self.b_bn = nn.Conv2d(4, 4, 1, bias=False), nn.BatchNorm2d(4)
        torch.manual_seed(0)
        for bn in (self.a_bn, self.b_bn):
            for value in (bn.weight, bn.bias, bn.running_mean, bn.running_var):
                value.data.uniform_(0.5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b_bn(self.b(self.a_bn(self.a(x)).relu()))


class Sequences(Net):
    """Convolutions of one axis."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv1d(4, 4, 3, padding=1, groups=2), nn.Conv1d(4, 4, 1, bias=False)
        for name in ("a_bn", "b_bn"):
            bn = nn.BatchNorm1d(4)
            bn.load_state_dict(getattr(self, name).state_dict())
            setattr(self, name, bn)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.flatten(2))


class OneBnTwice(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.a_bn(self.b(self.a_bn(self.a(x))))


class OneConvolutionTwice(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b_bn(self.b(self.a_bn(self.a(self.a(x)))))


class BlockTwice(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(2):
            x = self.b_bn(self.b(x)).relu()
        return self.a_bn(self.a(x))


class OtherOrder(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b_bn(self.b(self.a(self.a_bn(x))))


class ReadTwice(Net):
    """The output of a convolution is also added."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.a(x)
        return self.b_bn(self.b(self.a_bn(y) + y))


class IsOutput(Net):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = self.a(x)
        return y, self.b_bn(self.b(self.a_bn(y)))


class WeightRead(Net):
    """The weight of a convolution is also that of a function."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = functional.conv2d(x, self.a.weight, padding=1)
        return self.b_bn(self.b(y + self.a_bn(self.a(x))))


class TwoNames(Net):
    def __init__(self) -> None:
        super().__init__()
        self.norm = self.a_bn

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b_bn(self.b(self.norm(self.a(x))))


class OwnBn(Net):
    """A class of BN that is not known."""

    def __init__(self) -> None:
        super().__init__()
        self.a_bn.__class__ = type("Own", (nn.BatchNorm2d,), {"forward": lambda self, x: 2 * x})


class NoStatistics(Net):
    def __init__(self) -> None:
        super().__init__()
        self.a_bn = nn.BatchNorm2d(4, track_running_stats=False)


def norms(net: nn.Module) -> Iterator[str]:
    return (
        name
        for name, one in net.named_modules()
        if isinstance(one, nn.BatchNorm1d | nn.BatchNorm2d)
    )


@pytest.mark.parametrize(
    ("kind", "kept"),
    [
        (Net, []),
        (Sequences, []),
        (BlockTwice, []),
        (OneBnTwice, ["a_bn", "b_bn"]),
        (OneConvolutionTwice, ["a_bn"]),
        (OtherOrder, ["a_bn"]),
        (ReadTwice, ["a_bn"]),
        (IsOutput, ["a_bn"]),
        (WeightRead, ["a_bn"]),
        (TwoNames, ["a_bn"]),
        (OwnBn, ["a_bn"]),
        (NoStatistics, ["a_bn"]),
    ],
)
def test_bn_is_folded_where_it_follows_one_convolution(kind: type[Net], kept: list[str]) -> None:
    net, x = kind().double().eval(), torch.randn(3, *SHAPE, dtype=torch.float64)
    found = folded(net, SHAPE)
    assert list(norms(found)) == kept
    assert not any(one._forward_hooks or one._forward_pre_hooks for one in found.modules())
    with torch.no_grad():
        torch.testing.assert_close(found(x), net(x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("format", ["onnx", "int8", "litert", "executorch"])
def test_a_shared_bn_is_exported_as_it_computes(format: str, tmp_path: Path) -> None:
    """`export` compares file and network."""
    packages = {"litert": "ai_edge_litert", "executorch": "executorch"}
    if format in packages:
        pytest.importorskip(packages[format])
    net = nn.Sequential(OneBnTwice(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    x = np.random.default_rng(0).standard_normal((16, *SHAPE)).astype(np.float32)
    assert export(net.eval(), format, tmp_path, images=x)[0].is_file()
