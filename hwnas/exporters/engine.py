"""Builds TensorRT engines with the device kit, and refuses engines of other models or systems."""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from hwnas.core.config import LATER
from hwnas.core.confined import inside, read_regular
from hwnas.core.errors import Invalid, UserError
from hwnas.core.resources import resource
from hwnas.core.store import explained, file_hash, read_json
from hwnas.core.text import kind_of
from hwnas.exporters.base import PROMISES, Format, FormatConfig, Promise, Source
from hwnas.exporters.onnx_files import find_onnx, static_batch
from hwnas.exporters.opened import CannotRunHere
from hwnas.exporters.own import remember, require_own
from hwnas.interfaces import ModelFile, OpenModel, RunsOn

__all__ = [
    "EngineConfig",
    "EngineExporter",
    "Precision",
    "check_engine",
    "engine_name",
    "run_engine",
    "runs_on",
]

MAX_BYTES = 1 << 32  # maximum size of an engine
Batch = Annotated[int, Field(ge=1, le=65_536)]
Precision = Literal["fp32", "fp16", "int8"]
SOURCES: dict[str, dict[str, Any]] = {
    "fp32": {"name": "onnx"},
    "fp16": {"name": "fp16"},
    "int8": {"name": "int8", "symmetric": True},  # the only one that TensorRT supports
}
ENGINE_PROMISES = PROMISES | {
    "fp32": Promise(5e-3, 0.995),  # TF32, other summation orders
    "fp16": Promise(0.03, 0.995),  # sums in half precision
}
_BUILD = """
import json, sys
from pathlib import Path
kit, text = sys.argv[1:]
sys.path.insert(0, kit)
import trt_build
spec = json.loads(text)
try:
    trt = trt_build.open_runtime(spec["runtime"])
    paths = Path(spec["source"]), Path(spec["out"])
    settings = spec["batches"], spec["capability"], spec["with_tf32"]
    trt_build.build(trt, *paths, spec["model"], *settings)
except trt_build.BundleError as error:
    sys.exit(f"error: {error}")
"""


def engine_name(runtime: str, precision: Precision, capability: str | None) -> str:
    """File name of an engine."""
    target = "" if capability is None else f".sm{capability.replace('.', '')}"
    return f"model.{precision}.{runtime}{target}.engine"


def runs_on(runtime: str, **settings: Any) -> tuple[RunsOn, ...]:
    """The `RUNS_ON` of an engine format: GPUs of this machine, in every precision.

    Tables are measured with TF32, because TensorRT multiplies in TF32 by default.
    """
    precisions: tuple[Precision, ...] = ("fp32", "fp16", "int8")
    return tuple(
        RunsOn(runtime, p, {"precision": p, "tf32": True, **settings}, transport="local")
        for p in precisions
    )


class EngineConfig(FormatConfig):
    """Precision and batch sizes of the engine."""

    precision: Precision = Field(
        "fp32", description="Precision of the ONNX file that the engine is built from."
    )
    batches: tuple[Batch, Batch, Batch] = Field(
        (1, 1, 8),
        description="Smallest, usual and largest batch size; TensorRT optimises for the usual one.",
    )
    tf32: Annotated[bool, LATER] = Field(
        False,
        description="Whether to allow TF32 (float32 products in 19 bits). Always on in engines"
        " that hwnas adds for a device of the run, because its table is measured with TF32.",
    )

    @model_validator(mode="after")
    def _ordered(self) -> EngineConfig:
        if list(self.batches) != sorted(self.batches):
            raise Invalid("smallest <= usual <= largest", key="batches")
        return self

    @property
    def file(self) -> str:
        """Path of the model in a bundle.

        It is `engines/model.PRECISION.RUNTIME.engine`, with the target GPU (`.sm80`) if it is set.
        If a bundle has the format with several settings, labels are added to the names
        (`exporters.labels`).
        """
        capability: str | None = getattr(self, "capability", None)
        return f"engines/{engine_name(self.name, self.precision, capability)}"

    @property
    def sources(self) -> tuple[dict[str, Any], ...]:
        """The ONNX format of the precision, with any batch size if the largest one is above 1."""
        section = SOURCES[self.precision]
        return (section if self.batches[2] == 1 else {**section, "dynamic_batch": True},)

    def takes(self, batch: int) -> bool:
        """Whether the engine is tuned for this batch size."""
        return self.batches[1] == batch

    @classmethod
    def for_batch(cls, batch: int) -> dict[str, Any]:
        """Settings of an engine for exactly this batch size, like the engines that are timed."""
        return {"batches": [batch, batch, batch]}


@dataclass(frozen=True)
class EngineExporter(Format):
    """Builds an engine from the ONNX file of its precision, which must be in the folder.

    `batches` are the smallest, usual and largest batch size of a dynamic model. `capability` None
    means that of the local GPU.
    """

    runtime: Literal["tensorrt", "tensorrt_rtx"]
    precision: Precision
    batches: tuple[int, int, int]
    capability: str | None = None
    tf32: bool = False

    def contents(self, source: Source) -> dict[str, bytes]:
        """The engine and its metadata (engine.schema.json).

        Raises:
            UserError: the ONNX file or the runtime is missing, the runtime refuses the file, or
                there is no GPU and no capability is given.
        """
        section = SOURCES[self.precision]
        model = find_onnx(
            source.folder,
            section["name"],
            symmetric=section.get("symmetric", False),
            largest_batch=self.batches[2],
        )
        if model is None:
            raise UserError(
                f"the ONNX file for an engine in {self.precision} is missing",
                expected=f"a file of the format {section['name']}",
                where=source.folder,
                fix=f"export the format {section['name']} before {self.runtime}",
            )
        name = engine_name(self.runtime, self.precision, self.capability)
        with tempfile.TemporaryDirectory() as temporary:
            self._build(model, Path(temporary, name))
            remember(Path(temporary, name).read_bytes())
            return {file: Path(temporary, file).read_bytes() for file in (name, f"{name}.json")}

    def describe(self, files: Sequence[Path]) -> ModelFile:
        """The manifest entry of the engine, with the tolerance of its precision."""
        least, _, largest = self.batches
        return ModelFile(
            f"engines/{files[0].name}",
            self.runtime,
            self.precision,
            batch=least if least == largest else None,
            **ENGINE_PROMISES[self.precision]._asdict(),
        )

    def open_model(self, path: Path, *, threads: int = 1) -> OpenModel:
        """Always fails: only `trt_run.py` of the kit runs engines, on their GPU; see `run_engine`.

        Raises:
            UserError: the engine is stale (see `check_engine`).
            CannotRunHere: otherwise.
        """
        check_engine(path)
        raise CannotRunHere(
            "only the device kit runs an engine, on the GPU that it was built for",
            fix="python trt_run.py --check . in the bundle",
        )

    def _build(self, source: Path, out: Path) -> None:
        import onnx

        batch = static_batch(onnx.load(source))
        spec = {
            "runtime": self.runtime,
            "source": str(source),
            "out": str(out),
            "model": {"path": source.name, "precision": self.precision, "batch": batch},
            "batches": list(self.batches),
            "capability": self.capability,
            "with_tf32": self.tf32,
        }
        kit = resource("export", "trt_build.py").parent
        done = subprocess.run(
            [sys.executable, "-c", _BUILD, str(kit), json.dumps(spec)],
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            lines = (done.stdout + done.stderr).strip().splitlines() or ["no output"]
            raise UserError(
                f"{self.runtime} did not build an engine",
                found=" | ".join(lines[-3:]),
                where=source,
                fix=self._fix(),
            )

    def _fix(self) -> str | None:
        if self.capability is None:
            return "if there is no GPU, set the target's: {name: tensorrt_rtx, capability: '8.9'}"
        if self.precision == "int8":
            return "TensorRT supports only symmetric int8: {name: int8, symmetric: true}"
        return None


def run_engine(bundle: Path, name: str, *, trust: bool = False) -> tuple[bool, str]:
    """Whether an engine of a bundle passes the checks on this GPU, and the output of the kit.

    Golden outputs, samples and latency are compared. The kit of this host runs, because scripts in
    a bundle may be untrusted. trust: also run an engine that this hwnas did not build.

    Raises:
        CannotRunHere: there is no NVIDIA GPU, or the engine is not trusted.
    """
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise CannotRunHere("engines need an NVIDIA GPU; none was found", found=error) from error
    engine = inside(bundle, name)
    if not trust:
        with explained("read an engine", engine):
            require_own(read_regular(engine, at_most=MAX_BYTES), engine)
    kit = resource("export", "trt_run.py")
    done = subprocess.run(
        [sys.executable, str(kit), "--check", str(bundle.resolve()), f"--engine={name}"],
        capture_output=True,
        text=True,
    )
    return done.returncode == 0, (done.stdout + done.stderr).strip()


def check_engine(
    path: Path,
    *,
    source: Path | None = None,
    version: str | None = None,
    capability: str | None = None,
) -> dict[str, Any]:
    """Reads an engine's metadata, and checks its hash and the given model, version and GPU.

    Raises:
        UserError: the engine does not match; engines only run on the system they were built for.
    """
    facts = read_json(path.with_name(f"{path.name}.json"))
    if not isinstance(facts, dict):
        expected, where = "a JSON object, as trt_build.py writes it", f"{path}.json"
        problem = "not the metadata of an engine"
        raise UserError(problem, expected=expected, found=kind_of(facts), where=where)
    if not path.is_file():
        raise UserError("the engine is missing", where=path, fix="export the engine again")
    files = [("sha256", path, "the engine was altered")]
    if source is not None:
        files.append(("model_sha256", source, "the engine was built from another model file"))
    for key, file, problem in files:
        if facts.get(key) != (found := file_hash(file)):
            stored = f"sha256 {facts.get(key, 'unknown')!s:.64}, as in {path.name}.json"
            raise _other_engine(problem, stored, f"sha256 {found} of {file.name}", path)
    other_version = f"the engine was built with another version of {facts.get('runtime')}"
    for what, key, here, problem in (
        ("version", "runtime_version", version, other_version),
        ("compute capability", "capability", capability, "the engine was built for another GPU"),
    ):
        if here is not None and facts.get(key) != here:
            raise _other_engine(problem, f"{what} {here}", f"{what} {facts.get(key)}", path)
    return facts


def _other_engine(problem: str, expected: str, found: str, where: Path) -> UserError:
    fix = "build the engine again: python trt_build.py in the bundle, or `hwnas export`"
    return UserError(problem, expected=expected, found=found, where=where, fix=fix)
