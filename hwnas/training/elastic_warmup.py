"""Adds values of choices during training, from the largest down (1908.09791)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hwnas.interfaces import Slot
from hwnas.spaces.space import SearchSpace

__all__ = ["opened"]


def opened(slots: Sequence[Slot], space: SearchSpace, share: float) -> list[Slot]:
    """The slots of a step, with their archs mapped into the open part of `space`.

    The largest 1 + floor(share * k) of the k allowed values of every choice are open. Smaller
    values are replaced by the smallest open value. So at first all archs are the largest arch, and
    the smallest arch of the sandwich rule is the smallest open arch. Duplicates in a step are left
    out, because they would repeat the same gradient.

    share: completed share of the warm-up in [0, 1]; at 1 all values are open.
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
