"""Report on photos: found, used, left out and why, and possible problems.

It is logged in short before training, and returned completely by `hwnas data show`.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from hwnas.core.errors import UserError
from hwnas.core.photo_rule import ENDINGS, HEIC_ENDINGS, Scan, text_of
from hwnas.interfaces import DataIdentity, DataModule, DatasetContext, Split
from hwnas.training.duplicates import SharedImages, shared_of
from hwnas.training.file_hashes import spelled
from hwnas.training.identity import SPLITS
from hwnas.training.photo_doubts import doubts_about, per_class, some
from hwnas.training.photo_folders import files_in
from hwnas.training.photo_store import StoredPhotos
from hwnas.training.photos import Photos

__all__ = [
    "NOT_DECODED",
    "ClassCount",
    "FoundPhotos",
    "PhotoReport",
    "ReportedDataset",
    "broken_by_class",
    "found_in_folders",
    "log_report",
    "not_decoded",
    "report_of",
]

log = logging.getLogger(__name__)

NOT_DECODED = "that do not decode"
NOT_READ = "that cannot be read"
INSTALL_HEIC = "`pip install 'hwnas[heic]'`"
ARCHIVES = frozenset((".zip", ".tar", ".gz", ".tgz", ".7z", ".rar", ".xz", ".bz2"))
MOST_ROWS = 10
"""Maximum number of classes that the report before training names."""


@dataclass(frozen=True)
class ClassCount:
    """Numbers of files of one class in one split.

    A split without its own folder gets a share of the photos in train/. If files in train/ are left
    out, they count only for train/.

    left_out: maps suffixes or reasons to numbers of files.
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
    """The report on a data set of photos.

    counts: by split, then by class. doubts: problems that may impair the results. refused: problems
    that training rejects unless a setting allows them. shared: photos in two splits, which `doubts`
    mentions as well.
    """

    folder: Path
    counts: tuple[ClassCount, ...]
    doubts: tuple[str, ...]
    refused: tuple[str, ...]
    shared: tuple[SharedImages, ...]


@runtime_checkable
class ReportedDataset(Protocol):
    """A data set of photos that are stored in files. Optional: others have no report."""

    def report(self, config: Any, context: DatasetContext) -> PhotoReport:
        """Report on the files, including photos that training would reject.

        Raises:
            UserError: the files are missing, or are not a data set.
        """
        ...


@dataclass(frozen=True)
class FoundPhotos:
    """Photos of a data set by split (photos can occur more than once), and what is left out.

    left_out: for each split and class, maps reasons to numbers of files.
    doubts: sentences on files that are not used.
    refused: sentences on problems that training rejects.
    """

    folder: Path
    names: tuple[str, ...]
    parts: Mapping[Split, Photos]
    left_out: Mapping[Split, Sequence[Mapping[str, int]]]
    doubts: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()

    @property
    def counts(self) -> tuple[ClassCount, ...]:
        """Counts by split and class. Broken photos that were skipped count as left out."""
        found = []
        for split in SPLITS:
            used = per_class(self.parts[split], self.names).tolist()
            left_out = self.left_out.get(split) or [{}] * len(self.names)
            for name, n, why in zip(self.names, used, left_out, strict=True):
                found.append(ClassCount(split, name, n, {k: n for k, n in why.items() if n}))
        return tuple(found)


def report_of(
    found: FoundPhotos, build: Callable[[], DataModule], identity: DataIdentity
) -> PhotoReport:
    """The report on photos that were read without rejecting broken ones.

    build: makes the data set from these photos; its `UserError` says why training rejects it.
    """
    refused, shared = found.refused, tuple[SharedImages, ...]()
    try:
        shared = shared_of(build(), identity)
    except UserError as error:
        refused = (*refused, str(error))
    doubts = doubts_about(found.folder, found.parts, found.names)
    texts = (*found.doubts, *doubts, *map(str, shared))
    return PhotoReport(found.folder, found.counts, texts, refused, shared)


def log_report(found: FoundPhotos) -> None:
    """Logs the report before training, in short: counts, what is left out, and doubts."""
    sizes = ", ".join(f"{split} {len(found.parts[split])}" for split in SPLITS)
    log.info("%s: %d classes; images: %s", found.folder, len(found.names), sizes)
    by_class = {
        name: [count for count in found.counts if count.name == name] for name in found.names
    }
    most = sorted(found.names, key=lambda name: -by_class[name][0].used)
    shown = most if len(most) <= MOST_ROWS else [*most[: MOST_ROWS // 2], *most[-MOST_ROWS // 2 :]]
    for name in shown:
        log.info("  %s: %s", name, _class_text(by_class[name]))
    if len(shown) < len(most):
        log.info("  and %d classes between these: see hwnas data show", len(most) - len(shown))
    for text in (*found.doubts, *doubts_about(found.folder, found.parts, found.names)):
        log.warning("%s", text)


def _class_text(counts: Sequence[ClassCount]) -> str:
    """`20 found: train 14, val 3, test 2; left out: 1 .heic`."""
    why = sum((Counter(count.left_out) for count in counts), Counter[str]())
    left_out = "; left out: " + ", ".join(f"{n} {reason}" for reason, n in why.items())
    used = ", ".join(f"{count.split} {count.used}" for count in counts)
    return f"{sum(count.found for count in counts)} found: {used}{left_out * bool(why)}"


# --- photos in folders ----------------------------------------------------------------------------


def found_in_folders(
    folder: Path,
    stored: Mapping[Split, StoredPhotos],
    parts: Mapping[Split, Photos],
    *,
    skips_broken: bool,
) -> FoundPhotos:
    """The photos of class folders by split, and how many are left out for which reason.

    stored: the files. parts: the photos that were decoded from them.
    skips_broken: the setting `data.skip_broken`.
    """
    names = stored["train"].names
    places = sorted({folder, *(of.folder for of in stored.values())})
    return FoundPhotos(
        folder,
        names,
        parts,
        {split: _left_out(of.scans, parts[split], names) for split, of in stored.items()},
        (
            *(line for of in stored.values() for line in _other_files(of.folder, of.scans)),
            *(line for place in places for line in _beside(place)),
        ),
        () if skips_broken else tuple(_refusals(stored, parts)),
    )


def _left_out(scans: Sequence[Scan], part: Photos, names: Sequence[str]) -> list[Mapping[str, int]]:
    broken = broken_by_class(part, names)
    return [
        {**scan.left_out, NOT_READ: len(scan.lost), NOT_DECODED: n}
        for scan, n in zip(scans, broken, strict=True)
    ]


def broken_by_class(part: Photos, names: Sequence[str]) -> list[int]:
    """Number of images of each class that do not decode."""
    counts = Counter(label for label, _ in part.broken.values())
    return [counts[label] for label in range(len(names))]


def _other_files(folder: Path, scans: Sequence[Scan]) -> Iterator[str]:
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
    if n := sum(found.n_heic for found in scans):
        yield (
            f"{folder}: {n} of these {'is a HEIC photo' if n == 1 else 'are HEIC photos'}:"
            f" to read them, {INSTALL_HEIC}; or convert them, e.g. `heif-convert IMG.heic IMG.jpg`"
        )
    misnamed = sum((found.misnamed for found in scans), Counter[str]())
    counted = [(ending, n) for ending, n in misnamed.most_common() if ending not in HEIC_ENDINGS]
    if named := [f"{n} {ending}" for ending, n in counted if n]:
        yield (
            f"{folder}: files left out because of their names, though they contain images:"
            f" {', '.join(named)}: give them the ending of their format, or remove them if they"
            " are copies"
        )


def _beside(folder: Path) -> Iterator[str]:
    """A sentence on images and archives that lie beside the class folders."""
    known = ENDINGS | HEIC_ENDINGS | ARCHIVES
    if listed := [f"{n} {end}" for end, n in files_in(folder).most_common() if end in known]:
        yield (
            f"{folder}: {', '.join(listed)} beside the class folders are not used, because they"
            " have no class: move photos into the folder of their class; unpack archives"
        )


def _refusals(stored: Mapping[Split, StoredPhotos], parts: Mapping[Split, Photos]) -> Iterator[str]:
    """Problems that training rejects unless `data.skip_broken` is set."""
    allow = "restore or remove them, or set data.skip_broken"
    for split, of in stored.items():
        lost = [spelled(text_of(name)) for found in of.scans for name in found.lost]
        if lost:
            yield f"{of.folder}: {len(lost)} {NOT_READ} ({some(lost)}): {allow}"
        if text := not_decoded(parts[split]):
            yield f"{of.folder}: {text}: {allow}"


def not_decoded(part: Photos) -> str:
    """How many images do not decode, and which; empty if all do."""
    broken = [f"{part.names[row]}: {why}" for row, (_, why) in part.broken.items()]
    return f"{len(broken)} {NOT_DECODED} ({some(broken)})" if broken else ""
