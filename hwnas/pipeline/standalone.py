"""Stand-alone accuracy of the best archs of a search, trained from initial weights.

Scores of the supernet and the predictor estimate this accuracy. The training is part of stage
`finetune`, because a separate stage would make every finished run folder unfinished.
"""

from __future__ import annotations

from typing import Any

from hwnas.controller.result import Candidate
from hwnas.core.progress import Progress
from hwnas.pipeline.evaluators import evaluator, standalone_evaluator
from hwnas.pipeline.project import Project
from hwnas.pipeline.trained import Standalone

__all__ = ["read_standalone", "train_standalone"]


def read_standalone(project: Project) -> tuple[Standalone, ...]:
    """Stand-alone results so far, best score first."""
    files = (project.files.standalone(candidate.arch) for candidate in _chosen(project))
    return tuple(found for file in files if (found := file.read_if_there()) is not None)


def train_standalone(project: Project, progress: Progress) -> None:
    """Trains and scores the selected archs; each result is stored immediately."""
    config = project.config
    changes: dict[str, Any] = {"epochs": config.alone.epochs}
    changes |= {"distillation": 0.0, "feature_distillation": 0.0}
    if config.finetune.precision == "int8":  # stand-alone accuracies are of float networks
        changes["precision"] = "fp32"
    recipe = config.finetune.model_copy(update=changes)
    chosen = _chosen(project)
    n_done = 0

    def show(done: int, total: int, note: str = "") -> None:
        name = f"stand-alone {chosen[n_done].arch.key} ({n_done + 1} of {len(chosen)})"
        progress(n_done * total + done, len(chosen) * total, f"{name}, {note}")

    trained = standalone_evaluator(project, recipe, project.files.standalone_steps, show)
    inherited = evaluator(project)
    for candidate in chosen:
        found = Standalone(
            candidate,
            inherited.evaluate(candidate.arch).top1,
            trained.evaluate(candidate.arch),
        )
        project.files.standalone(candidate.arch).write(found)
        n_done += 1


def _chosen(project: Project) -> tuple[Candidate, ...]:
    return project.files.main_search.result.read().top[: project.config.alone.n]
