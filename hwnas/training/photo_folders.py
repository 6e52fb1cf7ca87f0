"""Maps folders to classes and splits; `core.photo_rule` determines which files are images."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from hwnas.core.errors import DataAbsent, UserError
from hwnas.core.photo_rule import Scan, composed, folders_of, is_data, text_of
from hwnas.core.store import explained
from hwnas.interfaces import Split
from hwnas.training.file_hashes import spelled
from hwnas.training.identity import SPLITS, check_class_names

__all__ = ["class_folders", "files_in", "require_found", "split_folders"]

NAMES: dict[str, Split] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
SHOWN = 5


def require_found(scans: Iterable[Scan], folder: Path) -> None:
    """Refuses broken links, and folders without read permission.

    Raises:
        UserError: names the first of them.
    """
    lost = [spelled(text_of(name)) for found in scans for name in found.lost]
    if lost:
        raise UserError(
            f"{len(lost)} files or folders of images cannot be read",
            expected="files, and links to existing files",
            found=_some(lost),
            where=folder,
            fix="restore them, or leave them out with --set data.skip_broken=true",
        )


# --- splits and classes ---------------------------------------------------------------------------


def split_folders(folder: Path) -> dict[Split, Path]:
    """Maps each split to its folder: train/, val/ and test/, or folders with other usual names.

    If there are no such folders, `folder` itself has the class folders, and the result maps only
    `train` to it.

    Raises:
        UserError: two folders for one split, other folders next to the splits, or no classes in
            them.
    """
    inner = {composed(path.name): path for path in _folders(folder)}
    found: dict[Split, Path] = {}
    for name, path in inner.items():
        split = NAMES.get(name.lower())
        if split is not None and split in found:
            raise _unclear(
                folder,
                f"two folders have names for the {split} images",
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
        fix = "rename the folder of the training images to train"
        raise _unclear(folder, "no folder of training images", names, fix)
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
            "folders beside the splits are not empty, but belong to no split",
            _some(strangers),
            "set data.root to the folder that holds the classes, or move these folders away",
        )
    return {split: found[split] for split in SPLITS if split in found}


def class_folders(folder: Path, *, least: int = 1) -> dict[str, Path]:
    """Class folders by name (in composed Unicode form), sorted.

    Raises:
        DataAbsent: there are none.
        UserError: there are fewer than `least`, or two names are too similar.
    """
    found = sorted((composed(path.name), path) for path in _folders(folder))
    check_class_names([text_of(path.name) for _, path in found], where=folder)
    _check_case([name for name, _ in found], folder)
    if not found:  # an unmounted disk leaves an empty folder
        raise DataAbsent(
            "no class folders",
            expected="a folder of images for each class",
            found=_listed(folder) or "an empty folder",
            where=folder,
            fix="sort the images into one folder per class (unpack archives first), or set"
            " data.root to the folder that holds the class folders",
        )
    if len(found) < least:
        (only,) = found if len(found) == 1 else [("", folder)]
        deeper = only[1] if only[0] and len(_folders(only[1])) >= least else None
        raise UserError(
            "a classifier needs at least two classes",
            expected=f"at least {least} folders, one per class",
            found=f"{len(found)} folder{'s' * (len(found) > 1)}: "
            + ", ".join(name for name, _ in found),
            where=folder,
            fix="sort the images into one folder per class"
            if deeper is None
            else f"if the classes are the folders in {deeper}: --set data.root={deeper}",
        )
    _refuse_splits(found, folder)
    return dict(found)


def files_in(folder: Path) -> Counter[str]:
    """Counts the files directly in a folder, by suffix in lower case."""
    with explained("read the folder of images", folder):
        files = [path for path in folder.iterdir() if is_data(path.name) and path.is_file()]
    return Counter(path.suffix.lower() or "without an ending" for path in files)


def _listed(folder: Path) -> str:
    """The files of a folder: `12 .jpg, 1 .csv`."""
    return ", ".join(f"{n} {ending}" for ending, n in files_in(folder).most_common(SHOWN))


def _refuse_splits(found: Iterable[tuple[str, Path]], folder: Path) -> None:
    """Refuses folders such as `seg_train` and `seg_test`, which would be taken for classes."""
    named = [(name, _split_of(name)) for name, path in found if _folders(path)]
    splits = {split for _, split in named if split is not None}
    if "train" in splits and len(splits) > 1:
        raise _unclear(
            folder,
            "the folders are named like splits, so they cannot be the classes",
            _some([name for name, split in named if split is not None]),
            "rename splits to train, val and test; if these are classes, move the images in their"
            " subfolders up",
        )


def _split_of(name: str) -> Split | None:
    """The split that one of the words of a name means: `Test Set`, `seg_train`, `images-val`."""
    words = re.split(r"[^a-z]+", name.lower())
    return next((NAMES[word] for word in words if word in NAMES), None)


def _folders(folder: Path) -> list[Path]:
    with explained("read the folder of images", folder):
        return folders_of(folder)


def _check_case(names: Iterable[str], where: Path) -> None:
    """Refuses names that differ only in case, or in blanks and dots at their ends."""
    by_form: dict[str, list[str]] = {}
    for name in names:
        by_form.setdefault(name.casefold().strip(". "), []).append(name)
    for twins in by_form.values():
        if len(twins) > 1:
            raise UserError(
                "two classes have names that Windows or macOS can treat as equal",
                expected="names that differ in more than case, or blanks and dots at their ends",
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
