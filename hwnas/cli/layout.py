"""Layout of result tables: words stay whole, in a terminal of any width."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["tables"]

WHOLE_WORD = 24
"""Words of at most this many terminal cells are never broken. Longer ones are paths or hashes."""
BORDER = 3
"""Terminal cells per column for its border and padding; a table has one more."""


@dataclass(frozen=True)
class _Column:
    """A column as text: the heading, one text per row, and whether it holds numbers."""

    name: str
    cells: tuple[str, ...]
    is_numeric: bool = False
    is_empty: bool = False

    @property
    def natural(self) -> int:
        """Width of the longest line."""
        return max(map(_width, (line for text in self._texts for line in text.split("\n"))))

    @property
    def least(self) -> int:
        """Width of the longest word, or `WHOLE_WORD` if that is less."""
        words = [word for text in self._texts for word in text.split()]
        return min(WHOLE_WORD, max(map(_width, words), default=1))

    @property
    def _texts(self) -> tuple[str, ...]:
        return (self.name, *self.cells)


def tables(
    rows: Sequence[Mapping[str, Any]], text: Mapping[str, Sequence[str]], *, width: int
) -> Iterator[Table]:
    """Tables that show `rows` in `width` terminal cells; one table if the columns fit.

    If they do not fit, columns without any value are left out. If that is not enough, the rows
    become columns, in as many tables as are needed.

    text: the cells of each column as they are shown, one per row.
    """
    columns = [
        _Column(
            name,
            tuple(cells),
            is_numeric=any(isinstance(row.get(name), (int, float)) for row in rows),
            is_empty=all(row.get(name) is None for row in rows),
        )
        for name, cells in text.items()
    ]
    filled = [column for column in columns if not column.is_empty]
    for choice in (columns, filled):
        if _fits(choice, width):
            yield _drawn(choice, width)
            return
    yield from (_drawn(part, width) for part in _on_its_side(filled, len(rows), width))


def _on_its_side(columns: Sequence[_Column], n_rows: int, width: int) -> Iterator[list[_Column]]:
    """Tables with the names of the columns on the left, and as many rows beside them as fit."""
    head, *rest = columns
    keys = _Column(head.name, tuple(column.name for column in rest))
    turned = [_Column(head.cells[i], tuple(c.cells[i] for c in rest)) for i in range(n_rows)]
    part = [keys]
    for row in turned:
        if len(part) > 1 and not _fits([*part, row], width):
            yield part
            part = [keys]
        part.append(row)
    yield part


def _fits(columns: Iterable[_Column], width: int) -> bool:
    return 1 + sum(column.least + BORDER for column in columns) <= width


def _drawn(columns: Sequence[_Column], width: int) -> Table:
    """The columns as a table; the widest lines wrap first, between words where possible."""
    from rich.table import Table

    table = Table(header_style="bold")
    widths = _widths(columns, width)
    for column in columns:
        justify: Any = "right" if column.is_numeric else "left"
        table.add_column(column.name, justify=justify, overflow="fold", width=next(widths))
    for row in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*row)
    return table


def _widths(columns: Sequence[_Column], width: int) -> Iterator[int]:
    """Widths of the columns whose sum fits; the least widths if not even their sum fits."""
    widths = [column.natural for column in columns]
    least = [min(column.least, column.natural) for column in columns]
    excess = 1 + sum(widths) + BORDER * len(columns) - width
    while excess > 0:
        slack, wide = max((have - need, i) for i, (have, need) in enumerate(zip(widths, least)))
        if slack == 0:
            break
        widths[wide] -= 1
        excess -= 1
    return iter(widths)


def _width(text: str) -> int:
    from rich.cells import cell_len

    return cell_len(text)
