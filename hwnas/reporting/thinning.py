"""Reduces the points of a report's plots, so that the file stays below its maximum size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hwnas.reporting.data import Curve, Front, LatencyFit, Point, ReportData

__all__ = ["thinned"]


def thinned(data: ReportData, n: int) -> ReportData:
    """The same data with at most n points per line or cloud, evenly selected, including both ends.

    Numbers are rounded to five digits.
    """
    prediction, training = data.prediction, data.training
    if prediction is not None:
        kept = _positions(len(prediction.measured), n)
        prediction = replace(
            prediction,
            predicted=_rounded(prediction.predicted, kept),
            measured=_rounded(prediction.measured, kept),
        )
    if training is not None:
        curves = [tuple(_curve(c, n) for c in some) for some in (training.val_top1, training.loss)]
        training = replace(training, val_top1=curves[0], loss=curves[1])
    return replace(
        data,
        fronts=tuple(_front(front, n) for front in data.fronts),
        latency_fits=tuple(_latency_fit(fit, n) for fit in data.latency_fits),
        prediction=prediction,
        training=training,
    )


def _front(front: Front, n: int) -> Front:
    return replace(
        front,
        archive=_points(front.archive, n),
        front=_points(front.front, n),
        baseline=_points(front.baseline, n),
    )


def _points(points: Sequence[Point], n: int) -> tuple[Point, ...]:
    kept = [points[i] for i in _positions(len(points), n)]
    return tuple(Point(_short(p.latency_ms), _short(p.top1), p.label) for p in kept)


def _latency_fit(fit: LatencyFit, n: int) -> LatencyFit:
    kept = _positions(len(fit.forecast_ms), n)
    intervals = [fit.interval_ms[i] for i in kept] if fit.interval_ms else []
    return replace(
        fit,
        forecast_ms=_rounded(fit.forecast_ms, kept),
        measured_ms=_rounded(fit.measured_ms, kept),
        interval_ms=tuple((_short(low), _short(high)) for low, high in intervals),
    )


def _curve(curve: Curve, n: int) -> Curve:
    kept = _positions(len(curve.steps), n)
    return replace(
        curve, steps=tuple(curve.steps[i] for i in kept), values=_rounded(curve.values, kept)
    )


def _positions(length: int, n: int) -> Sequence[int]:
    """At most n of the positions of a list."""
    if length <= n:
        return range(length)
    return [i * (length - 1) // (n - 1) for i in range(n)]


def _rounded(values: Sequence[float], kept: Sequence[int]) -> tuple[float, ...]:
    return tuple(_short(values[i]) for i in kept)


def _short(value: float) -> float:
    return float(f"{value:.5g}")
