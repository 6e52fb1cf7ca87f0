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
    """The data that a stage reads, as they are now.

    digest: None if they are not here. first: that of the data which the run saw first; stages
    that earlier versions recorded are taken to have read those. change: in words, how the data
    differ from those of another digest. require: raises a `UserError` if they are not here.
    remember: lets the run know that its results are of these data. warnings: what makes results of
    the data doubtful, in sentences; loads the data.
    """

    digest: str | None
    first: str | None
    change: Callable[[str], str]
    require: Callable[[], None]
    remember: Callable[[], None]
    warnings: Callable[[], tuple[str, ...]] = tuple

    def before(self, record: StageRecord) -> str | None:
        """Digest of the data that a recorded stage read; None: not known."""
        return record.data or self.first

    def changed(self, record: StageRecord) -> bool:
        """Whether a recorded stage read other data; False where that is not known."""
        before = self.before(record)
        return self.digest is not None and before is not None and before != self.digest


def inputs_hash(settings: Any, outputs: Mapping[str, Any], data: str | None) -> str:
    """Hash of everything that a stage depends on. `data`: None as in records of earlier versions.

    outputs: hashes of the files of the stages that it needs, by stage.
    """
    return content_hash([settings, dict(outputs), *([] if data is None else [data])])


def why_absent(error: UserError, *, has_files: bool, lenient: bool) -> str:
    """Why the data are not compared with those of the run, in one line.

    error: what reading them ended with. has_files: the data set lies in files of the user.
    lenient: files that are there, but cannot be read as a data set, are no error.

    Raises:
        UserError: `error`, if it is one.
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
