"""OpenVINO's intermediate representation, for Intel processors, GPUs and NPUs."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from hwnas.core.config import LATER
from hwnas.core.env import require
from hwnas.core.errors import UserError
from hwnas.exporters.base import PROMISES, BatchConfig, Format, Source
from hwnas.exporters.onnx_files import find_onnx
from hwnas.interfaces import Exporter, Images, ModelFile, OpenModel, RunsOn

__all__ = ["RUNS_ON", "Config", "build"]

REQUIRES = ("openvino",)
EXTRA = "openvino"
STEMS = {"fp32": "model", "fp16": "model.fp16", "int8": "model.int8"}
FILES = tuple(f"{stem}.{ending}" for stem in STEMS.values() for ending in ("xml", "bin"))
RUNS_ON = (
    RunsOn("openvino", "fp32", {"precision": "fp32"}),
    RunsOn("openvino", "fp16", {"precision": "fp16"}),
    RunsOn("openvino", "int8", {"precision": "int8"}),
)

USAGE = """
import openvino

logits = openvino.compile_model("{file}", "CPU")(x)[0]
"""


class Config(BatchConfig):
    """Settings of the converted graph."""

    name: Literal["openvino"] = "openvino"
    precision: Annotated[Literal["fp32", "fp16", "int8"], LATER] = Field(
        "fp32",
        description="Precision of the file. `fp16`: weights only; `int8`: weights and activations,"
        " converted from the file of the format `int8`.",
    )

    @property
    def file(self) -> str:
        """Path of the model in a bundle.

        It is `openvino/model.xml`, or with `.fp16` or `.int8` before the ending. If a bundle has
        the format with several settings, labels are added to the names (`exporters.labels`).
        """
        return f"openvino/{STEMS[self.precision]}.xml"

    @property
    def sources(self) -> tuple[dict[str, Any], ...]:
        """For int8, the format `int8`, so that calibration runs once for both; otherwise empty."""
        is_int8 = self.precision == "int8"
        return ({"name": "int8", "symmetric": False},) if is_int8 else ()


def build(config: Config) -> Exporter:
    """An exporter to `model.xml` and `model.bin`, `model.int8.xml` and `.bin`, ...

    fp16 files store weights in half precision; the device setting determines the precision of
    arithmetic.
    """
    return _OpenVino(config)


@dataclass(frozen=True)
class _OpenVino(Format):
    config: Config

    def contents(self, source: Source) -> dict[str, bytes]:
        """The files of graph and weights; `source.metadata` is in the runtime info of the .xml.

        Raises:
            UserError: the precision is int8, and the folder has no file of the format `int8`.
        """
        openvino = require("openvino", extra=EXTRA)
        precision = self.config.precision
        names = [f"{STEMS[precision]}.{ending}" for ending in ("xml", "bin")]
        with tempfile.TemporaryDirectory() as temporary:
            converted = openvino.convert_model(str(self._onnx(source, Path(temporary))))
            _rename(converted)
            for key, value in source.metadata.items():
                converted.set_rt_info(value, ["hwnas", key])
            is_half = precision == "fp16"
            openvino.save_model(converted, Path(temporary, names[0]), compress_to_fp16=is_half)
            return {name: Path(temporary, name).read_bytes() for name in names}

    def _onnx(self, source: Source, temporary: Path) -> Path:
        """The ONNX file to convert."""
        if self.config.precision != "int8":
            source = source.in_precision(self.config.precision)
            graph = source.graph(dynamic_batch=self.config.dynamic_batch)
            path = temporary / "float.onnx"
            path.write_bytes(graph.SerializeToString())
            return path
        found = find_onnx(source.folder, "int8")
        if found is None:
            raise UserError(
                "the ONNX file for OpenVINO in int8 is missing",
                expected="a file of the format int8",
                where=source.folder,
                fix="export the format int8 before openvino",
            )
        return found

    def describe(self, files: Sequence[Path]) -> ModelFile:
        """The manifest entry of graph and weights, which have their own folder."""
        precision = self.config.precision
        return ModelFile(
            self.config.file,
            "openvino",
            precision,
            batch=self.config.batch,
            **PROMISES[precision]._asdict(),
        )

    def open_model(self, path: Path, *, threads: int = 1) -> OpenModel:
        """Opens the file in OpenVINO on the CPU, in float32.

        Raises:
            UserError: the file does not load.
        """
        openvino = require("openvino", extra=EXTRA)
        core = openvino.Core()
        settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
        try:
            model = core.read_model(str(path))
            dim = model.inputs[0].partial_shape[0]
            compiled = core.compile_model(model, "CPU", settings)
        except RuntimeError as error:
            raise UserError(
                "OpenVINO rejects the file",
                found=error,
                where=path,
                fix="export the file again; a file of a newer version needs a newer openvino",
            ) from error

        def run(x: Images) -> Images:
            found: Images = compiled(x)[0]
            return found

        version = openvino.__version__.split("-")[0]
        return OpenModel(run, f"openvino {version}", None if dim.is_dynamic else dim.get_length())


def _rename(model: Any) -> None:
    """Gives operators that OpenVINO added names that do not count the operators of the process."""
    for number, op in enumerate(model.get_ordered_ops()):
        kind = op.get_type_name()
        if kind == "Constant" or re.fullmatch(rf"{kind}_\d+", op.get_friendly_name()):
            op.set_friendly_name(f"{kind}.{number}")
