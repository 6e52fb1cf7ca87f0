"""ExecuTorch `.pte`, for torch programs on phones: its operators run in XNNPACK."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from hwnas.exporters.base import PROMISES, Format, FormatConfig, Source, converting
from hwnas.exporters.capture import capture
from hwnas.exporters.mixed import (
    LARGEST,
    Calibration,
    MaxFloatLayers,
    NCalibration,
    Seed,
    TargetAgreement,
    Weights,
    calibration,
    mixed,
)
from hwnas.exporters.pte import delegation, executorch_model
from hwnas.interfaces import Exporter, ModelFile, OpenModel

if TYPE_CHECKING:
    import torch

    from hwnas.exporters.pt2e import State

__all__ = ["Config", "build"]

REQUIRES = ("executorch", "torchao")
EXTRA = "executorch"
FILES = {"fp32": "model.pte", "int8": "model.int8.pte"}

log = logging.getLogger(__name__)

USAGE = """
import torch
from executorch.runtime import Runtime

program = Runtime.get().load_program("{file}")
logits = program.load_method("forward").execute([torch.from_numpy(x)])[0].numpy()
"""


class Config(FormatConfig):
    """Precision, and how 8-bit ranges are determined."""

    name: Literal["executorch"] = "executorch"
    precision: Literal["fp32", "int8"] = Field(
        "fp32", description="Precision of the file. `int8`: weights and activations (PT2E)."
    )
    n_calibration: NCalibration = 128
    seed: Seed = 0
    weights: Weights = "compensated"
    target_agreement: TargetAgreement = 0.99
    max_float_layers: MaxFloatLayers = 0.5

    @property
    def file(self) -> str:
        """Path of the model in a bundle, `model.pte` or `model.int8.pte`.

        If a bundle has the format with several settings, labels are added to the names
        (`exporters.labels`).
        """
        return FILES[self.precision]


def build(config: Config) -> Exporter:
    """An exporter to `model.pte` or `model.int8.pte`, for one image at a time [1, C, H, W].

    Images and logits are float32. 8 bits need `images` for calibration. Operators without an 8-bit
    kernel and sensitive layers stay in float. The format cannot store `metadata`.
    """
    return _ExecuTorch(config)


@dataclass(frozen=True)
class _ExecuTorch(Format):
    config: Config

    def contents(self, source: Source) -> dict[str, bytes]:
        """The program. Operators that XNNPACK does not run are logged as a warning.

        Raises:
            UserError: ExecuTorch lacks an operator, or there are no images for calibration.
        """
        import torch

        from hwnas.exporters.pt2e import quantized

        config, name = self.config, FILES[self.config.precision]
        chosen = None
        if config.precision == "int8":
            chosen = calibration(source, config.n_calibration, config.seed, "exporters/executorch")
        with converting("ExecuTorch", name), torch.no_grad():
            example = torch.zeros(1, *source.input_shape)
            net = _flat(source.model, source.input_shape)
            program = capture(net, example)
            if chosen is not None:
                rounding, in_float = self._rounding(net, chosen)
                eight = quantized(program, chosen.ranges, rounding, but=in_float, at_once=1)
                program = capture(eight, example)
            content = _lowered(program)
        outside = delegation(content).outside
        if outside:
            log.warning("%s: XNNPACK does not run %s", name, ", ".join(sorted({*outside})))
        return {name: content}

    def _rounding(self, net: torch.nn.Module, images: Calibration) -> tuple[State, Sequence[str]]:
        """Weights of the layers in 8 bits, see `quantized`, and the layers that stay in float."""
        import torch

        from hwnas.exporters.pt2e import logits, quantized, savings
        from hwnas.exporters.weight_rounding import grid_weights

        batch, shape = {0: torch.export.Dim("batch")}, images.judged.shape[1:]
        program = capture(net, torch.zeros(2, *shape), (batch,))
        weights: dict[str, State] = {"nearest": {}}
        if self.config.weights == "compensated":
            rounded = grid_weights(net, images.ranges, levels=LARGEST).state_dict()
            weights = {"compensated": rounded, **weights}
        found = mixed(
            {name: partial(quantized, program, images.ranges, it) for name, it in weights.items()},
            logits,
            savings(program),
            images.judged,
            logits(net, images.judged),
            target_agreement=self.config.target_agreement,
            max_float_layers=self.config.max_float_layers,
        )
        return weights[found.weights], found.float_layers

    def describe(self, files: Sequence[Path]) -> ModelFile:
        """The manifest entry of the file."""
        precision = self.config.precision
        return ModelFile(
            FILES[precision],
            "executorch",
            precision,
            batch=1,
            **PROMISES[precision]._asdict(),
        )

    def open_model(self, path: Path, *, threads: int = 1) -> OpenModel:
        """Opens the file in ExecuTorch's runtime on the CPU, see `pte.executorch_model`."""
        return executorch_model(path, threads=threads)


def _flat(model: torch.nn.Module, input_shape: Sequence[int]) -> torch.nn.Module:
    """The folded network; its means keep their axes, because XNNPACK runs no others."""
    from timm.layers import SelectAdaptivePool2d
    from torch import nn

    from hwnas.exporters.fold import folded

    net = folded(model, input_shape)
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, SelectAdaptivePool2d) and child.pool_type == "fast":
                pool: nn.Module = SelectAdaptivePool2d(pool_type="fast", flatten=False)
                if not isinstance(child.flatten, nn.Identity) or child.pool.flatten:
                    pool = nn.Sequential(pool, nn.Flatten(1))
                setattr(parent, name, pool)
    return net


def _lowered(program: torch.export.ExportedProgram) -> bytes:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower

    lowered: Any = to_edge_transform_and_lower(
        program,
        partitioner=[XnnpackPartitioner()],
        compile_config=EdgeCompileConfig(_skip_dim_order=True),
    )
    return bytes(lowered.to_executorch().buffer)
