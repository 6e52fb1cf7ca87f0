"""Progress as a line on stderr: rewritten in a terminal, printed every few seconds in a pipe."""

from __future__ import annotations

import os
import sys
import time

from hwnas.core.progress import Pace, Progress, duration
from hwnas.core.text import raw, visible

__all__ = ["progress_for"]

TERMINAL_PERIOD_S, PIPE_PERIOD_S = 0.5, 5.0


def progress_for(stage: str) -> Progress:
    """A Progress that rewrites one line of a terminal, or prints lines to a pipe at intervals."""
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
    """Width of the terminal that stderr writes to; 80 if unknown."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def _start(text: str, width: int) -> str:
    """The start of `text`: a line that wraps could not be rewritten."""
    from rich.cells import chop_cells

    return chop_cells(text, max(width, 1))[0] if text else text
