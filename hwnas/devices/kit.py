"""Finds and runs the device kit: forwards progress and interrupts, explains failures."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path

from hwnas.core.errors import UserError
from hwnas.core.json_data import strict_json
from hwnas.core.progress import Progress
from hwnas.core.resources import resource

__all__ = ["KitFailed", "kit_files", "run_kit"]

INTERRUPTED = 130
PATIENCE_S = 10.0  # for an interrupted kit to write its last line
TAIL_LINES = 12
NOTE = "bench.py: note: "
"""Begins a line that the kit says before it times, for the user."""

log = logging.getLogger(__name__)


class KitFailed(UserError):
    """The kit, or what was to start it, ended with the exit status `status`."""

    status = 1


def kit_files() -> tuple[Path, ...]:
    """What has to lie beside a plan's models for `python bench.py` to time them, in any runtime."""
    folder = resource("export")
    return (*sorted([*folder.glob("bench*.py"), *folder.glob("run_*.py")]), folder / "README.md")


def run_kit(
    command: Sequence[str], *, environment: Mapping[str, str], progress: Progress, where: object
) -> None:
    """Run `command`, which speaks as `export/bench.py` does: JSON progress lines on stderr.

    An interrupt is handed on, and the kit given time to save. `environment` is added to ours.

    Raises:
        KitFailed: the kit failed; shows the end of what it said.
        KeyboardInterrupt: it was interrupted.
    """
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    with subprocess.Popen(
        command,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,  # the terminal's Ctrl-C must reach the kit once, through us
    ) as process:
        assert process.stderr is not None
        try:
            for line in process.stderr:
                if not _report(line, progress):
                    tail.append(line.rstrip())
            status = process.wait()
        except BaseException:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()
            raise
    if status in (INTERRUPTED, -signal.SIGINT):
        raise KeyboardInterrupt
    if status != 0:
        failure = KitFailed(
            f"the device kit failed with exit status {status}",
            found="".join(f"\n    {line}" for line in tail) or "no message",
            where=where,
        )
        failure.status = status
        raise failure


def _report(line: str, progress: Progress) -> bool:
    """Pass a progress line or a note on; False if it is neither."""
    if line.startswith(NOTE):
        log.warning("%s", line[len(NOTE) :].rstrip())
        return True
    if not line.startswith("{"):
        return False
    try:
        report = strict_json(line)
        progress(int(report["done"]), int(report["total"]), str(report["note"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        return False
    return True
