"""Moves files of stages to superseded/ when settings change, and back.

`superseded/<stage>-<hash>/` stores the files of a stage under their old paths, and `stage.json`,
its ledger entry. Folders without this entry (of earlier versions, or with damaged files) are never
moved back.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from hwnas.core.command import command_line
from hwnas.core.commit import Commit, commit
from hwnas.core.errors import UserError
from hwnas.core.records import STRICT, RecordFile
from hwnas.core.rundir import LEDGER, Ledger, RunDir, StageRecord, safe_record

__all__ = [
    "ALTERED",
    "FACTS",
    "Transition",
    "Version",
    "altered_versions",
    "find_version",
    "set_aside_folders",
]

log = logging.getLogger(__name__)

SUPERSEDED = "superseded"
ALTERED = "changed after hwnas wrote it, or missing"
FACTS = "stage.json"
DAMAGED = "damaged"
COMES_BACK = re.compile("-[0-9a-f]{16}(-[0-9]+)?$")  # at the end of a folder that has `stage.json`


@dataclass(frozen=True)
class Version:
    """Files of a stage in superseded/ and their ledger entry; `folder` is run-relative."""

    folder: str
    record: StageRecord


@dataclass(frozen=True)
class _Facts:
    """Content of `stage.json`."""

    __pydantic_config__ = STRICT

    stage: str
    record: StageRecord


def _facts_file(path: Path) -> RecordFile[_Facts]:
    return RecordFile(path, _Facts, is_sealed=True)


def find_version(run: RunDir, stage: str, fits: Callable[[StageRecord], bool]) -> Version | None:
    """Finds files of a stage in superseded/ whose ledger entry `fits`.

    Finished and intact files are preferred to those of an unfinished stage. None if there are
    neither.
    """
    found = None
    for path in sorted(run.path(SUPERSEDED).glob(f"*/{FACTS}")):
        try:
            facts = _facts_file(path).read()
            record = safe_record(facts.record, where=str(path))
            if facts.stage != stage or not fits(record):
                continue
            folder = f"{SUPERSEDED}/{path.parent.name}"
            if record.state == "done" and run.intact(record, folder):
                return Version(folder, record)
        except UserError as error:
            log.debug("superseded files are not used: %s", error)
            continue
        if record.state == "started":
            found = Version(folder, record)
    return found


def altered_versions(run: RunDir) -> Iterator[tuple[Path, str]]:
    """Files in superseded/ that cannot be moved back, and why: damaged, missing or unreadable."""
    remove = command_line("clean", run.root)
    gone = f"missing, so hwnas cannot use the files beside it; to remove them: {remove}"
    for folder in set_aside_folders(run):
        if COMES_BACK.search(folder.name) and not (folder / FACTS).exists():
            yield folder / FACTS, gone
    for path in sorted(run.path(SUPERSEDED).glob(f"*/{FACTS}")):
        try:
            facts = _facts_file(path).read()
            record = safe_record(facts.record, where=str(path))
        except UserError as error:
            yield path, str(error)
            continue
        if record.state == "done":
            within = f"{SUPERSEDED}/{path.parent.name}"
            for name in run.altered(record.files(), within=within):
                yield run.path(within, name), ALTERED


def set_aside_folders(run: RunDir) -> list[Path]:
    """The folders in superseded/, one for each stage and hash."""
    there = run.path(SUPERSEDED)
    return sorted(there.iterdir()) if there.is_dir() else []


class Transition:
    """Changes of the ledger and of the files of stages, prepared in memory and committed as one.

    ledger: the entries of the stages. changes: highest number of an entry in history/.
    """

    def __init__(self, run: RunDir) -> None:
        before = run.whole_ledger()
        self.ledger, self.changes = dict(before.stages), before.changes
        self._run = run
        self._moves: list[tuple[str, str]] = []
        self._copies: list[tuple[str, str]] = []
        self._texts: dict[str, str | None] = {}

    def set_aside(
        self,
        stage: str,
        owns: Iterable[str],
        *,
        label: str | None = None,
        stays: Container[str] = (),
    ) -> str | None:
        """Moves the files at `owns` to superseded/ and forgets the stage. Returns the folder.

        Files at `stays` are copied instead, so that they can be used until they are replaced.
        The name of the folder ends with the hash of the inputs, or with `label`. Files are never
        moved back if there is a `label`, or if the stage had damaged or missing files.
        """
        record = self.ledger.pop(stage, None)
        names = [name for name in owns if self._run.path(name).exists()]
        if not names:
            return None
        is_whole = record is not None and self._is_whole(record)
        suffix = label or ("unrecorded" if record is None else record.inputs_hash)
        suffix += "" if label or record is None or is_whole else f"-{DAMAGED}"
        folder = self._free(f"{stage.replace('/', '-')}-{suffix}")
        for name in names:
            steps = self._copies if name in stays else self._moves
            steps.append((name, f"{folder}/{name}"))
        if label is None and record is not None and is_whole:
            facts = _Facts(stage, replace(record, owns=tuple(owns), undo=0))
            name = f"{folder}/{FACTS}"
            self._texts[name] = _facts_file(self._run.path(name)).text(facts)
        return folder

    def _is_whole(self, record: StageRecord) -> bool:
        return record.state != "done" or not self._run.altered(record.files())

    def bring_back(self, stage: str, version: Version, owns: Iterable[str]) -> str | None:
        """Moves a version to `owns`. Files there are set aside first; returns their folder."""
        names = dict.fromkeys([*owns, *version.record.owns])
        moved = self.set_aside(stage, names)
        inside = [name for name in names if self._run.path(version.folder, name).exists()]
        self._moves += [(f"{version.folder}/{name}", name) for name in inside]
        self._texts[f"{version.folder}/{FACTS}"] = None
        self.ledger[stage] = version.record
        return moved

    def write(self, texts: dict[str, str | None]) -> None:
        """Replaces files by run-relative path; None removes a file."""
        self._texts.update(texts)

    def commit(self) -> None:
        """Applies all changes. A kill before the commit is written leaves everything unchanged.

        Raises:
            UserError: a system call fails; the next command completes the changes.
        """
        texts = dict(self._texts)
        if (now := Ledger(self.ledger, self.changes)) != self._run.whole_ledger():
            texts[LEDGER] = now.text()
        commit(self._run.root, Commit(tuple(self._moves), texts, tuple(self._copies)))

    def _free(self, name: str) -> str:
        """An unused folder name in superseded/."""
        taken = {target for _, target in (*self._moves, *self._copies)}
        base = folder = f"{SUPERSEDED}/{name}"
        n = 1
        while self._run.path(folder).exists() or any(t.startswith(f"{folder}/") for t in taken):
            n += 1
            folder = f"{base}-{n}"
        return folder
