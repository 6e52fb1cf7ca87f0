"""Scores of archs during a search: their prices, predictions and evaluations."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hwnas.controller.archive import Archive, Rows
from hwnas.controller.constraints import Limit, price, ratios
from hwnas.core.errors import UserError
from hwnas.core.rng import rng
from hwnas.interfaces import Acquisition, CostMetric, Evaluation, FloatArray, Prospects
from hwnas.spaces.arch import Arch
from hwnas.spaces.space import Codes, SearchSpace

__all__ = ["Predict", "Rescoring", "Scorer"]

MIN_LABELS = 4  # minimum number that every predictor can be fitted on
N_PROSPECTS = 16_384  # uniform archs that are priced first, if predictions are learned
N_NEAR, N_PARENTS = 128, 16  # mutations of the best evaluated archs, before each batch
N_SPOTS = 16  # archs of a resumed archive whose predictions are compared
N_SCALE = 256  # uniform archs whose predictions determine the scale of the reward

Predict = Callable[[Codes], tuple[FloatArray, FloatArray]]
"""Mean [n] and standard deviation [n] of the predicted scores; higher is better."""


class Rescoring(ABC):
    """Scores the most promising archs of a search again, by running them.

    A subclass defines how archs are evaluated and scored.

    at_once: number of archs per call of `evaluate` if the time is limited.
    learns: whether `refit` learns new predictions from the labels so far; it is called after every
        batch of evaluations.
    """

    at_once: int = 1
    learns: bool = False

    @abstractmethod
    def evaluate(self, archs: list[Arch]) -> list[Evaluation]:
        """Evaluates archs, or reads their evaluations from the journal; journals new ones first."""

    @abstractmethod
    def label(self, evaluation: Evaluation) -> float:
        """The score of an evaluation, in the unit of the predictions."""

    @abstractmethod
    def blend(self, mean: FloatArray, std: FloatArray, label: FloatArray) -> FloatArray:
        """Combines predicted means, their standard deviations and labels, [n] each, into scores."""

    def admits(self, codes: Codes) -> NDArray[np.bool_]:
        """Which archs can be evaluated, bool [n]; the others can never win."""
        return np.ones(len(codes), dtype=bool)

    def refit(self, codes: Codes, labels: FloatArray) -> Predict:
        """Predictions learned from all labels [n] so far, if `learns`."""
        raise NotImplementedError(type(self).__name__)  # only called if `learns`


class Scorer:
    """Prices, predicts and evaluates archs; all results go into the archive.

    The unit of scores is the standard deviation of predictions for uniform archs, so that rewards
    are comparable across generations and searchers. These uniform archs do not count towards the
    budget.
    """

    def __init__(
        self,
        space: SearchSpace,
        predict: Predict | None,
        metrics: Mapping[str, CostMetric],
        limits: tuple[Limit, ...],
        archive: Archive,
        rescoring: Rescoring | None,
        seed: int,
        acquisition: Acquisition | None = None,
    ) -> None:
        self._space, self._metrics, self._limits = space, metrics, limits
        self._archive, self._rescoring, self._seed = archive, rescoring, seed
        self._predict, self._acquisition = predict, acquisition
        if rescoring is not None and rescoring.learns and len(archive.evaluated):
            self._refit(rescoring)
        if self._predict is not None:
            self._set_scale()

    def rows(self, codes: Codes) -> Rows:
        """Archive rows of `codes`; new archs are priced and predicted first."""
        return self._archive.record(codes, self._describe)

    def check_resumed(self, folder: Path) -> None:
        """Refuses to resume an archive whose predictions come from another function.

        folder: the folder of the search, for the error.

        Raises:
            UserError: stored and current predictions differ.
        """
        if self._rescoring is not None and self._rescoring.learns:
            return
        rows = np.unique(np.linspace(0, len(self._archive) - 1, N_SPOTS).round().astype(int))
        now, _ = self._predictions(self._archive.column("codes")[rows])
        known = self._archive.column("predicted")[rows]
        if not np.allclose(now, known, rtol=1e-3, atol=1e-3 * self._spread):
            raise UserError(
                "the stored scores of this search come from another score function",
                expected=f"{known.max():.6g}, the stored score of an arch",
                found=f"{now[known.argmax()]:.6g}, the score of this arch now",
                where=folder,
                fix="use the same deterministic score function, or give another folder",
            )

    def _describe(self, fresh: Codes) -> dict[str, NDArray[np.generic]]:
        tracked = {key: self._metrics[key] for key in self._archive.cost_keys}
        costs = price(tracked, fresh)
        feasible = np.all(ratios(self._limits, costs, len(fresh)) <= 1, axis=1)
        if self._rescoring is not None:
            feasible &= self._rescoring.admits(fresh)
        mean, std = self._predictions(fresh)
        return {"predicted": mean, "predicted_std": std, "feasible": feasible, **costs}

    def standardised(self, rows: Rows) -> FloatArray:
        """Scores [n] of rows, in standard deviations of the predictions of uniform archs."""
        return np.asarray((self._archive.column("score")[rows] - self._center) / self._spread)

    # --- evaluations --------------------------------------------------------------------------

    def eligible(self) -> NDArray[np.bool_]:
        """Rows that may win, bool [n]: feasible, and evaluated if there is an evaluator."""
        feasible = self._archive.column("feasible")
        return feasible if self._rescoring is None else feasible & self._is_evaluated()

    def evaluations(self, rows: Rows) -> dict[int, Evaluation]:
        """Existing evaluations of the rows, by row."""
        if self._rescoring is None:
            return {}
        known = rows[self._is_evaluated()[rows]]
        archs = [self._space.arch(codes) for codes in self._archive.column("codes")[known]]
        return dict(zip(known.tolist(), self._rescoring.evaluate(archs), strict=True))

    def begin(self, n: int, unchanged: Codes | None = None) -> None:
        """Makes the first evaluations of a search.

        Without predictions: up to n uniform feasible archs. The number of draws is limited, so
        fewer than n are evaluated if few archs are feasible. With predictions: the last feasible
        arch of `unchanged`.

        Raises:
            UserError: too few archs are feasible to learn predictions.
        """
        if unchanged is not None:
            self._evaluate_last_feasible(unchanged)
        if self._predict is not None:
            return
        self.rows(self._space.sample(N_PROSPECTS, rng=rng(self._seed, "search/initial")))
        n_feasible = int(self._archive.column("feasible").sum())
        if n_feasible < MIN_LABELS:
            raise UserError(
                "too few archs that meet the constraints and can be evaluated",
                expected=f"at least {MIN_LABELS}, from which predictions can be learned",
                found=f"{n_feasible} of {len(self._archive)} uniform archs",
                where=self._space.id,
                fix="relax the constraints, or use records of more archs of the space",
            )
        self.evaluate_up_to(n)

    def evaluate_up_to(
        self,
        n: int,
        exploration: float | None = None,
        *,
        is_late: Callable[[], bool] | None = None,
    ) -> bool:
        """Evaluates the best feasible archs until n archs of the archive are evaluated.

        Archs are ranked by the acquisition, or by predicted mean plus `exploration` deviations;
        with None, by the mean. It stops early if `is_late`, but not before the first evaluation of
        the search. Returns whether any arch was evaluated.
        """
        archive, rescoring = self._archive, self._rescoring
        missing = n - len(archive.evaluated)
        if rescoring is None or missing <= 0:
            return False
        if rescoring.learns:
            self._look_around()
        among = archive.column("feasible") & ~self._is_evaluated()
        rows = archive.top(missing, among=among, by=self._hopes(among, exploration))
        step = max(1, len(rows) if is_late is None else rescoring.at_once)
        n_done = 0
        for part in np.split(rows, range(step, len(rows), step)):
            if is_late is not None and len(archive.evaluated) and is_late():
                break
            self._evaluate(part, rescoring)
            n_done += len(part)
        if rescoring.learns and n_done:
            self._refit(rescoring)
            self._set_scale()
        return n_done > 0

    def _evaluate_last_feasible(self, codes: Codes) -> None:
        """Without predictions or an evaluator, the archs are only priced."""
        rows = self.rows(codes)
        last = rows[self._archive.column("feasible")[rows]][-1:]
        fresh = last[~self._is_evaluated()[last]]
        if len(fresh) and self._rescoring is not None and self._predict is not None:
            self._evaluate(fresh, self._rescoring)

    def _look_around(self) -> None:
        """Adds mutations of the best evaluated archs, which the searcher may not propose."""
        archive, done = self._archive, self._is_evaluated()
        best = archive.top(N_PARENTS, among=done)
        if len(best):
            stream = rng(self._seed, "search/near", int(done.sum()))
            parents = archive.column("codes")[stream.choice(best, N_NEAR)]
            rate = 1.5 / len(self._space.choices)
            self.rows(self._space.mutate(parents, stream, rate))

    def _hopes(self, among: NDArray[np.bool_], exploration: float | None) -> FloatArray:
        """Values of evaluating each row, [len(archive)]; only those of `among` are meaningful."""
        archive = self._archive
        score, std = archive.column("score"), archive.column("predicted_std")
        known = archive.evaluated
        if exploration is None or self._acquisition is None or not (len(known) and among.any()):
            return np.asarray(score + (exploration or 0.0) * std)
        cost = archive.column(archive.cost_keys[0])
        hopes = np.full(len(archive), -np.inf)
        hopes[among] = self._acquisition(
            Prospects(
                mean=score[among],
                std=std[among],
                cost=cost[among],
                known=score[known],
                known_cost=cost[known],
                stream=rng(self._seed, "search/acquisition", len(known)),
            )
        )
        return hopes

    def _evaluate(self, rows: Rows, rescoring: Rescoring) -> None:
        archive = self._archive
        archs = [self._space.arch(codes) for codes in archive.column("codes")[rows]]
        evaluations = rescoring.evaluate(archs)
        labels = np.array([rescoring.label(evaluation) for evaluation in evaluations])
        mean, std = (archive.column(name)[rows] for name in ("predicted", "predicted_std"))
        archive.set_labels(rows, labels, rescoring.blend(mean, std, labels))

    def _refit(self, rescoring: Rescoring) -> None:
        """Learns from all evaluations, and predicts the whole archive again."""
        archive = self._archive
        rows = archive.evaluated
        labels = archive.column("label")[rows]
        self._predict = rescoring.refit(archive.column("codes")[rows], labels)
        mean, std = self._predictions(archive.column("codes"))
        score = mean.copy()
        score[rows] = rescoring.blend(mean[rows], std[rows], labels)
        archive.set_predictions(mean, std, score)

    def _is_evaluated(self) -> NDArray[np.bool_]:
        return np.asarray(~np.isnan(self._archive.column("label")))

    # --- predictions --------------------------------------------------------------------------

    def _predictions(self, codes: Codes) -> tuple[FloatArray, FloatArray]:
        if self._predict is None:  # equal scores until there are predictions
            return np.zeros(len(codes)), np.zeros(len(codes))
        mean, std = self._predict(codes)
        finite = np.isfinite(mean) & np.isfinite(std)
        if not finite.all():
            raise UserError(
                "the predictor returned scores that are not finite",
                expected="finite means and standard deviations",
                found=f"{(~finite).sum()} of {len(mean)} archs with infinity or NaN",
                fix="fit the predictor again, with other settings of `predictor`",
            )
        return mean, std

    def _set_scale(self) -> None:
        """Sets the zero and unit of rewards: mean and spread of predictions of uniform archs."""
        mean, _ = self._predictions(
            self._space.sample(N_SCALE, rng=rng(self._seed, "search/scale"))
        )
        self._center, self._spread = float(mean.mean()), float(mean.std()) or 1.0
