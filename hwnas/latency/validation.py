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
from hwnas.spaces.index import enumerate_ops, op_sum
from hwnas.spaces.ops import OpSpec
from hwnas.spaces.space import Codes, SearchSpace

__all__ = ["apply", "features", "fit_correction", "fit_quality", "row_sum"]

Form = tuple[str, ...]

LINE: Form = ("overhead_ms", "scale")
MACS_LINE: Form = ("overhead_ms", "ms_per_million_macs")
MAX_FOLDS = 10
MIN_NETS = 4


def row_sum(rows: Mapping[OpSpec, Timing], space: SearchSpace, codes: Codes) -> FloatArray:
    """[n]: sum of the medians of every arch's rows."""
    prices = np.array([rows[op].median_ms for op in enumerate_ops(space)])
    total: FloatArray = op_sum(space, codes, prices)
    return total


def features(sums_ms: FloatArray, space: SearchSpace, codes: Codes) -> dict[str, FloatArray]:
    """[n] by coefficient name: what corrections are made of."""
    return {
        "scale": sums_ms,
        "overhead_ms": np.ones(len(codes)),
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
    """A line on sums of rows, fitted on all measured networks `codes`, proven by cross-fitting.

    Measured on mobilenet_tiny at 16-24 px, 30 networks: MAPE 0.65 %, p95 1.6 % (line on MACs:
    5.7 %) at a repeat noise of 0.2 %; 1.2 % and 3.4 % beside three busy processes on two cores.
    Terms for MACs or the number of ops added nothing.

    halves: the networks' latencies [n] from two halves of the rounds.

    Raises:
        UserError: fewer than four networks.
    """
    if len(codes) < MIN_NETS:
        raise UserError("too few networks for a correction", expected=MIN_NETS, found=len(codes))
    measured = np.array([timing.median_ms for timing in timings])
    sums = row_sum(rows, space, codes)
    values = features(sums, space, codes)
    forecast = _cross_fit(LINE, values, measured)
    return Correction(
        coefficients=_fit(LINE, values, measured),
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
    """Least squares of the relative errors; no term is negative, as nothing can save time."""
    from scipy.optimize import nnls

    matrix = np.stack([values[name] / measured for name in form], axis=1)
    solution = nnls(matrix, np.ones(len(measured)))[0]
    return dict(zip(form, (float(value) for value in solution), strict=True))


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
