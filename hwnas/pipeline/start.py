"""Weights of the supernet before its training, and the weights that networks inherit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwnas.nets.pretrained_named import is_file
from hwnas.pipeline.project import Project
from hwnas.spaces.arch import Arch
from hwnas.spaces.lowering import resolution

if TYPE_CHECKING:
    import torch

    from hwnas.nets.supernet import Supernet
    from hwnas.pipeline.config import ExperimentConfig

__all__ = [
    "Inherited",
    "start_files",
    "start_images",
    "starts_averaged",
    "supernet_at_start",
    "supernet_with_head",
]

START_IMAGES, START_BATCH = 256, 32
"""Number of training images, and batch size, to compute BN statistics that weights lack."""


def start_files(project: Project) -> tuple[str, ...]:
    """The setting `supernet.init` if its value is the path of a file; else nothing."""
    given = project.config.supernet.init
    return () if given is None or not is_file(given) else ("supernet.init",)


def start_images(project: Project) -> Iterator[torch.Tensor]:
    """Training images in [0, 1], not augmented: a seeded sample, drawn when first needed."""
    import torch

    info = project.source.info
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (info.mean, info.std))
    size = min(START_BATCH, info.n_images["train"])
    n = min(START_IMAGES, info.n_images["train"]) // size
    for batch in project.data.calibration_batches(n, size):
        yield (batch * std + mean).clamp(0, 1)


def supernet_at_start(project: Project, images: Iterable[torch.Tensor]) -> Supernet:
    """The supernet with its starting weights.

    If the supernet will be trained, and the weights are for other classes, its classifier starts
    from random weights.

    images: [B, C, H, H] of [0, 1] pixels, for weights without BN statistics.
    """
    from hwnas.nets.pretrained import start_from

    supernet, weights = project.new_supernet(), project.outside.start
    if weights is not None:
        section = project.config.train
        is_trained = section.steps > 0 or section.head_epochs > 0
        classes = project.space.macro.num_classes if is_trained else None
        start_from(supernet, weights, num_classes=classes, images=images)
    return supernet


def supernet_with_head(project: Project) -> Supernet:
    """The supernet with its classifier trained for `train.head_epochs`, before the first step."""
    from hwnas.training.head import fit_head
    from hwnas.training.precision import place

    config, supernet = project.config, supernet_at_start(project, start_images(project))
    place(supernet, project.accelerator)
    if config.train.head_epochs:
        fit_head(supernet, project.data, config.train, seed=config.seed)
    return supernet


def starts_averaged(config: ExperimentConfig) -> bool:
    """Whether networks start from averages of the supernet's weights before and after training."""
    return bool(config.finetune.average and config.supernet.init and config.train.steps)


@dataclass(frozen=True)
class Inherited:
    """The weights that networks inherit, from which fine-tuning starts.

    `before`: the supernet before its training, if `finetune.average` averages it with `trained`.
    """

    project: Project
    trained: Supernet
    before: Supernet | None

    @classmethod
    def of(cls, project: Project) -> Inherited:
        """Reads the trained supernet."""
        before = supernet_with_head(project) if starts_averaged(project.config) else None
        return cls(project, project.supernet(), before)

    def network(self, arch: Arch) -> torch.nn.Module:
        """The static network of `arch`; its BN statistics may have to be recalibrated."""
        from hwnas.nets.extract import extract
        from hwnas.training.averaging import best_average
        from hwnas.training.images import resize

        network = extract(self.trained, arch)
        if self.before is None:
            return network
        px = resolution(self.project.space, arch)
        seen = [resize(batch, px) for batch in self._images()]
        return best_average(extract(self.before, arch), network, seen, self.project.data, px=px)

    def calibrated(self, arch: Arch) -> torch.nn.Module:
        """The network in eval mode, with its own BN statistics."""
        if self.before is not None:
            return self.network(arch)  # averages have them
        return self.trained.extract(arch, recalibrate_on=self._images())

    def _images(self) -> Iterable[torch.Tensor]:
        calibration = self.project.config.finetune.calibration
        return self.project.data.calibration_batches(calibration.n_batches, calibration.batch_size)
