"""Stage `predictor`: fit on the labels, say how far to trust it, weigh it against the supernet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from hwnas.core.progress import Progress
from hwnas.core.records import dump, load
from hwnas.core.store import read_json, write_bytes, write_json
from hwnas.interfaces import AccuracyPredictor, FloatArray
from hwnas.pipeline.project import Project
from hwnas.pipeline.training import half_scores, labelled, scores_of
from hwnas.predictors import REGISTRY as PREDICTORS
from hwnas.predictors.blend import Blend, blend, fit_blend
from hwnas.predictors.evaluate import PredictorReport, held_out_report, held_out_rows

__all__ = [
    "blend_for",
    "build_predictor",
    "fit",
    "load_predictor",
    "read_blend",
    "read_report",
]


def fit(project: Project, progress: Progress) -> None:
    """Report on held-back labels, weigh supernet against predictor on them, then fit on all."""
    from safetensors.numpy import save

    codes, evaluations = labelled(project)
    scores, seed = scores_of(evaluations), project.config.seed
    report = held_out_report(
        lambda: build_predictor(project), codes, scores, space=project.space, seed=seed
    )
    report = replace(report, sources=dict(Counter(e.source for e in evaluations)))
    _, held = held_out_rows(len(codes), seed=seed)
    note = f"tau {report.kendall_tau:.3f} on held-back subnets, MACs {report.macs_tau:.3f}"
    progress(1, 3, note)
    first, second = half_scores(project, [evaluations[row].arch for row in held])
    fitted = fit_blend(first, np.asarray(report.predicted), second)
    progress(2, 3, f"{note}, weight in the blend {fitted.weight:.2f}")
    predictor = build_predictor(project)
    predictor.fit(codes, scores)
    state = {name: np.ascontiguousarray(value) for name, value in predictor.state().items()}
    write_bytes(project.run.path("predictor", "model.safetensors"), save(state))
    write_json(project.run.path("predictor", "report.json"), dump(report))
    write_json(project.run.path("predictor", "blend.json"), dump(fitted))
    progress(3, 3, note)


def build_predictor(project: Project) -> AccuracyPredictor:
    """The configured predictor, not fitted."""
    config = project.config.predictor
    module = PREDICTORS.load(config.name)
    predictor: AccuracyPredictor = module.build(
        config, space=project.space, seed=project.config.seed
    )
    return predictor


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
