"""Loads numpy files from untrusted sources: no pickles, and a limit on the unpacked size."""

from __future__ import annotations

import math
import os
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from hwnas.core.confined import open_regular
from hwnas.core.errors import Invalid, UserError

__all__ = ["MAX_ARRAY_BYTES", "read_npy", "read_npz"]

MAX_ARRAY_BYTES = 8 * 1024**3  # total of all arrays of a file, unpacked
MAX_UNPACKED, MAX_RATIO = 1 << 30, 200  # bytes, and ratio, that unpacking may reach
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read_npz(
    path: Path, *, names: Collection[str] | None = None, at_most: int = MAX_ARRAY_BYTES
) -> dict[str, NDArray[Any]]:
    """Reads the arrays of a .npz file; returns them by name.

    Args:
        path: the file.
        names: arrays to return; those that the file lacks are left out. Default: all arrays.
        at_most: limit for the total size of all arrays of the file in bytes, unpacked.

    Raises:
        UserError: the path is a pipe or a device file, or the arrays are larger than `at_most`, or
            larger than 1 GiB and 200 times the size of the file.
        OSError: the file cannot be read.
        ValueError: the file is damaged, or is not an archive of plain arrays.
    """
    arrays: dict[str, NDArray[Any]] = {}
    with open_regular(path) as file, _one_kind_of_error(), zipfile.ZipFile(file) as archive:
        members = [info for info in archive.infolist() if info.filename.endswith(".npy")]
        size = sum(info.file_size for info in members)
        most = min(at_most, max(MAX_UNPACKED, MAX_RATIO * os.fstat(file.fileno()).st_size))
        if size > most:
            raise UserError(
                "the arrays of the file are too large",
                expected=f"at most {most:,} bytes in total, unpacked",
                found=f"{size:,} bytes",
                where=path,
                fix="store fewer or smaller arrays in the file",
            )
        for info in members:
            name = info.filename.removesuffix(".npy")
            if names is None or name in names:
                with archive.open(info) as stream:
                    arrays[name] = _read(stream, info.file_size)
    return arrays


def read_npy(path: Path) -> NDArray[Any]:
    """The array of a .npy file.

    Raises:
        UserError: the path is a pipe or a device file (`/dev/...`).
        OSError: the file cannot be read.
        ValueError: the file is damaged, or is not a plain array.
    """
    with open_regular(path) as stream, _one_kind_of_error():
        return _read(stream, path.stat().st_size)


def _read(stream: IO[bytes], size: int) -> NDArray[Any]:
    version = np.lib.format.read_magic(stream)
    if version not in _HEADERS:
        raise Invalid("version 1.0 or 2.0 of the .npy format", "version {}.{}".format(*version))
    shape, _, dtype = _HEADERS[version](stream)
    n_bytes = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or n_bytes != size - stream.tell():
        raise ValueError(
            f"a file of {size} bytes that does not fit its array {list(shape)} of {dtype}"
        )
    stream.seek(0)
    array: NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
    return array


@contextmanager
def _one_kind_of_error() -> Iterator[None]:
    """Converts all errors of numpy and zipfile on damaged files to ValueError."""
    try:
        yield
    except (
        EOFError,
        NotImplementedError,
        OSError,
        OverflowError,
        RuntimeError,
        SyntaxError,
        TypeError,
        tokenize.TokenError,
        struct.error,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
