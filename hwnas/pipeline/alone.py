"""Accuracy truth: the best archs of a search, each trained alone from fresh weights.

What the supernet says of an arch, and what the predictor makes of it, are estimates of this.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from hwnas.core.progress import Progress
from hwnas.core.records import STRICT, dump, load
from hwnas.core.store import read_json, write_json
from hwnas.interfaces import Evaluation
from hwnas.pipeline.project import Project
from hwnas.pipeline.searching import read_result
from hwnas.pipeline.training import evaluator
from hwnas.search.result import Candidate
from hwnas.spaces.lowering import resolution

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
    from hwnas.nets.subnet import build_subnet
    from hwnas.training.evaluate import EVAL_BATCH, evaluate
    from hwnas.training.finetune import finetune
    from hwnas.training.images import resize

    config, seed = project.config.alone, project.config.seed
    recipe = project.config.finetune.model_copy(update={"epochs": config.epochs})
    chosen = _chosen(project)
    for n, candidate in enumerate(chosen):
        path, arch = _path(project, candidate), candidate.arch
        if path.exists():
            continue

        def show(done: int, total: int, note: str = "", n: int = n) -> None:
            progress(n * total + done, len(chosen) * total, f"alone, {note}")

        px = resolution(project.space, arch)
        network = finetune(
            build_subnet(project.space, arch, seed=seed),
            project.data,
            recipe,
            px=px,
            teacher=None,
            seed=seed,
            checkpoints=project.search_path("finetuned", "alone", "steps", arch.key),
            progress=show,
        )
        images = project.data.eval_batches("val", EVAL_BATCH)
        score = evaluate(network, ((resize(x, px), y) for x, y in images))
        trained = Evaluation(
            arch=arch,
            top1=score.top1,
            val_loss=score.cross_entropy,
            source="trained",
            split="val",
            n_images=score.n_images,
            seed=seed,
        )
        found = Alone(candidate, evaluator(project).evaluate(arch).top1, trained)
        write_json(path, dump(found))


def _chosen(project: Project) -> tuple[Candidate, ...]:
    return read_result(project).top[: project.config.alone.n]


def _path(project: Project, candidate: Candidate) -> Path:
    return project.search_path("finetuned", "alone", f"{candidate.arch.key}.json")
