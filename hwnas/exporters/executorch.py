"""ExecuTorch `.pte`, for torch programs on phones: its operators run in XNNPACK."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from hwnas.exporters.base import PROMISES, Format, FormatConfig, Source, converting
from hwnas.exporters.mixed import NCalibration, Seed, calibration
from hwnas.exporters.pte import delegation, executorch_model
from hwnas.interfaces import Exporter, Images, ModelFile, OpenModel

if TYPE_CHECKING:
    import torch

__all__ = ["Config", "build"]

REQUIRES = ("executorch", "torchao")
EXTRA = "executorch"
FILES = {"fp32": "model.pte", "int8": "model.int8.pte"}

log = logging.getLogger(__name__)


class Config(FormatConfig):
    """Precision, and how 8-bit ranges are determined."""

    name: Literal["executorch"] = "executorch"
    precision: Literal["fp32", "int8"] = Field(
        "fp32", description="`int8`: weights and activations (PT2E)."
    )
    n_calibration: NCalibration = 128
    seed: Seed = 0

    @property
    def file(self) -> str:
        """See `FormatConfig`."""
        return FILES[self.precision]


def build(config: Config) -> Exporter:
    """An exporter to `model.pte` or `model.int8.pte`, for one image at a time [1, C, H, W].

    Images and logits are float32. 8 bits need `images` for calibration; XNNPACK's quantiser leaves
    operators without an 8-bit kernel in float. The format cannot store `metadata`.
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

        images: Images | None = None
        if self.config.precision == "int8":
            chosen = calibration(
                source, self.config.n_calibration, self.config.seed, "exporters/executorch"
            )
            images = chosen.ranges
        name = FILES[self.config.precision]
        with converting("ExecuTorch", name), torch.no_grad():
            example = torch.zeros(1, *source.input_shape)
            program = torch.export.export(_flat(source.model), (example,))
            if images is not None:
                program = torch.export.export(_in_8_bits(program, images), (example,))
            content = _lowered(program)
        outside = delegation(content).outside
        if outside:
            log.warning("%s: XNNPACK does not run %s", name, ", ".join(sorted({*outside})))
        return {name: content}

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


def _flat(model: torch.nn.Module) -> torch.nn.Module:
    """The folded network; its means keep their axes, because XNNPACK runs no others."""
    from timm.layers import SelectAdaptivePool2d
    from torch import nn

    from hwnas.exporters.fold import folded

    net = folded(model).cpu()
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, SelectAdaptivePool2d) and child.pool_type == "fast":
                pool: nn.Module = SelectAdaptivePool2d(pool_type="fast", flatten=False)
                if not isinstance(child.flatten, nn.Identity) or child.pool.flatten:
                    pool = nn.Sequential(pool, nn.Flatten(1))
                setattr(parent, name, pool)
    return net


def _in_8_bits(program: torch.export.ExportedProgram, images: Images) -> torch.nn.Module:
    """The program with rounding, whose ranges are those of images [n, C, H, W]."""
    import torch
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    quantizer = XNNPACKQuantizer()
    quantizer.set_global(get_symmetric_quantization_config(is_per_channel=True))
    watched = prepare_pt2e(program.module(), quantizer)
    for image in torch.from_numpy(images):
        watched(image[None])
    found: torch.nn.Module = convert_pt2e(watched)
    return found


def _lowered(program: torch.export.ExportedProgram) -> bytes:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower

    lowered: Any = to_edge_transform_and_lower(
        program,
        partitioner=[XnnpackPartitioner()],
        compile_config=EdgeCompileConfig(_skip_dim_order=True),
    )
    return bytes(lowered.to_executorch().buffer)
