"""Finds the published network that single weights belong to, by tensor names or order."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

from torch import Tensor

from hwnas.nets.subnet import build_subnet, placed_slots, timm_names
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
"""Name of a tensor, the shape that a network has, the one that was found; None: none."""


@dataclass(frozen=True)
class Candidate:
    """A published network and how weights fit it, whatever the number of classes."""

    model: str
    n_fitting: int
    misfit: Misfit | None


def network_space(model: str, num_classes: int = 1000) -> SearchSpace:
    """The space `timm` of a network that comes with hwnas, with nothing but this network in it."""
    return build_space("timm", {"model": model, **_ONE_CHOICE}, num_classes=num_classes)


def n_params(model: str) -> int:
    """Learned values of a network that comes with hwnas, for ImageNet's classes."""
    return sum(math.prod(shape) for name, shape in _shapes(model) if not name.endswith(_STATISTICS))


def named_as_largest(
    weights: Mapping[str, Tensor], space: SearchSpace, *, is_ordered: bool
) -> dict[str, Tensor]:
    """Weights by the names of the static net of the largest arch, as far as they have such.

    Prefixes that all names have (`module.`) go. Where no name is known, but the tensors have the
    shapes of the static net's in its order, as in files of other code for the same network, they
    get its names, if the tensors are in an order at all. The classifier may be of another number of
    classes. Others stay as they are.
    """
    state = build_subnet(space, space.largest(), seed=None).state_dict()
    found = _without_prefix(weights, state)
    if not is_ordered or any(name in state for name in found):
        return found
    ours = {name: [*value.shape] for name, value in state.items() if value.ndim}
    theirs = [tensor for tensor in found.values() if tensor.ndim]  # BN's counters have no dimension
    shapes = zip(ours.items(), theirs)
    if len(theirs) == len(ours) and all(_fits(n, shape, [*t.shape]) for (n, shape), t in shapes):
        return dict(zip(ours, theirs, strict=True))
    return found


def candidates(weights: Mapping[str, Tensor]) -> list[Candidate]:
    """The networks that come with hwnas and fit best: all that fit wholly, or else the nearest."""
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
    """Name and shape of every tensor of a network, in timm's order, but for BN's counters."""
    space = network_space(model)
    found: list[tuple[str, list[int]]] = []
    for _, place, op in placed_slots(space, space.largest()):
        for layer in layers(op):
            name, bn = timm_names(place, op, layer)
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
    """Whether a tensor has the shape; of the classifier, but for the number of classes."""
    skipped = 1 if name.startswith(f"{CLASSIFIER}.") else 0
    return given is not None and [*given[skipped:]] == [*shape[skipped:]]


def _without_prefix(
    weights: Mapping[str, Tensor], expected: Mapping[str, object]
) -> dict[str, Tensor]:
    """Without the first words of names that all have, as long as no name is an expected one."""
    found = dict(weights)
    while found and not any(name in expected for name in found):
        words = {name.partition(".")[0] if "." in name else "" for name in found}
        if len(words) > 1 or "" in words:
            return dict(weights)
        found = {name.partition(".")[2]: tensor for name, tensor in found.items()}
    return found
