"""The stages of a project, in execution order; those of a search carry its name."""

from __future__ import annotations

from hwnas.pipeline.engine import Stage
from hwnas.pipeline.project import Project
from hwnas.pipeline.stages import (
    export,
    finetune,
    label,
    predictor,
    profile,
    search,
    train,
    verify,
)

__all__ = ["stages_of"]


def stages_of(project: Project) -> list[Stage]:
    """What a project runs; which settings and inputs each stage depends on is in its file."""
    return [
        *(profile.stage(project, device) for device in project.devices),
        train.stage(project),
        label.stage(project),
        *([label.trained_stage(project)] if project.config.label.trained.n else []),
        predictor.stage(project),
        search.stage(project),
        finetune.stage(project),
        export.stage(project),
        verify.stage(project),
    ]
