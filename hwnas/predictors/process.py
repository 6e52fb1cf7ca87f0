"""Gaussian processes in closed form; the graph predictor averages them with its networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwnas.core.rng import rng
from hwnas.interfaces import FloatArray

__all__ = ["Process", "Processes", "fit_process", "fit_processes", "predict", "squared_distances"]

LENGTHS = tuple(float(factor) for factor in 2.0 ** np.arange(-2, 8))
"""Candidates for `Process.length`, relative to the median squared distance of training points."""
NOISES = tuple(float(ratio) for ratio in 10.0 ** np.arange(-6, 1.01, 0.5))
"""Candidates for the noise variance, relative to the signal variance."""
MAX_TRIED = 512  # points that determine length and noise; the others only join the final solve
CHUNK = 2048


@dataclass(frozen=True)
class Process:
    """Mean of a Gaussian process with kernel exp(-|x - y|^2 / length) and a constant prior mean.

    points: training points, [n, f].
    weights: weight of the kernel at each training point, [n].
    """

    points: FloatArray
    weights: FloatArray
    length: float
    mean: float


@dataclass(frozen=True)
class Processes:
    """The average of Gaussian processes on different features of the same archs.

    Tau of two processes and of their average, without the networks of the ensemble (seeds 100 to
    107). The features of the second process are operators and one-hot choices:

        labels                       operators   second   average
        50 of OFA                        0.907    0.906     0.910
        100 of OFA                       0.935    0.930     0.937
        540 of OFA                      0.9625   0.9637    0.9643
        100 of nasbench201               0.707    0.700     0.714
        100 of nas_bench_macro           0.868    0.855     0.864

    On nas_bench_macro, the networks have a larger weight than the processes.
    """

    parts: tuple[Process, ...]

    def predict(self, features: Sequence[FloatArray]) -> FloatArray:
        """Mean [n] over the processes, each at its own features [n, f]."""
        predictions = [predict(p, own) for p, own in zip(self.parts, features, strict=True)]
        mean: FloatArray = np.mean(predictions, axis=0)
        return mean

    def state(self) -> dict[str, NDArray[Any]]:
        """Everything that `load` needs."""
        arrays: dict[str, NDArray[Any]] = {}
        for i, part in enumerate(self.parts):
            arrays[f"process{i}.points"] = part.points.copy()
            arrays[f"process{i}.weights"] = part.weights.copy()
            arrays[f"process{i}.settings"] = np.array([part.length, part.mean])
        return arrays

    @staticmethod
    def load(state: Mapping[str, NDArray[Any]], n: int) -> Processes:
        """Inverse of `state`, for n processes.

        Raises:
            KeyError: the state has fewer processes.
        """
        return Processes(
            tuple(
                Process(
                    state[f"process{i}.points"].copy(),
                    state[f"process{i}.weights"].copy(),
                    *state[f"process{i}.settings"].tolist(),
                )
                for i in range(n)
            )
        )


def fit_processes(
    features: Sequence[FloatArray], targets: FloatArray, *, seed: int
) -> tuple[Processes, FloatArray]:
    """Fits one process per feature array; also returns their mean leave-one-out predictions [n]."""
    fits = [fit_process(own, targets, seed=seed) for own in features]
    left_out: FloatArray = np.mean([left_out for _, left_out in fits], axis=0)
    return Processes(tuple(process for process, _ in fits)), left_out


def fit_process(
    features: FloatArray, targets: FloatArray, *, seed: int
) -> tuple[Process, FloatArray]:
    """Fits a process to `targets` [n]; also returns the leave-one-out predictions [n].

    Length and noise minimise the leave-one-out error, which needs no further fits: residuals are (K
    + s I)^-1 y divided by the diagonal of (K + s I)^-1 (Rasmussen and Williams, "Gaussian Processes
    for Machine Learning", section 5.4.2).
    """
    mean = float(targets.mean())
    y = targets - mean
    tried = rng(seed, "predictor/process").permutation(len(y))[:MAX_TRIED]
    distances = squared_distances(features[tried], features[tried])
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
    kernel = np.exp(-squared_distances(features, features) / length)
    kernel[np.diag_indices(len(y))] += noise
    inverted = np.linalg.inv(kernel)
    weights = inverted @ y
    left_out = targets - weights / np.diagonal(inverted)
    return Process(features, weights, length, mean), left_out


def predict(process: Process, features: FloatArray) -> FloatArray:
    """Mean [n] of the process at `features` [n, f]."""
    parts = [
        process.mean
        + np.exp(-squared_distances(features[i : i + CHUNK], process.points) / process.length)
        @ process.weights
        for i in range(0, len(features), CHUNK)
    ]
    return np.concatenate(parts) if parts else np.zeros(0)


def squared_distances(first: FloatArray, second: FloatArray) -> FloatArray:
    """Squared distances [n, m] between points [n, f] and [m, f]."""
    norms = (first**2).sum(axis=1)[:, None] + (second**2).sum(axis=1)
    squared: FloatArray = np.maximum(norms - 2 * first @ second.T, 0)
    return squared
