"""90 % intervals of estimates for networks unlike those that a correction was fitted on.

In the space of the correction, its one `interval_fraction` holds on average over all sizes. A
sub-space may lie where errors are larger (small networks, mostly), and another space may leave the
range of sizes that was timed. There the interval is

- that fraction, or more, where the 20 timed networks nearest in size ask for more (a conformal
  quantile of them alone), and
- wider beyond the smallest and the largest network timed: an octave away, nothing more is known
  than how far raw sums of rows are off.
"""

from __future__ import annotations

import numpy as np

from hwnas.core.stats import conformal_quantile
from hwnas.interfaces import FloatArray
from hwnas.latency.correction import Correction

__all__ = ["local_fraction", "raw_sum_fraction"]

N_NEAREST = 20
LEVEL = 0.9


def raw_sum_fraction(correction: Correction) -> float:
    """How far a network may be from its raw sum of rows, as a fraction of that sum.

    From the largest error seen, which is a fraction of the network; inf where sums were too large
    by as much as the network or more.
    """
    error = correction.validation.raw_sum.max
    return error / (1 - error) if error < 1 else np.inf


def local_fraction(correction: Correction, estimate_ms: FloatArray) -> FloatArray:
    """[n]: half-width of the 90 % interval over the estimate, for networks of other spaces."""
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
    middles = (size[:-n] + size[n:]) / 2  # from here on the next n networks are nearer
    fraction = np.maximum(fraction, quantiles[np.searchsorted(middles, wanted)])
    beyond = np.maximum(np.log(measured.min()) - wanted, wanted - np.log(measured.max()))
    octaves = np.clip(beyond / np.log(2), 0.0, 1.0)
    known = raw_sum_fraction(correction)
    fraction[octaves > 0] += octaves[octaves > 0] * known  # which may be inf
    return fraction
