"""Contract of acquisitions: which arch of a search is evaluated next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hwnas.core.registry import VariantModule

__all__ = ["Acquisition", "AcquisitionModule", "Prospects"]

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Prospects:
    """The n archs that may be evaluated next, and the m archs that were evaluated.

    All of them are feasible. Scores have the unit of the predictions; higher is better.

    mean: predicted scores, [n].
    std: standard deviations of the predictions, [n].
    cost: the first cost of the search (see `SearchConfig.constraints`), [n]; lower is better.
    known: scores of the evaluated archs, [m].
    known_cost: their costs, [m].
    stream: random numbers; they depend on the seed and on m.
    """

    mean: FloatArray
    std: FloatArray
    cost: FloatArray
    known: FloatArray
    known_cost: FloatArray
    stream: np.random.Generator


class Acquisition(Protocol):
    """The value of evaluating an arch."""

    def __call__(self, prospects: Prospects) -> FloatArray:
        """Values [n], finite; the archs with the largest values are evaluated."""
        ...


class AcquisitionModule(VariantModule, Protocol):
    """An acquisition."""

    def build(self, config: Any) -> Acquisition:
        """Builds the acquisition; it has no state."""
        ...
