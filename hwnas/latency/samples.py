"""Raw samples of the device kit, and the statistics taken over them.

The statistic of an item is the median over rounds of the fastest hot run of its turn, after the
rounds' common slow-downs are divided out. Measured on mobilenet_tiny at 16-24 px, two cores with
four busy processes, two halves of the same rounds: 0.5 % apart (all hot runs: 1.2 %, cold runs:
3 %). It takes some 40 runs until caches and branch predictors have settled on a model: after 16,
a network among 650 other models still reads 2-5 % slower than alone, after 48 the same to 0.5 %.
Hence with 48 a network timed by itself, later, is comparable with one timed beside a table's
micro-nets. Cold runs never are: they depend on what ran before.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from hwnas.core.errors import UserError
from hwnas.core.records import STRICT
from hwnas.interfaces import FloatArray
from hwnas.latency.plan import Plan
from hwnas.latency.results import Turn, read_results

__all__ = ["STATISTIC", "Samples", "Timing", "read_samples"]

FEW_ITEMS = 8  # as in the kit
MAX_SAMPLES_IN_MEMORY = 100_000_000

STATISTIC = "median over rounds of the fastest hot run"


@dataclass(frozen=True)
class Timing:
    """Latency of one item.

    `median_ms` over the rounds' fastest hot runs, `p10_ms` and `p90_ms` likewise: how well it is
    known. `p95_ms` over all settled hot runs: how slow a run gets. `n` hot runs. `cold_ms`: median
    of the first runs of the turns, with the caches full of other models; None if not known.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    median_ms: float
    p10_ms: float
    p90_ms: float
    p95_ms: float
    n: int
    cold_ms: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.p10_ms <= self.median_ms <= self.p90_ms or self.median_ms <= 0:
            raise ValueError("expected 0 <= p10_ms <= median_ms <= p90_ms and median_ms > 0")
        if self.p95_ms < self.median_ms or self.n < 1:
            raise ValueError("expected p95_ms >= median_ms and n >= 1")
        if self.cold_ms is not None and not self.cold_ms > 0:
            raise ValueError("expected cold_ms > 0")


@dataclass(frozen=True)
class Samples:
    """Hot and cold runs in ms, NaN where there is none. `facts`: the results file's header.

    cold: [items, rounds]; hot: [items, rounds, samples]; reference: [rounds], its fastest hot runs.
    Interrupted runs are left out, unless all hot runs of a turn were interrupted, as happens to
    runs longer than a scheduler's slice. `warnings`: what the kit holds against the machine.
    """

    ids: tuple[str, ...]
    cold: FloatArray
    hot: FloatArray
    facts: dict[str, Any]
    reference: FloatArray
    warnings: tuple[str, ...] = ()

    def round_factors(self) -> FloatArray:
        """[rounds]: how much slower than usual a round was.

        The median over all items; of few items, what the reference says, for an item must not be
        corrected by itself.
        """
        if len(self.ids) < FEW_ITEMS:
            slowness: FloatArray = self.reference / np.nanmedian(self.reference)
            return np.where(np.isnan(slowness), 1.0, slowness)
        fastest = _nanmin(self.hot)
        return _nanmedian(fastest / _nanmedian(fastest, axis=1, keepdims=True), axis=0)

    def fastest(self) -> FloatArray:
        """[items, rounds]: every turn's fastest hot run, common slow-downs divided out."""
        result: FloatArray = _nanmin(self.hot) / self.round_factors()
        return result

    def timings(self) -> dict[str, Timing]:
        """Statistics by item."""
        found = {}
        cold = self.cold / self.round_factors()
        for name, turns, runs, first in zip(self.ids, self.fastest(), self.hot, cold, strict=True):
            p10, median, p90 = np.nanquantile(turns, (0.1, 0.5, 0.9))
            settled = runs[:, runs.shape[1] // 2 :]  # of short turns nothing is left here
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
        """[items] twice: the statistic from the even and from the odd rounds, for repeat noise."""
        fastest = self.fastest()
        even, odd = np.nanmedian(fastest[:, 0::2], axis=1), np.nanmedian(fastest[:, 1::2], axis=1)
        return even, odd


def read_samples(plan: Plan) -> Samples:
    """The samples in a plan's results file.

    Raises:
        UserError: missing, empty, malformed, of another plan or protocol, or without one turn of
            every item in two rounds at least.
    """
    results = read_results(plan)
    n_items = len(plan.ids)
    turns = [turn for turn in results.turns if turn.item >= 0]
    rounds = 1 + max((turn.round for turn in results.turns), default=0)
    n_samples = max((len(turn.nanoseconds) for turn in turns), default=2)
    if n_items * rounds * n_samples > MAX_SAMPLES_IN_MEMORY:
        raise UserError("results hold too many samples", where=plan.results)
    runs = np.full((n_items, rounds, n_samples), np.nan)
    marked = np.zeros(runs.shape, dtype=bool)
    for turn in turns:
        runs[turn.item, turn.round, : len(turn.nanoseconds)] = turn.nanoseconds
        marked[turn.item, turn.round, list(turn.interrupted)] = True
    complete = np.isfinite(runs[:, :, 1]).sum(axis=1)
    if complete.min() < 2:
        raise UserError(
            "results are incomplete",
            expected="two rounds or more",
            found=f"{complete.min()} of {plan.ids[int(complete.argmin())]}",
            where=plan.results,
            fix="run the same command again to resume",
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
    """[rounds]: median of the reference's fastest hot runs; NaN where it had no turn."""
    fastest: list[list[float]] = [[] for _ in range(rounds)]
    for turn in turns:
        if turn.item < 0:
            hot = list(enumerate(turn.nanoseconds))[1:]
            clean = [ns for sample, ns in hot if sample not in turn.interrupted]
            fastest[turn.round].append(min(clean or [ns for _, ns in hot]) * 1e-6)
    return np.array([np.median(values) if values else np.nan for values in fastest])


def _nanmin(values: FloatArray) -> FloatArray:
    """Minimum over the last axis; NaN, without numpy's warning, where there is nothing."""
    least = np.min(np.where(np.isnan(values), np.inf, values), axis=-1)
    return np.where(np.isinf(least), np.nan, least)


def _nanmedian(values: FloatArray, axis: int, *, keepdims: bool = False) -> FloatArray:
    """Median over an axis; NaN, without numpy's warning, where there is nothing."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN", RuntimeWarning)
        found: FloatArray = np.nanmedian(values, axis=axis, keepdims=keepdims)
    return found


def _rounded(value: float) -> float:
    """Six significant digits: a nanosecond in a millisecond."""
    return float(f"{value:.6g}")
