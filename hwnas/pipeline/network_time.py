"""Estimates how long training and evaluating one network takes, from counted passes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hwnas.core.speed import Speed, slowness
from hwnas.training.sections import CalibrationConfig, FinetuneConfig

__all__ = ["NetworkTime"]

EXTRACT_S = 0.06  # seconds to extract a subnet from the supernet
N_AVERAGES = 5  # `training.averaging.SHARES`, which a dry run without torch cannot import


@dataclass(frozen=True)
class NetworkTime:
    """Estimates the seconds of work on one network from its MACs.

    speed: speed of this machine. n_images: number of images by split.
    """

    speed: Speed
    n_images: Mapping[str, int]

    def score(self, macs: float, calibration: CalibrationConfig, n: int) -> float:
        """Seconds to score a subnet on n images, including its BN statistics."""
        return EXTRACT_S * slowness() + self._seen(macs, calibration, n)

    def training(
        self, macs: float, recipe: FinetuneConfig, *, teacher_macs: float | None = None
    ) -> float:
        """Seconds to fine-tune a network, and to average the weights before and after it.

        teacher_macs: MACs of the teacher; None: the network learns only from labels.
        """
        n_steps = recipe.epochs * max(1, self.n_images["train"] // recipe.batch_size)
        seconds = self.speed.train(macs, recipe.batch_size, n_steps)
        if teacher_macs is not None:
            seconds += n_steps * self.speed.infer(teacher_macs, recipe.batch_size)
        if recipe.is_averaged:
            return seconds + self.averages(macs, recipe.calibration)
        return seconds + self._seen(macs, recipe.calibration, 0)

    def trained(self, macs: float, recipe: FinetuneConfig, split: str) -> float:
        """Seconds to train a network from fresh weights, and to score it on a whole split."""
        plain = recipe.model_copy(update={"average": False})
        return self.training(macs, plain) + self.speed.infer(macs, self.n_images[split])

    def averages(self, macs: float, calibration: CalibrationConfig) -> float:
        """Seconds to score several averages of two sets of weights on the validation images."""
        return N_AVERAGES * self.score(macs, calibration, self.n_images["val"])

    def _seen(self, macs: float, calibration: CalibrationConfig, n: int) -> float:
        n_seen = min(calibration.n_batches * calibration.batch_size, self.n_images["train"])
        return self.speed.infer(macs, n_seen + n)
