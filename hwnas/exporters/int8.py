"""ONNX in 8 bits: static QDQ, per channel, calibrated; layers that suffer stay float."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from hwnas.core.config import StrictModel
from hwnas.core.errors import UserError
from hwnas.core.rng import rng
from hwnas.core.store import write_bytes
from hwnas.exporters.float_graph import OPSET, float_graph
from hwnas.exporters.manifest import ModelFile
from hwnas.exporters.opened import Images, OpenModel
from hwnas.interfaces import Exporter

if TYPE_CHECKING:
    import torch

__all__ = ["Config", "build", "describe", "open_model"]

FILE_NAME = "model.int8.onnx"
MIN_AGREEMENT = 0.98
TOLERANCE = 0.3  # of the largest logit; what decides is the agreement


class Config(StrictModel):
    """How ranges are found and when a layer stays float."""

    name: Literal["int8"] = "int8"
    opset: Annotated[int, Field(ge=18, le=23, description="ONNX operator set of the target")] = (
        OPSET
    )
    dynamic_batch: bool = Field(True, description="any batch size; otherwise exactly 1")
    n_calibration: Annotated[int, Field(ge=1, description="training images that set ranges")] = 128
    seed: Annotated[int, Field(ge=0, description="which of the images those are")] = 0
    method: Literal["minmax", "percentile", "entropy"] = "minmax"
    symmetric: bool = Field(
        False, description="signed activations around 0, float biases: what TensorRT and NPUs take"
    )
    target_agreement: Annotated[
        float, Field(gt=0, le=1, description="top-1 agreement below which layers stay float")
    ] = 0.99
    max_float_layers: Annotated[
        float, Field(ge=0, le=1, description="share of the layers that may stay float")
    ] = 0.5


def build(config: Config) -> Exporter:
    """An exporter to `model.int8.onnx`; it needs `images` to calibrate with.

    Activations are unsigned and per tensor, weights signed and per channel. 8 bits need not be
    faster: depthwise layers and gates gain little, so a bundle states what was measured.
    """
    return _Int8Exporter(config)


def describe(config: Config, files: Sequence[Path]) -> ModelFile:
    """The manifest's entry of what `export` wrote."""
    return ModelFile(
        FILE_NAME,
        "int8",
        "int8",
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
class _Int8Exporter:
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
        """See `interfaces.Exporter`; which layers stayed float is in the metadata under `int8`.

        Raises:
            UserError: there are no images to calibrate with.
        """
        import onnx

        from hwnas.exporters.quantize import quantized

        if images is None or not len(images):
            raise UserError(
                "8 bits need images to calibrate with",
                expected="training images",
                found="none",
                fix="give `images` to `export`; `hwnas export RUN` takes them from the data set",
            )
        config = self.config
        proto = float_graph(
            model,
            input_shape=input_shape,
            folder=folder,
            metadata=metadata,
            opset=config.opset,
            dynamic_batch=config.dynamic_batch,
        )
        order = rng(config.seed, "exporters/int8").permutation(len(images))
        chosen, others = order[: config.n_calibration], order[config.n_calibration :]
        found = quantized(
            proto,
            images[chosen],
            images[others] if len(others) else images[chosen],
            method=config.method,
            symmetric=config.symmetric,
            target_agreement=config.target_agreement,
            max_float_layers=config.max_float_layers,
        )
        facts = {
            "n_calibration": len(chosen),
            "seed": config.seed,
            "method": config.method,
            "symmetric": config.symmetric,
            "agreement_all_int8": round(found.agreement_all_int8, 4),
            "agreement": round(found.agreement, 4),
            "float_layers": list(found.float_layers),
            "n_layers": found.n_layers,
        }
        kept = {item.key: item.value for item in proto.metadata_props}
        onnx.helper.set_model_props(found.model, {**kept, "int8": json.dumps(facts)})
        onnx.checker.check_model(found.model)
        path = Path(folder) / FILE_NAME
        write_bytes(path, found.model.SerializeToString())
        return (path,)
