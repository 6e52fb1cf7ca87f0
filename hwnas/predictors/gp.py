"""A Gaussian process with an RBF kernel on choices or operators, in closed form."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np

from hwnas.core.config import LATER, StrictModel
from hwnas.core.rng import rng
from hwnas.interfaces import AccuracyPredictor, FloatArray, PredictorContext
from hwnas.predictors.graph import operators
from hwnas.predictors.process import CHUNK, LENGTHS, MAX_TRIED, NOISES, squared_distances
from hwnas.predictors.tabular import Model, TabularPredictor, one_hot

__all__ = ["Config", "build"]

PRIOR_LENGTH, LENGTH_SPREAD = 1.0, 2.0
"""Mean and std of the normal prior on the log of `LENGTHS`."""
PRIOR_NOISE, NOISE_SPREAD = -3.0, 2.0
"""Mean and std of the normal prior on the log of `NOISES`.

If there are few labels, the two priors prevent extreme lengths and noises.
"""


class Config(StrictModel):
    """What the process knows about an arch: its choices or its operators, and its costs."""

    name: Literal["gp"] = "gp"
    features: Annotated[Literal["choices", "operators"], LATER] = "choices"
    """`choices`: one-hot choices; `operators`: properties of the operators that lie on a path
    from input to output, MACs, parameters and the shape of the graph."""
    has_costs: bool = False
    """Whether log MACs and log parameters are features of an arch, too."""


def build(config: Config, context: PredictorContext) -> AccuracyPredictor:
    """A Gaussian process for the space, not fitted yet. Time is cubic in the number of labels."""
    encode = operators if config.features == "operators" else one_hot
    return TabularPredictor(context, regress=_regress, has_costs=config.has_costs, encode=encode)


def _regress(features: FloatArray, targets: FloatArray) -> Model:
    """The process with the most probable length scale and noise, and its amplitude and mean.

    The mean is the generalised least-squares estimate (Rasmussen and Williams, "Gaussian Processes
    for Machine Learning", section 2.7).
    """
    length, noise = _most_probable(features, targets)
    n = len(targets)
    kernel = np.exp(-squared_distances(features, features) / length)
    inverted = np.linalg.inv(kernel + noise * np.eye(n))
    mean = float(inverted.sum(axis=0) @ targets / inverted.sum())
    weights = inverted @ (targets - mean)
    amplitude = float((targets - mean) @ weights / n)

    def model(new: FloatArray) -> tuple[FloatArray, FloatArray]:
        parts = []
        for start in range(0, len(new), CHUNK):
            near = np.exp(-squared_distances(new[start : start + CHUNK], features) / length)
            left = 1 + noise - ((near @ inverted) * near).sum(axis=1)
            std = np.sqrt(amplitude * np.maximum(left, 1e-12))
            parts.append(np.stack([mean + near @ weights, std]))
        found = np.concatenate(parts, axis=1)
        return found[0], found[1]

    return model


def _most_probable(features: FloatArray, targets: FloatArray) -> tuple[float, float]:
    """Squared length scale and relative noise with the largest posterior density on a grid.

    One eigendecomposition per length gives the likelihood of every noise. The amplitude is the
    maximum-likelihood estimate. With many labels, the grid is judged on some of them.
    """
    tried = rng(0, "gp").permutation(len(targets))[:MAX_TRIED]
    centred = targets[tried] - targets[tried].mean()
    distances = squared_distances(features[tried], features[tried])
    median = float(np.median(distances[np.triu_indices(len(tried), 1)])) or 1.0
    noises = np.array(NOISES)
    of_noise = ((np.log(noises) - PRIOR_NOISE) / NOISE_SPREAD) ** 2
    best = (np.inf, 1.0, 1.0)
    for factor in LENGTHS:
        values, vectors = np.linalg.eigh(np.exp(-distances / (factor * median)))
        total = np.maximum(values, 0)[:, None] + noises
        amplitude = np.maximum(((vectors.T @ centred) ** 2 / total.T).mean(axis=1), 1e-300)
        of_length = ((np.log(factor) - PRIOR_LENGTH) / LENGTH_SPREAD) ** 2
        fit = np.log(total).sum(axis=0) + len(tried) * np.log(amplitude)
        cost = fit + of_noise + of_length
        row = int(cost.argmin())
        best = min(best, (float(cost[row]), factor * median, float(noises[row])))
    return best[1], best[2]
