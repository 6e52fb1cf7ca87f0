"""Stage `predictor`: fit on the labels, say how far to trust it, weigh it against the supernet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hwnas.core.progress import Progress
from hwnas.core.records import dump, load
from hwnas.core.store import read_json, write_bytes, write_json
from hwnas.interfaces import AccuracyPredictor, Evaluation, FloatArray, PredictorContext, Proxy
from hwnas.pipeline.evaluators import evaluator, half_scores, scores_of
from hwnas.pipeline.project import Project
from hwnas.pipeline.stages.label import labelled, trained_labels
from hwnas.predictors import REGISTRY as PREDICTORS
from hwnas.predictors.blend import Blend, blend, fit_blend
from hwnas.predictors.evaluate import (
    PredictorReport,
    cross_validated_report,
    cross_validated_rows,
    held_out_report,
    held_out_rows,
)
from hwnas.predictors.transfer import LabelSet, TransferPredictor

__all__ = [
    "blend_for",
    "build_predictor",
    "fit",
    "held_back",
    "learns_truth",
    "load_predictor",
    "read_blend",
    "read_report",
]

MIN_TRAINED = 12
"""Labels of archs trained alone that the predictor needs, to learn from them and not only be judged
by them: a fifth of them is held back at a time, and a fifth of the others again."""


def fit(project: Project, progress: Progress) -> None:
    """Report on held-back labels, weigh supernet against predictor on them, then fit on all.

    The labels are the supernet's, or, where there are enough, those of archs trained alone: then
    the supernet's are what it learns first (WPNAS's few-shot predictor, 2203.02086).
    """
    from safetensors.numpy import save

    evaluations, held = held_back(project)
    codes, scores = project.space.codes([e.arch for e in evaluations]), scores_of(evaluations)
    make_report = cross_validated_report if learns_truth(project) else held_out_report
    report = make_report(
        lambda: build_predictor(project),
        codes,
        scores,
        space=project.space,
        seed=project.config.seed,
    )
    sources = Counter(str(e.source) for e in [*evaluations, *_also_learned(project)])
    report = replace(report, sources=dict(sources))
    note = f"tau {report.kendall_tau:.3f} on held-back subnets, MACs {report.macs_tau:.3f}"
    progress(1, 3, note)
    archs = [evaluations[row].arch for row in held]
    if learns_truth(project):
        inherited = evaluator(project)
        seen, truth = scores_of([inherited.evaluate(arch) for arch in archs]), scores[held]
    else:
        seen, truth = half_scores(project, archs)
    fitted = fit_blend(seen, np.asarray(report.predicted), truth)
    progress(2, 3, f"{note}, weight in the blend {fitted.weight:.2f}")
    predictor = build_predictor(project)
    predictor.fit(codes, scores)
    state = {name: np.ascontiguousarray(value) for name, value in predictor.state().items()}
    write_bytes(project.run.path("predictor", "model.safetensors"), save(state))
    write_json(project.run.path("predictor", "report.json"), dump(report))
    write_json(project.run.path("predictor", "blend.json"), dump(fitted))
    progress(3, 3, note)


def learns_truth(project: Project) -> bool:
    """Whether the predictor forecasts archs trained alone, and not their supernet scores."""
    return project.config.label.trained.n >= MIN_TRAINED


def held_back(project: Project) -> tuple[list[Evaluation], NDArray[np.int64]]:
    """The labels that the predictor forecasts, and rows of those in the order of its report."""
    seed = project.config.seed
    if learns_truth(project):
        evaluations = trained_labels(project)
        return evaluations, cross_validated_rows(len(evaluations), seed=seed)
    evaluations = labelled(project)[1]
    return evaluations, held_out_rows(len(evaluations), seed=seed)[1]


def build_predictor(project: Project) -> AccuracyPredictor:
    """The configured predictor, not fitted."""
    config = project.config.predictor
    module = PREDICTORS.load(config.name)

    def build(proxies: Sequence[Proxy] = ()) -> AccuracyPredictor:
        context = PredictorContext(project.space, project.config.seed, tuple(proxies))
        return module.build(config, context)

    if not (inherited := _also_learned(project)):
        return build()
    codes = project.space.codes([e.arch for e in inherited])
    others = [LabelSet("supernet", codes, scores_of(inherited))]
    return TransferPredictor(build, others, seed=project.config.seed)


def _also_learned(project: Project) -> list[Evaluation]:
    """Labels of another source that the predictor learns besides those it forecasts."""
    return labelled(project)[1] if learns_truth(project) else []


def load_predictor(project: Project) -> AccuracyPredictor:
    """The fitted predictor."""
    from safetensors.numpy import load_file

    predictor = build_predictor(project)
    predictor.load_state(load_file(project.run.path("predictor", "model.safetensors")))
    return predictor


def read_report(project: Project) -> PredictorReport:
    """How the predictor did on held-back labels."""
    path = project.run.path("predictor", "report.json")
    return load(PredictorReport, read_json(path), where=path)


def read_blend(project: Project) -> Blend:
    """How supernet score and prediction are combined."""
    path = project.run.path("predictor", "blend.json")
    return load(Blend, read_json(path), where=path)


def blend_for(project: Project) -> Callable[[FloatArray, FloatArray, FloatArray], FloatArray]:
    """The score of evaluated archs from forecast mean, forecast deviation and label, in the
    forecasts' unit.
    """
    fitted = read_blend(project)

    def combine(mean: FloatArray, std: FloatArray, label: FloatArray) -> FloatArray:
        return fitted.predicted.restore(blend(fitted, label, mean))

    return combine
