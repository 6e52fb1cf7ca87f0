"""Reads the training curves of a run folder, and single entries of the files that list many."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from hwnas.core.errors import Invalid, UserError
from hwnas.core.records import STRICT, Count, NotNegative, Share, load
from hwnas.core.rundir import RunDir
from hwnas.core.text import in_words

__all__ = ["TrainingRow", "check_training_rows", "listed", "training_rows"]

T = TypeVar("T")


@dataclass(frozen=True)
class TrainingRow:
    """A row of the training curves.

    losses, ranking: mean losses since the last row, of each slot and of each ranking pair.
    top1, val_loss: values of each curve, keyed by its name.
    collapsed: names of the curves that collapsed.
    stage, inputs: added by `RunDir.metric`.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    step: Count
    lr: float
    losses: tuple[float, ...]
    top1: dict[str, Share]
    val_loss: dict[str, NotNegative]
    ranking: tuple[float, ...] = ()
    collapsed: tuple[str, ...] = ()
    stage: str = ""
    inputs: str | None = None

    def __post_init__(self) -> None:
        if self.top1.keys() != self.val_loss.keys():
            of = (self.top1, self.val_loss)
            known, found = (f"the curves {', '.join(one)}" if one else "no curves" for one in of)
            raise Invalid(known, found, "val_loss")


def training_rows(run: RunDir) -> list[TrainingRow]:
    """Rows of the supernet's training curves, by ascending step; thinned if there are many.

    Raises:
        UserError: a line is not a row of the curves, or has other curves than the first one.
    """
    found = [_training_row(run, row) for row in run.metrics("train")]
    curves = {tuple(sorted(row.top1)) for row in found}
    if len(curves) > 1:
        raise UserError(
            "rows of the training metrics have different curves",
            expected=f"the curves of the first row in every row: {in_words(sorted(found[0].top1))}",
            found="; ".join(in_words(names) for names in sorted(curves)),
            where=run.metrics_file,
            fix="remove the rows that differ, or restore a copy of the file",
        )
    return found


def check_training_rows(run: RunDir) -> None:
    """Checks every row of the training curves, one at a time.

    Raises:
        UserError: see `training_rows`.
    """
    training_rows(run)
    for row in run.metric_rows("train"):
        _training_row(run, row)


def _training_row(run: RunDir, row: Mapping[str, Any]) -> TrainingRow:
    where = f"{run.metrics_file}, step {row['step']}"
    return load(TrainingRow, row, where=where, versioned=False)


def listed(found: Mapping[str, T], name: str, *, what: str, where: Path, fix: str) -> T:
    """Returns `found[name]`; `what`, `where` and `fix` are for the error.

    Raises:
        UserError: there is no entry with this name.
    """
    if name not in found:
        raise UserError(
            f"a list of the run has no entry for {what}",
            expected=f"an entry {name}",
            found=f"the entries {', '.join(found)}" if found else "no entries",
            where=where,
            fix=fix,
        )
    return found[name]
