"""The formula of a correction: the terms of the latency of a whole network.

    overhead_ms + scale * sum(hot) + root_scale * sum(sqrt(hot)) + cold_scale * sum(cold)
                + spill_scale * share(params) * sum(max(0, params / params_per_ms - hot))
                + ms_per_million_late * values read late / 1e6 + ms_per_million_sums * sums / 1e6

`hot` is a row timed repeatedly, with warm caches; `cold` is timed with cold caches. Inside a
network the state of the caches is in between. They are full of other weights in a large network,
and warm if the whole network fits. The relative cache penalty of small operators is larger, which
the square roots model.

The last term is the cost of weights that exceed a cache. Each run reads them again, at
`params_per_ms`, unless arithmetic hides the reads (a roofline, Williams et al., CACM 2009, for the
next level of memory). The cost increases over `RAMP` around the size of the cache. It is large for
small images: the errors for subnets of MobileNetV2 at 28 to 48 px are 1.3 % with it and 5.6 %
without it (docs/results.md).

The last two terms are for networks that are graphs (`hwnas.spaces.running.graph_values`). Their
operators read values that were not just written, unlike in the timings of the rows. The sums
between operators have no rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from hwnas.core.errors import UserError
from hwnas.interfaces import FloatArray
from hwnas.latency.correction import Spill
from hwnas.latency.samples import Timing
from hwnas.spaces.cost import op_macs, op_params
from hwnas.spaces.ops import OpSpec
from hwnas.spaces.running import graph_values, live_sum
from hwnas.spaces.space import Codes, SearchSpace

__all__ = ["GRAPH_TERMS", "Formula", "Prices", "spill_share", "spilled_ms"]

RAMP = 0.15  # relative to the size of the cache, because replacement is not strictly cyclic


GRAPH_TERMS = ("ms_per_million_late", "ms_per_million_sums")
"""Coefficients of the columns of `graph_values`."""


@dataclass(frozen=True)
class Prices:
    """Costs of operators in ms, [ops]. An operator costs `always + spill_share * spilled`.

    params: number of parameters of each operator, [ops].
    spill: the cache that determines the `spill_share` of a network; None: `spilled` is 0.
    between: cost per value of each column of `graph_values`, [2].
    once: see `Correction.repeats_once`.
    """

    always: FloatArray
    spilled: FloatArray
    params: FloatArray
    spill: Spill | None
    between: FloatArray = field(default_factory=lambda: np.zeros(2))
    once: bool = False

    @property
    def full(self) -> FloatArray:
        """Cost [ops] in a network whose weights are all read again in each run."""
        return self.always + self.spilled

    def of(self, space: SearchSpace, codes: Codes) -> FloatArray:
        """Sum of the costs over each network in ms, [n].

        The prices must have the operators of `enumerate_ops(space)`, in this order.
        """
        total: FloatArray
        if self.spill is None or not self.spill.params_cached:
            total = live_sum(space, codes, self.full, once=self.once)
        else:
            share = spill_share(self.spill, live_sum(space, codes, self.params))
            total = live_sum(space, codes, self.always, once=self.once)
            total += share * live_sum(space, codes, self.spilled)
        if self.between.any():
            total += graph_values(space, codes) @ self.between
        return total


@dataclass(frozen=True)
class Formula:
    """Coefficients of the terms, by name.

    spill: size of the hardware cache and read rate of the memory behind it, for the term
        `spill_scale`; None without this term.
    once: see `Correction.repeats_once`.
    """

    coefficients: Mapping[str, float]
    spill: Spill | None = None
    once: bool = False

    def prices(self, rows: Mapping[OpSpec, Timing], ops: Sequence[OpSpec]) -> Prices:
        """Prices of operators that have a row.

        Raises:
            UserError: there is a `cold_scale`, and a row has no cold timing.
        """
        scale, cold_scale = (self.coefficients.get(n, 0.0) for n in ("scale", "cold_scale"))
        if cold_scale and (lacking := [op for op in ops if rows[op].cold_ms is None]):
            raise UserError(
                "the correction uses cold timings, but some rows have none",
                expected="`cold_ms` in the rows of all operators",
                found=f"none in {len(lacking)} of {len(ops)} rows, such as {lacking[0]}",
                fix="restore a copy of the table, or measure it again (`hwnas profile`)",
            )
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
        between = np.array([self.coefficients.get(name, 0.0) for name in GRAPH_TERMS]) / 1e6
        return Prices(always, spilled, params, self.spill, between, self.once)


def spilled_ms(params: FloatArray, hot_ms: FloatArray, rate: float) -> FloatArray:
    """Time in ms by which reading `params` at `rate` per ms takes longer than `hot_ms`: [ops]."""
    found: FloatArray = np.maximum(params / rate - hot_ms, 0.0)
    return found


def spill_share(spill: Spill, params: FloatArray) -> FloatArray:
    """Share in [0, 1] of its weights that each network reads again in every run: [n].

    params: number of parameters of each network, [n].
    """
    if not spill.params_cached:
        return np.ones(len(params))
    over = np.clip((params / spill.params_cached - 1) / RAMP, -50.0, 50.0)
    share: FloatArray = 1 / (1 + np.exp(-over))
    return share
