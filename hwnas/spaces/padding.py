"""Output sizes and padding of convolutions and poolings."""

from __future__ import annotations

from typing import Literal

__all__ = ["PadMode", "map_size", "padding_of", "same_padding"]

PadMode = Literal["symmetric", "tf_same"]


def map_size(in_hw: int, stride: int) -> int:
    """Height and width of the output of a convolution or pooling, for any kernel and `PadMode`."""
    return (in_hw - 1) // stride + 1


def same_padding(hw: int, kernel: int, stride: int) -> tuple[int, int]:
    """`padding` and `pad_more` of TensorFlow's SAME mode, whose output has ceil(hw / stride) px.

    If the number of zeros is odd, the bottom and the right get one more.
    """
    zeros = max((-(-hw // stride) - 1) * stride + kernel - hw, 0)
    return zeros // 2, zeros % 2


def padding_of(mode: PadMode, hw: int, kernel: int, stride: int) -> tuple[int, int]:
    """`padding` and `pad_more` (`OpSpec`) of a convolution. Even kernels: as in TensorFlow."""
    if mode == "tf_same" or kernel % 2 == 0:
        return same_padding(hw, kernel, stride)
    return kernel // 2, 0
