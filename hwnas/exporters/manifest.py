"""What a bundle says of itself: the records of manifest.json (export/bundle.schema.json)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from hwnas.core.records import STRICT
from hwnas.interfaces import DataInfo, DeviceSpec, Metric
from hwnas.spaces.arch import Arch

__all__ = [
    "AccuracyFact",
    "BundleFile",
    "ConstraintFact",
    "Golden",
    "InputSpec",
    "LatencyFact",
    "Manifest",
    "ModelFile",
]


@dataclass(frozen=True)
class InputSpec:
    """How an image becomes the model's input, `(pixel / 255 - mean) / std` per channel.

    `shape` is [C, H, W]. A square image (the centre of another one) is resized to each of
    `resize_px` in turn, bilinear with antialiasing, as training and evaluation did.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize_px: tuple[int, ...]
    class_names: tuple[str, ...]
    layout: Literal["NCHW"] = "NCHW"
    dtype: Literal["float32"] = "float32"

    @staticmethod
    def of(info: DataInfo, px: int) -> InputSpec:
        """The input of a net of resolution `px` trained on the data set."""
        resize_px = (px,) if info.base_px == px else (info.base_px, px)
        shape = (info.in_channels, px, px)
        return InputSpec(shape, info.mean, info.std, resize_px, info.class_names)


@dataclass(frozen=True)
class ModelFile:
    """One deployable file; `batch` None = any batch size."""

    __pydantic_config__: ClassVar[Any] = STRICT

    path: str
    format: str
    precision: Literal["fp32", "fp16", "int8"]
    batch: int | None = None
    opset: int | None = None
    parity_tolerance: float = 1e-4  # of the golden logits, relative to the largest of them


@dataclass(frozen=True)
class Golden:
    """Real inputs [n, C, H, W] and torch's logits [n, classes] for them, as .npy files."""

    __pydantic_config__: ClassVar[Any] = STRICT

    input: str = "golden/input.npy"
    output: str = "golden/logits.npy"


@dataclass(frozen=True)
class LatencyFact:
    """Latency of one model file on one device: forecast with its 90 % interval, and re-timing.

    `host` names the machine; values that were not obtained are None.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    device: DeviceSpec
    model: str
    host: str
    forecast_ms: float | None = None
    interval_ms: tuple[float, float] | None = None
    measured_ms: float | None = None


@dataclass(frozen=True)
class AccuracyFact:
    """Top-1 in [0, 1] of one model file on a split of the data set."""

    __pydantic_config__: ClassVar[Any] = STRICT

    model: str
    dataset: str
    split: Literal["train", "val", "test"]
    n_images: int
    top1: float


@dataclass(frozen=True)
class ConstraintFact:
    """A bound of the search in the metric's unit, and whether the re-timed net meets it."""

    __pydantic_config__: ClassVar[Any] = STRICT

    metric: Metric
    device: str
    max: float
    met: bool | None = None


@dataclass(frozen=True)
class BundleFile:
    """Integrity of one file; `path` is relative to the bundle, with forward slashes."""

    __pydantic_config__: ClassVar[Any] = STRICT

    path: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class Manifest:
    """The only contract between the host, which writes bundles, and the kit, which runs them.

    `arch_view` is the readable form of `arch`; `runtimes` the versions it was made with;
    `provenance` free text facts (run, config hash, seed, host). `files` is filled in by
    `write_bundle` and lists everything but the manifest itself.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    name: str
    hwnas_version: str
    arch: Arch
    arch_view: dict[str, int | float | str]
    input: InputSpec
    models: tuple[ModelFile, ...]
    runtimes: dict[str, str]
    golden: Golden = Golden()
    latency: tuple[LatencyFact, ...] = ()
    accuracy: tuple[AccuracyFact, ...] = ()
    constraints: tuple[ConstraintFact, ...] = ()
    provenance: dict[str, str] = field(default_factory=dict)
    files: tuple[BundleFile, ...] = ()
