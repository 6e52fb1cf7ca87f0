"""Times training steps on synthetic images, to estimate the cost of a recipe."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from hwnas.core.rng import stable_seed
from hwnas.interfaces import CostMetric, DataInfo, Split
from hwnas.nets.supernet import Supernet
from hwnas.training.data import Batch, placed
from hwnas.training.distributed import ALONE
from hwnas.training.optim import Stepper
from hwnas.training.precision import Precision, place, wait_for
from hwnas.training.sections import TrainConfig
from hwnas.training.step import supernet_step

__all__ = ["Rehearsal", "SyntheticImages", "rehearse"]

N_TIMED = 2  # steps, each with other random archs
FEW = 2  # images of the first step, which warms up and measures memory per image


@dataclass(frozen=True)
class Rehearsal:
    """Measurements of `rehearse`.

    n_networks: networks that learn in a step; ranking pairs count as two.
    n_images: images of a step.
    seconds: time of a step.
    peak_bytes: peak memory of a step; on a CPU, that of the whole process.
    bytes_per_image: increase of the peak per image, from a step with `FEW` images.
    """

    n_networks: int
    n_images: int
    seconds: float
    peak_bytes: int
    bytes_per_image: float

    def peak_bytes_of(self, n_images: int) -> float:
        """Extrapolated peak memory of a step with this number of images."""
        return self.peak_bytes + self.bytes_per_image * (n_images - self.n_images)


@dataclass(frozen=True)
class SyntheticImages:
    """An `interfaces.DataModule` of Gaussian noise with random labels, of any size."""

    info: DataInfo
    seed: int = 0

    def train_batches(
        self, epoch: int, batch_size: int, *, rank: int = 0, n_ranks: int = 1
    ) -> Iterator[Batch]:
        """Endless batches, different on every rank."""
        generator = _generator(self.seed, "rehearsal/train", epoch, rank)
        while True:
            yield self._batch(batch_size // n_ranks, generator)

    def eval_batches(self, split: Split, batch_size: int) -> Iterator[Batch]:
        """One batch of images and labels."""
        yield self._batch(batch_size, _generator(self.seed, "rehearsal", split))

    def calibration_batches(self, n_batches: int, batch_size: int) -> list[torch.Tensor]:
        """Batches of images, without labels."""
        generator = _generator(self.seed, "rehearsal/calibration")
        return [self._batch(batch_size, generator)[0] for _ in range(n_batches)]

    def _batch(self, n: int, generator: torch.Generator) -> Batch:
        shape = (n, self.info.in_channels, self.info.base_px, self.info.base_px)
        x = torch.randn(shape, generator=generator).contiguous(memory_format=torch.channels_last)
        return x, torch.randint(self.info.num_classes, (n,), generator=generator)


def rehearse(
    supernet: Supernet,
    config: TrainConfig,
    *,
    n_images: int,
    seed: int,
    metrics: Mapping[str, CostMetric],
    device: torch.device,
) -> Rehearsal:
    """Trains `supernet` for a few full steps on `n_images` synthetic images.

    The supernet is moved to `device` and its weights change. The measurement does not include
    reading and augmenting images, the curves, the trials of samplers that learn, a new classifier,
    and communication between processes. A step trains all networks of the sampler, as after
    `elastic_warmup`.
    """
    space = supernet.space
    macro = space.macro
    whole = {"accumulation": 1, "teacher": None, "elastic_warmup": 0.0}
    config = config.model_copy(update=whole)
    info = DataInfo(
        "invented",
        tuple(str(i) for i in range(macro.num_classes)),
        (0.0,) * macro.in_channels,
        (1.0,) * macro.in_channels,
        max(macro.resolutions),
        {"train": 1_000_000, "val": n_images, "test": n_images},
    )
    data = SyntheticImages(info, seed)
    place(supernet, device)
    precision = Precision.of(config.precision, device)
    run_step = supernet_step(
        supernet, data, config, seed=seed, metrics=metrics, precision=precision, ranks=ALONE
    )
    stepper = Stepper(supernet, config.optimizer, n_steps=config.steps, scaler=precision.scaler)
    n_networks = 0

    def train(n: int, steps: range) -> float:
        """Trains on n images per step; returns the seconds per step."""
        nonlocal n_networks
        x, y = next(placed(data.train_batches(0, n), device))
        wait_for(device)
        begin = time.perf_counter()
        for step in steps:
            stepper.start(step)
            losses = run_step(step, x, y)
            stepper.finish([*losses.nets, *losses.pairs], step=step, nets=losses.names)
            n_networks = len(losses.nets) + 2 * len(losses.pairs)
        wait_for(device)
        return (time.perf_counter() - begin) / len(steps)

    few = min(FEW, n_images)
    train(few, range(1))
    before = _peak_bytes(device)
    seconds = train(n_images, range(1, 1 + N_TIMED))
    peak = _peak_bytes(device)
    growth = (peak - before) / (n_images - few) if n_images > few else 0.0
    return Rehearsal(n_networks, n_images, seconds, peak, growth)


def _generator(seed: int, *names: str | int) -> torch.Generator:
    return torch.Generator().manual_seed(stable_seed(seed, *names))


def _peak_bytes(device: torch.device) -> int:
    """Peak memory so far: of tensors on a GPU, else of this process."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    status = Path("/proc/self/status")
    if status.exists():  # unlike ru_maxrss, only for this program
        lines = status.read_text().splitlines()
        return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmHWM")))
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
