"""Stages `label` and `label/trained`: subnets scored with inherited weights, or trained alone."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import numpy as np

from hwnas.core.progress import Progress, silent
from hwnas.core.records import dump, load
from hwnas.core.rng import rng
from hwnas.core.store import write_json
from hwnas.interfaces import Evaluation
from hwnas.pipeline.evaluators import JournaledEvaluator, alone_evaluator, evaluator
from hwnas.pipeline.project import Project
from hwnas.predictors.readers.hwnas import read_labels
from hwnas.spaces.arch import Arch
from hwnas.spaces.space import Codes

__all__ = [
    "describe_trained_cost",
    "label",
    "label_trained",
    "labelled",
    "labels_path",
    "measured_trained_cost",
    "score_all",
    "trained_labels",
]

log = logging.getLogger(__name__)


def label(project: Project, progress: Progress) -> None:
    """Score largest, smallest and random archs with the supernet; all ranks take part."""
    space = project.space
    archs = [space.largest(), space.smallest(), *_drawn(project, project.config.label.n_archs)]
    archs = list(dict.fromkeys(archs))[: project.config.label.n_archs]
    _write(project, labels_path(project), score_all(project, evaluator(project), archs, progress))


def label_trained(project: Project, progress: Progress) -> None:
    """Train random archs alone and score them; all ranks take part, each with archs of its own.

    A killed one goes on from its checkpoint. The archs are the first random ones of stage `label`.
    """
    config = project.config.label.trained
    archs = _drawn(project, config.n)
    steps = project.run.path("labels", "steps")
    n_done = 0

    def one(done: int, total: int, note: str = "") -> None:
        progress(n_done * total + done, len(archs) * total, note)

    def whole(done: int, total: int, note: str = "") -> None:
        nonlocal n_done
        n_done = done
        log.info("label/trained: %d of %d archs  %s", done, total, note)

    scorer = alone_evaluator(project, config.recipe, steps, one)
    if project.ranks.leads:
        log.info("label/trained: %s", measured_trained_cost(project))
    _write(project, labels_path(project, "trained"), score_all(project, scorer, archs, whole))
    if project.ranks.leads:
        shutil.rmtree(steps, ignore_errors=True)  # the journal has what they were for


def describe_trained_cost(project: Project) -> str:
    """What stage `label/trained` takes, as far as it is known without looking at the data."""
    config = project.config.label.trained
    return f"{config.n} archs trained alone x {config.recipe.epochs} epochs"


def measured_trained_cost(project: Project) -> str:
    """What stage `label/trained` still takes: images, and minutes from timed training steps."""
    from hwnas.training.alone import images_seen, training_seconds

    recipe, n_ranks = project.config.label.trained.recipe, project.ranks.size
    known = alone_evaluator(project, recipe, project.run.path("labels", "steps"), silent)
    archs = [a for a in _drawn(project, project.config.label.trained.n) if not known.is_known(a)]
    if not archs:
        return "nothing to train, all labels are known"
    images = images_seen(project.data, recipe)
    seconds = training_seconds(project.space, project.data, recipe, archs, project.accelerator)
    return (
        f"{len(archs)} archs to train alone x {images:,} images ({recipe.epochs} epochs) = "
        f"{len(archs) * images:,} images; about {seconds / 60 / n_ranks:.1f} minutes"
        + (f" on {n_ranks} processes" if n_ranks > 1 else "")
        + ", by steps timed now"
    )


def labelled(project: Project) -> tuple[Codes, list[Evaluation]]:
    """Codes and evaluations that stage `label` wrote."""
    evaluations = read_labels(labels_path(project))
    return project.space.codes([e.arch for e in evaluations]), evaluations


def trained_labels(project: Project) -> list[Evaluation]:
    """What stage `label/trained` wrote."""
    return read_labels(labels_path(project, "trained"))


def score_all(
    project: Project, scorer: JournaledEvaluator, archs: list[Arch], progress: Progress
) -> list[Evaluation]:
    """Evaluations of all archs, shared among the ranks; journaled by rank 0 as they come."""
    unknown = [arch for arch in archs if not scorer.is_known(arch)]
    n_known = len(archs) - len(unknown)

    def do(codes: list[int]) -> dict[str, object]:
        return dump(scorer.fresh(project.space.arch(codes)))

    def keep(codes: list[int], found: dict[str, object]) -> None:
        nonlocal n_known
        evaluation = load(Evaluation, found, where="an evaluation of another process")
        scorer.remember(evaluation)
        n_known += 1
        progress(n_known, len(archs), f"top1 {evaluation.top1:.3f}")

    progress(n_known, len(archs))
    project.ranks.share(project.space.codes(unknown).tolist(), do, keep)
    return [scorer.evaluate(arch) for arch in archs] if project.ranks.leads else []


def _drawn(project: Project, n: int) -> list[Arch]:
    """Distinct random archs, at most n; more of them begin with the same ones."""
    space = project.space
    drawn = space.sample(rng(project.config.seed, "label/archs"), 4 * project.config.label.n_archs)
    if n > project.config.label.n_archs:
        more = space.sample(rng(project.config.seed, "label/archs", "more"), 4 * n)
        drawn = np.concatenate([drawn, more])
    ends = {space.largest(), space.smallest()}
    first = np.sort(np.unique(drawn, axis=0, return_index=True)[1])
    archs = (space.arch(row) for row in drawn[first])
    return [arch for arch in archs if arch not in ends][:n]


def _write(project: Project, path: Path, evaluations: list[Evaluation]) -> None:
    if project.ranks.leads:
        labels = [dump(e, versioned=False) for e in evaluations]
        write_json(path, {"schema_version": 1, "labels": labels})


def labels_path(project: Project, source: str = "supernet") -> Path:
    """Where the labels of a source, `supernet` or `trained`, lie."""
    return project.run.path("labels", f"{source}.json")
