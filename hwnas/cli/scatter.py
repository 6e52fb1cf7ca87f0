"""Scatter plots of two series in plain characters, for terminals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["scatter"]

WIDTH, HEIGHT = 64, 20


def scatter(x: Sequence[float], y: Sequence[float], *, x_name: str, y_name: str) -> str:
    """A scatter plot as text: `o` is one point, `8` several, and `.` the diagonal x = y.

    Both axes are logarithmic and have the same range. All values must be positive.
    """
    values = np.log([*x, *y])
    low, high = float(values.min()), float(values.max())
    span = max(high - low, 1e-9)

    def cell(value: float, n: int) -> int:
        return int(min(n - 1, (np.log(value) - low) / span * n))

    grid = [[" "] * WIDTH for _ in range(HEIGHT)]
    for column in range(WIDTH):
        grid[column * HEIGHT // WIDTH][column] = "."
    for a, b in zip(x, y, strict=True):
        row, column = cell(b, HEIGHT), cell(a, WIDTH)
        grid[row][column] = "8" if grid[row][column] in "o8" else "o"
    bottom, top = f"{np.exp(low):.3g}", f"{np.exp(high):.3g}"
    margin = max(len(bottom), len(top))
    labels = {HEIGHT - 1: top, 0: bottom}
    lines = [f"{' ' * margin} {y_name}"]
    for row in reversed(range(HEIGHT)):
        lines.append(f"{labels.get(row, ''):>{margin}} |{''.join(grid[row]).rstrip()}")
    lines.append(" " * margin + " +" + "-" * WIDTH)
    gap = max(1, WIDTH - len(bottom) - len(top))
    lines.append(" " * (margin + 2) + bottom + " " * gap + top + f"  {x_name}")
    return "\n".join(lines) + "\n"
