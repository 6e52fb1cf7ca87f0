"""Records of deployed models: the file, the devices of a format, the opened model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from hwnas.core.errors import Invalid, UserError
from hwnas.core.records import STRICT
from hwnas.interfaces.records import DeviceSpec

__all__ = ["EightBits", "Images", "ModelFile", "OpenModel", "RunsOn"]

Images = NDArray[np.float32]
"""Normalised images [n, C, H, W], or logits [n, classes]."""

MOST_TOLERANCE = {"fp32": 0.03, "fp16": 0.03, "int8": 0.3}
"""Maps each precision to the largest `parity_tolerance` that a file can have."""

EightBits = Literal["litert", "onnx", "onnx symmetric"]
"""Names of rules for 8-bit files: which tensors are rounded, and with which step sizes.

Quantisation-aware training rounds by the same rules.
"""


@dataclass(frozen=True)
class ModelFile:
    """One deployable file; `batch` None = any batch size.

    `format` is the exporter that wrote the file. The suffix determines the runtime: ONNX Runtime
    takes `.onnx` and `.ort`. `parity_tolerance` is the largest allowed difference from the golden
    logits, relative to the largest logit; a manifest cannot allow more than `MOST_TOLERANCE`.
    `torch_rounding` is the difference of torch's own float32 logits from its float64 logits, if it
    raised the tolerance above that of the format. `min_agreement` is the share of images that must
    get the same class as in torch. `least_runtime` is the oldest release of the runtime that is
    known to run the file, e.g. `1.15` (None: unknown). `layout` is the layout of the input images.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    path: str
    format: str
    precision: Literal["fp32", "fp16", "int8"]
    batch: Annotated[int, Field(ge=1)] | None = None
    opset: Annotated[int, Field(ge=1)] | None = None
    parity_tolerance: Annotated[float, Field(gt=0)] = 1e-4
    min_agreement: Annotated[float, Field(ge=0, le=1)] = 1.0
    least_runtime: Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)*$", max_length=20)] | None = (
        None
    )
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    torch_rounding: Annotated[float, Field(ge=0, le=1)] | None = None

    def __post_init__(self) -> None:
        if self.parity_tolerance > (most := MOST_TOLERANCE[self.precision]):
            key = f"parity_tolerance of {self.path}"
            raise Invalid(f"at most {most} for {self.precision}", self.parity_tolerance, key)


@dataclass(frozen=True)
class RunsOn:
    """Devices whose runtime runs a format, and the settings of the format for them.

    providers: prefixes of provider names, ignoring case; empty: all providers.
    transport: `local` if hwnas builds the engine on this machine, else the kit builds it on the
        device. If several entries of a format's `RUNS_ON` fit a device, the first one counts.
    """

    runtime: str
    precision: Literal["fp32", "fp16", "int8"]
    settings: Mapping[str, Any] = field(default_factory=dict)
    providers: tuple[str, ...] = ()
    transport: Literal["any", "local", "remote"] = "any"

    def fits(self, device: DeviceSpec) -> bool:
        """Whether `device` is one of the devices that this record describes."""
        is_local = device.transport == "local"
        return (
            (self.runtime, self.precision) == (device.runtime, device.precision)
            and self.transport in ("any", "local" if is_local else "remote")
            and (
                not self.providers
                or device.provider.lower().startswith(tuple(p.lower() for p in self.providers))
            )
        )


@dataclass(frozen=True)
class OpenModel:
    """`run`: images [B, C, H, W] -> logits [B, classes]; `batch` None means any B.

    delegated: share of the operators that the accelerated backend of the runtime executes, in
        [0, 1]; None: the runtime has no such backend, or it is unknown.
    untimed: why the time of `run` is not the time of the runtime; empty if it is.
    """

    run: Callable[[Images], Images]
    runtime: str
    batch: int | None = None
    delegated: float | None = None
    untimed: str = ""

    def logits(self, images: Images, batch: int = 64) -> Images:
        """Logits of all images, `batch` at a time; a fixed batch is filled with the last image.

        Raises:
            UserError: the runtime does not run the model on such images.
        """
        batch = self.batch or min(batch, len(images))
        found = []
        for start in range(0, len(images), batch):
            part = images[start : start + batch]
            missing = batch - len(part) if self.batch else 0
            filled = np.concatenate([part, np.repeat(part[-1:], missing, axis=0)])
            try:
                found.append(self.run(np.ascontiguousarray(filled))[: len(part)])
            except UserError:
                raise
            except Exception as error:  # runtimes raise dozens of unrelated classes
                raise UserError(
                    f"{self.runtime} does not run the model on images {list(images.shape[1:])}",
                    found=error,
                    fix="check that the file belongs to this network",
                ) from error
        return np.concatenate(found)
