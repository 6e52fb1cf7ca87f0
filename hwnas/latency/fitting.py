"""Fits the formula of a correction to timed whole networks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hwnas.interfaces import FloatArray
from hwnas.latency.correction import Spill
from hwnas.latency.formula import GRAPH_TERMS, Formula, spill_share, spilled_ms
from hwnas.latency.samples import Timing
from hwnas.spaces.cost import op_macs, op_params
from hwnas.spaces.index import enumerate_ops
from hwnas.spaces.ops import OpSpec
from hwnas.spaces.running import graph_values, live_sum
from hwnas.spaces.space import Codes, SearchSpace

__all__ = ["MACS_LINE", "MIXTURE", "Form", "NetworkSums", "fit"]

Form = tuple[str, ...]

LINE: Form = ("overhead_ms", "scale")
CURVE: Form = (*LINE, "root_scale")
MIXTURE: Form = (*CURVE, "cold_scale")
MACS_LINE: Form = ("overhead_ms", "ms_per_million_macs")
MIN_CURVE_NETS = 12  # minimum networks for more than a line
MIN_SPILL_NETS = 24
RATES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)  # quantiles of the parameters per ms of the operators
N_CAPACITIES = 12
MOST_SPILLED = 2.0  # maximum of the coefficient; the expected value is about 1
CLEARLY = 0.5  # maximum squared error / that of the best sum of operators
EXACT = 1e-12  # mean square of relative errors that needs no further terms


@dataclass(frozen=True)
class NetworkSums:
    """The terms of `hwnas.latency.formula` for networks `codes` [n, d] of a space with `rows`.

    once: see `Correction.repeats_once`.
    """

    rows: Mapping[OpSpec, Timing]
    space: SearchSpace
    codes: Codes
    once: bool = True

    def __len__(self) -> int:
        return len(self.codes)

    @cached_property
    def ops(self) -> tuple[OpSpec, ...]:
        """All operators of the space."""
        return enumerate_ops(self.space)

    @cached_property
    def hot(self) -> FloatArray:
        """Time in warm caches in ms, [ops]."""
        return np.array([self.rows[op].median_ms for op in self.ops])

    @cached_property
    def additive(self) -> dict[str, FloatArray]:
        """Maps the name of each coefficient to its term for every network, [n].

        `cold_scale` is included if the cold runs of all operators are known, and
        `GRAPH_TERMS` if the networks are graphs. `spill_scale` is in `spills`.
        """
        found = {
            "overhead_ms": np.ones(len(self)),
            "scale": self._sum(self.hot),
            "root_scale": self._sum(np.sqrt(self.hot)),
            "ms_per_million_macs": self._sum(np.array([op_macs(op) / 1e6 for op in self.ops])),
        }
        cold = [self.rows[op].cold_ms for op in self.ops]
        if None not in cold:
            found["cold_scale"] = self._sum(np.array(cold, dtype=np.float64))
        if not self.space.macro.is_chain:
            columns = graph_values(self.space, self.codes).T / 1e6
            found |= dict(zip(GRAPH_TERMS, columns, strict=True))
        return found

    @cached_property
    def _params(self) -> FloatArray:
        return np.array([op_params(op) for op in self.ops], dtype=np.float64)

    @cached_property
    def params(self) -> FloatArray:
        """Parameters of the networks, [n]."""
        return self._sum(self._params)

    @cached_property
    def spills(self) -> dict[Spill, FloatArray]:
        """Maps each candidate cache to its term for every network in ms, [n].

        The candidates are a grid of cache sizes and read rates. The term is the time for reading
        weights again, without the coefficient `spill_scale`.
        """
        params = self._params
        rates = np.unique(np.quantile((params / self.hot)[params > 0], RATES))
        sizes = np.geomspace(self.params.min(), self.params.max(), N_CAPACITIES)
        found = {}
        for rate in rates.tolist():
            reads = self._sum(spilled_ms(params, self.hot, rate))
            for size in [0.0, *sizes.tolist()]:
                spill = Spill(params_cached=size, params_per_ms=rate)
                found[spill] = spill_share(spill, self.params) * reads
        return found

    def estimate(self, formula: Formula) -> FloatArray:
        """Estimated latencies in ms, [n]. A cache in the formula must be a key of `spills`."""
        parts = dict(self.additive)
        if formula.spill is not None:
            parts["spill_scale"] = self.spills[formula.spill]
        return sum((c * parts[name] for name, c in formula.coefficients.items()), np.zeros(1))

    def _sum(self, per_op: FloatArray) -> FloatArray:
        return live_sum(self.space, self.codes, per_op, once=self.once)


def fit(
    sums: NetworkSums,
    measured: FloatArray,
    *,
    kept: NDArray[np.bool_] | None = None,
    form: Form | None = None,
    with_cache: bool = True,
) -> Formula:
    """Fits a formula to latencies [n] by least squares of the relative errors.

    All coefficients except the overhead are positive. Without a `form`, the formula has as many
    terms as the number of networks allows. The Bayesian information criterion (Schwarz 1978)
    decides whether weights are read again in each run, and at which rate.

    kept: mask [n] of the networks to fit; None: all.
    form: names of the coefficients.
    with_cache: whether the formula may have a cache that only some of the networks fit. With such a
        cache, latencies are not sums over operators, so it must halve the squared error
        (`CLEARLY`).
    """
    rows = np.ones(len(sums), dtype=bool) if kept is None else kept
    target = measured[rows]
    names = form or _form(sums, len(target))
    columns = [sums.additive[name][rows] / target for name in names]
    found, error = _least_squares(columns)
    best = Formula(dict(zip(names, found, strict=True)))
    if form is not None or len(target) < MIN_SPILL_NETS:
        return best

    def extended(spills: Iterable[Spill], most: float) -> tuple[Formula, float]:
        """The best formula so far, or a better one with a cache of `spills` and error <= `most`."""
        chosen, chosen_error = best, error
        least = _criterion(error, len(target), len(best.coefficients) + (best.spill is not None))
        for spill in spills:
            found, left = _least_squares([*columns, sums.spills[spill][rows] / target])
            criterion = _criterion(left, len(target), len(names) + 2 + (spill.params_cached > 0))
            if left <= most and 0 < found[-1] <= MOST_SPILLED and criterion < least:
                chosen = Formula(dict(zip((*names, "spill_scale"), found, strict=True)), spill)
                chosen_error, least = left, criterion
        return chosen, chosen_error

    best, error = extended((s for s in sums.spills if not s.params_cached), error)
    if with_cache:
        best, _ = extended((s for s in sums.spills if s.params_cached), CLEARLY * error)
    return best


def _form(sums: NetworkSums, n: int) -> Form:
    if n < MIN_CURVE_NETS:
        return LINE
    form = MIXTURE if "cold_scale" in sums.additive else CURVE
    return (*form, *(name for name in GRAPH_TERMS if name in sums.additive))


def _least_squares(columns: Sequence[FloatArray]) -> tuple[list[float], float]:
    """Coefficients that bring the sum of the columns closest to 1, and the squared residual.

    The first column is the overhead. The coefficients of the others are positive.
    """
    from scipy.optimize import nnls

    signed = np.stack([*columns, -columns[0]], axis=1)
    solution, left = nnls(signed, np.ones(len(signed)))
    overhead, *others, negative = solution.tolist()
    return [overhead - negative, *others], float(left) ** 2


def _criterion(error: float, n: int, n_told: int) -> float:
    return n * math.log(max(error / n, EXACT)) + n_told * math.log(n)
