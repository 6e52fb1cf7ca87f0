"""The gradient of one training step: archs from the sampler, ranking pairs, parts of the batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from hwnas.core.rng import rng, stable_seed
from hwnas.interfaces import (
    ArchSampler,
    CostMetric,
    DataModule,
    LearningSampler,
    ProxyContext,
    SamplerContext,
    Slot,
)
from hwnas.nets.proxies import REGISTRY as PROXIES
from hwnas.nets.supernet import Supernet
from hwnas.spaces.arch import Arch
from hwnas.spaces.space import SearchSpace
from hwnas.training.data import Batch
from hwnas.training.distributed import ALONE, Ranks
from hwnas.training.elastic_warmup import opened
from hwnas.training.evaluate import first_images
from hwnas.training.losses import distillation
from hwnas.training.precision import FULL, Precision
from hwnas.training.ranking import PairSampler, pair_weight, ranking_step
from hwnas.training.samplers import REGISTRY as SAMPLERS
from hwnas.training.sandwich import SandwichSettings, label_loss, sandwich_step
from hwnas.training.sections import TrainConfig
from hwnas.training.teacher import PretrainedTeacher, load_teacher

__all__ = ["StepLosses", "SupernetStep", "Trials", "supernet_step"]


@dataclass(frozen=True)
class StepLosses:
    """Losses in nats of the networks and of the ranking pairs of a step.

    names: names of the networks, then of the pairs, for errors.
    """

    nets: list[float]
    pairs: list[float]
    names: list[str]


@dataclass(frozen=True)
class SupernetStep:
    """Accumulates the gradients of one step, without the optimiser; see `supernet_step`."""

    supernet: Supernet
    config: TrainConfig
    sampler: ArchSampler
    seed: int
    pairs: PairSampler | None = None
    teacher: PretrainedTeacher | None = None
    precision: Precision = FULL
    ranks: Ranks = ALONE

    @cached_property
    def _settings(self) -> SandwichSettings:
        config = self.config
        return SandwichSettings(
            label_smoothing=config.label_smoothing,
            dropout=config.dropout,
            drop_path=config.drop_path,
            in_place=self.sampler.in_place,
            distill=distillation(
                config.distillation, temperature=config.temperature, clip=config.alpha_clip
            ),
            teacher_weight=0.0 if config.teacher is None else config.teacher.weight,
            precision=self.precision,
        )

    def __call__(self, step: int, x: torch.Tensor, y: torch.Tensor) -> StepLosses:
        """Adds the gradients of step `step` to `.grad`, and returns its losses.

        Both are averaged over parts of the batch and over ranks.

        x, y: normalised images [B, C, base_px, base_px] and labels [B] of this rank, on the device.
        """
        config, n_parts = self.config, self.config.accumulation
        parts = list(zip(x.chunk(n_parts), y.chunk(n_parts), strict=True))
        archs = [self._pick(slot, *parts[0]) for slot in self._slots(step)]
        pairs = [] if self.pairs is None else self.pairs.pairs(step)
        dropout = torch.Generator().manual_seed(
            stable_seed(self.seed, "train/dropout", step, *self.ranks.path)
        )
        found = []
        for some_x, some_y in parts:
            losses = sandwich_step(
                self.supernet,
                some_x,
                some_y,
                archs,
                self._settings,
                rng=dropout,
                teacher=None if self.teacher is None else self.teacher(some_x),
                weight=1 / n_parts,
            )
            if config.ranking is not None:
                losses += ranking_step(
                    self.supernet,
                    some_x,
                    some_y,
                    pairs,
                    weight=pair_weight(config.ranking, step / config.steps) / n_parts,
                    both=config.ranking.gradient == "both",
                    precision=self.precision,
                )
            found.append(losses)
        own = found[0] if n_parts == 1 else np.mean(found, axis=0).tolist()
        means = self.ranks.average(self.supernet.parameters(), own)
        return StepLosses(
            means[: len(archs)],
            means[len(archs) :],
            [f"arch {arch.key}" for arch in archs]
            + [f"ranking pair {worse.key} < {better.key}" for worse, better in pairs],
        )

    def _slots(self, step: int) -> list[Slot]:
        """The archs of the sampler, restricted to the open values of choices."""
        slots, warmup = self.sampler.slots(step), self.config.elastic_warmup * self.config.steps
        return opened(slots, self.supernet.space, step / warmup) if warmup else list(slots)

    def _pick(self, slot: Slot, x: torch.Tensor, y: torch.Tensor) -> Arch:
        """The candidate selected by the (first part of the) batch of all ranks."""
        if len(slot.candidates) == 1:
            return slot.candidates[0]
        losses = np.array(losses_of(self.supernet, x, y, slot.candidates, self.precision))
        losses = np.array(self.ranks.average([], losses.tolist()))
        pick = np.argmin if slot.keep == "lowest" else np.argmax
        return slot.candidates[
            int(pick(losses))
        ]  # if losses are NaN, the first one, which is then reported


@torch.no_grad()
def losses_of(
    supernet: Supernet,
    x: torch.Tensor,
    y: torch.Tensor,
    archs: tuple[Arch, ...],
    precision: Precision = FULL,
) -> list[float]:
    """Cross-entropy of archs on one batch, with BN statistics of the batch."""
    return [float(label_loss(supernet, x, y, arch, precision=precision)) for arch in archs]


@dataclass
class Trials:
    """Computes losses of archs on validation images, from which a `LearningSampler` learns."""

    step: SupernetStep
    data: DataModule
    batch_size: int
    n_images: int = 2048  # first images of the validation split, from which batches are drawn

    @cached_property
    def _images(self) -> Batch:
        xs, ys = zip(*first_images(self.data, "val", self.n_images), strict=True)
        return torch.cat(xs), torch.cat(ys)

    def before(self, step: int) -> None:
        """Gives the sampler the losses of the archs that it requests before step `step`.

        Does nothing if the sampler does not learn or requests no archs.
        """
        sampler = self.step.sampler
        if not isinstance(sampler, LearningSampler) or not (archs := sampler.trials(step)):
            return
        x, y = self._images
        rows = rng(self.step.seed, "train/trial images", step).permutation(len(y))
        device = self.step.precision.device
        some_x, some_y = (values[rows[: self.batch_size]].to(device) for values in (x, y))
        losses = losses_of(self.step.supernet, some_x, some_y, tuple(archs), self.step.precision)
        sampler.learn(archs, np.array(self.step.ranks.average([], losses)))


def supernet_step(
    supernet: Supernet,
    data: DataModule,
    config: TrainConfig,
    *,
    seed: int,
    metrics: Mapping[str, CostMetric],
    precision: Precision,
    ranks: Ranks,
) -> SupernetStep:
    """The step for the given settings.

    Raises:
        UserError: unknown metric, or missing teacher.
    """
    space = supernet.space
    return SupernetStep(
        supernet,
        config,
        SAMPLERS.load(config.sampler.name).build(
            config.sampler, SamplerContext(space, seed, config.steps, metrics)
        ),
        seed,
        _pair_sampler(space, data, config, seed, metrics),
        None
        if config.teacher is None
        else load_teacher(config.teacher, data.info, precision.device),
        precision,
        ranks,
    )


def _pair_sampler(
    space: SearchSpace,
    data: DataModule,
    config: TrainConfig,
    seed: int,
    metrics: Mapping[str, CostMetric],
) -> PairSampler | None:
    if config.ranking is None:
        return None
    prior = config.ranking.prior
    images = data.calibration_batches(1, config.calibration.batch_size)[0]
    context = ProxyContext(space, seed, metrics, images)
    proxy = PROXIES.load(prior.name).build(prior, context)
    return PairSampler(space, proxy, config.ranking, seed)
