"""Writes a report: one HTML file that opens offline. Plots need JavaScript."""

from __future__ import annotations

from pathlib import Path

import jinja2
import plotly.graph_objects as go

from hwnas import __version__
from hwnas.core.store import write_bytes
from hwnas.reporting import figures
from hwnas.reporting.cells import draw_cell
from hwnas.reporting.data import ReportData
from hwnas.reporting.drawing import draw_network
from hwnas.reporting.plots import packed_code, plot_html
from hwnas.reporting.sections.references import draw_references, sentences
from hwnas.reporting.sections.results import by_device, highlights
from hwnas.reporting.thinning import thinned

__all__ = ["render_report", "write_report"]

MAX_BYTES = 5_000_000  # 2.0 MB of it is the compressed code of plotly
N_DRAWN = (3000, 1000, 300, 100, 30)  # points per line of a plot; the first number that fits
N_PLOTTED = 8  # devices with plots, and with tables of classes
N_LISTED = 500  # classes of such a table


def write_report(data: ReportData, path: Path) -> None:
    """Renders `data` into the file `path`, atomically."""
    text = render_report(data)
    write_bytes(path, text.encode("utf-8", "backslashreplace"))  # names may not be UTF-8


def render_report(data: ReportData) -> str:
    """The HTML of a report, at most `MAX_BYTES` long. Equal data give equal text.

    Plots have as many points as fit. If there are many devices, only the first ones have plots.
    """
    for n in N_DRAWN:
        text = _rendered(data, n)
        if len(text.encode("utf-8", "backslashreplace")) <= MAX_BYTES:
            break
    return text


def _millions(count: int) -> str:
    """A number in millions, with four digits."""
    return f"{count / 1e6:,.0f}" if count >= 1e9 else f"{count / 1e6:.4g}"


def _rendered(data: ReportData, n_drawn: int) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": lambda value, spec: "-" if value is None else format(value, spec),
        "millions": _millions,
    }
    return environment.get_template("template.html.j2").render(
        data=data,
        plots=(plots := _plots(thinned(data, n_drawn))),
        plotly=packed_code() if plots else "",
        n_drawn=n_drawn,
        n_plotted=N_PLOTTED,
        n_listed=N_LISTED,
        drawing=draw_network(data.winner.network) if data.winner else None,
        cells=[(c.kind, draw_cell(c)) for c in data.winner.cells] if data.winner else [],
        devices=by_device(data.table),
        highlights=_highlights(data),
        reference_sentences=[sentences(one) for one in data.references],
        version=__version__,
    )


def _plots(data: ReportData) -> dict[str, str]:
    """HTML of every plot that has data."""
    made: dict[str, go.Figure] = {}
    references = {one.device: one for one in data.references}
    for i, front in enumerate(data.fronts[:N_PLOTTED]):
        made[f"front-{i}"] = figure = figures.front_figure(front)
        if front.device in references:
            draw_references(figure, references[front.device])
    for i, fit in enumerate(data.latency_fits[:N_PLOTTED]):
        made[f"latency-{i}"] = figures.latency_figure(fit)
    if data.prediction:
        made["prediction"] = figures.prediction_figure(data.prediction)
    if data.training:
        made["top1"] = figures.top1_figure(data.training)
        if data.training.loss:
            made["loss"] = figures.loss_figure(data.training)
    return {name: plot_html(figure, name) for name, figure in made.items()}


def _highlights(data: ReportData) -> list[tuple[str, str]]:
    """The most important numbers of the run, as (value, description)."""
    found = highlights(data.table)
    if data.prediction:
        found.append((f"{data.prediction.tau:.2f}", "Kendall tau of the predictor"))
    return found
