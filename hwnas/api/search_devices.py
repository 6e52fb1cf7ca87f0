"""`hwnas.search` of a space for many devices: a winner for the device of each table."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

from numpy.typing import ArrayLike

from hwnas.api.result import Folder, ProgressFor, no_progress
from hwnas.api.search_arguments import (
    check_arguments,
    constraints_of,
    estimators_of,
    scores_of,
)
from hwnas.api.search_result import FoundPerDevice, point_of
from hwnas.api.table import Table
from hwnas.controller.constraints import Limit, metric_key, resolve
from hwnas.controller.per_device import search_per_device
from hwnas.core.errors import UserError
from hwnas.pipeline.costs import cost_metrics, with_chances
from hwnas.spaces.space import Codes, SearchSpace

__all__ = ["search_devices"]

log = logging.getLogger(__name__)


def search_devices(
    space: SearchSpace,
    *,
    score: Callable[[Codes], ArrayLike],
    limits: Mapping[str, float] | None = None,
    tables: Sequence[Table] = (),
    budget: int = 12_800,
    seed: int = 0,
    folder: Folder | None = None,
    progress: ProgressFor = no_progress,
) -> FoundPerDevice:
    """A winner for the device of each table; arguments are those of `search`.

    Raises:
        UserError: no table can be used, a device has no limit while others have one, or as in
            `search`.
    """
    check_arguments(score, budget, seed, folder)
    given, skipped = constraints_of(limits), dict[str, str]()
    estimators = estimators_of(space, tables, skipped)
    if not estimators:
        raise UserError(
            "a search with `per_device` needs latency tables",
            expected="at least one table that covers the space",
            found="; ".join(f"{name}: {reason}" for name, reason in skipped.items()) or "none",
            where="tables",
            fix="give `tables`, or search without `per_device`",
        )
    for device in {metric_key(one).device or "" for one in given} - {"", *estimators}:
        skipped[device] = "it has limits, but no latency table"
    for name, reason in skipped.items():
        log.warning("%s is skipped: %s", name, reason)
    known = [one for one in given if metric_key(one).device in (None, *estimators)]
    metrics = with_chances(cost_metrics(space, estimators), known, estimators)
    every = resolve(known, metrics, space, share=1 / len(estimators))
    with TemporaryDirectory() if folder is None else nullcontext(str(folder)) as place:
        winners, n_scored = search_per_device(
            space,
            predict=lambda codes: scores_of(score, codes),
            metrics=metrics,
            limits=(own := {device: _on(device, every) for device in estimators}),
            n_predictions=int(budget),
            seed=seed,
            folder=Path(place),
            progress=progress("search"),
        )
    return FoundPerDevice(
        winners={device: point_of(space, winner) for device, winner in winners.items()},
        limits={device: {one.key: one.max for one in on} for device, on in own.items()},
        skipped=skipped,
        n_scored=n_scored,
    )


def _on(device: str, limits: Sequence[Limit]) -> tuple[Limit, ...]:
    """The limits that hold on a device: those on it, and those without a device.

    Raises:
        UserError: none is on it, but others are on other devices.
    """
    of = {limit.key.device for limit in limits} - {None}
    if of and device not in of:
        raise UserError(
            f"no limit on device {device!r}",
            expected="a limit on every device, or on none",
            found=f"limits on {', '.join(sorted(map(str, of)))}",
            where="limits",
            fix=f"add latency_ms@{device}, or remove its table",
        )
    return tuple(limit for limit in limits if limit.key.device in (None, device))
