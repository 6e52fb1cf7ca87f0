"""Finds the published network that weights belong to, by tensor names or order."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

from torch import Tensor

from hwnas.nets.subnet import build_subnet, names_in, placed_slots
from hwnas.spaces.load import build_space
from hwnas.spaces.ops import layers
from hwnas.spaces.published import published_networks
from hwnas.spaces.space import SearchSpace

__all__ = [
    "CLASSIFIER",
    "Candidate",
    "Misfit",
    "candidates",
    "n_params",
    "named_as_largest",
    "network_space",
]

CLASSIFIER = "classifier"
_STATISTICS = ("running_mean", "running_var")
_ONE_CHOICE = {"depths": (), "expands": (), "kernels": (), "width_ratios": ()}

Misfit: TypeAlias = tuple[str, list[int] | None, list[int] | None]
"""Name of a tensor, the expected shape, and the shape found (None: missing)."""


@dataclass(frozen=True)
class Candidate:
    """A published network and how well weights fit it, ignoring the number of classes.

    n_fitting: number of tensors that fit.
    misfit: the first one that does not; None if all fit.
    """

    model: str
    n_fitting: int
    misfit: Misfit | None


def network_space(model: str, num_classes: int = 1000) -> SearchSpace:
    """A space `timm` whose only arch is the network `model`, which ships with hwnas."""
    return build_space("timm", {"model": model, **_ONE_CHOICE}, num_classes=num_classes)


def n_params(model: str) -> int:
    """Number of parameters of a network that ships with hwnas, for the classes of ImageNet."""
    return sum(math.prod(shape) for name, shape in _shapes(model) if not name.endswith(_STATISTICS))


def named_as_largest(
    weights: Mapping[str, Tensor], space: SearchSpace, *, is_ordered: bool
) -> dict[str, Tensor]:
    """Renames weights to the names in the static network of the largest arch, where possible.

    A common prefix (`module.`) is removed. Unknown names are replaced by position if the tensors
    are ordered, have the same sequence of shapes as the static network, and known names are at
    their positions. This covers files of other code for the same network, and ResNets of timm. The
    number of classes may differ. Other tensors keep their names.
    """
    state = build_subnet(space, space.largest(), seed=None).state_dict()
    found = _without_prefix(weights, state)
    if not is_ordered or all(name in state for name in found):
        return found
    ours = {name: [*value.shape] for name, value in state.items() if value.ndim}
    theirs = {name: tensor for name, tensor in found.items() if tensor.ndim}  # no BN counters
    if len(theirs) == len(ours) and all(
        _fits(own, ours[own], [*theirs[name].shape]) and (name == own or name not in state)
        for own, name in zip(ours, theirs, strict=True)
    ):
        return dict(zip(ours, theirs.values(), strict=True))
    return found


def candidates(weights: Mapping[str, Tensor]) -> list[Candidate]:
    """The shipped networks that all tensors fit; if there are none, the one that most fit."""
    found = [_candidate(model, weights) for model in published_networks()]
    most = max(one.n_fitting for one in found)
    whole = [one for one in found if one.misfit is None]
    return whole or [one for one in found if one.n_fitting == most][:1]


def _candidate(model: str, weights: Mapping[str, Tensor]) -> Candidate:
    """How weights fit a network: by name if one is known, else by their order."""
    whole = _shapes(model)
    named = _without_prefix(weights, dict(whole))
    given = {name: [*tensor.shape] for name, tensor in named.items() if tensor.ndim}
    expected = [(name, shape) for name, shape in whole if not name.endswith(_STATISTICS)]
    if any(name in given for name, _ in expected):
        given = {name: shape for name, shape in given.items() if not name.endswith(_STATISTICS)}
        pairs = [(name, shape, given.pop(name, None)) for name, shape in expected]
    else:
        expected = [*whole] if len(given) == len(whole) else expected
        rest = iter(given.values())
        pairs = [(name, shape, next(rest, None)) for name, shape in expected]
        given = dict(list(given.items())[len(expected) :])
    misfits: list[Misfit] = [
        (name, shape, found) for name, shape, found in pairs if not _fits(name, shape, found)
    ]
    misfits += [(name, None, shape) for name, shape in given.items()]
    n_fitting = sum(_fits(name, shape, found) for name, shape, found in pairs)
    return Candidate(model, n_fitting, misfits[0] if misfits else None)


@lru_cache(maxsize=128)
def _shapes(model: str) -> tuple[tuple[str, list[int]], ...]:
    """Name and shape of every tensor of a network, in timm's order, without BN counters."""
    space = network_space(model)
    found: list[tuple[str, list[int]]] = []
    for _, place, op in placed_slots(space, space.largest()):
        for layer in layers(op):
            name, bn = names_in(space)(place, op, layer)
            shape = [layer.out_channels, layer.in_channels // layer.groups]
            shape += [layer.kernel] * 2 if layer.name != "linear" else []
            found.append((f"{name}.weight", shape))
            if layer.has_bias:
                found.append((f"{name}.bias", [layer.out_channels]))
            if bn:
                kinds = ("weight", "bias", *_STATISTICS)
                found += [(f"{bn}.{kind}", [layer.out_channels]) for kind in kinds]
    return tuple(found)


def _fits(name: str, shape: Sequence[int], given: Sequence[int] | None) -> bool:
    """Whether a tensor has the expected shape; a classifier may differ in the number of classes."""
    skipped = 1 if name.startswith(f"{CLASSIFIER}.") else 0
    return given is not None and [*given[skipped:]] == [*shape[skipped:]]


def _without_prefix(
    weights: Mapping[str, Tensor], expected: Mapping[str, object]
) -> dict[str, Tensor]:
    """Removes common first words of all names, as long as no name is an expected one."""
    found = dict(weights)
    while found and not any(name in expected for name in found):
        words = {name.partition(".")[0] if "." in name else "" for name in found}
        if len(words) > 1 or "" in words:
            return dict(weights)
        found = {name.partition(".")[2]: tensor for name, tensor in found.items()}
    return found
