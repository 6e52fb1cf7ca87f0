"""OpenVINO's intermediate representation, for Intel's processors, GPUs and NPUs."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hwnas.core.env import require
from hwnas.core.errors import UserError
from hwnas.exporters.base import BatchConfig, Format, Source
from hwnas.interfaces import Exporter, Images, ModelFile, OpenModel

__all__ = ["Config", "build"]

REQUIRES = ("openvino",)
EXTRA = "openvino"
FILES = ("model.xml", "model.bin")


class Config(BatchConfig):
    """Settings of the converted graph."""

    name: Literal["openvino"] = "openvino"


def build(config: Config) -> Exporter:
    """An exporter to `model.xml` and `model.bin`, weights in float32."""
    return _OpenVino(config)


@dataclass(frozen=True)
class _OpenVino(Format):
    config: Config

    def contents(self, source: Source) -> dict[str, bytes]:
        """Graph and weights; `metadata` is in the runtime info of the .xml."""
        openvino = require("openvino", extra=EXTRA)
        graph = source.graph(dynamic_batch=self.config.dynamic_batch)
        with tempfile.TemporaryDirectory() as temporary:
            float_onnx = Path(temporary, "float.onnx")
            float_onnx.write_bytes(graph.SerializeToString())
            converted = openvino.convert_model(str(float_onnx))
            for key, value in source.metadata.items():
                converted.set_rt_info(value, ["hwnas", key])
            openvino.save_model(converted, Path(temporary, FILES[0]), compress_to_fp16=False)
            return {name: Path(temporary, name).read_bytes() for name in FILES}

    def describe(self, files: Sequence[Path]) -> ModelFile:
        """Graph and weights, in a folder of their own."""
        return ModelFile(f"openvino/{FILES[0]}", "openvino", "fp32", batch=self.config.batch)

    def open_model(self, path: Path, *, threads: int = 1) -> OpenModel:
        """The file in OpenVINO on the CPU, in float32.

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
            raise UserError("OpenVINO rejects the file", found=error, where=path) from error

        def run(x: Images) -> Images:
            found: Images = compiled(x)[0]
            return found

        version = openvino.__version__.split("-")[0]
        return OpenModel(run, f"openvino {version}", None if dim.is_dynamic else dim.get_length())
