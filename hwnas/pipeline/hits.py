"""Correctly classified test images of every network, to compare them image by image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hwnas.core.bits import unpack_bits
from hwnas.core.records import STRICT, Count
from hwnas.spaces.arch import Arch

__all__ = ["TestHits"]


@dataclass(frozen=True)
class TestHits:
    """Test images that each network classifies correctly on each device.

    `right[device][arch key]` has one bit (`core.bits`) per image of the test split, in order. They
    belong to the accuracies in `Results`.
    """

    __pydantic_config__: ClassVar[Any] = STRICT
    __test__: ClassVar[bool] = False  # not a test class of pytest

    n_images: Count
    right: dict[str, dict[str, str]]

    def __post_init__(self) -> None:
        for networks in self.right.values():
            for text in networks.values():
                unpack_bits(text, self.n_images)

    def of(self, device: str, arch: Arch) -> NDArray[np.bool_] | None:
        """Whether each image is classified correctly, bool [n_images]; None if not stored."""
        text = self.right.get(device, {}).get(arch.key)
        return None if text is None else unpack_bits(text, self.n_images)
