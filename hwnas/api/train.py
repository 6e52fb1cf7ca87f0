"""`hwnas train`: trains the supernet."""

from __future__ import annotations

from pathlib import Path

from hwnas.api.result import Folder, Listing, ProgressFor, Settings, no_progress
from hwnas.api.stage import bring_up_to_date
from hwnas.interfaces import quality_of
from hwnas.pipeline.listings import training_rows
from hwnas.pipeline.opening import open_project
from hwnas.pipeline.project import Project

__all__ = ["log_training_cost", "train"]


def train(
    folder: Folder,
    *,
    config: str | None = None,
    settings: Settings = None,
    progress: ProgressFor = no_progress,
) -> Listing:
    """Trains the supernet; returns the last row of its training curves.

    The row has the top-1 in [0, 1] of some subnets on the validation split. The fact `n_images` is
    the number of its images.
    """
    return bring_up_to_date(
        folder, "train", config=config, changes=settings, progress=progress, found=_curve_end
    )


def _curve_end(project: Project) -> Listing:
    n, quality = project.source.info.n_images["val"], quality_of(project.space)
    key = quality.name.replace("-", "")
    rows, shown = [], []
    for row in training_rows(project.run)[-1:]:
        values = {k: quality.of(top1, row.val_loss[k]) for k, top1 in row.top1.items()}
        rows.append({"step": row.step, **{f"{key} {k}": value for k, value in values.items()}})
        texts = {f"validation {quality.name}, {k}": quality.text(v, n) for k, v in values.items()}
        shown.append({"step": row.step, **texts})
    return Listing(rows, shown=shown, facts={"n_images": n})


def log_training_cost(
    folder: Folder, *, config: str | None, settings: Settings, processes: int | None
) -> None:
    """Logs the cost of `train`, from a few real steps on synthetic images.

    processes: processes that share every batch; by default those of torchrun.
    """
    from hwnas.studies.training_cost import tell_training_cost

    with open_project(
        Path(folder),
        config=config,
        changes=settings,
        progress_for=no_progress,
        command="hwnas train",
        read_only=True,
    ) as project:
        tell_training_cost(project, processes)
