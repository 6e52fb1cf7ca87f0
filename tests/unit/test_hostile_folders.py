"""A run folder of a stranger reaches nothing: no name, link, pipe or device leads out of it."""

from __future__ import annotations

import itertools
import json
import os
import socket
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hwnas
from hwnas.controller.record_log import append_records, cut_records
from hwnas.core.commit import Commit, commit_file
from hwnas.core.confined import check_folder, check_name, inside, open_unlinked, read_regular
from hwnas.core.errors import UserError
from hwnas.core.locks import exclusive_lock
from hwnas.core.rundir import RunDir, StageRecord
from hwnas.core.store import append_jsonl, file_hash, read_json, read_jsonl
from hwnas.core.yaml_data import read_yaml
from hwnas.measure.pack import _read_results
from tests.old_runs import unpacked_run

OUTWARDS = ["../victim", "/etc/passwd", "a/../../victim", "a//b", "", ".", "..", "a\\b", "a\0b"]
TOO_LONG = {
    "deep": "a/" * 2000 + "b",
    "long": "a" * 256,
    "bytes": "\u732b" * 100,
    "huge": "a" * 10**6,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A finished run folder."""
    return unpacked_run("finished", tmp_path)


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A file beside the run folder, which must stay as it is."""
    path = tmp_path / "victim"
    path.write_text("precious")
    return path


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Everything at any depth, with size and time of the last change."""
    return {
        str(path): (path.lstat().st_size, path.lstat().st_mtime_ns) for path in folder.rglob("*")
    }


def run_again(folder: Path) -> None:
    """The whole pipeline, with a setting changed so that all of it would be made again."""
    hwnas.run(folder=folder, config=str(folder / "config.yaml"), settings={"seed": 77})


def rewrite_ledger(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    ledger = json.loads((folder / "stages.json").read_text())
    for record in ledger["stages"].values():
        change(record)
    (folder / "stages.json").write_text(json.dumps(ledger))


@pytest.mark.parametrize("name", ["../victim", "VICTIM"])
def test_a_ledger_moves_nothing_outside(name: str, folder: Path, victim: Path) -> None:
    name = str(victim) if name == "VICTIM" else name
    rewrite_ledger(folder, lambda record: record["outputs"].update({name: "0" * 64}))
    before = listing(folder.parent)
    for verb in (run_again, hwnas.status, hwnas.export, hwnas.verify, hwnas.report):
        with pytest.raises(UserError, match=r"leads outside its folder[\s\S]*stages\.json"):
            verb(folder)
    after = listing(folder.parent)
    assert {k: v for k, v in after.items() if "finished" not in k} == {
        k: v for k, v in before.items() if "finished" not in k
    }
    assert victim.read_text() == "precious" and not (folder / "superseded").exists()


def test_a_hash_in_a_ledger_places_nothing_outside(folder: Path) -> None:
    rewrite_ledger(folder, lambda record: record.update(inputs_hash="x/../../../stolen"))
    with pytest.raises(UserError, match="leads outside its folder"):
        run_again(folder)
    assert sorted(path.name for path in folder.parent.iterdir()) == ["finished"]


LINKED = [
    ".lock",
    "journal.jsonl",
    "metrics.jsonl",
    "env.json",
    "config.yaml",
    "stages.json",
    "search/main",
    "search",
    "checkpoints",
    "checkpoints/steps",
    "superseded",
    "tables",
    "bundles",
    "report.html",
]


@pytest.mark.parametrize("name", LINKED)
def test_links_in_a_run_folder_write_nothing_outside(
    name: str, folder: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    if path.exists():
        path.rename(outside)
    elif "." in name:
        outside.write_text("precious")
    else:
        outside.mkdir()
    before = listing(outside), outside.lstat().st_mtime_ns
    path.symlink_to(outside)
    for verb in (run_again, hwnas.status, hwnas.export, hwnas.open_run):
        with pytest.raises(UserError, match="links are not followed"):
            verb(folder)
    assert (listing(outside), outside.lstat().st_mtime_ns) == before


def test_a_run_folder_may_be_reached_through_a_link(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    assert hwnas.status(tmp_path / "link").to_dict()["table"]
    RunDir(tmp_path / "link").metric("train", {"step": 1})
    assert RunDir(folder).metrics("train")[0]["step"] is not None


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *itertools.product(
            ["config.yaml", "stages.json", "journal.jsonl", "env.json"], ["pipe", "socket"]
        ),
        ("config.yaml", "folder"),
        ("stages.json", "folder"),
    ],
)
def test_pipes_and_devices_are_refused_at_once(
    name: str, kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / name
    path.unlink(missing_ok=True)
    monkeypatch.chdir(folder)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(name)
    for verb in (hwnas.status, run_again):
        with pytest.raises(UserError):
            verb(folder)


@pytest.mark.parametrize("special", ["pipe", "/dev/zero"])
@pytest.mark.parametrize(
    "read",
    [
        read_yaml,
        read_json,
        read_jsonl,
        file_hash,
        _read_results,
        lambda path: append_jsonl(path, {}),
        lambda path: exclusive_lock(path, owner="test").__enter__(),
        lambda path: append_records(path, {}, np.zeros(1, [("a", "u1")])),
        lambda path: cut_records(path, 1, 0),
        lambda path: read_regular(path, at_most=10),
        open_unlinked,
    ],
)
def test_no_reader_waits_for_a_pipe_or_reads_a_device(
    read: Callable[[Path], object], special: str, tmp_path: Path
) -> None:
    path = Path(special)
    if special == "pipe":
        path = tmp_path / "pipe"
        os.mkfifo(path)
    with pytest.raises(UserError):
        read(path)


@pytest.mark.parametrize(
    "write",
    [
        lambda path: append_jsonl(path, {"a": 1}),
        lambda path: exclusive_lock(path, owner="test").__enter__(),
        lambda path: append_records(path, {}, np.zeros(1, [("a", "u1")])),
        lambda path: cut_records(path, 1, 0),
        open_unlinked,
    ],
)
@pytest.mark.parametrize("exists", [True, False])
def test_no_writer_follows_a_link(
    write: Callable[[Path], object], exists: bool, tmp_path: Path, victim: Path
) -> None:
    link = tmp_path / "link"
    link.symlink_to(victim if exists else tmp_path / "new")
    with pytest.raises(UserError, match="links are not followed"):
        write(link)
    assert victim.read_text() == "precious" and not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", OUTWARDS)
def test_names_stay_inside(name: str, tmp_path: Path) -> None:
    kind = "has forbidden characters" if {"\\", "\0"} & {*name} else "leads outside its folder"
    with pytest.raises(UserError, match=kind):
        check_name(name, where="test")
    with pytest.raises(UserError):
        inside(tmp_path, "a", name)
    with pytest.raises(UserError):
        RunDir(tmp_path).path(name)


@pytest.mark.parametrize("name", TOO_LONG.values(), ids=TOO_LONG)
def test_names_that_no_file_has_are_refused(name: str, folder: Path) -> None:
    """`mkdir` recurses into the parents of a path, and systems have no names of 256 bytes."""
    with pytest.raises(UserError, match="a path is too long"):
        check_name(name, where="test")
    commit_file(folder).write(Commit(texts={f"superseded/{name}": "x"}))
    for read in (hwnas.undo, hwnas.status):
        with pytest.raises(UserError, match="a path is too long"):
            read(folder)


def test_an_unfinished_change_never_touches_files_of_others(folder: Path) -> None:
    """Removing the file is a safe way out: only the change itself is lost."""
    (folder / "notes.txt").write_text("mine")
    before = hwnas.check(folder)
    unfinished = commit_file(folder)
    unfinished.write(Commit(texts={"notes.txt": None}))
    pattern = r"do not belong to hwnas\n[\s\S]*found: 'notes\.txt'\n[\s\S]*fix: [\s\S]*hwnas check"
    with pytest.raises(UserError, match=pattern):
        hwnas.undo(folder)
    assert (folder / "notes.txt").read_text() == "mine"
    unfinished.path.unlink()
    assert hwnas.check(folder) == before


def test_paths_inside_are_plain_and_links_below_the_root_are_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/tmp")
    assert inside(tmp_path, "a/b", "c.json") == tmp_path / "a" / "b" / "c.json"
    assert inside(tmp_path) == tmp_path
    assert inside(tmp_path / "link", "x") == tmp_path / "link" / "x"
    for parts in (("link",), ("link", "x"), ("link/x/y",)):
        with pytest.raises(UserError, match="links are not followed"):
            inside(tmp_path, *parts)


def test_a_folder_of_plain_files_passes_and_an_unreadable_one_is_passed_over(
    tmp_path: Path,
) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c").touch()
    (tmp_path / "closed").mkdir(mode=0)
    check_folder(tmp_path)
    check_folder(tmp_path / "absent")
    (tmp_path / "a" / "b" / "d").symlink_to("nowhere")
    with pytest.raises(UserError, match="a/b/d"):
        check_folder(tmp_path)
    (tmp_path / "closed").chmod(0o700)


def test_files_of_more_than_the_bound_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "sparse.json"
    with path.open("wb") as stream:
        stream.truncate(1 << 40)
    for read in (read_json, read_jsonl, read_yaml, _read_results):
        with pytest.raises(UserError, match="too large"):
            read(path)


def test_a_bound_is_not_what_is_allocated(tmp_path: Path) -> None:
    path = tmp_path / "small"
    path.write_bytes(b"abc")
    tracemalloc.start()
    assert read_regular(path, at_most=1 << 34) == b"abc"
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 24


def test_exports_of_a_run_name_files_of_its_own_folder(folder: Path, victim: Path) -> None:
    from hwnas.pipeline.artifacts import Artifacts

    files = Artifacts(RunDir(folder), "main")
    data = json.loads(files.exports.read_text())
    next(iter(data["exports"].values()))[0]["files"][0] = "../../../../../victim"
    files.exports.write_text(json.dumps(data))
    with pytest.raises(UserError, match="leads outside its folder"):
        files.read_exports()


def test_what_a_ledger_damaged_is_kept_in_the_folder(tmp_path: Path, victim: Path) -> None:
    run = RunDir(tmp_path / "run")
    record = StageRecord("h", "done", {"../victim": "0" * 64}, 1.0)
    for check in (run.damaged, run.intact):
        with pytest.raises(UserError, match="leads outside its folder"):
            check(record)
    assert victim.exists()
