"""The folder of one search: its archive, and the state that says how much of it counts."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from hwnas.controller.archive import FILES, Archive
from hwnas.core.errors import UserError
from hwnas.core.records import SCHEMA_VERSION
from hwnas.core.store import read_json, write_json
from hwnas.spaces.space import SearchSpace

__all__ = ["STATE", "Progressed", "SearchFolder"]

STATE = "state.json"
"""File that says how much of the archive counts."""


@dataclass(frozen=True)
class Progressed:
    """How far a search came: what a resumed one continues from, beside the archive.

    `n_rows` and `n_evaluated` of the archive's files belong to it; `searcher` is the searcher's
    own state.
    """

    n_rows: int
    n_evaluated: int
    generation: int
    n_proposals: int
    seconds: float
    searcher: dict[str, Any]


@dataclass(frozen=True)
class SearchFolder:
    """The archive's files and `state.json`; `fingerprint` tells one search from another."""

    path: Path
    fingerprint: str

    def load(self, space: SearchSpace) -> tuple[Archive, Progressed] | None:
        """What was saved last, the archive cut back to it; None of a search that saved nothing.

        Raises:
            UserError: the folder holds another search.
        """
        path = self.path / STATE
        if not path.exists():
            for name in FILES:  # of a first save that was never finished
                (self.path / name).unlink(missing_ok=True)
            return None
        state: dict[str, Any] = read_json(path)
        if not isinstance(state, dict) or state.get("fingerprint") != self.fingerprint:
            raise UserError(
                "this folder holds another search",
                expected="equal settings, space, limits and seed",
                where=self.path,
                fix="give the search another name, or remove the folder",
            )
        try:
            progressed = Progressed(
                **{field.name: state[field.name] for field in fields(Progressed)}
            )
        except KeyError as error:
            raise UserError("broken state of a search", found=repr(error), where=path) from error
        archive = Archive.load(
            self.path, space, n_rows=progressed.n_rows, n_evaluated=progressed.n_evaluated
        )
        return archive, progressed

    def save(self, archive: Archive, progressed: Progressed) -> None:
        """Append what is new in the archive, then say that it counts."""
        archive.append_to(self.path)
        state = {"schema_version": SCHEMA_VERSION, "fingerprint": self.fingerprint}
        write_json(self.path / STATE, state | vars(progressed), indent=None)
