"""The other process of `apart.Runner`: answers its commands, one JSON line each."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import IO, Any

import numpy as np

from hwnas.core.arrays import read_npy
from hwnas.core.config import build_model
from hwnas.core.errors import HwnasError, UserError
from hwnas.exporters import REGISTRY
from hwnas.exporters.apart import KINDS
from hwnas.exporters.apart_network import load
from hwnas.exporters.artifact import PlannedFormat
from hwnas.exporters.by_name import open_model
from hwnas.interfaces import OpenModel

__all__ = ["serve"]

Models = dict[tuple[str, str], OpenModel]


def serve() -> None:
    """Reads commands from stdin until it ends; writes log records and answers to stdout."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # runtimes print to stdout
    logger = logging.getLogger("hwnas")
    logger.setLevel(logging.INFO)
    logger.addHandler(_PassedOn(answers))
    models: Models = {}
    for line in sys.stdin:
        command, arguments = json.loads(line)
        try:
            answer = {"result": _answer(command, arguments, models)}
        except HwnasError as error:
            answer = _told(error)
        except Exception as error:  # a runtime can raise any exception
            answer = _told(
                UserError(
                    f"the runtime of the format {arguments.get('format')} failed",
                    found=f"{type(error).__name__}: {error}",
                )
            )
        _write(answers, answer)


class _PassedOn(logging.Handler):
    """Writes log records for the process that asked."""

    def __init__(self, answers: IO[str]) -> None:
        super().__init__()
        self._answers = answers

    def emit(self, record: logging.LogRecord) -> None:
        _write(self._answers, {"said": [record.name, record.levelno, record.getMessage()]})


def _write(answers: IO[str], answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


def _answer(command: str, asked: dict[str, Any], models: Models) -> Any:
    if command == "export":
        return _exported(asked)
    key = asked["format"], asked["path"]
    if command == "close":
        models.pop(key, None)
        return None
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


def _exported(asked: dict[str, Any]) -> list[str]:
    """Exports a format; returns the names of its files in the folder, the model first."""
    kind = REGISTRY.declaration(asked["format"]).Config
    config = build_model(kind, asked["section"], where=f"the format {asked['format']}")
    given: dict[str, Any] = {name: read_npy(Path(path)) for name, path in asked["images"].items()}
    folder, network = Path(asked["folder"]), load(Path(asked["path"]))
    files = (
        PlannedFormat(config, asked["label"])
        .exporter()
        .export(network, folder=folder, **given, **asked["arguments"])
    )
    return [str(file.relative_to(folder)) for file in files]


def _told(error: HwnasError) -> dict[str, Any]:
    kind = next((name for name, one in KINDS.items() if type(error) is one), "UserError")
    fields = {
        name: None if value is None else str(value)
        for name in ("expected", "found", "where", "fix")
        for value in [getattr(error, name)]
    }
    return {"kind": kind, "error": {"message": error._message, **fields}}
