"""Forecasts of whole networks from a latency table: sum of rows, then the space's correction."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from hwnas.core.errors import UserError
from hwnas.interfaces import DeviceSpec, FloatArray
from hwnas.latency.table import Correction, LatencyTable
from hwnas.latency.validation import row_prices
from hwnas.spaces.index import enumerate_ops, op_sum
from hwnas.spaces.space import Codes, SearchSpace

__all__ = ["TableEstimator"]

MIN_SHARE = 0.1  # of the operators' sum: a negative overhead leaves that much, whatever its source


class TableEstimator:
    """A `LatencyEstimator` of one table and one space. Vectorised: microseconds per arch.

    Without a correction for the space, `latency_ms` is the raw sum of rows and the others raise.

    Raises:
        UserError: the table lacks operators of the space; says how to measure them.
    """

    def __init__(self, table: LatencyTable, space: SearchSpace) -> None:
        missing = [op for op in enumerate_ops(space) if op not in table.rows]
        if missing:
            raise UserError(
                f"the latency table of {table.device.name} lacks operators of {space.id}",
                found=f"{len(missing)} missing, such as "
                + "; ".join(str(op) for op in missing[:3]),
                fix=f"hwnas profile {table.device.name} --space {space.name} (same settings)",
            )
        self.device: DeviceSpec = table.device
        self.table, self.space = table, space
        known = table.corrections.get(space.id)
        coefficients = {"scale": 1.0} if known is None else known.coefficients
        self._overhead_ms = coefficients.get("overhead_ms", 0.0)
        self._prices = row_prices(table.rows, enumerate_ops(space), coefficients)

    def latency_ms(self, codes: Codes) -> FloatArray:
        """Median latency forecast: [n]."""
        operators = op_sum(self.space, codes, self._prices)
        forecast: FloatArray = np.maximum(self._overhead_ms + operators, MIN_SHARE * operators)
        return forecast

    def latency_p95_ms(self, codes: Codes) -> FloatArray:
        """95th percentile over runs: [n]."""
        return self.latency_ms(codes) * self.correction.p95_factor

    def interval_ms(self, codes: Codes) -> FloatArray:
        """90 % interval of the median forecast: [n, 2]."""
        fraction = self.correction.interval_fraction
        factors = np.array([max(0.0, 1 - fraction), 1 + fraction])
        interval: FloatArray = self.latency_ms(codes)[:, None] * factors
        return interval

    @cached_property
    def correction(self) -> Correction:
        """The correction fitted on networks of this space.

        Raises:
            UserError: the table has none.
        """
        try:
            return self.table.corrections[self.space.id]
        except KeyError:
            raise UserError(
                f"the latency table of {self.device.name} has no correction for {self.space.id}",
                expected="whole networks timed beside the rows, for intervals and percentiles",
                found=f"corrections for {sorted(self.table.corrections) or 'no space'}",
                fix=f"hwnas profile {self.device.name} --space {self.space.name}",
            ) from None
