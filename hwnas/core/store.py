"""Durable files: atomic writes, append-only JSON lines, and content hashes."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hwnas.core.beside import PARTIAL, replacing
from hwnas.core.confined import open_private, open_regular, read_regular, regular
from hwnas.core.errors import Invalid, UserError, parts_of
from hwnas.core.json_data import parse_json, strict_json
from hwnas.core.owners import owned
from hwnas.core.text import kind_of

__all__ = [
    "REARRANGED",
    "SEALED",
    "UNSEALED",
    "append_jsonl",
    "canonical_json",
    "content_hash",
    "explained",
    "file_hash",
    "free_bytes",
    "iter_jsonl",
    "json_text",
    "read_json",
    "read_jsonl",
    "refused",
    "remove_partial",
    "sealed",
    "unsealed",
    "why_unwritable",
    "write_bytes",
    "write_json",
    "write_text",
]

SEALED = "the content that hwnas wrote; its hash is stored under the key `check`"
UNSEALED = "other content: its hash is different"
REMOVE_LINE = "remove this line; a command that needs its content makes it again"
REARRANGED = "the same content, written in another way (spaces, order of keys)"
MAX_JSON_BYTES = 256 * 1024 * 1024  # larger files from outside are refused, not parsed
MAX_JSONL_BYTES = 2 * 1024 * 1024 * 1024
MAX_LINE_BYTES = 64 * 1024 * 1024
TEMPORARY_TOO = ", or let TMPDIR name another folder for temporary files"


@contextlib.contextmanager
def explained(doing: str, path: Path) -> Iterator[None]:
    """Converts system errors within the context (disk full, no permission, ...) to `UserError`."""
    try:
        yield
    except OSError as error:
        raise refused(error, doing, path) from error


def refused(error: OSError, doing: str, path: Path | None) -> UserError:
    """The `UserError` for a failed system call, with a fix that depends on its error number.

    path: the place to state if the system error names no file.
    """
    full = error.errno == errno.ENOSPC
    where = error.filename or (_full_folder(path or Path.cwd()) if full else path)
    fixes = {
        errno.ENOSPC: f"free disk space there{TEMPORARY_TOO if _is_temporary(where) else ''}",
        errno.EDQUOT: "free disk space, or raise the quota",
        errno.EFBIG: "raise the limit on file sizes (ulimit -f)",
        errno.EROFS: "give a writable folder",
        errno.ENOENT: "check the path",
        **dict.fromkeys(
            (errno.EEXIST, errno.ENOTDIR, errno.EISDIR),
            "move or rename what is at this path, or give another path",
        ),
    }
    fix = fixes.get(error.errno or 0, "check the owner and the permissions of this path")
    found = error.strerror or str(error)
    if error.errno in (errno.EACCES, errno.EPERM) and where is not None:
        found += f": {owned(Path(where))}"
    return UserError(
        f"cannot {doing}",
        expected="free disk space" if full else None,
        found=found,
        where=where,
        fix=f"{fix}, then run the same command again; earlier results are kept",
    )


def free_bytes(path: Path) -> int | None:
    """Free bytes on the disk of an existing or planned path; None if unknown."""
    there = next(one for one in (path, *path.absolute().parents) if one.exists())
    try:
        return shutil.disk_usage(there).free
    except OSError:
        return None


def _full_folder(path: Path) -> Path:
    """`path`, or the folder for temporary files if that one is full."""
    places = [path, Path(tempfile.gettempdir())]
    return min(places, key=lambda one: sys.maxsize if (n := free_bytes(one)) is None else n)


def _is_temporary(where: object) -> bool:
    return Path(str(where)).is_relative_to(tempfile.gettempdir())


def why_unwritable(there: Path) -> str | None:
    """Why no file can be created in an existing folder; None if one can."""
    if not there.is_dir():
        return f"{there} is not a folder"
    return None if os.access(there, os.W_OK | os.X_OK) else f"{there}: no permission to write"


def write_bytes(path: Path, data: bytes) -> None:
    """Writes `data` atomically: `path` always has the complete old or new content.

    Permissions are those that `open(path, "wb")` would set: those of an existing file, or those of
    the umask for a new file.

    Raises:
        UserError: the file cannot be written; the old content still exists.
    """
    path = Path(path)
    with explained("write a file", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as stream:
            stream.write(data)


def remove_partial(path: Path) -> None:
    """Removes partial files of killed writers in a folder, at any depth, or next to a file.

    Only call it while holding the lock, because partial files of running writers look the same.
    """
    found = path.rglob(f".*{PARTIAL}") if path.is_dir() else path.parent.glob(f".{path.name}.*")
    with explained("remove partial files", path):
        for leftover in [file for file in found if file.suffix == PARTIAL]:
            leftover.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of UTF-8 text."""
    write_bytes(path, text.encode())


def json_text(value: Any, *, indent: int | None = 1) -> str:
    """Text of a JSON file. Keys stay in order (`schema_version` first); NaN is refused."""
    return json.dumps(value, indent=indent, allow_nan=False) + "\n"


def write_json(path: Path, value: Any, *, indent: int | None = 1) -> None:
    """Writes `json_text` atomically."""
    write_text(path, json_text(value, indent=indent))


def read_json(path: Path) -> Any:
    """Parses a JSON file by the rules of `json_data`. Files over 256 MiB are refused.

    Raises:
        UserError: the file is missing, unreadable, too large, not a regular file, or not JSON.
    """
    path = Path(path)
    try:
        content = read_regular(path, at_most=MAX_JSON_BYTES)
        return parse_json(content, where=path)
    except FileNotFoundError as error:
        raise UserError(
            "file not found", expected="a JSON file", where=path, fix="check the path"
        ) from error
    except OSError as error:
        raise UserError("cannot read a file", found=error.strerror, where=path) from error


def append_jsonl(path: Path, row: dict[str, Any]) -> None:
    """Appends one JSON line and fsyncs it. A partial last line of a killed writer is removed first.

    Raises:
        UserError: the file cannot be written, or is a link; a partial line can remain.
    """
    path = Path(path)
    line = json.dumps(row, allow_nan=False).encode() + b"\n"
    with explained("append to a file", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open_private(path) as stream:
            _drop_torn_tail(stream)
            stream.write(line)
            stream.flush()
            os.fsync(stream.fileno())


def _drop_torn_tail(stream: Any) -> None:
    """Truncates `stream` after its last newline, so that the next row starts on a new line."""
    end = stream.seek(0, os.SEEK_END)
    position = end
    while position > 0:
        step = min(4096, position)
        stream.seek(position - step)
        newline = stream.read(step).rfind(b"\n")
        if newline >= 0:
            position = position - step + newline + 1
            break
        position -= step
    if position != end:
        stream.truncate(position)
    stream.seek(0, os.SEEK_END)


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """All rows of `iter_jsonl`."""
    return list(iter_jsonl(path))


def iter_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a JSON-lines file, one at a time; none if it does not exist.

    A partial last line is ignored.

    Raises:
        UserError: another line is not a JSON object.
    """
    path = Path(path)
    try:
        with open_regular(regular(path, at_most=MAX_JSONL_BYTES)) as stream:
            lines = iter(lambda: stream.readline(MAX_LINE_BYTES), b"")
            for number, line in enumerate(lines, start=1):
                if line.endswith(b"\n"):
                    yield _row(line[:-1], path, number)
                elif len(line) == MAX_LINE_BYTES:
                    raise UserError(
                        "a line is too long",
                        expected=f"at most {MAX_LINE_BYTES:,} bytes",
                        where=f"{path}:{number}",
                        fix=REMOVE_LINE,
                    )
    except FileNotFoundError:
        return
    except OSError as error:
        raise UserError("cannot read a file", found=error.strerror, where=path) from error


def _row(line: bytes, path: Path, number: int) -> dict[str, Any]:
    broken, fix = "invalid line in a JSON-lines file", REMOVE_LINE
    try:
        row = strict_json(line)
    except (ValueError, RecursionError) as error:
        raise UserError(broken, **parts_of(error), where=f"{path}:{number}", fix=fix) from error
    if not isinstance(row, dict):
        found = kind_of(row)
        raise UserError(
            broken, expected="a JSON object", found=found, where=f"{path}:{number}", fix=fix
        )
    return row


def canonical_json(value: Any) -> str:
    """The canonical JSON text for hashes (sorted keys, no spaces)."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def content_hash(value: Any, *, digits: int = 16) -> str:
    """Hex hash of a JSON value, independent of key order."""
    return hashlib.blake2b(canonical_json(value).encode(), digest_size=digits // 2).hexdigest()


def sealed(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row plus a hash of its content, `check`, by which `unsealed` detects modifications."""
    return {**row, "check": content_hash(row)}


def unsealed(row: dict[str, Any]) -> dict[str, Any]:
    """The row without its `check`.

    Raises:
        Invalid: the row was modified.
    """
    plain = {key: value for key, value in row.items() if key != "check"}
    if row.get("check") != content_hash(plain):
        raise Invalid(SEALED, UNSEALED)
    return plain


def file_hash(path: Path, *, at_most: int | None = None) -> str:
    """sha256 of a file in hex; with `at_most`, of its first `at_most` bytes."""
    digest, left = hashlib.sha256(), sys.maxsize if at_most is None else at_most
    with open_regular(Path(path)) as stream:
        while chunk := stream.read(min(1 << 20, left)):
            digest.update(chunk)
            left -= len(chunk)
    return digest.hexdigest()
