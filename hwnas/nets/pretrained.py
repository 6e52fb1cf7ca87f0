"""Start a supernet from weights on disk: a supernet's, also a published one's, or a subnet's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from hwnas.core.arrays import read_npz
from hwnas.core.confined import regular
from hwnas.core.errors import UserError
from hwnas.core.store import file_hash
from hwnas.nets.extract import subnet_tensors
from hwnas.nets.origin import Origin, read_origin
from hwnas.nets.pretrained_files import read_torch
from hwnas.nets.pretrained_layout import Fit, fit, has_published_names, nearest, space_of
from hwnas.nets.pretrained_list import NETWORKS, Network
from hwnas.nets.sorting import sort_channels
from hwnas.nets.supernet import Supernet
from hwnas.spaces.space import SearchSpace

__all__ = ["import_weights", "read_weights", "start_from"]

_NOT_LEARNED = ("running_mean", "running_var", "num_batches_tracked")  # BN's, of static networks


def start_from(supernet: Supernet, path: Path) -> None:
    """Replace the weights of `supernet` by those in the file `path`, and its `origin`.

    It holds the `state_dict` of a supernet of the same space and options, a published supernet
    (`hwnas.pretrained_list()`), or the largest subnet, e.g. trained alone. The latter's channels
    are sorted by importance, so that smaller subnets start with the best of them; whatever the
    largest does not use (alternatives of operators, kernel transforms, a hypernetwork) keeps its
    initial weights. Where a supernet's file has no kernel transforms, small kernels are centres.

    Raises:
        UserError: the file cannot be read, or is of another space; names the first tensor at fault.
    """
    weights = read_weights(path)
    state = supernet.state_dict()
    if has_published_names(weights):
        found = fit(weights, supernet)
        if found.misfits:
            raise _other_network(path, weights, found, supernet.space)
        _copy(_with_centres(found.found, state), state, path)
        supernet.origin = _origin(path, nearest(weights)[0])
        return
    supernet.origin = read_origin(path)
    if any(name in state for name in weights):
        _copy(_with_centres(weights, state), state, path)
        return
    with torch.no_grad():
        largest = dict(subnet_tensors(supernet, supernet.space.largest(), modulated=False))
        _check_views(supernet, largest)
        _copy(weights, largest, path)
    sort_channels(supernet)


def import_weights(
    path: Path, *, num_classes: int | None = None, licence: str | None = None
) -> Supernet:
    """The supernet of a published file of weights; its `origin` says where they come from.

    Args:
        path: see `hwnas.pretrained_list()`.
        num_classes: other than those of the file: the classifier starts from random weights.
        licence: of the weights, where it is not that of the published ones.

    Raises:
        UserError: the file cannot be read, or is of no known network: names the first tensor that
            does not fit the nearest one.
    """
    weights = read_weights(path)
    network, found = nearest(weights)
    if found.misfits:
        raise _unknown_network(path, network, found)
    classes = found.found["classifier.linear.weight"].shape[0]
    has_transforms = any(".transforms." in name for name in found.found)
    supernet = Supernet(
        space_of(network, num_classes or classes), seed=0, kernel_transform=has_transforms
    )
    state = supernet.state_dict()
    is_other = num_classes is not None and num_classes != classes
    kept = {n: t for n, t in state.items() if is_other and n.startswith("classifier.")}
    _copy({**found.found, **kept}, state, path)
    supernet.origin = _origin(path, network, licence)
    return supernet


def _origin(path: Path, network: Network, licence: str | None = None) -> Origin:
    """What is kept of the file `path`, which has weights of a published network."""
    return Origin(
        network=network.name,
        licence=licence or network.licence,
        home=network.home,
        file=path.name,
        sha256=file_hash(path),
    )


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors in a .safetensors or .npz file, or in one of `torch.save`; runs nothing in it.

    Raises:
        UserError: there is no such file, it is not what its name says, or it could run code.
    """
    readers: dict[str, Callable[[Path], dict[str, Tensor]]] = {
        ".safetensors": lambda file: safetensors.torch.load_file(regular(file)),
        ".npz": _read_npz,
    }
    try:
        return readers.get(path.suffix, read_torch)(path)
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


def _with_centres(weights: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`weights`; where they have no kernel transforms at all, with those that change nothing."""
    transforms = [name for name in state if ".transforms." in name]
    if any(".transforms." in name for name in weights):
        transforms = []
    return {**{name: torch.eye(len(state[name])) for name in transforms}, **weights}


def _other_network(
    path: Path, weights: Mapping[str, Tensor], found: Fit, space: SearchSpace
) -> UserError:
    """Published weights do not fit a space."""
    (name, expected, actual), (network, best) = found.misfits[0], nearest(weights)
    if found.only_classes_differ:
        classes = space.macro.num_classes
        return UserError(
            "the weights have a head of other classes than the data",
            expected=f"{classes} classes",
            found=f"{(actual or [0])[0]} classes",
            where=f"{path}: {name}",
            fix=f"hwnas pretrained import {path} --num-classes {classes} --out W.safetensors"
            " gives them a new head, which is then trained",
        )
    settings = "".join(f", {key}: {value}" for key, value in network.settings.items())
    return UserError(
        f"the weights are of another network: {name} does not fit",
        expected=expected or "no such tensor",
        found=actual or "no such tensor",
        where=f"{path}: {name}; the space is {space.id}",
        fix=f"space: {{name: {network.space}{settings}}}, whose published network"
        f" {network.name} is {'the one' if not best.misfits else 'the nearest'}",
    )


def _unknown_network(path: Path, network: Network, found: Fit) -> UserError:
    """Weights are of no known network."""
    name, expected, actual = found.misfits[0]
    known = ", ".join(network.name for network in NETWORKS)
    if not found.found:
        return UserError(
            "the weights are of no network that can be imported",
            expected=f"tensors named as those of {known}",
            found=next(iter(read_weights(path))),
            where=path,
            fix="see `hwnas pretrained list`",
        )
    return UserError(
        f"the weights are of no known network: {name} does not fit the nearest, {network.name}",
        expected=expected or "no such tensor",
        found=actual or "no such tensor",
        where=f"{path}: {name}; {len(found.found)} tensors fit",
        fix=f"see `hwnas pretrained list`; known are {known}",
    )


def _another_space(path: Path, name: str, *, expected: object, found: object) -> UserError:
    return UserError(
        f"the weights are of another space: {name} does not fit",
        expected=expected,
        found=found,
        where=f"{path}: {name}",
        fix="use the space and the options that the weights were trained with",
    )
