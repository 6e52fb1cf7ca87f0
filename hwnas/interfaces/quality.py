"""How good networks are: top-1 of image classifiers, perplexity of language models."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from hwnas.core.stats import accuracy_text
from hwnas.spaces.space import SearchSpace

__all__ = ["PERPLEXITY", "TOP1", "Quality", "quality_of"]

MOST_NATS = 700.0  # exp() of more is infinite
FULL_DIGITS = 1e5  # larger perplexities are those of networks that diverged


@dataclass(frozen=True)
class Quality:
    """A measure that is computed from the top-1 and the mean cross-entropy of a network.

    name: `top-1`, the share of right answers; or `perplexity`, the exponential of the mean
        cross-entropy per token.
    best: whether the highest or the lowest values are the best ones.
    """

    name: Literal["top-1", "perplexity"]
    best: Literal["highest", "lowest"]

    def of(self, top1: float, loss: float | None) -> float:
        """The top-1 or the perplexity, from a top-1 in [0, 1] and a cross-entropy in nats.

        NaN if the cross-entropy is needed, but unknown.
        """
        if self.name == "top-1":
            return top1
        return math.nan if loss is None else math.exp(min(loss, MOST_NATS))

    def rate(self, top1: float, loss: float | None) -> float:
        """A value in [0, 1] of which higher is better: the top-1, or 1 / perplexity.

        1 / perplexity is the geometric mean of the probabilities of the right tokens.
        """
        value = self.of(top1, loss)
        return value if self.best == "highest" else 1 / value

    def text(self, value: float | None, n: int | None = None) -> str | None:
        """Formats a value; the top-1 of n images with its standard error. None if unknown."""
        if self.name == "top-1":
            return accuracy_text(value, n)
        return None if value is None else self.short(value)

    def short(self, value: float) -> str:
        """Formats a value in a few characters, for progress messages."""
        if self.name == "top-1":
            return f"{value:.1%}"
        return f"{value:.1f}" if value < FULL_DIGITS else f"{value:.1e}"


TOP1 = Quality("top-1", "highest")
PERPLEXITY = Quality("perplexity", "lowest")


def quality_of(space: SearchSpace) -> Quality:
    """The measure for networks of a space."""
    return PERPLEXITY if space.macro.reads_tokens else TOP1
