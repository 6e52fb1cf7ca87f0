"""The three training curves of a supernet, and a warning if one of them falls to chance."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from hwnas.interfaces import TOP1, Quality
from hwnas.spaces.arch import Arch
from hwnas.spaces.graphs import smallest_connected
from hwnas.spaces.space import SearchSpace

__all__ = ["CollapseWatch", "curve_archs"]

log = logging.getLogger(__name__)

AT_CHANCE, LEARNT = 3.0, 6.0
"""Limits of a top-1, in standard deviations above chance.

A top-1 of at most `AT_CHANCE` counts as chance, and one above `LEARNT` as learned.
"""


def curve_archs(space: SearchSpace) -> dict[str, Arch]:
    """Maps the names of the three curves to archs; `middle` has the middle code of every choice."""
    middle = space.arch([codes[len(codes) // 2] for codes in space.allowed])
    return {"largest": space.largest(), "middle": middle, "smallest": smallest_connected(space)}


@dataclass
class CollapseWatch:
    """Detects training curves that fell back to chance, or never rose above it.

    Args:
        chance: rate of a network that has learned nothing.
        n_images: number of images that each rate is measured on.
        peaks: maps each curve to its best rate so far and the step of this rate; checkpoints
            store it.
        quality: what the rates measure (`Quality.rate`).
    """

    chance: float
    n_images: int
    peaks: dict[str, list[float]] = field(default_factory=dict)
    quality: Quality = TOP1

    def check(self, step: int, n_steps: int, rates: Mapping[str, float]) -> list[str]:
        """Names of the curves that are at chance in `step` of `n_steps`; logs a fix for each."""
        deviation = math.sqrt(self.chance * (1 - self.chance) / self.n_images)
        collapsed = []
        for name, value in rates.items():
            peak, peak_step = self.peaks.get(name, [0.0, 0])
            if value > peak:
                self.peaks[name] = [value, step]
            if value > self.chance + AT_CHANCE * deviation:
                continue
            if peak > self.chance + LEARNT * deviation:
                found = f"fell to chance: {self._text(value)}, after {self._text(peak)}"
                found += f" at step {peak_step:.0f}"
                fix = "best.safetensors, as supernet.init, starts from the best weights so far"
            elif (
                step >= n_steps / 2
                and peak <= self.chance + AT_CHANCE * deviation
                and self.chance + LEARNT * deviation <= (1 + self.chance) / 2
            ):  # with fewer images, half of what can be learnt would look like chance
                found = f"has not learnt anything: {self._text(value)}, chance is"
                found += f" {self._text(self.chance)}"
                fix = "if it also fails to learn stand-alone, the arch is too small for these data"
            else:
                continue
            collapsed.append(name)
            log.warning(
                "step %d of %d: the %s subnet %s. Fix: stop, lower train.optimizer.lr (or lengthen "
                "its warmup, lower clip_norm), and raise train.batch_size, so that BN statistics "
                "come from more images; %s",
                step,
                n_steps,
                name,
                found,
                fix,
            )
        return collapsed

    def _text(self, rate: float) -> str:
        if self.quality == TOP1:
            return f"top1 {rate:.3f}"
        return f"{self.quality.name} {self.quality.short(1 / rate)}"
