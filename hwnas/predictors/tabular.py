"""Base of predictors that regress on a fixed feature vector per arch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwnas.interfaces import FloatArray, PredictorContext
from hwnas.predictors.labels import Scale, check_codes, check_labels, not_fitted, whole
from hwnas.predictors.proxies import proxy_columns
from hwnas.spaces.cost import AnalyticMetric, cost
from hwnas.spaces.space import Codes, SearchSpace

__all__ = ["Encode", "Model", "Regress", "TabularPredictor", "one_hot"]

Model = Callable[[FloatArray], tuple[FloatArray, FloatArray]]
"""Maps features [n, f] to mean [n] and std [n] of standardised scores."""

Encode = Callable[[SearchSpace, Codes], FloatArray]
"""Maps a space without restrictions and codes [n, d] to features [n, f]."""

Regress = Callable[[FloatArray, FloatArray], Model]
"""Fits a `Model` to features [n, f] and standardised scores [n]; deterministic."""

COSTS: tuple[AnalyticMetric, ...] = ("macs", "params")


def one_hot(space: SearchSpace, codes: Codes) -> FloatArray:
    """One-hot choices, [n, f]; a choice that an arch does not use is 0."""
    return space.encode(codes).astype(np.float64)


class TabularPredictor:
    """An `AccuracyPredictor` around a regression.

    Its state is the training set, because these regressions fit as fast as a file is read.
    """

    def __init__(
        self,
        context: PredictorContext,
        *,
        regress: Regress,
        has_costs: bool,
        encode: Encode = one_hot,
    ) -> None:
        self.space, self._proxies = context.space, context.proxies
        self._regress, self._encode, self._has_costs = regress, encode, has_costs
        self._model: Model | None = None
        self._scale = Scale(0.0, 0.0)
        self._labels: dict[str, NDArray[Any]] = {}

    def fit(self, codes: Codes, scores: FloatArray) -> None:
        """Learns from n >= 4 labels; forgets earlier labels."""
        scores = check_labels(self.space, codes, scores)
        self._scale = Scale.of(scores)
        self._model = self._regress(self._features(codes), self._scale.standardise(scores))
        self._labels = {"codes": codes.copy(), "scores": scores.copy()}

    def predict(self, codes: Codes) -> tuple[FloatArray, FloatArray]:
        """Mean [n] and std [n] in the unit of the labels."""
        if self._model is None:
            raise not_fitted()
        check_codes(self.space, codes)
        if len(codes) == 0:  # scikit-learn refuses empty input
            return np.zeros(0), np.zeros(0)
        mean, std = self._model(self._features(codes))
        return self._scale.restore(mean), self._scale.std * std

    def state(self) -> dict[str, NDArray[Any]]:
        """The training set: `codes` [n, d] and `scores` [n]."""
        if self._model is None:
            raise not_fitted()
        return dict(self._labels)

    def load_state(self, state: dict[str, NDArray[Any]]) -> None:
        """Inverse of `state`; repeats the fit."""
        self.fit(state["codes"], state["scores"])

    def _features(self, codes: Codes) -> FloatArray:
        """Features [n, f]: those of `encode`, log of cost / cost of the largest arch, proxies."""
        everything = whole(self.space)
        columns = [self._encode(everything, codes)]
        if self._has_costs:
            largest = self.space.codes([everything.largest()])
            for metric in COSTS:
                ratio = cost(everything, codes, metric) / cost(everything, largest, metric)
                columns.append(np.log(ratio)[:, None])
        columns.append(proxy_columns(self._proxies, codes).astype(np.float64))
        return np.hstack(columns)
