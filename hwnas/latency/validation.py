"""Corrections from sums of rows to whole networks, fitted on and proven with measured networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from hwnas.core.errors import UserError
from hwnas.core.stats import conformal_quantile, kendall_tau, spearman
from hwnas.interfaces import FloatArray
from hwnas.latency.samples import Timing
from hwnas.latency.table import Correction, Fit, NetTiming, Validation
from hwnas.spaces.cost import cost
from hwnas.spaces.ops import OpSpec, enumerate_ops, op_index
from hwnas.spaces.space import Codes, SearchSpace

__all__ = ["apply", "features", "fit_correction", "fit_quality", "row_sum"]

Form = tuple[str, ...]

LINE: Form = ("overhead_ms", "scale")
LINE_AND_DEPTH: Form = ("overhead_ms", "scale", "ms_per_op")
"""Long networks of ever different operators lose more than their sum: the branch predictor learns
a micro-net by heart. Measured on mobilenet_tiny: MAPE 1.5 % instead of 2.4 % from 7 to 13 ops."""

MACS_LINE: Form = ("overhead_ms", "ms_per_million_macs")
CLEAR_WIN = 0.9  # the larger form must bring the cross-fitted MAPE below this part of the line's
MAX_FOLDS = 10
MIN_NETS = 4


def row_sum(rows: Mapping[OpSpec, Timing], space: SearchSpace, codes: Codes) -> FloatArray:
    """[n]: sum of the medians of every arch's rows."""
    prices = np.array([*(rows[op].median_ms for op in enumerate_ops(space)), 0.0])
    total: FloatArray = prices[op_index(space, codes)].sum(axis=1)
    return total


def features(sums_ms: FloatArray, space: SearchSpace, codes: Codes) -> dict[str, FloatArray]:
    """[n] by coefficient name: what corrections are made of."""
    return {
        "scale": sums_ms,
        "overhead_ms": np.ones(len(codes)),
        "ms_per_op": (op_index(space, codes) >= 0).sum(axis=1).astype(np.float64),
        "ms_per_million_macs": cost(space, codes, "macs") / 1e6,
    }


def apply(coefficients: Mapping[str, float], values: Mapping[str, FloatArray]) -> FloatArray:
    """[n]: forecasts."""
    return sum((c * values[name] for name, c in coefficients.items()), np.zeros(1))


def fit_correction(
    rows: Mapping[OpSpec, Timing],
    space: SearchSpace,
    codes: Codes,
    timings: Sequence[Timing],
    halves: tuple[FloatArray, FloatArray],
) -> Correction:
    """Fit on all measured networks `codes`; validate by cross-fitting.

    halves: the networks' latencies [n] from two halves of the rounds.

    Raises:
        UserError: fewer than four networks.
    """
    if len(codes) < MIN_NETS:
        raise UserError("too few networks for a correction", expected=MIN_NETS, found=len(codes))
    measured = np.array([timing.median_ms for timing in timings])
    sums = row_sum(rows, space, codes)
    values = features(sums, space, codes)
    form, forecast = LINE, _cross_fit(LINE, values, measured)
    rival = _cross_fit(LINE_AND_DEPTH, values, measured)
    if fit_quality(rival, measured).mape < CLEAR_WIN * fit_quality(forecast, measured).mape:
        form, forecast = LINE_AND_DEPTH, rival
    return Correction(
        coefficients=_fit(form, values, measured),
        interval_fraction=conformal_quantile(measured / forecast - 1, 0.9),
        p95_factor=float(np.median([timing.p95_ms / timing.median_ms for timing in timings])),
        n_fit=len(codes),
        fingerprint=space.fingerprint,
        validation=Validation(
            forecast=fit_quality(forecast, measured),
            raw_sum=fit_quality(sums, measured),
            macs_line=fit_quality(_cross_fit(MACS_LINE, values, measured), measured),
            repeat_mape=fit_quality(*halves).mape,
            repeat_tau=kendall_tau(*halves),
            nets=tuple(
                NetTiming(tuple(int(c) for c in row), float(ms), round(float(guess), 9))
                for row, ms, guess in zip(codes, measured, forecast, strict=True)
            ),
        ),
    )


def fit_quality(forecast: FloatArray, measured: FloatArray) -> Fit:
    """Errors relative to `measured`, and rank agreement."""
    errors = np.abs(forecast / measured - 1)
    return Fit(
        mape=float(errors.mean()),
        p95=float(np.quantile(errors, 0.95)),
        max=float(errors.max()),
        spearman=spearman(forecast, measured),
        kendall_tau=kendall_tau(forecast, measured),
    )


def _fit(form: Form, values: Mapping[str, FloatArray], measured: FloatArray) -> dict[str, float]:
    """Least squares of the relative errors with non-negative terms: nothing can save time.

    Every term but the scale counts from its least value among the networks; the constants are then
    gathered in `overhead_ms`, which may thus come out negative.
    """
    from scipy.optimize import nnls

    least = {name: 0.0 if name in LINE else float(values[name].min()) for name in form}
    columns = [(values[name] - least[name]) / measured for name in form]
    solution = nnls(np.stack(columns, axis=1), np.ones(len(measured)))[0]
    coefficients = {name: float(value) for name, value in zip(form, solution, strict=True)}
    coefficients["overhead_ms"] -= sum(coefficients[name] * least[name] for name in form)
    return coefficients


def _cross_fit(form: Form, values: Mapping[str, FloatArray], measured: FloatArray) -> FloatArray:
    """Forecast of every network by a fit on the other folds; folds are spread over the sizes."""
    n = len(measured)
    fold: NDArray[np.int64] = np.empty(n, dtype=np.int64)
    fold[np.argsort(measured, kind="stable")] = np.arange(n) % min(n, MAX_FOLDS)
    forecast = np.empty(n)
    for number in range(fold.max() + 1):
        inside = fold == number
        coefficients = _fit(
            form, {name: column[~inside] for name, column in values.items()}, measured[~inside]
        )
        forecast[inside] = apply(
            coefficients, {name: column[inside] for name, column in values.items()}
        )
    return forecast
