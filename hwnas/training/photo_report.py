"""Report on folders of photos: found, used, left out and why, and possible problems.

The same report is logged before training, and returned by `hwnas data show`. Torch-free.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hwnas.core.errors import UserError
from hwnas.core.photo_rule import Scan, text_of
from hwnas.interfaces import Split
from hwnas.training.duplicates import SharedImages
from hwnas.training.file_hashes import spelled
from hwnas.training.identity import SPLITS
from hwnas.training.photo_store import StoredPhotos
from hwnas.training.photos import Photos

__all__ = ["ClassCount", "PhotoReport", "doubts_about", "left_out", "report_of"]

NOT_DECODED = "that do not decode"
NOT_READ = "that cannot be read"
PHONES = (".heic", ".heif", ".hif")
IMBALANCE = 10  # ratio of the largest to the smallest class
FLAT = 1  # difference between the brightest and the darkest pixel of a channel
GRID = 8  # pixels per side that are checked first
SHOWN = 5


@dataclass(frozen=True)
class ClassCount:
    """Files of one class in one split. left_out: numbers of files by suffix or reason.

    A split without its own folder gets a share of the photos in train/. Files that are left out
    there count for train/.
    """

    split: Split
    name: str
    used: int
    left_out: Mapping[str, int]

    @property
    def found(self) -> int:
        """Number of all files."""
        return self.used + sum(self.left_out.values())


@dataclass(frozen=True)
class PhotoReport:
    """The report on a folder of photos.

    counts: by split, then by class. doubts: problems that may impair the results. refused: problems
    that training rejects unless a setting allows them. shared: photos in two splits, which `doubts`
    mentions as well.
    """

    folder: Path
    counts: tuple[ClassCount, ...]
    doubts: tuple[str, ...]
    refused: tuple[str, ...]
    shared: tuple[SharedImages, ...]


def report_of(
    folder: Path,
    stored: Mapping[Split, StoredPhotos],
    parts: Mapping[Split, Photos],
    shared: Callable[[], tuple[SharedImages, ...]],
    *,
    skips_broken: bool,
) -> PhotoReport:
    """The report on photos that were read without rejecting broken ones.

    shared: finds images in two splits; its `UserError` says why training rejects the data set.
    """
    names = stored["train"].names
    refused = [] if skips_broken else [*refusals(stored, parts)]
    in_two: tuple[SharedImages, ...] = ()
    try:
        in_two = shared()
    except UserError as error:
        refused.append(str(error))
    outside = [line for of in stored.values() for line in left_out(of.folder, of.scans)]
    doubts = (*outside, *doubts_about(folder, parts, names), *map(str, in_two))
    return PhotoReport(folder, counts_of(stored, parts, names), doubts, tuple(refused), in_two)


def counts_of(
    stored: Mapping[Split, StoredPhotos], parts: Mapping[Split, Photos], names: Sequence[str]
) -> tuple[ClassCount, ...]:
    """Counts by split and class. parts: photos of each split, possibly with repeats."""
    found = []
    for split in SPLITS:
        used = _per_class(parts[split], names)
        scans = stored[split].scans if split in stored else [Scan()] * len(names)
        broken = _broken(stored[split], parts[split]) if split in stored else [0] * len(names)
        for name, n, scan, n_broken in zip(names, used.tolist(), scans, broken, strict=True):
            why = {**scan.left_out, NOT_READ: len(scan.lost), NOT_DECODED: n_broken}
            found.append(ClassCount(split, name, n, {k: n for k, n in why.items() if n}))
    return tuple(found)


def _per_class(part: Photos, names: Sequence[str]) -> NDArray[np.int64]:
    """Number of photos of each class, without repeats."""
    first = np.unique(part.rows, return_index=True)[1]
    found: NDArray[np.int64] = np.bincount(part.labels[first], minlength=len(names))
    return found


def _broken(stored: StoredPhotos, part: Photos) -> list[int]:
    labels = np.array(stored.labels, dtype=np.int64)[list(part.broken)]
    return [int(n) for n in np.bincount(labels, minlength=len(stored.names))]


def left_out(folder: Path, scans: Sequence[Scan]) -> Iterator[str]:
    """Sentences on files of a split whose names are not those of images."""
    counts = sum((found.left_out for found in scans), Counter[str]())
    n_used, n_lost = (sum(len(getattr(s, what)) for s in scans) for what in ("images", "lost"))
    if n_out := sum(counts.values()) + n_lost:
        listed = [f"{n} {ending}" for ending, n in counts.most_common()]
        listed += [f"{n_lost} {NOT_READ}"] * bool(n_lost)
        total = n_out + n_used
        yield (
            f"{folder}: {n_out} of {total} files cannot be read as images and are left out:"
            f" {', '.join(listed)}"
        )
    if any(counts[ending] for ending in PHONES):
        yield (
            f"{folder}: Pillow does not read the photos of phones in {', '.join(PHONES)}: convert"
            " them, e.g. `heif-convert IMG.heic IMG.jpg`"
        )
    misnamed = sum((found.misnamed for found in scans), Counter[str]())
    counted = [(ending, n) for ending, n in misnamed.most_common() if ending not in PHONES]
    if named := [f"{n} {ending}" for ending, n in counted if n]:
        yield (
            f"{folder}: left out, though images by their content: {', '.join(named)}: give them"
            " the ending of their format, or remove them if they are copies"
        )


def refusals(stored: Mapping[Split, StoredPhotos], parts: Mapping[Split, Photos]) -> Iterator[str]:
    """Problems that training rejects unless `data.skip_broken` is set."""
    allow = "restore or remove them, or set data.skip_broken"
    for split, of in stored.items():
        lost = [spelled(text_of(name)) for found in of.scans for name in found.lost]
        if lost:
            yield f"{of.folder}: {len(lost)} {NOT_READ} ({_some(lost)}): {allow}"
        if broken := [f"{of.shown[row]}: {why}" for row, why in parts[split].broken.items()]:
            yield f"{of.folder}: {len(broken)} {NOT_DECODED} ({_some(broken)}): {allow}"


def doubts_about(
    folder: Path, parts: Mapping[Split, Photos], names: Sequence[str]
) -> Iterator[str]:
    """Sentences on problems with the photos of all splits that may impair the results."""
    for split in SPLITS:
        counts = _per_class(parts[split], names)
        if lacks := [name for name, n in zip(names, counts, strict=True) if n == 0]:
            yield f"{folder}: no {split} image of {_some(lacks)}"
    yield from _imbalance(parts, names)
    for split in SPLITS:
        rows = np.unique(parts[split].rows)
        if len(flat := flat_rows(parts[split].pixels, rows)):
            yield (
                f"{len(flat)} of {len(rows)} {split} images are of one colour"
                f" ({_some([parts[split].names[row] for row in flat])}): they tell nothing of their"
                " class; look at them, and remove them"
            )
    yield from _in_two_classes(parts.values())


def _imbalance(parts: Mapping[Split, Photos], names: Sequence[str]) -> Iterator[str]:
    counts = _per_class(parts["train"], names)
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
            f" ({_some(sorted(pairs))}): keep the"
            " copy in the right one"
        )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
