"""Imports published weights: identifies the network by its tensors, and finds the licence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from hwnas.core.config import build_model
from hwnas.core.errors import UserError
from hwnas.core.records import sparse
from hwnas.core.store import file_hash
from hwnas.nets import hub
from hwnas.nets.folded import published_of_folded
from hwnas.nets.origin import Origin
from hwnas.nets.pretrained import copy_weights, network_with, start_from, with_head_of
from hwnas.nets.pretrained_errors import unknown_network
from hwnas.nets.pretrained_layout import (
    has_published_names,
    nearest,
    origin_of_published,
    space_of,
)
from hwnas.nets.pretrained_networks import CLASSIFIER, candidates
from hwnas.nets.pretrained_source import Source, Weights, source_of
from hwnas.nets.supernet import Supernet
from hwnas.spaces import timm
from hwnas.spaces.load import build_space, space_data
from hwnas.spaces.published import published_networks
from hwnas.spaces.space import SearchSpace

__all__ = ["Found", "import_any", "import_weights"]

_UNKNOWN = "not stated"


@dataclass(frozen=True)
class Found:
    """Result of an import; its fields are explained in `hwnas.api.pretrained.Imported`."""

    supernet: Supernet
    settings: Mapping[str, Any]
    network: nn.Module | None = None


def import_any(
    weights: Weights,
    *,
    num_classes: int | None = None,
    licence: str | None = None,
    space: SearchSpace | str | None = None,
    images: Iterable[Tensor] | None = None,
) -> Found:
    """See `hwnas.pretrained_import`."""
    if isinstance(weights, str) and weights.startswith(hub.PREFIX):
        name = weights.removeprefix(hub.PREFIX)
        hub.fetched_file(name)
        space = space or name.partition(".")[0]
    source = source_of(weights)
    if has_published_names(source.tensors):
        supernet = supernet_of(source, num_classes=num_classes, licence=licence)
        network, _ = nearest(source.tensors)
        return Found(supernet, {"name": network.space, **network.settings})
    settings = _settings(source, space)
    classes = num_classes or _classes(source)
    built = space if isinstance(space, SearchSpace) else None
    built = built or build_space(settings["name"], settings, num_classes=classes)
    source = replace(source, origin=_origin(source, settings, licence))
    model = network_with(source, built, num_classes=num_classes, images=images)
    supernet = Supernet(built, seed=0)
    start_from(supernet, replace(source, tensors=model.state_dict(), folded=None))
    return Found(supernet, settings, model)


def import_weights(
    path: Path, *, num_classes: int | None = None, licence: str | None = None
) -> Supernet:
    """The supernet of a published file of weights. Its `origin` records their source.

    Args:
        path: see `hwnas.pretrained_list()`.
        num_classes: if it differs from the file, the classifier starts from random weights.
        licence: licence of the weights, if it differs from the published one.

    Raises:
        UserError: the file cannot be read, or belongs to no known network; names the first tensor
            that does not fit the most similar network.
    """
    return supernet_of(source_of(path), num_classes=num_classes, licence=licence)


def supernet_of(source: Source, *, num_classes: int | None, licence: str | None) -> Supernet:
    """Like `import_weights`, for weights that are already loaded."""
    network, found = nearest(source.tensors)
    if found.misfits:
        raise unknown_network(source, network, found)
    classes = found.found["classifier.linear.weight"].shape[0]
    has_transforms = any(".transforms." in name for name in found.found)
    space = space_of(network, num_classes or classes)
    supernet = Supernet(space, seed=0, kernel_transform=has_transforms)
    state = supernet.state_dict()
    given = dict(found.found)
    copy_weights(
        given if num_classes is None else with_head_of(state, given, source), state, source
    )
    supernet.origin = origin_of_published(source, network, licence)
    return supernet


def _settings(source: Source, space: SearchSpace | str | None) -> dict[str, Any]:
    """The section `space:` for the weights of one network.

    Raises:
        UserError: no known network, or more than one, has these tensors.
    """
    if isinstance(space, SearchSpace):
        return {}
    if space is not None:
        is_model = space in published_networks()
        return {"name": "timm", "model": space} if is_model else space_data(space)
    if source.folded is not None:
        return _settings_of_folded(source)
    found = candidates(source.tensors) if source.tensors else []
    if not found or found[0].misfit is not None:
        raise unknown_network(source, *nearest(source.tensors))
    if len(found) > 1:
        models = ", ".join(one.model for one in found)
        raise UserError(
            "several networks have these tensors but compute different outputs",
            expected="tensors that only one network has",
            found=f"tensors that all of these have: {models}",
            where=source.where,
            fix=f"name the network that the weights were trained for: --space {found[-1].model}, or"
            " another of these",
        )
    return {"name": "timm", "model": found[0].model}


def _settings_of_folded(source: Source) -> dict[str, Any]:
    """The name of a network if a known one has this shape, else its full definition."""
    assert source.folded is not None
    network = published_of_folded(source.folded)
    for model in published_networks():
        settings = {"name": "timm", "model": model, "pad_mode": network.padding}
        known = timm.network_of(build_model(timm.Config, settings, where="space"))
        if (known.stem, known.stages, known.head) == (network.stem, network.stages, network.head):
            return settings
    return {"name": "timm", "network": sparse(network)}


def _classes(source: Source) -> int:
    if source.folded is not None:
        return len(source.folded.layers[-1].bias)
    *_, last = (tensor for tensor in source.tensors.values() if tensor.ndim)
    named = [t for name, t in source.tensors.items() if name.endswith(f"{CLASSIFIER}.bias")]
    return len(named[0] if named else last)


def _origin(source: Source, settings: Mapping[str, Any], licence: str | None) -> Origin | None:
    """Origin of the weights of a network; None if unknown, as for tensors in memory."""
    if source.origin is not None:
        return replace(source.origin, licence=licence or source.origin.licence)
    if source.file is None and licence is None:
        return None
    name = str(settings.get("model") or settings.get("name") or "network")
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    if source.folded is not None:
        name, mean, std = source.folded.name, source.folded.mean, source.folded.std
    elif settings.get("name") == "timm":
        trained = timm.network_of(build_model(timm.Config, {**settings}, where="space")).weights
        mean, std = trained.mean, trained.std
    file = source.file
    return Origin(
        network=name,
        licence=licence or _UNKNOWN,
        home=_UNKNOWN if file is None else file.name,
        file="" if file is None else file.name,
        sha256="" if file is None else file_hash(file),
        mean=mean,
        std=std,
    )
