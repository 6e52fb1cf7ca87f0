"""Output of the verbs: results to stdout as a table or JSON, log and progress to stderr."""

from __future__ import annotations

import json
import logging
import sys
import warnings
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

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
        text = json.dumps({"table": list(rows), **more}, indent=1)
        sys.stdout.write(text.replace("\x7f", "\\u007f") + "\n")
        return
    from rich.console import Console
    from rich.table import Table

    if not rows and title:
        sys.stdout.write(visible(title, one_line=True) + "\n")
        return
    columns = list(dict.fromkeys(key for row in rows for key in row))
    heading = visible(title, one_line=True) or None
    table = Table(title=heading, title_justify="left", header_style="bold")
    for column in columns:
        numeric = any(isinstance(row.get(column), (int, float)) for row in rows)
        name = visible(column, one_line=True)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(row.get(column)) for column in columns))
    width = None if sys.stdout.isatty() else 160
    # not markup: rich would remove the extra of `hwnas[ncnn]`
    Console(file=raw(sys.stdout), width=width, markup=False, emoji=False).print(table)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int):
        return f"{value:,}"
    return visible(str(value))


def setup_logging(*, debug: bool) -> None:
    """Sends the logs of hwnas to stderr, and those of other libraries from level WARNING.

    Python warnings of libraries are meant for developers, so they are shown only with --debug, or
    if -W or PYTHONWARNINGS enables them.
    """
    if not (debug or sys.warnoptions):
        warnings.simplefilter("ignore")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("hwnas").setLevel(logging.DEBUG if debug else logging.INFO)
