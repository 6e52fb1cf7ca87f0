"""Adds values of choices in the course of training, from the largest down (1908.09791)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hwnas.interfaces import Slot
from hwnas.spaces.space import SearchSpace

__all__ = ["opened"]


def opened(slots: Sequence[Slot], space: SearchSpace, share: float) -> list[Slot]:
    """The slots of a step, their archs lifted into what is open of `space`.

    Of every choice the largest 1 + floor(share * k) of its k allowed values are open; a smaller one
    becomes the smallest that is open. At first all archs are the largest one, and the sandwich
    rule's smallest is always the smallest that is open. An arch that another slot has already is
    left out: it would learn the same from the same images.

    share: of the warm-up that has passed, in [0, 1]; at 1 everything is open.
    """
    if share >= 1:
        return list(slots)
    least = [codes[max(0, len(codes) - 1 - int(share * len(codes)))] for codes in space.allowed]
    floor = np.asarray(least, dtype=np.int16)
    lifted = [
        Slot(
            tuple(
                dict.fromkeys(
                    space.arch(np.maximum(np.asarray(arch.codes, dtype=np.int16), floor))
                    for arch in slot.candidates
                )
            ),
            slot.keep,
        )
        for slot in slots
    ]
    return list(dict.fromkeys(lifted))
