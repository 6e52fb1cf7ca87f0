"""Stage `predictor`: fits on the labels, and reports on held-out labels."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np

from hwnas.core.command import command_line
from hwnas.core.config import settled
from hwnas.core.progress import Progress
from hwnas.core.store import write_bytes
from hwnas.core.tensor_file import in_order
from hwnas.pipeline.checks import can_learn
from hwnas.pipeline.data_checks import validation_can_be_halved
from hwnas.pipeline.data_source import LEARNING
from hwnas.pipeline.evaluators import evaluator, half_scores, scores_of
from hwnas.pipeline.plan import Stage
from hwnas.pipeline.predictor import also_learned, build_predictor, held_out, learns_truth
from hwnas.pipeline.project import Project
from hwnas.pipeline.task import task
from hwnas.predictors.blend import fit_blend, fit_errors
from hwnas.predictors.evaluate import cross_validated_report, held_out_report

__all__ = ["fit", "stage"]

N_BLENDED = 16
"""With recorded labels, maximum number of archs that the supernet scores to fit the blend."""


def stage(project: Project) -> Stage:
    """Learns from the labels of the supernet, and from stand-alone labels if the run has any."""
    files, config = project.files, project.config
    outputs = (files.predictor, files.predictor_report.path, files.blend.path)
    return Stage(
        name="predictor",
        command=command_line("predictor", "fit", project.run.root),
        needs=("train", "label", *(("label/trained",) if config.label.trained.n else ())),
        names=("seed", "space", "data", "label", "predictor"),
        settings=[
            config.seed,
            project.space_settings,
            project.source.settings,
            settled(config.label),
            project.settled["predictor"],
        ],
        owns=(files.pattern(files.predictor.parent),),
        outputs=tuple(map(files.pattern, outputs)),
        run=task(project, "predictor", fit),
        cost=f"{config.predictor.name} on {config.label.n_archs} labels",
        data=project.source.input(LEARNING),
        check=lambda: can_learn(project),
        check_data=lambda: validation_can_be_halved(project),
    )


def fit(project: Project, progress: Progress) -> None:
    """Tests the predictor on held-out labels, fits the blend to them, then fits to all labels.

    The labels are those of the supernet or, if there are enough, stand-alone accuracies. In that
    case the supernet labels are learned first (few-shot predictor of WPNAS, 2203.02086).
    """
    from safetensors.numpy import save

    config = project.config
    evaluations, held = held_out(project)
    codes, scores = project.space.codes([e.arch for e in evaluations]), scores_of(evaluations)
    make_report = cross_validated_report if learns_truth(project) else held_out_report
    report = make_report(
        lambda: build_predictor(project),
        codes,
        scores,
        space=project.space,
        seed=project.config.seed,
    )
    sources = Counter(str(e.source) for e in [*evaluations, *also_learned(project)])
    report = replace(report, sources=dict(sources))
    note = f"held-out tau {report.kendall_tau:.3f} (MACs as a predictor: {report.macs_tau:.3f})"
    note += f", the best of the predicted top 10 has true rank {report.top.n_at_10}"
    note += f" of {report.n_held_out}"
    progress(1, 3, note)
    archs = [evaluations[row].arch for row in held]
    predicted = np.asarray(report.predicted)
    if config.label.records is not None:  # more evaluations would take most of the run
        archs, held, predicted = archs[:N_BLENDED], held[:N_BLENDED], predicted[:N_BLENDED]
    if learns_truth(project) or config.label.records is not None:
        inherited = evaluator(project)
        seen = scores_of([inherited.evaluate(arch) for arch in archs])
        fitted = fit_blend(seen, predicted, scores[held])
    else:
        halves, std = half_scores(project, archs), np.asarray(report.predicted_std)
        fitted = fit_errors(halves, scores[held], predicted, std)
    progress(2, 3, f"{note}, weight in the blend {fitted.weight:.2f}")
    predictor = build_predictor(project)
    predictor.fit(codes, scores)
    state = {name: np.ascontiguousarray(value) for name, value in predictor.state().items()}
    write_bytes(project.files.predictor, in_order(save(state)))
    project.files.predictor_report.write(report)
    project.files.blend.write(fitted)
    progress(3, 3, note)
