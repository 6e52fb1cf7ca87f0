"""Output of the verbs: results to stdout as a table or JSON, log and progress to stderr."""

from __future__ import annotations

import json
import logging
import sys
import warnings
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

from hwnas.cli.layout import tables
from hwnas.core.progress_line import progress_for
from hwnas.core.text import raw, visible

__all__ = ["Format", "emit", "progress_for", "setup_logging"]


class Format(str, Enum):
    """Format of the output."""

    table = "table"
    json = "json"


def emit(
    rows: Sequence[Mapping[str, Any]], *, format: Format, title: str = "", **more: Any
) -> None:
    """Prints rows to stdout: JSON is `{"table": rows, **more}`, a table shows only `rows`.

    Without rows, a table shows only the title. Cells, columns and title are plain text: markup and
    control characters have no effect.
    """
    if format is Format.json:
        written = json.dumps({"table": list(rows), **more}, indent=1)
        sys.stdout.write(written.replace("\x7f", "\\u007f") + "\n")
        return
    from rich.console import Console

    heading = visible(title, one_line=True)
    if not rows and title:
        sys.stdout.write(heading + "\n")
        return
    columns = dict.fromkeys(key for row in rows for key in row)
    text = {
        visible(column, one_line=True): [_cell(row.get(column)) for row in rows]
        for column in columns
    }
    named = [{visible(key, one_line=True): value for key, value in row.items()} for row in rows]
    width = None if sys.stdout.isatty() else 160
    # not markup: rich would remove the extra of `hwnas[ncnn]`
    console = Console(file=raw(sys.stdout), width=width, markup=False, emoji=False)
    for table in tables(named, text, width=console.width) if rows else ():
        table.title, table.title_justify, heading = heading or None, "left", ""
        console.print(table)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        is_count = value.is_integer() and abs(value) >= 1e4
        return f"{value:,.0f}" if is_count and abs(value) < 1e15 else f"{value:.4g}"
    if isinstance(value, int):
        return f"{value:,}"
    return visible(str(value))


def setup_logging(*, debug: bool) -> None:
    """Sends the logs of hwnas to stderr, and those of other libraries from level WARNING.

    Python warnings of libraries are meant for developers. They are shown only with --debug, or if
    -W or PYTHONWARNINGS enables them.
    """
    if not (debug or sys.warnoptions):
        warnings.simplefilter("ignore")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("hwnas").setLevel(logging.DEBUG if debug else logging.INFO)
