"""Opens files of labelled archs with a named reader."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hwnas.core.confined import open_regular
from hwnas.core.csv_data import text_of
from hwnas.core.errors import UserError
from hwnas.interfaces import Reader, Table
from hwnas.predictors.proxies import ListedProxy
from hwnas.predictors.readers import REGISTRY as READERS
from hwnas.predictors.records import Records, distinct, record_set
from hwnas.spaces.load import build_space

__all__ = ["Source", "open_records"]

log = logging.getLogger(__name__)

HEAD_CHARS = 4096


@dataclass(frozen=True)
class Source:
    """The table of a file, and the reader that parsed it."""

    path: Path
    reader_name: str
    reader: Reader
    table: Table

    def records(self, target: str | None = None) -> Records:
        """One score per arch, from the column `target` or the default column of the reader.

        Raises:
            UserError: the column is missing, or its values do not match the declaration of the
                reader.
        """
        return record_set(self.table, self.reader, target, where=self.path)

    def accuracies(self, target: str | None = None) -> Records:
        """The records, for searches and labels of runs, which report accuracies.

        Raises:
            UserError: see `records`, or the file has losses.
        """
        if self.reader.unit == "minus_loss":
            raise UserError(
                "these records cannot be used in a run",
                expected="a file of accuracies",
                found=f"losses, in the format {self.reader_name}",
                where=self.path,
                fix="compare predictors on this file: hwnas predictor eval --records",
            )
        return self.records(target)

    def proxy(self, column: str) -> ListedProxy:
        """A column of numbers, in any unit, as a feature of the archs in the file.

        Raises:
            UserError: the column is missing or empty.
        """
        codes, values, _ = distinct(self.table, column, where=self.path)
        return ListedProxy(self.table.space, codes, values, name=column)


def open_records(
    path: Path,
    *,
    reader: str | None = None,
    space: str | None = None,
    settings: Mapping[str, Any] | None = None,
    num_classes: int | None = None,
) -> Source:
    """Parses a file with the named reader, or with the reader that recognises it.

    The space is that of the reader, unless another one is named.

    Raises:
        UserError: missing file, unknown reader or format, no space although the reader needs one,
            or archs of another space.
    """
    name = reader or _guess(path)
    found = READERS.load(name).READER
    default_space, default_classes = found.space or (None, None)
    space_name, classes = space or default_space, num_classes or default_classes
    if space_name is None or classes is None:
        raise UserError(
            f"the space of the archs is unknown: reader {name!r} does not define it",
            where=path,
            fix="give --space NAME and --num-classes N (and --set), as in the run's config",
        )
    table = found.read(path, build_space(space_name, settings, num_classes=classes))
    return Source(path, name, found, table)


def _readers() -> Iterator[tuple[str, Reader]]:
    """All readers that can be loaded; broken readers of other packages are skipped."""
    for name in READERS.names:
        try:
            yield name, READERS.load(name).READER
        except UserError as error:
            log.warning("%s", error)


def _guess(path: Path) -> str:
    """Name of the only reader that recognises the file."""
    try:
        with open_regular(path) as stream:
            head = text_of(stream.read(HEAD_CHARS), errors="replace")
    except OSError as error:
        raise UserError(
            "cannot read the file",
            found=error.strerror,
            where=path,
            fix="check the path, and the permissions of the file",
        ) from error
    names = [name for name, reader in _readers() if reader.matches(head)]
    if len(names) != 1:
        raise UserError(
            "cannot detect the format of the file",
            expected=f"a file that one of the readers recognises: {', '.join(READERS.names)}",
            found=f"a file that {' and '.join(names)} recognise"
            if names
            else "a file that no reader recognises",
            where=path,
            fix="select its format with --reader",
        )
    return names[0]
