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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hwnas.core.arrays import read_npy
from hwnas.core.errors import CheckFailed, UserError
from hwnas.exporters import REGISTRY
from hwnas.exporters.artifact import PlannedFormat
from hwnas.exporters.by_name import open_model
from hwnas.exporters.opened import CannotRunHere
from hwnas.interfaces import Images, OpenModel

if TYPE_CHECKING:
    import torch

__all__ = ["KINDS", "Apart", "Crashed", "Runner", "export_safely", "opened_safely"]

START = "from hwnas.exporters.apart_server import serve; serve()"
KINDS = {kind.__name__: kind for kind in (UserError, CannotRunHere, CheckFailed)}
"""Errors that the other process passes on, by name."""
TAIL = 300  # characters of the last output of a crashed runtime
WEIGHTS, DEFINITION, PROGRAM = "network.safetensors", "arch.json", "network.pt2"


class Crashed(UserError):
    """A converter or a runtime crashed, and its process ended."""


class Uncaptured(Exception):
    """A network that cannot be passed to another process."""


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

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *error: object) -> None:
        if self._process is not None:
            self._process.kill()
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
            Crashed: the converter crashed. No file of the format was written.
            Uncaptured: hwnas did not build the network, and torch.export cannot capture it.
        """
        here = Path(self._folder.name)
        path = _saved(network, here, arguments["input_shape"])
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
        names: list[str] = self._ask("export", asked, "converter")
        return tuple(Path(folder, name) for name in names)

    def open(self, format: str, path: Path, *, trust: bool = False) -> Apart:
        """Opens a model file in that process; see `by_name.open_model`.

        Raises:
            UserError, CannotRunHere: as in `by_name.open_model`.
            Crashed: the runtime crashed. Every run of the model can raise this, too.
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

    def close(self, format: str, path: Path) -> None:
        """Closes a model file that the process opened."""
        if self._process is not None:
            self._ask("close", {"format": format, "path": str(Path(path).absolute())})

    def _ask(self, command: str, arguments: dict[str, Any], who: str = "runtime") -> Any:
        process = self._process or self._start()
        assert process.stdin is not None and process.stdout is not None
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
        raise Crashed(
            f"the {who} of the format {arguments['format']} crashed",
            found=self._last_words(),
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


def _saved(network: torch.nn.Module, folder: Path, input_shape: Sequence[int]) -> Path:
    """Saves a network for the other process: weights and `definition`, or else its program.

    Raises:
        Uncaptured: the network has no definition or differs from it, and torch.export cannot
            capture it.
    """
    import torch
    from safetensors.torch import save_file

    from hwnas.nets.subnet import computes_as_defined

    definition = getattr(network, "definition", None)
    if isinstance(definition, dict) and computes_as_defined(network):
        state = {name: value.cpu().contiguous() for name, value in network.state_dict().items()}
        save_file(state, folder / WEIGHTS)
        (folder / DEFINITION).write_text(json.dumps(definition))
        return folder / WEIGHTS
    from hwnas.exporters.float_graph import quiet
    from hwnas.exporters.pt2 import captured

    try:
        with quiet():
            torch.export.save(captured(network, input_shape), folder / PROGRAM)
    except Exception as error:  # torch can raise any exception here
        raise Uncaptured(f"{type(error).__name__}: {error}") from error
    return folder / PROGRAM


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
