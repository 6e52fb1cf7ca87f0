"""Checks of the images that a bundle classifies, with errors that name a fix."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwnas.core.errors import UserError
from hwnas.core.store import explained

__all__ = ["check_array", "check_channels", "existing"]


def existing(path: Path) -> Path:
    """The path, unless nothing is there.

    Raises:
        UserError: nothing is there.
    """
    with explained("read an image", path):
        if path.exists() or path.is_symlink():
            return path
    raise UserError(
        "there is no such image",
        expected="the path of an image file",
        found="no such file",
        where=path,
        fix=f"check the path; relative paths start in {Path.cwd()}",
    )


def check_array(image: NDArray[Any], channels: int) -> None:
    """Refuses arrays that are not the pixels of one image.

    Raises:
        UserError: describes the array.
    """
    fix = None
    if image.ndim == 4:
        fix = "give several images as a list: predict(list(images))"
    elif image.ndim not in (2, 3) or not image.size:
        fix = "give the pixels of one image, or a list of images"
    elif image.dtype.kind not in "f" and image.dtype != np.uint8:
        fix = "convert pixels of 0 to 255: image.astype('uint8')"
    elif image.dtype.kind == "f" and not (image.min() >= 0 and image.max() <= 1):
        fix = (
            "divide pixels of 0 to 255 by 255; bundle.logits(x) takes images that are already"
            " normalised"
        )
    if fix is None:
        return
    shown = f"{image.dtype} {[*image.shape]}"
    if image.size and image.dtype.kind in "fiu":
        shown += f" with values of {image.min():.4g} to {image.max():.4g}"
    raise UserError(
        "the array is not an image",
        expected=f"[H, W] or [H, W, {channels}]: uint8, or floats in [0, 1]",
        found=shown,
        where="image",
        fix=fix,
    )


def check_channels(shape: Sequence[int], channels: int, name: str) -> None:
    """Refuses pixels [H, W, C] with another number of channels; colours can be added to grey.

    Raises:
        UserError: states both numbers.
    """
    if shape[2] in (1, channels):
        return
    fix = f"give the {channels} channels of the training images"
    if channels == 1 and shape[2] == 3:
        fix = 'convert the image: PIL.Image.open(FILE).convert("L")'
    elif shape[0] in (1, 3, channels):
        fix = "move the channels to the end: image.transpose(1, 2, 0)"
    elif channels == 3 and shape[2] == 4:
        fix = "leave out the channel of transparency: image[..., :3]"
    raise UserError(
        "the image has another number of channels than the network",
        expected=f"pixels [H, W, {channels}]" + ", or [H, W] of a grey image" * (channels == 3),
        found=f"pixels {[*shape]}, which are {shape[2]} channels",
        where=name,
        fix=fix,
    )
