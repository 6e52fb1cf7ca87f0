"""The ledger of a run folder: finished stages with their inputs and outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hwnas.core.confined import check_name, holds, require_below
from hwnas.core.errors import UserError
from hwnas.core.records import STRICT, dump, load, require_known_version
from hwnas.core.store import REARRANGED, SEALED, UNSEALED, content_hash, json_text, read_json
from hwnas.core.text import in_words, kind_of

__all__ = [
    "LEDGER",
    "OWNED",
    "Ledger",
    "StageRecord",
    "config_of",
    "read_ledger",
    "safe_record",
]

LEDGER, _CONFIG = "stages.json", "config.yaml"
_KEYS = {"schema_version", "check", "changes", "stages"}
WAY_OUT = (
    "restore a copy of this file, or remove it: the next `hwnas run` then runs the stages again"
    " from the existing timings, evaluations and checkpoints"
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
    """The ledger entry of a stage. `outputs` maps the path of each declared output to its sha256.

    Paths are relative to the run folder. `data`: digest of the data that the stage read; None if
    the stage reads no data, or if a version without such digests recorded it. owns: the paths that
    the stage writes; empty in ledgers of earlier versions. kept: hashes of the other files that the
    stage left, on which no later stage depends. grown: length and hash of journal and metrics when
    the stage ended. settings: the settings on which the stage depended, as JSON by key path, so
    that a plan can name the changed ones; empty in records of earlier versions. undo: number of the
    change of settings that is reverted unless the stage finishes; 0: no change is reverted.
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


@dataclass(frozen=True)
class Ledger:
    """The content of the ledger file.

    stages: the entry of every stage. changes: highest number of an entry in history/. If history/
    lacks that entry, it was removed. 0: no entry, or a ledger of earlier versions.
    """

    stages: Mapping[str, StageRecord]
    changes: int = 0

    def text(self) -> str:
        """The text of the ledger file."""
        rows = {stage: dump(record, versioned=False) for stage, record in self.stages.items()}
        data = {"stages": rows, **({"changes": self.changes} if self.changes else {})}
        return json_text({"schema_version": 1, "check": _check(data), **data})


def _check(data: Mapping[str, Any]) -> str:
    """The hash of a ledger's content; without `changes` it is that of earlier versions."""
    keys = {key: data[key] for key in ("changes", "stages") if key in data}
    return content_hash(keys if len(keys) > 1 else data["stages"])


def config_of(folder: Path) -> Path | None:
    """The stored configuration of a run folder; None if `folder` is not a run folder."""
    found = folder / _CONFIG
    return found if found.is_file() and (folder / LEDGER).is_file() else None


def read_ledger(path: Path) -> Ledger:
    """The content of the ledger file; empty if it does not exist.

    Raises:
        UserError: the file is not a ledger, was modified, or contains a path that leads out of the
            folder.
    """
    if not path.exists():
        return Ledger({})
    try:
        data = read_json(path)
        require_known_version(data, where=path, what="ledger")
        if not isinstance(data, dict) or not isinstance(data.get("stages"), dict):
            raise UserError(
                "the file is not a ledger of stages",
                expected="a JSON object in which the value of `stages` is a JSON object",
                found="no such object under `stages`" if isinstance(data, dict) else kind_of(data),
                where=path,
            )
        _require_unmodified(data, path)
        stages = {
            name: safe_record(
                load(StageRecord, record, where=where, versioned=False, what="entry of a stage"),
                where=where,
            )
            for name, record in data["stages"].items()
            for where in [f"{path}:{name}"]
        }
    except UserError as error:
        error.add_way_out(WAY_OUT)
        raise
    return Ledger(stages, data.get("changes", 0))


def _require_unmodified(data: Mapping[str, Any], path: Path) -> None:
    """Refuses a ledger that this version, or an earlier one, did not write.

    The hash `check`, which earlier versions did not store, covers only `stages` and `changes`.
    """
    version, changes = data.get("schema_version", 1), data.get("changes", 0)
    expected, found = SEALED, ""
    if data.get("check", _check(data)) != _check(data):
        found = UNSEALED
    elif unknown := sorted(set(data) - _KEYS):
        expected, found = "only known keys", f"the unknown key `{unknown[0]:.80}`"
    elif type(version) is not int or version < 1:
        expected, found = "`schema_version`: 1", f"`schema_version`: {in_words(version):.80}"
    elif type(changes) is not int or changes < 0:
        expected, found = "`changes`: a whole number", f"`changes`: {in_words(changes):.80}"
    elif "check" in data and not holds(path, json_text(data).encode()):
        found = REARRANGED
    if found:
        raise UserError("the ledger was modified", expected=expected, found=found, where=path)


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
        require_below(OWNED, name, "the ledger lists a file that hwnas does not own", where=where)
    return record
