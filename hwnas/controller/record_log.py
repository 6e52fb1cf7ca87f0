"""An append-only file of fixed-size records with a header line that describes them.

Every prefix of complete records is an earlier state. A partial last record is ignored, and
overwritten by the next append. Records are binary, and only new ones are written.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwnas.core.confined import open_private, read_regular
from hwnas.core.errors import UserError
from hwnas.core.json_data import parse_json
from hwnas.core.store import canonical_json, explained

__all__ = ["append_records", "cut_records", "read_records"]

Records = NDArray[np.void]
MAX_BYTES = 1 << 34


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


def read_records(path: Path) -> tuple[dict[str, Any], bytes]:
    """Header and records of the file, including a partial last record; empty if there is no file.

    Raises:
        UserError: the file cannot be read, or its first line is damaged.
    """
    try:
        head, found, body = read_regular(path, at_most=MAX_BYTES).partition(b"\n")
    except FileNotFoundError:
        return {}, b""
    except OSError as error:
        raise UserError("cannot read a file", found=error.strerror, where=path) from error
    if not found:
        return {}, b""
    about = parse_json(head, where=path, problem="damaged first line of a file")
    if not isinstance(about, dict):
        raise UserError("damaged first line of a file", expected="an object", where=path)
    return about, body


def cut_records(path: Path, itemsize: int, n: int) -> None:
    """Keeps the first n records of a file with at least n records.

    Raises:
        UserError: the file cannot be written.
    """
    with explained("cut a file", path), open_private(path) as stream:
        head = len(stream.readline())
        stream.truncate(head + n * itemsize)
        os.fsync(stream.fileno())
