"""Photos in a folder without labels, at any depth."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from hwnas.core.confined import open_regular
from hwnas.core.errors import UserError
from hwnas.core.photo_rule import ENDINGS, scan
from hwnas.training.decode import square_rgb

__all__ = ["loose_photos"]


def loose_photos(folder: Path, px: int, *, batch_size: int, at_most: int) -> Iterator[torch.Tensor]:
    """Batches [B, 3, px, px] of [0, 1] pixels: centre squares of photos spread over the folder.

    Raises:
        UserError: the folder is missing, has no images, or has an image that cannot be decoded.
    """
    folder = folder.absolute()  # `.` has no name
    files = [folder.parent / name for name in scan(folder).images]
    if not files:
        raise UserError(
            "no images",
            expected=f"a folder with files of {', '.join(sorted(ENDINGS))}, at any depth",
            found="none" if folder.is_dir() else "no such folder",
            where=folder,
        )
    n = min(at_most, len(files))
    chosen = [sorted(files)[i * len(files) // n] for i in range(n)]
    for start in range(0, n, batch_size):
        pixels = [_pixels(path, px) for path in chosen[start : start + batch_size]]
        yield torch.stack(pixels).movedim(3, 1).float() / 255


def _pixels(path: Path, px: int) -> torch.Tensor:
    try:
        with open_regular(path) as stream:
            return torch.from_numpy(square_rgb(stream, px).copy())
    except (OSError, ValueError, SyntaxError) as error:  # errors of Pillow on damaged files
        raise UserError(
            "an image cannot be decoded",
            found=str(error),
            where=path,
            fix="remove or replace the file",
        ) from error
