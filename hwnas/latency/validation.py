"""Corrections from sums of rows to whole networks, fitted on and proven with measured networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hwnas.core.errors import UserError
from hwnas.core.stats import conformal_quantile, kendall_tau, spearman
from hwnas.interfaces import FloatArray
from hwnas.latency.baselines import forest_on_counts
from hwnas.latency.correction import Correction, Fit, NetTiming, Validation
from hwnas.latency.samples import Timing
from hwnas.spaces.cost import cost, op_macs
from hwnas.spaces.index import enumerate_ops, op_counts, op_sum
from hwnas.spaces.ops import OpSpec
from hwnas.spaces.space import Codes, SearchSpace

__all__ = ["apply", "features", "fit_correction", "fit_quality", "refit_correction", "row_prices"]

Form = tuple[str, ...]

LINE: Form = ("overhead_ms", "scale")
CURVE: Form = (*LINE, "root_scale")
MIXTURE: Form = (*CURVE, "cold_scale")
MACS_LINE: Form = ("overhead_ms", "ms_per_million_macs")
MAX_FOLDS = 10
MIN_NETS = 4
MIN_CURVE_NETS = 12  # from which on more than a line is known well enough


def features(
    rows: Mapping[OpSpec, Timing], space: SearchSpace, codes: Codes
) -> dict[str, FloatArray]:
    """[n] by coefficient name: what corrections are made of.

    `scale`: sum of the rows; `root_scale`: of their square roots; `cold_scale`: of what they take
    in cold caches, where that is known.
    """
    ops = enumerate_ops(space)
    hot = np.array([rows[op].median_ms for op in ops])
    found: dict[str, FloatArray] = {
        "scale": op_sum(space, codes, hot),
        "root_scale": op_sum(space, codes, np.sqrt(hot)),
        "overhead_ms": np.ones(len(codes)),
        "ms_per_million_macs": cost(space, codes, "macs") / 1e6,
    }
    cold = [rows[op].cold_ms for op in ops]
    if None not in cold:
        found["cold_scale"] = op_sum(space, codes, np.array(cold, dtype=np.float64))
    return found


def row_prices(
    rows: Mapping[OpSpec, Timing], ops: Sequence[OpSpec], coefficients: Mapping[str, float]
) -> FloatArray:
    """[len(ops)]: what every operator adds to a forecast; with `overhead_ms`, its whole.

    Raises:
        UserError: `cold_scale` is asked for, and a row has no cold timing.
    """
    scale, cold_scale = coefficients.get("scale", 0.0), coefficients.get("cold_scale", 0.0)
    if cold_scale and any(rows[op].cold_ms is None for op in ops):
        raise UserError("rows without cold timings under a correction that needs them")
    hot = np.array([rows[op].median_ms for op in ops])
    cold = np.array([rows[op].cold_ms or 0.0 for op in ops])
    macs = np.array([op_macs(op) for op in ops]) / 1e6
    root_scale = coefficients.get("root_scale", 0.0)
    ms_per_million_macs = coefficients.get("ms_per_million_macs", 0.0)
    prices: FloatArray = scale * hot + root_scale * np.sqrt(hot)
    prices += cold_scale * cold + ms_per_million_macs * macs
    return prices


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
    """A price per operator, fitted on all measured networks `codes`, proven by cross-fitting.

    Rows count twice: as timed over and over, and as timed in cold caches. In a network an operator
    finds its caches somewhere between: full of the network's other weights where it is large, warm
    where all of it fits. Small operators lose more by it than large ones, hence the square roots;
    how much of each is for the measured networks to say. Every price is positive, so nothing that
    a network has more of makes it faster; only what all have in common may be negative. What was
    tried, with numbers, is in docs/results.md.

    halves: the networks' latencies [n] from two halves of the rounds.

    Raises:
        UserError: fewer than four networks, or operators that do not explain them.
    """
    if len(codes) < MIN_NETS:
        raise UserError("too few networks for a correction", expected=MIN_NETS, found=len(codes))
    measured = np.array([timing.median_ms for timing in timings])
    values = features(rows, space, codes)
    form = _form(values, len(codes))
    forecast = _cross_fit(form, values, measured)
    if forecast.min() <= 0:
        raise UserError(
            "operators do not explain the whole networks that were timed beside them",
            expected="estimates of unseen networks above 0 ms",
            found=f"{forecast.min():.3g} ms for a network that took "
            f"{measured[forecast.argmin()]:.3g} ms",
            where=space.id,
            fix="time more networks (profile.n_validation) or more rounds; timings are kept",
        )
    forest = forest_on_counts(op_counts(space, codes), measured, _folds(measured))
    return Correction(
        coefficients=_fit(form, values, measured),
        interval_fraction=conformal_quantile(measured / forecast - 1, 0.9),
        p95_factor=float(np.median([timing.p95_ms / timing.median_ms for timing in timings])),
        n_fit=len(codes),
        fingerprint=space.fingerprint,
        validation=Validation(
            forecast=fit_quality(forecast, measured),
            raw_sum=fit_quality(values["scale"], measured),
            macs_line=fit_quality(_cross_fit(MACS_LINE, values, measured), measured),
            forest=fit_quality(forest, measured),
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


def _form(values: Mapping[str, FloatArray], n: int) -> Form:
    if n < MIN_CURVE_NETS:
        return LINE
    return MIXTURE if "cold_scale" in values else CURVE


def _fit(form: Form, values: Mapping[str, FloatArray], measured: FloatArray) -> dict[str, float]:
    """Least squares of the relative errors; only the overhead may be negative."""
    from scipy.optimize import nnls

    columns = [values[name] / measured for name in form]
    signed = [*columns, -columns[form.index("overhead_ms")]]
    *solution, negative = nnls(np.stack(signed, axis=1), np.ones(len(measured)))[0].tolist()
    found = dict(zip(form, solution, strict=True))
    found["overhead_ms"] -= negative
    return found


def _cross_fit(form: Form, values: Mapping[str, FloatArray], measured: FloatArray) -> FloatArray:
    """Forecast of every network by a fit on the other folds."""
    fold = _folds(measured)
    forecast = np.empty(len(measured))
    for number in range(fold.max() + 1):
        inside = fold == number
        coefficients = _fit(
            form, {name: column[~inside] for name, column in values.items()}, measured[~inside]
        )
        forecast[inside] = apply(
            coefficients, {name: column[inside] for name, column in values.items()}
        )
    return forecast


def _folds(measured: FloatArray) -> NDArray[np.int64]:
    """[n]: every network's fold; each is spread over all sizes."""
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
) -> Correction:
    """The correction fitted anew, with `codes` [n, d] and their latencies [n] beside its own nets.

    Its nets that a restriction has since removed from the space are left out. The interval is by
    cross-fitting over all that remain, at least that of the correction.
    """
    nets = np.array([net.codes for net in correction.validation.nets], dtype=np.int16)
    ms = np.array([net.measured_ms for net in correction.validation.nets])
    inside = space.validate(nets)
    everything = np.concatenate([nets[inside], codes])
    measured = np.concatenate([ms[inside], measured_ms])
    values = features(rows, space, everything)
    form = _form(values, len(everything))
    errors = measured / _cross_fit(form, values, measured) - 1
    return replace(
        correction,
        coefficients=_fit(form, values, measured),
        interval_fraction=max(correction.interval_fraction, conformal_quantile(errors, 0.9)),
        n_fit=len(everything),
    )
