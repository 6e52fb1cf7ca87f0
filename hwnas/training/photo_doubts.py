"""Problems with photos that may impair results, e.g. unbalanced classes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hwnas.interfaces import Split
from hwnas.training.identity import SPLITS
from hwnas.training.photos import Photos

__all__ = ["doubts_about", "flat_rows", "per_class", "some"]

IMBALANCE = 10  # ratio of the largest to the smallest class
FLAT = 1  # difference between the brightest and the darkest pixel of a channel
GRID = 8  # pixels per side that are checked first
SHOWN = 5


def doubts_about(
    folder: Path, parts: Mapping[Split, Photos], names: Sequence[str]
) -> Iterator[str]:
    """Yields a sentence for each problem with the photos that may impair results, in any split."""
    for split in SPLITS:
        counts = per_class(parts[split], names)
        if lacks := [name for name, n in zip(names, counts, strict=True) if n == 0]:
            yield f"{folder}: no {split} image of {some(lacks)}"
    yield from _imbalance(parts, names)
    for split in SPLITS:
        rows = np.unique(parts[split].rows)
        if len(flat := flat_rows(parts[split].pixels, rows)):
            yield (
                f"{len(flat)} of {len(rows)} {split} images are of one colour"
                f" ({some([parts[split].names[row] for row in flat])}): their pixels say nothing"
                " about their class; remove them if they are not intended"
            )
    yield from _in_two_classes(parts.values())


def _imbalance(parts: Mapping[Split, Photos], names: Sequence[str]) -> Iterator[str]:
    counts = per_class(parts["train"], names)
    present = np.flatnonzero(counts)
    if not len(present):
        return
    most, least = int(counts.argmax()), int(present[counts[present].argmin()])
    if counts[most] >= IMBALANCE * counts[least]:
        share = float((parts["test"].labels == most).mean()) if len(parts["test"]) else 0.0
        yield (
            f"the classes are unbalanced: {counts[most]} training images of {names[most]},"
            f" {counts[least]} of {names[least]}; a network that always answers {names[most]} has"
            f" a test accuracy of {share:.0%}"
        )


def flat_rows(pixels: NDArray[np.uint8], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Selects the rows of `pixels` [N, px, px, 3] that are images of one colour."""
    step = max(1, pixels.shape[1] // GRID)
    grid = pixels[:, ::step, ::step][rows]
    maybe = rows[np.ptp(grid, axis=(1, 2)).max(1, initial=0) <= FLAT]
    is_flat = [bool(np.ptp(pixels[row], axis=(0, 1)).max() <= FLAT) for row in maybe]
    found: NDArray[np.int64] = maybe[np.array(is_flat, dtype=bool)]
    return found


def _in_two_classes(parts: Iterable[Photos]) -> Iterator[str]:
    """Sentences on photos with equal content in two classes, one of which must be wrong."""
    seen: dict[str, tuple[int, str]] = {}
    pairs: set[str] = set()
    for part in parts:
        for row, label in zip(part.rows.tolist(), part.labels.tolist(), strict=True):
            digest, name = part.hashes[row], part.names[row]
            first, other = seen.setdefault(digest, (label, name))
            if first != label:
                pairs.add(" = ".join(sorted((name, other))))
    if pairs:
        one = "is" if len(pairs) == 1 else "are"
        yield (
            f"{len(pairs)} {'photo' if one == 'is' else 'photos'} {one} in two classes"
            f" ({some(sorted(pairs))}): keep the"
            " copy in the right class, and remove the other"
        )


def per_class(part: Photos, names: Sequence[str]) -> NDArray[np.int64]:
    """Number of photos of each class, without repeats."""
    first = np.unique(part.rows, return_index=True)[1]
    found: NDArray[np.int64] = np.bincount(part.labels[first], minlength=len(names))
    return found


def some(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
