"""Prunes values of choices: a smaller space that keeps the well-scored archs.

This is a variant of the pruning of How Does Supernet Help (2010.08219, v1: remove bad choices with
the supernet's help). A value is dropped if the archs with this value are rarely well-scored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hwnas.analysis.ranks import check_codes, check_pair
from hwnas.core.errors import UserError
from hwnas.core.records import STRICT
from hwnas.interfaces import FloatArray
from hwnas.spaces.choice import Value
from hwnas.spaces.space import Codes, SearchSpace

__all__ = ["DroppedValue", "Pruning", "prune_space"]

WELL_SCORED = 0.1
"""The top fraction of the archs by score, called well-scored: those that a search looks for."""

MAX_LOSS = 0.05
"""Maximum share of the well-scored archs that a pruning may lose."""


@dataclass(frozen=True)
class DroppedValue:
    """One dropped value of one choice, in the order of dropping.

    n_archs: remaining archs with this value.
    well_scored: number of them among the best 10 %.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    choice: str
    value: Value
    n_archs: int
    well_scored: int


@dataclass(frozen=True)
class Pruning:
    """A smaller space: the remaining values of the choices that lose values.

    kept_fraction: share of the scored archs in the smaller space.
    kept_of_well_scored: the same for the best-scored 10 %.
    kept_of_top: the same for the true top 10 %, if the truth is known.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    restrict: dict[str, tuple[Value, ...]]
    dropped: tuple[DroppedValue, ...]
    size_before: int
    size_after: int
    kept_fraction: float
    kept_of_well_scored: float
    kept_of_top: float | None


def prune_space(
    space: SearchSpace,
    codes: Codes,
    scores: FloatArray,
    *,
    pruned_fraction: float,
    truth: FloatArray | None = None,
) -> Pruning:
    """Drops values of choices until `pruned_fraction` of the scored archs are gone.

    Each step drops the value whose archs are most rarely among the best-scored 10 %. It never drops
    the last value of a choice, or more than 5 % of the well-scored archs in total. So the result
    can be smaller than requested. codes: [n, d], drawn at random.

    Raises:
        UserError: `pruned_fraction` is not in (0, 1), or codes and scores do not fit each other.
    """
    if not 0 < pruned_fraction < 1:
        raise UserError(
            "invalid fraction to prune", expected="a number in (0, 1)", found=pruned_fraction
        )
    scores, reference = check_pair(scores, scores if truth is None else truth)
    check_codes(space, codes, len(scores))
    is_good = scores >= np.quantile(scores, 1 - WELL_SCORED)
    active = space.active(codes)
    alive = np.ones(len(codes), dtype=bool)
    allowed = [list(values) for values in space.allowed]
    dropped: list[DroppedValue] = []
    while (alive.mean() > 1 - pruned_fraction) and (
        found := _worst_value(allowed, codes, active, alive, is_good)
    ):
        column, code, picked = found
        if (is_good & ~(alive & ~picked)).sum() > MAX_LOSS * is_good.sum():
            break
        choice = space.choices[column]
        dropped.append(
            DroppedValue(
                choice.name,
                choice.values[code],
                int((alive & picked).sum()),
                int((alive & picked & is_good).sum()),
            )
        )
        allowed[column].remove(code)
        alive &= ~picked
    restrict = {
        choice.name: tuple(choice.values[code] for code in kept)
        for choice, kept, before in zip(space.choices, allowed, space.allowed, strict=True)
        if len(kept) < len(before)
    }
    top = reference >= np.quantile(reference, 0.9)
    return Pruning(
        restrict=restrict,
        dropped=tuple(dropped),
        size_before=space.size(),
        size_after=space.restrict(restrict).size(),
        kept_fraction=float(alive.mean()),
        kept_of_well_scored=float(alive[is_good].mean()),
        kept_of_top=None if truth is None else float(alive[top].mean()),
    )


def _worst_value(
    allowed: list[list[int]],
    codes: Codes,
    active: NDArray[np.bool_],
    alive: NDArray[np.bool_],
    is_good: NDArray[np.bool_],
) -> tuple[int, int, NDArray[np.bool_]] | None:
    """Column, code and archs of the value that is most rarely well-scored; None: keep all."""
    worst: tuple[float, int, int, NDArray[np.bool_]] | None = None
    for column, values in enumerate(allowed):
        if len(values) < 2:
            continue
        for code in values:
            picked = active[:, column] & (codes[:, column] == code)
            n = int((alive & picked).sum())
            if n == 0 or n == alive.sum():
                continue
            share = float((alive & picked & is_good).sum() / n)
            if worst is None or share < worst[0]:
                worst = (share, column, code, picked)
    return None if worst is None else worst[1:]
