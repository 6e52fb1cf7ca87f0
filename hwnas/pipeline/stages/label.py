"""Stages `label` and `label/trained`: scores subnets in the supernet, or stand-alone."""

from __future__ import annotations

import logging
import shutil

import numpy as np

from hwnas.core.command import command_line
from hwnas.core.config import settled
from hwnas.core.progress import Progress, silent
from hwnas.core.rng import rng
from hwnas.interfaces import Evaluation
from hwnas.pipeline.checks import auxiliary_exists, optimizer_exists
from hwnas.pipeline.data_checks import calibration_needs, enough_images, recipe_fits
from hwnas.pipeline.data_source import LEARNING
from hwnas.pipeline.evaluators import (
    TabularEvaluator,
    evaluator,
    score_all,
    standalone_evaluator,
)
from hwnas.pipeline.plan import Stage
from hwnas.pipeline.project import Project
from hwnas.pipeline.task import task
from hwnas.spaces.arch import Arch
from hwnas.spaces.graphs import is_connected, smallest_connected

__all__ = ["label", "label_trained", "measured_trained_cost", "stage", "trained_stage"]

log = logging.getLogger(__name__)

RECORDS = "label.records"


def stage(project: Project) -> Stage:
    """Scores subnets with the supernet's weights, or reads their scores from a file."""
    labels, n_archs = project.files.pattern(project.files.labels()), project.config.label.n_archs
    section, has_records = settled(project.config.label), project.config.label.records is not None
    return Stage(
        name="label",
        command=command_line("label", project.run.root),
        needs=() if has_records else ("train",),
        names=("seed", "space", "data", "label", "label.records"),
        settings=[
            project.config.seed,
            project.space_settings,
            project.source.settings,
            {key: value for key, value in section.items() if key != "trained"},
            *([project.outside.sha256(RECORDS)] if has_records else []),
        ],
        owns=(labels,),
        outputs=(labels,),
        run=task(project, "label", label, together=True, reads_data=not has_records),
        cost=f"at most {n_archs} labels read" if has_records else f"{n_archs} subnets evaluated",
        reads=project.outside.paths(RECORDS),
        data=None if has_records else project.source.input(LEARNING),
        check=lambda: _check(project),
        check_data=lambda: _check_data(project),
    )


def _check(project: Project) -> None:
    """Refuses records that cannot be read, or belong to another space."""
    if project.config.label.records is not None:
        project.records(RECORDS)


def _check_data(project: Project) -> None:
    """Refuses calibration on more images than there are."""
    section = project.config.label
    if section.records is None:
        enough_images(project, calibration_needs(section.calibration, "label"))


def trained_stage(project: Project) -> Stage:
    """Trains random archs stand-alone; only in runs that request it."""
    files, section = project.files, project.config.label
    labels = files.pattern(files.labels("trained"))
    return Stage(
        name="label/trained",
        command=command_line("label", project.run.root, "--source", "trained"),
        needs=(),
        names=("seed", "space", "data", "label.n_archs", "label.trained"),
        settings=[
            project.config.seed,
            project.space_settings,
            project.source.settings,
            section.n_archs,
            settled(section).get("trained"),
        ],
        owns=(labels, files.pattern(files.label_steps)),
        outputs=(labels,),
        run=task(project, "label/trained", label_trained, together=True),
        cost=f"{section.trained.n} archs trained stand-alone x"
        f" {section.trained.recipe.epochs} epochs",
        data=project.source.input(LEARNING),
        check=lambda: _check_recipe(project),
        check_data=lambda: recipe_fits(project, section.trained.recipe, "label.trained.recipe"),
    )


def _check_recipe(project: Project) -> None:
    recipe, setting = project.config.label.trained.recipe, "label.trained.recipe"
    optimizer_exists(recipe.optimizer, f"{setting}.optimizer")
    auxiliary_exists(project, recipe, setting)


def label(project: Project, progress: Progress) -> None:
    """Scores largest, smallest and random archs with the supernet; all ranks take part."""
    space = project.space
    if project.config.label.records is not None:
        if project.ranks.leads:
            digest = project.outside.sha256(RECORDS)
            project.files.write_labels("supernet", _recorded(project), data=digest or "")
        return
    archs = [
        space.largest(),
        smallest_connected(space),
        *_drawn(project, project.config.label.n_archs),
    ]
    archs = list(dict.fromkeys(archs))[: project.config.label.n_archs]
    found = score_all(project, evaluator(project), archs, progress)
    if project.ranks.leads:
        project.files.write_labels("supernet", found, data=project.source.digest)


def _recorded(project: Project) -> list[Evaluation]:
    """Labels from a file; a seeded sample if it has more than requested.

    Raises:
        UserError: the file cannot be read, or its archs belong to another space.
    """
    records = project.records(RECORDS)
    known = TabularEvaluator(records, project.space)
    order = rng(project.config.seed, "label/records").permutation(len(records.codes))
    rows = np.sort(order[: project.config.label.n_archs])
    return [known.evaluate(project.space.arch(row)) for row in records.codes[rows]]


def label_trained(project: Project, progress: Progress) -> None:
    """Trains random archs stand-alone and scores them; each rank trains separate archs.

    A killed training resumes from its checkpoint. The archs are the first random ones of stage
    `label`.
    """
    config = project.config.label.trained
    archs = _drawn(project, config.n)
    steps = project.files.label_steps
    n_done = 0

    def one(done: int, total: int, note: str = "") -> None:
        name = f"network {n_done + 1} of {len(archs)}"
        progress(n_done * total + done, len(archs) * total, f"{name}, {note}")

    def whole(done: int, total: int, note: str = "") -> None:
        nonlocal n_done
        n_done = done
        log.info("label/trained: %d of %d archs  %s", done, total, note)

    scorer = standalone_evaluator(project, config.recipe, steps, one)
    if project.ranks.leads:
        log.info("label/trained: %s", measured_trained_cost(project))
    found = score_all(project, scorer, archs, whole)
    if project.ranks.leads:
        project.files.write_labels("trained", found, data=project.source.digest)
        shutil.rmtree(steps, ignore_errors=True)  # the results are in the journal


def measured_trained_cost(project: Project) -> str:
    """Remaining cost of stage `label/trained`: images, and minutes from timed training steps."""
    from hwnas.training.standalone import images_seen, training_seconds

    recipe, n_ranks = project.config.label.trained.recipe, project.ranks.size
    known = standalone_evaluator(project, recipe, project.files.label_steps, silent)
    archs = [a for a in _drawn(project, project.config.label.trained.n) if not known.is_known(a)]
    if not archs:
        return "nothing to train, all labels are known"
    images = images_seen(project.data, recipe)
    seconds = training_seconds(project.space, project.data, recipe, archs, project.accelerator)
    return (
        f"{len(archs)} archs to train stand-alone x {images:,} images ({recipe.epochs} epochs) = "
        f"{len(archs) * images:,} images; about {seconds / 60 / n_ranks:.1f} minutes"
        + (f" on {n_ranks} processes" if n_ranks > 1 else "")
        + ", extrapolated from a few training steps"
    )


def _drawn(project: Project, n: int) -> list[Arch]:
    """At most n distinct random archs; a larger n only appends further archs."""
    space = project.space
    drawn = space.sample(
        4 * project.config.label.n_archs, rng=rng(project.config.seed, "label/archs")
    )
    if n > project.config.label.n_archs:
        more = space.sample(4 * n, rng=rng(project.config.seed, "label/archs", "more"))
        drawn = np.concatenate([drawn, more])
    ends = {space.largest(), smallest_connected(space)}
    drawn = drawn[is_connected(space, drawn)]
    first = np.sort(np.unique(drawn, axis=0, return_index=True)[1])
    archs = (space.arch(row) for row in drawn[first])
    return [arch for arch in archs if arch not in ends][:n]
