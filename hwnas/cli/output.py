"""How verbs talk: results to stdout as a table or JSON, log and progress to stderr."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

from hwnas.core.progress import Progress

__all__ = ["Format", "emit", "progress_for", "setup_logging"]

TERMINAL_PERIOD_S, PIPE_PERIOD_S = 0.5, 5.0


class Format(str, Enum):
    """How a result is printed."""

    table = "table"
    json = "json"


def emit(
    rows: Sequence[Mapping[str, Any]], *, format: Format, title: str = "", **more: Any
) -> None:
    """Print rows to stdout; JSON is `{"table": rows, **more}`, a table shows `rows` only."""
    if format is Format.json:
        sys.stdout.write(json.dumps({"table": list(rows), **more}, indent=1) + "\n")
        return
    from rich.console import Console
    from rich.table import Table

    columns = list(dict.fromkeys(key for row in rows for key in row))
    table = Table(title=title or None, title_justify="left", header_style="bold")
    for column in columns:
        numeric = any(isinstance(row.get(column), (int, float)) for row in rows)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(row.get(column)) for column in columns))
    width = None if sys.stdout.isatty() else 160
    # cells are text, never markup: rich would swallow the extra of `hwnas[ncnn]`
    Console(file=sys.stdout, width=width, markup=False, emoji=False).print(table)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int):
        return f"{value:,}"
    return str(value)


def setup_logging(*, debug: bool) -> None:
    """hwnas's log lines to stderr; other libraries from WARNING up."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("hwnas").setLevel(logging.DEBUG if debug else logging.INFO)


def progress_for(stage: str) -> Progress:
    """A Progress that rewrites one line of a terminal, or prints a line now and then to a pipe."""
    begin = time.monotonic()
    is_terminal = sys.stderr.isatty()
    last = 0.0

    def show(done: int, total: int, note: str = "") -> None:
        nonlocal last
        now = time.monotonic()
        finished = done >= total
        if not finished and now - last < (TERMINAL_PERIOD_S if is_terminal else PIPE_PERIOD_S):
            return
        last = now
        spent = now - begin
        left = f", {spent / done * (total - done):.0f} s left" if 0 < done < total else ""
        line = f"  {stage}: {done}/{total}{left}" + (f"  {note}" if note else "")
        if is_terminal:
            sys.stderr.write(f"\r\x1b[2K{line[:140]}" + ("\n" if finished else ""))
        else:
            sys.stderr.write(line + "\n")
        sys.stderr.flush()

    return show
