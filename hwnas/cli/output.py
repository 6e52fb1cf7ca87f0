"""Output of the verbs: results to stdout as a table or JSON, log and progress to stderr."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

from hwnas.cli.layout import tables
from hwnas.core.progress import Pace, Progress, duration
from hwnas.core.text import raw, visible

__all__ = ["Format", "emit", "progress_for", "setup_logging"]

TERMINAL_PERIOD_S, PIPE_PERIOD_S = 0.5, 5.0


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

    Python warnings of libraries are meant for developers, so they are shown only with --debug, or
    if -W or PYTHONWARNINGS enables them.
    """
    if not (debug or sys.warnoptions):
        warnings.simplefilter("ignore")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("hwnas").setLevel(logging.DEBUG if debug else logging.INFO)


def progress_for(stage: str) -> Progress:
    """A Progress that rewrites one line of a terminal, or prints a line now and then to a pipe."""
    return _Line(stage)


class _Line:
    """The progress of one stage: units done, time left of it and of the command, and a note."""

    def __init__(self, stage: str) -> None:
        self._stage, self._pace, self._later = stage, Pace(), 0.0
        self._is_terminal = sys.stderr.isatty()
        self._last = -PIPE_PERIOD_S

    def expect(self, seconds: float | None, later: float) -> None:
        """See `core.progress.Expecting`."""
        self._pace, self._later = Pace(seconds), later

    def __call__(self, done: int, total: int, note: str = "") -> None:
        left = self._pace.left(done, total)
        now, is_over = time.monotonic(), done >= total
        period = TERMINAL_PERIOD_S if self._is_terminal else PIPE_PERIOD_S
        if not is_over and now - self._last < period:
            return
        self._last = now
        line = f"  {self._stage}: {done}/{total}"
        if left is not None and not is_over:
            line += f", {duration(left)} left"
            if self._later:
                line += f", {duration(left + self._later)} in all"
        line += f"  {note}" if note else ""
        if self._is_terminal:
            shown = visible(line, one_line=True)
            shown = shown if is_over else _start(shown, _terminal_width() - 1)
            raw(sys.stderr).write(f"\r\x1b[2K{shown}" + ("\n" if is_over else ""))
        else:
            sys.stderr.write(line + "\n")
        sys.stderr.flush()


def _terminal_width() -> int:
    """Width of the terminal that stderr writes to; 80 if it does not tell."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def _start(text: str, width: int) -> str:
    """The start of `text`: a line that wraps could not be rewritten."""
    from rich.cells import chop_cells

    return chop_cells(text, max(width, 1))[0] if text else text
