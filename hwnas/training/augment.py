"""Augmentation: affine and elastic distortion of batches; library transforms for photos."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image

from hwnas.core.errors import UserError
from hwnas.core.rng import rng
from hwnas.interfaces import DataInfo
from hwnas.training.photo_config import AugmentConfig

__all__ = ["Warper", "photo_transform"]

GRID = 4  # control points per axis of the elastic displacement


@dataclass(frozen=True)
class Warper:
    """Distorts images at random, within the limits of `datasets.digits.Warp`.

    Borders that a distortion exposes are black. The distortion of image i in an epoch depends only
    on (seed, epoch, i), not on batches or order.
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
        """Distorts images [B, C, H, H] in [0, 1] by their rows of `draw`; keeps the shape."""
        unit = torch.from_numpy(draws)
        angle = unit[:, 0] * float(np.deg2rad(self.rotate_degrees))
        scale_x, scale_y = (1 + unit[:, 1:3] * self.scale).unbind(1)
        shear = unit[:, 3] * self.shear
        cos, sin = angle.cos(), angle.sin()
        # Rotation @ [[scale_x, shear], [0, scale_y]]; the image spans [-1, 1], so shifts are
        # doubled.
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


def photo_transform(config: AugmentConfig, info: DataInfo) -> Callable[[Image], Image]:
    """Returns random crop, flip, colour change and policy for photos, of torchvision and timm.

    The input is an image with a border of `config.border(px)` px; the output has px =
    `info.base_px`. Transforms draw from the global generators of Python, numpy and torch, which the
    caller must seed.

    Raises:
        UserError: timm has no such policy.
    """
    from timm.data.auto_augment import (
        augment_and_mix_transform,
        auto_augment_transform,
        rand_augment_transform,
    )
    from timm.data.transforms import RandomResizedCropAndInterpolation
    from torchvision import transforms

    px, steps = info.base_px, []
    if config.crop_scale is not None:
        steps.append(
            RandomResizedCropAndInterpolation(px, config.crop_scale, interpolation="bilinear")
        )
    else:
        steps.append(transforms.RandomCrop(px))
    if config.flip:
        steps.append(transforms.RandomHorizontalFlip(config.flip))
    if config.color_jitter:
        steps.append(transforms.ColorJitter(*[config.color_jitter] * 3))
    if config.auto_augment is not None:
        makers = {"rand": rand_augment_transform, "augmix": augment_and_mix_transform}
        make = makers.get(config.auto_augment.split("-")[0], auto_augment_transform)
        mean = tuple(round(255 * m) for m in info.mean)
        try:
            steps.append(
                make(config.auto_augment, {"translate_const": int(0.45 * px), "img_mean": mean})
            )
        except (AssertionError, KeyError, ValueError) as error:
            raise UserError(
                "unknown augmentation policy of timm",
                expected="e.g. rand-m9-mstd0.5, original, v0, 3a, augmix-m3-w3",
                found=config.auto_augment,
                where="data.augment.auto_augment",
            ) from error
    composed: Callable[[Image], Image] = transforms.Compose(steps)
    return composed
