"""Lookup tables of a run's predictions: computed once, queried with any limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import cast

from hwnas.core.errors import UserError, did_you_mean
from hwnas.core.metrics import MetricKey
from hwnas.core.progress import Progress
from hwnas.interfaces import Constraint, Metric
from hwnas.pipeline.costs import prices
from hwnas.pipeline.predictor import load_predictor
from hwnas.pipeline.project import Project
from hwnas.predictors.lookup import ScoreTable, Top, load_table, save_table, table_of_space
from hwnas.spaces.arch import Arch
from hwnas.spaces.choice import Value
from hwnas.spaces.space import SearchSpace

__all__ = ["export", "look_up"]


def export(
    project: Project,
    path: Path,
    *,
    restrict: Mapping[str, Sequence[Value]] | None = None,
    base: Arch | None = None,
    free: Sequence[str] = (),
    progress: Progress,
) -> ScoreTable:
    """Writes the predictions of the run's predictor for its space, or for a part of it.

    restrict: values to keep, by choice.
    base, free: only archs that equal `base`, except in choices whose name matches a pattern in
        `free`: a segment of the space (2004.08423).

    Raises:
        UserError: the part has too many archs, or a restriction is invalid.
    """
    space = project.space.restrict(restrict or {})
    if (base is None) != (not free):
        raise UserError(
            "one of the options --base and --free is missing",
            expected="both, --base ARCH and --free PATTERN, or neither",
            found="--base" if base is not None else "--free",
        )
    if base is not None:
        space = _segment(space, base, free)
    source = f"{project.config.predictor.name} of {project.config.name}"
    predict = load_predictor(project).predict
    table = table_of_space(predict, space, source=source, progress=progress)
    save_table(path, table)
    return table


def look_up(project: Project, path: Path, limits: Mapping[str, float], *, k: int) -> Top:
    """The k best archs of a score table that meet `limits` (by metric key).

    Latencies are estimated with the latency tables of the run.

    Raises:
        UserError: no such table, an invalid or unknown limit, or no arch meets all limits.
    """
    keys = [MetricKey.parse(key) for key in limits]
    chances = [
        Constraint(
            cast(Metric, key.base.metric), key.device, max=limits[key], probability=key.probability
        )
        for key in keys
        if key.probability is not None and key.device in project.devices
    ]
    metrics = prices(project, limits=chances)
    return load_table(path, project.space).best(metrics, limits, k=k)


def _segment(space: SearchSpace, base: Arch, free: Sequence[str]) -> SearchSpace:
    """Archs that differ from `base` only in matching choices.

    Choices that are inactive in `base` have their first value.

    Raises:
        UserError: a pattern matches nothing.
    """
    names = [choice.name for choice in space.choices]
    for pattern in free:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise UserError(
                f"no choice matches {pattern!r}",
                expected=f"one of the choices {', '.join(names)}, or a pattern of them with *",
                where="--free",
                fix=did_you_mean(pattern, names, otherwise="use one of these names"),
            )
    allowed = [
        codes if any(fnmatchcase(name, pattern) for pattern in free) else (own,)
        for name, codes, own in zip(names, space.allowed, base.codes, strict=True)
    ]
    return replace(space, allowed=tuple(allowed))
