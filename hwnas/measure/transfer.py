"""A table for a new device, from tables of other devices and timings of a few whole networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hwnas.core.errors import UserError
from hwnas.core.progress import Progress, silent
from hwnas.core.rng import rng
from hwnas.core.stats import Z80, Z90, kendall_tau
from hwnas.interfaces import DeviceSpec, Transport
from hwnas.latency.baselines import forest_on_counts
from hwnas.latency.estimator import TableEstimator
from hwnas.latency.plan import PROTOCOL
from hwnas.latency.samples import STATISTIC, Timing
from hwnas.latency.sections import ProfileConfig
from hwnas.latency.table import Correction, LatencyTable, NetTiming, Protocol, Validation
from hwnas.latency.transfer import (
    DeviceEstimate,
    DevicePrior,
    choose_networks,
    device_prior,
    fit_device,
    operator_similarity,
)
from hwnas.latency.validation import fit_quality
from hwnas.measure.profile import NetworkTimings, time_networks
from hwnas.spaces.cost import cost
from hwnas.spaces.graphs import smallest_connected
from hwnas.spaces.index import enumerate_ops
from hwnas.spaces.ops import OpSpec
from hwnas.spaces.running import live_counts
from hwnas.spaces.space import Codes, SearchSpace

__all__ = ["N_TIMED", "networks_to_time", "transfer_table"]

N_TIMED = 10
MIN_TIMED = 5
N_CANDIDATES = 600


@dataclass(frozen=True)
class _Candidates:
    """Candidate networks, and their latencies on the known devices."""

    codes: Codes
    prior: DevicePrior


def transfer_table(
    known: Sequence[LatencyTable],
    space: SearchSpace,
    device: DeviceSpec,
    folder: Path,
    config: ProfileConfig,
    *,
    n: int = N_TIMED,
    seed: int = 0,
    progress: Progress = silent,
    transport: Transport | None = None,
) -> LatencyTable:
    """A table of `device`, from timings of `n` networks that the known tables select.

    Rows, their spread, and the interval of the correction come from `latency.transfer`. The
    validation leaves out one network at a time, so it reveals a device unlike the known ones.
    `folder` stores plan and samples: an interrupted run resumes.

    Raises:
        UserError: a known table lacks operators of the space, or the device cannot be timed.
    """
    candidates = _candidates(known, space, seed)
    timed = _choose(candidates, n)
    timings = time_networks(
        space,
        candidates.codes[timed],
        device,
        folder,
        config,
        seed=seed,
        progress=progress,
        transport=transport,
    )
    measured = np.array([timing.median_ms for timing in timings.timings])
    estimate = fit_device(candidates.prior, timed, measured)
    p95_factor = float(np.median([t.p95_ms / t.median_ms for t in timings.timings]))
    rows, warnings = _rows(space, estimate, p95_factor, len(timed))
    names = sorted({table.device.name for table in known})
    return LatencyTable(
        device=device,
        protocol=Protocol(PROTOCOL, STATISTIC, config.hot_samples),
        source="transferred",
        facts={
            **timings.facts,
            "transferred_from": ", ".join(names),
            "n_networks_timed": len(timed),
        },
        rows=rows,
        corrections={
            space.id: _correction(known, space, candidates, timed, timings, estimate, p95_factor)
        },
        warnings=(
            f"rows are inferred from {', '.join(names)} and {len(timed)} networks, not timed",
            *warnings,
        ),
    )


def networks_to_time(
    known: Sequence[LatencyTable], space: SearchSpace, *, n: int = N_TIMED, seed: int = 0
) -> Codes:
    """The networks [n, d] that `transfer_table` times, in the order of selection."""
    candidates = _candidates(known, space, seed)
    return candidates.codes[_choose(candidates, n)]


def _candidates(known: Sequence[LatencyTable], space: SearchSpace, seed: int) -> _Candidates:
    if not known:
        raise UserError("no table to transfer from", expected="at least one table", found="none")
    ends = space.codes([smallest_connected(space), space.largest()])
    sampled = space.sample(N_CANDIDATES, rng=rng(seed, "transfer/candidates"))
    codes = np.unique(np.concatenate([ends, sampled]), axis=0)
    ops = enumerate_ops(space)
    counts = live_counts(space, codes)
    rows = np.stack([TableEstimator(table, space).row_ms for table in known], axis=1)
    groups = [table.device.name for table in known]
    return _Candidates(
        codes,
        device_prior(counts, counts @ rows, groups, operator_similarity(ops), known_rows=rows),
    )


def _choose(candidates: _Candidates, n: int) -> NDArray[np.int64]:
    if n < MIN_TIMED:
        raise UserError(
            "too few networks to time", expected=f"at least {MIN_TIMED}", found=f"{n} networks"
        )
    return choose_networks(candidates.prior, min(n, len(candidates.codes)))


def _rows(
    space: SearchSpace, estimate: DeviceEstimate, p95_factor: float, n: int
) -> tuple[dict[OpSpec, Timing], tuple[str, ...]]:
    """Rows whose p10 and p90 express the uncertainty of the estimate; a warning if it is large."""
    rows = {}
    for op, median, std in zip(
        enumerate_ops(space), estimate.rows_ms, estimate.rows_std_ms, strict=True
    ):
        low, high = max(median - Z80 * std, 0.0), median + Z80 * std
        rows[op] = Timing(float(median), float(low), float(high), float(median * p95_factor), n)
    n_vague = int((estimate.rows_std_ms > estimate.rows_ms).sum())
    if not n_vague:
        return rows, ()
    return rows, (f"the uncertainty of {n_vague} of {len(rows)} rows exceeds their latency",)


def _correction(
    known: Sequence[LatencyTable],
    space: SearchSpace,
    candidates: _Candidates,
    timed: NDArray[np.int64],
    timings: NetworkTimings,
    estimate: DeviceEstimate,
    p95_factor: float,
) -> Correction:
    """A correction that leaves sums unchanged; interval and validation by leaving one out."""
    nets = candidates.codes[timed]
    measured = np.array([timing.median_ms for timing in timings.timings])
    macs = cost(space, nets, "macs") / 1e6
    unseen, line = np.empty(len(timed)), np.empty(len(timed))
    for i in range(len(timed)):
        others = np.arange(len(timed)) != i
        without = fit_device(candidates.prior, timed[others], measured[others])
        unseen[i] = without.latency_ms[timed[i]]
        line[i] = np.polyval(np.polyfit(macs[others], measured[others], 1), macs[i])
    forest = forest_on_counts(live_counts(space, nets), measured, np.arange(len(timed)))
    raw = [TableEstimator(table, space).latency_ms(nets) for table in known]
    nearest = max(raw, key=lambda sums: kendall_tau(sums, measured))
    relative = estimate.std_ms / estimate.latency_ms
    return Correction(
        coefficients={"scale": 1.0},
        interval_fraction=float(Z90 * np.sqrt(np.mean(relative**2))),
        p95_factor=p95_factor,
        n_fit=len(timed),
        fingerprint=space.fingerprint,
        validation=Validation(
            forecast=fit_quality(unseen, measured),
            raw_sum=fit_quality(nearest, measured),
            macs_line=fit_quality(line, measured),
            forest=fit_quality(forest, measured),
            repeat_mape=fit_quality(*timings.halves).mape,
            repeat_tau=kendall_tau(*timings.halves),
            nets=tuple(
                NetTiming(tuple(int(c) for c in row), float(ms), round(float(guess), 9))
                for row, ms, guess in zip(nets, measured, unseen, strict=True)
            ),
        ),
    )
