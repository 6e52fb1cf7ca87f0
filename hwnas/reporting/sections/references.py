"""The report section on published networks with at most the winner's latency."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import plotly.graph_objects as go

__all__ = ["Published", "References", "draw_references", "sentences"]

COLOUR = "#c79a12"
BEYOND = 1.5
"""Networks slower than this multiple of the slowest one in a figure are not drawn."""


@dataclass(frozen=True)
class Published:
    """A published network at one resolution on one device.

    measured_ms: None if the network does not run there; `why` is the reason. imagenet_top1:
    published value at `imagenet_px`. test_top1: on the test split, after training on the images of
    the run.
    """

    name: str
    px: int
    measured_ms: float | None
    imagenet_top1: float | None = None
    imagenet_px: int | None = None
    test_top1: float | None = None
    why: str = ""


@dataclass(frozen=True)
class References:
    """The published networks on one device. `winner_ms`: the winner's latency in the same plan."""

    device: str
    winner_ms: float
    networks: tuple[Published, ...] = field(default_factory=tuple)

    @property
    def timed(self) -> list[Published]:
        """Networks that run on the device, fastest first."""
        found = [one for one in self.networks if one.measured_ms is not None]
        return sorted(found, key=lambda one: (one.measured_ms or 0.0, one.name))

    @property
    def not_run(self) -> list[tuple[str, str]]:
        """Networks that do not run on the device, each with its reason."""
        return sorted({(one.name, one.why) for one in self.networks if one.measured_ms is None})


def sentences(data: References) -> tuple[str, ...]:
    """Describes the alternatives to the winner, by latency alone."""
    fast = [one for one in data.timed if (one.measured_ms or 0.0) <= data.winner_ms]
    if not fast:
        first = data.timed[0] if data.timed else None
        nearest = f"; the fastest is {_words(first)}" if first else ""
        return (
            f"On {data.device} none of these networks is as fast as the winner"
            f" ({data.winner_ms:.3g} ms){nearest}.",
        )
    best = {one.name: one for one in fast}  # the slowest timing of each network, at the most pixels
    said = "; ".join(_words(one) for one in best.values())
    return (
        f"On {data.device}, at the latency of the winner ({data.winner_ms:.3g} ms), you could also"
        f" take: {said}.",
    )


def _words(one: Published) -> str:
    facts = [f"{one.measured_ms:.3g} ms"]
    if one.test_top1 is not None:
        facts.append(f"test top-1 {one.test_top1:.2%} trained like the winner")
    if one.imagenet_top1 is not None:
        facts.append(f"ImageNet top-1 {one.imagenet_top1:.1%} at {one.imagenet_px} px")
    return f"{one.name} at {one.px} px ({', '.join(facts)})"


def draw_references(figure: go.Figure, data: References) -> None:
    """Adds the networks to the figure of a front.

    Networks that were trained on the images of the run are points. For the others, only the latency
    is comparable: they are ticks at the lower edge, with the published accuracy on hover. Networks
    far slower than all points of the figure are not drawn.
    """
    shown_ms = [float(x) for trace in figure.data for x in trace.x or ()]
    last_ms = max([data.winner_ms, *shown_ms]) * BEYOND
    drawn = [one for one in data.timed if (one.measured_ms or 0.0) <= last_ms]
    trained = [one for one in drawn if one.test_top1 is not None]
    others = [one for one in drawn if one.test_top1 is None]
    if trained:
        figure.add_trace(
            _trace(trained, [one.test_top1 or 0.0 for one in trained], "published, trained here")
        )
        figure.data[-1].update(marker={"symbol": "square", "size": 9, "color": COLOUR})
    if others:
        figure.add_trace(_trace(others, [0.0] * len(others), "published networks"))
        figure.data[-1].update(
            yaxis="y2", marker={"symbol": "line-ns-open", "size": 16, "color": COLOUR}
        )
        figure.update_layout(
            yaxis2={"overlaying": "y", "range": [-0.02, 1], "visible": False, "fixedrange": True}
        )


def _trace(rows: Sequence[Published], y: Sequence[float], name: str) -> go.Scatter:
    return go.Scatter(
        x=[one.measured_ms for one in rows],
        y=list(y),
        text=[_words(one) for one in rows],
        mode="markers",
        name=name,
        hovertemplate="%{text}<extra></extra>",
    )
