"""Raw samples of the device kit, and their statistics.

The statistic of an item is the median over rounds of the fastest hot run of each turn, after the
common slow-down of each round is divided out. Measured on mobilenet_tiny at 16-24 px, on two cores
with four busy processes: two halves of the same rounds differ by 0.5 % (all hot runs: 1.2 %, cold
runs: 3 %).

Caches and branch predictors need about 40 runs to settle on a model. After 16 runs, a network among
650 other models is 2-5 % slower than by itself; after 48 runs the two agree to 0.5 %. So with 48
runs, a network timed later by itself can be compared with one timed together with micro-nets. Cold
runs can never be compared in this way, because they depend on the previous model.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from hwnas.core.errors import Invalid, UserError
from hwnas.core.records import STRICT
from hwnas.interfaces import FloatArray
from hwnas.latency.plan import Plan
from hwnas.latency.results import Turn, read_results

__all__ = ["STATISTIC", "Samples", "Timing", "read_samples"]

FEW_ITEMS = 8  # as in the kit
MAX_SAMPLES_IN_MEMORY = 100_000_000
MAX_SLICES = 20
MAX_MJ = 1e9  # a quarter of a kilowatt hour; sums over a network stay finite

STATISTIC = "median over rounds of the fastest hot run"


@dataclass(frozen=True)
class Timing:
    """Latency of one item.

    median_ms: over the fastest hot runs of the rounds.
    p10_ms, p90_ms: percentiles of the same runs, the precision of the median.
    p95_ms: over the second half of the hot runs of all turns, the slowness of single runs.
    n: number of hot runs.
    cold_ms: median of the first runs of the turns, with the caches full of other models; None if
        unknown.
    energy_mj: energy of one run; None if unknown, as in all timings of the kit.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    median_ms: float
    p10_ms: float
    p90_ms: float
    p95_ms: float
    n: int
    cold_ms: float | None = None
    energy_mj: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.p10_ms <= self.median_ms <= self.p90_ms or self.median_ms <= 0:
            raise Invalid(
                "0 <= p10_ms <= median_ms <= p90_ms and median_ms > 0",
                f"p10_ms {self.p10_ms:g}, median_ms {self.median_ms:g}, p90_ms {self.p90_ms:g}",
            )
        if self.p95_ms < self.median_ms or self.n < 1:
            raise Invalid(
                "p95_ms >= median_ms and n >= 1",
                f"p95_ms {self.p95_ms:g}, median_ms {self.median_ms:g}, n {self.n}",
            )
        if self.cold_ms is not None and not self.cold_ms > 0:
            raise Invalid("a number above 0", f"{self.cold_ms:g}", "cold_ms")
        if self.energy_mj is not None and not 0 < self.energy_mj < MAX_MJ:
            raise Invalid(f"a number between 0 and {MAX_MJ:g}", f"{self.energy_mj:g}", "energy_mj")


@dataclass(frozen=True)
class Samples:
    """Latencies of the hot and cold runs of a plan in ms; missing values are NaN.

    ids: names of the timed models (items), in the order of the plan.
    cold: latency of the cold run of each turn, [items, rounds].
    hot: latencies of the hot runs of each turn, [items, rounds, samples].
    facts: header of the results file.
    reference: time of the reference in each round, [rounds]. The reference is one model of the plan
        that shows the machine's speed; it has several turns per round. The value is the median over
        these turns of the fastest hot run.
    warnings: problems of the machine that the kit reports.

    Interrupted runs are left out, unless all hot runs of a turn were interrupted. This happens if a
    run takes longer than a time slice of the scheduler.
    """

    ids: tuple[str, ...]
    cold: FloatArray
    hot: FloatArray
    facts: dict[str, Any]
    reference: FloatArray
    warnings: tuple[str, ...] = ()

    def round_factors(self) -> FloatArray:
        """Slow-down factor of each round, [rounds].

        It is the median over all items. With few items it is taken from `reference`, because an
        item must not be corrected by itself.
        """
        if len(self.ids) < FEW_ITEMS:
            slowness: FloatArray = self.reference / np.nanmedian(self.reference)
            return np.where(np.isnan(slowness), 1.0, slowness)
        fastest = _nanmin(self.hot)
        return _nanmedian(fastest / _nanmedian(fastest, axis=1, keepdims=True), axis=0)

    def pace(self) -> tuple[float, ...]:
        """Pace over time: median time of the reference in successive rounds / in all rounds.

        There are at most 20 values, each for about the same number of rounds. Empty: unknown.
        """
        known = self.reference[np.isfinite(self.reference)]
        if len(known) < 2:
            return ()
        slices = np.array_split(known, min(MAX_SLICES, len(known)))
        medians = np.array([np.median(part) for part in slices]) / np.median(known)
        return tuple(round(float(value), 4) for value in medians)

    def fastest(self) -> FloatArray:
        """Fastest hot run of every turn, [items, rounds], without the common slow-downs."""
        result: FloatArray = _nanmin(self.hot) / self.round_factors()
        return result

    def timings(self) -> dict[str, Timing]:
        """Statistics by item."""
        found = {}
        cold = self.cold / self.round_factors()
        for name, turns, runs, first in zip(self.ids, self.fastest(), self.hot, cold, strict=True):
            p10, median, p90 = np.nanquantile(turns, (0.1, 0.5, 0.9))
            settled = runs[:, runs.shape[1] // 2 :]  # empty for short turns
            p95 = np.nanquantile(settled if np.isfinite(settled).any() else runs, 0.95)
            found[name] = Timing(
                median_ms=_rounded(median),
                p10_ms=_rounded(p10),
                p90_ms=_rounded(p90),
                p95_ms=_rounded(max(p90, p95)),
                n=int(np.isfinite(runs).sum()),
                cold_ms=_rounded(np.nanmedian(first)) if np.isfinite(first).any() else None,
            )
        return found

    def halves(self) -> tuple[FloatArray, FloatArray]:
        """The statistic from the even and from the odd rounds, [items] each, for repeat noise."""
        fastest = self.fastest()
        even, odd = np.nanmedian(fastest[:, 0::2], axis=1), np.nanmedian(fastest[:, 1::2], axis=1)
        return even, odd


def read_samples(plan: Plan) -> Samples:
    """The samples in the results file of a plan.

    Raises:
        UserError: the file is missing, empty, malformed, belongs to another plan or protocol, or
            lacks turns of an item in at least two rounds.
    """
    results = read_results(plan)
    n_items = len(plan.ids)
    turns = [turn for turn in results.turns if turn.item >= 0]
    rounds = 1 + max((turn.round for turn in results.turns), default=0)
    n_samples = max((len(turn.nanoseconds) for turn in turns), default=2)
    if n_items * rounds * n_samples > MAX_SAMPLES_IN_MEMORY:
        raise UserError(
            "results have too many samples",
            expected=f"at most {MAX_SAMPLES_IN_MEMORY:,} samples",
            found=f"{n_items * rounds * n_samples:,} samples",
            where=plan.results,
            fix="time the models again with fewer rounds or hot samples",
        )
    runs = np.full((n_items, rounds, n_samples), np.nan)
    marked = np.zeros(runs.shape, dtype=bool)
    for turn in turns:
        runs[turn.item, turn.round, : len(turn.nanoseconds)] = turn.nanoseconds
        marked[turn.item, turn.round, list(turn.interrupted)] = True
    complete = np.isfinite(runs[:, :, 1]).sum(axis=1)
    if complete.min() < 2:
        raise UserError(
            "results are incomplete",
            expected="at least two rounds of each model",
            found=f"{complete.min()} rounds of model {plan.ids[int(complete.argmin())]}",
            where=plan.results,
            fix="run the same command again to resume; if you started bench.py yourself, run it"
            " again on the device with the same --out",
        )
    runs *= 1e-6
    clean = np.where(marked, np.nan, runs)
    all_marked = ~np.isfinite(clean[:, :, 1:]).any(axis=2, keepdims=True)
    hot = np.where(all_marked, runs[:, :, 1:], clean[:, :, 1:])
    return Samples(
        plan.ids,
        clean[:, :, 0],
        hot,
        results.header,
        reference=_reference(results.turns, rounds),
        warnings=results.warnings,
    )


def _reference(turns: Sequence[Turn], rounds: int) -> FloatArray:
    """`Samples.reference`; NaN for rounds without a turn of the reference."""
    fastest: list[list[float]] = [[] for _ in range(rounds)]
    for turn in turns:
        if turn.item < 0:
            hot = list(enumerate(turn.nanoseconds))[1:]
            clean = [ns for sample, ns in hot if sample not in turn.interrupted]
            fastest[turn.round].append(min(clean or [ns for _, ns in hot]) * 1e-6)
    return np.array([np.median(values) if values else np.nan for values in fastest])


def _nanmin(values: FloatArray) -> FloatArray:
    """Minimum over the last axis; NaN if empty, without the warning of numpy."""
    least = np.min(np.where(np.isnan(values), np.inf, values), axis=-1)
    return np.where(np.isinf(least), np.nan, least)


def _nanmedian(values: FloatArray, axis: int, *, keepdims: bool = False) -> FloatArray:
    """Median over an axis; NaN if empty, without the warning of numpy."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN", RuntimeWarning)
        found: FloatArray = np.nanmedian(values, axis=axis, keepdims=keepdims)
    return found


def _rounded(value: float) -> float:
    """Six significant digits: nanoseconds in a millisecond."""
    return float(f"{value:.6g}")
