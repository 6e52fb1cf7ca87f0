"""An append-only file of fixed-size records with a header line that describes them.

Every prefix of complete records is an earlier state. A partial last record is ignored, and
overwritten by the next append. Records are binary, and only new ones are written.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwnas.core.confined import open_private, open_regular
from hwnas.core.errors import UserError
from hwnas.core.json_data import parse_json
from hwnas.core.store import canonical_json, explained
from hwnas.core.text import kind_of

__all__ = ["RecordLog", "append_records", "cut_records", "read_records"]

Records = NDArray[np.void]
MAX_HEAD = 1 << 20  # bytes of the first line
PART = 1 << 16  # records that are read at a time


@dataclass(frozen=True)
class RecordLog:
    """The first line and the records of a file.

    head: bytes of the first line. n_bytes: bytes of the records, including a partial last one.
    """

    path: Path
    about: dict[str, Any] = field(default_factory=dict)
    head: int = 0
    n_bytes: int = 0

    def parts(self, dtype: np.dtype[np.void], n: int) -> Iterator[Records]:
        """Yields the first n records in parts.

        Raises:
            UserError: they cannot be read, or there are fewer.
        """
        try:
            with open_regular(self.path) as stream:
                stream.seek(self.head)
                for begin in range(0, n, PART):
                    count = min(PART, n - begin)
                    yield np.frombuffer(stream.read(count * dtype.itemsize), dtype, count)
        except (OSError, ValueError) as error:
            raise UserError("cannot read a file", found=str(error), where=self.path) from error


def append_records(path: Path, about: dict[str, Any], records: Records) -> None:
    """Appends packed records and fsyncs them; a new file starts with `about`.

    Raises:
        UserError: the file cannot be written; a partial record can remain.
    """
    head = canonical_json(about).encode() + b"\n"
    with explained("append to a file", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open_private(path) as stream:
            size = stream.seek(0, os.SEEK_END)
            if size < len(head):  # new, or cut within its first line
                stream.seek(0)
                stream.write(head)
                size = len(head)
            stream.seek(size - (size - len(head)) % records.itemsize)
            stream.truncate()
            stream.write(records.tobytes())
            stream.flush()
            os.fsync(stream.fileno())


def read_records(path: Path) -> RecordLog:
    """Header and records of the file, including a partial last record; empty if there is no file.

    Raises:
        UserError: the file cannot be read, or its first line is damaged.
    """
    try:
        with open_regular(path) as stream:
            head = stream.readline(MAX_HEAD)
            n_bytes = os.fstat(stream.fileno()).st_size - len(head)
    except FileNotFoundError:
        return RecordLog(path)
    except OSError as error:
        raise UserError("cannot read a file", found=error.strerror, where=path) from error
    if not head.endswith(b"\n") and len(head) < MAX_HEAD:
        return RecordLog(path)
    about = parse_json(head, where=path, problem="damaged first line of a file")
    if not isinstance(about, dict):
        raise UserError(
            "damaged first line of a file",
            expected="a JSON object",
            found=kind_of(about),
            where=path,
        )
    return RecordLog(path, about, len(head), n_bytes)


def cut_records(path: Path, itemsize: int, n: int) -> None:
    """Keeps the first n records of a file with at least n records.

    Raises:
        UserError: the file cannot be written.
    """
    with explained("cut a file", path), open_private(path) as stream:
        head = len(stream.readline())
        stream.truncate(head + n * itemsize)
        os.fsync(stream.fileno())
