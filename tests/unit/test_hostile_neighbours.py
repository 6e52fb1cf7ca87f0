"""A run folder among other people's files: hard-linked copies, and what hwnas does not own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import hwnas
from hwnas.controller.record_log import append_records, cut_records, read_records
from hwnas.core.confined import check_folder, open_private, open_unlinked, unshare
from hwnas.core.errors import UserError
from hwnas.core.locks import exclusive_lock
from hwnas.core.rundir import OWNED, RunDir
from hwnas.core.store import append_jsonl, read_jsonl
from hwnas.devices.offline import write_kit
from hwnas.devices.remote import call
from hwnas.interfaces import DeviceSpec
from hwnas.latency.plan import write_plan
from hwnas.latency.sections import ProfileConfig
from hwnas.pipeline.artifacts import Artifacts
from tests.old_runs import unpacked_run

RECORD = np.zeros(1, [("a", "u1")])
HEAD = b'{"a":1}\n'

# --- hard links -----------------------------------------------------------------------------------

APPENDS: dict[str, Callable[[Path], object]] = {
    "append_jsonl": lambda path: append_jsonl(path, {"b": 2}),
    "append_records": lambda path: append_records(path, {"a": 1}, RECORD),
    "cut_records": lambda path: cut_records(path, 1, 0),
    "open_private": lambda path: _write(path),
    "lock": lambda path: _lock(path),
}


def _write(path: Path) -> None:
    with open_private(path) as stream:
        stream.write(b"other")


def _lock(path: Path) -> None:
    with exclusive_lock(path, owner="test"):
        pass


@pytest.fixture
def linked(tmp_path: Path) -> tuple[Path, Path]:
    """A file with two names; the first is in a run folder, the second in its backup."""
    for name in ("run", "backup"):
        (tmp_path / name).mkdir()
    path, other = tmp_path / "run" / "x", tmp_path / "backup" / "x"
    path.write_bytes(HEAD + b"xyz\n")
    path.chmod(0o640)
    os.link(path, other)
    return path, other


@pytest.mark.parametrize("name", APPENDS)
def test_what_is_appended_arrives_under_no_other_name(name: str, linked: tuple[Path, Path]) -> None:
    path, other = linked
    before = path.read_bytes()
    if name == "append_jsonl":
        path.write_bytes(HEAD)
        before = HEAD
    APPENDS[name](path)
    assert other.read_bytes() == before != path.read_bytes()
    assert path.stat().st_nlink == other.stat().st_nlink == 1
    assert path.stat().st_mode & 0o777 == 0o640
    assert [entry.name for entry in path.parent.iterdir()] == ["x"]


def test_nothing_is_lost_by_the_copy(linked: tuple[Path, Path]) -> None:
    path, _ = linked
    path.write_bytes(b'{"a":1}\n{"torn')
    append_jsonl(path, {"b": 2})
    assert read_jsonl(path) == [{"a": 1}, {"b": 2}]
    path.unlink()
    append_records(path, {"a": 1}, RECORD)
    os.link(path, path.with_name("second"))
    append_records(path, {"a": 1}, RECORD)
    log, other = read_records(path), read_records(path.with_name("second"))
    assert (log.about, log.n_bytes) == ({"a": 1}, 2)
    assert (other.about, other.n_bytes) == ({"a": 1}, 1)


def test_a_file_with_one_name_is_not_copied(tmp_path: Path) -> None:
    path = tmp_path / "x"
    append_jsonl(path, {"a": 1})
    before = path.stat().st_ino
    append_jsonl(path, {"b": 2})
    assert path.stat().st_ino == before
    with open_unlinked(path) as stream:
        assert not unshare(path, stream)


def test_a_copy_that_fails_leaves_both_files_as_they_were(
    linked: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, other = linked
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(UserError, match="No space left"):
        append_jsonl(path, {"b": 2})
    assert path.read_bytes() == other.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == ["x"]


HOLD = """
import sys
from pathlib import Path
from hwnas.core.locks import exclusive_lock
with exclusive_lock(Path(sys.argv[1]), owner="the first"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_backup_by_hard_links_does_not_weaken_the_lock(
    when: str, linked: tuple[Path, Path]
) -> None:
    """Made before or while a process holds it: a second one is refused, the backup is free."""
    path, other = linked
    if when == "after":
        other.unlink()
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None and holder.stdin is not None
        assert holder.stdout.readline() == "held\n"
        if when == "after":
            os.link(path, other)
        with pytest.raises(UserError, match="the first"):
            _lock(path)
        if when == "before":
            _lock(other)
        holder.stdin.close()
    _lock(path)


@pytest.mark.parametrize("how", ["models", "arriving", "kit"])
def test_files_that_are_written_anew_do_not_reach_other_names(how: str, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    device = DeviceSpec(name="d", runtime="onnxruntime", precision="fp32", threads=1, batch=1)
    if how == "models":
        (tmp_path / "models").mkdir()
        os.link(victim, tmp_path / "models" / "m.onnx")
        write_plan({"m": b"model"}, device, tmp_path, ProfileConfig(), seed=0)
        assert (tmp_path / "models" / "m.onnx").read_bytes() == b"model"
    elif how == "arriving":
        os.link(victim, tmp_path / "into")
        call(["echo", "hello"], where="here", into=tmp_path / "into")
        assert (tmp_path / "into").read_text() == "hello\n"
    else:
        os.link(victim, tmp_path / "kit.zip")
        plan = write_plan({"m": b"model"}, device, tmp_path, ProfileConfig(), seed=0)
        write_kit(plan.path, tmp_path / "kit.zip")
    assert victim.read_bytes() == b"precious"


def test_a_kit_of_files_that_are_older_than_zip_is_packed(tmp_path: Path) -> None:
    """Nix and reproducible images date all files 1970; a board without a clock does so, too."""
    device = DeviceSpec(name="d", runtime="onnxruntime", precision="fp32", threads=1, batch=1)
    plan = write_plan({"m": b"model"}, device, tmp_path, ProfileConfig(), seed=0)
    for path in (plan.path, *(tmp_path / "models").iterdir()):
        os.utime(path, (0, 0))
    write_kit(plan.path, tmp_path / "kit.zip")
    with zipfile.ZipFile(tmp_path / "kit.zip") as kit:
        assert kit.read("models/m.onnx") == b"model"
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".tmp"] == []


def test_a_plan_with_a_pipe_in_the_place_of_a_model_is_refused(tmp_path: Path) -> None:
    device = DeviceSpec(name="d", runtime="onnxruntime", precision="fp32", threads=1, batch=1)
    (tmp_path / "models").mkdir()
    os.mkfifo(tmp_path / "models" / "m.onnx")
    with pytest.raises(UserError, match="named pipe"):
        write_plan({"m": b"model"}, device, tmp_path, ProfileConfig(), seed=0)


# --- what others have in a run folder -------------------------------------------------------------


@pytest.fixture
def finished_run(tmp_path: Path) -> Path:
    """A finished run folder."""
    return unpacked_run("finished", tmp_path)


@pytest.fixture
def crowded(finished_run: Path, tmp_path: Path) -> Path:
    """A run folder beside a virtual environment, a repository, photos and a named pipe."""
    venv = finished_run / ".venv" / "bin"
    venv.mkdir(parents=True)
    (venv / "python").symlink_to(sys.executable)
    (finished_run / ".git").mkdir()
    (finished_run / ".git" / ".x.tmp").write_text("theirs")
    (finished_run / "photos").symlink_to(tmp_path)
    (finished_run / "config.yaml.orig").symlink_to("nowhere")
    os.mkfifo(finished_run / "pipe")
    (finished_run / "unreadable").mkdir(mode=0)
    return finished_run


def test_what_hwnas_does_not_own_is_neither_refused_nor_looked_at(
    crowded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda p: seen.append(str(p)) or scandir(p))  # type: ignore[func-returns-value]
    monkeypatch.chdir(crowded)
    RunDir(Path()).check()
    assert {Path(path).parts[0] for path in seen if Path(path).parts} <= set(OWNED)
    assert hwnas.status(".").to_dict()["table"]
    assert hwnas.table_list(run=".").rows
    assert (crowded / ".git" / ".x.tmp").exists() and (crowded / "pipe").is_fifo()


@pytest.mark.parametrize("name", ["report-x.html", "Search", "tables/local.json", "superseded/x"])
def test_a_link_in_the_place_of_what_hwnas_owns_is_refused(
    name: str, crowded: Path, tmp_path: Path
) -> None:
    path = crowded / name
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(tmp_path)
    for read in (hwnas.status, hwnas.open_run, lambda run: hwnas.table_list(run=run)):
        with pytest.raises(UserError, match="links are not followed"):
            read(crowded)


def test_a_pipe_among_the_tables_is_refused_by_the_verbs_of_tables(finished_run: Path) -> None:
    os.mkfifo(finished_run / "tables" / "other.json")
    for read in (lambda run: hwnas.table_list(run=run), hwnas.table_fit):
        with pytest.raises(UserError, match="named pipe"):
            read(finished_run)


def test_a_ledger_does_not_move_what_hwnas_does_not_own(crowded: Path) -> None:
    (crowded / "mine.txt").write_text("precious")
    ledger = json.loads((crowded / "stages.json").read_text())
    for record in ledger["stages"].values():
        record["outputs"]["mine.txt"] = "0" * 64
    (crowded / "stages.json").write_text(json.dumps(ledger))
    with pytest.raises(UserError, match="hwnas does not own"):
        hwnas.run(str(crowded / "config.yaml"), folder=crowded, settings={"seed": 77})
    assert (crowded / "mine.txt").read_text() == "precious"


def test_every_path_of_a_run_is_one_that_the_check_looks_at(tmp_path: Path) -> None:
    """Each file and folder that `Artifacts` and the ledger name, made a link, is refused."""
    run = RunDir(tmp_path / "run")
    files = Artifacts(run)
    names = [name for name, found in vars(Artifacts).items() if isinstance(found, property)]
    paths = [value for name in names if isinstance(value := getattr(files, name), Path)]
    records = [getattr(files, name) for name in names]
    paths += [value.path for value in records if hasattr(value, "path")]
    paths += [*files.training_round("x"), files.table("x"), files.samples("x"), files.labels()]
    paths += [Artifacts(run, "other").report, run.journal_file, run.path("metrics.jsonl")]
    paths += [run.path(".lock"), run.path("stages.json"), run.path("superseded", "x")]
    tops = {path.relative_to(run.root).parts[0] for path in paths}
    assert len(paths) > 20 and {"tensorboard", "rounds", "bundles"} <= tops
    run.root.mkdir()
    for top in tops:
        (run.root / top).symlink_to(tmp_path)
        with pytest.raises(UserError, match="links are not followed"):
            run.check()
        (run.root / top).unlink()
    run.check()


def test_only_names_that_match_are_looked_at(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").symlink_to("nowhere")
    check_folder(tmp_path, ("b",))  # b is not directly in the folder
    for only in (("*",), ("a",), ("A",)):
        with pytest.raises(UserError, match="a/b"):
            check_folder(tmp_path, only)
