"""The plots of a report, as plotly figures. The CSS of the page sets colours of text and grid."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from hwnas.core.stats import standard_error
from hwnas.reporting.data import Curve, Front, LatencyFit, Point, Prediction, Training

__all__ = ["front_figure", "latency_figure", "loss_figure", "prediction_figure", "top1_figure"]

BLUE, ORANGE, TEAL, VIOLET, GREY = "#3b6fd8", "#e0592a", "#159a86", "#8a5cd0", "#8b95a3"
MARKED = {"size": 8, "color": BLUE, "opacity": 0.75, "line": {"width": 0}}


def front_figure(data: Front) -> go.Figure:
    """Score over estimated latency: archive, front, random search, winner and constraint."""
    figure = _figure("estimated latency [ms]", data.score, height=460)
    if data.is_perplexity:
        figure.update_yaxes(autorange="reversed")  # the best networks are at the top
    else:
        figure.update_yaxes(tickformat=".1%")
    shown = "%{y:.1f}" if data.is_perplexity else "%{y:.2%}"
    if data.baseline:
        figure.add_trace(_cloud(data.baseline, "random search", VIOLET, "x-thin-open", shown))
    figure.add_trace(_cloud(data.archive, "evaluated", GREY, "circle", shown))
    front = sorted(data.front, key=lambda point: point.latency_ms)
    trace = _cloud(front, "front", BLUE, "circle", shown)
    trace.update(mode="lines+markers", line={"shape": "hv", "width": 2, "color": BLUE})
    trace.update(marker={"size": 7, "opacity": 1}, error_y=_errors(front, data.n_images, BLUE))
    figure.add_trace(trace)
    if data.constraint_ms is not None:
        figure.add_vline(
            data.constraint_ms,
            line={"dash": "dash", "width": 1.5, "color": GREY},
            annotation={"text": f"constraint {data.constraint_ms:.3g} ms", "font": {"size": 12}},
            annotation_position="bottom right",
        )
    if data.winner is not None:
        trace = _cloud([data.winner], "winner", ORANGE, "star", shown)
        trace.update(marker={"size": 17, "opacity": 1, "line": {"width": 1.5, "color": "white"}})
        trace.update(error_y=_errors([data.winner], data.n_images, ORANGE))
        figure.add_trace(trace)
    return figure


def _errors(points: Sequence[Point], n: int | None, colour: str) -> dict[str, object]:
    """Bars of one standard error of top-1 accuracies on n images; none where n is unknown."""
    if n is None:
        return {"visible": False}
    errors = [standard_error(point.top1, n) for point in points]
    return {"type": "data", "array": errors, "thickness": 1, "width": 3, "color": colour}


def latency_figure(data: LatencyFit) -> go.Figure:
    """Measured over estimated latency, with the line of equality and the 90 % band."""
    figure = _figure("estimate [ms]", "measured [ms]")
    if data.interval_ms:
        order = sorted(range(len(data.forecast_ms)), key=lambda i: data.forecast_ms[i])
        x = [data.forecast_ms[i] for i in order]
        low = [data.interval_ms[i][0] for i in order]
        high = [data.interval_ms[i][1] for i in order]
        figure.add_trace(
            go.Scatter(
                x=x + x[::-1],
                y=high + low[::-1],
                fill="toself",
                fillcolor="rgba(59,111,216,0.14)",
                line={"width": 0},
                hoverinfo="skip",
                name="90 % interval",
            )
        )
    _add_diagonal(figure, data.forecast_ms, data.measured_ms, "estimate = measured")
    hover = "estimate %{x:.3f} ms<br>measured %{y:.3f} ms<extra></extra>"
    return _add_points(figure, data.forecast_ms, data.measured_ms, "whole nets", hover)


def prediction_figure(data: Prediction) -> go.Figure:
    """True over predicted score of held-out subnets."""
    figure = _figure(f"predicted {data.score}", f"measured {data.score}")
    _add_diagonal(figure, data.predicted, data.measured, "predicted = measured")
    hover = "predicted %{x:.4g}<br>measured %{y:.4g}<extra></extra>"
    return _add_points(figure, data.predicted, data.measured, "held-out subnets", hover)


def top1_figure(data: Training) -> go.Figure:
    """Validation top-1 of a few subnets over the training steps."""
    figure = _figure("training step", "validation top-1")
    figure.update_yaxes(tickformat=".0%")
    return _add_curves(figure, data.val_top1, "%{y:.2%}")


def loss_figure(data: Training) -> go.Figure:
    """Validation cross-entropy of a few subnets over the training steps."""
    return _add_curves(_figure("training step", "validation cross-entropy"), data.loss, "%{y:.4g}")


def _figure(x_title: str, y_title: str, *, height: int = 340) -> go.Figure:
    axis = {
        "zeroline": False,
        "showline": True,
        "ticks": "outside",
        "ticklen": 4,
        "automargin": True,
    }
    return go.Figure(
        layout={
            "template": "none",
            "height": height,
            "margin": {"l": 56, "r": 16, "t": 36, "b": 48},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "font": {"family": "inherit", "size": 13},
            "xaxis": {"title": {"text": x_title, "font": {"size": 13}}, **axis},
            "yaxis": {"title": {"text": y_title, "font": {"size": 13}}, **axis},
            "legend": {
                "orientation": "h",
                "x": 0,
                "y": 1.02,
                "yanchor": "bottom",
                "itemsizing": "constant",
            },
            "hoverlabel": {"align": "left"},
        }
    )


def _cloud(points: Sequence[Point], name: str, colour: str, symbol: str, shown: str) -> go.Scatter:
    marker = {"size": 6, "color": colour, "opacity": 0.45, "symbol": symbol}
    if symbol.endswith("-open"):
        marker["line"] = {"width": 1.2, "color": colour}
    return go.Scatter(
        x=[point.latency_ms for point in points],
        y=[point.top1 for point in points],
        text=[point.label for point in points],
        mode="markers",
        marker=marker,
        name=name,
        hovertemplate="%{text}<br>%{x:.3f} ms, " + shown + "<extra>" + name + "</extra>",
    )


def _add_diagonal(
    figure: go.Figure, x: Sequence[float], y: Sequence[float], name: str
) -> go.Figure:
    ends = [max(min(x), min(y)), min(max(x), max(y))] if x else []
    line = {"color": GREY, "width": 1.5, "dash": "dot"}
    return figure.add_trace(
        go.Scatter(x=ends, y=ends, mode="lines", line=line, hoverinfo="skip", name=name)
    )


def _add_points(
    figure: go.Figure, x: Sequence[float], y: Sequence[float], name: str, hover: str
) -> go.Figure:
    figure.add_trace(
        go.Scatter(x=x, y=y, mode="markers", marker=MARKED, name=name, hovertemplate=hover)
    )
    return figure


def _add_curves(figure: go.Figure, curves: Sequence[Curve], template: str) -> go.Figure:
    for curve, colour in zip(curves, (BLUE, ORANGE, TEAL, VIOLET, GREY), strict=False):
        figure.add_trace(
            go.Scatter(
                x=curve.steps,
                y=curve.values,
                mode="lines+markers" if len(curve.steps) < 40 else "lines",
                line={"width": 2, "color": colour},
                marker={"size": 5},
                name=curve.name,
                hovertemplate="step %{x}: " + template + f"<extra>{curve.name}</extra>",
            )
        )
    return figure
