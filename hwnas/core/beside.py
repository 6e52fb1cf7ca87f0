"""Temporary files in the folder of the file that they will replace."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path

__all__ = ["create_beside"]


def create_beside(path: Path) -> tuple[int, str]:
    """Creates a temporary file in the folder of `path`, open for writing, that will replace `path`.

    It gets the permissions of `path`, or those of a new file (umask) if `path` does not exist.

    Raises:
        OSError: the file cannot be created.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    while True:
        name = str(path.parent / f".{path.name}.{secrets.token_hex(4)}.tmp")
        try:
            handle = os.open(name, flags, 0o666)
        except FileExistsError:
            continue
        with contextlib.suppress(OSError):
            found = os.lstat(path)
            if stat.S_ISREG(found.st_mode):
                os.fchmod(handle, stat.S_IMODE(found.st_mode) & 0o777)
        return handle, name
