"""The stages of a project, in execution order. Stages of a search have its name."""

from __future__ import annotations

from dataclasses import replace

from hwnas.pipeline.duration import Durations
from hwnas.pipeline.plan import Stage
from hwnas.pipeline.project import Project
from hwnas.pipeline.stages import (
    export,
    finetune,
    label,
    predictor,
    profile,
    references,
    search,
    train,
    verify,
)
from hwnas.pipeline.stored import search_names

__all__ = ["stages_of", "stages_of_all_searches"]


def stages_of(project: Project) -> list[Stage]:
    """The stages of a project; the module of a stage defines its settings and inputs."""
    durations = Durations(project)
    stages = [
        *(profile.stage(project, device) for device in project.devices),
        train.stage(project),
        label.stage(project),
        *([label.trained_stage(project)] if project.config.label.trained.n else []),
        predictor.stage(project),
        search.stage(project),
        finetune.stage(project),
        export.stage(project),
        verify.stage(project),
        *([references.stage(project)] if project.config.search.references is not None else []),
    ]
    return [replace(stage, seconds=durations.of(stage.name)) for stage in stages]


def stages_of_all_searches(project: Project) -> list[Stage]:
    """The stages of the project, then those of the other searches in its run folder."""
    stages = {stage.name: stage for stage in stages_of(project)}
    for name in search_names(project.run):
        if name != project.config.search.name:
            found = stages_of(project.of_search(name))
            stages = {**{stage.name: stage for stage in found}, **stages}
    order = {"profile": 0, "train": 1, "label": 2, "predictor": 3}
    return sorted(stages.values(), key=lambda stage: order.get(stage.name.partition("/")[0], 4))
