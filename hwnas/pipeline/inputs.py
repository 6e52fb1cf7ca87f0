"""The inputs of a stage: settings, outputs of other stages, and the data."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hwnas.core.errors import DataAbsent, UserError
from hwnas.core.rundir import StageRecord
from hwnas.core.store import content_hash

__all__ = ["DataInput", "changed_settings", "inputs_hash", "settings_by_path", "why_absent"]

SHOWN = 60  # characters of a setting that are kept; of longer ones their hash
N_CHANGES = 3  # changes that a message names


@dataclass(frozen=True)
class DataInput:
    """The current data as an input of a stage.

    digest: None if the data are missing.
    first: digest of the data that the run read first; stages recorded by earlier versions are
        assumed to have read these.
    change: takes the digest of other data, and describes how the current data differ from them.
    require: raises a `UserError` if the data are missing.
    remember: records that results of the run depend on these data.
    warnings: returns sentences about problems that make results doubtful; a call loads the data.
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
        """Whether a recorded stage read other data than the current ones; False if unknown."""
        before = self.before(record)
        return self.digest is not None and before is not None and before != self.digest


def inputs_hash(settings: Any, outputs: Mapping[str, Any], data: str | None) -> str:
    """Hash of everything on which a stage depends.

    outputs: maps each needed stage to the hashes of its output files.
    data: digest of the data; None for the hash of earlier versions, which has no data.
    """
    return content_hash([settings, dict(outputs), *([] if data is None else [data])])


def settings_by_path(names: Sequence[str], settings: Any) -> dict[str, str]:
    """Maps key paths to settings as JSON text; `names`: the path of each item of `settings`."""
    found: dict[str, str] = {}
    for name, value in zip(names, settings if names else (), strict=False):
        _flatten(name, value, found)
    return found


def _flatten(path: str, value: Any, found: dict[str, str]) -> None:
    if isinstance(value, Mapping) and value:
        for key, part in value.items():
            _flatten(f"{path}.{key}", part, found)
        return
    text = json.dumps(value, default=str, ensure_ascii=False)
    found[path] = text if len(text) <= SHOWN else f"#{content_hash(text)[:12]}"


def changed_settings(names: Sequence[str], settings: Any, before: Mapping[str, str]) -> list[str]:
    """Changes of settings since `before`, as `steps: 200 -> 50`; none if `before` is unknown."""
    now = settings_by_path(names, settings) if before else {}
    found = []
    for path in dict.fromkeys([*now, *before]):
        old, new = before.get(path, "-"), now.get(path, "-")
        if old != new:
            is_long = "#" in (old[0], new[0])
            found.append(f"{path} changed" if is_long else f"{path}: {old} -> {new}")
    more = [f"{len(found) - N_CHANGES} more settings changed"] * (len(found) > N_CHANGES)
    return found[:N_CHANGES] + more


def why_absent(error: UserError, *, has_files: bool, lenient: bool) -> str:
    """One line that explains why the data cannot be compared with those that the run recorded.

    error: the error from reading the data.
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
    state = "cannot be read" if is_here else "are not on this machine"
    return f"the data {state}: {': '.join(facts)}"
