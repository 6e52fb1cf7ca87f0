"""The ledger of a run folder: which stages are done, with which inputs, and what they wrote."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from hwnas.core.confined import check_name, require_below
from hwnas.core.errors import UserError
from hwnas.core.records import STRICT, dump, load
from hwnas.core.store import content_hash, json_text, read_json

__all__ = ["LEDGER", "OWNED", "StageRecord", "ledger_text", "read_ledger", "safe_record"]

LEDGER = "stages.json"
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
"""Name patterns of all that hwnas has directly in a run folder; what else is there stays alone."""


@dataclass(frozen=True)
class StageRecord:
    """One line of the ledger. `outputs`: run-relative path to sha256 of every file promised.

    `data`: digest of the data that the stage read; None if it reads none, or was recorded by a
    version that did not look. owns: the paths that the stage writes; empty in ledgers of earlier
    versions. kept: hashes of the other files that the stage left, on which no later stage depends.
    grown: length and hash of journal and metrics when it ended.
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

    def files(self) -> dict[str, str]:
        """Hashes of all files that the stage left, by run-relative path."""
        return self.kept | self.outputs


def ledger_text(stages: Mapping[str, StageRecord]) -> str:
    """The content of the ledger's file."""
    rows = {stage: dump(record, versioned=False) for stage, record in stages.items()}
    return json_text({"schema_version": 1, "check": content_hash(rows), "stages": rows})


def read_ledger(path: Path) -> dict[str, StageRecord]:
    """What is recorded of every stage.

    Raises:
        UserError: not a ledger, not as it was written, or with a name that leads out of the folder.
    """
    try:
        data = read_json(path)
        if not isinstance(data, dict) or not isinstance(data.get("stages"), dict):
            raise UserError("not a stage ledger", where=path)
        check = data.get("check", content_hash(data["stages"]))  # earlier versions had none
        if check != content_hash(data["stages"]) or not set(data) <= _KEYS:
            raise UserError("the ledger is not as it was written", found=check, where=path)
        return {
            name: safe_record(load(StageRecord, record, where=where, versioned=False), where=where)
            for name, record in data["stages"].items()
            for where in [f"{path}:{name}"]
        }
    except UserError as error:
        error.add_way_out(WAY_OUT)
        raise


def safe_record(record: StageRecord, *, where: str) -> StageRecord:
    """The record, of which no name leads out of the run folder.

    Raises:
        UserError: one does.
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
