"""Progress of public functions as bars: in a notebook, or in the line of a terminal."""

from __future__ import annotations

import html
import time
from typing import Any

from hwnas.core.progress import Pace, Progress, duration
from hwnas.core.progress_line import progress_for

__all__ = ["progress_bars"]

PERIOD_S = 0.25


def progress_bars(stage: str) -> Progress:
    """A bar per stage, with the time left: `hwnas.run(..., progress=hwnas.progress_bars)`.

    In a notebook, the bar is as wide as the cell and is updated in place. Elsewhere it is the line
    that the command line shows on stderr.
    """
    if (display := _display()) is not None:
        return _Bar(stage, display)
    return progress_for(stage)


def _display() -> Any:
    """The function `display` of a notebook; None elsewhere."""
    try:
        from IPython import get_ipython
        from IPython.display import display
    except ImportError:
        return None
    shell = get_ipython()
    return display if shell is not None and "IPKernelApp" in shell.config else None


class _Bar:
    """An output of a cell that is replaced at every step."""

    def __init__(self, stage: str, display: Any) -> None:
        self._stage, self._display, self._pace = stage, display, Pace()
        self._handle: Any = None
        self._last = float("-inf")

    def expect(self, seconds: float | None, later: float) -> None:
        """See `core.progress.Expecting`."""
        self._pace = Pace(seconds)

    def __call__(self, done: int, total: int, note: str = "") -> None:
        left, now, is_over = self._pace.left(done, total), time.monotonic(), done >= total
        if not is_over and now - self._last < PERIOD_S:
            return
        self._last = now
        shown = {"text/html": self._html(done, total, left, note), "text/plain": self._stage}
        if self._handle is None:
            self._handle = self._display(shown, raw=True, display_id=True)
        else:
            self._handle.update(shown, raw=True)

    def _html(self, done: int, total: int, left: float | None, note: str) -> str:
        words = f"{self._stage}: {done:,} of {total:,}"
        if left is not None and done < total:
            words += f", {duration(left)} left"
        words += f"  {note}" if note else ""
        return (
            f"<div style='max-width:100%'><progress style='width:100%' value='{done}'"
            f" max='{max(total, 1)}'></progress><br><small>{html.escape(words)}</small></div>"
        )
