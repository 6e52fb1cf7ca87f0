"""safetensors files with uniform errors and deterministic bytes.

Damaged files lead to one kind of error. Equal content is written as equal bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hwnas.core.confined import read_regular, regular
from hwnas.core.errors import UserError
from hwnas.core.store import UNSEALED

__all__ = ["in_order", "read_arrays", "readable_tensors", "require_sealed", "sealed_tensors"]

_HEAD = struct.Struct("<Q")
_ALIGNMENT = 8
CHECK = "check"  # key of the metadata
MAX_BYTES = 1 << 34


def in_order(file: bytes) -> bytes:
    """Returns a .safetensors file with its metadata keys sorted; the library writes them unsorted.

    Tensor data do not change, because offsets are relative to the end of the header.
    """
    header, tensors = _parts(file)
    return _joined(header, tensors)


def sealed_tensors(file: bytes) -> bytes:
    """Adds a hash of the file's content to its metadata, for `require_sealed`."""
    header, tensors = _parts(file)
    header.setdefault("__metadata__", {})[CHECK] = _hash(file)
    return _joined(header, tensors)


def require_sealed(path: Path, problem: str) -> None:
    """Refuses a file that was modified after `sealed_tensors`; files without a hash pass.

    Raises:
        UserError: with the text `problem`.
    """
    with readable_tensors(path, problem):
        header, tensors = _parts(read_regular(path, at_most=MAX_BYTES))
        found = header.get("__metadata__", {}).pop(CHECK, None)
        if found is not None and found != _hash(_joined(header, tensors)):
            raise UserError(
                problem,
                expected="the content that hwnas wrote; its hash is stored in the metadata of the"
                f" file, under the key `{CHECK}`",
                found=UNSEALED,
                where=path,
            )


def _hash(file: bytes) -> str:
    return hashlib.blake2b(file, digest_size=16).hexdigest()


def _parts(file: bytes) -> tuple[dict[str, Any], bytes]:
    (length,) = _HEAD.unpack_from(file)
    header: dict[str, Any] = json.loads(file[_HEAD.size : _HEAD.size + length])
    return header, file[_HEAD.size + length :]


def _joined(header: dict[str, Any], tensors: bytes) -> bytes:
    """A file with sorted metadata, its header padded."""
    if metadata := header.pop("__metadata__", None):
        header = {"__metadata__": dict(sorted(metadata.items())), **header}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-(_HEAD.size + len(text)) % _ALIGNMENT)
    return _HEAD.pack(len(text)) + text + tensors


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
        *(AttributeError, RuntimeError, OverflowError, struct.error),
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
