"""Contract tests of acquisitions: `interfaces.Acquisition`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hwnas.core.rng import rng
from hwnas.interfaces import Acquisition, AcquisitionModule, Prospects
from hwnas.testing.suite import Suite

__all__ = ["AcquisitionSuite", "prospects"]


def prospects(n: int = 40, m: int = 12, seed: int = 0) -> Prospects:
    """Random prospects: n predicted archs and m evaluated ones, with costs between 1 and 2."""
    stream = rng(seed, "test/prospects")
    return Prospects(
        mean=stream.normal(size=n),
        std=stream.uniform(0.1, 1.0, size=n),
        cost=stream.uniform(1, 2, size=n),
        known=stream.normal(size=m),
        known_cost=stream.uniform(1, 2, size=m),
        stream=rng(seed, "test/acquisition"),
    )


class AcquisitionSuite(Suite):
    """Contract of an acquisition."""

    CONTRACT = AcquisitionModule

    def _build(self, variant: Any, config: Any) -> Acquisition:
        acquisition: Acquisition = variant.build(config)
        return acquisition

    @pytest.mark.parametrize(("n", "m"), [(40, 12), (1, 1), (2, 1), (1, 30)])
    def test_values_are_finite_and_reproducible(
        self, variant: Any, config: Any, n: int, m: int
    ) -> None:
        """Values are finite float64 [n]; equal prospects give equal values, and do not change."""
        given, untouched = prospects(n, m), prospects(n, m)
        values = self._build(variant, config)(given)
        assert values.shape == (n,) and values.dtype == np.float64
        assert np.isfinite(values).all()
        assert np.array_equal(self._build(variant, config)(prospects(n, m)), values)
        for name in ("mean", "std", "cost", "known", "known_cost"):
            assert np.array_equal(getattr(given, name), getattr(untouched, name))

    def test_certain_predictions_are_followed(self, variant: Any, config: Any) -> None:
        """With equal costs and no uncertainty, the arch with the best prediction is chosen."""
        given = replace(prospects(), std=np.zeros(40), cost=np.ones(40))
        given = replace(given, known=np.minimum(given.known, given.mean.max() - 0.1))
        values = self._build(variant, config)(given)
        assert values.argmax() == given.mean.argmax()

    def test_constant_scores_are_no_error(self, variant: Any, config: Any) -> None:
        """Before anything is learned, all scores and costs can be equal."""
        given = Prospects(
            mean=np.full(5, 0.5),
            std=np.zeros(5),
            cost=np.ones(5),
            known=np.full(3, 0.5),
            known_cost=np.ones(3),
            stream=rng(0, "test/acquisition"),
        )
        assert np.isfinite(self._build(variant, config)(given)).all()
