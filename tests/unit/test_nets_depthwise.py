"""The fast depthwise convolution against the library's own, value and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hwnas.nets import depthwise
from hwnas.nets.depthwise import DepthwiseConv2d, depthwise_conv2d


def gradients(x: Tensor, weight: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    return torch.autograd.grad(
        y, (x, weight), torch.randn(y.shape, generator=generator, dtype=y.dtype)
    )


@pytest.mark.parametrize("kernel", [3, 4, 5, 7, 9])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2), (2, 2), (3, 3)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_value_and_gradients_are_the_librarys(
    kernel: int,
    stride: int,
    dilation: int,
    layout: torch.memory_format,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(depthwise, "_CHUNK_BYTES", 3000)  # several chunks, the last one partial
    generator = torch.Generator().manual_seed(0)
    for px in (2, 3, 4, 6, 7, 11):
        x = torch.randn(5, 8, px, px, generator=generator, dtype=torch.double)
        x = x.contiguous(memory_format=layout).requires_grad_()
        weight = torch.randn(8, 1, kernel, kernel, generator=generator, dtype=torch.double)
        weight.requires_grad_()
        padding = dilation * (kernel // 2)
        expected = F.conv2d(x, weight, None, stride, padding, dilation, groups=8)
        found = depthwise_conv2d(x, weight, stride, padding, dilation)
        torch.testing.assert_close(found, expected)
        for ours, theirs in zip(
            gradients(x, weight, found), gradients(x, weight, expected), strict=True
        ):
            torch.testing.assert_close(ours, theirs)


def test_the_module_shares_the_weight_and_is_plain_in_eval_mode() -> None:
    conv = nn.Conv2d(8, 8, 5, 2, 2, groups=8, bias=False)
    ours = DepthwiseConv2d.of(conv)
    x = torch.randn(2, 8, 9, 9)
    assert ours.weight is conv.weight
    assert type(ours(x).grad_fn).__name__ == "_DepthwiseBackward"
    assert type(ours.eval()(x).grad_fn).__name__ == type(conv(x).grad_fn).__name__
    torch.testing.assert_close(ours(x), conv(x))


def test_the_module_keeps_the_dilation() -> None:
    conv = nn.Conv2d(8, 8, 3, 2, 2, 2, groups=8, bias=False)
    x = torch.randn(2, 8, 8, 8)
    for ours in (DepthwiseConv2d.of(conv), DepthwiseConv2d.of(conv).eval()):
        torch.testing.assert_close(ours(x), conv(x))


def test_autocast_takes_the_librarys_path() -> None:
    x, weight = torch.randn(2, 8, 9, 9), torch.randn(8, 1, 5, 5, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        y = depthwise_conv2d(x, weight, 1, 2)
    y.sum().backward()
    assert y.dtype == torch.bfloat16
    assert weight.grad is not None
