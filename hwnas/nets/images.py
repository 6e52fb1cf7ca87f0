"""Converts pixels to network input: resizing and normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from hwnas.core.errors import UserError

__all__ = ["images_of", "normalise", "require_images", "resize"]


def images_of(batch: Any, channels: int) -> torch.Tensor:
    """The images of a batch that a caller passes: a tensor, or a pair (images, labels).

    Raises:
        UserError: the images are not floats [B, channels, H, H].
    """
    images = batch[0] if isinstance(batch, (tuple, list)) and batch else batch
    is_tensor = isinstance(images, torch.Tensor)
    if (
        not is_tensor
        or not images.is_floating_point()
        or images.ndim != 4
        or images.shape[1] != channels
        or images.shape[2] != images.shape[3]
        or not images.numel()
    ):
        raise UserError(
            "a batch for recalibration contains no images",
            expected=f"a float tensor [B, {channels}, H, H], or (images, labels)",
            found=f"{images.dtype} {list(images.shape)}" if is_tensor else repr(images)[:80],
            where="recalibrate_on",
        )
    found: torch.Tensor = images
    return found


def require_images(x: torch.Tensor, px: int, channels: int, *, where: str) -> None:
    """Refuses anything but a batch of images [B, channels, px, px].

    where: says in the error where `px` comes from.

    Raises:
        UserError: another shape.
    """
    if x.ndim != 4 or tuple(x.shape[1:]) != (channels, px, px):
        raise UserError(
            "images do not have the resolution of the arch",
            expected=f"images of shape [B, {channels}, {px}, {px}]",
            found=f"images of shape {list(x.shape)}",
            where=where,
            fix="resize the batch to the arch's resolution first",
        )


def normalise(x: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """(x - mean) / std per channel; `x`: [B, C, H, W] in [0, 1]."""
    return (x - x.new_tensor(mean)[:, None, None]) / x.new_tensor(std)[:, None, None]


def resize(x: torch.Tensor, px: int) -> torch.Tensor:
    """Resizes square images [B, C, H, H] to [B, C, px, px], bilinear with antialiasing.

    Images that already have this size do not change. The result is channels_last, because depthwise
    convolutions otherwise train several times slower on CPUs. Tokens (integers) have no resolution
    and are returned unchanged.
    """
    if not x.is_floating_point():
        return x
    if x.shape[-2:] != (px, px):
        x = torch.nn.functional.interpolate(
            x, size=(px, px), mode="bilinear", align_corners=False, antialias=True
        )
    return x.contiguous(memory_format=torch.channels_last)
