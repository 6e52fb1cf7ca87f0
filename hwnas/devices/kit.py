"""Running the device kit as a subprocess: progress in, interrupts out, failures explained."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections import deque
from collections.abc import Mapping, Sequence

from hwnas.core.errors import UserError
from hwnas.core.progress import Progress

__all__ = ["run_kit"]

INTERRUPTED = 130
PATIENCE_S = 10.0  # for an interrupted kit to write its last line
TAIL_LINES = 12


def run_kit(
    command: Sequence[str], *, environment: Mapping[str, str], progress: Progress, where: object
) -> None:
    """Run `command`, which speaks as `export/bench.py` does: JSON progress lines on stderr.

    An interrupt is handed on, and the kit given time to save. `environment` is added to ours.

    Raises:
        UserError: the kit failed; shows the end of what it said.
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
        raise UserError(
            f"the device kit failed with exit status {status}",
            found="".join(f"\n    {line}" for line in tail) or "no message",
            where=where,
        )


def _report(line: str, progress: Progress) -> bool:
    """Pass a progress line on; False if it is none."""
    if not line.startswith("{"):
        return False
    try:
        report = json.loads(line)
        progress(int(report["done"]), int(report["total"]), str(report["note"]))
    except (ValueError, KeyError, TypeError):
        return False
    return True
