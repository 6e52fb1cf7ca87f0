"""Reads files of `torch.save` with an unpickler that loads only tensors and containers."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hwnas.core.confined import read_regular
from hwnas.core.errors import UserError

__all__ = ["read_torch"]

MAX_BYTES = 8 << 30
_NESTED = ("state_dict", "model")
_FOREIGN = re.compile(r"GLOBAL:? ([\w.]+)")  # in the error message of torch


def read_torch(path: Path) -> dict[str, Tensor]:
    """The state dict in a `torch.save` file, or under its key `state_dict` or `model`.

    Raises:
        UserError: the file contains objects other than tensors, numbers, text and containers of
            these (none of it is executed), is damaged, or has no state dict.
        OSError: the file cannot be read.
    """
    data = read_regular(path, at_most=MAX_BYTES)
    try:
        _require_stored(data, path)
        found = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except UserError:
        raise
    except Exception as error:  # damaged pickles can raise nearly any exception
        raise _refused(path, error) from error
    for key in _NESTED:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
            break
    if not isinstance(found, Mapping) or not found or not all(_is_entry(*i) for i in found.items()):
        raise UserError(
            "the file has no state dict",
            expected="a dictionary from names to dense tensors, at the top level or under the key"
            " `state_dict` or `model`",
            found=_unlike(found),
            where=path,
            fix="save the weights with torch.save(model.state_dict(), FILE)",
        )
    return {name: tensor.detach() for name, tensor in found.items()}


def _require_stored(data: bytes, path: Path) -> None:
    """Refuses compressed archives, whose few bytes can become many; `torch.save` writes none.

    Raises:
        UserError: a part is compressed.
    """
    if data.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            packed = [one.filename for one in archive.infolist() if one.compress_type]
        if packed:
            raise UserError(
                "cannot read the weights: the file is a compressed archive",
                expected="an archive without compression, as torch.save writes it",
                found=f"{packed[0]} is compressed",
                where=path,
                fix="save the weights again with torch.save, which does not compress",
            )


def _unlike(found: object) -> str:
    """Why `found` is no state dict: its type, or its first entry that is not allowed."""
    if not isinstance(found, Mapping):
        return f"an object of the type {type(found).__name__}"
    if not found:
        return "an empty dictionary"
    name, value = next(entry for entry in found.items() if not _is_entry(*entry))
    if not isinstance(name, str):
        return f"the key {name!r:.80}, which is not a text"
    if not isinstance(value, Tensor):
        return f"the key {name!r:.80} with an object of the type {type(value).__name__}"
    layout, device = str(value.layout).removeprefix("torch."), value.device
    return f"the key {name!r:.80} with a tensor of the layout {layout} on the device {device}"


def _is_entry(name: Any, value: Any) -> bool:
    is_dense = isinstance(value, Tensor) and value.layout == torch.strided
    return isinstance(name, str) and is_dense and value.device.type == "cpu"


def _refused(path: Path, error: Exception) -> UserError:
    text = str(error)
    if foreign := _FOREIGN.search(text):
        return UserError(
            "the file contains more than tensors, and reading it could run code; no code was run",
            expected="tensors, numbers, texts and containers of these",
            found=foreign[1],
            where=path,
            fix="if you trust its source, run these two lines in a safe environment, and use the"
            f" file that they write:\n{_conversion(path)}",
        )
    return UserError(
        "cannot read the weights: the file is damaged, or was not written by torch.save",
        found=(text or type(error).__name__).split("\n")[0][:120],
        where=path,
        fix="compare its size with the published one, and download it again",
    )


def _conversion(path: Path) -> str:
    """Two lines of Python that save the tensors of a file as safetensors."""
    written = path.with_name(path.name.split(".pt")[0] + ".safetensors")
    return (
        "import torch, safetensors.torch; "
        f"found = torch.load({str(path)!r}, 'cpu', weights_only=False)\n"
        "safetensors.torch.save_file({k: v.clone().contiguous() for k, v in "
        f"found.get('state_dict', found).items()}}, {str(written)!r})"
    )
