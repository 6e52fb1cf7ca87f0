"""safetensors files with uniform errors and deterministic bytes.

Damaged files lead to one kind of error. Equal content is written as equal bytes.
"""

from __future__ import annotations

import contextlib
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hwnas.core.confined import regular
from hwnas.core.errors import UserError

__all__ = ["in_order", "read_arrays", "readable_tensors"]

_HEAD = struct.Struct("<Q")
_ALIGNMENT = 8


def in_order(file: bytes) -> bytes:
    """A .safetensors file with sorted metadata keys, because the library writes them in any order.

    Tensor data do not change, because offsets are relative to the end of the header.
    """
    (length,) = _HEAD.unpack_from(file)
    header: dict[str, Any] = json.loads(file[_HEAD.size : _HEAD.size + length])
    if metadata := header.get("__metadata__"):
        header["__metadata__"] = dict(sorted(metadata.items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-(_HEAD.size + len(text)) % _ALIGNMENT)
    return _HEAD.pack(len(text)) + text + file[_HEAD.size + length :]


@contextlib.contextmanager
def readable_tensors(path: Path, problem: str, *, fix: str | None = None) -> Iterator[Path]:
    """Context in which all errors from reading the safetensors file `path` become one error.

    Raises:
        UserError: with the text `problem`: missing, truncated, not safetensors, or invalid tensors.
    """
    from safetensors import SafetensorError

    try:
        yield regular(path)
    except FileNotFoundError as error:
        raise UserError("file not found", where=path, fix=fix) from error
    except UserError:
        raise
    except (
        *(SafetensorError, OSError, ValueError, KeyError, TypeError, IndexError),
        *(AttributeError, RuntimeError, OverflowError),
    ) as error:
        found = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(problem, found=found[0][:300], where=path, fix=fix) from error


def read_arrays(
    path: Path, problem: str, *, fix: str | None = None
) -> tuple[dict[str, Any], dict[str, str]]:
    """The numpy arrays of a file by name, and its metadata.

    Raises:
        UserError: see `readable_tensors`.
    """
    from safetensors import safe_open

    with (
        readable_tensors(path, problem, fix=fix) as found,
        safe_open(found, framework="numpy") as file,
    ):
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return arrays, file.metadata() or {}
