"""Accuracy truth: the best archs of a search, each trained alone from fresh weights.

What the supernet says of an arch, and what the predictor makes of it, are estimates of this.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from hwnas.controller.result import Candidate
from hwnas.core.progress import Progress
from hwnas.core.records import STRICT, dump, load
from hwnas.core.store import read_json, write_json
from hwnas.interfaces import Evaluation
from hwnas.pipeline.evaluators import alone_evaluator, evaluator
from hwnas.pipeline.project import Project
from hwnas.pipeline.stages.search import read_result

__all__ = ["Alone", "read_alone", "train_alone"]


@dataclass(frozen=True)
class Alone:
    """One arch: what the search thought of it, and its top-1 on the same validation images."""

    __pydantic_config__: ClassVar[Any] = STRICT

    candidate: Candidate
    supernet_top1: float
    trained: Evaluation

    def summary(self) -> dict[str, Any]:
        """A row of the closing table."""
        return {
            "network": "trained alone",
            "arch": self.candidate.arch.key,
            "predicted score": round(self.candidate.predicted, 4),
            "supernet top1": round(self.supernet_top1, 4),
            "trained top1": round(self.trained.top1, 4),
        }


def read_alone(project: Project) -> tuple[Alone, ...]:
    """What was trained alone so far, best score first."""
    return tuple(
        load(Alone, read_json(path), where=path)
        for path in (_path(project, candidate) for candidate in _chosen(project))
        if path.exists()
    )


def train_alone(project: Project, progress: Progress) -> None:
    """Train and score the chosen archs; each is kept as soon as it is done."""
    config = project.config
    recipe = config.finetune.model_copy(update={"epochs": config.alone.epochs, "distillation": 0.0})
    chosen = _chosen(project)
    n_done = 0

    def show(done: int, total: int, note: str = "") -> None:
        progress(n_done * total + done, len(chosen) * total, f"alone, {note}")

    steps = project.search_path("finetuned", "alone", "steps")
    trained, inherited = alone_evaluator(project, recipe, steps, show), evaluator(project)
    for candidate in chosen:
        found = Alone(
            candidate,
            inherited.evaluate(candidate.arch).top1,
            trained.evaluate(candidate.arch),
        )
        write_json(_path(project, candidate), dump(found))
        n_done += 1


def _chosen(project: Project) -> tuple[Candidate, ...]:
    return read_result(project).top[: project.config.alone.n]


def _path(project: Project, candidate: Candidate) -> Path:
    return project.search_path("finetuned", "alone", f"{candidate.arch.key}.json")
