"""Estimates untimed classifiers from the timed classifiers of a table.

The time of a `linear` operator is a function of its number w of weights. It is extrapolated from
the nearest timed classifier (w0, t0). Its fixed part a is between 0 and the cheapest row of the
table:

    t(w) = a + (t0 - a) (w / w0)^e

e = 1 if the time is proportional to the weights read. e > 1 if fewer weights fit into a faster
cache. Measured on a Xeon with ONNX Runtime, fp32 and int8, 512 to 1504 inputs, from 1000 classes to
10 ... 4000: e between 0.95 and 1.8 (`benchmarks/latency_subspaces.py --classifiers`). The estimate
uses e = 4/3 for fewer weights and e = 1 for more. Its range is that of all e in [0.9, 2] and all a.

If rows are inferred from whole networks, the row of a single operator is uncertain, and the fixed
part may be all of t0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from hwnas.latency.samples import Timing
from hwnas.spaces.cost import op_macs
from hwnas.spaces.ops import OpSpec

if TYPE_CHECKING:
    from hwnas.latency.table import LatencyTable

__all__ = ["common_classes", "is_classifier", "price_classifiers"]

LEAST_EXPONENT, MOST_EXPONENT = 0.9, 2.0
EXPONENT_OF_FEWER, EXPONENT_OF_MORE = 4 / 3, 1.0


def is_classifier(op: OpSpec) -> bool:
    """Whether a table can price the operator without having timed it."""
    return op.kind == "linear"


def common_classes(tables: Iterable[LatencyTable]) -> int | None:
    """The number of classes that all tables were measured with; None if it is not the same one."""
    found = {op.out_channels for table in tables for op in table.rows if is_classifier(op)}
    return found.pop() if len(found) == 1 else None


def price_classifiers(
    rows: Mapping[OpSpec, Timing], ops: Iterable[OpSpec], *, rows_are_timed: bool
) -> dict[OpSpec, tuple[OpSpec, Timing]]:
    """Estimates rows for the classifiers among `ops` that are not in `rows`.

    rows_are_timed: see `LatencyTable.rows_are_timed`.

    Returns, for each such classifier, the nearest classifier in `rows` and the estimated row.
    p10_ms and p90_ms of the estimated row are the ends of the range of the estimate, not
    percentiles of timings. The result is empty if `rows` have no classifier.
    """
    known = [op for op in rows if is_classifier(op)]
    if not known:
        return {}
    cheapest = min(rows.values(), key=lambda row: row.median_ms)
    found = {}
    for op in ops:
        if not is_classifier(op) or op in rows:
            continue
        nearest = min(known, key=lambda other: _distance(op, other))
        fixed = cheapest if rows_are_timed else rows[nearest]
        found[op] = nearest, _scaled(rows[nearest], op_macs(op) / op_macs(nearest), fixed)
    return found


def _distance(op: OpSpec, other: OpSpec) -> tuple[float, bool]:
    """Ratio of the numbers of weights; an equal number of inputs decides ties."""
    ratio = op_macs(op) / op_macs(other)
    return max(ratio, 1 / ratio), op.in_channels != other.in_channels


def _scaled(row: Timing, ratio: float, fixed: Timing) -> Timing:
    """The row of a classifier with `ratio` times the weights; `fixed`: bound of the fixed part."""
    median = _price(row.median_ms, fixed.median_ms, ratio)
    ends = [
        share + (row.median_ms - share) * ratio**exponent
        for share in (0.0, min(fixed.median_ms, row.median_ms))
        for exponent in (LEAST_EXPONENT, MOST_EXPONENT)
    ]
    cold = None if row.cold_ms is None else _price(row.cold_ms, fixed.cold_ms or 0.0, ratio)
    p95 = median * row.p95_ms / row.median_ms
    return Timing(median, min(*ends, median), max(*ends, median), p95, row.n, cold)


def _price(ms: float, fixed_ms: float, ratio: float) -> float:
    """The estimate, with a fixed part of half its upper bound."""
    fixed = min(fixed_ms, ms) / 2
    exponent = EXPONENT_OF_FEWER if ratio < 1 else EXPONENT_OF_MORE
    return fixed + (ms - fixed) * float(ratio**exponent)
