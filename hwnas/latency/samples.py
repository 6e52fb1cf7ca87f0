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

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from hwnas.core.errors import UserError
from hwnas.core.records import STRICT
from hwnas.core.store import read_jsonl
from hwnas.interfaces import FloatArray
from hwnas.latency.plan import PROTOCOL, Plan

__all__ = ["STATISTIC", "Samples", "Timing", "read_samples"]

STATISTIC = "median over rounds of the fastest hot run"


@dataclass(frozen=True)
class Timing:
    """Latency of one item.

    `median_ms` over the rounds' fastest hot runs, `p10_ms` and `p90_ms` likewise: how well it is
    known. `p95_ms` over all settled hot runs: how slow a run gets. `n` hot runs.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    median_ms: float
    p10_ms: float
    p90_ms: float
    p95_ms: float
    n: int

    def __post_init__(self) -> None:
        if not 0 <= self.p10_ms <= self.median_ms <= self.p90_ms or self.median_ms <= 0:
            raise ValueError("expected 0 <= p10_ms <= median_ms <= p90_ms and median_ms > 0")
        if self.p95_ms < self.median_ms or self.n < 1:
            raise ValueError("expected p95_ms >= median_ms and n >= 1")


@dataclass(frozen=True)
class Samples:
    """Hot and cold runs in ms, NaN where there is none. `facts`: the results file's header.

    cold: [items, rounds]; hot: [items, rounds, samples]. Interrupted runs are left out, unless
    all hot runs of a turn were interrupted, as happens to runs longer than a scheduler's slice.
    """

    ids: tuple[str, ...]
    cold: FloatArray
    hot: FloatArray
    facts: dict[str, Any]

    def round_factors(self) -> FloatArray:
        """[rounds]: how much slower than usual a round was, as the median over all items."""
        fastest = _nanmin(self.hot)
        factors: FloatArray = np.nanmedian(
            fastest / np.nanmedian(fastest, axis=1, keepdims=True), axis=0
        )
        return factors

    def fastest(self) -> FloatArray:
        """[items, rounds]: every turn's fastest hot run, common slow-downs divided out."""
        result: FloatArray = _nanmin(self.hot) / self.round_factors()
        return result

    def timings(self) -> dict[str, Timing]:
        """Statistics by item."""
        found = {}
        for name, turns, runs in zip(self.ids, self.fastest(), self.hot, strict=True):
            p10, median, p90 = np.nanquantile(turns, (0.1, 0.5, 0.9))
            settled = runs[:, runs.shape[1] // 2 :]  # of short turns nothing is left here
            p95 = np.nanquantile(settled if np.isfinite(settled).any() else runs, 0.95)
            found[name] = Timing(
                median_ms=_rounded(median),
                p10_ms=_rounded(p10),
                p90_ms=_rounded(p90),
                p95_ms=_rounded(max(p90, p95)),
                n=int(np.isfinite(runs).sum()),
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
    header, *lines = read_jsonl(plan.results) or [{}]
    for key, expected in (("protocol", PROTOCOL), ("plan_hash", plan.hash)):
        if header.get(key) != expected:
            raise UserError(
                f"results with another {key}",
                expected=expected,
                found=header.get(key),
                where=plan.results,
            )
    try:
        turns, interrupted = _collect(lines)
        rounds = 1 + max(turn[0] for turn in turns)
        if rounds > len(turns) or min(min(turn) for turn in turns) < 0:
            raise ValueError("numbers out of range")
        shape = (len(plan.ids), rounds, max(len(turn) for turn in turns) - 2)
        runs = np.full(shape, np.nan)
        marked = np.zeros(shape, dtype=bool)
        for (number, item, *nanoseconds), marks in zip(turns, interrupted, strict=True):
            runs[item, number, : len(nanoseconds)] = nanoseconds
            marked[item, number, marks] = True
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise UserError("malformed results", found=repr(error), where=plan.results) from error
    if not np.nanmin(runs) > 0:
        raise UserError("malformed results: a run took no time", where=plan.results)
    complete = np.isfinite(runs[:, :, 1]).sum(axis=1)
    if complete.min() < 2:
        raise UserError(
            "results are incomplete",
            expected="two rounds or more",
            found=f"{complete.min()} of {plan.ids[int(complete.argmin())]}",
            where=plan.results,
            fix="run the same command again; it goes on where it stopped",
        )
    runs *= 1e-6
    clean = np.where(marked, np.nan, runs)
    all_marked = ~np.isfinite(clean[:, :, 1:]).any(axis=2, keepdims=True)
    hot = np.where(all_marked, runs[:, :, 1:], clean[:, :, 1:])
    return Samples(plan.ids, clean[:, :, 0], hot, header)


def _collect(lines: list[dict[str, Any]]) -> tuple[list[list[int]], list[list[int]]]:
    """All turns, and per turn its interrupted samples."""
    turns: list[list[int]] = []
    interrupted: list[list[int]] = []
    for line in lines:
        marks: list[list[int]] = [[] for _ in line["turns"]]
        for turn, sample in line["preempted"]:
            marks[turn].append(sample)
        turns += line["turns"]
        interrupted += marks
    return turns, interrupted


def _nanmin(values: FloatArray) -> FloatArray:
    """Minimum over the last axis; NaN, without numpy's warning, where there is nothing."""
    least = np.min(np.where(np.isnan(values), np.inf, values), axis=-1)
    return np.where(np.isinf(least), np.nan, least)


def _rounded(value: float) -> float:
    """Six significant digits: a nanosecond in a millisecond."""
    return float(f"{value:.6g}")
