"""NATS-Bench size: five widths around a fixed cell, against the network of the paper in torch."""

from __future__ import annotations

import pytest
import torch
from fvcore.nn import FlopCountAnalysis
from torch import Tensor, nn

from hwnas.core.errors import UserError
from hwnas.core.rng import rng
from hwnas.nets.extract import extract
from hwnas.nets.subnet import build_subnet
from hwnas.nets.supernet import Supernet
from hwnas.spaces.load import build_space, read_arch
from tests.unit.test_spaces_reference import Reduction, conv_bn

SPACE = build_space("nats_size", {"resolutions": [8]}, num_classes=10)
IMAGES = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Cell(nn.Module):
    """`|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|...` (2009.00437, 3.2)."""

    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        self.edge01, self.edge02 = conv_bn(before, width, 3), conv_bn(before, width, 3)
        self.edge12 = conv_bn(width, width, 3)
        self.edge03: nn.Module = nn.Identity()
        if before != width:
            conv = nn.Conv2d(before, width, 1, bias=False)
            self.edge03 = nn.Sequential(conv, nn.BatchNorm2d(width))
        self.edge13, self.edge23 = conv_bn(width, width, 3), conv_bn(width, width, 3)

    def forward(self, x: Tensor) -> Tensor:
        one = self.edge01(x)
        two = self.edge02(x) + self.edge12(one)
        found: Tensor = self.edge03(x) + self.edge13(one) + self.edge23(two)
        return found


def reference(a: int, b: int, c: int, d: int, e: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, a, 3, padding=1, bias=False),
        nn.BatchNorm2d(a),
        Cell(a, a),
        Reduction(a, b),
        Cell(b, c),
        Reduction(c, d),
        Cell(d, e),
        nn.BatchNorm2d(e),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(e, 10),
    )


def own_tensors(net: nn.Module) -> list[Tensor]:
    return [tensor for module in net.modules() for tensor in module.parameters(recurse=False)]


def test_a_network_is_the_one_of_the_paper():
    """Widths that rise, fall and stay: `skip_connect` is a convolution where they change."""
    for text in ("8:16:24:24:8", "16:16:16:16:16", "64:8:8:40:48"):
        arch = read_arch(SPACE, text)
        net, expected = build_subnet(SPACE, arch).train(), reference(*map(int, text.split(":")))
        assert sum(p.numel() for p in net.parameters()) == SPACE.cost([arch], "params")[0]
        with torch.no_grad():
            for source, target in zip(own_tensors(net), own_tensors(expected), strict=True):
                target.copy_(source)
            torch.testing.assert_close(net(IMAGES), expected(IMAGES), rtol=0, atol=1e-5)
        count = FlopCountAnalysis(expected.eval(), IMAGES[:1]).unsupported_ops_warnings(False)
        count.uncalled_modules_warnings(False)
        found = count.by_operator()
        assert found["conv"] + found["linear"] == SPACE.cost([arch], "macs")[0]


def test_the_space_has_8_to_the_5_archs():
    assert build_space("nats_size", num_classes=10).size() == 8**5 == 32768


def test_the_supernet_computes_what_extracted_networks_do():
    """In training mode, on 50 random archs that share slices of one set of weights."""
    supernet = Supernet(SPACE, seed=0)
    assert supernet.elastic("stage1.cell0.edge03.conv").weight.shape == (64, 64, 1, 1)
    with torch.no_grad():
        for row in SPACE.sample(50, rng=rng(0, "sizes")):
            arch = SPACE.arch(row)
            expected = supernet(IMAGES, arch)
            found = extract(supernet, arch)(IMAGES)
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("8:16:24:24", "not the widths"),
        ("8:16:24:24:8:8", "not the widths"),
        ("8:16:24:24:x", "not the widths"),
        ("8:16:24:-8:8", "not the widths"),
        ("8:16:24:24:7", "stage2 has a width"),
        ("|skip_connect~0|+|none~0|none~1|+|none~0|none~1|none~2|", "cannot read the arch"),
    ],
)
def test_widths_of_another_space_are_refused(text: str, message: str):
    with pytest.raises(UserError, match=message):
        read_arch(SPACE, text)


def test_predictors_see_all_cells():
    assert SPACE.macro.predictor_graph().slots == tuple(range(len(SPACE.macro.slot_names())))
