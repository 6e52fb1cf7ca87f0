"""The identity of a data set: its contents, and a description of changes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

from hwnas.core.errors import DataAbsent, UserError
from hwnas.core.photo_rule import one_form
from hwnas.interfaces import DataIdentity, DataModule, Split
from hwnas.training.file_hashes import bytes_hash, file_hashes, spelled

__all__ = [
    "CUT_FROM_TRAIN",
    "SPLITS",
    "check_class_names",
    "describe_change",
    "identity_of_arrays",
    "identity_of_files",
    "shown",
]

SPLITS: tuple[Split, ...] = get_args(Split)
CUT_FROM_TRAIN = {"train": "train", "val": "train", "test": "test"}
"""`DataIdentity.parts` if validation images are drawn from the training images."""

BATCH = 256

_File = tuple[str, str]
"""Part and name of a file."""


def check_class_names(names: Sequence[str], *, where: object) -> None:
    """Checks that class names can be written into every artifact, and are distinguishable.

    Raises:
        UserError: a name is not UTF-8, or two names differ only in their Unicode form.
    """
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise UserError(
                "the name of a class is not UTF-8",
                expected="names in UTF-8, as models and manifests store them",
                found=f"'{spelled(name)}'",
                where=where,
                fix="rename its folder, e.g. `convmv -f latin1 -t utf8 --notest -r FOLDER`",
            ) from error
    counts = Counter(map(one_form, names))
    for name in names:
        if counts[one_form(name)] > 1:
            twins = [ascii(twin) for twin in names if one_form(twin) == one_form(name)]
            raise UserError(
                "two classes have names that differ only in their Unicode form",
                expected="names that look different",
                found=f"{one_form(name)}: {', '.join(twins)}",
                where=where,
                fix="put their images into one folder, or rename one of them",
            )


def identity_of_files(
    folder: Path,
    stored: Mapping[str, Sequence[str]],
    parts: Mapping[str, str],
    class_names: Sequence[str],
) -> DataIdentity:
    """The identity of a data set that is stored in a few files of `folder`.

    stored: files of each part.
    parts: see `DataIdentity`.

    Raises:
        DataAbsent: a file is missing.
    """
    names = sorted({name for files in stored.values() for name in files})
    try:
        hashes = file_hashes(folder, names)
    except FileNotFoundError as error:
        raise DataAbsent(
            "a file of the data set is missing",
            where=error.filename,
            fix="restore the file, or repeat the command if it was removed on purpose",
        ) from error
    files = {part: {name: hashes[name] for name in stored[part]} for part in stored}
    return DataIdentity(tuple(class_names), files, dict(parts))


def identity_of_arrays(data: DataModule) -> DataIdentity:
    """The identity of any data set, from its images and labels."""
    files: dict[str, dict[str, str]] = {}
    for split in SPLITS:
        hashes: list[str] = []
        for x, y in data.eval_batches(split, BATCH):
            pairs = zip(x.contiguous().numpy(), y.tolist(), strict=True)
            hashes += [bytes_hash(image.tobytes() + b"%d" % label) for image, label in pairs]
        files[split] = {f"image {i}": digest for i, digest in enumerate(hashes)}
    return DataIdentity(data.info.class_names, files, {split: split for split in SPLITS})


def describe_change(old: DataIdentity, new: DataIdentity) -> list[str]:
    """Differences of two identities, one per line; empty if they are equal.

    Images are compared if both identities have hashes of images in archives, else files.
    """
    if old.inside is None or new.inside is None:
        return _described(old, new, "file")
    lines = _described(old.inside, new.inside, "image")
    if not lines and (files := _described(old, new, "file")):
        return [f"{'; '.join(files)}; the images in them are the same"]
    return lines


def _described(old: DataIdentity, new: DataIdentity, noun: str) -> list[str]:
    lines = []
    before, now = old.class_names, new.class_names
    if len(before) != len(now):
        lines.append(f"{len(now)} classes, were {len(before)}")
    renamed = _renamed(old, new)
    lines += [f"class {was!r} is now {name!r}" for was, name in renamed.items()]
    lines += _named("class", [n for n in now if n not in (*before, *renamed.values())], "is new")
    lines += _named("class", [n for n in before if n not in (*now, *renamed)], "is gone")
    if not lines and before != now:
        lines.append("the order of the classes changed")
    files = {
        (part, _with_class(name, renamed)): digest
        for part, hashes in old.files.items()
        for name, digest in hashes.items()
    }
    lines += _files_changed(files, _flat(new), noun)
    if not lines and old.parts != new.parts:
        lines.append("the images of a split come from another folder")
    return lines


def _files_changed(old: dict[_File, str], new: dict[_File, str], noun: str) -> list[str]:
    removed = {file: digest for file, digest in old.items() if file not in new}
    added = {file: digest for file, digest in new.items() if file not in old}
    by_content: dict[str, list[_File]] = defaultdict(list)
    for file in sorted(added):
        by_content[added[file]].append(file)
    moves: Counter[str] = Counter()
    for file in sorted(removed):
        if by_content[removed[file]]:
            target = by_content[removed[file]].pop(0)
            moves[_move(file, target)] += 1
            del removed[file], added[target]
    changed = [file for file in old if file in new and old[file] != new[file]]
    lines = [f"{_count(n, noun)} {move}" for move, n in sorted(moves.items())]
    for files, verb in ((added, "added"), (removed, "removed"), (changed, "changed")):
        if files:
            first = shown("/".join(min(files)))
            lines.append(f"{_count(len(files), noun)} {verb} (first: {first})")
    return lines


def _move(old: _File, new: _File) -> str:
    if old[0] != new[0]:
        return shown(f"moved from {old[0]} to {new[0]}")
    before, now = (name.split("/")[0] for name in (old[1], new[1]))
    if before != now and "/" in old[1] and "/" in new[1]:
        return f"moved from class {before!r} to {now!r}"
    return "renamed"


def _renamed(old: DataIdentity, new: DataIdentity) -> dict[str, str]:
    """New names of classes with unchanged files."""
    gone = set(old.class_names) - set(new.class_names)
    come = set(new.class_names) - set(old.class_names)
    before, now = _by_class(old, gone), _by_class(new, come)
    found: dict[str, str] = {}
    for name in sorted(gone):
        same = [n for n in sorted(come) if now[n] == before[name] and n not in found.values()]
        if same and before[name]:
            found[name] = same[0]
    return found


def _by_class(identity: DataIdentity, names: set[str]) -> dict[str, dict[_File, str]]:
    """Files of some classes, named without the class."""
    found: dict[str, dict[_File, str]] = {name: {} for name in names}
    for (part, name), digest in _flat(identity).items():
        head, _, rest = name.partition("/")
        if head in found and rest:
            found[head][part, rest] = digest
    return found


def _flat(identity: DataIdentity) -> dict[_File, str]:
    return {
        (part, name): digest
        for part, hashes in identity.files.items()
        for name, digest in hashes.items()
    }


def _with_class(name: str, renamed: dict[str, str]) -> str:
    head, slash, rest = name.partition("/")
    return f"{renamed.get(head, head)}{slash}{rest}"


def _named(kind: str, names: Sequence[str], verb: str) -> list[str]:
    return [f"{kind} {name!r} {verb}" for name in names]


def shown(name: str) -> str:
    """A name escaped for the terminal, because run folders may be untrusted."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name)


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
