"""Regret after 100 evaluations where every arch's accuracy is known."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hwnas.acquisitions import exploration
from hwnas.controller.constraints import metric_key
from hwnas.controller.controller import run_search
from hwnas.controller.sections import SearchConfig
from hwnas.core.rng import rng
from hwnas.interfaces import Constraint, CostMetric, FloatArray, SearcherContext
from hwnas.pipeline.costs import cost_metrics
from hwnas.predictors.open_records import open_records
from hwnas.predictors.records import Records
from hwnas.searchers import policy_gradient
from hwnas.spaces.space import Codes, SearchSpace
from search_parts.cells import Cells, Settings
from search_parts.queries import EXPLORATION, SETTINGS, Watched

__all__ = ["nas_bench_macro", "nasbench201"]

N_EVALUATIONS = 100
AT = 40
"""From this evaluation on, the mean curve is compared with random search."""
DEVICES = ("pixel3", "1080ti_1", "gold_6240", "samsung_a50")


def nas_bench_macro(cells: Cells, settings: Settings) -> dict[str, Any]:
    """NAS-Bench-Macro's published half, without a limit and at half the largest arch's MACs."""
    records = open_records(settings.data / "nas_bench_macro" / "cifar10.json").records()
    metrics = cost_metrics(records.space, {})
    limits = {
        "free": None,
        "half_macs": Constraint("macs", max_fraction_of_largest=0.5),
    }
    return {
        name: _summary(cells, name, records, metrics, limit, settings.seeds or 20)
        for name, limit in limits.items()
    }


def nasbench201(cells: Cells, settings: Settings) -> dict[str, Any]:
    """NAS-Bench-201's half, CIFAR-10 after 200 epochs, under measured latencies."""
    path = settings.data / "nasbench201_accuracy" / "accuracy.csv"
    records = open_records(path).records("cifar10_test_200ep")
    with np.load(settings.data / "latency_nasbench201" / "latency.npz") as stored:
        names, devices, latency_ms = (stored[k] for k in ("arch", "devices", "latency_ms"))
    found = {}
    for device in DEVICES:
        column = latency_ms[:, devices.tolist().index(device)].astype(np.float64)
        metric = _looked_up(records.space, names.tolist(), column)
        limit = Constraint("latency_ms", device=device, max=float(np.median(column)))
        metrics = {f"latency_ms@{device}": metric}
        found[device] = _summary(cells, device, records, metrics, limit, settings.seeds or 20)
    return found


def _looked_up(space: SearchSpace, names: list[str], values: FloatArray) -> CostMetric:
    """A metric of archs given by NAS-Bench-201's strings: one operator per edge, in our order.

    Cells without a path from input to output are timed at nearly 0 ms, hence the floor.
    """
    ops = list(space.choices[1].values)
    rows = [
        [0, *(ops.index(edge.split("~")[0]) for edge in name.replace("+", "").split("|") if edge)]
        for name in names
    ]
    keys = space.keys(np.array(rows, dtype=np.int16))
    table = dict(zip(keys, np.maximum(values, 1e-6).tolist(), strict=True))
    return lambda codes: np.array([table[key] for key in space.keys(codes)])


def _summary(
    cells: Cells,
    name: str,
    records: Records,
    metrics: Mapping[str, CostMetric],
    limit: Constraint | None,
    n_seeds: int,
) -> dict[str, Any]:
    feasible = np.ones(len(records), dtype=bool)
    if limit is not None:
        metric = metrics[metric_key(limit)]
        largest = metric(records.space.codes([records.space.largest()]))[0]
        bound = limit.max or (limit.max_fraction_of_largest or 1) * largest
        feasible = metric(records.codes) <= bound
    best = float(records.scores[feasible].max())
    rows = [
        cells.get(f"{name}-{seed}", lambda s=seed: _one(records, metrics, limit, feasible, s))
        for seed in range(n_seeds)
    ]
    median = {
        key: round(100 * (best - float(np.median([row[key] for row in rows]))), 4)
        for key in ("winner", "mode", "random")
    }
    worst = 100 * (best - min(row["winner"] for row in rows))
    curves, random_curves = (
        100 * (best - np.array([row[key] for row in rows])) for key in ("curve", "random_curve")
    )
    error = np.hypot(curves.std(axis=0), random_curves.std(axis=0)) / np.sqrt(n_seeds)
    above = (curves.mean(axis=0) - random_curves.mean(axis=0)) / np.maximum(error, 1e-9)
    return {
        "n_seeds": n_seeds,
        "n_recorded": len(records),
        "n_feasible": int(feasible.sum()),
        "best_percent": round(100 * best, 3),
        "median_regret_points": median["winner"],
        "worst_regret_points": round(worst, 4),
        f"mean_regret_at_{AT}": round(float(curves[:, AT - 1].mean()), 4),
        f"random_mean_regret_at_{AT}": round(float(random_curves[:, AT - 1].mean()), 4),
        f"most_standard_errors_above_random_from_{AT}": round(float(above[AT - 1 :].max()), 2),
        "mode_median_regret_points": median["mode"],
        "random_regret_points": median["random"],
        "median_seconds": round(float(np.median([row["seconds"] for row in rows])), 2),
        "all_winners_feasible": all(row["is_feasible"] for row in rows),
        "n_evaluations": max(row["n_evaluations"] for row in rows),
    }


def _one(
    records: Records,
    metrics: Mapping[str, CostMetric],
    limit: Constraint | None,
    feasible: np.ndarray[Any, np.dtype[np.bool_]],
    seed: int,
) -> dict[str, Any]:
    """Accuracy (fraction) of the archive's winner, of the policy's mode, and of random search.

    The mode is the recorded feasible arch that the policy finds most probable.
    """
    space, watched = records.space, Watched(records, seed)
    searcher = policy_gradient.build(policy_gradient.Config(), SearcherContext(space, seed))
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        result = run_search(
            space,
            searcher,
            predict=None,
            metrics=metrics,
            config=SearchConfig(
                constraints=() if limit is None else (limit,),
                n_predictions=64 * N_EVALUATIONS,
                n_evaluations=N_EVALUATIONS,
                **SETTINGS,
            ),
            seed=seed,
            folder=Path(folder),
            rescoring=watched,
            acquisition=exploration.build(EXPLORATION),
        )
    seconds = time.perf_counter() - begin
    score = dict(zip(space.keys(records.codes), records.scores.tolist(), strict=True))
    probability = _log_probability(searcher.probabilities(), space, records.codes)
    drawn = rng(seed, "benchmark/random").permutation(np.flatnonzero(feasible))[:N_EVALUATIONS]
    (key,) = space.keys(space.codes([result.winner.arch]))
    return {
        "winner": score[key],
        "mode": float(records.scores[feasible][probability[feasible].argmax()]),
        "random": float(records.scores[drawn].max()),
        "curve": _curve([score[key] for key in space.keys(np.array(watched.seen, dtype=np.int16))]),
        "random_curve": _curve(records.scores[drawn].tolist()),
        "is_feasible": result.winner.feasible,
        "n_evaluations": result.n_evaluations,
        "seconds": round(seconds, 2),
    }


def _curve(scores: list[float]) -> list[float]:
    """The best score so far, [N_EVALUATIONS]."""
    best: list[float] = np.maximum.accumulate(scores)[:N_EVALUATIONS].tolist()
    return best


def _log_probability(probabilities: FloatArray, space: SearchSpace, codes: Codes) -> FloatArray:
    chosen = probabilities[np.arange(codes.shape[1]), codes]
    log = np.log(np.maximum(chosen, 1e-300)) * space.active(codes)
    return np.asarray(log.sum(axis=1))
