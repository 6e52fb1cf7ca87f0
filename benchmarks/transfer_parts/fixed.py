"""Fixed tasks: sources timed on some networks only, targets on 10 or 20; mean Spearman."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hwnas.core.rng import rng
from hwnas.core.stats import spearman
from hwnas.interfaces import FloatArray
from transfer_parts.estimating import Columns, best_source
from transfer_parts.tasks import Task

__all__ = ["run_task", "run_tasks"]

VARIANTS = ("smoothed", "raw", "best_source")


def run_tasks(
    tasks: Sequence[Task], data: Mapping[str, Columns], n_timed: Sequence[int], seeds: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of the tasks whose columns are there, and the other tasks with what they lack."""
    rows, missing = [], []
    for task in tasks:
        lost = (
            task.missing(data[task.space].data.columns) if task.space in data else ("the data set",)
        )
        if lost:
            missing.append({"task": task.name, "space": task.space, "missing": list(lost)})
            continue
        rows.append(run_task(task, data[task.space], n_timed, seeds))
    return rows, missing


def run_task(task: Task, columns: Columns, n_timed: Sequence[int], seeds: int) -> dict[str, Any]:
    """Mean Spearman over targets and seeds, per number of timings and kind of sources.

    `smoothed`: the additive model of every source. `raw`: timings where there are some.
    `best_source`: the one source that ranks the timed networks most like the target. Scores are
    over all networks. `above_raw_10`: smoothed minus raw, paired by seed, with the standard error
    over seeds (`se_above_raw_10`); likewise `above_best_source_10`. `per_target`:
    of the smoothed sources, with the most timings.
    """
    total = len(columns.data.latency_ms)
    scores = {(n, v): np.empty((seeds, len(task.targets))) for n in n_timed for v in VARIANTS}
    for seed in range(seeds):
        n_source = min(task.n_source or total, total)
        known = rng(seed, "transfer/sources", task.name).choice(total, n_source, replace=False)
        sources = {
            smooth: columns.sources(task.sources, known, smooth=smooth) for smooth in (True, False)
        }
        priors = {smooth: columns.prior(task.sources, ms) for smooth, ms in sources.items()}
        for t, target in enumerate(task.targets):
            truth = columns.data.column(target)
            for n in n_timed:
                for smooth, variant in ((True, "smoothed"), (False, "raw")):
                    found = columns.estimate(priors[smooth], target, n, seed)
                    scores[n, variant][seed, t] = spearman(found.forecast.latency_ms, truth)
                nearest = best_source(sources[False], found.timed, truth[found.timed])
                scores[n, "best_source"][seed, t] = spearman(nearest, truth)
    most = max(n_timed)
    return {
        "task": task.name,
        "space": task.space,
        "n_source": n_source,
        **{f"{variant}_{n}": float(scores[n, variant].mean()) for n, variant in scores},
        **_gaps(scores, n_timed),
        "per_target": dict(
            zip(task.targets, scores[most, "smoothed"].mean(axis=0).tolist(), strict=True)
        ),
    }


def _gaps(scores: Mapping[tuple[int, str], FloatArray], n_timed: Sequence[int]) -> dict[str, float]:
    gaps = {}
    for n in n_timed:
        for other in VARIANTS[1:]:
            by_seed = (scores[n, "smoothed"] - scores[n, other]).mean(axis=1)
            gaps[f"above_{other}_{n}"] = float(by_seed.mean())
            if len(by_seed) > 1:
                error = by_seed.std(ddof=1) / np.sqrt(len(by_seed))
                gaps[f"se_above_{other}_{n}"] = float(error)
    return gaps
