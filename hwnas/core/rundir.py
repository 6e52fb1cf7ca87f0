"""The run folder: where everything of one project lives, and the ledger of what is up to date.

config.yaml       resolved configuration, as last used      env.json      host and versions
stages.json       ledger: hash and outputs of every stage   journal.jsonl every evaluation
metrics.jsonl     training curves                           data.json     which data were read
data/  checkpoints/  tables/  labels/
predictor/        search/<name>/                            bundles/<name>/<device>/
report.html       superseded/  what a changed setting made stale; nothing is deleted
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from hwnas.core.confined import check_folder, check_name, inside
from hwnas.core.errors import UserError
from hwnas.core.records import STRICT, dump, load
from hwnas.core.store import (
    append_jsonl,
    content_hash,
    exclusive_lock,
    explained,
    file_hash,
    read_json,
    read_jsonl,
    write_json,
)

__all__ = ["OWNED", "RunDir", "StageRecord"]

OWNED = (
    *("config.yaml", "env.json", "stages.json", "journal.jsonl", "metrics.jsonl", ".lock"),
    *("bundles", "checkpoints", "labels", "predictor", "rounds", "search", "superseded"),
    *("tables", "tensorboard", "report*.html"),
)
"""Name patterns of all that hwnas has directly in a run folder; what else is there stays alone."""


@dataclass(frozen=True)
class StageRecord:
    """One line of the ledger. `outputs`: run-relative path to sha256 of every file promised.

    `data`: digest of the data that the stage read; None if it reads none, or was recorded by a
    version that did not look.
    """

    __pydantic_config__ = STRICT

    inputs_hash: str
    state: Literal["started", "done"]
    outputs: dict[str, str]
    seconds: float
    data: str | None = None


@dataclass(frozen=True)
class RunDir:
    """Paths and ledger of one run folder. All writes are atomic; one process at a time."""

    root: Path

    def path(self, *parts: str) -> Path:
        """A path inside the folder.

        Raises:
            UserError: it would lead out of it, or through a link in it.
        """
        return inside(self.root, *parts)

    def check(self) -> None:
        """Check that what hwnas owns in the folder are folders and regular files.

        Raises:
            UserError: names a link, pipe or device, through which hwnas would read or write
                elsewhere, or hang. The folder itself may be reached through a link; what others
                have in it (.git, .venv, photos) is not looked at.
        """
        with explained("look into the run folder", self.root):
            check_folder(self.root, OWNED)

    def made(self, path: Path, verb: str) -> Path:
        """`path`, if the file is there.

        Raises:
            UserError: it is not; `hwnas VERB` makes it.
        """
        if not path.is_file():
            raise self.not_made(path, f"hwnas {verb} {self.root}")
        return path

    def not_made(self, path: Path, command: str) -> UserError:
        """The error for a file that a command is yet to make."""
        return UserError("this is not made yet", expected="a file", where=path, fix=command)

    def matching(self, pattern: str) -> list[Path]:
        """Files inside the folder that a run-relative pattern names; one that must be there."""
        return sorted(self.root.glob(pattern)) if "*" in pattern else [self.path(pattern)]

    @contextlib.contextmanager
    def locked(self, owner: str) -> Iterator[None]:
        """Hold the folder's lock; a second process is refused with a UserError."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
            raise UserError(
                "cannot create the run folder",
                found=str(error),
                where=self.root,
                fix="give another folder with --run",
            ) from error
        if not os.access(self.root, os.W_OK):
            raise UserError(
                "cannot write into the run folder",
                where=self.root,
                fix="change who owns it, or give another folder with --run",
            )
        with exclusive_lock(self.path(".lock"), owner=owner):
            yield

    @property
    def journal_file(self) -> Path:
        """Where evaluations are journaled."""
        return self.path("journal.jsonl")

    # --- journal and metrics ------------------------------------------------------------------

    def journal(self, kind: str, row: dict[str, Any]) -> None:
        """Append one fsynced line {kind, ...row}: an input that later steps rely on."""
        row = {"kind": kind, **row}
        append_jsonl(self.journal_file, {**row, "check": content_hash(row)})

    def journaled(self, kind: str) -> list[dict[str, Any]]:
        """All journal rows of a kind, in the order written.

        Raises:
            UserError: a line is broken, or is not as it was written.
        """
        path = self.journal_file
        rows = read_jsonl(path)
        for number, row in enumerate(rows, start=1):
            check = row.pop("check", None)
            if check != content_hash(row):
                raise UserError(
                    "a line of the journal is not as it was written",
                    expected=f"check {content_hash(row)}",
                    found=check,
                    where=f"{path}:{number}",
                    fix="remove this line; its result is measured again",
                )
        return [row for row in rows if row.get("kind") == kind]

    def metric(self, stage: str, row: dict[str, Any]) -> None:
        """Append a line of training metrics."""
        append_jsonl(self.path("metrics.jsonl"), {"stage": stage, **row})

    def metrics(self, stage: str, key: str = "step") -> list[dict[str, Any]]:
        """Metric rows of a stage sorted by `key`; a step repeated after a resume counts once."""
        rows = (row for row in read_jsonl(self.path("metrics.jsonl")) if row.get("stage") == stage)
        latest = {row[key]: row for row in rows if key in row}
        return [latest[value] for value in sorted(latest)]

    # --- ledger -------------------------------------------------------------------------------

    def ledger(self) -> dict[str, StageRecord]:
        """What is recorded of every stage.

        Raises:
            UserError: not a ledger, or one with a name that leads out of the folder.
        """
        path = self.path("stages.json")
        if not path.exists():
            return {}
        data = read_json(path)
        if not isinstance(data, dict) or not isinstance(data.get("stages"), dict):
            raise UserError("not a stage ledger", where=path, fix="restore it, or use a new folder")
        return {
            name: _record(record, where=f"{path}:{name}") for name, record in data["stages"].items()
        }

    def record(self, name: str, record: StageRecord) -> None:
        """Write one stage's line of the ledger."""
        self._write_ledger({**self.ledger(), name: record})

    def _write_ledger(self, stages: dict[str, StageRecord]) -> None:
        rows = {stage: dump(stages[stage], versioned=False) for stage in stages}
        write_json(self.path("stages.json"), {"schema_version": 1, "stages": rows})

    def forget(self, name: str) -> None:
        """Remove one stage from the ledger, as if it had never run."""
        stages = {stage: record for stage, record in self.ledger().items() if stage != name}
        self._write_ledger(stages)

    def hash_outputs(self, paths: list[Path]) -> dict[str, str]:
        """sha256 of files by run-relative path."""
        return {str(path.relative_to(self.root)): file_hash(path) for path in sorted(paths)}

    def intact(self, record: StageRecord) -> bool:
        """Whether every promised output is there with its recorded content."""
        return record.state == "done" and all(
            self.path(name).is_file() and file_hash(self.path(name)) == digest
            for name, digest in record.outputs.items()
        )

    def damaged(self, record: StageRecord) -> list[Path]:
        """Promised outputs that are there, but with another content."""
        paths = {self.path(name): digest for name, digest in record.outputs.items()}
        return [path for path in paths if path.is_file() and file_hash(path) != paths[path]]

    def supersede(self, stage: str, inputs_hash: str, owned: list[Path]) -> Path | None:
        """Move a stale stage's files to superseded/<stage>-<hash>/; returns where, None if none."""
        existing = [path for path in owned if path.exists()]
        if not existing:
            return None
        base = self.path("superseded", f"{stage.replace('/', '-')}-{inputs_hash}")
        target, n = base, 1
        while target.exists():
            n += 1
            target = base.with_name(f"{base.name}-{n}")
        for path in existing:
            destination = target / path.relative_to(self.root)
            destination.parent.mkdir(parents=True, exist_ok=True)
            path.replace(destination)
        return target


def _record(data: Any, *, where: str) -> StageRecord:
    """A line of the ledger, of which no name leads out of the run folder."""
    record = load(StageRecord, data, where=where, versioned=False)
    for name in (record.inputs_hash, *record.outputs):  # both become parts of paths
        check_name(name, where=where)
    for name in record.outputs:
        if not any(fnmatchcase(name.partition("/")[0], pattern) for pattern in OWNED):
            raise UserError(
                "a stage's output is no file of hwnas",
                expected=f"a name below one of {', '.join(OWNED)}",
                found=repr(name),
                where=where,
            )
    return record
