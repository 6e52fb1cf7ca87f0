"""Files that are replaced as a whole: written beside the old one, then renamed."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO

__all__ = ["PARTIAL", "replacing"]

PARTIAL = ".tmp"  # suffix of a file that is being written


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Opens a new file for writing, which replaces `path` at the end of the context.

    `path` always has the complete old or new content: the new file is flushed to the disk before it
    is renamed, and removed after an exception. It gets the permissions of `path`, or those of a new
    file (umask) if `path` does not exist.

    Raises:
        OSError: the file cannot be created, written or renamed. If the error names a file, it is
            `path`, not the temporary file.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    temporary = path.parent / f".{path.name}.{secrets.token_hex(8)}{PARTIAL}"
    try:
        with os.fdopen(os.open(temporary, flags, 0o666), "wb") as stream:
            with contextlib.suppress(OSError):
                found = os.lstat(path)
                if stat.S_ISREG(found.st_mode):
                    os.fchmod(stream.fileno(), stat.S_IMODE(found.st_mode) & 0o777)
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError) and str(error.filename) == str(temporary):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
