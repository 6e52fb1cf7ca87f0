"""Contracts of variant modules: the members of each kind, and the arguments of `build`.

A variant is one module. It has a `Config` (its section of the configuration, torch-free, if
possible without required keys) and a `build` that creates an object of `interfaces.protocols` from
it. Modules are imported to validate configurations, so slow imports belong inside `build`.
`hwnas.testing` has the tests that a variant of each kind must pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from hwnas.core.registry import VariantModule
from hwnas.interfaces.protocols import (
    AccuracyPredictor,
    ArchSampler,
    CostMetric,
    DataModule,
    Exporter,
    Proxy,
    Searcher,
)
from hwnas.interfaces.records import DataIdentity, DeviceSpec, Reader, Split
from hwnas.interfaces.transports import Transport
from hwnas.spaces import SpaceModule
from hwnas.spaces.space import SearchSpace

if TYPE_CHECKING:
    import torch


__all__ = [
    "ArchivedDataset",
    "CutDataset",
    "DataPlan",
    "DatasetContext",
    "DatasetModule",
    "ExporterModule",
    "IdentifiedDataset",
    "PlannedDataset",
    "PredictorContext",
    "PredictorModule",
    "ProxyContext",
    "ProxyModule",
    "ReaderModule",
    "SamplerContext",
    "SamplerModule",
    "SearcherContext",
    "SearcherModule",
    "SpaceModule",
    "TransportModule",
    "VariantModule",
]


@dataclass(frozen=True)
class DatasetContext:
    """Arguments of `DatasetModule.build`.

    seed: determines the splits and the augmentation.
    n_workers: number of processes that prepare images; 0: the process that trains prepares them.
    """

    seed: int
    n_workers: int = 0


class DatasetModule(VariantModule, Protocol):
    """A data set. `HAS_TOKENS = True` marks texts, whose batches are tokens instead of images."""

    def ends(self, config: Any) -> tuple[int, int]:
        """Image channels and number of classes, known without loading an image. Torch-free.

        They fix the first and last layer of a network, so plans, prices and tables need no images.
        """
        ...

    def build(self, config: Any, context: DatasetContext) -> DataModule:
        """Builds the data set.

        Raises:
            UserError: files are missing or damaged, or do not match `config`.
        """
        ...


@runtime_checkable
class IdentifiedDataset(Protocol):
    """A data set whose identity can be computed without decoding images.

    Optional: for other data sets it is computed from all their images, which is slow.
    """

    def identity(self, config: Any) -> DataIdentity:
        """The current identity of the files; see `training.file_hashes`. Torch-free.

        Raises:
            DataAbsent: the files are missing.
            UserError: the files are damaged or inconsistent.
        """
        ...


@runtime_checkable
class ArchivedDataset(Protocol):
    """A data set whose files are archives of many images.

    Optional: for other data sets, changes are reported per file.
    """

    def inside(self, config: Any) -> DataIdentity | None:
        """Reads the archives completely; returns an identity with one hash per image. Torch-free.

        Returns None if it is unknown.

        Raises:
            UserError: an archive is missing or damaged.
        """
        ...


@runtime_checkable
class CutDataset(Protocol):
    """A data set whose splits are known before any image is decoded.

    Optional: for other data sets, images in two splits are found when the images are loaded.
    """

    def contents(
        self, config: Any, context: DatasetContext
    ) -> Mapping[Split, Mapping[str, str]] | None:
        """`NamedImages.contents` of every split; None if this requires decoding. Torch-free.

        Raises:
            UserError: files are missing, or do not match `config`.
        """
        ...


@dataclass(frozen=True)
class DataPlan:
    """Facts about a data set that are known before any image is decoded.

    n_images: per split.
    base_px: as in `DataInfo`.
    n_files: image files that are not decoded yet, any of which can be damaged.
    awaited: why the files may still be missing, if the configuration says that they will come
        later; empty if they must exist now.
    """

    n_images: Mapping[str, int] = field(default_factory=dict)
    base_px: int = 0
    n_files: int = 0
    awaited: str = ""


@runtime_checkable
class PlannedDataset(Protocol):
    """A data set whose plan is known before it is loaded.

    Optional: a dry run loads other data sets to check the configuration.
    """

    def plan(self, config: Any) -> DataPlan | None:
        """Facts that are known without decoding an image; None if too few are known. Torch-free.

        Raises:
            UserError: files are missing, or do not match `config`.
        """
        ...


@dataclass(frozen=True)
class SamplerContext:
    """The space, the seed of the run, the number of training steps, and metrics by name.

    metrics: `macs`, `params`, and `latency_ms@DEVICE` for every device that has a table.
    """

    space: SearchSpace
    seed: int
    n_steps: int
    metrics: Mapping[str, CostMetric] = field(default_factory=dict)


class SamplerModule(VariantModule, Protocol):
    """An arch sampler of supernet training."""

    def build(self, config: Any, context: SamplerContext) -> ArchSampler:
        """Builds the sampler.

        Raises:
            UserError: unknown metric in `config`.
        """
        ...


@dataclass(frozen=True)
class ProxyContext:
    """The space, a seed, metrics as in `SamplerContext`, and images.

    images: normalised training images [B, C, px, px]; None: use noise.
    """

    space: SearchSpace
    seed: int
    metrics: Mapping[str, CostMetric] = field(default_factory=dict)
    images: torch.Tensor | None = None


class ProxyModule(VariantModule, Protocol):
    """A proxy: it scores archs without training them."""

    def build(self, config: Any, context: ProxyContext) -> Proxy:
        """Builds the proxy.

        Raises:
            UserError: unknown metric in `config`.
        """
        ...


@dataclass(frozen=True)
class PredictorContext:
    """The space, a seed, and proxies (mean 0, variance 1) that are features of the archs."""

    space: SearchSpace
    seed: int
    proxies: Sequence[Proxy] = ()


class PredictorModule(VariantModule, Protocol):
    """An accuracy predictor."""

    def build(self, config: Any, context: PredictorContext) -> AccuracyPredictor:
        """Builds the predictor, not fitted yet."""
        ...


@dataclass(frozen=True)
class SearcherContext:
    """The space, and the seed that fixes every proposal."""

    space: SearchSpace
    seed: int


class SearcherModule(VariantModule, Protocol):
    """A search strategy."""

    def build(self, config: Any, context: SearcherContext) -> Searcher:
        """Builds the searcher, before its first `ask`.

        Raises:
            UserError: the searcher does not support this space.
        """
        ...


class TransportModule(VariantModule, Protocol):
    """A way to run the device kit on a device."""

    def build(self, config: Any, device: DeviceSpec) -> Transport:
        """Builds the transport to `device`; it connects when it is first used."""
        ...


class ExporterModule(VariantModule, Protocol):
    """A deployable format.

    A module whose format runs on devices defines `RUNS_ON`, a tuple of `RunsOn`. The format is then
    exported, timed and tested for these devices (`hwnas.exporters.artifact`). The `Config` of such
    a module is a `hwnas.exporters.base.FormatConfig`.

    Optional: `USAGE`, lines of Python that compute `logits` of `x` (float32 [1, C, H, W]) with the
    file `{file}`. They become part of the model card of a bundle.
    """

    def build(self, config: Any) -> Exporter:
        """Builds the exporter; subclasses of `hwnas.exporters.base.Format` define three methods."""
        ...


class ReaderModule(Protocol):
    """A file format of labelled archs. It has no settings, only one `READER`."""

    @property
    def READER(self) -> Reader:
        """The format."""
        ...
