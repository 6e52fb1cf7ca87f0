"""Protocols of the objects that are passed between packages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

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
    "Searcher",
]

# --- pricing --------------------------------------------------------------------------------------


class CostMetric(Protocol):
    """A price per arch; lower is better."""

    def __call__(self, codes: Codes) -> FloatArray:
        """Prices, float64 [n]."""
        ...


class LatencyEstimator(Protocol):
    """Latency of whole networks on one device, estimated from its table."""

    device: DeviceSpec

    def latency_ms(self, codes: Codes) -> FloatArray:
        """Estimated median latency in ms: [n]."""
        ...

    def latency_p95_ms(self, codes: Codes) -> FloatArray:
        """95th percentile of the latency over runs, in ms: [n]."""
        ...

    def interval_ms(self, codes: Codes) -> FloatArray:
        """90 % interval of the estimated median in ms: [n, 2]."""
        ...

    def bound_ms(self, codes: Codes, probability: float) -> FloatArray:
        """Upper bounds of the median latency in ms: [n].

        A median is below its bound with `probability`, which is in (0.5, 1).
        """
        ...


# --- accuracy -------------------------------------------------------------------------------------


class DataModule(Protocol):
    """One data set with seeded, stratified splits. Batches are pairs (x, y) on the CPU.

    x: float32 [B, C, base_px, base_px], normalised.
    y: int64 [B].

    Texts have windows instead of images. x: int64 [B, S, L], S consecutive segments of L tokens. y:
    int64 [B, L], the token after each token of the last segment. Earlier segments set the state.
    """

    @property
    def info(self) -> DataInfo:
        """Facts about the data set."""
        ...

    def train_batches(
        self, epoch: int, batch_size: int, *, rank: int = 0, n_ranks: int = 1
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Augmented batches in an order fixed by (seed, epoch). A partial last batch is dropped.

        Each batch is split into `n_ranks` equal parts, and part `rank` is returned.
        """
        ...

    def eval_batches(
        self, split: Split, batch_size: int
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """All images of a split in fixed order, without augmentation."""
        ...

    def calibration_batches(self, n_batches: int, batch_size: int) -> list[torch.Tensor]:
        """A fixed, seeded sample of TRAINING images, not augmented, for BN and INT8 calibration."""
        ...


@runtime_checkable
class NamedImages(Protocol):
    """A DataModule whose images have names; duplicates are found only in such data sets."""

    def contents(self, split: Split) -> Mapping[str, str]:
        """Content hash of every image of a split, by its name, in the order of `eval_batches`.

        If `eval_batches` repeats images, it first yields each image once, then repeats all of them.
        """
        ...


class Evaluator(Protocol):
    """Scores archs by running them; every result is journaled."""

    def evaluate(self, arch: Arch) -> Evaluation:
        """Accuracy on the validation split."""
        ...


class AccuracyPredictor(Protocol):
    """Learns scores of archs. Higher is better; the unit is that of the labels."""

    space: SearchSpace

    def fit(self, codes: Codes, scores: FloatArray) -> None:
        """Learns from n labelled archs. Deterministic in the seed given at construction."""
        ...

    def predict(self, codes: Codes) -> tuple[FloatArray, FloatArray]:
        """Mean [n] and standard deviation [n] of the predicted scores."""
        ...

    def state(self) -> dict[str, NDArray[Any]]:
        """Everything that `load_state` needs, as arrays (saved with safetensors)."""
        ...

    def load_state(self, state: dict[str, NDArray[Any]]) -> None:
        """Inverse of `state` on a predictor of equal config and space."""
        ...


class Proxy(Protocol):
    """A score of archs without training; higher is better (Zen-Score, MACs, ...)."""

    def __call__(self, codes: Codes) -> FloatArray:
        """Scores, float64 [n]."""
        ...


class ArchSampler(Protocol):
    """Selects the archs that a training step runs."""

    @property
    def in_place(self) -> bool:
        """Whether the first arch of a step is the teacher of the others (in-place distillation).

        Otherwise all archs learn from the true classes.
        """
        ...

    def slots(self, step: int) -> list[Slot]:
        """The networks of a step, from rng(seed, "train/arch", step, slot); equal on all ranks.

        Unless it is a `LearningSampler`, a sampler depends on nothing else.
        """
        ...


@runtime_checkable
class LearningSampler(ArchSampler, Protocol):
    """A sampler that learns from scores. Checkpoints include its state."""

    def trials(self, step: int) -> list[Arch]:
        """Archs that must be scored before step `step`; usually none."""
        ...

    def learn(self, archs: list[Arch], losses: FloatArray) -> None:
        """Learns from the cross-entropy [n] of these archs, the last `trials`.

        It is measured on one batch of validation images, with BN statistics of the batch.
        """
        ...

    def state(self) -> dict[str, Any]:
        """The state as JSON values."""
        ...

    def load_state(self, state: dict[str, Any]) -> None:
        """Inverse of `state`."""
        ...


# --- search ---------------------------------------------------------------------------------------


class Searcher(Protocol):
    """A search algorithm with the ask/tell interface.

    Its randomness and progress are in `state`, so that a search resumes exactly.
    """

    def ask(self, n: int) -> Codes:
        """Proposes up to n archs [m, d], m <= n; m = 0 if there is nothing left to propose."""
        ...

    def tell(self, codes: Codes, rewards: FloatArray, objectives: FloatArray | None = None) -> None:
        """Learns from the rewards [n] of exactly the codes of the last `ask`; higher is better.

        objectives: [n, 1 + k], all to be minimised: minus the score, then cost / limit for each of
            k constraints. They are for searchers that optimise whole fronts. Without them, the
            reward is the only objective.
        """
        ...

    def state(self) -> dict[str, Any]:
        """The state as JSON values."""
        ...

    def load_state(self, state: dict[str, Any]) -> None:
        """Inverse of `state`."""
        ...


# --- artifacts ------------------------------------------------------------------------------------


class Exporter(Protocol):
    """Writes, describes and opens one deployable format; see `exporters.base.Format`."""

    def export(
        self,
        model: torch.nn.Module,
        *,
        input_shape: Sequence[int],
        folder: Path,
        metadata: Mapping[str, str] | None = None,
        images: NDArray[np.float32] | None = None,
        held_out: NDArray[np.float32] | None = None,
    ) -> tuple[Path, ...]:
        """Writes files into `folder`. Returns their paths, the model first.

        input_shape: [C, H, W].
        metadata: arch key, preprocessing, ...; stored in the file if the format supports it.
        images: normalised training images [n, C, H, W], for formats that need calibration.
        held_out: normalised images [n, C, H, W] that the network was not trained on, given only to
            8-bit formats. The 8-bit file must agree with the network on them.
        """
        ...

    def describe(self, files: Sequence[Path]) -> ModelFile:
        """The manifest entry of the files that `export` returned."""
        ...

    def open_model(self, path: Path, *, threads: int = 1) -> OpenModel:
        """Opens the exported model on the CPU of this host, with the runtime of its format.

        Raises:
            UserError: the file is damaged or has another format.
            CannotRunHere: this host lacks the runtime or its hardware.
        """
        ...
