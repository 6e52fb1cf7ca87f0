"""One lock per folder, released when the process ends; warns if the file system has no locks."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from hwnas.core.confined import open_unlinked, unshare
from hwnas.core.errors import UserError
from hwnas.core.owners import owner_of, user_name
from hwnas.core.store import explained

__all__ = ["exclusive_lock", "require_readable", "wait_for_lock"]

log = logging.getLogger(__name__)

MAX_OWNER = 1000  # maximum bytes shown of the owner of a lock
NONE_HERE = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
"""Error numbers of file systems without locks.

These are NFS without a lock daemon, Lustre without `-o flock`, and some FUSE mounts.
"""


@contextlib.contextmanager
def exclusive_lock(
    path: Path,
    *,
    owner: str,
    taken: str = "another process is working on this run folder",
    fix: str = "wait until that process ends, stop it, or use another run folder",
) -> Iterator[None]:
    """Holds an advisory lock on `path`. The kernel releases it when the process ends.

    taken, fix: problem and fix of the error if another process holds the lock.

    If `path` has other hard links, the file is locked and replaced by a private copy, which is
    locked as well.

    Raises:
        UserError: another process holds the lock, or `path` is a link.
    """
    path = Path(path)
    with contextlib.ExitStack() as stack:
        with explained("lock the run folder", path):
            path.parent.mkdir(parents=True, exist_ok=True)
            stream = stack.enter_context(_locked(path, taken, fix))
            if unshare(path, stream):
                with stream:
                    stream = stack.enter_context(_locked(path, taken, fix))
        stream.truncate(0)
        user = f"user {user_name(os.geteuid())} on {platform.node()}"
        stream.write(f"{owner}, pid {os.getpid()}, {user}\n".encode())
        stream.flush()
        yield


def require_readable(folder: Path) -> None:
    """Rejects an existing folder that this user must not read, and names its owner."""
    if folder.is_dir() and not os.access(folder, os.R_OK | os.X_OK):
        raise UserError(
            "cannot read the run folder",
            found=f"a folder of {owner_of(folder)}",
            where=folder,
            fix="ask its owner for `chmod -R g+rX` and a common group, or for a copy",
        )


def _lock(stream: IO[bytes], how: int) -> str | None:
    """Locks a file. Returns None, or the error of the system if the file system has no locks."""
    try:
        fcntl.lockf(stream, how)
    except OSError as error:
        if error.errno not in NONE_HERE:
            raise
        return error.strerror
    return None


def _locked(path: Path, taken: str, fix: str) -> IO[bytes]:
    try:
        stream = open_unlinked(path)
    except PermissionError as error:
        raise not_ours(path) from error
    try:
        # A record lock: forked children (data workers) do not keep it if this process is killed.
        if (problem := _lock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)) is not None:
            log.warning(
                "%s: this file system has no locks (%s); do not start a second hwnas process there",
                path.parent,
                problem,
            )
        if not os.path.samestat(os.stat(path), os.fstat(stream.fileno())):
            raise BlockingIOError  # replaced between opening and locking
    except (BlockingIOError, PermissionError) as error:
        with stream:
            holder = stream.read(MAX_OWNER).decode(errors="replace").strip()
        raise UserError(
            taken,
            found=holder or "an unnamed process",
            where=path.parent,
            fix=fix,
        ) from error
    return stream


def not_ours(path: Path) -> UserError:
    """The error for a run folder in which another user made files that this user cannot write."""
    return UserError(
        "cannot write into a run folder of another user",
        expected=f"files that user {user_name(os.geteuid())} may write",
        found=f"{path.name or path} of {owner_of(path)}",
        where=path,
        fix="use another run folder, or share this one: a common group, and `umask 002` for"
        " both users",
    )


def wait_for_lock(stream: IO[bytes]) -> None:
    """Waits for the lock of a file that is open for writing. Does nothing if there are no locks.

    Raises:
        OSError: a system call fails.
    """
    _lock(stream, fcntl.LOCK_EX)
