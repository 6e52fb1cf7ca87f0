"""One search for 50 devices: its duration relative to that of one device, and its winners.

The devices are the 19 columns of latencies of FBNet (HELP, 2106.08630) and 31 perturbations of
them. There are no accuracies of this space, so the score is synthetic: log MACs, a weight per
choice and products of choices. A predictor is fitted on 400 noisy values of it, and only the
predictor is searched.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import hwnas
from hwnas.core.rng import rng
from hwnas.core.stats import spearman
from hwnas.interfaces import AccuracyPredictor, DeviceSpec, FloatArray, PredictorContext
from hwnas.latency.fitted import fit_rows
from hwnas.latency.samples import Timing
from hwnas.latency.table import LatencyTable, Protocol
from hwnas.measure.published.networks import Measurements, read_measurements
from hwnas.predictors import REGISTRY
from hwnas.spaces.cost import cost
from hwnas.spaces.index import enumerate_ops, op_counts
from hwnas.spaces.space import Codes, SearchSpace
from search_parts.cells import Cells, Settings

__all__ = ["fifty"]

N_SIMULATED, SPREAD = 31, 0.3  # perturbations, standard deviation of the log of a row's factor
STRENGTH = 10.0  # of the ridge of `fit_rows`, the strongest of those that `fit_table` tries
QUANTILES = (0.1, 0.25, 0.4, 0.6, 0.8)  # limits in turn, of the latencies of uniform archs
N_LABELS, LABEL_NOISE, N_PAIRS = 400, 0.05, 300
REPEATS = 3  # interleaved; the median ratio is reported
N_COMPARED = 10  # devices whose winner is compared with that of a search of their own
TOLERANCES = (0, 0.05, 0.1, 0.2)  # of groups, in standard deviations of the scores


def fifty(cells: Cells, settings: Settings) -> dict[str, Any]:
    """Ratios of durations in this process, and the facts about the winners of one search."""
    data = read_measurements(settings.data / "latency_fbnet")
    space, tables = data.space, _tables(data, cells)
    score, tau = _score(space)
    limits = _limits(space, tables)
    kinds = sorted(tables, key=lambda name: name.startswith("simulated-"))
    folder = Path(tempfile.mkdtemp())

    def many(**changed: LatencyTable | Path) -> hwnas.FoundPerDevice:
        chosen = {**tables, **changed}
        return hwnas.search(
            space,
            score=score,
            limits=limits,
            tables=[chosen[name] for name in kinds],
            per_device=True,
        )

    def one(device: str) -> hwnas.Found:
        key = f"latency_ms@{device}"
        return hwnas.search(space, score=score, limits={key: limits[key]}, tables=[tables[device]])

    found, n = many(), settings.seeds or REPEATS
    timings = [
        cells.get(f"timing_{r}", lambda: _ratio(lambda: one(kinds[0]), many)) for r in range(n)
    ]
    lost = many(**{kinds[7]: folder / "missing.json"})
    spread = float(np.std(score(space.sample(1000, seed=0))))
    return {
        "devices": len(found.winners),
        "simulated": sum(name.startswith("simulated-") for name in found.winners),
        "spearman_of_predictor": tau,
        "cpu_ratio": float(np.median([timing["cpu"] for timing in timings])),
        "cpu_ratios": [round(timing["cpu"], 2) for timing in timings],
        "wall_ratio": float(np.median([timing["wall"] for timing in timings])),
        "scored": found.n_scored,
        "scored_by_one": one(kinds[0]).n_scored,
        "limits_met": all(
            winner.latency_ms[device] <= limits[f"latency_ms@{device}"]
            for device, winner in found.winners.items()
        ),
        "priced_on": min(len(winner.latency_ms) for winner in found.winners.values()),
        "groups": {f"{share:g}": len(found.groups(share * spread)) for share in TOLERANCES},
        "with_one_table_missing": {"devices": len(lost.winners), "skipped": sorted(lost.skipped)},
        "score_minus_own_search": _gains(found, one, kinds, spread),
    }


def _ratio(one: Callable[[], Any], many: Callable[[], Any]) -> dict[str, float]:
    """Duration of `many` relative to that of `one`, called in turn: wall and processor time."""
    times = [(time.perf_counter(), time.process_time())]
    for call in (one, many):
        call()
        times.append((time.perf_counter(), time.process_time()))
    (wall_one, cpu_one), (wall_many, cpu_many) = np.diff(times, axis=0)
    return {"wall": float(wall_many / wall_one), "cpu": float(cpu_many / cpu_one)}


def _gains(
    found: hwnas.FoundPerDevice, one: Any, kinds: list[str], spread: float
) -> dict[str, float]:
    """Scores of winners minus those of whole searches for evenly spaced devices.

    The unit is the standard deviation of the scores of uniform archs.
    """
    chosen = kinds[1 :: max(1, len(kinds) // N_COMPARED)][:N_COMPARED]
    gains = [(found.winners[name].score - one(name).winner.score) / spread for name in chosen]
    return {"mean": float(np.mean(gains)), "worst": float(min(gains)), "n": len(gains)}


def _tables(data: Measurements, cells: Cells) -> dict[str, LatencyTable]:
    """Maps device names to tables: one per column, then perturbations `simulated-N` in turn."""
    ops, counts = enumerate_ops(data.space), op_counts(data.space, data.live_codes)

    def fitted(name: str) -> FloatArray:
        cell = cells.get(
            f"column_{name}",
            lambda: {"row_ms": fit_rows(ops, counts, data.column(name), STRENGTH).ms.tolist()},
        )
        return np.array(cell["row_ms"])

    found = {name.replace("_", "-"): fitted(name) for name in data.columns}
    columns = list(found.values())
    for number in range(N_SIMULATED):
        factors = rng(0, "fifty/device", number).normal(0, SPREAD, len(ops))
        found[f"simulated-{number}"] = columns[number % len(columns)] * np.exp(factors)
    return {name: _table(name, data.space, ms) for name, ms in found.items()}


def _table(name: str, space: SearchSpace, row_ms: FloatArray) -> LatencyTable:
    simulated = name.startswith("simulated-")
    return LatencyTable(
        device=DeviceSpec(name, runtime="unknown", provider="unknown", transport="offline"),
        protocol=Protocol("published-help", "whole networks", 1),
        source="simulated" if simulated else "fitted",
        facts={},
        rows={
            op: Timing(ms, ms, ms, ms, 1)
            for op, ms in zip(enumerate_ops(space), row_ms.tolist(), strict=True)
        },
    )


def _limits(space: SearchSpace, tables: Mapping[str, LatencyTable]) -> dict[str, float]:
    archs = space.sample(2000, rng=rng(0, "fifty/limits"))
    return {
        f"latency_ms@{name}": float(
            np.quantile(table.estimate(space, archs).ms, QUANTILES[number % len(QUANTILES)])
        )
        for number, (name, table) in enumerate(tables.items())
    }


def _score(space: SearchSpace) -> tuple[Any, float]:
    """A fitted predictor, as a function of codes, and its rank correlation on 1,000 archs."""
    stream = rng(0, "fifty/truth")
    n_choices = space.encode(space.sample(1, rng=stream)).shape[1]
    weights = stream.normal(0, 0.15, n_choices)
    pairs, products = (
        stream.integers(n_choices, size=(2, N_PAIRS)),
        stream.normal(0, 0.075, N_PAIRS),
    )

    def truth(codes: Codes) -> FloatArray:
        chosen = space.encode(codes).astype(np.float64)
        together = (chosen[:, pairs[0]] * chosen[:, pairs[1]]) @ products
        return 3 * np.log(cost(space, codes, "macs") / 1e7) + chosen @ weights + together

    labelled, held_out = space.sample(N_LABELS, rng=stream), space.sample(1000, rng=stream)
    labels = truth(labelled) + stream.normal(0, LABEL_NOISE, N_LABELS)
    module = REGISTRY.load("ridge")
    predictor: AccuracyPredictor = module.build(module.Config(), PredictorContext(space, 0))
    predictor.fit(labelled, labels)
    tau = spearman(predictor.predict(held_out)[0], truth(held_out))
    return (lambda codes: predictor.predict(codes)[0]), tau
