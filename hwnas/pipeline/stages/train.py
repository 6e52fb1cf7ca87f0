"""Stage `train`: trains the supernet."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from hwnas.core.command import command_line
from hwnas.core.errors import UserError
from hwnas.core.progress import Progress
from hwnas.core.store import write_bytes
from hwnas.pipeline.checks import can_train
from hwnas.pipeline.costs import cost_metrics, require_reachable
from hwnas.pipeline.data_checks import images_text, known_data, recipe_fits
from hwnas.pipeline.data_source import LEARNING
from hwnas.pipeline.disk import checkpoint_bytes, weights_bytes
from hwnas.pipeline.plan import Stage
from hwnas.pipeline.project import Project
from hwnas.pipeline.start import start_files, start_images, supernet_at_start
from hwnas.pipeline.start_checks import (
    require_vocabulary,
    warn_of_normalisation,
    warn_of_padding,
)
from hwnas.pipeline.task import task
from hwnas.training.sections import KEEPING, TrainConfig

if TYPE_CHECKING:
    from hwnas.nets.supernet import Supernet

__all__ = [
    "check",
    "check_data",
    "latency_devices",
    "stage",
    "train",
]

log = logging.getLogger(__name__)

TEACHER = "train.teacher.weights"


def stage(project: Project) -> Stage:
    """Trains the supernet; needs latency tables only if its sampler uses them."""
    files, train_settings = project.files, project.config.train
    plain = project.settled
    return Stage(
        name="train",
        command=command_line("train", project.run.root),
        needs=tuple(f"profile/{device}" for device in latency_devices(project)),
        names=("seed", "space", "data", "supernet", "supernet.init", "train"),
        settings=[
            project.config.seed,
            project.space_settings,
            project.source.settings,
            plain["supernet"],
            _hashes(project),
            {key: value for key, value in plain["train"].items() if key not in KEEPING},
        ],
        owns=(files.pattern(files.supernet.parent),),
        outputs=(files.pattern(files.supernet),),
        run=task(project, "train", train, together=True),
        cost=f"{train_settings.steps} {train_settings.sampler.name} steps"
        f" of {train_settings.batch_size} images",
        reads=project.outside.paths(*_files(project)),
        data=project.source.input(LEARNING),
        check=lambda: check(project),
        check_data=lambda: check_data(project),
        writes=lambda: _bytes(project),
    )


def _bytes(project: Project) -> int:
    """Estimated size of the files: a supernet is at least as large as its largest network."""
    _, largest = weights_bytes(project)
    recipe = project.config.train
    return largest + (checkpoint_bytes(recipe, largest) if recipe.steps else 0)


def check(project: Project) -> None:
    """Refuses training that would fail at its start; does not check the images.

    Raises:
        UserError: see `checks.can_train`; there are no steps and no starting weights; or the
            starting weights do not fit.
    """
    can_train(project)
    if not project.config.train.steps and project.config.supernet.init is None:
        raise UserError(
            "without training, the supernet needs starting weights",
            expected="train.steps of at least 1, or starting weights (supernet.init)",
            found="train.steps: 0",
            where="supernet.init",
            fix="see `hwnas pretrained list`",
        )
    latency_devices(project)
    if project.config.supernet.init is not None:
        import torch

        require_vocabulary(project)
        channels, _ = project.source.ends
        supernet_at_start(project, [torch.zeros(2, channels, 32, 32)])


def check_data(project: Project) -> None:
    """Refuses a recipe that needs more images than there are, or a teacher that does not fit.

    Logs a warning if normalisation or padding differ from those of the starting weights.

    Raises:
        UserError: see `checks.recipe_fits` and `training.teacher.load_teacher`.
    """
    warn_of_normalisation(project)
    warn_of_padding(project)
    config = _train_settings(project)
    if not config.steps and not config.head_epochs:
        return
    recipe_fits(project, config, "train")
    if config.teacher is not None and not known_data(project).awaited:
        import torch

        from hwnas.training.teacher import load_teacher

        load_teacher(config.teacher, project.data.info, torch.device("cpu"))


def train(project: Project, progress: Progress) -> None:
    """Trains the supernet, resuming from its last checkpoint. All ranks train; rank 0 writes."""
    from hwnas.training.checkpoint import weights_bytes

    config = project.config
    if project.ranks.leads:
        require_reachable(project)
        if (images := images_text(project)).count("("):
            log.info("images, repeated by data.repeat_to: %s", images)
    used = supernet_at_start(project, start_images(project))
    if config.train.steps or config.train.head_epochs:
        used = _trained(project, used, progress)
    if project.ranks.leads:
        write_bytes(project.files.supernet, weights_bytes(used, project.metadata()))


def _trained(project: Project, supernet: Supernet, progress: Progress) -> Supernet:
    """The supernet, or its moving average, after the configured steps."""
    from hwnas.training.loop import train_supernet
    from hwnas.training.tensorboard import tensorboard_rows

    config, show = project.config, None
    if config.train.tensorboard and project.ranks.leads:
        show = tensorboard_rows(project.files.tensorboard)

    def keep(row: dict[str, Any]) -> None:
        project.run.metric("train", row)
        if show is not None:
            show(row)

    with project.ranks.group():
        return train_supernet(
            supernet,
            project.data,
            _train_settings(project),
            seed=config.seed,
            checkpoints=project.files.training_steps,
            on_metrics=keep,
            progress=progress,
            metrics=cost_metrics(
                project.space, {name: project.estimator(name) for name in latency_devices(project)}
            ),
            device=project.accelerator,
            ranks=project.ranks,
        )


def _files(project: Project) -> tuple[str, ...]:
    """Settings that name a file by its path."""
    return (TEACHER, *start_files(project))


def latency_devices(project: Project) -> tuple[str, ...]:
    """Devices whose latency tables the training needs, for its sampler or to rank pairs.

    Raises:
        UserError: one of them is not a device of the project.
    """
    train = project.config.train
    sampler = train.sampler.model_dump()
    needed = [sampler["device"]] if sampler.get("metric") == "latency_ms" else []
    if train.ranking is not None and train.ranking.prior.name == "latency":
        needed.append(train.ranking.prior.device)
    for name in needed:
        if name not in project.devices:
            raise UserError(
                f"training needs latencies on {name!r}, which is not a device of this run",
                expected=f"one of {', '.join(project.devices)}",
                where="train.sampler.device or train.ranking.prior.device",
                fix=f"add {name} to `devices`",
            )
    return tuple(dict.fromkeys(needed))


def _hashes(project: Project) -> str | list[str | None] | None:
    """Hash of the starting weights, and of the weights of the teacher if there is one."""
    start = project.outside.sha256("supernet.init")
    if project.config.train.teacher is None:
        return start
    return [start, project.outside.sha256(TEACHER)]


def _train_settings(project: Project) -> TrainConfig:
    """Section `train`, with the resolved path of the teacher's weights."""
    section = project.config.train
    if section.teacher is None:
        return section
    teacher = section.teacher.model_copy(update={"weights": project.outside.path(TEACHER)})
    return section.model_copy(update={"teacher": teacher})
