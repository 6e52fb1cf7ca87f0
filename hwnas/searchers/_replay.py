"""Resumes optimisers without a storable state by replaying their asks and tells."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Protocol

import numpy as np
from pydantic import Field

from hwnas.core.config import StrictModel
from hwnas.interfaces import FloatArray
from hwnas.spaces.space import Codes

__all__ = ["EXEMPT", "ForeignConfig", "Optimiser", "Replayed"]

EXEMPT = dict.fromkeys(
    ("beats_random", "finds_the_best"), "the algorithm comes from another library"
)


class ForeignConfig(StrictModel):
    """Settings of an external optimiser: the objective, and its number of constrained costs."""

    objective: Literal["reward", "front"] = "reward"
    """What is optimised. `reward`: only the reward; `front`: the front of score and constrained
    costs.
    """
    n_constraints: Annotated[
        int,
        Field(
            ge=1, le=16, description="Number of constrained costs; only for the objective `front`."
        ),
    ] = 1


class Optimiser(Protocol):
    """An external optimiser in its initial state, deterministic in its seed."""

    def ask(self, n: int) -> Codes:
        """Proposes up to n archs."""
        ...

    def tell(self, objectives: FloatArray) -> None:
        """Learns from the objectives [n, m] of the archs of the last `ask`, to be minimised."""
        ...


class Replayed:
    """A `Searcher` around an optimiser. State: sizes of past asks and all results.

    `is_front`: whether it minimises all objectives; otherwise only the reward counts.
    """

    def __init__(self, optimiser: Optimiser, *, is_front: bool) -> None:
        self._optimiser, self._is_front = optimiser, is_front
        self._asked: list[int] = []
        self._told: list[list[list[float]]] = []

    def ask(self, n: int) -> Codes:
        """Proposes up to n archs of the optimiser."""
        self._asked.append(n)
        return self._optimiser.ask(n)

    def tell(self, codes: Codes, rewards: FloatArray, objectives: FloatArray | None = None) -> None:
        """Passes the objectives (with `is_front`) or the negative rewards to the optimiser."""
        points = objectives if self._is_front and objectives is not None else -rewards[:, None]
        self._told.append(points.tolist())
        self._optimiser.tell(points)

    def state(self) -> dict[str, Any]:
        """All past asks and results."""
        return {"asked": list(self._asked), "told": list(self._told)}

    def load_state(self, state: dict[str, Any]) -> None:
        """Inverse of `state` on a new searcher; repeats all past asks and results."""
        for n, points in zip(state["asked"], state["told"], strict=True):
            self._asked.append(n)
            self._optimiser.ask(n)
            self._told.append(points)
            self._optimiser.tell(np.array(points))
