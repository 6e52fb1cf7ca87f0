"""The ledger of a run folder: finished stages with their inputs and outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from hwnas.core.confined import check_name, holds, require_below
from hwnas.core.errors import UserError
from hwnas.core.records import STRICT, dump, load
from hwnas.core.store import content_hash, json_text, read_json

__all__ = [
    "LEDGER",
    "OWNED",
    "StageRecord",
    "config_of",
    "ledger_text",
    "read_ledger",
    "safe_record",
]

LEDGER, _CONFIG = "stages.json", "config.yaml"
_KEYS = {"schema_version", "check", "stages"}
WAY_OUT = (
    "put back a copy of this file; or remove it: the next `hwnas run` makes the stages again, from"
    " the timings, evaluations and checkpoints that the folder has"
)

OWNED = (
    *("config.yaml", "env.json", "stages.json", "journal.jsonl", "metrics.jsonl", ".lock"),
    *("bundles", "checkpoints", "labels", "predictor", "rounds", "search", "superseded"),
    *("tables", "tensorboard", "report*.html", "history", "commit.json"),
    *("data.json", "identities", "outside"),
)
"""Name patterns of the entries that hwnas owns in a run folder. Other entries are never touched."""


@dataclass(frozen=True)
class StageRecord:
    """The ledger entry of a stage. `outputs`: run-relative path to sha256 of every declared output.

    `data`: digest of the data that the stage read; None if it reads none, or was recorded by a
    version that did not look. owns: the paths that the stage writes; empty in ledgers of earlier
    versions. kept: hashes of the other files that the stage left, on which no later stage depends.
    grown: length and hash of journal and metrics when it ended. settings: what the stage depended
    on, as JSON by key path, to say later which of it changed; empty in earlier versions.
    undo: number of the change of settings that counts only if the stage is finished; 0:
    it counts in any case.
    """

    __pydantic_config__ = STRICT

    inputs_hash: str
    state: Literal["started", "done"]
    outputs: dict[str, str]
    seconds: float
    data: str | None = None
    owns: tuple[str, ...] = ()
    undo: int = 0
    kept: dict[str, str] = field(default_factory=dict)
    grown: dict[str, tuple[int, str]] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)

    def files(self) -> dict[str, str]:
        """Hashes of all files of the stage, by run-relative path."""
        return self.kept | self.outputs


def ledger_text(stages: Mapping[str, StageRecord]) -> str:
    """The text of the ledger file."""
    rows = {stage: dump(record, versioned=False) for stage, record in stages.items()}
    return json_text({"schema_version": 1, "check": content_hash(rows), "stages": rows})


def config_of(folder: Path) -> Path | None:
    """The stored configuration of a run folder; None if `folder` is none."""
    found = folder / _CONFIG
    return found if found.is_file() and (folder / LEDGER).is_file() else None


def read_ledger(path: Path) -> dict[str, StageRecord]:
    """The ledger entry of every stage.

    Raises:
        UserError: the file is not a ledger, was modified, or contains a path that leads out of the
            folder.
    """
    try:
        data = read_json(path)
        if not isinstance(data, dict) or not isinstance(data.get("stages"), dict):
            raise UserError("not a stage ledger", where=path)
        check = data.get("check", content_hash(data["stages"]))  # earlier versions stored no hash
        is_known = set(data) <= _KEYS and data.get("schema_version", 1) == 1
        is_known = is_known and ("check" not in data or holds(path, json_text(data).encode()))
        if check != content_hash(data["stages"]) or not is_known:
            raise UserError("the ledger was modified", found=check, where=path)
        return {
            name: safe_record(load(StageRecord, record, where=where, versioned=False), where=where)
            for name, record in data["stages"].items()
            for where in [f"{path}:{name}"]
        }
    except UserError as error:
        error.add_way_out(WAY_OUT)
        raise


def safe_record(record: StageRecord, *, where: str) -> StageRecord:
    """Returns the record after checking that none of its paths leads out of the run folder.

    Raises:
        UserError: a path leads out of it.
    """
    for name in (
        record.inputs_hash,
        *record.files(),
        *record.grown,
        *record.owns,
    ):  # all become parts of paths
        check_name(name, where=where)
    for name in (*record.files(), *record.owns):
        require_below(OWNED, name, "a stage's file is none of hwnas", where=where)
    return record
