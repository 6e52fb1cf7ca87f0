"""Labels that `hwnas label` writes: top-1 as fractions, one column per source of the labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hwnas.core.errors import UserError
from hwnas.core.records import load
from hwnas.core.store import read_json
from hwnas.core.text import kind_of
from hwnas.interfaces import Column, Evaluation, Reader, Table
from hwnas.spaces.space import SearchSpace

__all__ = ["READER", "read_labels"]


def _matches(head: str) -> bool:
    return '"schema_version"' in head and '"labels"' in head


def read_labels(path: Path) -> list[Evaluation]:
    """The evaluations in a labels file.

    Raises:
        UserError: the file is not a labels file.
    """
    data = read_json(path)
    if not isinstance(data, dict) or not isinstance(data.get("labels"), list):
        raise UserError(
            "not a labels file",
            expected="a JSON object in which the value of `labels` is a list",
            found="no list `labels`" if isinstance(data, dict) else kind_of(data),
            where=path,
            fix="give a file of labels that hwnas wrote, or select the format with --reader",
        )
    return [
        load(Evaluation, row, where=f"{path}: label {i}", versioned=False)
        for i, row in enumerate(data["labels"])
    ]


def _read(path: Path, space: SearchSpace) -> Table:
    """Columns are the sources (`supernet`, `trained`, ...), so that sources are never mixed."""
    labels = read_labels(path)
    archs = [space.check(label.arch) for label in labels]
    columns = {
        str(source): Column(
            np.array([i for i, label in enumerate(labels) if label.source == source]),
            np.array([label.top1 for label in labels if label.source == source]),
        )
        for source in dict.fromkeys(label.source for label in labels)
    }
    return Table(space, space.codes(archs), columns)


READER = Reader(
    unit="fraction",
    repeats="average",  # several seeds can evaluate one arch
    target=None,
    space=None,
    matches=_matches,
    read=_read,
)
