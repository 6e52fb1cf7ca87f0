"""Loads weights from a file, from tensors in memory, or by a name (shipped or timm)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import safetensors.torch
import torch
from torch import Tensor

from hwnas.core.arrays import read_npz
from hwnas.core.confined import regular
from hwnas.core.errors import UserError
from hwnas.core.store import file_hash
from hwnas.nets import hub
from hwnas.nets.folded import Folded, is_folded, read_folded, unreadable
from hwnas.nets.origin import Origin, read_origin
from hwnas.nets.pretrained_files import read_torch
from hwnas.nets.pretrained_named import SHIPPED_FOLDER, file_of, is_file, shipped

__all__ = ["Source", "Weights", "read_weights", "source_of"]

Weights: TypeAlias = Path | str | Mapping[str, Tensor]
"""A file of weights; `shipped`, `shipped:NAME` or `timm:NAME`; or tensors by name."""


@dataclass(frozen=True)
class Source:
    """Weights, and where they were loaded from.

    where: description of the source, for messages.
    file: the file; None for tensors in memory.
    folded: replaces `tensors` if the BN of the network is folded into its convolutions.
    """

    tensors: Mapping[str, Tensor]
    where: str
    file: Path | None = None
    origin: Origin | None = None
    folded: Folded | None = None

    @property
    def is_ordered(self) -> bool:
        """Whether the tensors are in their original order; safetensors sorts them."""
        return self.file is None or self.file.suffix != ".safetensors"


def source_of(weights: Weights) -> Source:
    """Loads weights; the result states where they were loaded from.

    Weights of timm are read from the cache of Hugging Face; nothing is downloaded.

    Raises:
        UserError: unknown name, unreadable file, or a file that could run code.
    """
    if isinstance(weights, Mapping):
        return _in_memory(weights)
    path = file_of(weights)
    if path is None:
        raise hub.absent(str(weights).removeprefix(hub.PREFIX), "not in the cache")
    if _is_folded(path):
        network = read_folded(path)
        return Source({}, str(weights), path, _shipped_origin(path, network), network)
    if is_file(weights):
        return Source(read_weights(path), str(path), path, read_origin(path))
    origin = hub.origin_of_timm(str(weights).removeprefix(hub.PREFIX), path, file_hash(path))
    return Source(read_weights(path), str(weights), path, origin)


def _shipped_origin(path: Path, network: Folded) -> Origin | None:
    """Origin of weights that ship with hwnas; None for other weights."""
    if path.parent != SHIPPED_FOLDER:
        return None
    one = shipped(path.stem)
    return Origin(
        network=one.name,
        licence=one.licence,
        home=f"{one.home} at {one.commit}",
        file=path.name,
        sha256=file_hash(path),
        mean=network.mean,
        std=network.std,
    )


def _in_memory(weights: Mapping[str, Tensor]) -> Source:
    for name, tensor in weights.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise UserError(
                "not a state dict",
                expected="a dictionary of tensors by name, such as module.state_dict()",
                found=f"{name!r}: {type(tensor).__name__}",
                where="the weights in memory",
            )
    return Source({n: t.detach() for n, t in weights.items()}, "the weights in memory")


def _is_folded(path: Path) -> bool:
    if path.suffix != ".npz":
        return False
    try:
        return is_folded(read_npz(path))
    except (OSError, ValueError):  # `read_weights` reports the error
        return False


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors in a .safetensors, .npz or `torch.save` file, without executing code in it.

    Raises:
        UserError: no such file, content that does not match the file name, or content that could
            run code.
    """
    readers: dict[str, Callable[[Path], dict[str, Tensor]]] = {
        ".safetensors": lambda file: safetensors.torch.load_file(regular(file)),
        ".npz": _read_npz,
    }
    try:
        return readers.get(path.suffix, read_torch)(path)
    except (OSError, TypeError, ValueError, safetensors.SafetensorError) as error:
        raise unreadable(path, error) from error


def _read_npz(path: Path) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array) for name, array in read_npz(path).items()}
