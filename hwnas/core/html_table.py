"""Formats rows of values as an HTML table, which notebooks show for an object."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["MOST_ROWS", "html_table"]

MOST_ROWS = 60
"""Maximum number of rows that are shown; the number of other rows is stated below them."""


def html_table(rows: Sequence[Mapping[str, Any]], *, title: str = "") -> str:
    """An HTML table with its title and its own scroll bar; all text is escaped.

    It uses the colours of the page, so that it is readable in light and in dark notebooks.
    """
    columns = list(dict.fromkeys(key for row in rows[:MOST_ROWS] for key in row))
    head = "".join(f"<th style='text-align:left'>{html.escape(name)}</th>" for name in columns)
    lines = [
        "<tr>" + "".join(_cell(row.get(column)) for column in columns) + "</tr>"
        for row in rows[:MOST_ROWS]
    ]
    more = len(rows) - MOST_ROWS
    left_out = f"<p>and {more:,} rows more</p>" if more > 0 else ""
    headline = f"<p><b>{html.escape(title)}</b></p>" if title else ""
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    return f"{headline}<div style='overflow-x:auto'>{table if rows else ''}</div>{left_out}"


def _cell(value: Any) -> str:
    align = "right" if isinstance(value, (int, float)) and not isinstance(value, bool) else "left"
    return f"<td style='text-align:{align}'>{html.escape(_text(value))}</td>"


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
