"""A Gaussian process in closed form: the smooth half of the graph predictor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hwnas.core.rng import rng
from hwnas.interfaces import FloatArray

__all__ = ["Process", "fit_process", "forecast"]

LENGTHS = tuple(float(factor) for factor in 2.0 ** np.arange(-2, 8))
"""Squared length scales that are tried, in median squared distances of the training points."""
NOISES = tuple(float(ratio) for ratio in 10.0 ** np.arange(-6, 1.01, 0.5))
"""Noise variances that are tried, in signal variances."""
MAX_TRIED = 512  # points that decide length and noise; the rest only join the final solve
CHUNK = 2048


@dataclass(frozen=True)
class Process:
    """Kernel exp(-|x - y|^2 / length) around a constant mean.

    points: [n, f]; weights: [n], of each point's kernel.
    """

    points: FloatArray
    weights: FloatArray
    length: float
    mean: float


def fit_process(
    features: FloatArray, targets: FloatArray, *, seed: int
) -> tuple[Process, FloatArray]:
    """A process fitted to `targets` [n], and what it says of each point when left out: [n].

    Length and noise minimise the leave-one-out error, which is known without refitting: residuals
    are (K + s I)^-1 y over the diagonal of (K + s I)^-1 (Rasmussen and Williams, "Gaussian
    Processes for Machine Learning", section 5.4.2).
    """
    mean = float(targets.mean())
    y = targets - mean
    tried = rng(seed, "predictor/process").permutation(len(y))[:MAX_TRIED]
    distances = _squared_distances(features[tried], features[tried])
    median = float(np.median(distances[np.triu_indices(len(tried), 1)])) or 1.0
    best = (np.inf, 1.0, 1.0)
    for factor in LENGTHS:
        values, vectors = np.linalg.eigh(np.exp(-distances / (factor * median)))
        values = np.maximum(values, 0)
        projected = vectors.T @ y[tried]
        for noise in NOISES:
            inverse = 1 / (values + noise)
            residuals = (vectors @ (inverse * projected)) / (vectors**2 @ inverse)
            best = min(best, (float((residuals**2).mean()), factor * median, noise))
    _, length, noise = best
    kernel = np.exp(-_squared_distances(features, features) / length)
    kernel[np.diag_indices(len(y))] += noise
    inverted = np.linalg.inv(kernel)
    weights = inverted @ y
    left_out = targets - weights / np.diagonal(inverted)
    return Process(features, weights, length, mean), left_out


def forecast(process: Process, features: FloatArray) -> FloatArray:
    """Mean [n] of the process at `features` [n, f]."""
    parts = [
        process.mean
        + np.exp(-_squared_distances(features[i : i + CHUNK], process.points) / process.length)
        @ process.weights
        for i in range(0, len(features), CHUNK)
    ]
    return np.concatenate(parts) if parts else np.zeros(0)


def _squared_distances(first: FloatArray, second: FloatArray) -> FloatArray:
    """[n, m]."""
    norms = (first**2).sum(axis=1)[:, None] + (second**2).sum(axis=1)
    squared: FloatArray = np.maximum(norms - 2 * first @ second.T, 0)
    return squared
