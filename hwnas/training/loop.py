"""Supernet training: steps, three training curves, checkpoints that resume exactly on CPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.utils import ModelEmaV3

from hwnas.core.config import settled
from hwnas.core.progress import Parts, Progress, silent
from hwnas.core.records import dump
from hwnas.core.store import file_hash
from hwnas.interfaces import CostMetric, DataModule, LearningSampler, Quality, quality_of
from hwnas.nets.supernet import Supernet
from hwnas.spaces.space import SearchSpace
from hwnas.training.checkpoint import Checkpoints
from hwnas.training.curves import CollapseWatch, curve_archs
from hwnas.training.data import batches_from, placed
from hwnas.training.distributed import ALONE, Ranks
from hwnas.training.evaluate import SupernetEvaluator
from hwnas.training.head import fit_head
from hwnas.training.optim import Stepper
from hwnas.training.precision import CPU, Precision, place
from hwnas.training.sections import KEEPING, TrainConfig
from hwnas.training.step import StepLosses, SupernetStep, Trials, supernet_step

__all__ = ["train_supernet"]

REPORTING = KEEPING | {"calibration", "checkpoint_every", "curve_every", "curve_images"}
"""Settings that do not affect the weights, and may differ when training resumes."""

NO_METRICS: Mapping[str, CostMetric] = {}


def train_supernet(
    supernet: Supernet,
    data: DataModule,
    config: TrainConfig,
    *,
    seed: int,
    checkpoints: Path,
    on_metrics: Callable[[dict[str, Any]], None],
    progress: Progress = silent,
    metrics: Mapping[str, CostMetric] = NO_METRICS,
    device: torch.device = CPU,
    ranks: Ranks = ALONE,
) -> Supernet:
    """Trains `supernet` in place for `config.steps` steps, resuming from the last checkpoint.

    After a kill at any time, a call with a new supernet of the same seed ends with bit-identical
    weights on the CPU (with the same number of threads). The final state is the last checkpoint, so
    another call only loads it.

    Args:
        supernet: in train mode; it stays in train mode, on `device`.
        data: source of the training images; the curves use the first `curve_images` of validation.
        config: the recipe.
        seed: seed of arch choices, dropout and drop-path.
        checkpoints: folder of this training only.
        on_metrics: called with a row of JSON values every `curve_every` steps. A row has `step`,
            `lr`, the mean losses since the last row (per slot of the sampler, and `ranking` for
            pairs), `top1` and `val_loss` per curve, and the curves that have `collapsed`, if any.
            After a resume, rows of steps after the checkpoint are repeated unchanged.
        progress: called with the completed steps and the accuracies of the last row.
        metrics: prices by metric key (`macs`, `latency_ms@device`), for samplers and priors.
        device: training device.
        ranks: processes that train together. All run the same archs, each on its part of every
            batch. Only rank 0 writes checkpoints and rows.

    Returns:
        The supernet to use: `supernet`, or its moving average if `config.ema` is set.

    Raises:
        UserError: a loss is NaN or infinite, settings differ from those of the checkpoint, or there
            are too few images.
    """
    place(supernet, device)
    precision = Precision.of(config.precision, device)
    run_step = supernet_step(
        supernet, data, config, seed=seed, metrics=metrics, precision=precision, ranks=ranks
    )
    training = _Training(run_step, data, checkpoints, on_metrics)
    parts = Parts(progress, [config.head_epochs, config.steps])
    training.begin(parts.part(0))
    (steps := parts.part(1))(training.start, config.steps, training.note)
    batches = batches_from(
        data, config.batch_size, training.start, rank=ranks.rank, n_ranks=ranks.size
    )
    left = islice(batches, config.steps - training.start)
    for step, (x, y) in enumerate(placed(left, device), training.start):
        training.run(step, x, y)
        if ranks.leads:
            steps(step + 1, config.steps, training.note)
    return training.used


class _Training:
    """A running training: step, optimiser and moving average, curves and checkpoints.

    It resumes from the last checkpoint: `start` is the first step to run. `used` is the network for
    curves, best weights and the caller.
    """

    def __init__(
        self,
        run_step: SupernetStep,
        data: DataModule,
        checkpoints: Path,
        on_metrics: Callable[[dict[str, Any]], None],
    ) -> None:
        config, supernet = run_step.config, run_step.supernet
        self._step, self._data, self._on_metrics = run_step, data, on_metrics
        self._trials = Trials(run_step, data, config.batch_size)
        n_steps, scaler = max(1, config.steps), run_step.precision.scaler
        self._stepper = Stepper(supernet, config.optimizer, n_steps=n_steps, scaler=scaler)
        self._ema: ModelEmaV3 | None = None
        self._average: Supernet | None = None
        if config.ema is not None:
            self._ema = ModelEmaV3(supernet, config.ema.decay, use_warmup=config.ema.warmup)
            self._average = self._ema.module.train()
        self.used = supernet if self._average is None else self._average
        self._store = Checkpoints(checkpoints, _identity(data, run_step), config.keep_last)
        self.start, self._state = 0, _State()
        restored = self._store.restore(supernet, self._stepper.optimizer, average=self._average)
        if restored is not None:
            self.start, self._state = restored[0], _State.of(restored[1], run_step)
        self._curves = SupernetEvaluator(
            self.used, data, config.calibration, seed=run_step.seed, n_images=config.curve_images
        )
        self._quality = quality_of(supernet.space)
        self._watch = CollapseWatch(
            self._curves.chance, self._curves.n_images, self._state.peaks, self._quality
        )

    @property
    def note(self) -> str:
        """Text with the accuracies of the last row, for progress messages."""
        return self._state.note

    def begin(self, progress: Progress) -> None:
        """Trains a new classifier unless training resumes; all ranks get the weights of rank 0."""
        step, is_new = self._step, self.start == 0 and self._step.config.head_epochs > 0
        if is_new and step.ranks.leads:
            fit_head(step.supernet, self._data, step.config, seed=step.seed, progress=progress)
        step.ranks.align(self.start, step.supernet.parameters())
        if is_new and self._ema is not None:
            self._ema.set(step.supernet)

    def run(self, step: int, x: torch.Tensor, y: torch.Tensor) -> None:
        """One step of the optimiser; writes rows, best weights and checkpoint when due."""
        config = self._step.config
        self._trials.before(step)
        self._stepper.start(step)
        losses = self._step(step, x, y)
        self._stepper.finish(
            [*losses.nets, *losses.pairs],
            step=step,
            nets=losses.names,
            batch=_position(self._data, config, step),
        )
        if self._ema is not None:
            self._ema.update(self._step.supernet, step=step)
        if not self._step.ranks.leads:
            return
        done = step + 1
        self._state.losses.append(losses)
        if done % config.curve_every == 0 or done == config.steps:
            self._report(done)
        if done % config.checkpoint_every == 0 or done == config.steps:
            notes = self._state.plain(self._step)
            model, optimizer = self._step.supernet, self._stepper.optimizer
            self._store.save(done, model, optimizer, notes, average=self._average)

    def _report(self, done: int) -> None:
        """Writes a row of metrics, and the weights if they are the best."""
        config, state = self._step.config, self._state
        row = _row(self._curves, self.used.space, done, self._stepper.lr, state.losses)
        rates = {
            name: self._quality.rate(top1, row["val_loss"][name])
            for name, top1 in row["top1"].items()
        }
        if collapsed := self._watch.check(done, config.steps, rates):
            row["collapsed"] = collapsed
        self._on_metrics(row)
        state.losses, state.note = [], _note(row, self._quality, self._curves.n_images)
        mean = float(np.mean(list(rates.values())))
        if config.keep_best and mean > state.best:
            state.best = mean
            self._store.save_best(self.used, {"step": str(done), "mean_top1": f"{mean:.4f}"})


@dataclass
class _State:
    """State of a training besides weights and optimiser; stored in checkpoints.

    losses: of the steps since the last row.
    best: highest mean rate (`Quality.rate`) of the curves so far.
    """

    losses: list[StepLosses] = field(default_factory=list)
    note: str = ""
    best: float = -1.0
    peaks: dict[str, list[float]] = field(default_factory=dict)

    def plain(self, run_step: SupernetStep) -> dict[str, Any]:
        """The state as JSON, with the states of the sampler and of the loss scaler."""
        sampler = run_step.sampler
        return {
            "losses": [[losses.nets, losses.pairs] for losses in self.losses],
            "note": self.note,
            "best": self.best,
            "peaks": self.peaks,
            "sampler": sampler.state() if isinstance(sampler, LearningSampler) else None,
            "scaler": run_step.precision.state(),
        }

    @staticmethod
    def of(notes: Any, run_step: SupernetStep) -> _State:
        """Inverse of `plain`; also loads the states of sampler and scaler."""
        if isinstance(notes, list):  # checkpoints of earlier versions only had losses
            losses, note = notes
            return _State([StepLosses(nets, [], []) for nets in losses], note)
        if isinstance(run_step.sampler, LearningSampler):
            run_step.sampler.load_state(notes["sampler"])
        run_step.precision.load_state(notes["scaler"])
        losses = [StepLosses(nets, pairs, []) for nets, pairs in notes["losses"]]
        return _State(losses, notes["note"], notes["best"], notes["peaks"])


def _position(data: DataModule, config: TrainConfig, step: int) -> str:
    """The batch of a step, for the error if its loss is not finite."""
    epoch, batch = divmod(step, max(1, data.info.n_images["train"] // config.batch_size))
    return f"batch {batch} of epoch {epoch}"


def _row(
    curves: SupernetEvaluator, space: SearchSpace, step: int, lr: float, losses: list[StepLosses]
) -> dict[str, Any]:
    scores = {name: curves.evaluate(arch) for name, arch in curve_archs(space).items()}
    row: dict[str, Any] = {"step": step, "lr": lr, "losses": _means([x.nets for x in losses])}
    if ranking := _means([x.pairs for x in losses]):
        row["ranking"] = ranking
    row["top1"] = {name: score.top1 for name, score in scores.items()}
    row["val_loss"] = {name: score.val_loss for name, score in scores.items()}
    return row


def _means(rows: list[list[float]]) -> list[float]:
    """Mean of every column; rows may have different lengths in different phases of a sampler."""
    n = max((len(row) for row in rows), default=0)
    return [float(np.mean([row[i] for row in rows if len(row) > i])) for i in range(n)]


def _note(row: dict[str, Any], quality: Quality, n_images: int) -> str:
    collapsed = row.get("collapsed", [])
    parts = [
        f"{name} {quality.text(quality.of(top1, row['val_loss'][name]), n_images)}"
        + " (collapsed)" * (name in collapsed)
        for name, top1 in row["top1"].items()
    ]
    return f"validation {quality.name} at step {row['step']}: {', '.join(parts)}"


def _identity(data: DataModule, run_step: SupernetStep) -> dict[str, Any]:
    config = run_step.config
    recipe = settled(config)
    found = {
        "config": {key: value for key, value in recipe.items() if key not in REPORTING},
        "seed": run_step.seed,
        "space": run_step.supernet.space.fingerprint,
        "data": dump(data.info, versioned=False),
    }
    if config.teacher is not None:
        found["teacher"] = file_hash(config.teacher.weights)
    return found
