"""Maps files of a folder to classes and splits, without opening an image.

Hidden files and folders, and those of operating systems (`@eaDir`, `__MACOSX`, `lost+found`), are
ignored. Links to folders are followed. `export/bundle_images.py` reads folders by the same rule;
tests compare the two.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hwnas.core.errors import DataAbsent, UserError
from hwnas.interfaces import Split
from hwnas.training.file_hashes import one_form, spelled, text_of
from hwnas.training.identity import SPLITS, check_class_names

__all__ = ["SUFFIXES", "Scan", "class_folders", "report", "require_found", "scan", "split_folders"]

log = logging.getLogger(__name__)

SUFFIXES = frozenset(
    (
        *(".apng", ".avif", ".bmp", ".gif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg"),
        *(".jpx", ".pgm", ".png", ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp"),
    )
)
SYSTEM = frozenset({"@eadir", "__macosx", "lost+found", "$recycle.bin"})
NAMES: dict[str, Split] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
HEADS = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP  ")
"""First bytes of images, for files without a suffix."""

SHOWN = 5


@dataclass
class Scan:
    """Files below a folder, relative to its parent: images, and unreadable entries.

    lost: broken links, and folders without read permission.
    left_out: number of other files, by suffix.
    """

    images: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


def is_data(name: str) -> bool:
    """Whether a file or folder with this name can be data."""
    return not name.startswith(".") and name.lower() not in SYSTEM


def scan(folder: Path) -> Scan:
    """All files at any depth below a class folder; images are sorted by their composed names."""
    found = Scan()
    real = folder.resolve()
    _scan(str(folder), folder.name, found, {str(real), *map(str, real.parents)})
    found.images.sort(key=lambda name: (one_form(text_of(name)).split("/"), name))
    return found


def _scan(folder: str, within: str, found: Scan, above: set[str]) -> None:
    try:
        entries = [*os.scandir(folder)]
    except PermissionError:
        found.lost.append(f"{within}/")
        return
    for entry in entries:
        name = f"{within}/{entry.name}"
        if not is_data(entry.name):
            continue
        if entry.is_dir():
            real = os.path.realpath(entry.path)
            if real not in above:  # else a link to one of its parent folders
                _scan(entry.path, name, found, above | {real})
        elif entry.is_symlink() and not os.path.exists(entry.path):
            found.lost.append(name)
        elif entry.is_file() and _is_image(entry):
            found.images.append(name)
        else:
            found.left_out[_ending(entry.name) or "without an ending"] += 1


def _ending(name: str) -> str:
    """The effective suffix; `IMG 1. ` and `a.jpg.` have none."""
    ending = os.path.splitext(name)[1].lower()
    return ending if len(ending.strip(". ")) else ""


def _is_image(entry: os.DirEntry[str]) -> bool:
    if ending := _ending(entry.name):
        return ending in SUFFIXES
    try:
        with open(entry.path, "rb") as stream:
            head = stream.read(12)
    except OSError:
        return False
    return head.startswith(HEADS) or (head[:4] == b"RIFF" and head[8:] == b"WEBP")


def require_found(scans: Iterable[Scan], folder: Path) -> None:
    """Refuses broken links, and folders without read permission.

    Raises:
        UserError: names the first of them.
    """
    lost = [spelled(text_of(name)) for found in scans for name in found.lost]
    if lost:
        raise UserError(
            f"{len(lost)} files or folders of images cannot be read",
            expected="files, and links to files that are there",
            found=_some(lost),
            where=folder,
            fix="restore them, or leave them out with --set data.skip_broken=true",
        )


def report(split: Split, folder: Path, names: Sequence[str], scans: Sequence[Scan]) -> None:
    """Logs files that were left out of a split, and missing classes; `scans`: by class."""
    left_out = sum((found.left_out for found in scans), Counter[str]())
    n_used, n_lost = (sum(map(len, lists)) for lists in zip(*[(s.images, s.lost) for s in scans]))
    if n_out := sum(left_out.values()) + n_lost:
        listed = [f"{n} {ending}" for ending, n in left_out.most_common()]
        listed += [f"{n_lost} that cannot be read"] * bool(n_lost)
        log.warning(
            "%s: %d of %d files cannot be read as images and are left out: %s",
            folder,
            n_out,
            n_out + n_used,
            ", ".join(listed),
        )
    if lacks := [name for name, found in zip(names, scans, strict=True) if not found.images]:
        log.warning("%s: no %s image of %s", folder, split, _some(lacks))


# --- splits and classes ---------------------------------------------------------------------------


def split_folders(folder: Path) -> dict[Split, Path]:
    """The folders with class folders: train/ and its siblings (or their other names), or `folder`.

    Raises:
        UserError: two folders for one split, other folders next to the splits, or no classes in
            them.
    """
    inner = {one_form(text_of(path.name)): path for path in _folders(folder)}
    found: dict[Split, Path] = {}
    for name, path in inner.items():
        split = NAMES.get(name.lower())
        if split is not None and split in found:
            raise _unclear(
                folder,
                f"two folders are the {split} images",
                f"{found[split].name}, {path.name}",
                "put their images into one of them",
            )
        if split is not None:
            found[split] = path
    others = [name for name in inner if name.lower() not in NAMES]
    if not found or ("train" not in found and others):
        return {"train": folder}
    if "train" not in found:
        names = ", ".join(path.name for path in found.values())
        raise _unclear(folder, "no folder of training images", names, "call their folder train")
    if not _folders(found["train"]):
        if others:
            return {"train": folder}  # `train` is a class, of vehicles
        raise _unclear(
            folder,
            "the folder of training images has no class folders",
            f"{found['train'].name}/ without folders",
            "sort its images into one folder per class",
        )
    if strangers := [
        name for name in others if any(is_data(p.name) for p in inner[name].iterdir())
    ]:
        raise _unclear(
            folder,
            "folders beside those of the splits are neither splits nor empty",
            _some(strangers),
            "name the folder above the classes as data.root, or move these folders away",
        )
    return {split: found[split] for split in SPLITS if split in found}


def class_folders(folder: Path, *, least: int = 1) -> dict[str, Path]:
    """Class folders by name (in composed Unicode form), sorted.

    Raises:
        DataAbsent: there are none.
        UserError: there are fewer than `least`, or two names are too similar.
    """
    found = sorted((one_form(text_of(path.name)), path) for path in _folders(folder))
    check_class_names([text_of(path.name) for _, path in found], where=folder)
    _check_case([name for name, _ in found], folder)
    if not found:  # an unmounted disk leaves an empty folder
        expected = "a folder of images for each class"
        raise DataAbsent("no class folders", expected=expected, where=folder)
    if len(found) < least:
        raise UserError(
            "a classifier needs two classes or more",
            expected="one folder per class",
            found=f"{len(found)} folders: {', '.join(name for name, _ in found)}",
            where=folder,
            fix="sort the images into one folder per class",
        )
    return dict(found)


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if is_data(path.name) and path.is_dir())


def _check_case(names: Iterable[str], where: Path) -> None:
    """Refuses names that differ only in case, which Windows and macOS treat as equal."""
    by_form: dict[str, list[str]] = {}
    for name in names:
        by_form.setdefault(name.casefold().strip(". "), []).append(name)
    for twins in by_form.values():
        if len(twins) > 1:
            raise UserError(
                "two classes have names that differ only in case, blanks or dots",
                expected="names that look different",
                found=", ".join(map(repr, twins)),
                where=where,
                fix="put their images into one folder, or rename one of them",
            )


def _unclear(folder: Path, problem: str, found: str, fix: str) -> UserError:
    return UserError(
        problem,
        expected="root/CLASS/*.jpg, or root/train/CLASS/*.jpg beside root/val and root/test",
        found=found,
        where=folder,
        fix=fix,
    )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
