"""Images that a caller gives with a network: conversion to arrays, and checks."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from hwnas.core.errors import UserError
from hwnas.interfaces import Images

__all__ = ["as_floats", "check_images"]

log = logging.getLogger(__name__)

NORMALISED = 20.0
"""Values of normalised images are smaller: (1 - mean) / std, where std is at least 0.05."""
MOST_PIXEL = 255.0


def as_floats(images: Any) -> Images | None:
    """An array or a tensor of floats as a contiguous float32 array.

    Anything else is returned unchanged; `check_images` refuses it.
    """
    import torch

    found: Images | None = images
    if isinstance(images, torch.Tensor) and not images.is_meta and not images.is_sparse:
        is_float = images.is_floating_point()
        found = (images.detach().float() if is_float else images.detach()).cpu().numpy()
    elif isinstance(images, np.ndarray) and np.issubdtype(images.dtype, np.floating):
        found = np.require(images, np.float32, ["C", "W"])  # torch warns of arrays to read only
    return found


def check_images(images: object, shape: tuple[int, ...], where: str = "images") -> None:
    """Refuses images that are not floats, do not have `shape`, or have values not finite.

    Raises:
        UserError: describes what was given.
    """
    kind = repr(images)[:80]
    if isinstance(images, np.ndarray):
        kind = f"{images.dtype} {list(images.shape)}"
        if images.dtype == np.float32 and not images.size:
            raise UserError(
                "there are no images",
                expected="at least one image with at least one pixel",
                found=kind,
                where=where,
                fix="give images as in training, [n, C, H, W]; without `images`, leave it out",
            )
        if images.dtype == np.float32 and images.shape[1:] == shape:
            bad = np.flatnonzero(~np.isfinite(images.reshape(len(images), -1)).all(1))
            if not len(bad):
                _warn_of_pixels(images, where)
                return
            raise UserError(
                "images have values that are not finite",
                expected="finite numbers",
                found=f"NaN or infinity in {len(bad)} of {len(images)} images, first in image"
                f" {bad[0]}",
                where=where,
                fix="remove these images, or correct their values",
            )
    if isinstance(images, (list, tuple)):
        axes = ", ".join(map(str, shape)) if shape else "C, H, W"
        raise UserError(
            "the images are not in one array",
            expected=f"an array or a tensor, float32 [n, {axes}]",
            found=f"{type(images).__name__} of {len(images)}: {kind}",
            where=where,
            fix="stack them: np.stack(images) of arrays, torch.stack(images) of tensors",
        )
    if not isinstance(images, np.ndarray) or images.dtype != np.float32:
        raise UserError(
            "the images are not floating-point numbers in an array or a tensor",
            expected="normalised images [n, C, H, W], float32 (other float types are converted)",
            found=kind,
            where=where,
            fix="convert pixels of 0 to 255 as in training: (images / 255 - mean) / std of every"
            " channel, then images.astype('float32'), or images.float() of a tensor",
        )
    raise UserError(
        "the images do not have the input shape of the network",
        expected=f"float32 [n, {', '.join(map(str, shape))}], n > 0, an array or a tensor",
        found=kind,
        where=where,
        fix="add the axis of the images: images[None]"
        if images.shape == shape
        else "give images that are resized, normalised and stacked as in training, [n, C, H, W]",
    )


def _warn_of_pixels(images: Images, where: str) -> None:
    """Warns of images that look like pixels of 0 to 255."""
    low, high = float(images.min()), float(images.max())
    if low >= 0 and NORMALISED < high <= MOST_PIXEL:
        log.warning(
            "the values of `%s` are %.4g to %.4g, like pixels that are not normalised; 8-bit ranges"
            " and the comparison with torch are then wrong, unless the network was trained on such"
            " values; fix: (%s / 255 - mean) / std of every channel, as in training",
            *(where, low, high, where),
        )
