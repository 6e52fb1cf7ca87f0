"""Replaces a folder by another one atomically."""

from __future__ import annotations

import ctypes
import os
import shutil
from pathlib import Path

__all__ = ["recover_folder", "replace_folder"]

AT_FDCWD, RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h


def replace_folder(new: Path, folder: Path) -> None:
    """Renames `new`, a folder next to `folder`, to `folder`, and removes the old `folder`.

    On Linux one system call exchanges the two names, so after a kill `folder` is complete, old or
    new. File systems without this call need two renames. After a kill between the two,
    `recover_folder` restores the old folder.

    Raises:
        OSError: a system call fails; the old folder still exists.
    """
    if not folder.exists():
        os.rename(new, folder)
    elif _exchange(new, folder):
        shutil.rmtree(new, ignore_errors=True)
    else:
        aside = _aside(folder)
        os.rename(folder, aside)
        try:
            os.rename(new, folder)
        except BaseException:
            os.rename(aside, folder)
            raise
        shutil.rmtree(aside, ignore_errors=True)


def recover_folder(folder: Path) -> None:
    """Undoes a `replace_folder` that was killed between its two renames; otherwise does nothing."""
    aside = _aside(folder)
    if folder.exists():
        shutil.rmtree(aside, ignore_errors=True)
    elif aside.exists():
        os.rename(aside, folder)


def _aside(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.replaced")


def _exchange(one: Path, other: Path) -> bool:
    """Exchanges two names in one step; False if the system does not support it."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):  # not Linux, or a C library older than 2018
        return False
    paths = os.fsencode(one), os.fsencode(other)
    status: int = rename(AT_FDCWD, paths[0], AT_FDCWD, paths[1], RENAME_EXCHANGE)
    return status == 0
