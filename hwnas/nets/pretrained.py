"""Start a supernet from weights on disk: another supernet's, or a trained largest subnet's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from hwnas.core.arrays import read_npz
from hwnas.core.confined import regular
from hwnas.core.errors import UserError
from hwnas.nets.extract import subnet_tensors
from hwnas.nets.sorting import sort_channels
from hwnas.nets.supernet import Supernet

__all__ = ["read_weights", "start_from"]

_NOT_LEARNED = ("running_mean", "running_var", "num_batches_tracked")  # BN's, of static networks


def start_from(supernet: Supernet, path: Path) -> None:
    """Replace the weights of `supernet` by those in the file `path`.

    It holds either the `state_dict` of a supernet of the same space and options, or that of the
    largest subnet, e.g. trained alone. The latter's channels are sorted by importance, so that
    smaller subnets start with the best of them; whatever the largest does not use (alternatives of
    operators, kernel transforms, a hypernetwork) keeps its initial weights.

    Raises:
        UserError: the file cannot be read, or is of another space; names the first tensor at fault.
    """
    weights = read_weights(path)
    state = supernet.state_dict()
    if any(name in state for name in weights):
        _copy(weights, state, path)
        return
    with torch.no_grad():
        largest = dict(subnet_tensors(supernet, supernet.space.largest(), modulated=False))
        _check_views(supernet, largest)
        _copy(weights, largest, path)
    sort_channels(supernet)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors in a .safetensors or .npz file, without unpickling anything.

    Raises:
        UserError: there is no such file, or it is not what its name says.
    """
    readers: dict[str, Callable[[Path], dict[str, Tensor]]] = {
        ".safetensors": lambda file: safetensors.torch.load_file(regular(file)),
        ".npz": _read_npz,
    }
    if path.suffix not in readers:
        raise UserError(
            "weights are read from .safetensors and .npz alone",
            expected=sorted(readers),
            found=path.suffix or "no suffix",
            where=path,
            fix="convert a .pth with safetensors.torch.save_file(torch.load(..., "
            "weights_only=True), ...)",
        )
    try:
        return readers[path.suffix](path)
    except (OSError, TypeError, ValueError, safetensors.SafetensorError) as error:
        raise UserError("cannot read the weights", found=str(error), where=path) from error


def _read_npz(path: Path) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array) for name, array in read_npz(path).items()}


def _check_views(supernet: Supernet, slices: Mapping[str, Tensor]) -> None:
    """What is copied into the slices must arrive in the parameters."""
    owned = {parameter.untyped_storage().data_ptr() for parameter in supernet.parameters()}
    for name, tensor in slices.items():
        if tensor.untyped_storage().data_ptr() not in owned:
            raise UserError(
                "the largest subnet does not use the largest kernel of a layer",
                found=name,
                where=supernet.space.id,
                fix="switch kernel_transform off, or list operators in ascending order of size",
            )


def _copy(weights: Mapping[str, Tensor], into: Mapping[str, Tensor], path: Path) -> None:
    """Copy every tensor into the one of its name, once all names and shapes are known to fit."""
    for name, tensor in into.items():
        if name not in weights or weights[name].shape != tensor.shape:
            found = list(weights[name].shape) if name in weights else "no such tensor"
            raise _another_space(path, name, expected=list(tensor.shape), found=found)
    for name in weights:
        if name not in into and not name.endswith(_NOT_LEARNED):
            raise _another_space(
                path, name, expected="no such tensor", found=list(weights[name].shape)
            )
    for name, tensor in into.items():
        tensor.copy_(weights[name])


def _another_space(path: Path, name: str, *, expected: object, found: object) -> UserError:
    return UserError(
        f"the weights are of another space: {name} does not fit",
        expected=expected,
        found=found,
        where=f"{path}: {name}",
        fix="use the space and the options that the weights were trained with",
    )
