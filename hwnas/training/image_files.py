"""Image files below a folder. Torch-free."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from hwnas.training.file_hashes import one_form

__all__ = ["SUFFIXES", "image_files"]

SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}


def image_files(folder: Path) -> list[str]:
    """Image files at any depth below a folder, as `FOLDER/name`, sorted."""
    found = _scanned(str(folder), folder.name)
    return sorted(found, key=lambda name: (one_form(name).split("/"), name))


def _scanned(folder: str, within: str) -> list[str]:
    found = []
    with contextlib.suppress(PermissionError), os.scandir(folder) as entries:
        for entry in entries:
            name = f"{within}/{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                found += _scanned(entry.path, name)
            elif _is_image(entry.name) and entry.is_file():
                found.append(name)
    return found


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES and not name.startswith(".")
