"""A search space as one line of text, and as an SVG with one row per part of the network."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from hwnas.spaces.cost import cost

if TYPE_CHECKING:
    from hwnas.spaces.space import SearchSpace

__all__ = ["draw_space", "summary"]

LINE, CHARACTER, PAD, GAP = 17, 7.25, 8, 6  # px; the font is 12 px monospace: 7.2 to 7.23 px wide
ROW_LABEL = 92
TEXT = 'font-family="monospace" font-size="12"'


def summary(space: SearchSpace) -> str:
    """Name, size, inputs, classes and range of MACs, in one line.

    Example: `mobilenet_tiny-165e5a1e: 2.78e+09 archs of 26 choices, 24 to 32 px, 3 channels to 1000
    classes, 0.712 M to 23.7 M MACs`.
    """
    size = space.size()
    sizes = [space.macro.resolutions[code] for code in space.allowed[0]]
    px = str(sizes[0]) if len(sizes) == 1 else f"{min(sizes)} to {max(sizes)}"
    ends = cost(space, space.codes([space.smallest(), space.largest()]), "macs") / 1e6
    least, most = (f"{end:.3g}" if end < 100 else f"{end:,.0f}" for end in ends)
    return (
        f"{space.id}: {size if size < 1e6 else f'{size:.3g}'} archs of {len(space.choices)} "
        f"choices, {px} px, {space.macro.in_channels} channels to {space.macro.num_classes} "
        f"classes, {least} M to {most} M MACs"
    )


def draw_space(space: SearchSpace) -> str:
    """SVG of the choices with their allowed values; choices with one value are grey."""
    rows = _rows(space)
    y = float(2 * LINE)
    parts, width = [_text(0, LINE, str(space))], CHARACTER * len(str(space))
    for label, boxes in rows:
        height = max(len(lines) for _, lines in boxes) * LINE + PAD
        parts.append(_text(0, y + LINE, label))
        x = float(ROW_LABEL)
        for is_open, lines in boxes:
            across = max(map(len, lines)) * CHARACTER + 2 * PAD
            colour = "#3b6fd8" if is_open else "#8b95a3"
            parts.append(
                f'<rect x="{x:.0f}" y="{y:.0f}" width="{across:.0f}" height="{height:.0f}" rx="3" '
                f'fill="{colour}" fill-opacity="0.12" stroke="{colour}"/>'
            )
            parts += [_text(x + PAD, y + LINE * (i + 1), line) for i, line in enumerate(lines)]
            x += across + GAP
        width = max(width, x)
        y += height + GAP
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {y:.0f}" '
        f'width="{width:.0f}" style="max-width: 100%; height: auto" role="img" '
        f'aria-label="search space {escape(space.name)}">'
        f"{''.join(parts)}</svg>"
    )


def _rows(space: SearchSpace) -> list[tuple[str, list[tuple[bool, list[str]]]]]:
    """Name and boxes of each part of the network. A box: whether it has a choice, and its lines."""
    lines: list[tuple[str, str, bool, str]] = []
    for choice, allowed in zip(space.choices, space.allowed, strict=True):
        row, _, rest = choice.name.partition(".")
        box, _, name = rest.rpartition(".")
        values = [str(choice.values[code]) for code in allowed]
        label = " ".join((f"{box} {name}".strip() or "", _shortened(values))).strip()
        lines.append((row, box, len(values) > 1, label))
    return [
        (
            row,
            [
                (any(line[2] for line in found), [line[3] for line in found])
                for found in (list(box) for _, box in groupby(part, key=lambda line: line[1]))
            ],
        )
        for row, part in groupby(lines, key=lambda line: line[0])
    ]


def _shortened(values: list[str]) -> str:
    return " ".join(values if len(values) <= 12 else [*values[:3], "...", values[-1]])


def _text(x: float, y: float, text: str) -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" {TEXT} fill="currentColor">{escape(text)}</text>'
