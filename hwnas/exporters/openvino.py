"""OpenVINO's intermediate representation, for Intel's processors, GPUs and NPUs."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from hwnas.core.config import StrictModel
from hwnas.core.env import require
from hwnas.core.errors import UserError
from hwnas.core.store import write_bytes
from hwnas.exporters.float_graph import float_graph
from hwnas.exporters.manifest import ModelFile
from hwnas.exporters.opened import Images, OpenModel
from hwnas.interfaces import Exporter

if TYPE_CHECKING:
    import torch

__all__ = ["Config", "build", "describe", "open_model"]

REQUIRES = ("openvino",)
EXTRA = "openvino"
FILES = ("model.xml", "model.bin")


class Config(StrictModel):
    """Settings of the converted graph."""

    name: Literal["openvino"] = "openvino"
    dynamic_batch: bool = Field(True, description="any batch size; otherwise exactly 1")


def build(config: Config) -> Exporter:
    """An exporter to `model.xml` and `model.bin`, weights in float32."""
    return _OpenVinoExporter(config)


def describe(config: Config, files: Sequence[Path]) -> ModelFile:
    """The manifest's entry of what `export` wrote."""
    batch = None if config.dynamic_batch else 1
    return ModelFile(f"openvino/{FILES[0]}", "openvino", "fp32", batch=batch)


def open_model(path: Path, *, threads: int = 1) -> OpenModel:
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


@dataclass(frozen=True)
class _OpenVinoExporter:
    config: Config

    def export(
        self,
        model: torch.nn.Module,
        *,
        input_shape: Sequence[int],
        folder: Path,
        metadata: Mapping[str, str] | None = None,
        images: Images | None = None,
    ) -> tuple[Path, ...]:
        """See `interfaces.Exporter`; `metadata` is in the runtime info of the .xml."""
        openvino = require("openvino", extra=EXTRA)
        proto = float_graph(
            model,
            input_shape=input_shape,
            folder=folder,
            metadata=metadata,
            dynamic_batch=self.config.dynamic_batch,
        )
        with tempfile.TemporaryDirectory() as temporary:
            source = Path(temporary, "float.onnx")
            source.write_bytes(proto.SerializeToString())
            converted = openvino.convert_model(str(source))
            for key, value in (metadata or {}).items():
                converted.set_rt_info(value, ["hwnas", key])
            openvino.save_model(converted, Path(temporary, FILES[0]), compress_to_fp16=False)
            files = tuple(Path(folder) / name for name in FILES)
            for path in reversed(files):
                write_bytes(path, Path(temporary, path.name).read_bytes())
        return files
