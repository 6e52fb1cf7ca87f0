"""Learns from several sources of labels: many cheap ones and few expensive ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwnas.interfaces import AccuracyPredictor, FloatArray, Proxy
from hwnas.predictors.blend import mix_weights
from hwnas.predictors.evaluate import cross_fitted
from hwnas.predictors.labels import (
    RobustScale,
    Scale,
    check_codes,
    check_labels,
    not_fitted,
    spread_factor,
)
from hwnas.spaces.space import Codes

__all__ = ["LabelSet", "TransferPredictor"]

BuildWith = Callable[[Sequence[Proxy]], AccuracyPredictor]
"""Builds an unfitted predictor with proxies as features."""


@dataclass(frozen=True)
class LabelSet:
    """Labels of one source: supernet scores, another data set, a shorter training.

    codes: [n, d].
    scores: [n], in any unit; higher is better.
    """

    source: str
    codes: Codes
    scores: FloatArray


@dataclass(frozen=True)
class _Mix:
    """Scale and weights [k + 1] of the predictions of k priors and the final predictor."""

    means: FloatArray
    stds: FloatArray
    weights: FloatArray
    gain: float
    offset: float
    std: float

    def scores(self, parts: FloatArray) -> FloatArray:
        """Scores [n] in the unit of the labels, from predictions [k + 1, n]."""
        standardised = (parts - self.means[:, None]) / self.stds[:, None]
        return self.offset + self.gain * (self.weights @ standardised)


class TransferPredictor:
    """An `AccuracyPredictor` that also learns from labels of other sources.

    First, one predictor is fitted per set of other labels, which averages out their noise. The
    final predictor learns the labels given to `fit`, with the predictions of these predictors as
    further features. All predictions are combined with weights fitted on held-out labels. Examples:
    the few-shot predictor of WPNAS (2203.02086) on supernet scores, or a warm start from another
    data set.

    Args:
        build: builds the predictors.
        others: the other labels.
        seed: determines the held-out labels.
    """

    def __init__(self, build: BuildWith, others: Sequence[LabelSet], *, seed: int) -> None:
        self._others, self._seed = tuple(others), seed
        self._priors = [build(()) for _ in others]
        self._scales = [RobustScale.of(labels.scores) for labels in others]
        proxies = [partial(self._prior, i) for i in range(len(others))]
        self._build_final = partial(build, proxies)
        self._final = self._build_final()
        self._mix: _Mix | None = None
        self.space = self._final.space
        self.n_labels: dict[str, int] = {}
        """Number of labels per source in the last fit; labels given to `fit` are "target"."""

    def fit(self, codes: Codes, scores: FloatArray) -> None:
        """Learns from the other labels, then from these; forgets earlier labels."""
        scores = check_labels(self.space, codes, scores)
        for prior, labels in zip(self._priors, self._others, strict=True):
            prior.fit(labels.codes, labels.scores)
        held_out = cross_fitted(self._build_final, codes, scores, seed=self._seed)
        parts = np.stack([*self._prior_predictions(codes), held_out])
        self._final.fit(codes, scores)
        self._mix = _mix(parts, scores)
        self.n_labels = {labels.source: len(labels.codes) for labels in self._others}
        self.n_labels["target"] = len(codes)

    def predict(self, codes: Codes) -> tuple[FloatArray, FloatArray]:
        """Mean [n] and std [n], in the unit of the labels of `fit`; the std is the same for all."""
        if self._mix is None:
            raise not_fitted()
        check_codes(self.space, codes)
        parts = np.stack([*self._prior_predictions(codes), self._final.predict(codes)[0]])
        return self._mix.scores(parts), np.full(len(codes), self._mix.std)

    def state(self) -> dict[str, NDArray[Any]]:
        """States of all predictors, as `final.*` and `prior0.*`, ..., and their weights."""
        if self._mix is None:
            raise not_fitted()
        mix = self._mix
        state = {"mix": np.stack([mix.means, mix.stds, mix.weights])}
        state["unit"] = np.array([mix.gain, mix.offset, mix.std])
        for name, part in self._named():
            state |= {f"{name}.{key}": array for key, array in part.state().items()}
        return state

    def load_state(self, state: dict[str, NDArray[Any]]) -> None:
        """Inverse of `state` on a predictor with the same number of other label sets.

        Raises:
            UserError: the state belongs to another kind of predictor.
        """
        for name, part in self._named():
            start = f"{name}."
            part.load_state({k[len(start) :]: a for k, a in state.items() if k.startswith(start)})
        means, stds, weights = state["mix"].astype(np.float64)
        self._mix = _Mix(means, stds, weights, *state["unit"].tolist())

    def _named(self) -> list[tuple[str, AccuracyPredictor]]:
        priors = [(f"prior{i}", prior) for i, prior in enumerate(self._priors)]
        return [*priors, ("final", self._final)]

    def _prior(self, i: int, codes: Codes) -> FloatArray:
        """Standardised predictions [n] of the predictor for other labels number i."""
        return np.asarray(self._scales[i].standardise(self._priors[i].predict(codes)[0]))

    def _prior_predictions(self, codes: Codes) -> list[FloatArray]:
        return [self._prior(i, codes) for i in range(len(self._priors))]


def _mix(parts: FloatArray, scores: FloatArray) -> _Mix:
    """Scale and weights from held-out predictions [k + 1, n] and true scores [n]."""
    scales = [Scale.of(part) for part in parts]
    means = np.array([scale.mean for scale in scales])
    stds = np.array([scale.std or 1.0 for scale in scales])
    weights = mix_weights(list(parts), scores)
    mixed = _Mix(means, stds, weights, 1.0, 0.0, 0.0).scores(parts)
    scale, target = Scale.of(mixed), Scale.of(scores)
    gain = float(np.mean(scale.standardise(mixed) * (scores - target.mean))) / (scale.std or 1.0)
    offset = target.mean - gain * scale.mean
    std = spread_factor(offset + gain * mixed - scores, np.ones(len(scores)))
    return _Mix(means, stds, weights, gain, offset, std)
