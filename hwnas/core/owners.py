"""Names the owners of files, for errors about permissions."""

from __future__ import annotations

import contextlib
import os
import pwd
import stat
from pathlib import Path

__all__ = ["owned", "owner_of", "user_name"]


def user_name(number: int) -> str:
    """The name of a user, or the number if the system has no name for it."""
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def owner_of(path: Path) -> str:
    """The owner of a file or folder: a name, or a number if the system has no name for it."""
    return user_name(os.stat(path).st_uid)


def owned(path: Path) -> str:
    """The owner of a folder as text, or those of a file and its folder.

    For example `a folder of ann` or `a file of ann in a folder of root`. A path that does not exist
    or must not be read is left out, and the nearest folder above it is named.
    """
    found = []
    for there in (path, *path.absolute().parents):
        with contextlib.suppress(OSError):
            facts = there.stat()
            kind = "a folder" if stat.S_ISDIR(facts.st_mode) else "a file"
            found.append(f"{kind} of {user_name(facts.st_uid)}")
            if kind == "a folder":
                break
    return " in ".join(found)
