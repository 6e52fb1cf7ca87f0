"""Access to untrusted folders: paths stay inside, and only regular files are opened.

A run folder, a bundle or a kit's results may have been made elsewhere. Names that stand in their
files lead to nothing outside of the folder, links are not followed, and a pipe or a device in the
place of a file is refused instead of read. The folder itself may be reached through a link.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO, Literal

from hwnas.core.beside import create_beside
from hwnas.core.errors import UserError

__all__ = [
    "check_folder",
    "check_name",
    "holds",
    "inside",
    "open_private",
    "open_regular",
    "open_unlinked",
    "read_regular",
    "regular",
    "require_below",
    "unshare",
]


SPARE = 1 << 20


def check_name(name: str, *, where: object) -> str:
    """A relative path as records store it, `a/b.json`; anything that leads elsewhere is refused.

    Raises:
        UserError: absolute, with a part that is empty, `.` or `..`, a backslash or a control
            character.
    """
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts) or any(c == "\\" or c < " " for c in name):
        raise UserError(
            "a path leads outside its folder",
            expected="a relative path inside the folder",
            found=repr(name),
            where=where,
        )
    return name


def require_below(patterns: Sequence[str], name: str, problem: str, *, where: object) -> None:
    """Refuse a relative path whose first part matches none of some name patterns.

    Raises:
        UserError: says `problem`.
    """
    if not any(fnmatchcase(name.partition("/")[0], pattern) for pattern in patterns):
        raise UserError(
            problem,
            expected=f"a name below one of {', '.join(patterns)}",
            found=repr(name),
            where=where,
        )


def inside(root: Path, *parts: str) -> Path:
    """The path of `parts` (each may hold `/`) below `root`, none of which is a link.

    Raises:
        UserError: the path leads out of `root`, or through a link.
    """
    path = root
    for name in "/".join(check_name(part, where=root) for part in parts).split("/"):
        path = path / name if name else path
        if path is not root and path.is_symlink():
            raise _link(path)
    return path


def check_folder(root: Path, only: Sequence[str] = ("*",)) -> None:
    """Check that a folder holds folders and regular files alone, at any depth.

    Entries that vanish meanwhile, and folders that may not be read, are passed over. `only`: name
    patterns of the entries directly in `root` that are looked at; upper and lower case are equal.

    Raises:
        OSError: the name of the folder is one that no folder can have.
        UserError: names the first link, pipe, socket or device.
    """
    passed_over = FileNotFoundError, PermissionError, NotADirectoryError
    try:
        _stat(root)
    except passed_over:
        return
    folders = [root]
    listed = [pattern.lower() for pattern in only]
    while folders:
        folder = folders.pop()
        with contextlib.suppress(*passed_over), os.scandir(folder) as entries:
            for entry in entries:
                if folder is root and not any(fnmatchcase(entry.name.lower(), p) for p in listed):
                    continue
                if entry.is_symlink():
                    raise _link(Path(entry.path))
                if entry.is_dir(follow_symlinks=False):
                    folders.append(Path(entry.path))
                elif not entry.is_file(follow_symlinks=False):
                    with contextlib.suppress(*passed_over):
                        _require_regular(Path(entry.path), os.lstat(entry.path).st_mode)


def regular(path: Path, *, at_most: int | None = None) -> Path:
    """`path`, a regular file that libraries may open by its name; a link is followed.

    Raises:
        UserError: a pipe, a socket, a device, or a file of more than `at_most` bytes.
        OSError: there is no such file, or it is a folder.
    """
    found = _stat(path)
    _require_regular(path, found.st_mode)
    if at_most is not None and found.st_size > at_most:
        raise _too_large(path, at_most, found.st_size)
    return path


def open_regular(path: Path) -> IO[bytes]:
    """A regular file for reading; a link is followed.

    Raises:
        UserError: a pipe, a socket or a device.
        OSError: it cannot be read.
    """
    _require_regular(path, _stat(path).st_mode)
    return _opened(path, os.O_RDONLY, "rb")


def read_regular(path: Path, *, at_most: int) -> bytes:
    """The content of a regular file.

    Raises:
        UserError: a pipe, a socket, a device, or a file of more than `at_most` bytes.
        OSError: it cannot be read.
    """
    with open_regular(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        # Python allocates what is asked for: the size, and a little that may come meanwhile.
        data = stream.read(min(at_most, size + SPARE) + 1) if size <= at_most else b""
    if max(size, len(data)) > at_most:
        raise _too_large(path, at_most, size)
    return data


def holds(path: Path, content: bytes) -> bool:
    """Whether a regular file, of whatever size, holds exactly `content`; False if there is none.

    Raises:
        UserError: a pipe, a socket or a device.
        OSError: it cannot be read.
    """
    try:
        same_size = regular(path).stat().st_size == len(content)
    except FileNotFoundError:
        return False
    return same_size and read_regular(path, at_most=len(content)) == content


def open_unlinked(path: Path) -> IO[bytes]:
    """A regular file for reading and writing, made if it is not there; the position is its start.

    For locks: they must be held before a file that has other names (hard links) is replaced.
    To write, take `open_private`.

    Raises:
        UserError: a link, a pipe, a socket or a device.
        OSError: it cannot be opened.
    """
    try:
        return _opened(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, "r+b")
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK) and path.is_symlink():
            raise _link(path) from error
        raise


def open_private(path: Path) -> IO[bytes]:
    """`open_unlinked` for writing in place: what is written arrives under no other name.

    Raises:
        UserError: a link, a pipe, a socket or a device.
        OSError: it cannot be opened, or not be copied where it has other names.
    """
    stream = open_unlinked(path)
    try:
        if not unshare(path, stream):
            return stream
    except BaseException:
        stream.close()
        raise
    stream.close()
    return open_unlinked(path)


def unshare(path: Path, stream: IO[bytes]) -> bool:
    """Replace `path`, opened as `stream`, by a private copy if the file has other names.

    Copies by `cp -l` or `rsync --link-dest` share their files with the original: what is appended
    to one must not arrive in the other. Returns whether `path` was replaced (atomically); `stream`
    is still the old file.

    Raises:
        OSError: it cannot be written; `path` is as it was.
    """
    found = os.fstat(stream.fileno())
    if found.st_nlink <= 1:
        return False
    handle, copy = create_beside(path)
    try:
        with os.fdopen(handle, "wb") as target:
            stream.seek(0)
            shutil.copyfileobj(stream, target, 1 << 20)
            os.fchmod(target.fileno(), stat.S_IMODE(found.st_mode))
            target.flush()
            os.fsync(target.fileno())
        os.replace(copy, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(copy)
        raise
    return True


def _opened(path: Path, flags: int, mode: Literal["rb", "r+b"]) -> IO[bytes]:
    """Never waits: opening a pipe whose other end is closed would."""

    def opener(name: str, _: int) -> int:
        handle = os.open(name, flags | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
        try:
            _require_regular(path, os.fstat(handle).st_mode)
        except BaseException:
            os.close(handle)
            raise
        return handle

    return open(path, mode, opener=opener)


def _stat(path: Path) -> os.stat_result:
    try:
        return os.stat(path)
    except ValueError as error:  # a zero byte in the name
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), repr(str(path))) from error


def _require_regular(path: Path, mode: int) -> None:
    if stat.S_ISREG(mode):
        return
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    kinds = {stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}
    raise UserError(
        "neither a file nor a folder",
        expected="a regular file",
        found=kinds.get(stat.S_IFMT(mode), "a device"),
        where=path,
        fix="remove it",
    )


def _too_large(path: Path, at_most: int, size: int) -> UserError:
    return UserError(
        "file is too large", expected=f"at most {at_most:,} bytes", found=f"{size:,}", where=path
    )


def _link(path: Path) -> UserError:
    return UserError(
        "links are not followed here",
        expected="a file or a folder",
        found="a link",
        where=path,
        fix="replace the link by its target; only the folder itself may be a link",
    )
