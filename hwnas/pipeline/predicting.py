"""Stage `predictor`: fit on the labels, and say how far to trust it."""

from __future__ import annotations

import numpy as np

from hwnas.core.progress import Progress
from hwnas.core.records import dump, load
from hwnas.core.store import read_json, write_bytes, write_json
from hwnas.interfaces import AccuracyPredictor
from hwnas.pipeline.project import Project
from hwnas.pipeline.training import labelled, scores_of
from hwnas.predictors import REGISTRY as PREDICTORS
from hwnas.predictors.evaluate import PredictorReport, held_out_report

__all__ = ["blend_for", "fit", "load_predictor", "read_report"]


def fit(project: Project, progress: Progress) -> None:
    """Report on held-back labels, then fit on all of them."""
    codes, evaluations = labelled(project)
    scores = scores_of(evaluations)
    report = held_out_report(
        lambda: _build(project),
        codes,
        scores,
        space=project.space,
        seed=project.config.seed,
    )
    progress(1, 2, f"tau {report.kendall_tau:.3f} on held-back subnets, MACs {report.macs_tau:.3f}")
    predictor = _build(project)
    predictor.fit(codes, scores)
    from safetensors.numpy import save

    state = {name: np.ascontiguousarray(value) for name, value in predictor.state().items()}
    write_bytes(project.run.path("predictor", "model.safetensors"), save(state))
    write_json(project.run.path("predictor", "report.json"), dump(report))
    progress(2, 2)


def _build(project: Project) -> AccuracyPredictor:
    config = project.config.predictor
    module = PREDICTORS.load(config.name)  # type: ignore[attr-defined]
    predictor: AccuracyPredictor = module.build(
        config, space=project.space, seed=project.config.seed
    )
    return predictor


def load_predictor(project: Project) -> AccuracyPredictor:
    """The fitted predictor."""
    from safetensors.numpy import load_file

    predictor = _build(project)
    predictor.load_state(load_file(project.run.path("predictor", "model.safetensors")))
    return predictor


def read_report(project: Project) -> PredictorReport:
    """How the predictor did on held-back labels."""
    path = project.run.path("predictor", "report.json")
    return load(PredictorReport, read_json(path), where=path)
