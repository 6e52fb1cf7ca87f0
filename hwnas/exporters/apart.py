"""Runs converters and models in a process of their own: a crash ends only that process.

Formats whose packages hwnas itself needs (torch, ONNX, ONNX Runtime) declare `IN_PROCESS = True`.
Their converters and models run in the calling process, which saves the start of another process.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hwnas.core.arrays import read_npy
from hwnas.core.errors import CheckFailed, UserError
from hwnas.exporters import REGISTRY
from hwnas.exporters.apart_network import Uncaptured, saved
from hwnas.exporters.artifact import PlannedFormat
from hwnas.exporters.by_name import open_model
from hwnas.exporters.last_words import last_words
from hwnas.exporters.opened import CannotRunHere
from hwnas.exporters.time_limits import export_limit_s, run_limit_s
from hwnas.interfaces import Images, OpenModel

if TYPE_CHECKING:
    import torch

__all__ = ["KINDS", "Apart", "Crashed", "Runner", "TimedOut", "export_safely", "opened_safely"]

START = "from hwnas.exporters.apart_server import serve; serve()"
KINDS = {kind.__name__: kind for kind in (UserError, CannotRunHere, CheckFailed)}
"""Maps the name of each error that the other process passes on to its class."""


class Crashed(UserError):
    """A converter or a runtime crashed, and its process ended."""


class TimedOut(Crashed):
    """A converter or a runtime did not answer within its time limit, and was ended."""


@dataclass(frozen=True)
class Apart:
    """A model file that another process runs.

    times: `times(x, n)` runs x [B, C, H, W] n times and returns the milliseconds of every run.
    """

    model: OpenModel
    times: Callable[[Images, int], list[float]]


class Runner:
    """A process for converters and models. It starts when first needed, and again after a crash."""

    def __init__(self, *, threads: int = 1) -> None:
        """threads: number of threads of every model and converter."""
        self._threads = threads
        self._folder = tempfile.TemporaryDirectory(prefix="hwnas-")
        self._log = Path(self._folder.name, "log")
        self._process: subprocess.Popen[str] | None = None
        self._said = 0  # bytes of the log before the current command

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *error: object) -> None:
        if self._process is not None:
            _kill(self._process)
            self._end()
        self._folder.cleanup()

    def export(
        self,
        planned: PlannedFormat,
        network: torch.nn.Module,
        *,
        folder: Path,
        images: Mapping[str, Images],
        **arguments: Any,
    ) -> tuple[Path, ...]:
        """Exports a format in that process; `images` and `arguments` as in `Exporter.export`.

        Raises:
            UserError: the format cannot express the network.
            Crashed: the converter crashed, or took too long (`TimedOut`). No file of the format was
                written.
            Uncaptured: hwnas did not build the network, and torch.export cannot capture it.
        """
        here = Path(self._folder.name)
        path = saved(network, here, arguments["input_shape"])
        for name, array in images.items():
            np.save(here / f"{name}.npy", array, allow_pickle=False)
        asked = {
            "format": planned.name,
            "section": planned.config.model_dump(mode="json"),
            "label": planned.label,
            "path": str(path),
            "folder": str(Path(folder).absolute()),
            "images": {name: str(here / f"{name}.npy") for name in images},
            "arguments": arguments,
        }
        limit_s = export_limit_s(network, arguments["input_shape"])
        names = self._ask("export", asked, limit_s, who="converter")
        return tuple(Path(folder, str(name)) for name in names)

    def open(self, format: str, path: Path, *, trust: bool = False) -> Apart:
        """Opens a model file in that process; see `by_name.open_model`.

        Raises:
            UserError, CannotRunHere: as in `by_name.open_model`.
            Crashed: the runtime crashed, or took too long (`TimedOut`). Every run of the model can
                raise this, too.
        """
        file = Path(path).absolute()
        asked = {"format": format, "path": str(file), "threads": self._threads, "trust": trust}
        facts = self._ask("open", asked, run_limit_s())

        def run(x: Images) -> Images:
            given, found = (Path(self._folder.name, name) for name in ("x.npy", "y.npy"))
            np.save(given, x, allow_pickle=False)
            question = {**asked, "given": str(given), "found": str(found)}
            self._ask("run", question, run_limit_s(len(x)))
            logits: Images = read_npy(found)
            return logits

        def times(x: Images, n: int) -> list[float]:
            given = Path(self._folder.name, "x.npy")
            np.save(given, x, allow_pickle=False)
            question = {**asked, "given": str(given), "n": n}
            ms: list[float] = self._ask("times", question, run_limit_s(n * len(x)))
            return ms

        return Apart(OpenModel(run, **facts), times)

    def close(self, format: str, path: Path) -> None:
        """Closes a model file that the process opened."""
        if self._process is not None:
            asked = {"format": format, "path": str(Path(path).absolute())}
            self._ask("close", asked, run_limit_s())

    def _ask(
        self, command: str, arguments: dict[str, Any], limit_s: float, *, who: str = "runtime"
    ) -> Any:
        process = self._process or self._start()
        self._said = self._log.stat().st_size
        assert process.stdin is not None and process.stdout is not None
        is_late = threading.Event()

        def end() -> None:
            is_late.set()
            _kill(process)

        timer = threading.Timer(limit_s, end)
        timer.daemon = True
        timer.start()
        try:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(json.dumps([command, arguments]) + "\n")
                process.stdin.flush()
            while (line := process.stdout.readline()).endswith("\n"):
                answer = json.loads(line)
                if "said" in answer:
                    name, level, text = answer["said"]
                    logging.getLogger(name).log(level, "%s", text)
                    continue
                if "error" in answer:
                    raise KINDS[answer["kind"]](**answer["error"])
                return answer["result"]
        finally:
            timer.cancel()
        raise self._ended(command, arguments, who, limit_s if is_late.is_set() else None)

    def _ended(
        self, command: str, arguments: Mapping[str, Any], who: str, limit_s: float | None
    ) -> Crashed:
        """The error for a process that ended; limit_s: because it took longer than this."""
        ending, said = self._last_words()
        kind, what, expected = Crashed, "crashed", None
        if limit_s is not None:
            kind, what = TimedOut, "takes too long"
            expected = f"an answer within {limit_s:,.0f} s"
            ending = f"no answer after {limit_s:,.0f} s, so it was ended"
        return kind(
            f"the {who} of the format {arguments['format']} {what}",
            expected=expected,
            found=f"{ending}; {said}" if said else ending,
            where=arguments["folder"] if command == "export" else arguments["path"],
            fix="update the package of this format, or remove it from the formats to export; other"
            " formats are not affected",
        )

    def _start(self) -> subprocess.Popen[str]:
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "OMP_NUM_THREADS": str(self._threads),
        }
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", START],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                text=True,
                start_new_session=True,  # so that `_kill` also ends what it has started
            )
        return self._process

    def _last_words(self) -> tuple[str, str]:
        """How the process ended, and the end of its output."""
        status = self._end()
        is_signal = -status in [*signal.Signals]
        ending = signal.Signals(-status).name if is_signal else f"exit status {status}"
        return ending, last_words(self._log.read_bytes()[self._said :].decode("utf-8", "replace"))

    def _end(self) -> int:
        assert self._process is not None
        process, self._process = self._process, None
        for stream in (process.stdin, process.stdout):
            assert stream is not None
            with contextlib.suppress(BrokenPipeError):
                stream.close()
        return process.wait()


def _kill(process: subprocess.Popen[str]) -> None:
    """Ends a process and the processes that it has started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _is_apart(format: str) -> bool:
    """Whether a format is converted and run in another process."""
    is_known = format in REGISTRY.names
    return is_known and not getattr(REGISTRY.declaration(format), "IN_PROCESS", False)


def export_safely(
    planned: PlannedFormat,
    network: torch.nn.Module,
    *,
    runner: Runner | None,
    folder: Path,
    images: Mapping[str, Images],
    **arguments: Any,
) -> tuple[Path, ...]:
    """Exports a network in the process of `runner`, unless the format is `IN_PROCESS`.

    A network that hwnas did not build, or whose layers were replaced since, is passed as a program
    of torch.export. If torch.export cannot capture it, this process converts it, because no other
    process can rebuild it.

    Raises:
        UserError, Crashed: as in `Runner.export`.
    """
    if runner is not None and _is_apart(planned.name):
        with contextlib.suppress(Uncaptured):
            return runner.export(planned, network, folder=folder, images=images, **arguments)
    given: dict[str, Any] = {**images, **arguments}
    return planned.exporter().export(network, folder=folder, **given)


@contextlib.contextmanager
def opened_safely(
    format: str,
    path: Path,
    *,
    threads: int = 1,
    trust: bool = False,
    runner: Runner | None = None,
) -> Iterator[OpenModel]:
    """Opens a model file in another process, unless its format is `IN_PROCESS`.

    runner: the process to use, with its number of threads; by default a new one.

    Raises:
        UserError, CannotRunHere: as in `by_name.open_model`.
        Crashed: the runtime crashed, now or when the model runs.
    """
    if not _is_apart(format):
        yield open_model(format, path, threads=threads, trust=trust)
        return
    with contextlib.ExitStack() as stack:
        chosen = runner or stack.enter_context(Runner(threads=threads))
        yield chosen.open(format, path, trust=trust).model
        chosen.close(format, path)
