"""Records that several packages share: frozen, and validated when loaded from JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from hwnas.core.bits import unpack_bits
from hwnas.core.config import LATER
from hwnas.core.errors import Invalid, UserError
from hwnas.core.metrics import MetricKey
from hwnas.core.records import STRICT, Count, NotNegative, Positive
from hwnas.core.store import content_hash
from hwnas.spaces.arch import Arch
from hwnas.spaces.space import Codes, SearchSpace

__all__ = [
    "Column",
    "Constraint",
    "DataIdentity",
    "DataInfo",
    "DeviceSpec",
    "Evaluation",
    "FloatArray",
    "Metric",
    "Reader",
    "Slot",
    "Split",
    "Table",
]

FloatArray = NDArray[np.float64]
Split = Literal["train", "val", "test"]
Metric = Literal[
    "latency_ms",
    "latency_p95_ms",
    "energy_mj",
    "macs",
    "params",
    "peak_memory_bytes",
    "weight_bytes",
]


@dataclass(frozen=True)
class DeviceSpec:
    """A runtime on a machine, reached by a transport. Timings of different specs never mix."""

    __pydantic_config__: ClassVar[Any] = STRICT

    name: str
    runtime: str = "onnxruntime"
    provider: str = "CPUExecutionProvider"
    transport: str = "local"
    precision: Literal["fp32", "fp16", "int8"] = "fp32"
    batch: int = 1
    threads: int = 1


@dataclass(frozen=True)
class Constraint:
    """An upper bound on one metric of the arch. Exactly one of the two bounds is given.

    max: in the unit of the metric.
    max_fraction_of_largest: in (0, 1], relative to the largest arch of the space.
    device: only used for latency and energy.
    probability: in (0.5, 1), only for latency metrics. The limit is met with this probability,
        according to the interval of the estimate. None: the estimate itself must meet the limit.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    metric: Metric
    device: str = "local"
    max: float | None = None
    max_fraction_of_largest: float | None = None
    probability: Annotated[float | None, LATER] = None

    def __post_init__(self) -> None:
        bounds = [b for b in (self.max, self.max_fraction_of_largest) if b is not None]
        if len(bounds) != 1:
            given = "both" if bounds else "neither"
            raise Invalid("one of max and max_fraction_of_largest", given)
        if not bounds[0] > 0:
            raise Invalid("a limit above 0", bounds[0])
        if self.max_fraction_of_largest is not None and self.max_fraction_of_largest > 1:
            raise Invalid("at most 1", self.max_fraction_of_largest, "max_fraction_of_largest")
        if self.probability is not None:
            MetricKey.of(self.metric, self.device, self.probability)  # checks the combination


@dataclass(frozen=True)
class Evaluation:
    """Accuracy of one arch, and the source of the value.

    source: `supernet` (inherited weights, BN recalibrated), `trained` (own training), `predicted`,
        or `measured` (a deployed artifact).
    val_loss: cross-entropy in nats.
    agreement: cross-entropy in nats to the predictions of the largest network; None if
        not computed (see `label.agreement`).
    hits: the images that are classified correctly (`core.bits`); empty if not stored.

    For texts, every predicted token counts as an image, and top1 is the share of right ones.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    arch: Arch
    top1: float
    source: Literal["supernet", "trained", "predicted", "measured"]
    split: Split
    n_images: Count
    seed: int
    val_loss: NotNegative | None = None
    top1_std: NotNegative | None = None
    n_train_images_seen: Count | None = None
    latency_ms: dict[str, Positive] = field(default_factory=dict)
    macs: Count | None = None
    params: Count | None = None
    hits: str = ""
    agreement: NotNegative | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.top1 <= 1:
            raise UserError("top1 is out of range", expected="a number in [0, 1]", found=self.top1)
        self.right()

    def right(self) -> NDArray[np.bool_] | None:
        """bool [n_images]: the correctly classified images; None if not stored."""
        return unpack_bits(self.hits, self.n_images) if self.hits else None


@dataclass(frozen=True)
class Slot:
    """One network of a training step: the candidate with the lowest or the highest loss.

    keep: whether the candidate with the lowest or the highest cross-entropy to the true classes
        is selected.
    """

    candidates: tuple[Arch, ...]
    keep: Literal["lowest", "highest"] = "lowest"


@dataclass(frozen=True)
class DataInfo:
    """Facts about the data set, which every artifact needs.

    mean, std: per channel of [0, 1] pixels.
    base_px: size of the images of the DataModule; archs see them resized. 1 for texts.
    class_names: for texts, the vocabulary.
    n_images: for texts, the number of windows.
    digests: `DataIdentity.digests`; empty if unknown.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    name: str
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[Positive, ...]
    base_px: Annotated[int, Field(ge=1)]
    n_images: dict[str, Count]  # per split
    digests: dict[str, str] = field(default_factory=dict)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def in_channels(self) -> int:
        """Number of image channels."""
        return len(self.mean)


@dataclass(frozen=True)
class DataIdentity:
    """The content of a data set: equal identities mean equal images and labels.

    files: for each stored part of the data set, the content hash of every file by its name. If
        files are sorted by class, a name begins with the class: `ant/001.jpg`.
    parts: for each split, the part with its images; several splits may share one part.
    inside: hashes per image if files are archives. Used only to describe changes, not in digests.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    class_names: tuple[str, ...]
    files: dict[str, dict[str, str]]
    parts: dict[str, str]
    inside: DataIdentity | None = None

    @cached_property
    def digests(self) -> dict[str, str]:
        """Hash of the files and class names of each split."""
        hashes = {
            part: content_hash([self.class_names, self.files[part]], digits=32)
            for part in set(self.parts.values())
        }
        return {split: hashes[part] for split, part in self.parts.items()}


@dataclass(frozen=True)
class Column:
    """Values of some rows of a table: `rows` int [k], ascending, and `values` [k], all finite."""

    rows: NDArray[np.int64]
    values: FloatArray


@dataclass(frozen=True)
class Table:
    """Result of a reader: codes [m, d], one row per arch of the file, and columns of numbers.

    A column may lack rows, and may have several values for one row (repeated measurements).
    """

    space: SearchSpace
    codes: Codes
    columns: Mapping[str, Column]


@dataclass(frozen=True)
class Reader:
    """A file format of labelled archs.

    unit: unit of every column. "minus_loss" is minus a loss per token or image, in nats; the scores
        of the archs are then these values.
    repeats: whether several values of one arch are averaged, or refused if they differ.
    target: the default column; None: the first one of the file.
    space: name and number of classes of the space; None: the user must give it.
    matches: whether a file that begins with this text has the format.
    read: parses a file.
    """

    unit: Literal["percent", "fraction", "minus_loss"]
    repeats: Literal["average", "refuse"]
    target: str | None
    space: tuple[str, int] | None
    matches: Callable[[str], bool]
    read: Callable[[Path, SearchSpace], Table]
