"""The records of a bundle's manifest.json (export/bundle.schema.json)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from hwnas.core.errors import Invalid
from hwnas.core.records import STRICT, Milliseconds, Share
from hwnas.interfaces import DataInfo, DeviceSpec, Metric, ModelFile
from hwnas.spaces.arch import Arch

__all__ = [
    "MANIFEST_VERSION",
    "AccuracyFact",
    "BundleFile",
    "ConstraintFact",
    "Golden",
    "InputSpec",
    "LatencyFact",
    "Manifest",
    "SampleFile",
]

MANIFEST_VERSION = 4
"""Version of the schema. Earlier manifests remain loadable.

Version 2 added sample images and the minimum top-1 agreement of a model. Version 3 added the oldest
runtime of a model and the layout of its images. Version 4 added correct answers by class.
"""

Count = Annotated[int, Field(ge=1)]
NotNegativeCount = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
NotNegativeMs = Annotated[float, Field(ge=0, le=999_999_999)]
"""A latency in ms that can be 0: the lower end of an interval on a noisy machine."""


@dataclass(frozen=True)
class InputSpec:
    """Preprocessing of an image: `(pixel / 255 - mean) / std` per channel.

    `shape` is [C, H, W]. The centre square of an image is resized to the sizes `resize_px`, one
    after the other, bilinear with antialiasing, as in training and evaluation.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    shape: tuple[Count, Count, Count]
    mean: tuple[float, ...]
    std: tuple[Positive, ...]
    resize_px: Annotated[tuple[Count, ...], Field(min_length=1)]
    class_names: Annotated[tuple[str, ...], Field(min_length=1)]
    layout: Literal["NCHW"] = "NCHW"
    dtype: Literal["float32"] = "float32"

    def __post_init__(self) -> None:
        if not len(self.mean) == len(self.std) == self.shape[0]:
            n = f"{self.shape[0]} values (one per channel)"
            raise Invalid(n, f"{len(self.mean)} and {len(self.std)}", key="`mean` and `std`")
        if not self.resize_px[-1] == self.shape[1] == self.shape[2]:
            px = f"{self.shape[1]} x {self.shape[2]} px"
            raise Invalid(f"height and width of the input, {px}", self.resize_px[-1], "resize_px")

    @staticmethod
    def of(info: DataInfo, px: int) -> InputSpec:
        """The input of a network of resolution `px` trained on the data set."""
        resize_px = (px,) if info.base_px == px else (info.base_px, px)
        shape = (info.in_channels, px, px)
        return InputSpec(shape, info.mean, info.std, resize_px, info.class_names)


@dataclass(frozen=True)
class Golden:
    """Paths of two .npy files: real inputs [n, C, H, W], and their torch logits [n, classes]."""

    __pydantic_config__: ClassVar[Any] = STRICT

    input: str = "golden/input.npy"
    output: str = "golden/logits.npy"


@dataclass(frozen=True)
class SampleFile:
    """A test image at `resize_px[0]` (.ppm, .pgm or .npy), its class, and torch's prediction."""

    __pydantic_config__: ClassVar[Any] = STRICT

    path: str
    label: Annotated[int, Field(ge=0)]
    predicted: Annotated[int, Field(ge=0)]


@dataclass(frozen=True)
class LatencyFact:
    """Latency of one model file on one device: the estimate, its 90 % interval, and the re-timing.

    `host` names the machine. Values that were not measured are None.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    device: DeviceSpec
    model: str
    host: str
    forecast_ms: Milliseconds | None = None
    interval_ms: tuple[NotNegativeMs, Milliseconds] | None = None
    measured_ms: Milliseconds | None = None

    def __post_init__(self) -> None:
        if self.device.batch < 1 or self.device.threads < 1:
            found = f"{self.device.batch} and {self.device.threads}"
            raise Invalid("at least 1", found, key="`batch` and `threads` of a device")


@dataclass(frozen=True)
class AccuracyFact:
    """Top-1 in [0, 1] of one model file on a split of the data set.

    classes: correct answers and number of images of every class; empty if unknown.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    model: str
    dataset: str
    split: Literal["train", "val", "test"]
    n_images: Count
    top1: Share
    classes: tuple[tuple[NotNegativeCount, NotNegativeCount], ...] = ()

    def __post_init__(self) -> None:
        if not self.classes:
            return
        right, n = (sum(pair[i] for pair in self.classes) for i in (0, 1))
        if any(a > b for a, b in self.classes) or n != self.n_images:
            raise Invalid(
                f"at most as many correct answers as images in each class, and {self.n_images}"
                " images in all (`n_images`)",
                f"{right} correct answers and {n} images in all",
                key="`accuracy.classes`",
            )
        if abs(right - self.top1 * n) > 0.5:
            raise Invalid(f"{right} / {n}, as in `classes`", self.top1, key="`accuracy.top1`")


@dataclass(frozen=True)
class ConstraintFact:
    """A limit of the search, in the unit of its metric, and whether the timed network meets it."""

    __pydantic_config__: ClassVar[Any] = STRICT

    metric: Metric
    device: str
    max: Positive
    met: bool | None = None


@dataclass(frozen=True)
class BundleFile:
    """Size and hash of one file; `path` is relative to the bundle, with forward slashes."""

    __pydantic_config__: ClassVar[Any] = STRICT

    path: str
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    size_bytes: Annotated[int, Field(ge=0)]


@dataclass(frozen=True)
class Manifest:
    """The contract between the host, which writes bundles, and the kit, which runs them.

    `arch_view` is the readable form of `arch`. `runtimes` has the versions of the software that
    made the bundle. `provenance` is free text (run, config hash, seed, host). `write_bundle` fills
    in `samples` and `files`; `files` lists all files except the manifest.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    name: Annotated[str, Field(min_length=1)]
    hwnas_version: str
    arch: Arch
    arch_view: dict[str, int | float | str]
    input: InputSpec
    models: Annotated[tuple[ModelFile, ...], Field(min_length=1)]
    runtimes: dict[str, str]
    golden: Golden = Golden()
    latency: tuple[LatencyFact, ...] = ()
    accuracy: tuple[AccuracyFact, ...] = ()
    constraints: tuple[ConstraintFact, ...] = ()
    provenance: dict[str, str] = field(default_factory=dict)
    samples: tuple[SampleFile, ...] = ()
    files: tuple[BundleFile, ...] = ()

    def __post_init__(self) -> None:
        if min(self.arch.codes, default=0) < 0:
            raise Invalid("codes of at least 0", list(self.arch.codes), key="`arch.codes`")
        models = {model.path for model in self.models}
        promised = {f.model for f in self.latency} | {f.model for f in self.accuracy}
        if promised - models:
            unknown = sorted(promised - models)
            raise Invalid("latency and accuracy only of files in `models`", ", ".join(unknown))
        n_names = len(self.input.class_names)
        if any(len(fact.classes) not in (0, n_names) for fact in self.accuracy):
            raise Invalid(f"counts of {n_names} classes, or none", key="`accuracy.classes`")
        classes = max((max(s.label, s.predicted) for s in self.samples), default=0)
        if classes >= n_names:
            raise Invalid(
                f"classes below {n_names} (names in `class_names`)", classes, key="`samples`"
            )
