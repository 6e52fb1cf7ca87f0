"""The models to time for a set of operators, and the rows computed from their timings.

An operator is timed between two 1x1 convolutions (`onnx.micro`). Half of the time of the empty
context (the two convolutions only) is subtracted at each border. The first and the last operator of
a network have one border only, so their rows keep half of the overhead of a session each. The sum
over a network thus contains the overhead of one session, as its latency does. Measured on
mobilenet_tiny at 16-24 px: the sum of rows is within 4 % of every network, and the fitted line has
scale 0.98.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from hwnas.latency.samples import Timing
from hwnas.spaces.ops import OpSpec

__all__ = ["Border", "borders", "context_id", "contexts", "op_id", "op_rows"]

MAX_IMAGE_CHANNELS = 4  # images have 1, 3 or 4 channels, feature maps at least 8
MIN_SHARE = 0.01  # minimum row, relative to the op in its context
N_NAMED = 3  # operators in one warning

Border = tuple[int, int]
"""Channels and size of the map between two operators."""


def borders(op: OpSpec) -> tuple[Border | None, Border | None]:
    """The borders of `op` with its neighbours; None at the input and after the classifier.

    A convolution that reads the image is timed without a neighbour, because runtimes have a
    separate kernel for that layout.
    """
    reads_image = op.kind == "conv" and op.in_channels <= MAX_IMAGE_CHANNELS
    is_first = reads_image or op.kind == "embed"
    before = None if is_first else (op.in_channels, op.in_hw)
    after = None if op.kind == "linear" else (op.out_channels, op.out_hw)
    return before, after


def contexts(ops: Iterable[OpSpec]) -> tuple[Border, ...]:
    """All borders of `ops`, sorted. For each border, the empty context is timed as well."""
    found = {border for op in ops for border in borders(op) if border is not None}
    return tuple(sorted(found))


def op_id(op: OpSpec) -> str:
    """Plan id of an operator in its context."""
    return f"op-{op.key}"


def context_id(border: Border) -> str:
    """Plan id of an empty context."""
    return f"context-{border[0]}x{border[1]}"


def op_rows(
    timings: Mapping[str, Timing], ops: Iterable[OpSpec]
) -> tuple[dict[OpSpec, Timing], tuple[str, ...]]:
    """Rows of `ops` from the timings of their plan, and warnings.

    The percentiles of a row are as far from its median as those of the timing in context. If an
    operator seems to take no time because of noise, its row is `MIN_SHARE` of the timing in
    context, with a warning. Such a row is wrong by microseconds. A negative row would reward a
    search for using the operator.
    """
    rows, lost = {}, dict[OpSpec, float]()
    for op in ops:
        whole = timings[op_id(op)]
        around = [timings[context_id(b)] for b in borders(op) if b is not None]
        median = whole.median_ms - sum(context.median_ms / 2 for context in around)
        if median < MIN_SHARE * whole.median_ms:
            lost[op] = median * 1e3
            median = MIN_SHARE * whole.median_ms
        below, above = whole.median_ms - whole.p10_ms, whole.p90_ms - whole.median_ms
        rows[op] = Timing(
            median_ms=round(median, 9),
            p10_ms=round(max(median - below, 0.0), 9),
            p90_ms=round(median + above, 9),
            p95_ms=round(median + whole.p95_ms - whole.median_ms, 9),
            n=whole.n,
            cold_ms=_cold(whole, around),
        )
    return rows, _warnings(lost, len(rows))


def _warnings(lost: Mapping[OpSpec, float], n: int) -> tuple[str, ...]:
    """A warning for each of few operators whose time is lost in noise [us], one for many of n."""
    row = f"row is {MIN_SHARE:.0%} of the timing with it"
    if len(lost) <= N_NAMED:
        return tuple(
            f"{op}: timings with and without it differ by {us:.3g} us, which is noise; its {row}"
            for op, us in lost.items()
        )
    named = ", ".join(map(str, list(lost)[:N_NAMED]))
    return (
        f"{len(lost)} of {n} operators: timings with and without each differ by"
        f" {min(lost.values()):.3g} to {max(lost.values()):.3g} us, which is noise; its {row}"
        f" ({named}, ...)",
    )


def _cold(whole: Timing, around: Sequence[Timing]) -> float | None:
    """Share of the operator in the cold runs; None if one of them is unknown."""
    cold = [timing.cold_ms for timing in (whole, *around)]
    known = [value for value in cold if value is not None]
    if len(known) < len(cold):
        return None
    return round(max(known[0] - sum(known[1:]) / 2, MIN_SHARE * known[0]), 9)
