"""Evaluations that are journaled before use and never repeated."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hwnas.controller.scorer import Predict, Rescoring
from hwnas.core.config import settled
from hwnas.core.errors import UserError
from hwnas.core.progress import Progress
from hwnas.core.records import dump, load
from hwnas.core.rundir import RunDir
from hwnas.core.store import content_hash, file_hash
from hwnas.core.text import in_words
from hwnas.interfaces import AccuracyPredictor, Evaluation, Evaluator, FloatArray, quality_of
from hwnas.pipeline.project import Project
from hwnas.predictors.records import Records
from hwnas.spaces.arch import Arch
from hwnas.spaces.space import Codes, SearchSpace
from hwnas.training.sections import FinetuneConfig

if TYPE_CHECKING:
    from hwnas.training.evaluate import SupernetEvaluator

__all__ = [
    "JournaledEvaluator",
    "TabularEvaluator",
    "TabularRescoring",
    "evaluator",
    "half_scores",
    "score_all",
    "score_unit",
    "scores_of",
    "standalone_evaluator",
]

TINY_LOSS = 1e-6  # nats; a loss of 0 has no log


class JournaledEvaluator:
    """An Evaluator that journals every evaluation and never repeats one.

    The inner evaluator is only built if an evaluation is missing.

    `context` is a hash of everything else on which the scores depend (weights, data, calibration).
    Evaluations of another context are not reused.
    """

    def __init__(self, run: RunDir, context: str, build: Callable[[], Evaluator]) -> None:
        self._run, self._context, self._build = run, context, build
        rows = (row for row in run.journaled("evaluation") if row.get("context") == context)
        where = run.journal_file
        known = (load(Evaluation, row.get("evaluation"), where=where) for row in rows)
        self._known = {evaluation.arch: evaluation for evaluation in known}

    @cached_property
    def _inner(self) -> Evaluator:
        return self._build()

    def is_known(self, arch: Arch) -> bool:
        """Whether the journal has the evaluation of the arch."""
        return arch in self._known

    def evaluate(self, arch: Arch) -> Evaluation:
        """The journaled evaluation; if there is none, it is made and journaled first."""
        if arch not in self._known:
            self.remember(self.fresh(arch))
        return self._known[arch]

    def fresh(self, arch: Arch) -> Evaluation:
        """Evaluates without reading or writing the journal."""
        return self._inner.evaluate(arch)

    def remember(self, evaluation: Evaluation) -> None:
        """Journals an evaluation from this or another process."""
        self._run.journal("evaluation", {"context": self._context, "evaluation": dump(evaluation)})
        self._known[evaluation.arch] = evaluation


def evaluator(project: Project) -> JournaledEvaluator:
    """Scores archs with the trained supernet's weights on the validation split, journaled."""
    config = project.config
    context = content_hash(
        [
            file_hash(project.files.supernet),
            project.source.context,
            config.label.calibration.model_dump(mode="json"),
            config.seed,
            *([config.label.agreement] if config.label.agreement else []),
        ]
    )
    return JournaledEvaluator(project.run, context, lambda: _supernet_evaluator(project))


def _supernet_evaluator(project: Project) -> SupernetEvaluator:
    from hwnas.training.evaluate import SupernetEvaluator

    config = project.config
    return SupernetEvaluator(
        project.supernet(),
        project.data,
        config.label.calibration,
        seed=config.seed,
        agreement=config.label.agreement,
    )


def standalone_evaluator(
    project: Project, recipe: FinetuneConfig, checkpoints: Path, progress: Progress
) -> JournaledEvaluator:
    """Trains archs stand-alone from initial weights; journals their validation scores.

    `checkpoints`: folder from which an interrupted training resumes. `progress`: steps of the
    current training.
    """
    config = project.config
    context = content_hash(["alone", settled(recipe), project.source.context, config.seed])

    def build() -> Evaluator:
        from hwnas.training.standalone import StandaloneEvaluator

        return StandaloneEvaluator(
            project.space,
            project.data,
            recipe,
            seed=config.seed,
            checkpoints=checkpoints,
            progress=progress,
            device=project.accelerator,
        )

    return JournaledEvaluator(project.run, context, build)


def score_all(
    project: Project, scorer: JournaledEvaluator, archs: list[Arch], progress: Progress
) -> list[Evaluation]:
    """Evaluates archs on all ranks. Rank 0 journals each evaluation at once and returns all."""
    unknown = [arch for arch in archs if not scorer.is_known(arch)]
    n_known, quality = len(archs) - len(unknown), quality_of(project.space)

    def do(codes: list[int]) -> dict[str, object]:
        return dump(scorer.fresh(project.space.arch(codes)))

    def keep(codes: list[int], found: dict[str, object]) -> None:
        nonlocal n_known
        evaluation = load(Evaluation, found, where="an evaluation of another process")
        scorer.remember(evaluation)
        n_known += 1
        value = quality.of(evaluation.top1, evaluation.val_loss)
        shown = quality.text(value, evaluation.n_images)
        progress(n_known, len(archs), f"validation {quality.name} {shown}")

    progress(n_known, len(archs))
    project.ranks.share(project.space.codes(unknown).tolist(), do, keep)
    return [scorer.evaluate(arch) for arch in archs] if project.ranks.leads else []


def half_scores(project: Project, archs: list[Arch]) -> tuple[FloatArray, FloatArray]:
    """Scores of n archs on each half of the images from which labels are computed, both [n].

    The noise of the halves is independent, so `fit_errors` estimates the error of evaluations from
    their difference.
    """
    scorer, scores = _supernet_evaluator(project), np.empty((2, len(archs)))
    for column, arch in enumerate(archs):
        losses = scorer.losses(arch)
        for half in (0, 1):
            scores[half, column] = -np.log(max(losses[half::2].mean(), TINY_LOSS))
    return scores[0], scores[1]


def scores_of(evaluations: list[Evaluation]) -> FloatArray:
    """Scores [n] for predictors and searches: the negative log of a cross-entropy.

    It is the cross-entropy to the predictions of the largest network if the evaluations have it,
    else the validation loss.

    On small validation sets, the loss ranks subnets better than accuracy (Kendall's tau of 0.84 and
    0.78 on the same subnets). The log of the loss is closer to symmetric: ridge regression
    on 120 labels of digits has a held-out tau of 0.60 on the log of the loss and 0.42 on
    top-1 (3 seeds). For recorded accuracies without a loss, the score is the negative log of the
    error.
    """
    losses = [_loss(evaluation) for evaluation in evaluations]
    return -np.log(np.maximum(np.array(losses, dtype=np.float64), TINY_LOSS))


def score_unit(project: Project) -> str:
    """The unit of the scores of a project's searches, in words."""
    if project.config.search.evaluator.records is not None:
        return "minus log of the error"
    if project.config.label.agreement:
        return "minus log of the cross-entropy to the largest network"
    return "minus log of the validation loss"


def _loss(evaluation: Evaluation) -> float:
    if evaluation.agreement is not None:
        return evaluation.agreement
    if evaluation.val_loss is not None:
        return evaluation.val_loss
    return np.nan if evaluation.n_images else 1 - evaluation.top1


TINY_ERROR = 1e-6  # an error of 0 has no log
IRRELEVANT = 0.25  # share of the labels that are set equal


class TabularEvaluator:
    """An `Evaluator` that looks archs up in records of the same space.

    Raises:
        UserError: the records belong to another space.
    """

    def __init__(self, records: Records, space: SearchSpace) -> None:
        if records.space.id != space.id:
            raise UserError(
                "the records belong to another space",
                expected=f"records of the space {space.id}",
                found=f"records of the space {records.space.id}",
            )
        self._space = space
        self._scores = dict(zip(space.keys(records.codes), records.scores.tolist(), strict=True))

    def admits(self, codes: Codes) -> NDArray[np.bool_]:
        """Whether each arch [n, d] is in the records: bool [n]."""
        return np.array([key in self._scores for key in self._space.keys(codes)], dtype=bool)

    def evaluate(self, arch: Arch) -> Evaluation:
        """The recorded accuracy. `n_images` is 0, because records do not state it.

        Raises:
            UserError: the arch is not in the records.
        """
        (key,) = self._space.keys(self._space.codes([arch]))
        if key not in self._scores:
            raise UserError(
                "an arch is not in the records",
                expected=f"one of the {len(self._scores):,} recorded archs of {self._space.id}",
                found=f"an arch with the codes {in_words(arch.codes)}",
            )
        return Evaluation(arch, self._scores[key], "trained", "test", n_images=0, seed=0)


class TabularRescoring(Rescoring):
    """Looks evaluations up in records, and fits predictors that `build` makes to them.

    Scores are the negative log of the error. Their spread is similar for good and bad archs. The
    score of an evaluated arch is the recorded value. Before a predictor is fitted, labels in the
    worst quarter are raised to the first quartile, because differences among very bad archs carry
    no information about good ones. It is not more than a quarter: if half of the labels were equal,
    the predictor could take the differences between the others for noise.
    """

    learns = True

    def __init__(
        self, records: Records, space: SearchSpace, build: Callable[[], AccuracyPredictor]
    ) -> None:
        self._evaluator, self._build = TabularEvaluator(records, space), build

    def evaluate(self, archs: list[Arch]) -> list[Evaluation]:
        """Evaluations of archs in the records."""
        return [self._evaluator.evaluate(arch) for arch in archs]

    def label(self, evaluation: Evaluation) -> float:
        """The negative log of the error."""
        return -float(np.log(max(1 - evaluation.top1, TINY_ERROR)))

    def blend(self, mean: FloatArray, std: FloatArray, label: FloatArray) -> FloatArray:
        """Returns the labels unchanged, because records have no evaluation error."""
        return label

    def admits(self, codes: Codes) -> NDArray[np.bool_]:
        """Whether each arch [n, d] is in the records: bool [n]."""
        return self._evaluator.admits(codes)

    def refit(self, codes: Codes, labels: FloatArray) -> Predict:
        """Fits a new predictor to all labels; returns its `predict`."""
        predictor = self._build()
        predictor.fit(codes, np.maximum(labels, np.quantile(labels, IRRELEVANT)))
        return predictor.predict
