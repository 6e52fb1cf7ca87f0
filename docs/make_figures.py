"""Writes the figures of docs/img as SVG: `make docs`. Numbers come from a table that ships.

Colours are of Okabe and Ito, which colour-blind people tell apart; shapes and labels repeat what
colours say. Every figure has a white card, so that it is readable on dark pages and on paper. They
are at most 480 px wide, so that they fit on phones with letters of 9 px.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import hwnas

FOLDER = Path(__file__).with_name("img")
BLUE, ORANGE, GREEN, RED, SKY, GREY = (
    "#0072b2", "#e69f00", "#009e73", "#d55e00", "#56b4e9", "#555555",
)  # fmt: skip
RED_INK, GREEN_INK = "#b04c00", "#00714f"
"""Darker, for words: a contrast of 4.5 with white."""

TABLE = "amd-epyc-2vcpu-mobilenet_v3"


def text(
    x: float,
    y: float,
    words: str,
    *,
    size: int = 13,
    anchor: str = "middle",
    bold: bool = False,
    colour: str = "#222",
) -> str:
    """A line of text."""
    weight = ' font-weight="bold"' if bold else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}"'
        f' fill="{colour}"{weight}>{html.escape(words)}</text>'
    )


def box(x: float, y: float, w: float, h: float, colour: str, lines: Sequence[str]) -> str:
    """A box with a bold first line."""
    found = [
        f'<rect x="{x}" y="{y}" width="{w}" height="{h}" rx="8" fill="{colour}" fill-opacity="0.14"'
        f' stroke="{colour}" stroke-width="1.5"/>'
    ]
    top = y + h / 2 - (len(lines) - 1) * 8.5 + 4.5
    for n, line in enumerate(lines):
        found.append(text(x + w / 2, top + 17 * n, line, bold=n == 0))
    return "".join(found)


def rect(x: float, y: float, w: float, h: float, colour: str, opacity: float) -> str:
    """A filled rectangle."""
    return (
        f'<rect x="{x:.0f}" y="{y:.0f}" width="{w:.0f}" height="{h:.0f}" rx="4" fill="{colour}"'
        f' fill-opacity="{opacity}"/>'
    )


def dashed(x: float, y: float, to_x: float, to_y: float) -> str:
    """A dashed line."""
    return (
        f'<line x1="{x:.0f}" y1="{y:.0f}" x2="{to_x:.0f}" y2="{to_y:.0f}" stroke="#222"'
        ' stroke-dasharray="6 4"/>'
    )


def arrow(x: float, y: float, to_x: float, to_y: float) -> str:
    """A straight arrow."""
    return (
        f'<line x1="{x}" y1="{y}" x2="{to_x}" y2="{to_y}" stroke="{GREY}" stroke-width="1.8"'
        ' marker-end="url(#tip)"/>'
    )


def page(width: int, height: int, title: str, parts: Sequence[str]) -> str:
    """An SVG with a title for screen readers."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}"'
        f' height="{height}" role="img" font-family="system-ui, sans-serif">'
        f"<title>{html.escape(title)}</title>"
        f'<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7"'
        f' markerHeight="7" orient="auto"><path d="M0 0L10 5L0 10z" fill="{GREY}"/></marker></defs>'
        f'<rect width="{width}" height="{height}" rx="10" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


class Plot:
    """Axes with linear scales; points and lines in units of the data."""

    def __init__(self, x: tuple[float, float], y: tuple[float, float], *, names: tuple[str, str]):
        self.x, self.y, self.parts = x, y, []
        self.parts += [
            f'<path d="M70 20V330H460" fill="none" stroke="{GREY}"/>',
            text(265, 375, names[0], size=14),
            f'<g transform="rotate(-90 22 175)">{text(22, 175, names[1], size=14)}</g>',
        ]
        for share in (0, 0.25, 0.5, 0.75, 1):
            at_x, at_y = (low + share * (high - low) for low, high in (x, y))
            px, py = self.at(at_x, at_y)
            self.parts.append(text(px, 350, f"{at_x:.3g}"))
            self.parts.append(text(62, py + 4, f"{at_y:.3g}", anchor="end"))

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Pixels of a point."""
        return (
            70 + 390 * (x - self.x[0]) / (self.x[1] - self.x[0]),
            330 - 310 * (y - self.y[0]) / (self.y[1] - self.y[0]),
        )

    def dot(self, x: float, y: float, colour: str, *, square: bool = False, r: float = 3) -> None:
        """A round or square mark."""
        px, py = self.at(x, y)
        if square:
            shape = f'<rect x="{px - r:.1f}" y="{py - r:.1f}" width="{2 * r}" height="{2 * r}"'
        else:
            shape = f'<circle cx="{px:.1f}" cy="{py:.1f}" r="{r}"'
        self.parts.append(f'{shape} fill="{colour}" fill-opacity="0.75"/>')

    def line(self, points: Sequence[tuple[float, float]], colour: str, dash: str = "") -> None:
        """A line through points."""
        path = "L".join("{:.1f} {:.1f}".format(*self.at(*point)) for point in points)
        self.parts.append(
            f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"'
            f' stroke-dasharray="{dash}"/>'
        )


def idea() -> str:
    """The pipeline, from what the user brings to what is verified."""
    w, h = 103, 70
    first, second, third, fourth = 10, 129, 248, 367
    parts = [
        text(first + w / 2, 22, "you bring", colour=GREY),
        text((second + third + w) / 2, 22, "hwnas", colour=GREY),
        text(fourth + w / 2, 22, "you get", colour=GREY),
        box(first, 35, w, h, BLUE, ["device", "phone,", "board, PC"]),
        box(first, 120, w, h, BLUE, ["photos", "a folder", "per class"]),
        box(first, 205, w, h, BLUE, ["limit", "e.g. 5 ms"]),
        box(second, 35, w, h, GREEN, ["latency table", "measured", "operators"]),
        box(second, 120, w, h, GREEN, ["supernet", "one set", "of weights"]),
        box(third, 78, w, h, ORANGE, ["search", "accuracy", "against ms"]),
        box(third, 205, w, h, ORANGE, ["verify", "re-timed,", "re-tested"]),
        box(fourth, 120, w, h, RED, ["network", "ONNX,", "LiteRT, ..."]),
        box(fourth, 205, w, h, RED, ["proof", "or exit", "status 3"]),
        arrow(first + w, 70, second - 1, 70),
        arrow(first + w, 155, second - 1, 155),
        f'<path d="M{first + w} 240H240V178H300" fill="none" stroke="{GREY}" stroke-width="1.8"/>',
        arrow(300, 178, 300, 149),
        arrow(second + w, 70, third - 1, 95),
        arrow(second + w, 155, third - 1, 130),
        arrow(third + w, 125, fourth - 1, 145),
        arrow(fourth, 180, third + w + 1, 215),
        arrow(third + w, 245, fourth - 1, 245),
    ]
    title = "A device, photos and a limit become a table, a supernet, a search, a verified network"
    return page(480, 290, title, parts)


def macs() -> str:
    """Latency against MACs of 300 random archs."""
    space = hwnas.space("mobilenet_v3", resolutions=[128, 160, 192, 224])
    archs = space.sample(300, seed=0)
    found = hwnas.latency_table(TABLE).estimate(space, archs)
    millions = space.cost(archs, "macs") / 1e6
    plot = Plot(
        (0, 400),
        (0, float(np.ceil(found.ms.max() / 5) * 5)),
        names=("MACs, million", "estimated latency, ms"),
    )
    near = np.argsort(abs(millions - 200))[:12]
    for n, (x, y) in enumerate(zip(millions, found.ms, strict=True)):
        plot.dot(
            float(x),
            float(y),
            RED if n in near else BLUE,
            square=n in near,
            r=4 if n in near else 3,
        )
    low, high = found.ms[near].min(), found.ms[near].max()
    plot.parts.append(
        text(
            460,
            310,
            f"12 archs of about 200 million MACs: {low:.1f} to {high:.1f} ms",
            anchor="end",
            colour=RED_INK,
        )
    )
    return page(480, 390, "Archs of equal MACs differ in latency", plot.parts)


def interval() -> str:
    """Estimates of some archs with their 90 % intervals, in order."""
    space = hwnas.space("mobilenet_v3", resolutions=[128, 160, 192, 224])
    found = hwnas.latency_table(TABLE).estimate(space, space.sample(40, seed=1))
    order = np.argsort(found.ms)
    top = float(np.ceil(found.high.max() / 5) * 5)
    plot = Plot((0, 40), (0, top), names=("40 random archs, by estimate", "latency, ms"))
    for n, i in enumerate(order):
        plot.line([(n + 0.5, float(found.low[i])), (n + 0.5, float(found.high[i]))], SKY)
        plot.dot(n + 0.5, float(found.ms[i]), BLUE)
    limit = float(np.median(found.ms))
    plot.line([(0, limit), (40, limit)], RED, "7 5")
    plot.parts.append(
        text(
            85,
            plot.at(0, limit)[1] - 8,
            f"a limit of {limit:.1f} ms",
            anchor="start",
            colour=RED_INK,
        )
    )
    return page(480, 390, "Estimates with 90 % intervals, and a limit", plot.parts)


def sharing() -> str:
    """Subnets as slices of the weights of the supernet."""
    parts = []
    words = (
        ("all weights,", "trained once"),
        ("3 of 4 blocks,", "some channels"),
        ("2 of 4 blocks,", "others"),
    )
    for column, (name, widths, depth) in enumerate(
        [
            ("supernet", (1.0, 1.0, 1.0, 1.0), 4),
            ("subnet A", (0.6, 1.0, 0.8, 0.5), 3),
            ("subnet B", (1.0, 0.5, 0.6, 1.0), 2),
        ]
    ):
        x = 15 + 160 * column
        parts.append(text(x + 65, 30, name, size=14, bold=True))
        for row, width in enumerate(widths):
            y = 50 + 58 * row
            frame = f'fill="#fff" stroke="{GREY}" stroke-dasharray="3 3"'
            parts.append(f'<rect x="{x}" y="{y}" width="130" height="40" rx="4" {frame}/>')
            if row < depth:
                parts.append(rect(x, y, 130 * width, 40, (GREEN, BLUE, ORANGE)[column], 0.75))
        parts += [text(x + 65, 300 + 18 * n, line) for n, line in enumerate(words[column])]
    return page(480, 335, "Subnets use slices of the weights of one supernet", parts)


def winners_curse() -> str:
    """The best of many noisy scores is worse than its score; simulated."""
    rng = np.random.default_rng(0)
    true = rng.normal(75, 1.0, 2000)
    seen = true + rng.normal(0, 1.0, 2000)
    plot = Plot((70, 80), (70, 80), names=("predicted accuracy, %", "true accuracy, %"))
    plot.line([(70, 70), (80, 80)], GREY, "5 4")
    top = np.argsort(-seen)[:20]
    for i in range(0, 2000, 4):
        plot.dot(float(np.clip(seen[i], 70, 80)), float(np.clip(true[i], 70, 80)), SKY, r=2)
    for i in top:
        plot.dot(float(min(seen[i], 80)), float(true[i]), RED, square=True, r=4)
    gap = float((seen[top] - true[top]).mean())
    plot.parts.append(
        text(
            460,
            300,
            f"the 20 best promise {gap:.1f} points too much",
            anchor="end",
            colour=RED_INK,
        )
    )
    return page(480, 390, "The best predictions of many are too good; simulated", plot.parts)


def ranking() -> str:
    """Kendall's tau of a good and of a bad predictor on the same held-out archs; simulated."""
    rng = np.random.default_rng(0)
    true = rng.uniform(0.1, 0.9, 40)
    parts = []
    for n, (name, noise) in enumerate([("a good predictor", 0.08), ("a bad predictor", 0.6)]):
        x0, side = 45 + 225 * n, 195
        seen = true + rng.normal(0, noise, 40)
        low, high = float(seen.min()), float(seen.max())
        kinds = np.sign(np.subtract.outer(true, true) * np.subtract.outer(seen, seen))
        tau = float(kinds.sum() / (40 * 39))
        parts += [
            text(x0 + side / 2, 24, name, size=14, bold=True),
            f'<path d="M{x0} 40V{40 + side}H{x0 + side}" fill="none" stroke="{GREY}"/>',
            text(x0 + side / 2, 260, "evaluated score"),
            text(x0 + side / 2, 290, f"Kendall's tau {tau:.2f}", colour=(GREEN_INK, RED_INK)[n]),
        ]
        for x, y in zip(true, (seen - low) / (high - low), strict=True):
            at = f'cx="{x0 + side * x:.1f}" cy="{40 + side * (0.95 - 0.9 * y):.1f}" r="4"'
            parts.append(f'<circle {at} fill="{(BLUE, ORANGE)[n]}" fill-opacity="0.75"/>')
    y = '<g transform="rotate(-90 22 138)">{}</g>'
    parts.append(y.format(text(22, 138, "predicted score")))
    return page(480, 310, "How well two predictors rank the same archs; simulated", parts)


def front() -> str:
    """Archs by latency and simulated accuracy, with the Pareto front, a limit and the winner."""
    space = hwnas.space("mobilenet_v3", resolutions=[128, 160, 192, 224])
    archs = space.sample(300, seed=0)
    ms = hwnas.latency_table(TABLE).estimate(space, archs).ms
    rng = np.random.default_rng(0)
    accuracy = 76 + 3 * np.log2(ms / np.median(ms)) + rng.normal(0, 1.2, 300)
    top = float(np.ceil(ms.max() / 5) * 5)
    low, high = 4 * float(np.floor(accuracy.min() / 4)), 4 * float(np.ceil(accuracy.max() / 4))
    names = ("estimated latency, ms", "accuracy, %; simulated")
    plot = Plot((0, top), (low, high), names=names)
    limit = float(np.median(ms))
    plot.line([(limit, low), (limit, high)], RED, "7 5")
    for x, y in zip(ms, accuracy, strict=True):
        plot.dot(float(x), float(y), SKY)
    best, stairs = -np.inf, []
    for i in np.argsort(ms):
        if accuracy[i] > best:
            stairs += [(float(ms[i]), float(best))] if stairs else []
            best = accuracy[i]
            stairs.append((float(ms[i]), float(best)))
            plot.dot(float(ms[i]), float(best), BLUE)
    plot.line(stairs, BLUE)
    meets = np.flatnonzero(ms <= limit)
    winner = meets[accuracy[meets].argmax()]
    plot.dot(float(ms[winner]), float(accuracy[winner]), RED, square=True, r=6)
    words = f"limit {limit:.1f} ms"
    plot.parts += [
        text(plot.at(limit, low)[0] + 8, 318, words, anchor="start", colour=RED_INK),
        text(455, 295, "line: front, square: winner", anchor="end"),
    ]
    return page(480, 390, "The front, a limit, and the winner", plot.parts)


def judgement() -> str:
    """What `verify` says, by where the re-timed latency lies."""
    rows = [
        (4.7, "exit 0: near the estimate, below the limit", GREEN, GREEN_INK),
        (5.6, "exit 3: too far from the estimate", RED, RED_INK),
        (5.15, "exit 3: above the limit", RED, RED_INK),
    ]

    def scale(ms: float) -> float:
        return 30 + (ms - 4) * 220

    parts = [
        text(225, 28, "estimate, its 90 % interval, and the limit", bold=True),
        text(scale(5), 52, "limit 5 ms"),
    ]
    for n, (measured, words, colour, ink) in enumerate(rows):
        y = 80 + 70 * n
        diamond = f"M{scale(measured):.0f} {y - 14}l7 14l-7 14l-7 -14z"
        parts += [
            rect(scale(4.4), y - 9, scale(5.3) - scale(4.4), 18, SKY, 0.5),
            dashed(scale(5), y - 22, scale(5), y + 18),  # ends above the words
            f'<circle cx="{scale(4.85):.0f}" cy="{y}" r="5" fill="{BLUE}"/>',
            f'<path d="{diamond}" fill="{colour}"/>',
            text(scale(4), y + 34, words, anchor="start", colour=ink),
        ]
    notes = (
        "band: interval, dot: estimate, diamond: re-timed",
        "exit 4: machine too slow, too fast or too noisy to judge",
    )
    parts += [text(225, 290 + 20 * n, line) for n, line in enumerate(notes)]
    return page(450, 325, "How verify judges a re-timed network", parts)


FIGURES = {
    "idea": idea,
    "concepts/macs": macs,
    "concepts/interval": interval,
    "concepts/sharing": sharing,
    "concepts/ranking": ranking,
    "concepts/front": front,
    "concepts/curse": winners_curse,
    "concepts/judgement": judgement,
}

if __name__ == "__main__":
    for name, draw in FIGURES.items():
        path = FOLDER / f"{name}.svg"
        path.parent.mkdir(exist_ok=True)
        path.write_text(draw(), encoding="utf-8")
