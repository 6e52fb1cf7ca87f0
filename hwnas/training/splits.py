"""How many images of a class go into each split. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["cuts", "split_sizes"]


def cuts(n: int, fractions: Sequence[float]) -> NDArray[np.int64]:
    """Where n shuffled images of a class are cut: at their rounded cumulative fractions."""
    found: NDArray[np.int64] = np.rint(np.cumsum(fractions) * n).astype(np.int64)
    return found


def split_sizes(counts: Iterable[int], fractions: Sequence[float]) -> list[int]:
    """Sizes of the len(fractions) + 1 parts that classes of `counts` images are cut into."""
    per_class = [np.diff([0, *cuts(n, fractions), n]) for n in counts]
    return [int(total) for total in np.sum(per_class, axis=0)]
