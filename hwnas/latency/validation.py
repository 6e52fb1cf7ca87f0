"""Fits corrections from sums of rows to whole networks, and validates them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hwnas.core.errors import UserError
from hwnas.core.stats import conformal_quantile, kendall_tau, spearman
from hwnas.interfaces import FloatArray
from hwnas.latency.baselines import forest_on_counts
from hwnas.latency.correction import Correction, Fit, NetTiming, Validation
from hwnas.latency.fitting import MACS_LINE, Form, NetworkSums, fit
from hwnas.latency.samples import Timing
from hwnas.spaces.ops import OpSpec
from hwnas.spaces.running import live_counts
from hwnas.spaces.space import Codes, SearchSpace

if TYPE_CHECKING:
    from hwnas.latency.table import LatencyTable

__all__ = ["as_sums", "cross_fit", "fit_correction", "fit_quality", "refit_correction"]

MAX_FOLDS = 10
MIN_NETS = 4


def fit_correction(
    rows: Mapping[OpSpec, Timing],
    space: SearchSpace,
    codes: Codes,
    timings: Sequence[Timing],
    halves: tuple[FloatArray, FloatArray],
) -> Correction:
    """A correction fitted on all measured networks `codes`, validated by cross-fitting.

    The measured networks determine the weight of each term of the formula
    (`hwnas.latency.formula`). All terms are positive except for the constant, so that adding an
    operator never makes a network faster. docs/results.md lists alternatives with their results.

    halves: latencies [n] of the networks from two halves of the rounds.

    Raises:
        UserError: fewer than four networks, or operators that do not explain their latencies.
    """
    if len(codes) < MIN_NETS:
        raise UserError(
            "too few networks for a correction",
            expected=f"at least {MIN_NETS} networks",
            found=f"{len(codes)} networks",
            where=space.id,
            fix="allow more values in the space",
        )
    measured = np.array([timing.median_ms for timing in timings])
    sums = NetworkSums(rows, space, codes)
    estimates = cross_fit(sums, measured)
    if estimates.min() <= 0:
        raise UserError(
            "the operator latencies do not explain the latencies of the whole networks",
            expected="estimates of held-out networks above 0 ms",
            found=f"{estimates.min():.3g} ms, measured {measured[estimates.argmin()]:.3g} ms",
            where=space.id,
            fix="time more networks (profile.n_validation) or more rounds; timings are kept",
        )
    forest = forest_on_counts(live_counts(space, codes), measured, _folds(measured))
    fitted = fit(sums, measured)
    return Correction(
        coefficients=dict(fitted.coefficients),
        spill=fitted.spill,
        interval_fraction=conformal_quantile(measured / estimates - 1, 0.9),
        p95_factor=float(np.median([timing.p95_ms / timing.median_ms for timing in timings])),
        n_fit=len(codes),
        fingerprint=space.fingerprint,
        repeats_once=not space.macro.is_chain,
        validation=Validation(
            forecast=fit_quality(estimates, measured),
            raw_sum=fit_quality(sums.additive["scale"], measured),
            macs_line=fit_quality(cross_fit(sums, measured, form=MACS_LINE), measured),
            forest=fit_quality(forest, measured),
            repeat_mape=fit_quality(*halves).mape,
            repeat_tau=kendall_tau(*halves),
            nets=tuple(
                NetTiming(tuple(int(c) for c in row), float(ms), round(float(guess), 9))
                for row, ms, guess in zip(codes, measured, estimates, strict=True)
            ),
        ),
    )


def fit_quality(estimates: FloatArray, measured: FloatArray) -> Fit:
    """Errors relative to `measured`, shares of small errors, and rank agreement."""
    errors = np.abs(estimates / measured - 1)
    return Fit(
        mape=float(errors.mean()),
        p95=float(np.quantile(errors, 0.95)),
        max=float(errors.max()),
        spearman=spearman(estimates, measured),
        kendall_tau=kendall_tau(estimates, measured),
        within_5=float((errors <= 0.05).mean()),
        within_10=float((errors <= 0.1).mean()),
    )


def cross_fit(
    sums: NetworkSums,
    measured: FloatArray,
    form: Form | None = None,
    *,
    with_cache: bool = True,
) -> FloatArray:
    """Estimates the latency in ms of each network, [n], by a `fit` to the other folds."""
    fold = _folds(measured)
    estimates = np.empty(len(measured))
    for number in range(fold.max() + 1):
        inside = fold == number
        fitted = fit(sums, measured, kept=~inside, form=form, with_cache=with_cache)
        estimates[inside] = sums.estimate(fitted)[inside]
    return estimates


def _folds(measured: FloatArray) -> NDArray[np.int64]:
    """Fold of every network, [n]; each fold is spread over all sizes."""
    n = len(measured)
    fold: NDArray[np.int64] = np.empty(n, dtype=np.int64)
    fold[np.argsort(measured, kind="stable")] = np.arange(n) % min(n, MAX_FOLDS)
    return fold


def refit_correction(
    correction: Correction,
    rows: Mapping[OpSpec, Timing],
    space: SearchSpace,
    codes: Codes,
    measured_ms: FloatArray,
    *,
    with_cache: bool = True,
) -> Correction:
    """Fits the correction again, with `codes` [n, d] and their latencies [n] added to its networks.

    Networks that a later restriction removed from the space are left out. The interval is
    cross-fitted over the other networks, and is at least that of the given correction. with_cache:
    see `fit`.
    """
    nets = np.array([net.codes for net in correction.validation.nets], dtype=np.int16)
    ms = np.array([net.measured_ms for net in correction.validation.nets])
    inside = space.validate(nets)
    everything = np.concatenate([nets[inside], codes])
    measured = np.concatenate([ms[inside], measured_ms])
    sums = NetworkSums(rows, space, everything, correction.repeats_once)
    errors = measured / cross_fit(sums, measured, with_cache=with_cache) - 1
    fitted = fit(sums, measured, with_cache=with_cache)
    return replace(
        correction,
        coefficients=dict(fitted.coefficients),
        spill=fitted.spill,
        interval_fraction=max(correction.interval_fraction, conformal_quantile(errors, 0.9)),
        n_fit=len(everything),
    )


def as_sums(table: LatencyTable, space: SearchSpace) -> LatencyTable:
    """The table, changed if necessary such that its estimates for `space` are sums over operators.

    They are not if the correction for `space` has a cache that only some networks fit. Then the
    correction is fitted again to its own networks, without such a cache. If the correction belongs
    to another space, it is changed such that no network fits the cache.
    """
    key = table.correction_for(space)
    correction = None if key is None else table.corrections[key]
    spill = None if correction is None else correction.spill
    if key is None or correction is None or spill is None or not spill.params_cached:
        return table
    if key == space.id:
        no_more = space.codes([]), np.empty(0)
        changed = refit_correction(correction, table.rows, space, *no_more, with_cache=False)
    else:
        changed = replace(correction, spill=replace(spill, params_cached=0.0))
    return replace(table, corrections={**table.corrections, key: changed})
