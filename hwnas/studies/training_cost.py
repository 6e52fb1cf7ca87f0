"""What stage `train` will take, told from steps that are timed now, on invented images."""

from __future__ import annotations

import logging
import os

from hwnas.core.errors import UserError
from hwnas.pipeline.costs import prices
from hwnas.pipeline.project import Project
from hwnas.pipeline.stages.train import latency_devices

__all__ = ["tell_training_cost"]

log = logging.getLogger(__name__)

MOST_IMAGES_CPU = 16
"""Images of a timed step on a CPU, at most: one of a large recipe is minutes as it is."""


def tell_training_cost(project: Project, processes: int | None = None) -> None:
    """Log plan, memory and time of the training, and what of them is measured. Needs no data.

    processes: that share every batch; by default as many as torchrun started.

    Raises:
        UserError: a batch does not divide among them.
    """
    import torch

    from hwnas.training.rehearsal import FEW, N_TIMED, rehearse

    config, train = project.config, project.config.train
    n_processes = processes or int(os.environ.get("WORLD_SIZE", "1"))
    n_parts = n_processes * train.accumulation
    part, rest = divmod(train.batch_size, n_parts)
    if rest or part < 2:
        raise UserError(
            "a batch does not divide evenly among the processes",
            expected=f"a multiple of {n_processes} processes x accumulation {train.accumulation},"
            " 2 images or more for each",
            found=f"batch_size {train.batch_size}",
            where="train.batch_size",
        )
    px = project.space.macro.resolutions
    log.info(
        "plan: %s steps of %s images at %d to %d px, by sampler %s; %d process%s, in each "
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
    metrics = prices(project)
    missing = [d for d in latency_devices(project) if f"latency_ms@{d}" not in metrics]
    if missing:
        log.info("not measured: training needs the latency table of %s first", ", ".join(missing))
        return
    torch.set_num_threads(config.threads)
    device = project.accelerator
    n_images = part if device.type == "cuda" else min(part, MOST_IMAGES_CPU)
    supernet = project.new_supernet()
    found = rehearse(
        supernet, train, n_images=n_images, seed=config.seed, metrics=metrics, device=device
    )
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    log.info(
        "measured: on this %s, %d thread%s, a step of %d networks (%s weights) on %d invented "
        "images takes %.2f s (mean of %d, after one of %d images) and %s of memory",
        where,
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
    step_s = found.seconds * train.accumulation * part / found.n_images
    log.info(
        "extrapolated: memory %s per process (by images of a part), %.2f s per step (by images of "
        "a process), %s in all on %d of this machine's kind",
        _gib(found.peak_bytes_of(part)),
        step_s,
        _duration(step_s * train.steps),
        n_processes,
    )
    log.info(
        "not in it: reading and augmenting images, the curves, checkpoints, what processes say "
        "to each other%s",
        ", the teacher" if train.teacher is not None else "",
    )


def _gib(n_bytes: float) -> str:
    return f"{n_bytes / 2**30:.2f} GiB"


def _duration(seconds: float) -> str:
    for unit, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:,.1f} {name}"
    return f"{seconds:.0f} seconds"
