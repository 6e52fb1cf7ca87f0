"""Core ML, for Apple's processors, GPUs and Neural Engine: a zipped `.mlpackage`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from hwnas import __version__
from hwnas.core.config import LATER
from hwnas.core.env import require
from hwnas.exporters.base import PROMISES, Format, FormatConfig, Source, converting
from hwnas.exporters.capture import capture, quiet
from hwnas.exporters.float_graph import INPUT_NAME, OUTPUT_NAME
from hwnas.exporters.mixed import LARGEST, closeness
from hwnas.exporters.mlpackage import coreml_model, zipped
from hwnas.interfaces import Exporter, ModelFile, OpenModel

__all__ = ["Config", "build"]

REQUIRES = ("coremltools",)
EXTRA = "coreml"
FILES = {
    "fp32": "model.mlpackage.zip",
    "fp16": "model.fp16.mlpackage.zip",
    "int8": "model.int8.mlpackage.zip",
}
MOST_IN_FP16 = 2048  # weights of a layer that `int8` leaves in fp16: the default of coremltools

USAGE = """
import zipfile

import coremltools  # predictions need macOS

folder = "{file}".removesuffix(".mlpackage.zip")
zipfile.ZipFile("{file}").extractall(folder)
network = coremltools.models.MLModel(folder + "/model.mlpackage")
logits = network.predict({"input": x})["logits"]
"""


class Config(FormatConfig):
    """Precision of the ML program."""

    name: Literal["coreml"] = "coreml"
    precision: Literal["fp32", "fp16", "int8"] = Field(
        "fp16",
        description="Precision of the file. `fp16`: weights and arithmetic; `int8`: weights only,"
        " arithmetic in fp16.",
    )
    weights: Annotated[Literal["compensated", "nearest"], LATER] = Field(
        "compensated",
        description="How `int8` rounds weights. `compensated`: by GPTQ, if this brings the"
        " logits closer to those of the float network; `nearest`: to the nearest value, always"
        " used with `finetune.precision: int8`. No effect in other precisions.",
    )

    @property
    def file(self) -> str:
        """Path of the model in a bundle.

        It is `model.mlpackage.zip`, or with `.fp16` or `.int8` before `.mlpackage`. If a bundle has
        the format with several settings, labels are added to the names (`exporters.labels`).
        """
        return FILES[self.precision]


def build(config: Config) -> Exporter:
    """An exporter to a zipped ML program for iOS 17 and macOS 14 or later, one image at a time.

    `input` [1, C, H, W] and `logits` [1, classes] are float32. The Neural Engine computes in fp16,
    so fp32 programs do not run on it. Unzip the file before you give it to Xcode.
    """
    return _CoreMl(config)


@dataclass(frozen=True)
class _CoreMl(Format):
    config: Config

    def contents(self, source: Source) -> dict[str, bytes]:
        """The zipped package; `source.metadata` becomes the user-defined metadata of the model.

        Raises:
            UserError: coremltools lacks an operator.
        """
        name = FILES[self.config.precision]
        with quiet():
            coremltools = require("coremltools", extra=EXTRA)
        with converting("Core ML", name):
            model = self._converted(coremltools, source)
            facts = {"hwnas_version": __version__, **source.metadata}
            model.user_defined_metadata.update(facts)
            model.short_description = source.metadata.get("model_card", "")
            return {name: zipped(model)}

    def _converted(self, coremltools: Any, source: Source) -> Any:
        """The MLModel in the chosen precision."""
        import numpy as np
        import torch

        from hwnas.exporters.fold import folded

        source = self._rounded(source.in_precision(self.config.precision))
        shape = (1, *source.input_shape)
        with torch.no_grad():
            network = folded(source.model, source.input_shape)
            program = capture(network, torch.zeros(shape))
        is_fp32 = self.config.precision == "fp32"
        precision = coremltools.precision
        model = coremltools.convert(
            program.run_decompositions({}),
            convert_to="mlprogram",
            compute_precision=precision.FLOAT32 if is_fp32 else precision.FLOAT16,
            minimum_deployment_target=coremltools.target.iOS17,
            inputs=[coremltools.TensorType(name=INPUT_NAME, shape=shape, dtype=np.float32)],
            outputs=[coremltools.TensorType(name=OUTPUT_NAME, dtype=np.float32)],
            skip_model_load=True,
        )
        if self.config.precision != "int8":
            return model
        optimize = coremltools.optimize.coreml
        rule = optimize.OpLinearQuantizerConfig(
            mode="linear_symmetric", weight_threshold=MOST_IN_FP16
        )
        return optimize.linear_quantize_weights(model, optimize.OptimizationConfig(rule))

    def _rounded(self, source: Source) -> Source:
        """In `int8`, with weights that lose nothing in 8 bits, if this brings logits closer."""
        from hwnas.exporters.parity import torch_logits
        from hwnas.exporters.weight_rounding import grid_weights, nearest_weights

        images, config = source.images, self.config
        if images is None or config.precision != "int8" or config.weights == "nearest":
            return source
        layers = {"levels": LARGEST, "at_least": MOST_IN_FP16 + 1}
        compensated = grid_weights(source.model, images, **layers)
        judged = images if source.held_out is None else source.held_out
        expected = torch_logits(source.model, judged)
        found, nearest = (
            closeness(
                torch_logits(nearest_weights(one, source.input_shape, **layers), judged), expected
            )
            for one in (compensated, source.model)
        )
        return replace(source, model=compensated) if found >= nearest else source

    def describe(self, files: Sequence[Path]) -> ModelFile:
        """The manifest entry of the file."""
        precision = self.config.precision
        return ModelFile(
            FILES[precision],
            "coreml",
            precision,
            batch=1,
            **PROMISES[precision]._asdict(),
        )

    def open_model(self, path: Path, *, threads: int = 1) -> OpenModel:
        """Reads the package back and interprets it in torch, see `mlpackage.coreml_model`."""
        return coreml_model(path)
