"""Stage `train`: the supernet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hwnas.core.errors import UserError
from hwnas.core.progress import Progress
from hwnas.core.store import file_hash, write_bytes
from hwnas.pipeline.costs import cost_metrics, require_reachable
from hwnas.pipeline.project import Project

__all__ = ["files_read", "init_hash", "latency_devices", "train"]


def train(project: Project, progress: Progress) -> None:
    """Train the supernet; resumes from its last checkpoint. All ranks take part, rank 0 writes."""
    from hwnas.nets.pretrained import start_from
    from hwnas.training.checkpoint import weights_bytes
    from hwnas.training.loop import train_supernet
    from hwnas.training.tensorboard import tensorboard_rows

    config = project.config
    show = None
    if config.train.tensorboard and project.ranks.leads:
        show = tensorboard_rows(project.run.path("tensorboard"))

    def keep(row: dict[str, Any]) -> None:
        project.run.metric("train", row)
        if show is not None:
            show(row)

    if project.ranks.leads:
        require_reachable(project)
    supernet = project.new_supernet()
    if config.supernet.init is not None:
        start_from(supernet, Path(config.supernet.init))
    with project.ranks.group():
        used = train_supernet(
            supernet,
            project.data,
            config.train,
            seed=config.seed,
            checkpoints=project.run.path("checkpoints", "steps"),
            on_metrics=keep,
            progress=progress,
            metrics=cost_metrics(
                project.space, {name: project.estimator(name) for name in latency_devices(project)}
            ),
            device=project.accelerator,
            ranks=project.ranks,
        )
    if project.ranks.leads:
        write_bytes(project.supernet_path, weights_bytes(used, project.metadata()))


def latency_devices(project: Project) -> tuple[str, ...]:
    """Devices whose latency tables the training needs: for its sampler, or to rank pairs.

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
                f"training needs latency on {name!r}, which is not a device of this project",
                expected=f"one of {', '.join(project.devices)}",
                where="train.sampler.device or train.ranking.prior.device",
                fix=f"add {name} to `devices`",
            )
    return tuple(dict.fromkeys(needed))


def files_read(project: Project) -> dict[str, Path]:
    """Weights that training starts from, and the teacher's, by the setting that names them."""
    init, teacher = project.config.supernet.init, project.config.train.teacher
    found = {} if init is None else {"supernet.init": Path(init)}
    return found if teacher is None else {**found, "train.teacher.weights": teacher.weights}


def init_hash(project: Project) -> str | list[str | None] | None:
    """Hash of the weights that training starts from, and of the teacher's if there is one."""
    paths = files_read(project)

    def of(setting: str) -> str | None:
        path = paths.get(setting)
        return file_hash(path) if path is not None and path.is_file() else None

    start = of("supernet.init")
    if project.config.train.teacher is None:
        return start
    return [start, of("train.teacher.weights")]
