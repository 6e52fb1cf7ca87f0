"""Fits non-negative, regularised rows to whole networks; validated by cross-fitting.

The latency of network i is the sum of the rows of its operators. The starting price of an operator
is linear in its MACs, its activations and a constant. These three coefficients are fitted to the
same networks (a smooth roofline). The rows minimise

    sum_i h((ms_i - sum_o n_io w_o) / ms_i) + strength sum_o ((w_o - start_o) / start_o)^2
    subject to  w_o >= `MIN_SHARE` start_o

`h` is Huber's loss, because phones throttle and a few timings are several times too slow.
`strength` is one of five values, selected once on a fifth of the networks. All rows are positive.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwnas.core.errors import UserError
from hwnas.core.rng import rng
from hwnas.core.stats import Z80, conformal_quantile, require_positive
from hwnas.interfaces import FloatArray
from hwnas.latency.baselines import forest_on_counts
from hwnas.latency.correction import Correction, NetTiming, Validation
from hwnas.latency.samples import Timing
from hwnas.latency.validation import fit_quality
from hwnas.spaces.cost import cost, op_macs
from hwnas.spaces.index import enumerate_ops
from hwnas.spaces.ops import OpSpec
from hwnas.spaces.space import Codes, SearchSpace

__all__ = ["FittedRows", "fit_rows", "fit_table", "starting_prices"]

MIN_SHARE = 0.01
STRENGTHS = (0.001, 0.01, 0.1, 1.0, 10.0)
N_FOLDS = 5
N_REWEIGHTINGS = 3
HUBER = 1.5  # robust standard deviations; efficiency 0.964 on normal errors
N_STORED = 60  # networks stored in the validation of a table, out of thousands
MIN_NETWORKS = 50


@dataclass(frozen=True)
class FittedRows:
    """Prices [p] of operators and their standard errors [p], in ms."""

    ms: FloatArray
    std_ms: FloatArray


def fit_table(
    space: SearchSpace, codes: Codes, counts: FloatArray, measured_ms: FloatArray, *, seed: int = 0
) -> tuple[dict[OpSpec, Timing], Correction]:
    """Rows and a validated correction from networks `codes` [n, d] with operator counts [n, p].

    The correction leaves sums unchanged. The validation is cross-fitted over all n networks;
    `N_STORED` of these networks are stored. Repeat noise is unknown. `p95_factor` is a quantile
    over networks: 95 % of all timings are below this multiple of their estimate.

    Raises:
        UserError: too few networks, or latencies that are not positive and finite.
    """
    if len(codes) < MIN_NETWORKS:
        raise UserError(
            "too few networks to infer operator latencies",
            expected=f"at least {MIN_NETWORKS} networks",
            found=f"{len(codes)} networks",
        )
    require_positive(measured_ms, "latencies of networks must be positive and finite")
    ops = enumerate_ops(space)
    fold = rng(seed, "fitted/folds").permutation(len(codes)) % N_FOLDS
    strength = _choose_strength(ops, counts, measured_ms, fold)
    estimates = np.empty(len(codes))
    for number in range(N_FOLDS):
        inside = fold == number
        fitted = fit_rows(ops, counts[~inside], measured_ms[~inside], strength)
        estimates[inside] = counts[inside] @ fitted.ms
    final = fit_rows(ops, counts, measured_ms, strength)
    p95_factor = max(1.0, float(np.quantile(measured_ms / estimates, 0.95)))
    rows = _timings(ops, final, (counts > 0).sum(axis=0), p95_factor)
    macs = cost(space, codes, "macs") / 1e6
    raw = counts @ starting_prices(ops, counts, measured_ms)
    stored = np.argsort(measured_ms, kind="stable")[
        np.linspace(0, len(codes) - 1, min(N_STORED, len(codes))).astype(int)
    ]
    return rows, Correction(
        coefficients={"scale": 1.0},
        interval_fraction=conformal_quantile(measured_ms / estimates - 1, 0.9),
        p95_factor=p95_factor,
        n_fit=len(codes),
        fingerprint=space.fingerprint,
        validation=Validation(
            forecast=fit_quality(estimates, measured_ms),
            raw_sum=fit_quality(raw, measured_ms),
            macs_line=fit_quality(_line(macs, measured_ms, fold), measured_ms),
            forest=fit_quality(forest_on_counts(counts, measured_ms, fold), measured_ms),
            repeat_mape=None,
            repeat_tau=None,
            nets=tuple(
                NetTiming(
                    tuple(int(c) for c in codes[i]),
                    _rounded(measured_ms[i]),
                    _rounded(estimates[i]),
                )
                for i in stored
            ),
        ),
    )


def _timings(
    ops: tuple[OpSpec, ...], fitted: FittedRows, n_networks: NDArray[np.intp], p95_factor: float
) -> dict[OpSpec, Timing]:
    """Fitted rows in the form of measured rows, with the percentiles of a normal distribution."""
    return {
        op: Timing(
            median_ms=_rounded(ms),
            p10_ms=_rounded(max(ms - Z80 * std, 0.0)),
            p90_ms=_rounded(ms + Z80 * std),
            p95_ms=_rounded(max(ms * p95_factor, ms)),
            n=max(1, int(n)),
        )
        for op, ms, std, n in zip(ops, fitted.ms, fitted.std_ms, n_networks, strict=True)
    }


def fit_rows(
    ops: tuple[OpSpec, ...], counts: FloatArray, measured_ms: FloatArray, strength: float
) -> FittedRows:
    """Fits one price per operator to the latencies of networks, see the module.

    counts: [n, p], how often each network contains each of `ops`.
    measured_ms: [n].
    strength: weight of the term that keeps prices near their starting values.
    """
    start = starting_prices(ops, counts, measured_ms)
    shares = counts * start / measured_ms[:, None]  # [n, p]: shares of time at the start
    multiples, curvature, noise = _solve(shares, strength)
    spread = np.sqrt(noise * np.diag(np.linalg.inv(curvature)))
    return FittedRows(ms=start * multiples, std_ms=start * spread)


def _choose_strength(
    ops: tuple[OpSpec, ...],
    counts: FloatArray,
    measured_ms: FloatArray,
    fold: NDArray[np.int64],
) -> float:
    """The strength with the lowest median error on the first fold."""
    test = fold == 0
    errors = []
    for strength in STRENGTHS:
        fitted = fit_rows(ops, counts[~test], measured_ms[~test], strength)
        estimates = counts[test] @ fitted.ms
        errors.append(float(np.median(np.abs(estimates / measured_ms[test] - 1))))
    return STRENGTHS[int(np.argmin(errors))]


def starting_prices(
    ops: tuple[OpSpec, ...], counts: FloatArray, measured_ms: FloatArray
) -> FloatArray:
    """Starting prices [p]: linear in MACs, activations and a constant, fitted to all networks."""
    from scipy.optimize import nnls

    costs = np.array(
        [
            (
                1.0,
                op_macs(op),
                op.in_channels * op.in_hw**2
                + op.mid_channels * (op.in_hw**2 + op.out_hw**2)
                + op.out_channels * op.out_hw**2,
            )
            for op in ops
        ]
    )
    costs /= costs.mean(axis=0)
    prices, _ = nnls(counts @ costs / measured_ms[:, None], np.ones(len(measured_ms)))
    start: FloatArray = costs @ prices
    floor: FloatArray = np.maximum(start, 1e-3 * start.mean())
    return floor


def _solve(shares: FloatArray, strength: float) -> tuple[FloatArray, FloatArray, float]:
    """Multiples [p] of the starting prices, the curvature [p, p], and the variance of the noise."""
    from scipy.optimize import minimize

    n_ops = shares.shape[1]
    multiples, weight = np.ones(n_ops), np.ones(len(shares))
    gram, noise = np.eye(n_ops), 0.0
    for _ in range(N_REWEIGHTINGS):
        weighted = shares * weight[:, None]
        gram = weighted.T @ shares + strength * np.eye(n_ops)
        target = weighted.sum(axis=0) + strength
        found = minimize(
            lambda u, gram=gram, target=target: (
                0.5 * u @ gram @ u - u @ target,
                gram @ u - target,
            ),
            multiples,
            jac=True,
            method="L-BFGS-B",
            bounds=[(MIN_SHARE, None)] * n_ops,
            options={"maxiter": 300},
        )
        multiples = found.x
        residuals = shares @ multiples - 1
        deviation = max(float(np.median(np.abs(residuals))) / 0.6745, 1e-6)
        weight = np.minimum(1.0, HUBER * deviation / np.maximum(np.abs(residuals), 1e-12))
        noise = deviation**2
    return multiples, gram, noise


def _quadratic(
    multiples: FloatArray, gram: FloatArray, target: FloatArray
) -> tuple[float, FloatArray]:
    """Value and gradient of half the loss, without its constant."""
    slope = gram @ multiples
    return float(multiples @ (0.5 * slope - target)), slope - target


def _line(macs: FloatArray, measured_ms: FloatArray, fold: NDArray[np.int64]) -> FloatArray:
    """Latencies [n] from a line on MACs, fitted without the fold of the network."""
    estimates = np.empty(len(macs))
    for number in range(int(fold.max()) + 1):
        inside = fold == number
        estimates[inside] = np.polyval(
            np.polyfit(macs[~inside], measured_ms[~inside], 1), macs[inside]
        )
    return estimates


def _rounded(value: float) -> float:
    return float(f"{value:.5g}")
