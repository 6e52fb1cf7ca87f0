"""Estimates time and memory of supernet training by timing a few real steps on synthetic images."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from hwnas.core.errors import UserError
from hwnas.pipeline.costs import prices
from hwnas.pipeline.project import Project
from hwnas.pipeline.stages.train import latency_devices

if TYPE_CHECKING:
    from hwnas.training.rehearsal import Rehearsal

__all__ = ["tell_training_cost"]

log = logging.getLogger(__name__)

MOST_IMAGES_CPU = 16
"""Maximum number of images of a timed step on a CPU; larger steps could take minutes."""


def tell_training_cost(project: Project, processes: int | None = None) -> None:
    """Logs steps and batches, memory and time of the training, and which of them are measured.

    Needs no data. If a latency table that the training needs is missing, only steps and batches are
    logged.

    processes: number of processes that share every batch; None: as many as torchrun started.

    Raises:
        UserError: a batch does not divide evenly among the processes, or training needs latencies
            on a device that is not a device of the project.
    """
    n_processes = processes or int(os.environ.get("WORLD_SIZE", "1"))
    part = _images_per_part(project, n_processes)
    _tell_plan(project, n_processes, part)
    missing = [d for d in latency_devices(project) if not project.files.table(d).exists()]
    if missing:
        log.info("not measured: training needs the latency table of %s first", ", ".join(missing))
        return
    found = _time_steps(project, part)
    accumulation = project.config.train.accumulation
    step_s = found.seconds * accumulation * part / found.n_images
    log.info(
        "extrapolated: memory %s per process (from the images per part), %.2f s per step (from the "
        "images per process), %s in total on %d such machines",
        _gib(found.peak_bytes_of(part)),
        step_s,
        _duration(step_s * project.config.train.steps),
        n_processes,
    )
    log.info(
        "not included: reading and augmenting images, the curves, checkpoints, communication "
        "between processes%s",
        ", the teacher" if project.config.train.teacher is not None else "",
    )


def _images_per_part(project: Project, n_processes: int) -> int:
    """Images that one process handles at a time."""
    train = project.config.train
    n_parts = n_processes * train.accumulation
    part, rest = divmod(train.batch_size, n_parts)
    if rest or part < 2:
        raise UserError(
            "a batch does not divide evenly among the processes",
            expected=f"a multiple of {n_parts} ({n_processes} processes x train.accumulation"
            f" {train.accumulation}), and at least {2 * n_parts}",
            found=f"batch_size {train.batch_size}",
            where="train.batch_size",
        )
    return part


def _tell_plan(project: Project, n_processes: int, part: int) -> None:
    train, px = project.config.train, project.space.macro.resolutions
    log.info(
        "plan: %s steps of %s images at %d to %d px, by sampler %s; %d process%s, each with "
        "%d part%s of %d images one after the other",
        f"{train.steps:,}",
        f"{train.batch_size:,}",
        min(px),
        max(px),
        train.sampler.name,
        n_processes,
        "es" * (n_processes > 1),
        train.accumulation,
        "s" * (train.accumulation > 1),
        part,
    )


def _time_steps(project: Project, part: int) -> Rehearsal:
    """Times a few training steps, with fewer images than a part if a CPU would take minutes."""
    import torch

    from hwnas.training.rehearsal import FEW, N_TIMED, rehearse

    config, device = project.config, project.accelerator
    torch.set_num_threads(config.threads)
    n_images = part if device.type == "cuda" else min(part, MOST_IMAGES_CPU)
    supernet = project.new_supernet()
    found = rehearse(
        supernet,
        config.train,
        n_images=n_images,
        seed=config.seed,
        metrics=prices(project),
        device=device,
    )
    log.info(
        "measured: on this %s, %d thread%s, a step of %d networks (%s weights) on %d synthetic "
        "images takes %.2f s (mean of %d steps, after a first step on %d images) and %s of memory",
        torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU",
        config.threads,
        "s" * (config.threads > 1),
        found.n_networks,
        f"{sum(p.numel() for p in supernet.parameters()):,}",
        found.n_images,
        found.seconds,
        N_TIMED,
        FEW,
        _gib(found.peak_bytes),
    )
    return found


def _gib(n_bytes: float) -> str:
    return f"{n_bytes / 2**30:.2f} GiB"


def _duration(seconds: float) -> str:
    for unit, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:,.1f} {name}"
    return f"{seconds:.0f} seconds"
