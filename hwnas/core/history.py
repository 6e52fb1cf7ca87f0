"""History of settings changes, and undo: restores the previous configuration and stages.

`history/NNNN.json` stores what a change replaced. An undo restores this and renames the entry to
`undone-NNNN.json`, which then stores what was undone.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

from hwnas.core.command import command_line
from hwnas.core.commit import finish, is_unfinished
from hwnas.core.confined import holds, read_regular
from hwnas.core.errors import UserError
from hwnas.core.records import STRICT, RecordFile
from hwnas.core.rundir import OWNED, RunDir, StageRecord, safe_record
from hwnas.core.versions import Transition, find_version

__all__ = [
    "Entry",
    "altered_entries",
    "last_entry",
    "needs_settling",
    "settle",
    "store",
    "take_back",
    "text_of",
    "undo",
    "undone_by",
]

log = logging.getLogger(__name__)

NUMBER = re.compile("[0-9]{1,9}")

HISTORY, UNDONE = "history", "undone-"
MISSING = "missing; `hwnas undo` cannot restore the settings in this file, and skips it"
MAX_TEXT = 4 * 1024 * 1024  # maximum size of a configuration in bytes


@dataclass(frozen=True)
class Entry:
    """The state that a change of settings replaced.

    command: the command that made the change.
    at: time in UTC.
    texts: contents of configuration files by run-relative path; None if there was no file.
    stages: the ledger.
    """

    __pydantic_config__ = STRICT

    command: str
    at: str
    texts: dict[str, str | None]
    stages: dict[str, StageRecord] = field(default_factory=dict)


def last_entry(run: RunDir) -> tuple[int, Entry] | None:
    """Number and entry of the change that `undo` would revert; None if there is none."""
    numbers = [int(path.stem) for path in _files(run) if NUMBER.fullmatch(path.stem)]
    return (max(numbers), _entry(run, _name(max(numbers)))) if numbers else None


def store(transition: Transition, run: RunDir) -> int:
    """Adds the command's settings, and a history entry of the previous ones, to `transition`.

    Returns the number of the entry; 0 if the settings did not change.
    """
    settings = run.settings
    texts = {
        name: text
        for name, text in settings.texts.items()
        if not holds(run.path(name), text.encode())
    }
    transition.write(dict(texts))
    if settings.before is None or not texts.keys() & settings.before.keys():
        return 0
    number = transition.changes = max(*_numbers(run), 0, transition.changes) + 1
    entry = Entry(settings.command, _now(), dict(settings.before), run.ledger())
    transition.write({_name(number): _file(run, _name(number)).text(entry)})
    return number


def undo(run: RunDir, *, keep: bool = True) -> Entry:
    """Restores the state before the last change of settings. The caller must hold the lock.

    If the inputs of a stage changed since then, its current files are moved to superseded/, and its
    earlier files are moved back from there.

    keep: whether history/ keeps the undone state.

    Raises:
        UserError: there is no change to undo.
    """
    if (found := last_entry(run)) is None:
        raise UserError(
            "there is nothing to undo",
            expected="a change of settings since the run folder was made",
            where=run.root,
            fix=command_line("status", run.root),
        )
    number, entry = found
    transition = Transition(run)
    for missing in _missing(run):
        if missing > number:
            log.warning("%s is %s", run.path(_name(missing)), MISSING)
    for stage in sorted({*transition.ledger, *entry.stages}):
        now, before = transition.ledger.get(stage), entry.stages.get(stage)
        if now is not None and before is not None and _is_same(now, before):
            continue
        back = None if before is None else find_version(run, stage, partial(_is_same, before))
        owns = () if now is None else now.owns or tuple(now.outputs)
        if back is not None:
            transition.bring_back(stage, back, owns)
        elif before is None:
            transition.set_aside(stage, owns)
    if keep:
        undone = {name: text_of(run.path(name)) for name in entry.texts}
        name = _name(number, UNDONE)
        restored = Entry(entry.command, _now(), undone, run.ledger())
        transition.write({name: _file(run, name).text(restored)})
    else:
        transition.changes = max(_numbers(run) - {number}, default=0)
    transition.write({**entry.texts, _name(number): None})
    transition.commit()
    return entry


def undone_by(run: RunDir) -> set[str]:
    """Run-relative folders in superseded/ whose files the next undo would restore."""
    if (found := last_entry(run)) is None:
        return set()
    ledger = run.ledger()
    back = [
        find_version(run, stage, partial(_is_same, before))
        for stage, before in found[1].stages.items()
        if stage not in ledger or not _is_same(ledger[stage], before)
    ]
    return {version.folder for version in back if version is not None}


def needs_settling(run: RunDir) -> bool:
    """Whether a change was started but not finished; its process may still be running."""
    return is_unfinished(run.root) or bool(_undecided(run.ledger()))


def settle(run: RunDir) -> None:
    """Completes or reverts the unfinished work of a killed process. The caller must hold the lock.

    A commit is completed. A provisional change of settings is undone if its stage is unfinished.
    """
    finish(run.root, OWNED)
    if undecided := _undecided(run.ledger()):
        take_back(run, *undecided)


def take_back(run: RunDir, stage: str, number: int) -> None:
    """Undoes change `number`, whose stage did not finish. The same command resumes the stage."""
    found = last_entry(run)
    if found is not None and found[0] == number:
        undo(run, keep=False)
        log.warning("%s did not finish: the earlier settings and results are restored", stage)
    else:  # its entry was removed by hand
        transition = Transition(run)
        transition.ledger[stage] = replace(transition.ledger[stage], undo=0)
        transition.commit()


def _is_same(one: StageRecord, other: StageRecord) -> bool:
    return one.inputs_hash == other.inputs_hash


def _undecided(ledger: Mapping[str, StageRecord]) -> tuple[str, int] | None:
    for stage, record in ledger.items():
        if record.state == "started" and record.undo:
            return stage, record.undo
    return None


def _files(run: RunDir) -> list[Path]:
    paths = run.path(HISTORY).glob("*.json")
    return [path for path in paths if NUMBER.fullmatch(path.stem.removeprefix(UNDONE))]


def text_of(path: Path) -> str | None:
    """The text of a file; None if it is missing, unreadable, not text, or over `MAX_TEXT` bytes."""
    with contextlib.suppress(OSError, UnicodeDecodeError, UserError):
        return read_regular(path, at_most=MAX_TEXT).decode()
    return None


def _name(number: int, kind: str = "") -> str:
    return f"{HISTORY}/{kind}{number:04d}.json"


def _file(run: RunDir, name: str) -> RecordFile[Entry]:
    return RecordFile(run.path(name), Entry, is_sealed=True)


def _entry(run: RunDir, name: str) -> Entry:
    file = _file(run, name)
    entry = file.read()
    for record in entry.stages.values():
        safe_record(record, where=str(file.path))
    return entry


def altered_entries(run: RunDir) -> Iterator[tuple[Path, str]]:
    """Entries that an undo cannot restore, and why: modified, not readable, or missing."""
    for path in sorted(_files(run)):
        try:
            _entry(run, f"{HISTORY}/{path.name}")
        except UserError as error:
            yield path, str(error)
    for number in _missing(run):
        yield run.path(_name(number)), MISSING


def _missing(run: RunDir) -> list[int]:
    """Numbers of removed entries; entries are numbered from 1 to `Ledger.changes` without gaps."""
    numbers = _numbers(run)
    try:
        last = run.whole_ledger().changes
    except UserError:  # reported elsewhere
        last = 0
    return sorted(set(range(1, max(*numbers, 0, last) + 1)) - numbers)


def _numbers(run: RunDir) -> set[int]:
    """Numbers of all entries, undone ones included."""
    return {int(path.stem.removeprefix(UNDONE)) for path in _files(run)}


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
