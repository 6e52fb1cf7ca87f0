"""Access to untrusted folders: paths stay inside, and only regular files are opened.

A run folder, a bundle or the results of a kit may come from another source. File names in them must
not lead out of the folder, links are not followed, and a pipe or device is refused. The folder
itself may be reached through a link.
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

from hwnas.core.beside import replacing
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
MAX_DEPTH = 64
MAX_PART_BYTES = 255  # limit of Linux and macOS


def check_name(name: str, *, where: object) -> str:
    """Checks a relative path as records store it, such as `a/b.json`; returns it.

    Raises:
        UserError: the path is absolute, or contains an empty part, `.`, `..`, a backslash or a
            control character; or it is longer than file systems allow, or deeper than `MAX_DEPTH`.
    """
    parts = name.split("/")
    if len(parts) > MAX_DEPTH or max(map(_n_bytes, parts)) > MAX_PART_BYTES:
        raise UserError(
            "a path is too long",
            expected=f"at most {MAX_DEPTH} parts, each of at most {MAX_PART_BYTES} bytes",
            found=f"{len(parts)} parts, of up to {max(map(_n_bytes, parts))} bytes: {name:.40} ...",
            where=where,
        )
    leads_out = any(part in ("", ".", "..") for part in parts)
    if leads_out or any(c == "\\" or c < " " for c in name):
        raise UserError(
            "a path leads outside its folder" if leads_out else "a path has forbidden characters",
            expected="a relative path without empty parts, `.`, `..`, `\\` and control characters",
            found=repr(name),
            where=where,
        )
    return name


def _n_bytes(part: str) -> int:
    return len(part.encode(errors="surrogatepass"))


def require_below(patterns: Sequence[str], name: str, problem: str, *, where: object) -> None:
    """Refuses a relative path whose first part matches none of the name patterns.

    Raises:
        UserError: with the text `problem`.
    """
    if not any(fnmatchcase(name.partition("/")[0], pattern) for pattern in patterns):
        raise UserError(
            problem,
            expected=f"a path that begins with one of {', '.join(patterns)}",
            found=repr(name),
            where=where,
        )


def inside(root: Path, *parts: str) -> Path:
    """The path of `parts` (each may contain `/`) below `root`. No part may be a link.

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
    """Checks that a folder contains only folders and regular files, at any depth.

    Entries that disappear during the check, and unreadable folders, are skipped.

    only: name patterns of the entries of `root` that are checked, ignoring case.

    Raises:
        OSError: the name of the folder is invalid.
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
    """Checks that `path` is a regular file, which libraries can open by name; follows a link.

    Raises:
        UserError: a pipe, a socket, a device file, or a file of more than `at_most` bytes.
        OSError: the file does not exist, or is a folder.
    """
    found = _stat(path)
    _require_regular(path, found.st_mode)
    if at_most is not None and found.st_size > at_most:
        raise _too_large(path, at_most, found.st_size)
    return path


def open_regular(path: Path) -> IO[bytes]:
    """Opens a regular file for reading; follows a link.

    Raises:
        UserError: a pipe, a socket or a device.
        OSError: the file cannot be read.
    """
    _require_regular(path, _stat(path).st_mode)
    return _opened(path, os.O_RDONLY, "rb")


def read_regular(path: Path, *, at_most: int) -> bytes:
    """The content of a regular file.

    Raises:
        UserError: a pipe, a socket, a device file, or a file of more than `at_most` bytes.
        OSError: the file cannot be read.
    """
    with open_regular(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        # Python allocates the requested size, so request the file size and a little more for
        # growth.
        data = stream.read(min(at_most, size + SPARE) + 1) if size <= at_most else b""
    if max(size, len(data)) > at_most:
        raise _too_large(path, at_most, size)
    return data


def holds(path: Path, content: bytes) -> bool:
    """Whether a regular file of any size contains exactly `content`; False if it does not exist.

    Raises:
        UserError: a pipe, a socket or a device.
        OSError: the file cannot be read.
    """
    try:
        same_size = regular(path).stat().st_size == len(content)
    except FileNotFoundError:
        return False
    return same_size and read_regular(path, at_most=len(content)) == content


def open_unlinked(path: Path) -> IO[bytes]:
    """Opens a regular file for reading and writing at its start; creates it if it does not exist.

    Use it for locks: the lock must be held before a file with several names (hard links) is
    replaced. To write to the file, use `open_private`.

    Raises:
        UserError: a link, a pipe, a socket or a device.
        OSError: the file cannot be opened.
    """
    try:
        return _opened(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, "r+b")
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK) and path.is_symlink():
            raise _link(path) from error
        raise


def open_private(path: Path) -> IO[bytes]:
    """The same as `open_unlinked`, for writing in place: other hard links do not change.

    Raises:
        UserError: a link, a pipe, a socket or a device.
        OSError: the file cannot be opened, or has other hard links and cannot be copied.
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
    """Replaces `path`, opened as `stream`, by a private copy if the file has other hard links.

    Copies by `cp -l` or `rsync --link-dest` share their files with the original, so an append to
    one would change the other. Returns whether `path` was replaced (atomically). `stream` is still
    the old file.

    Raises:
        OSError: the copy cannot be written; `path` has not changed.
    """
    found = os.fstat(stream.fileno())
    if found.st_nlink <= 1:
        return False
    with replacing(path) as target:
        stream.seek(0)
        shutil.copyfileobj(stream, target, 1 << 20)
        os.fchmod(target.fileno(), stat.S_IMODE(found.st_mode))
    return True


def _opened(path: Path, flags: int, mode: Literal["rb", "r+b"]) -> IO[bytes]:
    """Opens without blocking, even if the path is a pipe whose other end is closed."""

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
    except ValueError as error:  # a null byte in the name
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
        fix="give the path of a regular file, or remove this path from its folder",
    )


def _too_large(path: Path, at_most: int, size: int) -> UserError:
    return UserError(
        "a file is too large",
        expected=f"at most {at_most:,} bytes",
        found=f"{size:,} bytes",
        where=path,
    )


def _link(path: Path) -> UserError:
    return UserError(
        "symbolic links are not followed here",
        expected="a file or a folder",
        found="a symbolic link",
        where=path,
        fix="replace the link by its target; only the folder itself may be a link",
    )
