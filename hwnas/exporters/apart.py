"""Runs models in a process of their own, so that a crash of a runtime ends only that process.

Formats whose runtime hwnas itself needs (torch, ONNX Runtime) declare `IN_PROCESS = True`; a check
of such a file does not need another process.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hwnas.core.arrays import read_npy
from hwnas.core.errors import CheckFailed, HwnasError, UserError
from hwnas.exporters import REGISTRY
from hwnas.exporters.opened import CannotRunHere
from hwnas.interfaces import Images, OpenModel

__all__ = ["Apart", "Crashed", "Runner", "opened_safely", "serve"]

START = "from hwnas.exporters.apart import serve; serve()"
KINDS = {kind.__name__: kind for kind in (UserError, CannotRunHere, CheckFailed)}
TAIL = 300  # characters of the last output of a crashed runtime


class Crashed(UserError):
    """The runtime ended the process in which it ran a file."""


@dataclass(frozen=True)
class Apart:
    """A file that another process runs.

    times: `times(x, n)` runs x [B, C, H, W] n times and returns the milliseconds of every run.
    """

    model: OpenModel
    times: Callable[[Images, int], list[float]]


class Runner:
    """The other process; it starts when the first file is opened, and again after a crash."""

    def __init__(self, *, threads: int = 1) -> None:
        """`threads`: of every file."""
        self._threads = threads
        self._folder = tempfile.TemporaryDirectory(prefix="hwnas-")
        self._log = Path(self._folder.name, "log")
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *error: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._end()
        self._folder.cleanup()

    def open(self, format: str, path: Path, *, trust: bool = False) -> Apart:
        """Opens a file of a format there; see `formats.open_model`.

        Raises:
            UserError, CannotRunHere: as in `formats.open_model`.
            Crashed: the runtime crashed. So can every run of the model.
        """
        file = Path(path).absolute()
        asked = {"format": format, "path": str(file), "threads": self._threads, "trust": trust}
        facts = self._ask("open", asked)

        def run(x: Images) -> Images:
            given, found = (Path(self._folder.name, name) for name in ("x.npy", "y.npy"))
            np.save(given, x, allow_pickle=False)
            self._ask("run", {**asked, "given": str(given), "found": str(found)})
            logits: Images = read_npy(found)
            return logits

        def times(x: Images, n: int) -> list[float]:
            given = Path(self._folder.name, "x.npy")
            np.save(given, x, allow_pickle=False)
            ms: list[float] = self._ask("times", {**asked, "given": str(given), "n": n})
            return ms

        return Apart(OpenModel(run, **facts), times)

    def _ask(self, command: str, arguments: dict[str, Any]) -> Any:
        process = self._process or self._start()
        assert process.stdin is not None and process.stdout is not None
        line = ""
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps([command, arguments]) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        if not line.endswith("\n"):
            raise Crashed(
                f"the runtime of the format {arguments['format']} crashed",
                found=self._last_words(),
                where=arguments["path"],
                fix="the other formats are not affected; update the package of this one, or leave"
                " the format out",
            )
        answer = json.loads(line)
        if "error" in answer:
            raise KINDS[answer["kind"]](**answer["error"])
        return answer["result"]

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
            )
        return self._process

    def _last_words(self) -> str:
        status = self._end()
        ending = f"exit status {status}"
        with contextlib.suppress(ValueError):
            ending = signal.Signals(-status).name
        said = self._log.read_text("utf-8", "replace").strip()[-TAIL:]
        return f"{ending}; {said}" if said else ending

    def _end(self) -> int:
        assert self._process is not None
        process, self._process = self._process, None
        for stream in (process.stdin, process.stdout):
            assert stream is not None
            with contextlib.suppress(BrokenPipeError):
                stream.close()
        return process.wait()


@contextlib.contextmanager
def opened_safely(
    format: str, path: Path, *, threads: int = 1, trust: bool = False
) -> Iterator[OpenModel]:
    """The model of a file; in a process of its own, unless its format is `IN_PROCESS`.

    Raises:
        UserError, CannotRunHere: as in `formats.open_model`.
        Crashed: the runtime crashed, now or when the model runs.
    """
    from hwnas.exporters.formats import open_model

    is_known = format in REGISTRY.names
    if not is_known or getattr(REGISTRY.declaration(format), "IN_PROCESS", False):
        yield open_model(format, path, threads=threads, trust=trust)
        return
    with Runner(threads=threads) as runner:
        yield runner.open(format, path, trust=trust).model


def serve() -> None:
    """The other process: answers the commands of a `Runner`, one JSON line each."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # runtimes print to stdout
    models: dict[tuple[str, str], OpenModel] = {}
    for line in sys.stdin:
        command, arguments = json.loads(line)
        try:
            answer = {"result": _answer(command, arguments, models)}
        except HwnasError as error:
            answer = _told(error)
        except Exception as error:  # a runtime can raise any exception
            answer = _told(
                UserError("the runtime failed", found=f"{type(error).__name__}: {error}")
            )
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _answer(command: str, asked: dict[str, Any], models: dict[tuple[str, str], OpenModel]) -> Any:
    from hwnas.exporters.formats import open_model

    key = asked["format"], asked["path"]
    if command == "open" or key not in models:  # after a crash of another file
        models[key] = open_model(
            asked["format"], Path(asked["path"]), threads=asked["threads"], trust=asked["trust"]
        )
    model = models[key]
    if command == "open":
        names = ("runtime", "batch", "delegated", "untimed")
        return {name: getattr(model, name) for name in names}
    x = read_npy(Path(asked["given"]))
    if command == "run":
        np.save(asked["found"], np.asarray(model.run(x), dtype=np.float32), allow_pickle=False)
        return None
    ms = []
    for _ in range(asked["n"]):
        start = time.perf_counter()
        model.run(x)
        ms.append(1e3 * (time.perf_counter() - start))
    return ms


def _told(error: HwnasError) -> dict[str, Any]:
    kind = next((name for name, one in KINDS.items() if type(error) is one), "UserError")
    fields = {
        name: None if value is None else str(value)
        for name in ("expected", "found", "where", "fix")
        for value in [getattr(error, name)]
    }
    return {"kind": kind, "error": {"message": error._message, **fields}}
