"""Estimates of whole networks from a latency table: sum of rows, then a correction."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from hwnas.core.errors import UserError
from hwnas.core.html_table import html_table
from hwnas.core.stats import Z90
from hwnas.interfaces import DeviceSpec, FloatArray
from hwnas.latency.classifiers import price_classifiers
from hwnas.latency.correction import Correction
from hwnas.latency.coverage import not_covered, way_to_table
from hwnas.latency.formula import Formula
from hwnas.latency.intervals import local_fraction, one_sided_share, raw_sum_fraction
from hwnas.spaces.arch import Arch
from hwnas.spaces.index import enumerate_ops
from hwnas.spaces.running import live_sum
from hwnas.spaces.space import Codes, SearchSpace

if TYPE_CHECKING:
    from hwnas.latency.table import LatencyTable

__all__ = ["Estimate", "TableEstimator"]

log = logging.getLogger(__name__)

STRANGE = (
    "the correction %s of the latency table of %s was fitted on another restriction of this space,"
    " or on another space of this name: the intervals of estimates are wider"
)

TITLE, SHOWN = "estimated latency, with its 90 % interval", 10
MAX_DOUBT = 0.5  # share of an estimate; the same network with the timed classifier is well known
MIN_SHARE = 0.1  # minimum estimate relative to the sum of rows, even with a negative overhead


@dataclass(frozen=True)
class Estimate:
    """Latency of n networks on one device, float64 [n] each, in ms.

    ms: median over runs.
    low, high: ends of the 90 % interval over networks.
    correction: key of the correction that was used; None: the estimates are sums of rows. Then
        `low` and `high` follow from the errors of such sums in other spaces. They are 0 and inf if
        the table was never validated on whole networks.
    """

    ms: FloatArray
    low: FloatArray
    high: FloatArray
    correction: str | None

    def __str__(self) -> str:
        first = islice(self._ends(), SHOWN)
        lines = [f"{ms:.4g} ms ({low:.4g} to {high:.4g})" for ms, low, high in first]
        rest = [f"... and {len(self.ms) - SHOWN:,} more"] if len(self.ms) > SHOWN else []
        return "\n".join([f"{TITLE}:", *lines, *rest])

    def _repr_html_(self) -> str:
        rows = [{"ms": ms, "from": low, "to": high} for ms, low, high in self._ends()]
        return html_table(rows, title=TITLE)

    def _ends(self) -> Iterable[tuple[float, float, float]]:
        return zip(self.ms.tolist(), self.low.tolist(), self.high.tolist(), strict=True)

    def to_dict(self) -> dict[str, Any]:
        """JSON values; None stands for an unknown upper end."""
        high = [end if np.isfinite(end) else None for end in self.high.tolist()]
        ends = {"ms": self.ms.tolist(), "low": self.low.tolist(), "high": high}
        return ends | {"correction": self.correction}


class TableEstimator:
    """A `LatencyEstimator` of one table and one space; vectorised, takes microseconds per arch.

    The correction is that of `LatencyTable.correction_for`. Without a correction, `latency_ms` is
    the sum of rows. Untimed sizes of the classifier are estimated from the timed ones.

    row_ms: latency in ms of every operator of `enumerate_ops(space)`, [ops].
    prices: their costs in a network, according to the correction.

    Raises:
        UserError: the table lacks operators of the space; names settings that would work.
    """

    def __init__(self, table: LatencyTable, space: SearchSpace) -> None:
        ops = enumerate_ops(space)
        priced = price_classifiers(table.rows, ops, rows_are_timed=table.rows_are_timed)
        rows = {**table.rows, **{op: row for op, (_, row) in priced.items()}}
        missing = [op for op in ops if op not in rows]
        if missing:
            raise not_covered(table, space, missing)
        self._rows = rows
        self.row_ms: FloatArray = np.array([rows[op].median_ms for op in ops])
        self.device: DeviceSpec = table.device
        self.table, self.space = table, space
        self.correction_id = table.correction_for(space)
        self._is_own = False
        self._formula = Formula({"scale": 1.0})
        if self.correction_id is not None:
            correction = table.corrections[self.correction_id]
            is_of_space = _is_of(correction, space)
            self._is_own = self.correction_id == space.id and is_of_space and not priced
            if self.correction_id == space.id and not is_of_space:
                log.warning(STRANGE, space.id, table.device.name)
            self._formula = Formula(
                correction.coefficients, correction.spill, correction.repeats_once
            )
        self.prices = self._formula.prices(rows, ops)
        self._doubts, self._shifts = np.zeros(len(ops)), np.zeros(len(ops))
        self._priced = {op: nearest for op, (nearest, _) in priced.items()}
        full = self.prices.full
        for op, (nearest, row) in priced.items():
            at = ops.index(op)
            largest = max(row.p90_ms - row.median_ms, row.median_ms - row.p10_ms)
            shift = self._formula.prices(rows, [nearest]).full[0] - full[at]
            timed_shift = table.rows[nearest].median_ms - row.median_ms
            of_row = full[at] * largest / row.median_ms
            self._doubts[at] = np.hypot(of_row, shift - timed_shift)
            self._shifts[at] = shift

    def latency_ms(self, codes: Codes) -> FloatArray:
        """Estimated median latency in ms: [n]."""
        operators = self.prices.of(self.space, codes)
        estimate: FloatArray = np.maximum(self.overhead_ms + operators, MIN_SHARE * operators)
        return estimate

    @property
    def overhead_ms(self) -> float:
        """Latency that the correction adds to every network."""
        return self._formula.coefficients.get("overhead_ms", 0.0)

    def latency_p95_ms(self, codes: Codes) -> FloatArray:
        """95th percentile over runs in ms: [n]."""
        return self.latency_ms(codes) * self.correction.p95_factor

    @property
    def classes_timed(self) -> tuple[int, ...]:
        """Numbers of classes of the timed classifiers that estimates start from, ascending.

        Empty if the table has the classifiers of the space itself.
        """
        return tuple(sorted({nearest.out_channels for nearest in self._priced.values()}))

    @property
    def doubtful_classifier(self) -> str:
        """A warning if an untimed classifier makes estimates useless; otherwise empty.

        They are useless if the uncertainty of the classifier exceeds `MAX_DOUBT` of the estimate
        of the largest arch.
        """
        largest = float(self.latency_ms(self.space.codes([self.space.largest()]))[0])
        doubt = float(self._doubts.max(initial=0.0))
        if doubt <= MAX_DOUBT * largest:
            return ""
        op = enumerate_ops(self.space)[int(self._doubts.argmax())]
        timed = self._priced[op].out_channels
        return (
            f"device {self.device.name}: a classifier with {op.out_channels} outputs was never"
            f" timed (only one with {timed} outputs), so its estimate may be off by {doubt:.2g} ms;"
            f" the largest network takes {largest:.2g} ms. Set the number of classes to {timed}, or"
            f" measure a table with {op.out_channels} classes"
        )

    def energy_mj(self, codes: Codes) -> FloatArray:
        """Estimated energy of one run in mJ, the sum over operators: [n].

        Raises:
            UserError: the table lacks the energy of an operator.
        """
        energies = [self._rows[op].energy_mj for op in enumerate_ops(self.space)]
        known = [energy for energy in energies if energy is not None]
        if len(known) < len(energies):
            raise UserError(
                f"the latency table of {self.device.name} has no energies",
                expected=f"energies of all {len(energies)} operators of {self.space.id}",
                found=f"energies of {len(known)} operators",
                fix="hwnas does not measure energy; use a table converted from a published source "
                "that has it, such as hw_nasbench201 (`hwnas table convert`)",
            )
        return live_sum(self.space, codes, np.array(known))

    def interval_ms(self, codes: Codes) -> FloatArray:
        """90 % interval of the estimated median in ms: [n, 2].

        If the pace of the machine varied while the table was measured, the interval is wider,
        because the table does not describe a single state of the machine.

        Raises:
            UserError: the table was never validated on whole networks.
        """
        ms = self.latency_ms(codes)
        fraction = self._interval_fraction(codes, ms)
        return np.stack([ms * np.maximum(1 - fraction, 0.0), ms * (1 + fraction)], axis=1)

    def bound_ms(self, codes: Codes, probability: float) -> FloatArray:
        """Upper bounds of the median latency in ms: [n].

        A median is below its bound with `probability`, which is in (0.5, 1).

        Raises:
            UserError: the table was never validated on whole networks.
        """
        ms = self.latency_ms(codes)
        half_width = self._interval_fraction(codes, ms)
        share = one_sided_share(self.correction, probability)
        bound: FloatArray = ms * (1 + share * half_width)
        return bound

    def estimate(self, archs: Codes | Sequence[Arch]) -> Estimate:
        """Latencies with their intervals, for codes [n, d] or archs of the space.

        Raises:
            UserError: an arch does not belong to the space.
        """
        codes = self.space.as_codes(archs)
        ms = self.latency_ms(codes)
        if not self.table.corrections:
            return Estimate(ms, np.zeros(len(ms)), np.full(len(ms), np.inf), None)
        low, high = self.interval_ms(codes).T
        return Estimate(ms, low, high, self.correction_id)

    def _interval_fraction(self, codes: Codes, ms: FloatArray) -> FloatArray:
        """Half-width of the 90 % interval as a fraction of `ms`, [n].

        The width is that of the same network with the nearest timed classifier, plus the width of
        the difference between the two classifiers. The latter is the disagreement of rows and
        correction on this difference, because a correction is valid for sums and not for single
        operators. The widths add up, because an error of the correction affects both.
        """
        pace = Z90 * self.table.pace_error
        if self._is_own:
            return np.full(len(ms), np.hypot(self.correction.interval_fraction, pace))
        doubt = live_sum(self.space, codes, self._doubts)
        size = np.maximum(ms + live_sum(self.space, codes, self._shifts), ms * MIN_SHARE)
        fraction: FloatArray = (size * local_fraction(self.correction, size) + doubt) / ms
        return np.hypot(fraction, pace)

    @cached_property
    def correction(self) -> Correction:
        """The correction that estimates use.

        If no correction of the table covers the space, it leaves sums of rows unchanged, and its
        interval comes from the largest known error of such sums.

        Raises:
            UserError: the table has no correction.
        """
        known = self.table.corrections
        if self.correction_id is not None:
            return known[self.correction_id]
        if not known:
            raise UserError(
                f"the latency table of {self.device.name} has no correction for {self.space.id}",
                expected="a correction fitted on whole networks, for intervals and percentiles",
                found="no corrections",
                fix=way_to_table(self.device, self.space),
            )
        worst = max(known.values(), key=raw_sum_fraction)
        return replace(
            worst,
            coefficients={"scale": 1.0},
            spill=None,
            interval_fraction=raw_sum_fraction(worst),
            p95_factor=max(correction.p95_factor for correction in known.values()),
            validation=replace(worst.validation, nets=()),
        )


def _is_of(correction: Correction, space: SearchSpace) -> bool:
    """Whether a correction was fitted on networks of the space, restricted or not."""
    return correction.fingerprint in (space.fingerprint, replace(space, allowed=()).fingerprint)
