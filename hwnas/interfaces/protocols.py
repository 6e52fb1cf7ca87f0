"""Protocols of the objects that are passed between packages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from hwnas.core.progress import Progress
from hwnas.interfaces.models import ModelFile, OpenModel
from hwnas.interfaces.records import (
    DataInfo,
    DeviceSpec,
    Evaluation,
    FloatArray,
    Slot,
    Split,
)
from hwnas.spaces.arch import Arch
from hwnas.spaces.space import Codes, SearchSpace

if TYPE_CHECKING:
    import torch


__all__ = [
    "AccuracyPredictor",
    "ArchSampler",
    "CostMetric",
    "DataModule",
    "Evaluator",
    "Exporter",
    "LatencyEstimator",
    "LearningSampler",
    "NamedImages",
    "Proxy",
    "ReachedTransport",
    "Searcher",
    "Transport",
    "TryingTransport",
]

# --- pricing --------------------------------------------------------------------------------------


class CostMetric(Protocol):
    """A price per arch, smaller is better."""

    def __call__(self, codes: Codes) -> FloatArray:
        """float64 [n]."""
        ...


class LatencyEstimator(Protocol):
    """Latency of whole networks on one device, from its table."""

    device: DeviceSpec

    def latency_ms(self, codes: Codes) -> FloatArray:
        """Estimated median latency: [n]."""
        ...

    def latency_p95_ms(self, codes: Codes) -> FloatArray:
        """95th percentile over runs of the latency: [n]."""
        ...

    def interval_ms(self, codes: Codes) -> FloatArray:
        """90 % interval of the estimated median: [n, 2]."""
        ...


# --- accuracy -------------------------------------------------------------------------------------


class DataModule(Protocol):
    """One data set with seeded, stratified splits. Batches are (x, y) on the CPU:

    x: float32 [B, C, base_px, base_px], normalised; y: int64 [B].
    """

    @property
    def info(self) -> DataInfo:
        """Facts of the data set."""
        ...

    def train_batches(
        self, epoch: int, batch_size: int, *, rank: int = 0, n_ranks: int = 1
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Augmented batches in an order fixed by (seed, epoch); the last partial one is dropped.

        Of every batch, part `rank` of `n_ranks` equal ones; together they are the whole batch.
        """
        ...

    def eval_batches(
        self, split: Split, batch_size: int
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """All images of a split in fixed order, no augmentation."""
        ...

    def calibration_batches(self, n_batches: int, batch_size: int) -> list[torch.Tensor]:
        """A fixed, seeded draw of un-augmented TRAINING images, for BN and INT8 calibration."""
        ...


@runtime_checkable
class NamedImages(Protocol):
    """A DataModule whose images have names. Optional: equal images of others are not looked for."""

    def contents(self, split: Split) -> Mapping[str, str]:
        """Content hash of every image of a split, by its name, in the order of `eval_batches`.

        If that repeats images, it repeats all of them, after each was there once.
        """
        ...


class Evaluator(Protocol):
    """Scores archs by running them; every result is worth a journal line."""

    def evaluate(self, arch: Arch) -> Evaluation:
        """Accuracy on the validation split."""
        ...


class AccuracyPredictor(Protocol):
    """Learns scores of archs. Higher is better; units are those of the labels."""

    space: SearchSpace

    def fit(self, codes: Codes, scores: FloatArray) -> None:
        """Learn from n labelled archs. Deterministic in the seed given at construction."""
        ...

    def predict(self, codes: Codes) -> tuple[FloatArray, FloatArray]:
        """Mean [n] and standard deviation [n] of the predicted scores."""
        ...

    def state(self) -> dict[str, NDArray[Any]]:
        """Everything `load_state` needs, as arrays (saved with safetensors)."""
        ...

    def load_state(self, state: dict[str, NDArray[Any]]) -> None:
        """Inverse of `state` on a predictor of equal config and space."""
        ...


class Proxy(Protocol):
    """A training-free score of archs, higher meaning better (Zen-Score, MACs, ...)."""

    def __call__(self, codes: Codes) -> FloatArray:
        """float64 [n]."""
        ...


class ArchSampler(Protocol):
    """Which archs a training step runs."""

    @property
    def in_place(self) -> bool:
        """Whether the first arch of a step teaches the others; else all learn the labels."""
        ...

    def slots(self, step: int) -> list[Slot]:
        """The networks of step `step`, from rng(seed, "train/arch", step, slot): same on all ranks.

        A sampler that is no `LearningSampler` depends on nothing else.
        """
        ...


@runtime_checkable
class LearningSampler(ArchSampler, Protocol):
    """A sampler that learns from scores; its state travels in the checkpoints."""

    def trials(self, step: int) -> list[Arch]:
        """Archs whose scores it wants before step `step`; mostly none."""
        ...

    def learn(self, archs: list[Arch], losses: FloatArray) -> None:
        """Cross-entropy [n] of these archs on one batch of validation images, BN of the batch."""
        ...

    def state(self) -> dict[str, Any]:
        """JSON-ready state."""
        ...

    def load_state(self, state: dict[str, Any]) -> None:
        """Inverse of `state`."""
        ...


# --- search ---------------------------------------------------------------------------------------


class Searcher(Protocol):
    """Ask/tell. Its randomness and progress live in `state`, so that a search resumes exactly."""

    def ask(self, n: int) -> Codes:
        """Propose up to n archs [m, d], m <= n; m = 0 when it has nothing left to propose."""
        ...

    def tell(self, codes: Codes, rewards: FloatArray, objectives: FloatArray | None = None) -> None:
        """Rewards (higher is better) of exactly the codes of the last `ask`.

        `objectives` [n, 1 + k], all to be minimised: minus the score, then cost / limit of each of
        k constraints; for searchers of whole fronts. Without it the reward is the one objective.
        """
        ...

    def state(self) -> dict[str, Any]:
        """JSON-ready state."""
        ...

    def load_state(self, state: dict[str, Any]) -> None:
        """Inverse of `state`."""
        ...


# --- devices and artifacts ------------------------------------------------------------------------


class Transport(Protocol):
    """Runs the device kit where the device is."""

    def run_bench(self, plan: Path, results: Path, *, progress: Progress) -> None:
        """Execute `export/bench.py` on a plan folder's plan.json; appends to `results` (jsonl).

        Resumes: what `results` holds already is not timed again.
        """
        ...


@runtime_checkable
class ReachedTransport(Protocol):
    """A Transport to a device that may be out of reach. Optional: others are not checked."""

    def check(self) -> None:
        """Whether the device answers, before anything is prepared for it.

        Raises:
            UserError: it does not.
        """
        ...


@runtime_checkable
class TryingTransport(Protocol):
    """A Transport that can try a plan before it is timed. Optional: others show it in timing."""

    def try_out(self, plan: Path) -> None:
        """Load and run every model of a plan once by `export/bench.py`; no samples are kept.

        Raises:
            UserError: the device lacks a package, or does not answer.
            KitFailed: a model does not run there.
        """
        ...


class Exporter(Protocol):
    """Writes, describes and opens one deployable format; `exporters.base.Format` does the rest."""

    def export(
        self,
        model: torch.nn.Module,
        *,
        input_shape: Sequence[int],
        folder: Path,
        metadata: Mapping[str, str] | None = None,
        images: NDArray[np.float32] | None = None,
    ) -> tuple[Path, ...]:
        """Write files into `folder`; `input_shape` is [C, H, W]. Returns their paths, model first.

        `metadata` (arch key, preprocessing, ...) is kept inside the file where the format can.
        images: [n, C, H, W], normalised training images, for formats that are calibrated.
        """
        ...

    def describe(self, files: Sequence[Path]) -> ModelFile:
        """The entry in a bundle's manifest of the files that `export` returned."""
        ...

    def open_model(self, path: Path, *, threads: int = 1) -> OpenModel:
        """The exported model in the runtime that it ships for, on this host's CPU.

        Raises:
            UserError: the file is damaged or not of this format.
            CannotRunHere: the runtime or its hardware is not on this host.
        """
        ...
