"""The folder of one search: the archive, and the state of the search.

The state says how many records of the archive are valid.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

from hwnas.controller.archive import FILES, Archive
from hwnas.core.errors import UserError, parts_of
from hwnas.core.records import (
    STRICT,
    Count,
    NewerVersion,
    NotNegative,
    dump,
    load,
    require_known_version,
)
from hwnas.core.store import UNSEALED, read_json, sealed, unsealed, write_json
from hwnas.spaces.space import SearchSpace

__all__ = ["STATE", "Progressed", "SearchFolder"]

log = logging.getLogger(__name__)

STATE = "state.json"
"""File with the state of the search."""
STATE_OF_SEARCH = "state of a search"


@dataclass(frozen=True)
class Progressed:
    """Progress of a search, from which it is resumed together with the archive.

    n_rows, n_evaluated: valid records in the files of the archive.
    searcher: state of the searcher.
    """

    n_rows: Count
    n_evaluated: Count
    generation: Count
    n_proposals: Count
    seconds: NotNegative
    searcher: dict[str, Any]


@dataclass(frozen=True)
class _State(Progressed):
    """Content of `state.json`. `archive`: hashes of the records (earlier versions: None)."""

    __pydantic_config__: ClassVar[Any] = STRICT

    fingerprint: str
    archive: tuple[str, ...] | None = None


class _AnotherSearch(UserError):
    """The folder belongs to a search with other settings; it is not damaged."""


@dataclass(frozen=True)
class SearchFolder:
    """The files of the archive and `state.json`; `fingerprint` identifies the search."""

    path: Path
    fingerprint: str

    def load(self, space: SearchSpace) -> tuple[Archive, Progressed] | None:
        """The last saved state, with the archive cut back to it; None if nothing was saved.

        If the files were modified, the search starts again. Its evaluations, the expensive part,
        are in the journal.

        Raises:
            UserError: the folder belongs to another search, or was written by a newer hwnas.
        """
        path = self.path / STATE
        if path.exists():
            try:
                state, archive = self._read(space)
            except (_AnotherSearch, NewerVersion):
                raise
            except UserError as error:
                error.drop_fix()  # such as: remove the folder of this search
                log.warning("%s\n  the search starts again; its evaluations are kept", error)
            else:
                names = [field.name for field in fields(Progressed)]
                return archive, Progressed(**{name: getattr(state, name) for name in names})
        for name in (STATE, *FILES):  # also after a first save that was never finished
            (self.path / name).unlink(missing_ok=True)
        return None

    def _read(self, space: SearchSpace) -> tuple[_State, Archive]:
        path = self.path / STATE
        data = read_json(path)
        require_known_version(data, where=path, what=STATE_OF_SEARCH)
        if isinstance(data, dict) and data.keys() & {"check", "archive"}:  # earlier versions: none
            try:
                data = unsealed(data)
            except ValueError as error:
                raise UserError(
                    "the state of a search was modified", **parts_of(error), where=path
                ) from error
        state = load(_State, data, where=path, what=STATE_OF_SEARCH)
        self._require_same(state)
        n_rows, n_evaluated = state.n_rows, state.n_evaluated
        archive = Archive.load(self.path, space, n_rows=n_rows, n_evaluated=n_evaluated)
        if state.archive is not None and state.archive != archive.digests:
            raise UserError(
                "the archive of a search was modified",
                expected=f"the content that hwnas wrote; its hashes are in {STATE}",
                found=UNSEALED,
                where=self.path,
            )
        return state, archive

    def _require_same(self, state: _State) -> None:
        if state.fingerprint != self.fingerprint:
            raise _AnotherSearch(
                "this folder contains another search",
                expected="equal settings, space, limits and seed",
                where=self.path,
                fix="give the search another name, or remove the folder",
            )

    def save(self, archive: Archive, progressed: Progressed) -> None:
        """Appends new records to the archive, then marks them as valid."""
        archive.append_to(self.path)
        state = _State(**vars(progressed), fingerprint=self.fingerprint, archive=archive.digests)
        write_json(self.path / STATE, sealed(dump(state)), indent=None)
