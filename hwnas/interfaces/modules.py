"""Contracts of variant modules: what each kind defines, and the arguments of its `build`.

A variant is one module: a `Config` (its section of the configuration, torch-free, without a
required key wherever that is possible) and a `build` that makes an object of `interfaces.protocols`
from it. Modules are imported to validate configurations: whatever is slow to import is imported
inside `build`. `hwnas.testing` holds the tests that a variant of each kind passes.
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
    Transport,
)
from hwnas.interfaces.records import DataIdentity, DeviceSpec, Reader, Split
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
    """`seed` fixes splits and augmentation; `n_workers`: processes that prepare images; 0: none."""

    seed: int
    n_workers: int = 0


class DatasetModule(VariantModule, Protocol):
    """A data set."""

    def ends(self, config: Any) -> tuple[int, int]:
        """Image channels and number of classes, known without loading an image. Torch-free.

        They fix a network's first and last layer, so that plans, prices and tables need no images.
        """
        ...

    def build(self, config: Any, context: DatasetContext) -> DataModule:
        """The data set.

        Raises:
            UserError: files are missing or damaged, or are not what `config` says.
        """
        ...


@runtime_checkable
class IdentifiedDataset(Protocol):
    """A data set that knows its identity without decoding images.

    Optional: the identity of other data sets is taken from all their images, which is slow.
    """

    def identity(self, config: Any) -> DataIdentity:
        """What the files are now; see `training.file_hashes`. Torch-free.

        Raises:
            DataAbsent: the files are not here.
            UserError: they are damaged or inconsistent.
        """
        ...


@runtime_checkable
class ArchivedDataset(Protocol):
    """A data set whose files are archives of many images.

    Optional: changes of others are told file by file.
    """

    def inside(self, config: Any) -> DataIdentity | None:
        """The identity by image: what the archives hold now, which are read whole. Torch-free.

        None: it is not known.

        Raises:
            UserError: an archive is missing or damaged.
        """
        ...


@runtime_checkable
class CutDataset(Protocol):
    """A data set that knows which image is in which split before any is decoded.

    Optional: images of others that lie in two splits are found when they are loaded.
    """

    def contents(
        self, config: Any, context: DatasetContext
    ) -> Mapping[Split, Mapping[str, str]] | None:
        """`NamedImages.contents` of every split; None: it takes decoding. Torch-free.

        Raises:
            UserError: files are missing, or are not what `config` says.
        """
        ...


@dataclass(frozen=True)
class DataPlan:
    """What is known of a data set before any image is decoded.

    n_images: per split. base_px: as in `DataInfo`. n_files: image files that are yet to be decoded,
    any of which may turn out broken. awaited: why the files may still be missing, where the
    configuration says that they will come; empty where they have to be there.
    """

    n_images: Mapping[str, int] = field(default_factory=dict)
    base_px: int = 0
    n_files: int = 0
    awaited: str = ""


@runtime_checkable
class PlannedDataset(Protocol):
    """A data set that can be planned with before it is loaded.

    Optional: a dry run loads other data sets, to check what the configuration asks of them.
    """

    def plan(self, config: Any) -> DataPlan | None:
        """What is known without decoding an image; None: too little. Torch-free.

        Raises:
            UserError: files are missing, or are not what `config` says.
        """
        ...


@dataclass(frozen=True)
class SamplerContext:
    """The space, the run's seed, the number of training steps, and prices by name.

    metrics: `macs`, `params`, and `latency_ms@DEVICE` of every device that has a table.
    """

    space: SearchSpace
    seed: int
    n_steps: int
    metrics: Mapping[str, CostMetric] = field(default_factory=dict)


class SamplerModule(VariantModule, Protocol):
    """An arch sampler of supernet training."""

    def build(self, config: Any, context: SamplerContext) -> ArchSampler:
        """The sampler.

        Raises:
            UserError: a metric that `config` names is not known.
        """
        ...


@dataclass(frozen=True)
class ProxyContext:
    """The space, a seed, prices as in `SamplerContext`, and images.

    images: normalised training images [B, C, px, px], or None: use noise.
    """

    space: SearchSpace
    seed: int
    metrics: Mapping[str, CostMetric] = field(default_factory=dict)
    images: torch.Tensor | None = None


class ProxyModule(VariantModule, Protocol):
    """A score of archs that needs no training."""

    def build(self, config: Any, context: ProxyContext) -> Proxy:
        """The proxy.

        Raises:
            UserError: a metric that `config` names is not known.
        """
        ...


@dataclass(frozen=True)
class PredictorContext:
    """The space, a seed, and proxies (mean 0, variance 1) that become features of the archs."""

    space: SearchSpace
    seed: int
    proxies: Sequence[Proxy] = ()


class PredictorModule(VariantModule, Protocol):
    """An accuracy predictor."""

    def build(self, config: Any, context: PredictorContext) -> AccuracyPredictor:
        """The predictor, not fitted yet."""
        ...


@dataclass(frozen=True)
class SearcherContext:
    """The space, and the seed that fixes every proposal."""

    space: SearchSpace
    seed: int


class SearcherModule(VariantModule, Protocol):
    """A search strategy."""

    def build(self, config: Any, context: SearcherContext) -> Searcher:
        """The searcher, before its first `ask`.

        Raises:
            UserError: it cannot search this space.
        """
        ...


class TransportModule(VariantModule, Protocol):
    """A way to run the device kit where the device is."""

    def build(self, config: Any, device: DeviceSpec) -> Transport:
        """The transport to `device`; it connects when it is used, not before."""
        ...


class ExporterModule(VariantModule, Protocol):
    """A deployable format.

    A format that the runtime of a device runs says so in `RUNS_ON`, a tuple of `RunsOn`: it is then
    what is exported, timed and tested for these devices (`hwnas.exporters.artifact`). Its `Config`
    is a `hwnas.exporters.base.FormatConfig`.
    """

    def build(self, config: Any) -> Exporter:
        """The exporter; `hwnas.exporters.base.Format` leaves three methods to write."""
        ...


class ReaderModule(Protocol):
    """A file format of labelled archs. It has no settings: one `READER` says everything."""

    @property
    def READER(self) -> Reader:
        """The format."""
        ...
