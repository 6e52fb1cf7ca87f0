"""Checks the arguments of a search with a custom score; see `hwnas.search`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import NoneType
from typing import Any, get_args

import numpy as np
from numpy.typing import ArrayLike

from hwnas.api.result import Folder
from hwnas.api.table import as_table
from hwnas.controller.constraints import repeated_limits
from hwnas.controller.sections import MAX_PREDICTIONS
from hwnas.core.config import build_model
from hwnas.core.errors import UserError, first_line
from hwnas.core.metrics import MetricKey
from hwnas.core.rng import stable_seed
from hwnas.interfaces import Constraint, FloatArray, Metric, SearcherContext
from hwnas.latency.estimator import TableEstimator
from hwnas.latency.table import LatencyTable
from hwnas.searchers import REGISTRY as SEARCHERS
from hwnas.spaces.space import Codes, SearchSpace

__all__ = ["check_arguments", "constraints_of", "estimators_of", "scores_of", "searcher_of"]


def check_arguments(score: object, budget: Any, seed: int, folder: Folder | None) -> None:
    """Refuses invalid arguments before any table is read."""
    stable_seed(seed)
    if folder is not None and Path(folder).exists() and not Path(folder).is_dir():
        raise _refused("folder", "a folder, or a path where one can be made", folder)
    if not callable(score):
        raise _refused("score", "a function of codes [n, d] that returns n numbers", score)
    if not isinstance(budget, (int, np.integer)) or not 1 <= budget <= MAX_PREDICTIONS:
        raise _refused("budget", f"an integer from 1 to {MAX_PREDICTIONS:,}", budget)


def _refused(argument: str, expected: str, found: object) -> UserError:
    """The error for an invalid argument of `hwnas.search`."""
    return UserError(
        f"invalid argument {argument}", expected=expected, found=repr(found)[:80], where="search"
    )


def estimators_of(
    space: SearchSpace, tables: Any, skipped: dict[str, str] | None = None
) -> dict[str, TableEstimator]:
    """Maps each device to the estimator of its table; refuses two tables of one device.

    skipped: gets the tables that cannot be read or do not cover the space, with the reason. If
        None, such a table is an error.
    """
    if not isinstance(tables, (list, tuple)):
        raise _refused("tables", "a list of latency tables", tables)
    found: dict[str, TableEstimator] = {}
    for given in tables:
        try:
            table = as_table(given)
            estimator = TableEstimator(table, space)
        except UserError as error:
            if skipped is None:
                raise
            skipped[given.device.name if isinstance(given, LatencyTable) else str(given)] = (
                first_line(error)
            )
            continue
        if table.device.name in found:
            raise UserError(
                f"two latency tables of {table.device.name}",
                expected="one table per device",
                found="several tables of this device",
                where="tables",
                fix="hwnas.table_merge joins tables of one device",
            )
        found[table.device.name] = estimator
    return found


def constraints_of(limits: Any) -> tuple[Constraint, ...]:
    """Converts `limits`, which map metric keys to maximum costs, to constraints."""
    if not isinstance(limits, (Mapping, NoneType)):
        raise _refused("limits", "a mapping from metric key to largest cost", limits)
    found = tuple(_constraint(key, bound) for key, bound in (limits or {}).items())
    for key, n in repeated_limits(found).items():
        raise UserError(
            f"{n} limits on {key}",
            expected="at most one limit per metric and device, with or without a probability",
            found=", ".join(map(str, limits or ())),
            where="limits",
        )
    return found


def _constraint(text: Any, bound: Any) -> Constraint:
    where = f"limits[{text!r}]"
    try:
        key = MetricKey.parse(str(text))
        metric: Metric = next(m for m in get_args(Metric) if m == key.base.metric)
    except (UserError, StopIteration):
        raise UserError(
            "no such limit",
            expected="macs, params, weight_bytes, peak_memory_bytes, latency_ms@DEVICE,"
            " latency_p95_ms@DEVICE or energy_mj@DEVICE; a latency with a probability between 0.5"
            " and 1, e.g. latency_ms~0.9@DEVICE",
            found=text,
            where=where,
        ) from None
    if not isinstance(bound, (int, float, np.number)) or not 0 < bound < np.inf:
        raise UserError(
            "a limit must be a finite number greater than 0",
            expected="a number > 0",
            found=repr(bound),
            where=where,
        )
    device = key.device or "local"
    return Constraint(metric, device=device, max=float(bound), probability=key.probability)


def searcher_of(chosen: Any, space: SearchSpace, seed: int) -> Any:
    """Builds the searcher that `chosen` names or describes by settings."""
    if not isinstance(chosen, (str, Mapping)):
        raise _refused("searcher", "a name, or a mapping with `name`", chosen)
    data = {"name": chosen} if isinstance(chosen, str) else dict(chosen)
    module = SEARCHERS.load(str(data.get("name")))
    config = build_model(module.Config, data, where="searcher")
    return module.build(config, SearcherContext(space, seed))


def scores_of(score: Callable[[Codes], ArrayLike], codes: Codes) -> tuple[FloatArray, FloatArray]:
    """Calls `score`; returns the scores [n], and standard deviations of 0 as for predictions."""
    given = score(codes.copy())
    try:
        found = np.asarray(given).astype(np.float64, casting="same_kind")
        n_bad = int((~np.isfinite(found)).sum())
        kind = f"an array of shape {list(found.shape)}, {n_bad} of its numbers not finite"
    except (TypeError, ValueError, RuntimeError) as error:  # errors of numpy or torch
        found, kind = np.empty(()), f"{type(given).__name__}: {error}"
    if found.shape != (len(codes),) or not np.isfinite(found).all():
        raise UserError(
            "the score function must return one finite number per arch",
            expected=f"an array of shape [{len(codes)}] of finite numbers",
            found=kind,
            where="score(codes)",
        )
    return found, np.zeros(len(codes))
