"""A network as an SVG: one box per operator, drawn from `lower()`.

The height of a box is the size of the output map, the width its channels, and the colour the
kernel. An arc over a box is a residual connection, and a dot on the arc is a squeeze-and-excitation
gate.

A network that is not a chain is drawn as a graph from left to right, with small boxes, lines, and a
dot where several lines are summed. Operators on no path from image to logits are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from statistics import mean
from typing import Literal
from xml.sax.saxutils import escape

from hwnas.spaces.network import Network
from hwnas.spaces.ops import OpSpec, layers

__all__ = ["boxed", "draw_network", "line", "svg", "text"]

GAP, MARGIN, MAP_HEIGHT, TOP = 7, 64, 150, 46
PAGE_WIDTH, MAX_STRETCH = 1040, 2.0  # short networks are stretched towards the width of the page
KNOWN_KERNELS = (1, 3, 5, 7)
BOX, COLUMN, LANE = 20, 29, 28  # in graphs: side of a box, distances of columns and of lanes
SHORT = {"avg_pool": "avg", "identity": "id", "norm": "bn", "pool": "avg", "linear": "fc"}
SHORT |= {"max_pool": "max", "concat": "cat", "cut": "cut", "factorized": "fr"}
SHORT |= {"embed": "emb", "join": "in", "highway": "hw", "fold": "avg", "recall": "h"}
SHORT |= {"store": "h'", "activation": "act", "product": "mul", "blend": "mix"}

Point = tuple[float, float]


def draw_network(network: Network) -> str:
    """The network as an SVG. Colours are CSS variables (`--k1` .. `--k7`, `--ink`, `--muted`)."""
    return _draw_chain(network.ops) if network.is_chain else _draw_graph(network.live())


def _draw_chain(ops: Sequence[OpSpec]) -> str:
    largest_map = max(op.out_hw for op in ops)
    most_channels = max(op.out_channels for op in ops)
    middle = TOP + MAP_HEIGHT / 2
    foot = TOP + MAP_HEIGHT + 16
    parts: list[str] = []
    edges: list[tuple[float, float]] = []
    widths = [15 + 38 * op.out_channels / most_channels for op in ops]
    room = PAGE_WIDTH - 2 * MARGIN - GAP * len(ops)
    stretch = min(max(room / sum(widths), 1.0), MAX_STRETCH)
    x = float(MARGIN)
    for op, width in zip(ops, (width * stretch for width in widths), strict=True):
        height = 14 + (MAP_HEIGHT - 14) * op.out_hw / largest_map
        parts.append(boxed(op, x, middle - height / 2, width, height))
        parts += _labels(op, x + width / 2, middle - height / 2, foot)
        edges.append((x, x + width))
        x += width + GAP
    first, last = ops[0], ops[-1]
    parts.append(text(MARGIN - 10, middle - 4, "input", anchor="end"))
    parts.append(text(MARGIN - 10, middle + 10, f"{first.in_hw} px", anchor="end", css="muted"))
    parts.append(text(x + 4, middle - 4, f"{last.out_channels}", anchor="start"))
    parts.append(text(x + 4, middle + 10, "classes", anchor="start", css="muted"))
    parts += _groups(ops, edges, foot + 26)
    return svg(x + MARGIN, foot + 52, parts)


def _draw_graph(network: Network) -> str:
    """Draws a graph; columns are distances from the image. Sums have their own column."""
    columns = _columns(network)
    lanes: dict[int, list[int]] = {}
    for i, column in enumerate(columns):
        lanes.setdefault(column, []).append(i)
    tallest = max(map(len, lanes.values()))
    middle = TOP + LANE * tallest / 2

    def at(i: int) -> Point:
        beside = lanes[columns[i]]
        lane = beside.index(i) - (len(beside) - 1) / 2
        return MARGIN + COLUMN * (columns[i] + 0.5), middle + LANE * lane

    def side(i: int, direction: Literal[-1, 1]) -> Point:
        x, y = at(i)
        return x + direction * BOX / 2, y

    lines, boxes, n = [line((MARGIN - 8, middle), side(0, -1))], [], len(network)
    sums: dict[tuple[int, ...], Point] = {}
    for i, (op, sources) in enumerate(zip(network.ops, network.sources, strict=True)):
        if len(sources) > 1 and sources not in sums:
            x = MARGIN + COLUMN * (max(columns[source] for source in sources) + 1.5)
            y = mean(at(reader)[1] for reader in range(i, n) if network.sources[reader] == sources)
            sums[sources] = (x, y)
            lines += [line(side(source, 1), (x, y)) for source in sources]
            boxes.append(f'<circle class="se" cx="{x:.1f}" cy="{y:.1f}" r="3"/>')
        if sources:
            start = sums[sources] if len(sources) > 1 else side(sources[0], 1)
            lines.append(line(start, side(i, -1)))
        x, y = at(i)
        boxes.append(boxed(op, x - BOX / 2, y - BOX / 2, BOX, BOX))
        label = SHORT.get(op.kind) or _windows(op)
        boxes.append(text(x, y + 3.5, label))
    end = MARGIN + COLUMN * (max(columns) + 1)
    first, last = network.ops[0], network.ops[-1]
    texts = [
        text(MARGIN - 12, middle - 4, "input", anchor="end"),
        text(MARGIN - 12, middle + 10, f"{first.in_hw} px", anchor="end", css="muted"),
        text(end + 4, middle - 4, f"{last.out_channels}", anchor="start"),
        text(end + 4, middle + 10, "classes", anchor="start", css="muted"),
        *_spans(network.ops, at, middle + LANE * tallest / 2 + 18),
    ]
    height = middle + LANE * tallest / 2 + 48
    return svg(end + MARGIN, height, [*lines, *boxes, *texts])


def _columns(network: Network) -> list[int]:
    """Number of steps on the longest path from the image to each operator; a sum adds a step."""
    found: list[int] = []
    for sources in network.sources:
        nearest = max((found[source] for source in sources), default=-1)
        found.append(nearest + (2 if len(sources) > 1 else 1))
    return found


def _spans(ops: Sequence[OpSpec], at: Callable[[int], Point], y: float) -> list[str]:
    """A bracket under each sequence of operators with maps of one size and width."""
    parts = []
    shapes = [(op.out_hw, op.out_channels) for op in ops]
    for (hw, channels), run in groupby(range(len(ops)), key=lambda i: shapes[i]):
        ends = [at(i)[0] for i in run]
        left, right = min(ends) - BOX / 2, max(ends) + BOX / 2
        if right - left > 3 * COLUMN:
            parts.append(f'<path class="group" d="M{left:.1f} {y:.1f}H{right:.1f}"/>')
            label = f"{hw} px, {channels} ch"
            parts.append(text((left + right) / 2, y + 15, label, css="muted"))
    return parts


def line(start: Point, end: Point, bend: float = COLUMN) -> str:
    """An SVG path: horizontal from `start` until `bend` px before `end`, then curved to `end`."""
    (x0, y0), (x1, y1) = start, end
    turn = max(x0, x1 - bend)
    half = (turn + x1) / 2
    path = (
        f"M{x0:.1f} {y0:.1f}H{turn:.1f}C{half:.1f} {y0:.1f} {half:.1f} {y1:.1f} {x1:.1f} {y1:.1f}"
    )
    return f'<path class="skip" d="{path}"/>'


def svg(
    width: float, height: float, parts: Sequence[str], *, label: str = "the layers of the network"
) -> str:
    """The SVG element with these parts; `label` describes the picture."""
    return (
        f'<svg class="network" viewBox="0 0 {width:.0f} {height:.0f}" role="img" '
        f'style="width:{width:.0f}px" aria-label="{escape(label)}">{"".join(parts)}</svg>'
    )


def boxed(op: OpSpec, x: float, y: float, width: float, height: float) -> str:
    """A box in the colour of the kernel, with the operator as its title."""
    largest = max(op.kernels, default=1)
    kernel = largest if largest in KNOWN_KERNELS else KNOWN_KERNELS[-1]
    css = f"k{kernel}" if layers(op) else "pool"
    rect = (
        f'<g><title>{escape(str(op))}</title><rect class="{css}" x="{x:.1f}" y="{y:.1f}" '
        f'width="{width:.1f}" height="{height:.1f}" rx="3"/>'
    )
    if op.skip:
        rect += (
            f'<path class="skip" d="M{x - GAP / 2:.1f} {y + 6:.1f} C{x - GAP / 2:.1f} {y - 12:.1f} '
            f'{x + width + GAP / 2:.1f} {y - 12:.1f} {x + width + GAP / 2:.1f} {y + 6:.1f}"/>'
        )
    if op.se_channels:
        rect += f'<circle class="se" cx="{x + width / 2:.1f}" cy="{y + height / 2:.1f}" r="3"/>'
    return rect + "</g>"


def _windows(op: OpSpec) -> str:
    """Kernels as text: `k5`, or `k3+5` with a depthwise convolution before the expansion."""
    return f"k{'+'.join(map(str, op.kernels)) or 1}"


def _labels(op: OpSpec, centre: float, top: float, foot: float) -> list[str]:
    found = []
    if op.kind == "pool":
        found.append(text(centre, foot, "mean", css="muted"))
    elif op.kind == "linear":
        found.append(text(centre, foot, "fc", css="muted"))
    else:
        found.append(text(centre, foot, _windows(op)))
    if op.mid_channels:
        found.append(text(centre, foot + 13, f"e{op.mid_channels / op.in_channels:.2g}"))
    above = top - (14 if op.skip else 6)
    if op.kind != "linear":
        found.append(text(centre, above, f"{op.out_channels}", css="muted"))
    return found


def _groups(ops: Sequence[OpSpec], edges: Sequence[tuple[float, float]], y: float) -> list[str]:
    """A bracket under each sequence of blocks of one resolution and width."""
    parts = []
    blocks = [i for i, op in enumerate(ops) if op.mid_channels]
    for (hw, channels), run in groupby(blocks, key=lambda i: (ops[i].out_hw, ops[i].out_channels)):
        indices = list(run)
        left, right = edges[indices[0]][0], edges[indices[-1]][1]
        parts.append(f'<path class="group" d="M{left:.1f} {y:.1f}H{right:.1f}"/>')
        wide = right - left > 70
        label = f"{hw} px, {channels} ch" if wide else f"{hw} px"
        parts.append(text((left + right) / 2, y + 15, label, css="muted"))
    return parts


def text(x: float, y: float, words: str, *, anchor: str = "middle", css: str = "ink") -> str:
    """A line of text."""
    return (
        f'<text class="{css}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'
    )
