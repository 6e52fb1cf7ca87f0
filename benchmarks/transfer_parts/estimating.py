"""Estimates a column from few timings and known columns; what every part of the benchmark uses."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hwnas.core.rng import rng
from hwnas.core.stats import spearman
from hwnas.interfaces import FloatArray
from hwnas.latency.smoothing import smooth_additively
from hwnas.latency.transfer import (
    DeviceEstimate,
    DevicePrior,
    choose_networks,
    device_prior,
    fit_device,
    operator_similarity,
)
from hwnas.measure.published.networks import Measurements, group_of
from hwnas.spaces.index import enumerate_ops, op_counts

__all__ = ["Columns", "Estimated", "best_source"]

POOL = 600  # random candidates, of which the prior chooses those to time


@dataclass(frozen=True)
class Estimated:
    """A forecast for all networks, and the positions of those that were timed."""

    forecast: DeviceEstimate
    timed: NDArray[np.int64]


@dataclass(frozen=True)
class Columns:
    """A data set with what the estimates need of its space."""

    data: Measurements

    @cached_property
    def counts(self) -> FloatArray:
        """[n, p] of operators that are executed."""
        return op_counts(self.data.space, self.data.live_codes)

    @cached_property
    def related(self) -> FloatArray:
        """[p, p]."""
        return operator_similarity(enumerate_ops(self.data.space))

    @cached_property
    def choices(self) -> FloatArray:
        """[n, c], one-hot, without constant columns."""
        found = self.data.space.encode(self.data.codes).astype(np.float64)
        return found[:, found.std(axis=0) > 0]

    def sources(
        self, names: tuple[str, ...], timed: NDArray[np.int64] | None, *, smooth: bool
    ) -> FloatArray:
        """[n, d]: latencies of known devices; where none was timed, those of an additive model.

        smooth: the additive model everywhere.
        """
        raw = np.stack([self.data.column(name) for name in names], axis=1)
        if not smooth and timed is None:
            return raw
        found = smooth_additively(self.choices, raw, timed)
        if not smooth and timed is not None:
            found[timed] = raw[timed]
        return found

    def prior(self, names: tuple[str, ...], known_ms: FloatArray) -> DevicePrior:
        """The prior from these sources; batch sizes of one machine share a vote."""
        return device_prior(self.counts, known_ms, [group_of(c) for c in names], self.related)

    def estimate(
        self, prior: DevicePrior, target: str, n: int, seed: int, *, pool: int = POOL
    ) -> Estimated:
        """From n timings of a target, chosen by the prior alone from a random pool."""
        truth = self.data.column(target)
        candidates = rng(seed, "transfer/pool", target).choice(
            len(truth), min(pool, len(truth)), replace=False
        )
        timed = choose_networks(prior, n, candidates)
        return Estimated(fit_device(prior, timed, truth[timed]), timed)

    def only(self, columns: tuple[str, ...]) -> Columns:
        """The data set with some of its columns."""
        at = [self.data.columns.index(name) for name in columns]
        return Columns(replace(self.data, columns=columns, latency_ms=self.data.latency_ms[:, at]))


def best_source(known_ms: FloatArray, timed: NDArray[np.int64], measured: FloatArray) -> FloatArray:
    """[n]: the known column that ranks the timed networks most like the target."""
    agreement = [spearman(ms[timed], measured) for ms in known_ms.T]
    return known_ms[:, int(np.argmax(agreement))]
