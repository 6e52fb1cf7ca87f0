"""Records of the networks that a search has trained: their roles, and stand-alone accuracies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from hwnas.controller.result import Candidate
from hwnas.core.records import STRICT, Share
from hwnas.interfaces import Evaluation
from hwnas.spaces.arch import Arch

__all__ = ["Roles", "Standalone"]


@dataclass(frozen=True)
class Roles:
    """Maps each role (`winner`, `largest`, ...) to its arch."""

    __pydantic_config__: ClassVar[Any] = STRICT

    networks: dict[str, Arch]


@dataclass(frozen=True)
class Standalone:
    """One arch that was trained stand-alone, and its score in the search.

    All top-1 accuracies are on the same validation images.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    candidate: Candidate
    supernet_top1: Share
    trained: Evaluation

    def summary(self) -> dict[str, Any]:
        """A row of the result table."""
        return {
            "network": "trained stand-alone",
            "arch": self.candidate.arch.key,
            "predicted score": round(self.candidate.predicted, 4),
            "supernet top1": round(self.supernet_top1, 4),
            "trained top1": round(self.trained.top1, 4),
        }
