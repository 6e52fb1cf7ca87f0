"""A network as an SVG: one box per operator, drawn from its `lower()`.

Height grows with the size of the output map, width with its channels, the colour is the kernel;
an arc over a box is a residual connection, a dot on it a squeeze-and-excitation gate.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from xml.sax.saxutils import escape

from hwnas.spaces.ops import OpSpec

__all__ = ["draw_network"]

GAP, MARGIN, MAP_HEIGHT, TOP = 7, 64, 150, 46
PAGE_WIDTH, MAX_STRETCH = 1040, 2.0  # short networks are stretched towards the page's width
KNOWN_KERNELS = (1, 3, 5, 7)


def draw_network(ops: Sequence[OpSpec]) -> str:
    """SVG element; its colours are CSS variables (`--k1` .. `--k7`, `--ink`, `--muted`)."""
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
        parts.append(_box(op, x, middle - height / 2, width, height))
        parts += _labels(op, x + width / 2, middle - height / 2, foot)
        edges.append((x, x + width))
        x += width + GAP
    first, last = ops[0], ops[-1]
    parts.append(_text(MARGIN - 10, middle - 4, "input", anchor="end"))
    parts.append(_text(MARGIN - 10, middle + 10, f"{first.in_hw} px", anchor="end", css="muted"))
    parts.append(_text(x + 4, middle - 4, f"{last.out_channels}", anchor="start"))
    parts.append(_text(x + 4, middle + 10, "classes", anchor="start", css="muted"))
    parts += _groups(ops, edges, foot + 26)
    width, height = x + MARGIN, foot + 52
    return (
        f'<svg class="network" viewBox="0 0 {width:.0f} {height:.0f}" role="img" '
        f'style="width:{width:.0f}px" aria-label="the layers of the network">{"".join(parts)}</svg>'
    )


def _box(op: OpSpec, x: float, y: float, width: float, height: float) -> str:
    kernel = op.kernel if op.kernel in KNOWN_KERNELS else KNOWN_KERNELS[-1]
    css = f"k{kernel}" if op.kind != "pool" else "pool"
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


def _labels(op: OpSpec, centre: float, top: float, foot: float) -> list[str]:
    found = []
    if op.kind == "pool":
        found.append(_text(centre, foot, "mean", css="muted"))
    elif op.kind == "linear":
        found.append(_text(centre, foot, "fc", css="muted"))
    else:
        found.append(_text(centre, foot, f"k{op.kernel}"))
    if op.mid_channels:
        found.append(_text(centre, foot + 13, f"e{op.mid_channels / op.in_channels:.2g}"))
    above = top - (14 if op.skip else 6)
    if op.kind != "linear":
        found.append(_text(centre, above, f"{op.out_channels}", css="muted"))
    return found


def _groups(ops: Sequence[OpSpec], edges: Sequence[tuple[float, float]], y: float) -> list[str]:
    """A bracket under each run of blocks of one resolution and width."""
    parts = []
    blocks = [i for i, op in enumerate(ops) if op.mid_channels]
    for (hw, channels), run in groupby(blocks, key=lambda i: (ops[i].out_hw, ops[i].out_channels)):
        indices = list(run)
        left, right = edges[indices[0]][0], edges[indices[-1]][1]
        parts.append(f'<path class="group" d="M{left:.1f} {y:.1f}H{right:.1f}"/>')
        wide = right - left > 70
        label = f"{hw} px, {channels} ch" if wide else f"{hw} px"
        parts.append(_text((left + right) / 2, y + 15, label, css="muted"))
    return parts


def _text(x: float, y: float, text: str, *, anchor: str = "middle", css: str = "ink") -> str:
    return (
        f'<text class="{css}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
    )
