"""Stages `train` and `label`: the supernet, and scores of sampled subnets."""

from __future__ import annotations

import numpy as np

from hwnas.core.progress import Progress
from hwnas.core.records import dump, load
from hwnas.core.rng import rng
from hwnas.core.store import content_hash, file_hash, read_json, write_bytes, write_json
from hwnas.interfaces import Evaluation, Evaluator, FloatArray
from hwnas.pipeline.evaluations import JournaledEvaluator
from hwnas.pipeline.project import Project
from hwnas.spaces.space import Codes

__all__ = ["evaluator", "label", "labelled", "scores_of", "train"]


def train(project: Project, progress: Progress) -> None:
    """Train the supernet; resumes from its last checkpoint."""
    from safetensors.torch import save

    from hwnas.nets.supernet import Supernet
    from hwnas.training.loop import train_supernet

    supernet = Supernet(project.space, seed=project.config.seed)
    train_supernet(
        supernet,
        project.data,
        project.config.train,
        seed=project.config.seed,
        checkpoints=project.run.path("checkpoints", "steps"),
        on_metrics=lambda row: project.run.metric("train", row),
        progress=progress,
    )
    write_bytes(project.supernet_path, save(supernet.state_dict()))


def evaluator(project: Project) -> JournaledEvaluator:
    """Scores archs with the trained supernet's weights on the validation split, journaled."""
    config = project.config
    calibration = config.label.calibration
    context = content_hash(
        [
            file_hash(project.supernet_path),
            config.data.model_dump(mode="json"),
            calibration.model_dump(mode="json"),
            config.seed,
        ]
    )

    def build() -> Evaluator:
        from hwnas.training.evaluate import SupernetEvaluator

        return SupernetEvaluator(project.supernet(), project.data, calibration, seed=config.seed)

    return JournaledEvaluator(project.run, context, build)


def label(project: Project, progress: Progress) -> None:
    """Score largest, smallest and random archs; each is journaled as soon as it is known."""
    space, config = project.space, project.config.label
    scorer = evaluator(project)
    drawn = space.sample(rng(project.config.seed, "label/archs"), 4 * config.n_archs)
    ends = space.codes([space.largest(), space.smallest()])
    codes = np.concatenate([ends, drawn])
    first = np.sort(np.unique(codes, axis=0, return_index=True)[1])[: config.n_archs]
    evaluations = []
    for done, row in enumerate(codes[first], start=1):
        evaluations.append(scorer.evaluate(space.arch(row)))
        progress(done, len(first), f"top1 {evaluations[-1].top1:.3f}")
    write_json(
        project.run.path("labels", "supernet.json"),
        {"schema_version": 1, "labels": [dump(e, versioned=False) for e in evaluations]},
    )


def labelled(project: Project) -> tuple[Codes, list[Evaluation]]:
    """Codes and evaluations that stage `label` wrote."""
    path = project.run.path("labels", "supernet.json")
    rows = read_json(path)["labels"]
    evaluations = [load(Evaluation, row, where=path, versioned=False) for row in rows]
    return project.space.codes([e.arch for e in evaluations]), evaluations


def scores_of(evaluations: list[Evaluation]) -> FloatArray:
    """What predictors learn and searches maximise: minus validation cross-entropy, in nats.

    Loss ranks subnets better than accuracy on small validation sets (papers.md, section 6: tau
    0.84 against 0.78 on the same subnets).
    """
    return np.array(
        [np.nan if e.val_loss is None else -e.val_loss for e in evaluations], dtype=np.float64
    )
