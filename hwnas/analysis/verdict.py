"""Whether the winner of a search is better than its baselines beyond noise: sentence and data.

Three kinds of noise are counted:

- Images: the number of images is finite. Two networks are compared on the same images, so only
  images that exactly one of them classifies correctly count (McNemar 1947).
- Seeds: a network that is trained again classifies other images correctly. The comparison counts
  these images as noise already: between seeds, the accuracy on a fixed test set varies as much as
  its finite size predicts, and the accuracy on the distribution hardly varies (Jordan 2024,
  "Calibrated chaos", 2304.01910).
- Selection: the best of many networks by validation accuracy is overestimated by this accuracy
  (winner's curse).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from hwnas.core.records import STRICT, Count, NotNegative
from hwnas.core.rng import rng
from hwnas.interfaces import FloatArray, Split

__all__ = ["Gain", "Picked", "Sample", "Verdict", "gain", "gain_of_picks", "verdict_on"]

Hits = NDArray[np.bool_]

Z95 = 1.959964
"""Half-width of the 95 % interval of a normal distribution.

A true gain of 0, 1, 2, 3 standard errors is called "better" in 2, 17, 52, 85 % of cases.
"""

SEED_SHARE = 0.01
"""Standard deviation of the true error of a network over training seeds, relative to the error.

On NAS-Bench-Macro (3 seeds of 3,281 networks), accuracies vary by 0.18 to 0.40 points. The size of
the test set explains this, except for 0.8 % of the error (`tests/unit/test_verdict.py`).
"""

WORDS: dict[Split, str] = {"train": "training", "val": "validation", "test": "test"}

NORMAL_IQR = 1.349
N_RESAMPLES = 400
MOST = 1_000_000_000


@dataclass(frozen=True)
class Sample:
    """Accuracy of a network on `n` >= 1 images that were not used to select it.

    top1: in [0, 1].
    hits: bool [n], correctly classified images; None if not stored.
    """

    top1: float
    n: int
    hits: Hits | None = None


@dataclass(frozen=True)
class Picked:
    """The best of several networks by accuracy on `n` images, the only known accuracy of each.

    top1: in [0, 1].
    candidates: top-1 of all networks that it was selected from, including its own.
    hits: see `Sample`.
    """

    top1: float
    candidates: tuple[float, ...]
    n: int
    hits: Hits | None = None


@dataclass(frozen=True)
class Gain:
    """Estimated difference in true accuracy: the winner minus another network, as a fraction.

    over: name of the other network.
    image_error: standard error due to the finite number of images.
    seed_error: standard error due to a single training of each network.
    is_paired: whether the networks were compared image by image. Otherwise the error is that of
        independent images, which is larger.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    over: str
    gain: float
    image_error: NotNegative
    seed_error: NotNegative
    n_images: Count
    is_paired: bool

    @property
    def standard_error(self) -> float:
        """Standard error of the gain."""
        return math.hypot(self.image_error, self.seed_error)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % confidence interval."""
        half = Z95 * self.standard_error
        return self.gain - half, self.gain + half

    @property
    def state(self) -> Literal["better", "worse", "cannot tell"]:
        """Whether the interval is above zero, below zero, or contains it."""
        low, high = self.interval
        return "better" if low > 0 else "worse" if high < 0 else "cannot tell"

    @property
    def trainings_needed(self) -> int:
        """Number of trainings of each network, with different seeds, that can settle such a gain.

        1 if more images alone suffice.
        """
        bar = abs(self.gain) / Z95
        return max(1, math.ceil(min(MOST, 2 * (self.seed_error / bar) ** 2))) if bar else MOST

    @property
    def images_needed(self) -> int | None:
        """Number of images that can settle such a gain; None if it would take more than `MOST`.

        The number assumes `trainings_needed` trainings of each network.
        """
        seeds = self.seed_error**2 / self.trainings_needed
        room = (self.gain / Z95) ** 2 - seeds
        if room <= 0 or self.image_error**2 * self.n_images > room * MOST:
            return None
        return math.ceil(self.n_images * self.image_error**2 / room)

    def settled_by(self, split: Split) -> str:
        """The effort that would settle the comparison; empty if it is settled or unaffordable."""
        if self.state != "cannot tell" or self.images_needed is None:
            return ""
        again = self.trainings_needed
        seeds = f" and {again} trainings of each network" if again > 1 else ""
        return f"{_rounded(self.images_needed):,} labelled {WORDS[split]} images{seeds}"

    def summary(self) -> dict[str, Any]:
        """The gain as JSON values.

        Only if the verdict is `cannot tell`, they include `settled_by`: the numbers of images and
        of trainings that would settle it; None if no affordable number of images would.
        """
        low, high = self.interval
        found: dict[str, Any] = {
            "over": self.over,
            "verdict": self.state,
            "gain": round(self.gain, 5),
            "low": round(low, 5),
            "high": round(high, 5),
            "standard_error": round(self.standard_error, 5),
            "n_images": self.n_images,
            "is_paired": self.is_paired,
        }
        if self.state != "cannot tell":
            return found
        needed = {"images": self.images_needed, "trainings": self.trainings_needed}
        return found | {"settled_by": needed if self.images_needed else None}


@dataclass(frozen=True)
class Verdict:
    """Gains of the winner over its baselines, on the images of one split.

    accuracy: kind of the compared top-1, in words.
    same: baselines that are the same network as the winner.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    gains: tuple[Gain, ...]
    split: Split
    accuracy: str
    same: tuple[str, ...] = ()

    def __str__(self) -> str:
        """One sentence."""
        parts = [f"the winner is {name} itself" for name in self.same]
        parts += [_part(gain, self.split) for gain in self.gains]
        text = "; ".join(parts)
        text = text[0].upper() + text[1:]
        if not self.gains:
            return f"{text}."
        n = min(gain.n_images for gain in self.gains)
        paired = "image by image" if all(g.is_paired for g in self.gains) else "not image by image"
        of = f"{self.accuracy} on {n:,} {WORDS[self.split]} images, compared {paired}"
        return f"{text} (95 % intervals; {of})."

    def summary(self) -> dict[str, Any]:
        """The verdict as JSON values: its sentence, and the gains as fractions of the images."""
        return {
            "sentence": str(self),
            "split": self.split,
            "same": list(self.same),
            "gains": [gain.summary() for gain in self.gains],
        }


def verdict_on(
    gains: Sequence[Gain], *, split: Split, accuracy: str, same: Sequence[str] = ()
) -> Verdict | None:
    """The verdict; None if there is nothing to compare."""
    return Verdict(tuple(gains), split, accuracy, tuple(same)) if gains or same else None


def gain(winner: Sample, other: Sample, *, over: str) -> Gain:
    """Gain of the winner over another network; each was trained once."""
    seeds = SEED_SHARE * math.hypot(1 - winner.top1, 1 - other.top1)
    error, is_paired = _image_error(winner, other)
    n = min(winner.n, other.n)
    return Gain(over, winner.top1 - other.top1, error, seeds, n, is_paired)


def gain_of_picks(winner: Picked, other: Picked, *, over: str) -> Gain:
    """Gain of the best network of one group over the best of another, all of one supernet.

    The effect of the selection is subtracted from both accuracies. The standard error is that of
    two networks without selection; a simulation in `tests/unit/test_verdict.py` confirms this.
    """
    error, is_paired = _image_error(winner, other)
    own = error / math.sqrt(2)  # of one network, without the error that both have in common
    found = winner.top1 - _curse(winner, own) - (other.top1 - _curse(other, own))
    return Gain(over, found, error, 0.0, min(winner.n, other.n), is_paired)


def _image_error(first: Sample | Picked, second: Sample | Picked) -> tuple[float, bool]:
    """Standard error of a difference of accuracies, and whether the comparison is paired.

    Adjusted Wald intervals: Bonett and Price 2012 for pairs, else Agresti and Caffo 2000. The
    adjustment matters if few images distinguish the networks: without it, none would mean no error.
    """
    a, b = first.hits, second.hits
    if a is not None and b is not None and len(a) == len(b):
        n = len(a) + 2
        only_first, only_second = (np.sum(a & ~b) + 1) / n, (np.sum(b & ~a) + 1) / n
        variance = only_first + only_second - (only_first - only_second) ** 2
        return math.sqrt(variance / n), True
    rates = [((one.top1 * one.n + 1) / (one.n + 2), one.n + 2) for one in (first, second)]
    return math.sqrt(sum(rate * (1 - rate) / n for rate, n in rates)), False


def _curse(picked: Picked, error: float) -> float:
    """Mean error of the accuracy of the best candidate, by a parametric bootstrap of the selection.

    error: standard error of the accuracy of a candidate.

    The bootstrap needs true accuracies. It uses the observed ones, shrunk towards their median to
    the spread that they have without noise.
    """
    seen = np.asarray(picked.candidates, dtype=np.float64)
    if len(seen) < 2 or error == 0:
        return 0.0
    low, middle, high = np.quantile(seen, [0.25, 0.5, 0.75])
    spread = (high - low) / NORMAL_IQR
    share = math.sqrt(max(0.0, 1 - (error / spread) ** 2)) if spread > 0 else 0.0
    truths: FloatArray = middle + share * (seen - middle)
    stream = rng(0, "analysis/curse")
    noise = stream.normal(0, error, size=(N_RESAMPLES, len(seen)))
    chosen = (truths + noise).argmax(axis=1)
    return float(noise[np.arange(N_RESAMPLES), chosen].mean())


def _part(gain: Gain, split: Split) -> str:
    low, high = (100 * bound for bound in gain.interval)
    points = f"{100 * gain.gain:+.2f} points ({low:+.2f} to {high:+.2f})"
    if gain.state != "cannot tell":
        return f"the winner is {gain.state} than {gain.over}: {points}"
    text = f"cannot tell whether the winner is better than {gain.over}: {points}"
    needed = gain.settled_by(split)
    return (
        f"{text}, about {needed} would settle it"
        if needed
        else f"{text}, too small a difference to settle"
    )


def _rounded(n: int) -> int:
    """Rounded up to two significant digits, because it is an estimate."""
    unit = int(10 ** max(0, len(str(n)) - 2))
    return -(-n // unit) * unit
