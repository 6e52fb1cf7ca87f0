"""Reads class names from a list, such as the classes of the starting weights. Torch-free."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from hwnas.core.confined import read_regular
from hwnas.core.env import user_path
from hwnas.core.errors import DataAbsent, UserError
from hwnas.core.photo_rule import one_form
from hwnas.training.identity import check_class_names

__all__ = ["listed_classes"]

MAX_BYTES = 1 << 24
IMAGENET = "imagenet"
SYNSETS = "data/_info/imagenet_synsets.txt"  # of timm, whose classifiers have this order


def listed_classes(classes: str, root: Path) -> tuple[str, ...]:
    """Names of classes in the order of a classifier's outputs.

    classes: `imagenet` for the 1,000 folder names of ImageNet (n01440764 ...), or a text file below
        `root` with the name of a class at the start of each line.

    Raises:
        DataAbsent: there is no such file.
        UserError: the file is not text, has fewer than two names, or has a duplicate; or `~name` is
            no user of this machine.
    """
    path = root / user_path(classes, where="data.classes")
    if classes == IMAGENET:
        found = importlib.util.find_spec("timm")  # without importing it
        path = Path("timm" if found is None or found.origin is None else found.origin).parent
        path /= SYNSETS
    try:
        text = read_regular(path, at_most=MAX_BYTES).decode()
    except FileNotFoundError as error:
        raise DataAbsent(
            "the list of classes is missing", where=path, fix="copy the file there"
        ) from error
    except (OSError, ValueError) as error:
        raise UserError(
            "cannot read the list of classes",
            expected="text in UTF-8, one line per class",
            found=str(error),
            where=path,
        ) from error
    names = [one_form(line.split()[0]) for line in text.splitlines() if line.strip()]
    if (twice := next((name for name in names if names.count(name) > 1), None)) is not None:
        raise UserError(
            "the list of classes has a duplicate",
            expected="one line per class, and each line begins with a different name",
            found=f"{names.count(twice)} lines begin with {twice}",
            where=path,
            fix="correct or remove one of these lines; the order of the lines is that of the"
            " classifier's outputs",
        )
    if len(names) < 2:
        raise UserError(
            "the list of classes is too short",
            expected="at least two lines, each of which begins with the name of a class",
            found=f"{len(names)} line{'s' * (len(names) != 1)}",
            where=path,
            fix="add the missing classes, in the order of the classifier's outputs",
        )
    check_class_names(names, where=path)
    return tuple(names)
