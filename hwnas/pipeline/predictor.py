"""Builds and loads the configured predictor, and selects the labels that it learns."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from hwnas.core.command import command_line
from hwnas.core.tensor_file import read_arrays, readable_tensors
from hwnas.interfaces import AccuracyPredictor, Evaluation, FloatArray, PredictorContext, Proxy
from hwnas.pipeline.evaluators import scores_of
from hwnas.pipeline.project import Project
from hwnas.predictors import REGISTRY as PREDICTORS
from hwnas.predictors.blend import blend, corrected
from hwnas.predictors.evaluate import cross_validated_rows, held_out_rows
from hwnas.predictors.transfer import LabelSet, TransferPredictor

__all__ = [
    "also_learned",
    "blend_for",
    "build_predictor",
    "held_out",
    "learns_truth",
    "load_predictor",
]

MIN_TRAINED = 12
"""Minimum number of stand-alone labels that the predictor learns from.

Fewer stand-alone labels are only used for evaluation. The report holds out a fifth of the labels at
a time, and the fit on the remaining labels holds out a fifth of them again.
"""


def learns_truth(project: Project) -> bool:
    """Whether the predictor predicts stand-alone accuracy instead of supernet scores."""
    return project.config.label.trained.n >= MIN_TRAINED


def held_out(project: Project) -> tuple[list[Evaluation], NDArray[np.int64]]:
    """Labels of the predictor's target, and the held-out rows in the order of its report."""
    seed = project.config.seed
    if learns_truth(project):
        evaluations = project.files.read_labels("trained")
        return evaluations, cross_validated_rows(len(evaluations), seed=seed)
    evaluations = project.files.read_labels()
    return evaluations, held_out_rows(len(evaluations), seed=seed)[1]


def also_learned(project: Project) -> list[Evaluation]:
    """The supernet labels, from which a predictor of stand-alone accuracy also learns.

    Empty if the predictor predicts supernet scores.
    """
    return project.files.read_labels() if learns_truth(project) else []


def build_predictor(project: Project) -> AccuracyPredictor:
    """The configured predictor, not fitted."""
    config = project.config.predictor
    module = PREDICTORS.load(config.name)

    def build(proxies: Sequence[Proxy] = ()) -> AccuracyPredictor:
        context = PredictorContext(project.space, project.config.seed, tuple(proxies))
        return module.build(config, context)

    if not (inherited := also_learned(project)):
        return build()
    codes = project.space.codes([e.arch for e in inherited])
    others = [LabelSet("supernet", codes, scores_of(inherited))]
    return TransferPredictor(build, others, seed=project.config.seed)


def load_predictor(project: Project) -> AccuracyPredictor:
    """Reads the predictor that `hwnas predictor fit` stored in the run folder."""
    path = project.run.made(project.files.predictor, "predictor fit")
    problem = "cannot read the fitted predictor"
    fix = command_line("predictor", "fit", project.run.root)
    state, _ = read_arrays(path, problem, fix=fix)
    predictor = build_predictor(project)
    with readable_tensors(path, problem, fix=fix):
        predictor.load_state(state)
        mean, std = predictor.predict(project.space.codes([project.space.smallest()]))
        if not (np.isfinite(mean).all() and np.isfinite(std).all()):
            raise ValueError("predictions that are not finite")
    return predictor


def blend_for(project: Project) -> Callable[[FloatArray, FloatArray, FloatArray], FloatArray]:
    """Returns the function that combines predictions and labels of evaluated archs into scores.

    Its arguments are the predicted mean, the predicted standard deviation and the label, each [n].
    Scores [n] have the unit of the predictions.
    """
    fitted = project.files.blend.read()

    def combine(mean: FloatArray, std: FloatArray, label: FloatArray) -> FloatArray:
        if fitted.errors is not None:
            return corrected(fitted.errors, mean, std, label)
        return fitted.predicted.restore(blend(fitted, label, mean))

    return combine
