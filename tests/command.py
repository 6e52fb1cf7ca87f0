"""The `hwnas` command in this process: what a shell sees of it, without importing torch anew."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import signal
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hwnas.cli.main import main


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


def hwnas(*arguments: str | Path, cwd: Path | None = None) -> Done:
    """As `python -m hwnas ARGUMENTS` in the folder `cwd`; leaves this process as it was."""
    out, err = io.StringIO(), io.StringIO()
    with _as_before(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        os.chdir(cwd or Path.cwd())
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as ending:
            code = ending.code
        except BaseException:  # as the interpreter does
            traceback.print_exc()
            code = 1
    status = code if isinstance(code, int) else int(code is not None)
    return Done(status, out.getvalue(), err.getvalue())


@contextlib.contextmanager
def _as_before() -> Iterator[None]:
    """Puts back what `main` sets: the folder, logging and the handlers of signals."""
    folder, root, own = Path.cwd(), logging.getLogger(), logging.getLogger("hwnas")
    handlers, levels = root.handlers[:], (root.level, own.level)
    numbers = (signal.SIGINT, signal.SIGTERM)
    actions = [signal.getsignal(number) for number in numbers]
    root.handlers = []  # `main` closes those that it finds
    try:
        yield
    finally:
        os.chdir(folder)
        root.handlers = handlers
        root.setLevel(levels[0])
        own.setLevel(levels[1])
        for number, action in zip(numbers, actions, strict=True):
            signal.signal(number, action)
