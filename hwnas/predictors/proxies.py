"""Zero-cost scores of archs as features: a column of a file as an `interfaces.Proxy`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hwnas.core.errors import UserError
from hwnas.interfaces import FloatArray, Proxy
from hwnas.predictors.labels import Scale
from hwnas.spaces.space import Codes, SearchSpace

__all__ = ["ListedProxy", "proxy_columns"]


class ListedProxy:
    """A proxy with values for listed archs only, standardised over these archs.

    Args:
        space: the space of the codes.
        codes: [n, d], distinct.
        values: [n], in any unit.
        name: for error messages.
    """

    def __init__(self, space: SearchSpace, codes: Codes, values: FloatArray, *, name: str) -> None:
        self._space, self._name = space, name
        keys = _keys(codes)
        order = np.argsort(keys)
        self._keys, self._values = keys[order], Scale.of(values).standardise(values)[order]

    def __call__(self, codes: Codes) -> FloatArray:
        """Values, float64 [n].

        Raises:
            UserError: an arch is not listed.
        """
        wanted = _keys(codes)
        at = np.minimum(np.searchsorted(self._keys, wanted), len(self._keys) - 1)
        missing = int((self._keys[at] != wanted).sum())
        if missing:
            raise UserError(
                f"some archs have no value of {self._name}",
                expected="a value for every arch",
                found=f"no value for {missing} of {len(codes)} archs",
                where=self._space.id,
            )
        return np.asarray(self._values[at], dtype=np.float64)


def _keys(codes: Codes) -> NDArray[np.void]:
    """One sortable value per row [n]; two are equal exactly if their rows are equal."""
    rows = np.ascontiguousarray(codes, dtype=np.int16)
    keys: NDArray[np.void] = rows.view(f"V{2 * rows.shape[1]}").ravel()
    return keys


def proxy_columns(proxies: Sequence[Proxy], codes: Codes) -> NDArray[np.float32]:
    """Unscaled values, float32 [n, len(proxies)]; proxies should have mean 0 and variance 1."""
    columns = np.empty((len(codes), len(proxies)), dtype=np.float32)
    for column, proxy in enumerate(proxies):
        columns[:, column] = proxy(codes)
    return columns
