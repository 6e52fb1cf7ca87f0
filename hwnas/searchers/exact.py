"""The true optimum of an additive score under one constraint, by dynamic programming.

If score and cost are additive, no other searcher can find a better arch. Examples are a linear
predictor with a latency table, and a sum of published block scores. The searcher learns the terms
of the sums from archs that differ in one block each, and checks additivity on further archs. Then
it merges the Pareto fronts of the blocks, because a dominated part never belongs to an optimal
whole.
"""

from __future__ import annotations

from itertools import product
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from hwnas.core.config import StrictModel
from hwnas.core.errors import UserError
from hwnas.core.pareto import non_dominated
from hwnas.core.rng import rng
from hwnas.interfaces import FloatArray, SearcherContext
from hwnas.spaces.space import Codes, SearchSpace

__all__ = ["Config", "Exact", "build"]

EXEMPT = {"beats_random": "it proposes good archs only after its last probe; see tests/unit"}

TOLERANCE = 1e-6  # relative to the spread of the rewards
CONTEXT_ROLES = ("resolution", "width")  # these choices interact with all others
MAX_CONSTRAINTS = 1
NEEDS_SUMS = True


class Config(StrictModel):
    """Settings. Each combination of resolution and widths is a context, with sums of its own."""

    name: Literal["exact"] = "exact"
    max_contexts: Annotated[int, Field(ge=1, le=100_000)] = 1024
    """Largest number of combinations of resolution and widths; each is searched separately. A space
    with more is refused.
    """
    n_checks: Annotated[
        int,
        Field(
            ge=1,
            le=10_000,
            description="Number of random archs per combination of resolution and widths that"
            " check whether the score is a sum over blocks.",
        ),
    ] = 8


def build(config: Config, context: SearcherContext) -> Exact:
    """A dynamic program over the space.

    Raises:
        UserError: too many combinations of resolutions and widths.
    """
    return Exact(config, context.space, context.seed)


class Exact:
    """The exact searcher for additive scores.

    Its state is the current context, the results of its probes, and the front found so far.
    """

    def __init__(self, config: Config, space: SearchSpace, seed: int) -> None:
        self._config, self._space, self._seed = config, space, seed
        outer = [c for c, choice in enumerate(space.choices) if choice.role in CONTEXT_ROLES]
        grid = list(product(*(space.allowed[column] for column in outer)))
        if len(grid) > config.max_contexts:
            raise UserError(
                "too many combinations of resolutions and widths for the exact searcher",
                expected=f"at most {config.max_contexts} combinations (max_contexts)",
                found=f"{len(grid)} combinations",
                where=space.id,
                fix="restrict the space, for example to one resolution",
            )
        order = rng(seed, "search/exact").permutation(len(grid))
        self._outer, self._contexts = outer, [grid[i] for i in order]
        self._roots = _roots(space, outer)
        self._context = self._n_asked = self._n_proposed = 0
        self._told: list[list[float]] = []
        self._front, self._points = space.codes([]), np.empty((0, 1))

    def ask(self, n: int) -> Codes:
        """Proposes the probes of the current context; after all contexts, the front, winner first.

        Probes are archs whose results determine the terms of the sums, or check additivity.
        """
        if self._context < len(self._contexts):
            probes = self._probes()
            codes = probes[self._n_asked : self._n_asked + n]
            self._n_asked += len(codes)
            return codes
        order = np.lexsort((self._points[:, 0], (self._points[:, 1:] > 1).any(axis=1)))
        codes = self._front[order][self._n_proposed : self._n_proposed + n]
        self._n_proposed += len(codes)
        return codes

    def tell(self, codes: Codes, rewards: FloatArray, objectives: FloatArray | None = None) -> None:
        """Stores results of probes; after the last one, merges the context's front into the front.

        Raises:
            UserError: the score or the cost is not additive, or there are several constraints.
        """
        if self._context == len(self._contexts):
            return
        points = -rewards[:, None] if objectives is None else objectives
        if points.shape[1] > 2:
            raise UserError(
                "the exact searcher supports only one constraint",
                expected="at most 1 constraint",
                found=f"{points.shape[1] - 1} constraints",
                where="search.constraints",
            )
        self._told += points.tolist()
        probes = self._probes()
        if len(self._told) == len(probes):
            front, values = self._solve(probes, np.array(self._told))
            both = np.concatenate([self._front, front])
            known = self._points if len(self._points) else values[:0]
            merged = np.concatenate([known, values])
            kept = _front(merged)
            self._front, self._points = both[kept], merged[kept]
            self._context, self._told, self._n_asked = self._context + 1, [], 0

    def _probes(self) -> Codes:
        """The base arch, all other codes of every root and of every block, and the checks."""
        base = np.array([codes[0] for codes in self._space.allowed], dtype=np.int16)
        base[self._outer] = self._contexts[self._context]
        for root, _ in self._roots:
            base[root] = self._space.allowed[root][-1]  # all choices below it are active
        rows = [base]
        for root, blocks in self._roots:
            for columns, combinations in [
                ([root], [[c] for c in self._space.allowed[root]]),
                *blocks,
            ]:
                for combination in combinations:
                    rows.append(base.copy())
                    rows[-1][columns] = combination
        stream = rng(self._seed, "search/exact/check", self._context)
        checks = self._space.sample(self._config.n_checks, rng=stream)
        checks[:, self._outer] = self._contexts[self._context]
        return self._space.normalise(np.concatenate([np.stack(rows), checks]))

    def _solve(self, probes: Codes, told: FloatArray) -> tuple[Codes, FloatArray]:
        """Front [m, d] of the context, and its points [m, 1 + k]."""
        base, terms = told[0], told - told[0]
        empty = np.zeros((1, len(self._space.choices)), dtype=np.int16)
        empty[0, self._outer] = self._contexts[self._context]
        total: _Part = (empty, base[None])
        model = np.repeat(base[None], self._config.n_checks, axis=0)
        checks, used = probes[-self._config.n_checks :], 1
        for root, blocks in self._roots:
            codes = self._space.allowed[root]
            of_root, used = terms[used : used + len(codes)], used + len(codes)
            options: list[tuple[list[int], _Part]] = []
            for columns, combinations in blocks:
                of_block, used = terms[used : used + len(combinations)], used + len(combinations)
                chosen = np.zeros((len(combinations), empty.shape[1]), dtype=np.int16)
                chosen[:, columns] = combinations
                options.append((columns, (chosen, of_block)))
            parts: list[_Part] = []
            for code, term in zip(codes, of_root, strict=True):
                one = np.zeros_like(empty)
                one[0, root] = code
                part: _Part = (one, term[None])
                for columns, option in options:
                    if code in self._space.choices[columns[0]].parent_codes:
                        part = _merge(part, option)
                parts.append(part)
            total = _merge(total, _union(parts))
            model += _evaluate(checks, root, codes, of_root, options, self._space)
        errors = np.abs(model - told[-self._config.n_checks :])
        if (errors > TOLERANCE * np.maximum(np.ptp(told, axis=0), 1e-12)).any():
            raise UserError(
                "the exact searcher needs a score and a cost that are sums over blocks",
                expected="scores and costs that equal the sums over blocks, as those of a linear"
                " predictor do (`ridge` with has_costs: false)",
                found=f"scores or costs that differ from the sums by up to {errors.max():.3g}",
                where=self._space.id,
                fix="search with `evolution` or `policy_gradient`",
            )
        return total

    def state(self) -> dict[str, Any]:
        """Context, results of its probes, and the front."""
        return {
            "context": self._context,
            "n_asked": self._n_asked,
            "n_proposed": self._n_proposed,
            "told": self._told,
            "front": self._front.tolist(),
            "points": self._points.tolist(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Inverse of `state`."""
        self._context, self._told = state["context"], list(state["told"])
        self._n_asked, self._n_proposed = state["n_asked"], state["n_proposed"]
        front = np.array(state["front"], dtype=np.int16)
        self._front = front.reshape(-1, len(self._space.choices))
        self._points = np.array(state["points"]).reshape(len(front), -1 if len(front) else 1)


_Part = tuple[Codes, FloatArray]
"""Codes of some columns (others are 0), and their contributions to the objectives."""

_Block = tuple[list[int], list[list[int]]]
"""Columns that are chosen together, and all combinations of their allowed codes."""


def _roots(space: SearchSpace, outer: list[int]) -> list[tuple[int, list[_Block]]]:
    """Every free choice outside the context, with the blocks below it."""
    blocks: dict[tuple[int, str], list[int]] = {}
    for column, choice in enumerate(space.choices):
        if choice.parent is not None and set(choice.parent_codes) & set(
            space.allowed[choice.parent]
        ):
            blocks.setdefault((choice.parent, choice.name.rsplit(".", 1)[0]), []).append(column)
    roots = [
        c for c, choice in enumerate(space.choices) if choice.parent is None and c not in outer
    ]
    return [
        (
            root,
            [
                (columns, [list(codes) for codes in product(*(space.allowed[c] for c in columns))])
                for (parent, _), columns in blocks.items()
                if parent == root
            ],
        )
        for root in roots
    ]


def _front(points: FloatArray) -> np.ndarray[Any, np.dtype[np.intp]]:
    """Rows of the front, without duplicates."""
    kept = np.flatnonzero(non_dominated(points))
    return kept[np.unique(points[kept], axis=0, return_index=True)[1]]


def _merge(first: _Part, second: _Part) -> _Part:
    """All non-dominated sums of two parts."""
    points = first[1][:, None] + second[1][None]
    kept = _front(points.reshape(-1, points.shape[2]))
    rows, columns = np.divmod(kept, len(second[0]))
    return first[0][rows] + second[0][columns], points[rows, columns]


def _union(parts: list[_Part]) -> _Part:
    codes = np.concatenate([codes for codes, _ in parts])
    points = np.concatenate([points for _, points in parts])
    kept = _front(points)
    return codes[kept], points[kept]


def _evaluate(
    checks: Codes,
    root: int,
    codes: tuple[int, ...],
    of_root: FloatArray,
    options: list[tuple[list[int], _Part]],
    space: SearchSpace,
) -> FloatArray:
    """Contribution of one root and the blocks below it to the objectives of the checks."""
    total = of_root[[codes.index(code) for code in checks[:, root]]]
    active = space.active(checks)
    for columns, (combinations, values) in options:
        same = (checks[:, None, columns] == combinations[None][:, :, columns]).all(axis=2)
        total = total + np.where(active[:, columns[:1]], values[same.argmax(axis=1)], 0.0)
    return total
