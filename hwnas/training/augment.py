"""Random affine and elastic distortion of image batches, in one resampling."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from hwnas.core.rng import rng

__all__ = ["Warper"]

GRID = 4  # control points per axis of the elastic displacement


@dataclass(frozen=True)
class Warper:
    """Bounds of the distortions, as in `datasets.digits.Warp`; the exposed border is black.

    The draw of image i in an epoch depends on (seed, epoch, i) alone, not on batches or order.
    """

    rotate_degrees: float
    scale: float
    shear: float
    shift: float
    elastic: float

    def draw(self, n: int, *, seed: int, epoch: int) -> NDArray[np.float32]:
        """Uniform draws in [-1, 1) for n images: [n, 6 + 2 * GRID**2]."""
        random = rng(seed, "data/augment", epoch)
        return random.uniform(-1, 1, size=(n, 6 + 2 * GRID**2)).astype(np.float32)

    def __call__(self, images: torch.Tensor, draws: NDArray[np.float32]) -> torch.Tensor:
        """Distort images [B, C, H, H] in [0, 1] by their rows of `draw`: same shape."""
        unit = torch.from_numpy(draws)
        angle = unit[:, 0] * float(np.deg2rad(self.rotate_degrees))
        scale_x, scale_y = (1 + unit[:, 1:3] * self.scale).unbind(1)
        shear = unit[:, 3] * self.shear
        cos, sin = angle.cos(), angle.sin()
        # Rotation @ [[scale_x, shear], [0, scale_y]]; the image spans [-1, 1], hence shifts double.
        theta = torch.empty(len(images), 2, 3)
        theta[:, 0, 0], theta[:, 0, 1] = cos * scale_x, cos * shear - sin * scale_y
        theta[:, 1, 0], theta[:, 1, 1] = sin * scale_x, sin * shear + cos * scale_y
        theta[:, :, 2] = unit[:, 4:6] * (2 * self.shift)
        grid = torch.nn.functional.affine_grid(theta, list(images.shape), align_corners=False)
        if self.elastic:
            control = unit[:, 6:].reshape(-1, 2, GRID, GRID) * (2 * self.elastic)
            grid = grid + torch.nn.functional.interpolate(
                control, size=images.shape[-2:], mode="bicubic", align_corners=True
            ).permute(0, 2, 3, 1)
        return torch.nn.functional.grid_sample(
            images, grid, mode="bilinear", padding_mode="zeros", align_corners=False
        )
