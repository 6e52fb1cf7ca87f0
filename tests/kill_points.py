"""Stops a function at every point where it changes a file: killed, or refused by a full disk."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hwnas.core.errors import UserError

CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
KILLED, ENDED = "killed", "ended"
FULL = 9  # exit status of a child that says that the disk is full


def kill_points(action: Callable[[int], Callable[[], object]]) -> Iterator[int]:
    """Run `action(n)()` in a child that is killed before its n-th change of a file, n = 1, 2, ...

    Yields n after every kill; ends when the action does.
    """
    n = 1
    while _ends(action(n), n) == KILLED:
        yield n
        n += 1


def full_disk_points(action: Callable[[int], Callable[[], object]]) -> Iterator[int]:
    """Run `action(n)()` in a child whose disk is full from its n-th new file or folder on.

    Yields n after every child that ended in a `UserError` which says so; ends when none does.
    """
    n = 1
    while _runs_full(action(n), n):
        yield n
        n += 1


def _runs_full(action: Callable[[], object], n: int) -> bool:
    child = os.fork()
    if child == 0:
        left = n

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal left
            is_new = event == "open" and arguments[2] & os.O_CREAT
            if event == "os.mkdir" or (is_new and not str(arguments[0]).endswith(".lock")):
                left -= 1
                if left <= 0:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        sys.addaudithook(hook)
        try:
            action()
        except UserError as error:
            names = ("No space left on device" in str(error), "free disk space" in str(error.fix))
            os._exit(FULL if all(names) and error.where is not None else 2)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WEXITSTATUS(status) in (0, FULL), f"the action did not explain itself: {status}"
    return os.WEXITSTATUS(status) == FULL


def _ends(action: Callable[[], object], n: int) -> str:
    child = os.fork()
    if child == 0:
        left = n

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal left
            if event in CHANGES or (event == "open" and arguments[2] & WRITES):
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        try:
            action()
        except BaseException:
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the action failed"
    return KILLED if os.WIFSIGNALED(status) else ENDED


def tree(folder: Path) -> dict[str, str]:
    """Content hashes of all files below a folder, except of locks and half-written ones."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock" and path.suffix != ".tmp"
    }
