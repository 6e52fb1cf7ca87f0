"""90 % intervals of estimates in other spaces than the one that a correction was fitted on.

In its own space, the `interval_fraction` of a correction holds on average over all sizes. A
sub-space may contain networks with larger errors (mostly small networks), and another space may
exceed the timed range of sizes. In such spaces the interval is

- that fraction, or the conformal quantile of the 20 timed networks nearest in size, if larger, and
- wider below the smallest and above the largest timed network. One octave away, the largest error
  of raw sums of rows is added.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

from hwnas.core.stats import Z90, conformal_quantile
from hwnas.interfaces import FloatArray
from hwnas.latency.correction import Correction

__all__ = ["local_fraction", "one_sided_share", "raw_sum_fraction"]

N_NEAREST = 20
LEVEL = 0.9
MIN_NETS = 2  # one error has no tail


def raw_sum_fraction(correction: Correction) -> float:
    """Maximum deviation of a network from its raw sum of rows, as a fraction of that sum.

    It follows from the largest known error, which is a fraction of the measured latency. It is inf
    if sums were too large by 100 % or more.
    """
    error = correction.validation.raw_sum.max
    return error / (1 - error) if error < 1 else np.inf


def one_sided_share(correction: Correction, probability: float) -> float:
    """Upper bound of a latency, in half-widths of the 90 % interval above the estimate.

    A latency is below this bound with `probability`, which is in (0.5, 1). The bound is the
    conformal quantile of the signed errors of the held-out networks. With too few of these networks
    for this probability, it is their largest error, continued as the tail of a normal distribution,
    or the bound for normal errors, if larger. The result is never below 0, and never falls with
    `probability`.
    """
    nets = [net for net in correction.validation.nets if net.forecast_ms > 0]
    rank = math.ceil((len(nets) + 1) * probability)
    normal = NormalDist().inv_cdf(probability)
    if len(nets) < MIN_NETS or correction.interval_fraction == 0:
        return normal / Z90
    errors = sorted(net.measured_ms / net.forecast_ms - 1 for net in nets)
    if rank <= len(nets):
        return max(0.0, errors[rank - 1] / correction.interval_fraction)
    largest = errors[-1] / correction.interval_fraction
    beyond = normal / NormalDist().inv_cdf(len(nets) / (len(nets) + 1))
    return max(largest * beyond, normal / Z90)


def local_fraction(correction: Correction, estimate_ms: FloatArray) -> FloatArray:
    """Half-width of the 90 % interval as a fraction of the estimate, [n], in other spaces."""
    fraction: FloatArray = np.full(len(estimate_ms), correction.interval_fraction)
    nets = [net for net in correction.validation.nets if net.forecast_ms > 0]
    if not nets:
        return fraction
    estimated = np.array([net.forecast_ms for net in nets])
    measured = np.array([net.measured_ms for net in nets])
    order = np.argsort(estimated, kind="stable")
    size, errors = np.log(estimated[order]), (measured / estimated - 1)[order]
    n = min(N_NEAREST, len(nets))
    quantiles = np.array(
        [conformal_quantile(errors[i : i + n], LEVEL) for i in range(len(nets) - n + 1)]
    )
    wanted = np.log(estimate_ms)
    middles = (size[:-n] + size[n:]) / 2  # beyond these, the next n networks are nearer
    fraction = np.maximum(fraction, quantiles[np.searchsorted(middles, wanted)])
    beyond = np.maximum(np.log(measured.min()) - wanted, wanted - np.log(measured.max()))
    octaves = np.clip(beyond / np.log(2), 0.0, 1.0)
    known = raw_sum_fraction(correction)
    fraction[octaves > 0] += octaves[octaves > 0] * known  # can be inf
    return fraction
