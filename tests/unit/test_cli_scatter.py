"""The terminal's scatter: points where they belong, and every point drawn."""

from __future__ import annotations

from hwnas.cli.scatter import HEIGHT, WIDTH, scatter


def body(text: str) -> list[str]:
    """The grid's lines, bottom first, without the axis."""
    lines = [line.split("|", 1)[1].ljust(WIDTH) for line in text.splitlines() if "|" in line]
    return lines[::-1]


def test_equal_values_lie_on_the_diagonal_and_others_beside_it():
    text = scatter([1.0, 10.0, 100.0], [1.0, 10.0, 100.0], x_name="a ms", y_name="b ms")
    grid = body(text)
    assert len(grid) == HEIGHT
    assert grid[0][0] == "o" and grid[-1][WIDTH - 1] == "o"
    assert grid[HEIGHT // 2][WIDTH // 2] == "o"
    assert "a ms" in text and "b ms" in text and "100" in text
    above = body(scatter([1.0, 1.0, 100.0], [1.0, 100.0, 100.0], x_name="a", y_name="b"))
    assert above[-1][0] == "o" and above[0][WIDTH - 1] == " "


def test_several_points_in_one_cell_are_told_apart_from_one():
    grid = body(scatter([1.0, 1.0, 5.0], [1.0, 1.0, 5.0], x_name="a", y_name="b"))
    assert grid[0][0] == "8" and grid[-1][WIDTH - 1] == "o"


def test_one_point_alone_is_drawn():
    assert "o" in "".join(body(scatter([2.0], [2.0], x_name="a", y_name="b")))
