"""Errors for starting weights that do not fit the space.

They name the first tensor that does not fit, and the published network whose tensors are the most
similar.
"""

from __future__ import annotations

from collections.abc import Sequence

from hwnas.core.command import command_line
from hwnas.core.errors import UserError
from hwnas.nets.pretrained_layout import Fit, nearest
from hwnas.nets.pretrained_list import NETWORKS, Network
from hwnas.nets.pretrained_networks import CLASSIFIER, candidates
from hwnas.nets.pretrained_source import Source
from hwnas.spaces.space import SearchSpace

__all__ = ["another_space", "other_network", "shape_in_words", "unknown_network"]


def shape_in_words(shape: Sequence[int] | None) -> str:
    """`a tensor of shape [8, 3]`; None: `no such tensor`."""
    return "no such tensor" if shape is None else f"a tensor of shape {list(shape)}"


def other_network(source: Source, found: Fit, space: SearchSpace) -> UserError:
    """The error for published weights that do not fit a space."""
    (name, expected, actual), (network, best) = found.misfits[0], nearest(source.tensors)
    if found.only_classes_differ:
        return _other_classes(source, name, space.macro.num_classes, (actual or [0])[0])
    settings = "".join(f", {key}: {value}" for key, value in network.settings.items())
    return UserError(
        f"the weights belong to another network: {name} does not fit",
        expected=shape_in_words(expected),
        found=shape_in_words(actual),
        where=f"{source.where}: {name}; the space is {space.id}",
        fix=f"space: {{name: {network.space}{settings}}}, because the weights"
        f" {'belong to' if not best.misfits else 'are most similar to'} its published network"
        f" {network.name}",
    )


def _other_classes(source: Source, name: str, classes: int, found: int) -> UserError:
    return UserError(
        "the head of the weights has a different number of classes than the data",
        expected=f"{classes} classes",
        found=f"{found} classes",
        where=f"{source.where}: {name}",
        fix=command_line(
            *("pretrained", "import", source.where),
            *("--num-classes", str(classes), "--out", "W.safetensors"),
        )
        + " gives them a new head, which a run then trains",
    )


def unknown_network(source: Source, network: Network, found: Fit) -> UserError:
    """The error for weights of an unknown network.

    network: the most similar published supernet.
    found: how the weights fit it.
    """
    single = candidates(source.tensors)[0]
    known = ", ".join(network.name for network in NETWORKS)
    if not found.found and not single.n_fitting:
        return UserError(
            "the weights belong to no network that can be imported",
            expected=f"tensors named as those of {known}, or of a network of timm",
            found=f"tensors with other names, such as {next(iter(source.tensors))}"
            if source.tensors
            else "no tensors",
            where=source.where,
            fix="see `hwnas pretrained list`",
        )
    n_fitting, name, misfit = len(found.found), network.name, found.misfits[0]
    if single.n_fitting > n_fitting and single.misfit is not None:
        n_fitting, name, misfit = single.n_fitting, f"timm's {single.model}", single.misfit
    tensor, expected, actual = misfit
    return UserError(
        f"the weights belong to no known network: {tensor} does not fit the most similar, {name}",
        expected=shape_in_words(expected),
        found=shape_in_words(actual),
        where=f"{source.where}: {tensor}; {n_fitting} tensors fit",
        fix=f"use weights of {known} or of a network of timm, see `hwnas pretrained list`; for"
        " further networks of timm, see `hwnas space from-timm`",
    )


def another_space(source: Source, name: str, *, expected: str, found: str) -> UserError:
    """The error for weights that do not fit a space, because the tensor `name` does not."""
    if name.startswith(f"{CLASSIFIER}."):
        fix = (
            "set train.steps to at least 1 (in Python: give num_classes) to start with a new"
            " classifier"
        )
    else:
        fix = _nearest(source) or "use the space and options that the weights were trained with"
    return UserError(
        f"the weights belong to another space: {name} does not fit",
        expected=expected,
        found=found,
        where=f"{source.where}: {name}",
        fix=fix,
    )


def _nearest(source: Source) -> str | None:
    """The published network that most of the weights fit, if any."""
    found = candidates(source.tensors)
    if found[0].misfit is None:
        names = " or ".join(f"{{name: timm, model: {one.model}}}" for one in found[:4])
        return f"use the space of these weights: {names}"
    if 2 * found[0].n_fitting >= len(source.tensors) > 0:
        return f"the most similar published network is timm's {found[0].model}"
    return None
