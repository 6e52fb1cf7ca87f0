"""How well predictions find the best archs."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from hwnas.interfaces import FloatArray

__all__ = ["TopQuality", "top_quality"]

K = 10


@dataclass(frozen=True)
class TopQuality:
    """Quality at the top of n ranked archs; with fewer than ten archs, "10" means all of them.

    n_at_1, n_at_10: true rank of the best arch among the predicted top 1 and 10. Rank 1 is the best
    arch of all (N@k of Ning et al., "A Generic Graph-based Neural Architecture Encoding Scheme",
    2004.01899). precision_at_10: share of the predicted top 10 in the true top 10. regret: true
    best value minus the true value of the predicted best, in the unit of the truth.
    """

    n_at_1: int
    n_at_10: int
    precision_at_10: float
    regret: float

    def row(self) -> dict[str, float]:
        """The values by name."""
        return asdict(self)


def top_quality(predicted: FloatArray, truth: FloatArray) -> TopQuality:
    """Compares predictions [n] with the truth [n], n >= 1; higher is better in both.

    Equal predictions are ordered from worst to best truth, so that constant predictions do not get
    a good result by chance. All archs that tie with the tenth best truth count as top ten.
    """
    predicted, truth = np.asarray(predicted), np.asarray(truth)
    order = np.lexsort((truth, -predicted))[:K]
    tenth = np.sort(truth)[-min(K, len(truth))]
    return TopQuality(
        n_at_1=1 + int((truth > truth[order[0]]).sum()),
        n_at_10=1 + int((truth > truth[order].max()).sum()),
        precision_at_10=float((truth[order] >= tenth).mean()),
        regret=float(truth.max() - truth[order[0]]),
    )
