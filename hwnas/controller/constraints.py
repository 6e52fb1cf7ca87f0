"""Constraints as absolute limits on costs, and the error for constraints that no arch meets."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hwnas.core.command import command_line
from hwnas.core.errors import UserError
from hwnas.core.metrics import MetricKey
from hwnas.core.rng import rng
from hwnas.interfaces import Constraint, CostMetric, FloatArray
from hwnas.spaces.space import Codes, SearchSpace

__all__ = [
    "CostColumn",
    "Costs",
    "Limit",
    "Unreachable",
    "metric_key",
    "n_needed",
    "price",
    "ratios",
    "reach",
    "repeated_limits",
    "resolve",
]

N_RANDOM = 1024  # uniform archs that are priced to find starting points
N_STARTS = 3  # descents from random archs, after the descent from the smallest one

Costs = Mapping[str, FloatArray]
"""Maps each metric key to the costs [n] of n archs."""


@dataclass(frozen=True)
class CostColumn:
    """A cost that is computed together with others: one column of `together(codes)` [n, k]."""

    together: Callable[[Codes], FloatArray]
    column: int

    def __call__(self, codes: Codes) -> FloatArray:
        """Costs [n]; `price` computes all columns in one call."""
        column: FloatArray = self.together(codes)[:, self.column]
        return column


class Unreachable(UserError):
    """Bounded descent found no arch of the space that meets the constraints."""


@dataclass(frozen=True)
class Limit:
    """A constraint with its limit in the unit of the metric; `key` names metric and device.

    share: of the devices with a latency limit, the share on which the limits must be met.
    """

    constraint: Constraint
    key: MetricKey
    max: float
    share: float = 1.0

    def __str__(self) -> str:
        fraction = self.constraint.max_fraction_of_largest
        of = "" if fraction is None else f" ({fraction:g} of the largest arch)"
        return f"{self.key} <= {self.max:.6g}{of}"


def metric_key(constraint: Constraint) -> MetricKey:
    """The metric of a constraint; the device only applies to latency and energy."""
    return MetricKey.of(constraint.metric, constraint.device, constraint.probability)


def repeated_limits(constraints: Iterable[Constraint]) -> dict[MetricKey, int]:
    """Metrics that have several limits, and how many; a probability makes no other metric."""
    counts = Counter(metric_key(constraint).base for constraint in constraints)
    return {key: n for key, n in counts.items() if n > 1}


def price(metrics: Mapping[str, CostMetric], codes: Codes) -> dict[str, FloatArray]:
    """Costs of n archs for every metric.

    Raises:
        UserError: a metric returned a value that is not a positive number.
    """
    joint = {one.together for one in metrics.values() if isinstance(one, CostColumn)}
    shared = {together: together(codes) for together in joint}
    costs: dict[str, FloatArray] = {
        key: shared[metric.together][:, metric.column]
        if isinstance(metric, CostColumn)
        else np.asarray(metric(codes), dtype=np.float64)
        for key, metric in metrics.items()
    }
    for key, cost in costs.items():
        is_valid = np.isfinite(cost) & (cost > 0)
        if not is_valid.all():
            raise UserError(
                f"{key} of an arch is not a positive number",
                expected="a finite number above 0 for every arch",
                found=f"{(~is_valid).sum()} of {len(cost)} archs with other values, such as"
                f" {cost[~is_valid][0]:g}",
            )
    return costs


def resolve(
    constraints: Sequence[Constraint],
    metrics: Mapping[str, CostMetric],
    space: SearchSpace,
    *,
    share: float = 1.0,
) -> tuple[Limit, ...]:
    """Converts constraints to absolute limits.

    Fractions are relative to the estimate of `space.largest()`.

    Raises:
        UserError: a constraint on a metric without a price (a device without a table).
    """
    largest = space.codes([space.largest()])
    limits = []
    for constraint in constraints:
        key = metric_key(constraint)
        if key not in metrics:
            raise UserError(
                f"a constraint is on {key}, but there is no estimate of this metric",
                expected=f"one of {', '.join(sorted(metrics)) or '(no metric)'}",
                fix=_way_to_price(key, space),
            )
        bound = constraint.max
        if bound is None:
            assert constraint.max_fraction_of_largest is not None  # checked by Constraint
            bound = constraint.max_fraction_of_largest * float(metrics[key.base](largest)[0])
        limits.append(Limit(constraint, key, bound, share))
    return tuple(limits)


def _way_to_price(key: MetricKey, space: SearchSpace) -> str | None:
    if key.is_latency:
        return command_line("profile", key.device or "", "--space", space.name)
    if key.device:
        return "use a latency table with energies; the published one is hw_nasbench201"
    return None


def ratios(limits: Sequence[Limit], costs: Costs, n: int) -> FloatArray:
    """cost / limit [n, k] of n archs; an arch is feasible if all are <= 1.

    If latency limits must be met only on a share of the devices, the ratios of the other devices
    are reduced to 1 if they are larger. The other devices are those with the largest ratios.
    """
    if not limits:
        return np.empty((n, 0))
    found = np.stack([costs[limit.key] / limit.max for limit in limits], axis=1)
    devices = [limit.key.device or "" for limit in limits]
    names = sorted({name for name in devices if name})
    needed = n_needed(limits[0].share, len(names))
    if needed < len(names):
        own = np.array(names)[:, None] == np.array(devices)  # [devices, k]
        worst = np.where(own[None], found[:, None], 0.0).max(axis=2)  # [n, devices]
        given_up = np.argsort(np.argsort(worst, axis=1, kind="stable"), axis=1) >= needed
        found = np.where(given_up @ own, np.minimum(found, 1.0), found)
    return found


def n_needed(share: float, n_devices: int) -> int:
    """Number of devices on which an arch must meet its latency limit: `share` of `n_devices`."""
    return math.ceil(share * n_devices - 1e-9)


def reach(
    space: SearchSpace, metrics: Mapping[str, CostMetric], limits: Sequence[Limit], *, seed: int
) -> Codes:
    """A feasible arch [1, d]: the smallest arch if it is feasible, else found by descent.

    The violation is minimised by coordinate descent from a few starts. This takes well under a
    second.

    Raises:
        Unreachable: none was found; names the nearest arch, its costs, and the limits to relax.
    """
    used: dict[str, CostMetric] = {limit.key: metrics[limit.key] for limit in limits}

    def violation(codes: Codes) -> FloatArray:
        over = ratios(limits, price(used, codes), len(codes))
        return np.asarray(over.max(axis=1) + 1e-6 * over.sum(axis=1))  # the sum breaks ties

    def is_feasible(codes: Codes) -> bool:
        return bool((ratios(limits, price(used, codes), len(codes)) <= 1).all())

    nearest = _lowest(space, violation, is_feasible, seed)
    if is_feasible(nearest):
        return nearest
    costs = price(used, nearest)
    give = []
    for limit in limits:
        alone = _lowest(space, used[limit.key], lambda codes: False, seed)
        give.append(_what_gives(limit, float(costs[limit.key][0]), used[limit.key], space, alone))
    view = space.view(space.arch(nearest[0]))
    raise Unreachable(
        "no arch of the space meets the constraints",
        expected="; ".join(map(str, limits)),
        found="the nearest reachable arch has "
        + ", ".join(f"{key} {cost[0]:.6g}" for key, cost in costs.items())
        + f": {', '.join(f'{name}={value}' for name, value in view.items())}",
        where=space.id,
        fix="; ".join(give),
    )


def _what_gives(
    limit: Limit, nearest: float, metric: CostMetric, space: SearchSpace, alone: Codes
) -> str:
    lowest, largest = float(metric(alone)[0]), float(metric(space.codes([space.largest()]))[0])
    if nearest > limit.max:
        advice = f"allow {limit.key} up to {nearest:.6g} ({nearest / largest:.3f} of the largest)"
    else:
        advice = f"keep the limit of {limit.key}"
    possible = f"{advice} (without the other limits, {lowest:.6g} is possible)"
    return possible if lowest < nearest else advice


def _lowest(
    space: SearchSpace,
    objective: Callable[[Codes], FloatArray],
    stop: Callable[[Codes], bool],
    seed: int,
) -> Codes:
    """Lowest arch [1, d] found by coordinate descent from the smallest arch and random archs."""
    smallest = space.codes([space.smallest()])
    if stop(smallest):
        return smallest
    random = space.sample(N_RANDOM, rng=rng(seed, "search/reach"))
    starts = np.concatenate([smallest, random[np.argsort(objective(random))[:N_STARTS]]])
    found = []
    for start in starts:
        found.append(_descend(space, objective, start[None]))
        if stop(found[-1]):
            return found[-1]
    ends = np.concatenate(found)
    return ends[[int(objective(ends).argmin())]]


def _descend(space: SearchSpace, objective: Callable[[Codes], FloatArray], codes: Codes) -> Codes:
    """Moves to the best neighbour that differs in one choice until no neighbour is better."""
    columns = np.repeat(np.arange(len(space.allowed)), [len(codes) for codes in space.allowed])
    values = np.concatenate(space.allowed)
    fallback = np.array([allowed[0] for allowed in space.allowed])
    best = float(objective(codes)[0])
    while True:
        # Choices that a move activates start at their smallest allowed code.
        neighbours = np.repeat(np.where(space.active(codes), codes, fallback), len(columns), axis=0)
        neighbours[np.arange(len(columns)), columns] = values
        neighbours = space.normalise(neighbours)
        scores = objective(neighbours)
        if not scores.min() < best:
            return codes
        best, codes = float(scores.min()), neighbours[[int(scores.argmin())]]
