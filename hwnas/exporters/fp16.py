"""ONNX with weights and arithmetic in half precision; images and logits stay float32."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field

from hwnas.core.config import StrictModel
from hwnas.core.errors import UserError
from hwnas.core.store import write_bytes
from hwnas.exporters.float_graph import OPSET, float_graph
from hwnas.exporters.manifest import ModelFile
from hwnas.exporters.opened import Images, OpenModel
from hwnas.interfaces import Exporter

if TYPE_CHECKING:
    import torch

__all__ = ["Config", "build", "describe", "open_model"]

FILE_NAME = "model.fp16.onnx"
MIN_AGREEMENT = 0.995
TOLERANCE = 0.03  # of the largest logit: 2^-11 per operation, over some fifty layers


class Config(StrictModel):
    """Settings of the graph that is converted."""

    name: Literal["fp16"] = "fp16"
    opset: Annotated[int, Field(ge=18, le=23, description="ONNX operator set of the target")] = (
        OPSET
    )
    dynamic_batch: bool = Field(True, description="any batch size; otherwise exactly 1")


def build(config: Config) -> Exporter:
    """An exporter to `model.fp16.onnx`, the operators of `model.onnx` between two casts.

    ONNX Runtime's CPU kernels compute in float32 and round in between, so that on a CPU the file
    is half as large and slower; GPUs and phones run it in half precision.
    """
    return _Fp16Exporter(config)


def describe(config: Config, files: Sequence[Path]) -> ModelFile:
    """The manifest's entry of what `export` wrote."""
    return ModelFile(
        FILE_NAME,
        "fp16",
        "fp16",
        batch=None if config.dynamic_batch else 1,
        opset=config.opset,
        parity_tolerance=TOLERANCE,
        min_agreement=MIN_AGREEMENT,
    )


def open_model(path: Path, *, threads: int = 1) -> OpenModel:
    """The file in ONNX Runtime."""
    from hwnas.exporters.opened import onnxruntime_model

    return onnxruntime_model(path, threads=threads)


@dataclass(frozen=True)
class _Fp16Exporter:
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
        """See `interfaces.Exporter`.

        Raises:
            UserError: a weight is beyond the range of half precision.
        """
        import onnx

        from hwnas.builders.precision import to_precision

        proto = float_graph(
            model,
            input_shape=input_shape,
            folder=folder,
            metadata=metadata,
            opset=self.config.opset,
            dynamic_batch=self.config.dynamic_batch,
        )
        _check_range(proto)
        half = to_precision(proto, "fp16", float_io=True)
        onnx.checker.check_model(half, full_check=True)
        path = Path(folder) / FILE_NAME
        write_bytes(path, half.SerializeToString())
        return (path,)


def _check_range(proto: object) -> None:
    from onnx import TensorProto, numpy_helper

    limit = float(np.finfo(np.float16).max)
    for tensor in proto.graph.initializer:  # type: ignore[attr-defined]
        if tensor.data_type == TensorProto.FLOAT:
            largest = float(np.abs(numpy_helper.to_array(tensor)).max(initial=0.0))
            if not largest <= limit:
                raise UserError(
                    "a weight does not fit into half precision",
                    expected=f"at most {limit:g}",
                    found=largest,
                    where=tensor.name,
                    fix="leave fp16 out, or train with weight decay on this layer",
                )
