"""Writes a report: one HTML file that opens offline; without JavaScript the plots are missing."""

from __future__ import annotations

from pathlib import Path

import jinja2
import plotly.graph_objects as go

from hwnas import __version__
from hwnas.core.store import write_text
from hwnas.reporting import figures
from hwnas.reporting.data import NetRow, ReportData
from hwnas.reporting.drawing import draw_network

__all__ = ["render_report", "write_report"]

PLOT_CONFIG = {"displayModeBar": False, "responsive": True}


def write_report(data: ReportData, path: Path) -> None:
    """Render `data` into the file `path`, atomically."""
    write_text(path, render_report(data))


def render_report(data: ReportData) -> str:
    """The HTML of a report. The same data give the same text."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": lambda value, spec: "-" if value is None else format(value, spec)
    }
    return environment.get_template("template.html.j2").render(
        data=data,
        plots=_plots(data),
        drawing=draw_network(data.winner.network) if data.winner else None,
        highlights=_highlights(data),
        version=__version__,
    )


def _plots(data: ReportData) -> dict[str, str]:
    """HTML of every plot there is data for; the first one brings plotly's code along."""
    made: dict[str, go.Figure] = {}
    if data.front:
        made["front"] = figures.front_figure(data.front)
    if data.forecast:
        made["forecast"] = figures.forecast_figure(data.forecast)
    if data.prediction:
        made["prediction"] = figures.prediction_figure(data.prediction)
    if data.training:
        made["top1"] = figures.top1_figure(data.training)
        if data.training.loss:
            made["loss"] = figures.loss_figure(data.training)
    return {
        name: figure.to_html(
            full_html=False, include_plotlyjs=position == 0, config=PLOT_CONFIG, div_id=name
        )
        for position, (name, figure) in enumerate(made.items())
    }


def _highlights(data: ReportData) -> list[tuple[str, str]]:
    """The few numbers of the run that matter most, as (value, what it is)."""
    found = []
    winner = data.table[0] if data.table else None
    if winner and winner.test_top1 is not None:
        found.append((f"{winner.test_top1:.2%}", f"test top-1 of the {winner.name}"))
    if winner and winner.measured_ms is not None:
        found.append((f"{winner.measured_ms:.3g} ms", f"measured latency{_share(data.table)}"))
        if winner.forecast_ms is not None:
            error = winner.forecast_ms / winner.measured_ms - 1
            found.append((f"{error:+.1%}", "error of its latency estimate"))
    if data.prediction:
        found.append((f"{data.prediction.tau:.2f}", "Kendall tau of the predictor"))
    return found


def _share(table: tuple[NetRow, ...]) -> str:
    largest = next((row for row in table if row.name == "largest"), None)
    if largest is None or not largest.measured_ms or not table[0].measured_ms:
        return ""
    return f", {table[0].measured_ms / largest.measured_ms:.0%} of the largest"
