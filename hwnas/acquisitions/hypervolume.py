"""The largest expected growth of the hypervolume of score and cost: for whole fronts."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from hwnas.core.config import StrictModel
from hwnas.interfaces import Acquisition, FloatArray, Prospects

__all__ = ["Config", "build"]

TINY = 1e-12


class Config(StrictModel):
    """No parameters.

    Costs are known before an arch is evaluated, so the expectation has a closed form. The reference
    point is the smallest known score and the largest cost.
    """

    name: Literal["hypervolume"] = "hypervolume"


def build(config: Config) -> Acquisition:
    """The expected hypervolume improvement (Emmerich et al. 2006) for one uncertain objective."""
    return _growth


def _growth(prospects: Prospects) -> FloatArray:
    """Sum over steps of the known front of (width of the step) x (expected improvement over it).

    At each cost, the front is the best known score among archs of at most this cost. An arch of
    cost c improves every step to the right of c.
    """
    order = np.argsort(prospects.known_cost, kind="stable")
    start = prospects.known_cost[order]
    best = np.maximum.accumulate(prospects.known[order])
    floor = float(prospects.known.min())
    right = max(float(prospects.cost.max()), float(start[-1]))
    edges = np.concatenate([[-np.inf], start, [right]])
    levels = np.concatenate([[floor], best])
    std = np.maximum(prospects.std, TINY)
    total = np.zeros(len(prospects.mean))
    for left, end, level in zip(edges[:-1], edges[1:], levels, strict=True):
        width = np.maximum(end - np.maximum(prospects.cost, left), 0)
        if width.any():
            z = (prospects.mean - level) / std
            total += width * std * (z * _cdf(z) + _density(z))
    return total


def _density(z: FloatArray) -> FloatArray:
    return np.asarray(np.exp(-0.5 * np.minimum(z**2, 1400)) / math.sqrt(2 * math.pi))


def _cdf(z: FloatArray) -> FloatArray:
    """Standard normal distribution function; a relative error of 1e-4 suffices in the tails."""
    return np.array([0.5 * math.erfc(-x / math.sqrt(2)) for x in z.tolist()])
