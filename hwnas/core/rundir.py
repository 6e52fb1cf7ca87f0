"""The run folder: its ledger, which records finished stages, its journal and its metrics.

config.yaml       resolved configuration, as last used      env.json      host and versions
stages.json       ledger: hash and outputs of every stage   journal.jsonl every evaluation
metrics.jsonl     training curves                           data.json     facts on the data
identities/  checkpoints/  tables/  labels/
outside/          copies of the device files that settings name, and hashes of the other files
predictor/        search/<name>/                            bundles/<name>/<device>/
report.html       history/     earlier configurations (`core/history.py`)
superseded/       files of stages with other settings (`core/versions.py`), until `hwnas clean`
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hwnas.core.command import command_line
from hwnas.core.confined import check_folder, inside
from hwnas.core.errors import UserError, parts_of
from hwnas.core.ledger import LEDGER, OWNED, Ledger, StageRecord, read_ledger, safe_record
from hwnas.core.locks import exclusive_lock, require_readable
from hwnas.core.owners import owner_of
from hwnas.core.store import (
    append_jsonl,
    explained,
    file_hash,
    iter_jsonl,
    sealed,
    unsealed,
    write_text,
)
from hwnas.core.thinned import Thinned

MAX_METRICS = 10_000  # rows of a curve in memory
REBUILT = "models"  # names of folders whose files can be rebuilt

__all__ = [
    "LEDGER",
    "OWNED",
    "Ledger",
    "NewSettings",
    "RunDir",
    "StageRecord",
    "safe_record",
]


@dataclass(frozen=True)
class NewSettings:
    """The configuration of a command, which is stored after all its checks have passed.

    texts: contents of files by run-relative path.
    before: contents that an undo restores, by run-relative path (None: it removes the file). None
        if the settings did not change.
    command: name of the command in the history.
    options: options of the command, as text.
    stored: called when everything is stored.
    """

    texts: Mapping[str, str] = field(default_factory=dict)
    before: Mapping[str, str | None] | None = None
    command: str = ""
    options: str = ""
    stored: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class RunDir:
    """Paths and ledger of one run folder. All writes are atomic, by one process at a time.

    settings: settings that the current command has not stored yet.
    """

    root: Path
    settings: NewSettings = NewSettings()

    def path(self, *parts: str) -> Path:
        """A path inside the folder.

        Raises:
            UserError: the path leads out of the folder, or through a link in it.
        """
        return inside(self.root, *parts)

    def check(self) -> None:
        """Checks that the entries of hwnas in the folder are folders and regular files.

        The folder itself may be reached through a link. Other entries (.git, .venv, photos) are not
        checked.

        Raises:
            UserError: names a link, pipe or device, which could make hwnas access other places or
                hang; or the folder must not be read.
        """
        with explained("look into the run folder", self.root):
            require_readable(self.root)
            check_folder(self.root, OWNED)

    def made(self, path: Path, verb: str) -> Path:
        """Returns `path` if the file exists and matches the ledger.

        Raises:
            UserError: the file is missing or does not match; names `hwnas VERB`, which creates it.
        """
        command = command_line(*verb.split(), self.root)
        if not path.is_file():
            raise self.not_made(path, command)
        name = str(path.relative_to(self.root))
        for record in self.ledger().values():
            if name in record.outputs and self.altered({name: record.outputs[name]}):
                raise UserError("a file was modified after hwnas wrote it", where=path, fix=command)
        return path

    def not_made(self, path: Path, command: str) -> UserError:
        """The error for a file that does not exist yet; `command` creates it."""
        return UserError("this file does not exist yet", where=path, fix=command)

    def matching(self, pattern: str) -> list[Path]:
        """Files in the folder that match a run-relative pattern; at least one must exist."""
        return sorted(self.root.glob(pattern)) if "*" in pattern else [self.path(pattern)]

    @contextlib.contextmanager
    def locked(self, owner: str) -> Iterator[None]:
        """Holds the lock of the folder. A second process gets a UserError.

        If the folder was created for the lock and is still empty at the end, it is removed.
        """
        is_new = not self.root.exists()
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except (OSError, ValueError) as error:  # ValueError: a null byte in the name
            raise UserError(
                "cannot create the run folder",
                found=str(error),
                where=self.root,
                fix="use another run folder",
            ) from error
        if not os.access(self.root, os.W_OK):
            raise UserError(
                "cannot write into the run folder",
                found=f"a folder of {owner_of(self.root)}",
                where=self.root,
                fix="change its owner, or use another run folder",
            )
        with exclusive_lock(self.path(".lock"), owner=owner):
            try:
                yield
            finally:
                if is_new and [path.name for path in self.root.iterdir()] == [".lock"]:
                    self.path(".lock").unlink()
                    self.root.rmdir()

    @property
    def journal_file(self) -> Path:
        """The journal of evaluations."""
        return self.path("journal.jsonl")

    @property
    def metrics_file(self) -> Path:
        """The file of training curves."""
        return self.path("metrics.jsonl")

    # --- journal and metrics ------------------------------------------------------------------

    def journal(self, kind: str, row: dict[str, Any]) -> None:
        """Appends a row of a kind to the journal; returns when it is on the disk (fsync)."""
        append_jsonl(self.journal_file, sealed({"kind": kind, **row}))

    def journaled(self, kind: str) -> Iterator[dict[str, Any]]:
        """The journal's rows of a kind, in the order written, one at a time.

        Raises:
            UserError: a line is damaged or was modified.
        """
        path = self.journal_file
        for number, row in enumerate(iter_jsonl(path), start=1):
            try:
                plain = unsealed(row)
            except ValueError as error:
                raise UserError(
                    "a line of the journal was altered",
                    **parts_of(error),
                    where=f"{path}:{number}",
                    fix="remove this line; its result will be measured again",
                ) from error
            if plain.get("kind") == kind:
                yield plain

    def metric(self, stage: str, row: dict[str, Any]) -> None:
        """Appends a line of training metrics, marked with the ledger entry of the stage."""
        row = {"stage": stage, "inputs": self._inputs_of(stage), **row}
        append_jsonl(self.metrics_file, row)

    def metric_rows(self, stage: str, key: str = "step") -> Iterator[dict[str, Any]]:
        """The metric rows of a stage that have `key`, in the order written, one at a time.

        Raises:
            UserError: a line is damaged, or its `key` is not a number.
        """
        path, problem = self.metrics_file, f"a row of training metrics has no number under `{key}`"
        for number, row in enumerate(iter_jsonl(path), start=1):
            if row.get("stage") == stage and key in row:
                if type(row[key]) not in (int, float):
                    raise UserError(problem, found=f"{row[key]!r:.80}", where=f"{path}:{number}")
                yield row

    def metrics(
        self, stage: str, key: str = "step", *, at_most: int = MAX_METRICS
    ) -> list[dict[str, Any]]:
        """Metric rows of a stage sorted by `key`; a step repeated after a resume counts once.

        Rows that were written with other settings are left out. Rows of earlier versions have no
        mark; those before the first marked row are included. At most `at_most` rows are returned,
        evenly spread over `key`, including the last one.
        """
        inputs = self._inputs_of(stage)
        own, old, latest = (Thinned[dict[str, Any]](at_most) for _ in range(3))
        for row in self.metric_rows(stage, key):
            if row.get("inputs", "") == inputs:
                own.add(row[key], row)
            elif "inputs" not in row:
                old.add(row[key], row)
        before = [(at, row) for at, row in old.items() if own.least is None or at < own.least]
        for at, row in (*before, *own.items()):
            latest.add(at, row)
        return [row for _, row in latest.items()]

    def _inputs_of(self, stage: str) -> str | None:
        record = self.ledger().get(stage)
        return None if record is None else record.inputs_hash

    # --- ledger -------------------------------------------------------------------------------

    def whole_ledger(self) -> Ledger:
        """The content of the ledger file; raises as `read_ledger`."""
        return read_ledger(self.path(LEDGER))

    def ledger(self) -> dict[str, StageRecord]:
        """The ledger entry of every stage; raises as `read_ledger`."""
        return dict(self.whole_ledger().stages)

    def record(self, name: str, record: StageRecord) -> None:
        """Writes the ledger entry of one stage."""
        now = self.whole_ledger()
        write_text(self.path(LEDGER), replace(now, stages={**now.stages, name: record}).text())

    def hash_outputs(self, paths: list[Path]) -> dict[str, str]:
        """sha256 of files by run-relative path."""
        return {str(path.relative_to(self.root)): file_hash(path) for path in sorted(paths)}

    def left_by(self, owns: Iterable[str]) -> list[Path]:
        """All files at or below run-relative paths, except models built for timing.

        Those models are many, and hwnas rebuilds them if they are missing or changed.
        """
        found: list[Path] = []
        for path in map(self.path, owns):
            below = path.rglob("*") if path.is_dir() else [path]
            found += [one for one in below if one.is_file() and REBUILT not in one.parts]
        return found

    def intact(self, record: StageRecord, within: str = "") -> bool:
        """Whether every declared output exists with its recorded content.

        within: run-relative folder of the files, if they are in superseded/.
        """
        return record.state == "done" and not self.altered(record.outputs, within=within)

    def damaged(self, record: StageRecord) -> list[str]:
        """Declared outputs that exist with other content."""
        return [name for name in self.altered(record.outputs) if self.path(name).is_file()]

    def grown(self) -> dict[str, tuple[int, str]]:
        """Current length and hash of the append-only files, by name."""
        paths = [path for path in (self.journal_file, self.metrics_file) if path.is_file()]
        sizes = {path: path.stat().st_size for path in paths}
        return {path.name: (n, file_hash(path, at_most=n)) for path, n in sizes.items()}

    def rewritten(self, record: StageRecord) -> list[str]:
        """Append-only files that no longer begin with the content that the stage left in them."""
        return [
            name
            for name, (n_bytes, digest) in record.grown.items()
            for path in [self.path(name)]
            if not path.is_file() or file_hash(path, at_most=n_bytes) != digest
        ]

    def altered(self, hashes: Mapping[str, str], within: str = "") -> list[str]:
        """The given files (hashes by run-relative path) that are missing or have other content."""
        paths = {name: self.path(*filter(None, [within, name])) for name in hashes}
        return [
            name
            for name, path in paths.items()
            if not path.is_file() or file_hash(path) != hashes[name]
        ]
