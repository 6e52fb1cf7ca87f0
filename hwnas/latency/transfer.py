"""Estimates a new device from few networks: a Gaussian process with other devices as prior.

Latencies of the known devices, each divided by its median, have a weighted mean `mu(x)` over
networks x. The model of the new device scales this mean:

    ms(x) = s mu(x) (1 + k + sum_d z_d v_d(x) + sum_o w_o c_o(x))

`v_d` is the relative deviation of known device d from the mean: the low-rank part, with one weight
per known device. `c_o` is the count of operator o divided by mu(x): the part specific to the new
device. Weights of operators with similar kind, shape and kernel are correlated. All weights are
normal, so estimates, their spread and the rows of a table have a closed form. The noise of the
timings and the specificity of the device are averaged over a small grid, weighted by the evidence.
The specificity is larger if few devices are known (docs/results.md has the comparison).
A timing that contradicts the others (phones throttle) is treated as an outlier with low weight.

The networks to time depend only on the prior: they minimise the variance over a pool of candidates
(Cohn et al. 1996, "Active learning with statistical models", section 4).

Leave-one-device-out, 10 timings, mean Spearman on data/latency_nasbench201 | data/latency_fbnet
(`benchmarks/latency_transfer.py`, 3 seeds), known devices smoothed (`smoothing.py`): 0.973 | 0.944.
The best single device: 0.945 | 0.912. Alternatives on raw sources (this model: 0.964 | 0.937):

- without averaging over the grid, three ways to select networks: at random 0.943 | 0.878, by
  maximum variance (D-optimal) 0.955 | 0.923, by minimum remaining variance 0.955 | 0.925;
- log latency instead of ratios: 0.961 | 0.933, but it gives no table of rows;
- Student-t noise instead of outliers: 0.965 | 0.934, more sensitive to the pool;
- a free weight on 1 / mu for launch overhead: 0.964 | 0.934, worse on a phone with outliers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from hwnas.core.errors import UserError
from hwnas.core.stats import Z90, require_positive
from hwnas.interfaces import FloatArray
from hwnas.latency.smoothing import additive_rows
from hwnas.spaces.ops import OpSpec

__all__ = [
    "DeviceEstimate",
    "DevicePrior",
    "choose_networks",
    "device_prior",
    "fit_device",
    "operator_similarity",
]

NOISE = (1e-4, 1e-3, 1e-2)  # variances of a timing relative to its latency: 1 %, 3 %, 10 %
PARTICULAR = (0.003, 0.03, 0.3)  # operator variance / variance between `N_KNOWN` known devices
N_KNOWN = 10  # with fewer devices, this variance is larger in proportion
MIN_SPREAD = 0.1  # minimum relative spread between devices, for a single known device
OUTLIER_RATE = 0.02
OUTLIER_VARIANCE = 1.0  # variance of an outlier relative to its latency
SIMILARITY_LENGTH = 2.0  # in octaves of channels and map size
MIN_SHARE = 0.01


@dataclass(frozen=True)
class DevicePrior:
    """Prior distribution of the latencies of n networks on a new device.

    Up to a factor, they are mu * (1 + features @ w). The coefficients w [q] are independent and
    normal with mean 0 and standard deviations `scales`.

    mu: mean over the known devices of the latencies divided by their median, [n].
    features: factors of w, [n, q]. The last `n_particular` are effects specific to the new device.
    rows: latencies of the p operators in the units of `mu` are rows @ (1, w): [p, 1 + q].
    n_known: number of known devices, not counting batch sizes.
    """

    mu: FloatArray
    features: FloatArray
    n_particular: int
    rows: FloatArray
    n_known: int

    @property
    def particulars(self) -> tuple[float, ...]:
        """Hypotheses on the variance of effects of the new device; larger if few are known."""
        return tuple(N_KNOWN / self.n_known * variance for variance in PARTICULAR)

    def scales(self, particular: float) -> FloatArray:
        """Standard deviations [q] of the coefficients; `particular`: variance of the last ones."""
        shared = self.features.shape[1] - self.n_particular
        variances = np.concatenate([np.ones(shared), np.full(self.n_particular, particular)])
        deviations: FloatArray = np.sqrt(variances)
        return deviations


@dataclass(frozen=True)
class DeviceEstimate:
    """Estimates for the new device, from its timings.

    latency_ms, std_ms: mean and standard deviation of a timing of every network of the prior, [n].
    rows_ms, rows_std_ms: the same for every operator, [p]. A row is at least `MIN_SHARE` of its
        prior mean.
    """

    latency_ms: FloatArray
    std_ms: FloatArray
    rows_ms: FloatArray
    rows_std_ms: FloatArray

    def interval_ms(self) -> FloatArray:
        """90 % interval of a timing of every network in ms, [n, 2]."""
        half = Z90 * self.std_ms
        return np.stack([np.maximum(self.latency_ms - half, 0.0), self.latency_ms + half], axis=1)


def operator_similarity(ops: Sequence[OpSpec]) -> FloatArray:
    """Prior correlation [p, p] of the costs of operators, relative to other devices.

    It is a squared exponential of the distance between two operators in kind, kernels, stride, and
    the logarithms of channels, map size and groups.
    """
    kinds = sorted({op.kind for op in ops})
    points = np.array(
        [
            [
                *(SIMILARITY_LENGTH * (op.kind == kind) for kind in kinds),
                *np.log2([op.in_channels, op.out_channels, op.mid_channels + 1.0]),
                *np.log2([op.in_hw, op.groups, op.expand_groups]),
                op.kernel / 2,
                op.start_kernel / 2,
                op.stride,
                op.se_channels > 0,
            ]
            for op in ops
        ],
        dtype=np.float64,
    )
    squares = ((points[:, None] - points[None]) ** 2).sum(axis=2)
    correlation: FloatArray = np.exp(-0.5 * squares / SIMILARITY_LENGTH**2)
    return correlation


def device_prior(
    counts: FloatArray,
    known_ms: FloatArray,
    groups: Sequence[str],
    relatedness: FloatArray,
    *,
    known_rows: FloatArray | None = None,
) -> DevicePrior:
    """The prior from known devices.

    counts: how often every operator occurs in every network, [n, p].
    known_ms: latencies of the same networks on the known devices, [n, d].
    groups: [d]; devices of one group (batch sizes of one GPU) share one vote.
    relatedness: [p, p], from `operator_similarity`.
    known_rows: prices of the operators in ms, [p, d]; by default those that explain `known_ms`
        best.

    Raises:
        UserError: no device, or a latency that is not positive and finite.
    """
    if known_ms.shape[1] == 0:
        raise UserError("no timings of known devices", expected="at least one device", found="none")
    require_positive(known_ms, "latencies of known devices must be positive and finite")
    shares = np.array([1 / list(groups).count(group) for group in groups])
    shares /= shares.sum()
    relative = known_ms / np.median(known_ms, axis=0)
    mu = relative @ shares
    departures = relative / mu[:, None] - 1
    v_mean = departures.mean(axis=0)
    device = (departures - v_mean) * np.sqrt(shares)
    spread = max(float((device**2).sum(axis=1).mean()), MIN_SPREAD**2)

    per_op = counts / mu[:, None]
    c_mean = per_op.mean(axis=0)
    values, vectors = np.linalg.eigh(relatedness)
    root = vectors * np.sqrt(np.clip(values, 0.0, None))
    particular = (per_op - c_mean) @ root
    unit = np.sqrt(spread / max(float((particular**2).sum(axis=1).mean()), 1e-12))
    features = np.concatenate([np.ones((len(mu), 1)), device, unit * particular], axis=1)

    rows_ms = additive_rows(counts, known_ms) if known_rows is None else known_rows
    relative_rows = rows_ms / np.median(known_ms, axis=0)
    mean_row = relative_rows @ shares
    rows = np.concatenate(
        [
            np.stack([mean_row, mean_row], axis=1),
            (relative_rows - mean_row[:, None] * (1 + v_mean)) * np.sqrt(shares),
            unit * (root - np.outer(mean_row, c_mean @ root)),
        ],
        axis=1,
    )
    return DevicePrior(mu, features, root.shape[1], rows, len(set(groups)))


def choose_networks(
    prior: DevicePrior, n: int, pool: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    """Indices of the n networks to time, chosen greedily to minimise the variance over the pool.

    pool: indices [m] of the candidates; default: all. No timing of the new device is used.
    """
    pool = np.arange(len(prior.mu)) if pool is None else pool
    if n > len(pool):
        found = f"{len(pool)} networks"
        raise UserError("too few networks to choose from", expected=f"at least {n}", found=found)
    noise, particular = (float(np.median(grid)) for grid in (NOISE, prior.particulars))
    scaled = prior.features[pool] * prior.scales(particular)
    covariance = scaled @ scaled.T
    free = np.ones(len(pool), dtype=bool)
    chosen: list[int] = []
    for _ in range(n):
        centred = covariance - covariance.mean(axis=0)
        gain = (centred**2).mean(axis=0) / (np.diag(covariance) + noise)
        best = int(np.where(free, gain, -1.0).argmax())
        free[best] = False
        chosen.append(best)
        column = covariance[:, best]
        covariance = covariance - np.outer(column, column) / (covariance[best, best] + noise)
    return pool[chosen]


def fit_device(
    prior: DevicePrior, timed: NDArray[np.int64], measured_ms: FloatArray
) -> DeviceEstimate:
    """Estimates for all networks of the prior from `measured_ms` [m] of the networks `timed` [m].

    Raises:
        UserError: fewer than three timings, or one that is not positive and finite.
    """
    if (n := len(timed)) < 3:
        raise UserError("too few networks timed", expected="at least 3", found=f"{n} networks")
    require_positive(measured_ms, "latencies of networks must be positive and finite")
    scale = float(np.median(measured_ms / prior.mu[timed]))
    target = measured_ms / (scale * prior.mu[timed]) - 1
    evidences: list[float] = []
    ratios: list[FloatArray] = []
    variances: list[FloatArray] = []
    rows: list[FloatArray] = []
    row_variances: list[FloatArray] = []
    for noise, particular in product(NOISE, prior.particulars):
        scales = prior.scales(particular)
        features = prior.features * scales
        seen = features[timed]
        covariance, evidence = _with_outliers(seen @ seen.T + noise * np.eye(len(timed)), target)
        inverse = np.linalg.inv(covariance)
        weights = seen.T @ (inverse @ target)
        evidences.append(evidence)
        for matrix, offset, means, spreads, extra in (
            (features, 0.0, ratios, variances, noise),
            (prior.rows[:, 1:] * scales, prior.rows[:, 0], rows, row_variances, 0.0),
        ):
            known = matrix @ seen.T
            left = (matrix**2).sum(axis=1) - ((known @ inverse) * known).sum(axis=1)
            means.append(offset + matrix @ weights)
            spreads.append(np.maximum(left, 0.0) + extra)
    belief = np.exp(np.array(evidences) - max(evidences))
    belief /= belief.sum()
    ratio, std = _mixture(belief, np.array(ratios), np.array(variances))
    row, row_std = _mixture(belief, np.array(rows), np.array(row_variances))
    size = scale * prior.mu
    return DeviceEstimate(
        latency_ms=size * np.maximum(1 + ratio, 0.01),
        std_ms=size * std,
        rows_ms=scale * np.maximum(row, MIN_SHARE * np.abs(prior.rows[:, 0])),
        rows_std_ms=scale * row_std,
    )


def _with_outliers(covariance: FloatArray, target: FloatArray) -> tuple[FloatArray, float]:
    """Covariance with the variance of outliers added if that increases the evidence; log evidence.

    Greedy: one outlier at a time, the clearest first; at most a third of the timings.
    """
    covariance = covariance.copy()
    _, log_det = np.linalg.slogdet(covariance)
    evidence = -0.5 * float(target @ np.linalg.solve(covariance, target)) - 0.5 * float(log_det)
    for _ in range(len(target) // 3):
        inverse = np.linalg.inv(covariance)
        leverage = OUTLIER_VARIANCE * np.diag(inverse)
        gain = 0.5 * OUTLIER_VARIANCE * (inverse @ target) ** 2 / (1 + leverage)
        gain += np.log(OUTLIER_RATE / (1 - OUTLIER_RATE)) - 0.5 * np.log1p(leverage)
        worst = int(gain.argmax())
        if gain[worst] <= 0:
            break
        covariance[worst, worst] += OUTLIER_VARIANCE
        evidence += float(gain[worst])
    return covariance, evidence


def _mixture(
    belief: FloatArray, means: FloatArray, variances: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Mean and standard deviation [k] of a mixture of normals [h, k] with weights [h]."""
    mean = belief @ means
    return mean, np.sqrt(belief @ (variances + (means - mean) ** 2))
