"""The inputs of a stage: settings, outputs of other stages, and the data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hwnas.core.errors import DataAbsent, UserError
from hwnas.core.rundir import StageRecord
from hwnas.core.store import content_hash

__all__ = ["DataInput", "inputs_hash", "why_absent"]


@dataclass(frozen=True)
class DataInput:
    """The current data as an input of a stage.

    digest: None if the data are missing.
    first: digest of the data that the run read first; stages recorded by earlier versions are
        assumed to have read these.
    change: describes how the data differ from those of another digest.
    require: raises a `UserError` if the data are missing.
    remember: records that results of the run depend on these data.
    warnings: problems that make results doubtful, in sentences; loads the data.
    """

    digest: str | None
    first: str | None
    change: Callable[[str], str]
    require: Callable[[], None]
    remember: Callable[[], None]
    warnings: Callable[[], tuple[str, ...]] = tuple

    def before(self, record: StageRecord) -> str | None:
        """Digest of the data that a recorded stage read; None if unknown."""
        return record.data or self.first

    def changed(self, record: StageRecord) -> bool:
        """Whether a recorded stage read other data; False if unknown."""
        before = self.before(record)
        return self.digest is not None and before is not None and before != self.digest


def inputs_hash(settings: Any, outputs: Mapping[str, Any], data: str | None) -> str:
    """Hash of everything on which a stage depends. `data`: None as in records of earlier versions.

    outputs: hashes of the files of the needed stages, by stage.
    """
    return content_hash([settings, dict(outputs), *([] if data is None else [data])])


def why_absent(error: UserError, *, has_files: bool, lenient: bool) -> str:
    """Why the data are not compared with those of the run, in one line.

    error: the error from reading them.
    has_files: whether the data set consists of files of the user.
    lenient: whether files that exist but cannot be read as a data set are accepted.

    Raises:
        UserError: re-raises `error` if the situation is not acceptable.
    """
    is_here = has_files and not isinstance(error, DataAbsent)
    if is_here and not lenient:
        raise error
    facts = [str(error).splitlines()[0]]
    if is_here and error.found is not None:
        facts.append(str(error.found))
    if error.where is not None and (is_here or isinstance(error, DataAbsent)):
        facts.append(str(error.where))
    state = "cannot be read as they are now" if is_here else "are not here"
    return f"the data {state}: {': '.join(facts)}"
