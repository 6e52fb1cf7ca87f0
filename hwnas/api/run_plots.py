"""Plots of a run folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hwnas.core.command import command_line
from hwnas.core.errors import UserError
from hwnas.pipeline.graph import stages_of
from hwnas.pipeline.plan import maker
from hwnas.pipeline.project import Project

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["RunPlots"]


COLOURS = (
    "--k1:#888;--k3:#0072b2;--k5:#e69f00;--k7:#009e73;--page:#fff;--ink:#222;--muted:#666;"
    "font:10.5px sans-serif"
)
"""CSS with a colour per kernel size, as in the report; colour-blind people can tell them apart."""

STYLE = (
    "<style>svg.network .k1{fill:var(--k1)}svg.network .k3{fill:var(--k3)}"
    "svg.network .k5{fill:var(--k5)}svg.network .k7{fill:var(--k7)}"
    "svg.network .pool,svg.network .skip,svg.network .group{fill:none;stroke:var(--muted)}"
    "svg.network .se{fill:var(--page)}svg.network .ink{fill:var(--ink)}"
    "svg.network .muted{fill:var(--muted)}</style>"
)


@dataclass(frozen=True)
class Drawing:
    """A drawing that notebooks display; `svg` is the text of its `<svg>` element."""

    svg: str

    def _repr_html_(self) -> str:
        box = f"<div style='background:#fff;overflow-x:auto;padding:4px;{COLOURS}'>"
        return f"{STYLE}{box}{self.svg}</div>"


@dataclass(frozen=True, repr=False)
class RunPlots:
    """The plots of the report, as figures for notebooks."""

    project: Project

    def plot_front(self, device: str | None = None) -> go.Figure:
        """Plots accuracy over latency of evaluated archs on a device (default: the first)."""
        from hwnas.reporting.figures import front_figure
        from hwnas.studies.run_report import front_data

        self._require(self.project.files.main_search.result.path)
        return front_figure(front_data(self.project, self.project.require_device(device)))

    def draw_winner(self) -> Drawing:
        """Draws the layers of the first device's winner, as in the report."""
        from hwnas.pipeline.winners import winners_by_device
        from hwnas.reporting.drawing import draw_network
        from hwnas.spaces.lowering import lower

        self._require(self.project.files.main_search.result.path)
        _, winner = next(iter(winners_by_device(self.project).items()))
        return Drawing(draw_network(lower(self.project.space, winner.arch)))

    def plot_latency(self, device: str | None = None) -> go.Figure:
        """Plots estimated over measured latencies of networks on a device (default: the first).

        Raises:
            UserError: the table was never validated on whole networks of this space.
        """
        from hwnas.reporting.figures import latency_figure
        from hwnas.studies.run_report import latency_data

        name = self.project.require_device(device)
        self._require(self.project.files.table(name))
        found = latency_data(self.project, name)
        if found is None:
            raise UserError(
                f"the latency table of {name!r} was never validated on networks of this space",
                expected="timings of whole networks in the table",
                found="none",
                where=self.project.files.table(name),
                fix=command_line("profile", name, "--run", self.project.run.root),
            )
        return latency_figure(found)

    def plot_predictor(self) -> go.Figure:
        """Plots predicted over true scores of held-out subnets."""
        from hwnas.reporting.figures import prediction_figure
        from hwnas.studies.run_report import prediction_data

        self._require(self.project.files.predictor_report.path)
        return prediction_figure(prediction_data(self.project))

    def _require(self, path: Path) -> None:
        if not path.is_file():
            command = maker(stages_of(self.project), self.project.files.pattern(path))
            raise self.project.run.not_made(
                path, command or command_line("status", self.project.run.root)
            )
