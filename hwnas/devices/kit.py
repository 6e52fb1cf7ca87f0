"""Finds and runs the device kit: forwards progress and interrupts, explains failures."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from hwnas.core.errors import UserError
from hwnas.core.json_data import strict_json
from hwnas.core.progress import Progress
from hwnas.core.resources import kit_module, resource
from hwnas.core.text import visible
from hwnas.interfaces import DeviceSpec

__all__ = ["CPU_PROVIDERS", "KitFailed", "kit_files", "require_processors", "run_kit"]

CPU_PROVIDERS = ("CPUExecutionProvider", "CPU", "cpu")
"""Names of the CPU providers. Every installation of a runtime has its CPU provider."""

INTERRUPTED = 130
PATIENCE_S = 10.0  # for an interrupted kit to write its last line
TAIL_LINES = 12
MAX_LINE = 1 << 16  # characters; a longer line is read in parts
NOTE = "bench.py: note: "
"""Prefix of a line with a message of the kit to the user, before the timing."""

log = logging.getLogger(__name__)


class KitFailed(UserError):
    """The kit, or the command that should start it, ended with the exit status `status`."""

    status = 1


def kit_files() -> tuple[Path, ...]:
    """Files that must be next to the models of a plan so that `python bench.py` can time them."""
    folder = resource("export")
    return (*sorted([*folder.glob("bench*.py"), *folder.glob("run_*.py")]), folder / "README.md")


def require_processors(device: DeviceSpec, *, is_forced: bool) -> None:
    """Rejects a device on the CPU of this machine with more threads than usable processors.

    is_forced: only warns.

    Raises:
        UserError: the affinity of this process, or the quota of its cgroups, is below the threads.
    """
    if device.transport != "local" or device.provider not in CPU_PROVIDERS:
        return
    host = kit_module("bench_host")
    if not (found := str(host.too_many(device.threads))):
        return
    if is_forced:
        log.warning("device %s: %s", device.name, found)
        return
    usable = host.usable_processors()
    raise UserError(
        "more threads than processors",
        expected=f"at most {usable} thread{'s' * (usable > 1)} here",
        found=found,
        where=f"device {device.name}",
        fix=f"set `threads: {usable}` in the file of the device, give this process more processors"
        " (taskset, or the quota of its container), or force it with"
        " `--profile force_threads=true` (`hwnas run`: `--set profile.force_threads=true`)",
    )


def run_kit(
    command: Sequence[str], *, environment: Mapping[str, str], progress: Progress, where: object
) -> None:
    """Runs `command`, which must behave as `export/bench.py` does: JSON progress lines on stderr.

    An interrupt is forwarded, and the kit gets time to save. `environment` is added to the
    environment of this process. A kit may end early, when its medians are known; `progress` then
    shows all of the work.

    Raises:
        KitFailed: the kit failed; shows the end of its output.
        KeyboardInterrupt: the run was interrupted.
    """
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    last: tuple[int, int, str] | None = None

    def show(done: int, total: int, note: str = "") -> None:
        nonlocal last
        last = done, total, note
        progress(done, total, note)

    with subprocess.Popen(
        command,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,  # so that Ctrl-C reaches the kit only once, through this process
    ) as process:
        assert process.stderr is not None
        try:
            for line in iter(partial(process.stderr.readline, MAX_LINE), ""):
                if not _report(line, show):
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
    if last is not None and last[0] < last[1]:
        progress(last[1], last[1], last[2])


def _report(line: str, progress: Progress) -> bool:
    """Forwards a progress line or a note; False if the line is neither."""
    if line.startswith(NOTE):
        log.warning("%s", visible(line[len(NOTE) :].rstrip()))
        return True
    if not line.startswith("{"):
        return False
    try:
        report = strict_json(line)
        progress(int(report["done"]), int(report["total"]), str(report["note"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        return False
    return True
