"""Scores archs for a search: predictions, and evaluations shared by all ranks."""

from __future__ import annotations

from collections.abc import Callable

from hwnas.controller.scorer import Predict, Rescoring
from hwnas.core.progress import silent
from hwnas.interfaces import Evaluation, FloatArray
from hwnas.pipeline.evaluators import (
    JournaledEvaluator,
    TabularRescoring,
    evaluator,
    score_all,
    scores_of,
)
from hwnas.pipeline.predictor import blend_for, build_predictor, load_predictor
from hwnas.pipeline.project import Project
from hwnas.spaces.arch import Arch

__all__ = ["FINISHED", "assist", "evaluate_together", "scoring"]

EVALUATE, FINISHED = "evaluate", "finished"  # commands of rank 0


def scoring(project: Project) -> tuple[Predict | None, Rescoring]:
    """How a search predicts and evaluates archs: with predictor and supernet, or from records.

    With records, the prediction is None: predictors are fitted during the search.
    """
    chosen = project.config.search.evaluator
    if chosen.records is not None:
        records = project.records("search.evaluator.records")
        return None, TabularRescoring(records, project.space, lambda: build_predictor(project))
    return load_predictor(project).predict, _SupernetRescoring(project)


class _SupernetRescoring(Rescoring):
    """Evaluations with the supernet's weights by all ranks, blended with the prediction."""

    def __init__(self, project: Project) -> None:
        self._project, self._evaluator = project, evaluator(project)
        self._blend, self.at_once = blend_for(project), project.ranks.size

    def evaluate(self, archs: list[Arch]) -> list[Evaluation]:
        """Journaled evaluations on the validation split."""
        return evaluate_together(self._project, self._evaluator, archs)

    def label(self, evaluation: Evaluation) -> float:
        """The negative log of the validation loss."""
        return float(scores_of([evaluation])[0])

    def blend(self, mean: FloatArray, std: FloatArray, label: FloatArray) -> FloatArray:
        """Blends with the weight fitted on held-out archs."""
        return self._blend(mean, std, label)


def evaluate_together(
    project: Project, scorer: JournaledEvaluator, archs: list[Arch]
) -> list[Evaluation]:
    """Evaluates archs; all ranks share those that are not yet journaled (see `assist`)."""
    if all(map(scorer.is_known, archs)):
        return [scorer.evaluate(arch) for arch in archs]
    project.ranks.tell(EVALUATE)
    return score_all(project, scorer, archs, silent)


def assist(project: Project, build: Callable[[], JournaledEvaluator]) -> None:
    """On other ranks: takes part in the evaluations of rank 0's search until it is finished."""
    scorer = None
    while project.ranks.hear() == EVALUATE:
        scorer = scorer or build()
        score_all(project, scorer, [], silent)
