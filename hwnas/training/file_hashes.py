"""Content hashes of files; hashes of unchanged files are cached.

A file counts as unchanged if device, inode, size, modification time and change time are the same
under the same path. The kernel sets the change time; `touch`, `cp -p`, `rsync -a` and `unzip`
cannot set it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hwnas.core.confined import open_regular
from hwnas.core.env import cache_folder
from hwnas.core.errors import HwnasError, UserError
from hwnas.core.store import content_hash, read_json, write_json

__all__ = ["ChangedMeanwhile", "bytes_hash", "file_hashes", "spelled"]

SETTLED_NS = 2_000_000_000
"""Minimum age of the last change of a file before its hash is cached.

A younger file may change again within the same tick of the file system clock (FAT: 2 s).
"""

UNREADABLE = "unreadable"
N_THREADS = 8  # disks and servers are faster with parallel reads

_Seen = tuple[int, int, int, int, int]
"""Device, inode, size, modification time and change time."""


def bytes_hash(data: bytes) -> str:
    """Hash of content: 128 bits in hex."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def spelled(text: str) -> str:
    """Converts a file name to text for display; escapes bytes that are not UTF-8 (`\\xe9`)."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def file_hashes(folder: Path, names: Sequence[str]) -> dict[str, str]:
    """Maps the name of every file, relative to `folder`, to its content hash.

    The value of an unreadable file is not a hash, but begins with `UNREADABLE`.

    Raises:
        FileNotFoundError: a file is missing.
        ChangedMeanwhile: a file changed while it was read.
        UserError: a path is a pipe or a device file (`/dev/...`).
    """
    remembered = _remembered(folder)
    seen = {name: _seen(os.stat(os.path.join(folder, name))) for name in names}
    found = {
        name: remembered[name][1]
        for name in names
        if name in remembered and remembered[name][0] == seen[name]
    }
    missing = [name for name in names if name not in found]
    if missing:
        begin = time.time_ns()
        with ThreadPoolExecutor(N_THREADS) as pool:
            hashes = pool.map(lambda name: _hash(folder / name, seen[name]), missing)
            found |= zip(missing, hashes, strict=True)
        settled = [
            name
            for name in names
            if max(seen[name][3:]) < begin - SETTLED_NS and not found[name].startswith(UNREADABLE)
        ]
        _remember(folder, {name: (*seen[name], found[name]) for name in settled})
    return {name: found[name] for name in names}


class ChangedMeanwhile(HwnasError):
    """A file of the data set changed while it was read."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            "a file of the data set changed while it was read",
            where=path,
            fix="repeat the command when nothing writes into the folder",
        )


def _hash(path: Path, before: _Seen) -> str:
    digest = hashlib.blake2b(digest_size=16)
    try:
        with open_regular(path) as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
            after = _seen(os.fstat(stream.fileno()))
    except OSError as error:
        return f"{UNREADABLE}: {error.strerror}"
    if after != before:
        raise ChangedMeanwhile(path)
    return digest.hexdigest()


def _seen(stat: os.stat_result) -> _Seen:
    return (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


def _cache_of(folder: Path) -> Path:
    return cache_folder() / "hashes" / f"{content_hash(os.path.abspath(folder))}.json"


def _remembered(folder: Path) -> dict[str, tuple[_Seen, str]]:
    """Cached hashes by name; empty if the cache is missing or damaged."""
    try:
        rows = read_json(_cache_of(folder))["files"]
        return {
            name: ((int(dev), int(ino), int(size), int(mtime), int(ctime)), str(digest))
            for name, (dev, ino, size, mtime, ctime, digest) in rows.items()
        }
    except (UserError, KeyError, TypeError, ValueError, AttributeError):
        return {}


def _remember(folder: Path, rows: Mapping[str, Sequence[int | str]]) -> None:
    if rows:
        with contextlib.suppress(UserError, OSError):  # without a cache, files are always hashed
            write_json(_cache_of(folder), {"schema_version": 1, "files": dict(rows)}, indent=None)
