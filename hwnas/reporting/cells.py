"""A cell of a network as an SVG: named boxes from left to right, dots where values are summed."""

from __future__ import annotations

from hwnas.reporting.drawing import boxed, line, svg, text
from hwnas.spaces.cell_views import CellView
from hwnas.spaces.ops import OpSpec

__all__ = ["draw_cell"]

WIDTH, HEIGHT, COLUMN, LANE, MARGIN, TOP = 92, 22, 132, 30, 78, 20  # px

Point = tuple[float, float]


def draw_cell(cell: CellView) -> str:
    """Draws a cell as an SVG element, in the colours of `draw_network`."""
    columns = _columns(cell)
    lanes: dict[int, list[int]] = {}
    for i, column in enumerate(columns):
        lanes.setdefault(column, []).append(i)
    tallest = max(map(len, lanes.values()), default=1)

    def at(i: int) -> Point:
        beside = lanes[columns[i]]
        lane = beside.index(i) - (len(beside) - 1) / 2
        return MARGIN + COLUMN * (columns[i] + 0.5), TOP + LANE * (tallest / 2 + lane)

    def end_of(i: int) -> Point:
        x, y = at(i)
        return x + (4 if _is_sum(cell, i) else WIDTH / 2), y

    lines, boxes = [], []
    for i, op in enumerate(cell.ops):
        x, y = at(i)
        start = x - (4 if _is_sum(cell, i) else WIDTH / 2)
        if cell.inputs[i]:
            lines.append(line((MARGIN - 8, y), (start, y), COLUMN))
            boxes.append(text(MARGIN - 12, y + 3.5, cell.inputs[i], anchor="end"))
        lines += [line(end_of(source), (start, y), COLUMN - WIDTH) for source in cell.sources[i]]
        if _is_sum(cell, i):
            boxes.append(f'<circle class="se" cx="{x:.1f}" cy="{y:.1f}" r="4"/>')
        else:
            boxes.append(boxed(op, x - WIDTH / 2, y - HEIGHT / 2, WIDTH, HEIGHT))
            boxes.append(text(x, y + 3.5, _label(op)))
    across = MARGIN + COLUMN * (max(columns, default=0) + 1)
    return svg(across, TOP + LANE * (tallest + 0.5), [*lines, *boxes], label=f"{cell.kind} cell")


def _columns(cell: CellView) -> list[int]:
    """Number of operators on the longest path from an input to each operator."""
    found: list[int] = []
    for sources in cell.sources:
        found.append(1 + max((found[source] for source in sources), default=-1))
    return found


def _is_sum(cell: CellView, i: int) -> bool:
    """Whether an operator only passes on a sum: a node of a cell."""
    return cell.ops[i].kind == "identity" and len(cell.sources[i]) > 1


def _label(op: OpSpec) -> str:
    """A name such as `sep_conv 5x5`; for a node of a recurrent cell, its activation."""
    if op.kind == "highway":
        return "identity" if op.act == "none" else op.act
    if op.kind in ("identity", "factorized"):
        return "skip_connect" if op.kind == "identity" else "factorized"
    windowed = op.kind not in ("concat", "cut", "norm", "join", "fold")
    return f"{op.kind} {op.kernel}x{op.kernel}" if windowed else op.kind
