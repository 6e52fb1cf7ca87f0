"""The fast 1x1 convolution against torch's own, values and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hwnas.nets.pointwise import PointwiseConv2d


@pytest.mark.parametrize("px", [1, 4, 8, 9])
@pytest.mark.parametrize("bias", [False, True])
def test_values_and_gradients_are_those_of_conv2d(px: int, bias: bool):
    generator = torch.Generator().manual_seed(px)
    plain = nn.Conv2d(12, 20, 1, bias=bias).double()
    fast = PointwiseConv2d.of(plain)
    assert fast.weight is plain.weight
    x = torch.randn(3, 12, px, px, generator=generator, dtype=torch.float64, requires_grad=True)
    grad = torch.randn(3, 20, px, px, generator=generator, dtype=torch.float64)
    inputs = (x, *plain.parameters())
    for mode in (fast.train(), fast.eval()):
        found = torch.autograd.grad(mode(x), inputs, grad)
        wanted = torch.autograd.grad(plain(x), inputs, grad)
        torch.testing.assert_close(mode(x), plain(x))
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(4, 4, 3),
        nn.Conv2d(4, 4, 1, stride=2),
        nn.Conv2d(4, 4, 1, groups=2),
        nn.Conv2d(4, 4, 1, padding=1),
    ],
    ids=["kernel", "stride", "groups", "padding"],
)
def test_only_plain_pointwise_layers_are_replaced(conv: nn.Conv2d):
    assert not PointwiseConv2d.fits(conv)
    assert PointwiseConv2d.fits(nn.Conv2d(4, 8, 1))
