"""How far a ranking of archs can be trusted (How Does Supernet Help, 2010.08219)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from hwnas.analysis.bias import BiasReport, bias_report
from hwnas.analysis.ranks import RankReport, rank_report
from hwnas.analysis.verdict import verdict
from hwnas.core.errors import UserError
from hwnas.interfaces import FloatArray
from hwnas.pipeline.predicting import read_report
from hwnas.pipeline.project import Project
from hwnas.pipeline.training import labelled, read_labels, scores_of
from hwnas.predictors.evaluate import held_out_rows
from hwnas.spaces.cost import cost
from hwnas.spaces.space import Codes

__all__ = ["Analysis", "Ranking", "analyze"]

Ranking = Literal["predictor", "supernet", "macs", "params"]


@dataclass(frozen=True)
class Analysis:
    """A ranking against a truth: rank agreement, bias per choice, and what follows in words."""

    ranking: Ranking
    truth: str
    ranks: RankReport
    bias: BiasReport
    verdict: tuple[str, ...]


def analyze(project: Project, ranking: Ranking, truth: Path | None) -> Analysis:
    """Compare a ranking of the run with better knowledge of the same archs.

    Without `truth`, that is the supernet's labels; with it, a labels file of the same space (for
    example of archs trained alone), of which the archs that the run has labelled too are used.

    Raises:
        UserError: the supernet would be compared with itself, or too few archs are in both.
    """
    space, seed = project.space, project.config.seed
    codes, evaluations = labelled(project)
    known, rows = scores_of(evaluations), np.arange(len(codes))
    if ranking == "predictor":
        _, rows = held_out_rows(len(codes), seed=seed)
    scores = _scores(project, ranking, codes[rows], known[rows])
    reference, name = known[rows], "supernet labels"
    if truth is not None:
        better = dict(zip(*_by_arch(project, truth), strict=True))
        both = [i for i, row in enumerate(rows) if evaluations[row].arch in better]
        reference = np.array([better[evaluations[rows[i]].arch] for i in both])
        scores, rows, name = scores[both], rows[both], str(truth)
    elif ranking == "supernet":
        raise UserError(
            "the supernet's labels are the truth here",
            fix="give better labels with --truth FILE, or choose another --ranking",
        )
    ranks = rank_report(scores, reference, seed=seed)
    bias = bias_report(space, codes[rows], scores, reference)
    return Analysis(ranking, name, ranks, bias, verdict(ranks, bias))


def _scores(project: Project, ranking: Ranking, codes: Codes, known: FloatArray) -> FloatArray:
    if ranking == "supernet":
        return known
    if ranking == "predictor":
        return np.asarray(read_report(project).predicted, dtype=np.float64)
    return cost(project.space, codes, ranking).astype(np.float64)


def _by_arch(project: Project, path: Path) -> tuple[list[object], list[float]]:
    evaluations = read_labels(path)
    for evaluation in evaluations:
        project.space.check(evaluation.arch)
    return [e.arch for e in evaluations], [float(score) for score in scores_of(evaluations)]
