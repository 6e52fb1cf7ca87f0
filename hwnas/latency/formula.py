"""The formula of a correction: the terms of a whole network's latency.

    overhead_ms + scale * sum(hot) + root_scale * sum(sqrt(hot)) + cold_scale * sum(cold)
                + spill_scale * share(params) * sum(max(0, params / params_per_ms - hot))

Rows count twice: as timed over and over (hot), and as timed in cold caches. In a network an
operator finds its caches somewhere between: full of the network's other weights where it is large,
warm where all of it fits. Small operators lose more by it than large ones, hence the square roots.

The last term is what weights cost that do not fit a cache beside the network's others: each run
reads them anew, at `params_per_ms`, where arithmetic does not hide it (a roofline, Williams et al.,
CACM 2009, whose roof is the next memory). It sets in over `RAMP` around the size of the cache.
Small images make it large: subnets of MobileNetV2 at 28 to 48 px are estimated to 1.3 % with it and
to 5.6 % without (docs/results.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hwnas.core.errors import UserError
from hwnas.interfaces import FloatArray
from hwnas.latency.correction import Spill
from hwnas.latency.samples import Timing
from hwnas.spaces.cost import op_macs, op_params
from hwnas.spaces.index import op_sum
from hwnas.spaces.ops import OpSpec
from hwnas.spaces.space import Codes, SearchSpace

__all__ = ["Formula", "Prices", "spill_share", "spilled_ms"]

RAMP = 0.15  # of the cache's size: caches do not replace strictly in turn


@dataclass(frozen=True)
class Prices:
    """What operators add to a network, in ms [ops]: `always`, and `spilled` times `spill_share`."""

    always: FloatArray
    spilled: FloatArray
    params: FloatArray
    spill: Spill | None

    @property
    def full(self) -> FloatArray:
        """[ops]: in a network of which nothing stays in the cache."""
        return self.always + self.spilled

    def of(self, space: SearchSpace, codes: Codes) -> FloatArray:
        """[n]: what all operators of a network add up to; these are of `enumerate_ops(space)`."""
        if self.spill is None or not self.spill.params_cached:
            return op_sum(space, codes, self.full)
        share = spill_share(self.spill, op_sum(space, codes, self.params))
        total: FloatArray = op_sum(space, codes, self.always)
        total += share * op_sum(space, codes, self.spilled)
        return total


@dataclass(frozen=True)
class Formula:
    """Coefficients by name, and the cache of `spill_scale` where there is one."""

    coefficients: Mapping[str, float]
    spill: Spill | None = None

    def prices(self, rows: Mapping[OpSpec, Timing], ops: Sequence[OpSpec]) -> Prices:
        """Of operators that have a row.

        Raises:
            UserError: `cold_scale` is asked for, and a row has no cold timing.
        """
        scale, cold_scale = (self.coefficients.get(n, 0.0) for n in ("scale", "cold_scale"))
        if cold_scale and any(rows[op].cold_ms is None for op in ops):
            raise UserError("the correction needs cold timings, which some rows lack")
        hot = np.array([rows[op].median_ms for op in ops])
        cold = np.array([rows[op].cold_ms or 0.0 for op in ops])
        macs = np.array([op_macs(op) for op in ops]) / 1e6
        params = np.array([op_params(op) for op in ops], dtype=np.float64)
        always: FloatArray = scale * hot + self.coefficients.get("root_scale", 0.0) * np.sqrt(hot)
        always += cold_scale * cold + self.coefficients.get("ms_per_million_macs", 0.0) * macs
        spilled = np.zeros(len(ops))
        if self.spill is not None:
            reads = spilled_ms(params, hot, self.spill.params_per_ms)
            spilled = self.coefficients["spill_scale"] * reads
        return Prices(always, spilled, params, self.spill)


def spilled_ms(params: FloatArray, hot_ms: FloatArray, rate: float) -> FloatArray:
    """[ops]: ms by which reading an operator's weights at `rate` outlasts its arithmetic."""
    found: FloatArray = np.maximum(params / rate - hot_ms, 0.0)
    return found


def spill_share(spill: Spill, params: FloatArray) -> FloatArray:
    """[n]: the share of its weights, 0 to 1, that a network of `params` [n] reads anew in a run."""
    if not spill.params_cached:
        return np.ones(len(params))
    over = np.clip((params / spill.params_cached - 1) / RAMP, -50.0, 50.0)
    share: FloatArray = 1 / (1 + np.exp(-over))
    return share
