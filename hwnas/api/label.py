"""`hwnas label`: scores of random subnets."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Literal

from hwnas.api.options import refuse_both
from hwnas.api.result import Folder, Listing, ProgressFor, Settings, no_progress
from hwnas.api.stage import bring_up_to_date
from hwnas.core.errors import UserError
from hwnas.interfaces import quality_of
from hwnas.pipeline.opening import open_project
from hwnas.pipeline.project import Project

__all__ = ["Source", "label", "label_changes", "log_trained_cost"]

Source = Literal["supernet", "trained"]
STAGES = {"supernet": ("label.n_archs", "label"), "trained": ("label.trained.n", "label/trained")}
"""Maps each source of labels to the setting with their number, and to the stage."""


def label(
    folder: Folder,
    *,
    config: str | None = None,
    source: Source = "supernet",
    n: int | None = None,
    settings: Settings = None,
    progress: ProgressFor = no_progress,
) -> Listing:
    """Scores random subnets with the supernet's weights, or trains `n` of them stand-alone."""
    stage, changes = label_changes(source, n, settings)
    return bring_up_to_date(
        folder,
        stage,
        config=config,
        changes=changes,
        progress=progress,
        before=_require_archs if source == "trained" else None,
        found=lambda project: _labels(project, source),
    )


def label_changes(source: Source, n: int | None, settings: Settings) -> tuple[str, dict[str, Any]]:
    """The stage for labels from a source, and the settings for `n` labels.

    Raises:
        UserError: the source is unknown, or two different numbers of archs are given.
    """
    if source not in STAGES:
        raise UserError("no such source of labels", expected="supernet or trained", found=source)
    key, stage = STAGES[source]
    refuse_both("--n", n, key, settings)
    return stage, dict(settings or {}) | ({} if n is None else {key: n})


def _require_archs(project: Project) -> None:
    """Refuses stand-alone labels without any archs.

    Raises:
        UserError: names the setting.
    """
    if not project.config.label.trained.n:
        raise UserError(
            "the number of archs to train stand-alone is missing",
            expected="--n K, or label.trained.n in the config",
            where=project.run.root,
        )


def _labels(project: Project, source: Source) -> Listing:
    quality = quality_of(project.space)
    key = quality.name.replace("-", "")
    known = sorted(
        (quality.of(e.top1, e.val_loss), e.n_images) for e in project.files.read_labels(source)
    )
    found = {"lowest": known[0], "median": known[len(known) // 2], "highest": known[-1]}
    first = {"labels": len(known), "source": source}
    texts = {
        f"{name} validation {quality.name}": quality.text(*value) for name, value in found.items()
    }
    return Listing(
        [first | {f"{name} {key}": value for name, (value, _) in found.items()}],
        shown=[first | texts],
        facts={"n_images": known[0][1]},
    )


def log_trained_cost(folder: Folder, *, config: str | None, settings: Settings) -> None:
    """Logs the cost of the missing stand-alone labels, from a few timed training steps."""
    from hwnas.pipeline.stages.label import measured_trained_cost

    with open_project(
        Path(folder),
        config=config,
        changes=settings,
        progress_for=no_progress,
        command="hwnas label",
        read_only=True,
    ) as project:
        _require_archs(project)
        cost = measured_trained_cost(project)
    logging.getLogger("hwnas.cli").info("label/trained: %s", cost)
