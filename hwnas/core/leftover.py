"""Describes and removes files that earlier commands left on a disk."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hwnas.core.store import explained

__all__ = ["Leftover", "left_behind", "size_bytes"]


@dataclass(frozen=True)
class Leftover:
    """Files that can be removed, because hwnas makes them again when it needs them.

    what, where: description and place, for messages.
    n_bytes: size that `remove` frees; 0 if there is nothing to remove.
    kept: files that stay, and the reason; empty if none do.
    """

    what: str
    where: str
    n_bytes: int
    remove: Callable[[], None]
    kept: str = ""


def left_behind(what: str, path: Path, *, first: str = "") -> Leftover:
    """Describes a removable file or folder of this machine, with its size.

    first: name of the file in the folder that is removed before the others.
    """

    def remove() -> None:
        with explained("remove files", path):
            if path.is_dir():
                if first:
                    (path / first).unlink(missing_ok=True)
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    return Leftover(what, str(path), size_bytes(path), remove)


def size_bytes(path: Path) -> int:
    """Size of a file, or of all files below a folder, without links.

    Files that vanish meanwhile, and unreadable folders, count as 0.
    """
    if path.is_dir() and not path.is_symlink():
        found = (Path(folder, name) for folder, _, names in os.walk(path) for name in names)
        return sum(map(_file_bytes, found))
    return _file_bytes(path)


def _file_bytes(path: Path) -> int:
    try:
        return 0 if path.is_symlink() else path.lstat().st_size
    except OSError:
        return 0
