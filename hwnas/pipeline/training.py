"""Stages `train` and `label`: the supernet, and scores of sampled subnets."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hwnas.core.progress import Progress
from hwnas.core.records import dump
from hwnas.core.rng import rng
from hwnas.core.store import content_hash, file_hash, write_bytes, write_json
from hwnas.interfaces import Evaluation, Evaluator, FloatArray
from hwnas.pipeline.evaluations import JournaledEvaluator
from hwnas.pipeline.project import Project
from hwnas.pipeline.reaching import require_reachable
from hwnas.predictors.readers.hwnas import read_labels
from hwnas.spaces.arch import Arch
from hwnas.spaces.lowering import resolution
from hwnas.spaces.space import Codes

__all__ = [
    "evaluator",
    "half_scores",
    "init_hash",
    "label",
    "labelled",
    "scores_of",
    "train",
]


TINY_LOSS = 1e-6  # nats; a loss of 0 has no log


def train(project: Project, progress: Progress) -> None:
    """Train the supernet; resumes from its last checkpoint."""
    from safetensors.torch import save

    from hwnas.nets.pretrained import start_from
    from hwnas.training.loop import train_supernet

    require_reachable(project)
    supernet = project.new_supernet()
    if project.config.supernet.init is not None:
        start_from(supernet, Path(project.config.supernet.init))
    train_supernet(
        supernet,
        project.data,
        project.config.train,
        seed=project.config.seed,
        checkpoints=project.run.path("checkpoints", "steps"),
        on_metrics=lambda row: project.run.metric("train", row),
        progress=progress,
    )
    write_bytes(project.supernet_path, save(supernet.state_dict(), project.metadata()))


def init_hash(project: Project) -> str | None:
    """What the weights that training starts from depend on besides the configuration."""
    init = project.config.supernet.init
    return file_hash(Path(init)) if init is not None and Path(init).is_file() else None


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
    evaluations = read_labels(project.run.path("labels", "supernet.json"))
    return project.space.codes([e.arch for e in evaluations]), evaluations


def half_scores(project: Project, archs: list[Arch]) -> tuple[FloatArray, FloatArray]:
    """Scores [n] of archs on each half of the validation images: two looks with independent noise.

    The first stands for what the search sees, the second for the truth it is after: what weighs
    supernet score against predictor must not share its images with either.
    """
    from hwnas.training.evaluate import EVAL_BATCH, SupernetEvaluator, evaluate
    from hwnas.training.images import resize

    scorer = SupernetEvaluator(
        project.supernet(),
        project.data,
        project.config.label.calibration,
        seed=project.config.seed,
    )
    validation = list(project.data.eval_batches("val", EVAL_BATCH))
    scores = np.empty((2, len(archs)))
    for column, arch in enumerate(archs):
        network, px = scorer.network(arch), resolution(project.space, arch)
        for half in (0, 1):
            images = [(resize(x[half::2], px), y[half::2]) for x, y in validation]
            loss = evaluate(network, images).cross_entropy
            scores[half, column] = -np.log(max(loss, TINY_LOSS))
    return scores[0], scores[1]


def scores_of(evaluations: list[Evaluation]) -> FloatArray:
    """What predictors learn and searches maximise: minus the log of the validation cross-entropy.

    Loss ranks subnets better than accuracy on small validation sets (papers.md, section 6: tau
    0.84 against 0.78 on the same subnets), and its log is closer to symmetric: ridge regression on
    120 labels of digits reaches a held-back tau of 0.60 on it and 0.42 on top1 (3 seeds).
    """
    losses = [np.nan if e.val_loss is None else e.val_loss for e in evaluations]
    return -np.log(np.maximum(np.array(losses, dtype=np.float64), TINY_LOSS))
