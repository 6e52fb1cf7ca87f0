"""Checks every file of a run folder against its recorded hash or format."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from hwnas.core.commit import commit_file
from hwnas.core.confined import inside
from hwnas.core.errors import UserError
from hwnas.core.history import altered_entries
from hwnas.core.ledger import LEDGER, OWNED
from hwnas.core.rundir import RunDir, StageRecord
from hwnas.core.store import file_hash, iter_jsonl, read_json
from hwnas.core.tensor_file import read_arrays
from hwnas.core.versions import ALTERED, altered_versions
from hwnas.core.yaml_data import is_unaltered, read_yaml
from hwnas.exporters.bundle import MANIFEST_NAME, read_manifest
from hwnas.pipeline.artifacts import Artifacts
from hwnas.pipeline.listings import check_training_rows
from hwnas.pipeline.outside_record import OutsideFiles, copied_device
from hwnas.pipeline.stored import known_searches

__all__ = ["Damage", "Findings", "check_run"]


MISSING = "missing; the next command writes it again"
DATA_MISSING = "missing; `hwnas run` writes it again if the data are those that the stages read"
LIST_MISSING = "missing; hwnas detects changes of these data, but cannot name the changed files"
LEDGER_MISSING = (
    "missing, but results exist; put back a copy, or the next `hwnas run` runs all stages again"
)
EDITED = "changed by hand, or damaged; the next command uses its settings as they are now"
RESULTS = (
    "journal.jsonl",
    *(f"{name}/*" for name in ("bundles", "checkpoints", "labels", "predictor", "tables")),
)
MODEL_ALTERED = "changed after it was timed; made again when needed; `hwnas clean` removes it"
COPY_MISSING = "missing; the next command writes it again if the device's own file exists"
COPY_ALTERED = (
    "changed after hwnas wrote it; the next command writes it again if the device's own file exists"
)


@dataclass(frozen=True)
class Damage:
    """A file with unexpected content. stage: the stage that wrote it; "" if none."""

    file: Path
    problem: str
    stage: str = ""


@dataclass(frozen=True)
class Findings:
    """Damaged files of a run folder.

    hashed, parsed: number of files compared with a hash, and number of other files parsed.
    """

    damages: tuple[Damage, ...]
    hashed: int
    parsed: int


def check_run(run: RunDir) -> Findings:
    """Checks all files of hwnas in a run folder; changes nothing.

    Files of finished stages are compared with the hashes in the ledger, bundles with their
    manifests, and timed models with the plan of their timing. Records of settings and data contain
    a hash of their content, except those of earlier versions. All other files must be readable:
    JSON, tensors, each line of the journal.
    """
    try:
        ledger = run.ledger()
    except UserError as error:
        ledger, found = {}, [Damage(Path(str(error.where).partition(":")[0]), str(error))]
    else:
        found = []
    done = {name: record for name, record in ledger.items() if record.state == "done"}
    known = {path for record in done.values() for path in record.files()}
    found += _altered(run, done)
    own = (*altered_versions(run), *altered_entries(run))
    found += [Damage(path, problem) for path, problem in own]
    found += _missing(run, done)
    found += _copies(run)
    found += _models(run)
    others = [p for p in _owned(run) if str(p.relative_to(run.root)) not in known]
    n_parsed = 0
    for path in others:
        read = _reader(run, path)
        if read is None:
            continue
        n_parsed += 1
        try:
            read(path)
        except UserError as error:
            found.append(Damage(path, str(error)))
    damages = {damage.file: damage for damage in reversed(found)}.values()
    return Findings(tuple(reversed(damages)), len(known), n_parsed)


def _missing(run: RunDir, done: Mapping[str, StageRecord]) -> Iterator[Damage]:
    """Missing records that every run has, and missing records of the data."""
    files = Artifacts(run)
    wanted = {files.environment.path: MISSING} if done else {}
    if any(record.data for record in done.values()):
        wanted[files.data_file] = DATA_MISSING
    with contextlib.suppress(UserError):  # reported elsewhere
        if (known := files.data.read_if_there()) is not None:
            wanted |= {files.data_files(seen.digest).path: LIST_MISSING for seen in known.seen}
    if any(True for pattern in RESULTS for _ in run.root.glob(pattern)):
        wanted[run.path(LEDGER)] = LEDGER_MISSING
    wanted |= dict.fromkeys(_sealed(run), MISSING)
    for path, problem in wanted.items():
        if not path.is_file():
            yield Damage(path, problem)


def _sealed(run: RunDir) -> Iterator[Path]:
    """Records of settings that exist if this version stored the settings of the folder."""
    files = Artifacts(run)
    with contextlib.suppress(UserError):  # a damaged file is reported elsewhere
        host = read_json(files.environment.path)
        if not isinstance(host, dict) or "check" not in host:
            return
        if any(files.device_copy("x").parent.glob("*.yaml")):
            yield files.outside.path
        yield from map(files.of_search, known_searches(run))


def _require_unaltered(path: Path) -> None:
    """Checks that a configuration is as hwnas wrote it.

    Raises:
        UserError: it was edited, or cannot be read.
    """
    if not is_unaltered(path):
        raise UserError(EDITED, where=path)


def _copies(run: RunDir) -> Iterator[Damage]:
    """Copies of device definitions that differ from their recorded hash."""
    files = Artifacts(run)
    with contextlib.suppress(UserError):  # a damaged record is reported elsewhere
        for one in (files.outside.read_if_there() or OutsideFiles()).files:
            name = copied_device(one)
            if name is None:
                continue
            path = files.device_copy(name)
            if not path.is_file():
                yield Damage(path, COPY_MISSING)
            elif file_hash(path) != one.sha256:
                yield Damage(path, COPY_ALTERED)


def _models(run: RunDir) -> Iterator[Damage]:
    """Timed models that differ from the hash in their plan. Missing ones may have been removed."""
    for plan in (path for path in _owned(run) if fnmatch(path.name, "plan*.json")):
        with contextlib.suppress(UserError, KeyError, TypeError):  # reported elsewhere
            for item in read_json(plan)["items"]:
                model = inside(plan.parent, str(item["file"]))
                if model.is_file() and file_hash(model) != item["sha256"]:
                    yield Damage(model, MODEL_ALTERED)


def _altered(run: RunDir, done: Mapping[str, StageRecord]) -> Iterator[Damage]:
    for stage, record in done.items():
        for name in (*run.altered(record.files()), *run.rewritten(record)):
            yield Damage(run.path(name), ALTERED, stage)


def _require_same_data(files: Artifacts, path: Path) -> None:
    """Checks that the file list of a data set matches its record in data.json.

    Raises:
        UserError: they differ, or the list cannot be read.
    """
    listed, known = files.data_files(path.stem).read(), files.data.read_if_there()
    for seen in () if known is None else known.seen:
        if seen.digest == path.stem and dict(seen.info.digests) != dict(listed.digests):
            raise UserError(
                "the file list of a data set does not match its record in data.json: one of the"
                " two files was changed",
                where=path,
                fix="restore a copy of the file that was changed",
            )


def _owned(run: RunDir) -> list[Path]:
    found = [path for pattern in OWNED for path in sorted(run.root.glob(pattern))]
    below = [sorted(path.rglob("*")) if path.is_dir() else [path] for path in found]
    return [path for paths in below for path in paths if path.is_file()]


def _reader(run: RunDir, path: Path) -> Callable[[Path], object] | None:
    """Reader for a file without a hash; None if its format cannot reveal damage."""
    files = Artifacts(run)
    if path == run.journal_file:
        return lambda _: sum(1 for _ in run.journaled("evaluation"))
    if path == run.metrics_file:
        return lambda _: check_training_rows(run)
    if path == files.data_file:
        return lambda _: files.data.read()
    if path.parent == files.data_files("x").path.parent:
        return lambda _: _require_same_data(files, path)
    if path == files.environment.path:
        return lambda _: files.environment.read()
    if path == files.outside.path:
        return lambda _: files.outside.read()
    if path == (unfinished := commit_file(run.root)).path:
        return lambda _: unfinished.read()
    if files.is_config(path):
        return _require_unaltered
    if path.name == MANIFEST_NAME:
        return lambda manifest: read_manifest(manifest.parent)
    if path.suffix == ".json" and path.stem.startswith("step-"):
        from hwnas.training.checkpoint import read_meta

        return read_meta
    return {
        ".json": read_json,
        ".jsonl": lambda lines: sum(1 for _ in iter_jsonl(lines)),
        ".yaml": read_yaml,
        ".safetensors": lambda tensors: read_arrays(tensors, "cannot read the tensors"),
    }.get(path.suffix)
