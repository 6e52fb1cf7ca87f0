"""Predictions of a whole (sub)space as a lookup table (2004.08423).

With a table, a score needs neither predictor nor torch, but only one read. The table does not
depend on constraints or devices.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hwnas.core.errors import UserError
from hwnas.core.json_data import parse_json
from hwnas.core.progress import Progress
from hwnas.core.records import STRICT, load
from hwnas.core.store import write_bytes
from hwnas.core.tensor_file import in_order, read_arrays
from hwnas.interfaces import CostMetric, FloatArray
from hwnas.spaces.enumeration import rank, unrank
from hwnas.spaces.space import Codes, SearchSpace

__all__ = ["MAX_ARCHS", "ScoreTable", "Top", "load_table", "save_table", "table_of_space"]

MAX_ARCHS = 20_000_000  # two float32 per arch: 160 MB
CHUNK = 16_384
EACH = "the lowest costs, each minimised separately: "

Predict = Callable[[Codes], tuple[FloatArray, FloatArray]]
Costs = Mapping[str, FloatArray]


@dataclass(frozen=True)
class _Part:
    """The archs of a table: the allowed codes of each choice."""

    __pydantic_config__: ClassVar[Any] = STRICT

    allowed: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Top:
    """The best archs for a query, best first: codes [k, d], means [k], stds [k], costs [k] each.

    `n_feasible` of `n` archs meet the limits.
    """

    codes: Codes
    means: FloatArray
    stds: FloatArray
    costs: Costs
    n_feasible: int
    n: int


@dataclass(frozen=True)
class ScoreTable:
    """Mean and std of the predicted score of every arch of `space`, at its rank: float32 [size].

    source: description of the predictor.
    """

    space: SearchSpace
    means: NDArray[np.float32]
    stds: NDArray[np.float32]
    source: str

    def predict(self, codes: Codes) -> tuple[FloatArray, FloatArray]:
        """Mean [n] and std [n], as from `predict` of the predictor.

        Raises:
            UserError: an arch that is not in the table.
        """
        ranks = rank(self.space, codes)
        return self.means[ranks].astype(np.float64), self.stds[ranks].astype(np.float64)

    def best(
        self, metrics: Mapping[str, CostMetric], limits: Mapping[str, float], *, k: int
    ) -> Top:
        """The k archs with the highest mean that meet all limits.

        metrics, limits: by metric key. Checks every arch of the table. Costs of the result include
        all `metrics`.

        Raises:
            UserError: a limit on an unknown metric or below 0, or no arch meets all limits.
        """
        for key, most in limits.items():
            if not most >= 0:
                raise UserError(
                    f"not a limit on {key}", expected="a number that is at least 0", found=most
                )
        unknown = sorted(set(limits) - set(metrics))
        if unknown:
            raise UserError(
                f"a limit is on an unknown metric: {', '.join(unknown)}",
                expected=f"one of {', '.join(metrics)}",
            )
        size, n_feasible = len(self.means), 0
        best = np.empty(0, dtype=np.int64)
        lowest = dict.fromkeys(limits, np.inf)
        for start in range(0, size, CHUNK):
            ranks = np.arange(start, min(start + CHUNK, size))
            codes = unrank(self.space, ranks)
            keeps = np.ones(len(ranks), dtype=bool)
            for key, most in limits.items():
                cost = metrics[key](codes)
                lowest[key] = min(lowest[key], float(cost.min()))
                keeps &= cost <= most
            n_feasible += int(keeps.sum())
            both = np.concatenate([best, ranks[keeps]])
            best = both[np.argsort(-self.means[both], kind="stable")[:k]]
        if n_feasible == 0:
            raise UserError(
                "no arch of the table meets the limits",
                expected=", ".join(f"{key} <= {most:g}" for key, most in limits.items()),
                found=("the lowest is " if len(lowest) == 1 else EACH)
                + ", ".join(f"{key} {cost:.6g}" for key, cost in lowest.items()),
                fix="relax the limits, or export a table of a larger part of the space",
            )
        codes = unrank(self.space, best)
        costs = {key: metric(codes) for key, metric in metrics.items()}
        return Top(codes, *self.predict(codes), costs, n_feasible, size)


def table_of_space(
    predict: Predict, space: SearchSpace, *, source: str, progress: Progress
) -> ScoreTable:
    """Predicts every arch of `space`.

    Raises:
        UserError: the space has more than `MAX_ARCHS` archs.
    """
    size = space.size()
    if size > MAX_ARCHS:
        raise UserError(
            "the space has too many archs for a lookup table",
            expected=f"at most {MAX_ARCHS:,} archs",
            found=f"{size:,} archs" if size < 10**15 else f"{size:.2g} archs",
            where=space.id,
            fix="restrict the space with --restrict CHOICE=[VALUES] (may be repeated)",
        )
    means, stds = np.empty((2, size), dtype=np.float32)
    for start in range(0, size, CHUNK):
        part = slice(start, min(start + CHUNK, size))
        means[part], stds[part] = predict(unrank(space, np.arange(part.start, part.stop)))
        progress(part.stop, size)
    return ScoreTable(space, means, stds, source)


def save_table(path: Path, table: ScoreTable) -> None:
    """Writes a table with its codes, but without the definition of the space."""
    from safetensors.numpy import save

    about = {
        "schema_version": "1",
        "space": table.space.id,
        "allowed": json.dumps([list(codes) for codes in table.space.allowed]),
        "source": table.source,
    }
    arrays = {"mean": table.means, "std": table.stds}
    write_bytes(path, in_order(save(arrays, metadata=about)))


def load_table(path: Path, space: SearchSpace) -> ScoreTable:
    """Reads a table of a part of `space`.

    Raises:
        UserError: the file is missing, is not a table, is damaged, or belongs to another space.
    """
    arrays, about = _read(path)
    if about.get("schema_version") != "1" or set(arrays) != {"mean", "std"}:
        raise UserError("not a lookup table of scores", where=path, fix=_MAKE)
    if about.get("space") != space.id:
        found = about.get("space")
        raise UserError(
            "the lookup table belongs to another space",
            expected=f"scores of archs of {space.id}",
            found=f"scores of archs of {found}",
            where=path,
            fix=_MAKE,
        )
    codes = parse_json(about.get("allowed", ""), where=path, problem="the lookup table is damaged")
    known = load(_Part, {"allowed": codes}, where=path, versioned=False, what="restriction")
    allowed = known.allowed
    part = replace(space, allowed=allowed)
    if arrays["mean"].shape != (part.size(),) or arrays["std"].shape != (part.size(),):
        raise UserError(
            "the lookup table is damaged",
            expected=f"two arrays of shape [{part.size()}]",
            found=f"arrays of shape {list(arrays['mean'].shape)} and {list(arrays['std'].shape)}",
            where=path,
            fix=_MAKE,
        )
    return ScoreTable(part, arrays["mean"], arrays["std"], about.get("source", ""))


_MAKE = "make one with `hwnas predictor export-lut RUN`"


def _read(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    return read_arrays(path, "not a lookup table of scores", fix=_MAKE)
