"""A slip costs nothing: checks come first, changes are whole, what was finished comes back."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hwnas.core import history, rundir
from hwnas.core.commit import FILE, Commit, commit, finish
from hwnas.core.errors import UserError
from hwnas.core.rundir import OWNED, NewSettings, RunDir
from hwnas.core.versions import altered_versions
from hwnas.pipeline.engine import execute
from hwnas.pipeline.plan import Stage, plan_stages
from tests.kill_points import full_disk_points, kill_points, tree

NEEDS = {"measure": (), "train": (), "search/main": ("measure", "train")}
FOLDERS = {"measure": "tables", "train": "checkpoints", "search/main": "search/main"}
FIRST = {"measure": 1, "train": 1, "search/main": 1}


class Folder:
    """A run folder of three stages, each of which writes its setting and its inputs' text."""

    def __init__(self, root: Path) -> None:
        root.mkdir(exist_ok=True)
        self.root = root
        self.ran: list[str] = []
        self.fail_in = self.refuse = ""

    @property
    def config(self) -> dict[str, int]:
        path = self.root / "config.yaml"
        return json.loads(path.read_text()) if path.exists() else dict(FIRST)

    def stages(self, settings: dict[str, int]) -> list[Stage]:
        return [self._stage(name, settings[name]) for name in NEEDS]

    def _stage(self, name: str, setting: int) -> Stage:
        run = RunDir(self.root)
        folder = run.path(FOLDERS[name])

        def work() -> None:
            self.ran.append(name)
            folder.mkdir(exist_ok=True, parents=True)
            partial = folder / "partial"
            partial.write_text((partial.read_text() if partial.exists() else "") + str(setting))
            run.metric(name, {"step": 1, "setting": setting})
            if self.fail_in == name:
                raise KeyboardInterrupt
            inputs = [run.path(FOLDERS[need], "out").read_text() for need in NEEDS[name]]
            (folder / "out").write_text(f"{name} {setting} {inputs}")

        def check() -> None:
            if self.refuse == name:
                raise UserError(f"{name} can never work")

        return Stage(
            name=name,
            command=f"hwnas {name}",
            needs=NEEDS[name],
            settings=setting,
            owns=(f"{FOLDERS[name]}/out", f"{FOLDERS[name]}/partial"),
            outputs=(f"{FOLDERS[name]}/out",),
            run=work,
            cost="nothing",
            check=check,
            is_provisional=name.startswith("search"),
        )

    def do(self, only: list[str] | None = None, **changes: int) -> list[str]:
        """As a command with --set does; the names of the stages that ran."""
        self.ran = []
        run, config = RunDir(self.root), self.root / "config.yaml"
        history.settle(run)
        settings = self.config | {
            key.replace("search", "search/main"): changes[key] for key in changes
        }
        before = {"config.yaml": config.read_text()} if config.exists() else None
        before = None if settings == self.config else before
        new = NewSettings({"config.yaml": json.dumps(settings)}, before, "hwnas test")
        execute(self.stages(settings), replace(run, settings=new), only=only)
        return self.ran

    def status(self, **changes: int) -> dict[str, str]:
        plans = plan_stages(self.stages(self.config | changes), RunDir(self.root))
        return {plan.stage.name: plan.status for plan in plans}

    def text(self, stage: str) -> str:
        return (self.root / FOLDERS[stage] / "out").read_text()

    def undo(self) -> None:
        history.undo(RunDir(self.root))


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill loses nothing that was written; only a power cut asks for more."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """A finished run."""
    folder = Folder(tmp_path / "run")
    assert folder.do() == list(NEEDS)
    return folder


DONE = dict.fromkeys(NEEDS, "done")


def test_a_refused_command_leaves_every_byte(folder: Folder):
    before = tree(folder.root)
    folder.refuse = "search/main"
    with pytest.raises(UserError, match="can never work"):
        folder.do(train=2)
    with pytest.raises(UserError, match="needs stages that are not up to date"):
        folder.do(only=["search/main"], measure=2, search=2)
    assert tree(folder.root) == before and folder.status() == DONE


def test_outputs_are_read_once_before_the_stages_and_once_in_their_turn(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
):
    read: list[str] = []
    real = rundir.file_hash

    def counted(path: Path, **how: Any) -> str:
        read.append(str(path))
        return real(path, **how)

    monkeypatch.setattr(rundir, "file_hash", counted)
    assert folder.do() == []
    times = Counter(read)
    outputs = {name: n for name, n in times.items() if name.endswith("/out")}
    assert len(outputs) == len(NEEDS) and set(outputs.values()) == {2}
    assert {n for name, n in times.items() if name.endswith("/partial")} == {1}


def test_the_way_out_names_the_settings_that_were_not_stored(folder: Folder):
    run = RunDir(folder.root, NewSettings(options="--set train=2"))
    with pytest.raises(UserError, match=r"fix: .*hwnas train --set train=2"):
        execute(folder.stages(FIRST | {"train": 2}), run, only=["search/main"])


def test_settings_there_and_back_make_nothing_twice(folder: Folder):
    first = tree(folder.root)
    assert folder.do(train=2) == ["train", "search/main"]
    second = {stage: folder.text(stage) for stage in NEEDS}
    assert folder.status(train=1) == DONE | {"train": "returns", "search/main": "returns"}
    assert folder.do(train=1) == []
    assert {
        name: h for name, h in tree(folder.root).items() if name in first and "out" in name
    } == {name: h for name, h in first.items() if "out" in name}
    assert folder.status() == DONE
    assert folder.do(train=2) == []
    assert {stage: folder.text(stage) for stage in NEEDS} == second
    assert folder.do(train=1) == []
    assert len(list((folder.root / "superseded").iterdir())) == 2  # nothing is kept twice


def test_one_verb_brings_back_what_it_needs(folder: Folder):
    folder.do(train=2)
    assert folder.do(only=["search/main"], train=1) == []
    assert folder.status() == DONE


def test_a_half_finished_stage_goes_on_when_its_settings_come_back(folder: Folder):
    folder.fail_in = "train"
    with pytest.raises(KeyboardInterrupt):
        folder.do(train=2)
    folder.fail_in = ""
    assert folder.do(train=1) == []
    assert folder.status(train=2)["train"] == "continues"
    assert folder.do(train=2) == ["train", "search/main"]
    assert (folder.root / "checkpoints" / "partial").read_text() == "22"


def test_damaged_files_are_not_brought_back(folder: Folder):
    folder.do(train=2)
    (kept,) = (folder.root / "superseded").rglob("checkpoints/out")
    kept.write_text(kept.read_text() + "!")
    assert folder.status(train=1)["train"] == "stale"
    assert folder.do(train=1) == ["train"]  # makes what it made before: the search comes back
    assert kept.exists() and folder.status() == DONE


def test_folders_without_a_record_are_left_alone(folder: Folder):
    folder.do(train=2)
    (record,) = (folder.root / "superseded").glob("train-*/stage.json")
    record.unlink()
    kept = tree(record.parent)
    assert folder.do(train=1) == ["train"]
    assert tree(record.parent) == kept


@pytest.mark.parametrize("content", ["{}", "[", '{"schema_version": 1, "stage": "train"}'])
def test_a_broken_record_is_passed_over(folder: Folder, content: str):
    folder.do(train=2)
    (record,) = (folder.root / "superseded").glob("train-*/stage.json")
    record.write_text(content)
    assert folder.do(train=1) == ["train"]


@pytest.mark.parametrize("name", ["history/0001.json", "superseded/train-*/stage.json"])
def test_a_record_that_was_modified_brings_nothing_back(folder: Folder, name: str):
    folder.do(train=2)
    (record,) = folder.root.glob(name)
    text = record.read_text()
    assert text.count('"seconds": ') > 0
    record.write_text(text.replace('"seconds": ', '"seconds": 1', 1))  # still valid
    run = RunDir(folder.root)
    damages = [*history.altered_entries(run), *altered_versions(run)]
    assert [path for path, _ in damages] == [record] and "was modified" in damages[0][1]
    if name.startswith("history"):
        with pytest.raises(UserError, match="was modified"):
            folder.undo()
        record.unlink()
    assert folder.do(train=1) == ([] if name.startswith("history") else ["train"])


@pytest.mark.parametrize("name", ["../victim", "/etc/passwd", "tables/../../victim"])
def test_no_record_or_change_leads_out_of_the_folder(folder: Folder, name: str, tmp_path: Path):
    (tmp_path / "victim").write_text("precious")
    folder.do(train=2)
    (record,) = (folder.root / "superseded").glob("train-*/stage.json")
    facts = json.loads(record.read_text())
    facts["record"]["owns"].append(name)
    del facts["check"]  # as in a folder of an earlier version
    record.write_text(json.dumps(facts))
    assert folder.do(train=1) == ["train"]  # the record is not used
    for change in (
        Commit(moves=((name, "x"),)),
        Commit(moves=(("x", name),)),
        Commit(texts={name: ""}),
    ):
        with pytest.raises(UserError, match="leads outside its folder"):
            commit(folder.root, change)
        assert not (folder.root / FILE).exists()
    (folder.root / FILE).write_text(
        json.dumps({"schema_version": 1, "moves": [], "texts": {name: "x"}})
    )
    with pytest.raises(UserError, match=r"leads outside its folder|do not belong to hwnas"):
        finish(folder.root, OWNED)
    assert (tmp_path / "victim").read_text() == "precious"


def test_curves_are_those_of_the_settings(folder: Folder):
    run = RunDir(folder.root)
    folder.do(train=2)
    assert [row["setting"] for row in run.metrics("train")] == [2]
    folder.do(train=1)
    assert [row["setting"] for row in run.metrics("train")] == [1]


# --- undo -----------------------------------------------------------------------------------------


def test_undo_restores_what_a_finished_change_replaced(folder: Folder):
    before = {stage: folder.text(stage) for stage in NEEDS}
    folder.do(train=2, measure=2)
    folder.undo()
    assert folder.config == FIRST and folder.status() == DONE
    assert {stage: folder.text(stage) for stage in NEEDS} == before
    assert folder.do(train=2, measure=2) == []  # the redo


def test_undo_again_goes_further_back_until_nothing_is_left(folder: Folder):
    folder.do(train=2)
    folder.do(search=3)
    for expected in (FIRST | {"train": 2}, FIRST):
        folder.undo()
        assert folder.config == expected and folder.status() == DONE
    with pytest.raises(UserError, match="nothing to undo"):
        folder.undo()


def test_a_refused_command_is_no_change_to_undo(folder: Folder):
    folder.refuse = "train"
    with pytest.raises(UserError):
        folder.do(train=2)
    with pytest.raises(UserError, match="nothing to undo"):
        folder.undo()


def test_a_command_without_new_settings_is_no_change_to_undo(folder: Folder):
    folder.do()
    (folder.root / "checkpoints" / "out").unlink()
    folder.do()
    with pytest.raises(UserError, match="nothing to undo"):
        folder.undo()


def test_undo_of_an_interrupted_change(folder: Folder):
    folder.fail_in = "train"
    with pytest.raises(KeyboardInterrupt):
        folder.do(train=2)
    assert folder.status()["train"] == "continues"
    folder.undo()
    assert folder.config == FIRST and folder.status() == DONE
    folder.fail_in = ""
    folder.do(train=2)
    assert (folder.root / "checkpoints" / "partial").read_text() == "22"  # it went on


def test_undo_sets_aside_what_was_not_there_before(tmp_path: Path):
    folder = Folder(tmp_path / "run")
    folder.do(only=["measure", "train"])
    folder.do(train=2)
    folder.undo()
    assert folder.status() == {"measure": "done", "train": "done", "search/main": "new"}
    assert folder.do(train=2) == []


def test_what_is_undone_is_kept(folder: Folder):
    folder.do(train=2)
    folder.undo()
    (undone,) = (folder.root / "history").iterdir()
    entry = json.loads(undone.read_text())
    assert undone.name == "undone-0001.json"
    assert json.loads(entry["texts"]["config.yaml"]) == FIRST | {"train": 2}


def test_a_removed_last_change_is_told_and_its_number_is_not_given_again(
    folder: Folder, caplog: pytest.LogCaptureFixture
):
    for train in (2, 3):
        folder.do(train=train)
    run = RunDir(folder.root)
    assert not list(history.altered_entries(run))
    last = folder.root / "history" / "0002.json"
    last.unlink()
    ((path, problem),) = history.altered_entries(run)
    assert path == last and problem.startswith("missing")
    assert folder.do() == []  # the run itself is as it was
    folder.undo()
    assert f"{last} is missing" in caplog.text and folder.config["train"] == 1
    folder.do(train=4)
    assert (folder.root / "history" / "0003.json").exists()
    assert [path for path, _ in history.altered_entries(run)] == [last]


def test_a_change_that_was_taken_back_is_not_missing(folder: Folder):
    folder.do(train=2)
    folder.fail_in = "search/main"
    with pytest.raises(KeyboardInterrupt):
        folder.do(search=2)
    run = RunDir(folder.root)
    assert run.whole_ledger().changes == 1 and not list(history.altered_entries(run))


def test_a_version_without_its_record_is_told(folder: Folder):
    folder.do(train=2)
    run = RunDir(folder.root)
    assert not list(altered_versions(run))
    for path in (folder.root / "superseded").glob("*/stage.json"):
        path.unlink()
    found = dict(altered_versions(run))
    assert {path.parent.name.rpartition("-")[0] for path in found} == {"train", "search-main"}
    assert all("hwnas clean" in problem for problem in found.values())


def test_files_that_were_damaged_before_they_were_set_aside_are_no_version(folder: Folder):
    (folder.root / FOLDERS["train"] / "partial").write_text("damaged")
    folder.do(train=2)
    run = RunDir(folder.root)
    (aside,) = (folder.root / "superseded").glob("train-*")
    assert aside.name.endswith("-damaged") and not list(altered_versions(run))


def test_lost_files_do_not_stop_an_undo(folder: Folder):
    folder.do(train=2)
    shutil.rmtree(folder.root / "superseded")
    folder.undo()
    assert folder.config == FIRST and folder.status()["train"] == "stale"
    assert folder.do() == ["train", "search/main"]


# --- a search that fails --------------------------------------------------------------------------


def test_a_search_that_is_not_finished_replaces_none(folder: Folder):
    before = tree(folder.root)
    folder.fail_in = "search/main"
    with pytest.raises(KeyboardInterrupt):
        folder.do(search=2)
    after = tree(folder.root)
    assert {name: after[name] for name in before if name != "metrics.jsonl"} == {
        name: before[name] for name in before if name != "metrics.jsonl"
    }
    assert folder.status() == DONE and folder.config == FIRST
    folder.fail_in = ""
    assert folder.do(search=2) == ["search/main"]
    assert (folder.root / "search/main/partial").read_text() == "22"  # the same command went on
    assert folder.config == FIRST | {"search/main": 2} and folder.status() == DONE
    folder.undo()
    assert folder.status() == DONE and folder.config == FIRST


def test_the_first_search_goes_on_with_its_settings(tmp_path: Path):
    folder = Folder(tmp_path / "run")
    folder.do(only=["measure", "train"])
    folder.fail_in = "search/main"
    with pytest.raises(KeyboardInterrupt):
        folder.do(search=2)
    assert folder.status()["search/main"] == "continues"
    assert folder.config == FIRST | {"search/main": 2}


def test_a_search_that_was_killed_is_taken_back_by_the_next_command(folder: Folder):
    config, text = folder.config, folder.text("search/main")

    def action(n: int):
        return lambda: folder.do(search=2)

    for _ in kill_points(action):
        run = RunDir(folder.root)
        history.settle(run)
        assert not history.needs_settling(run)
        finished = folder.config != config
        assert folder.status() == DONE
        assert folder.text("search/main") == text.replace(
            "main 1", "main 2" if finished else "main 1"
        )
        if finished:
            folder.undo()
            shutil.rmtree(folder.root / "superseded")  # where the next one would find it
        assert not (folder.root / FILE).exists()


# --- kills ----------------------------------------------------------------------------------------


def states(folder: Folder) -> tuple[dict[str, int], dict[str, str], list[str]]:
    outs = {
        stage: folder.text(stage)
        for stage in NEEDS
        if (folder.root / FOLDERS[stage] / "out").exists()
    }
    kept = sorted(path.name for path in (folder.root / "superseded").glob("*"))
    return folder.config, outs, kept


@pytest.mark.parametrize("verb", ["there", "back", "undo"])
def test_a_kill_at_any_point_leaves_the_old_state_or_the_new(verb: str, tmp_path: Path):
    template = Folder(tmp_path / "template")
    template.do()
    if verb != "there":
        template.do(train=2)

    def fresh(n: int | str) -> Folder:
        return Folder(Path(shutil.copytree(template.root, tmp_path / str(n))))

    def step(folder: Folder) -> None:
        """What is one change: moves files of stages, ledger and configuration; runs nothing."""
        if verb == "undo":
            folder.undo()
            return
        stages = folder.stages(folder.config | {"train": 2 if verb == "there" else 1})
        new = json.dumps(folder.config | {"train": 2 if verb == "there" else 1})
        before = {"config.yaml": json.dumps(folder.config)}
        run = RunDir(folder.root, NewSettings({"config.yaml": new}, before, "hwnas test"))
        run = replace(run, settings=replace(run.settings, stored=stop))
        with pytest.raises(Stopped):
            execute(stages, run)

    class Stopped(Exception):
        pass

    def stop() -> None:
        raise Stopped

    ended = fresh("ended")
    old = states(ended)
    step(ended)
    new = states(ended)
    assert old != new
    current: dict[int, Folder] = {}

    def action(n: int):
        current[n] = fresh(n)
        return lambda: step(current[n])

    found = []
    for n in kill_points(action):
        folder = current[n]
        history.settle(RunDir(folder.root))
        assert states(folder) in (old, new)
        found.append(states(folder) == new)
        folder.fail_in = ""
        assert folder.do(train=2 if verb == "there" else 1) == (
            ["train", "search/main"] if verb == "there" else []
        )
        assert folder.status() == DONE
    assert found == sorted(found) and len(found) > 5 and {*found} == {False, True}


@pytest.mark.parametrize("changed", ["train", "search"])
def test_a_full_disk_at_any_point_loses_nothing_and_the_command_goes_on(
    changed: str, tmp_path: Path
):
    template = Folder(tmp_path / "template")
    template.do()
    current: dict[int | str, Folder] = {}

    def action(n: int | str):
        current[n] = Folder(Path(shutil.copytree(template.root, tmp_path / str(n))))
        return lambda: current[n].do(**{changed: 2})

    action("ended")()
    old, new = states(template), states(current["ended"])
    n_points = 0
    for n in full_disk_points(action):
        folder, n_points = current[n], n
        history.settle(RunDir(folder.root))
        if folder.config == old[0]:
            assert states(folder)[:2] == old[:2] and folder.status() == DONE
        folder.do(**{changed: 2})
        assert states(folder)[:2] == new[:2] and folder.status() == DONE
    assert n_points > 8


def test_a_change_that_the_system_refuses_goes_on_later(tmp_path: Path):
    (tmp_path / "a").write_text("a")
    (tmp_path / "place").write_text("in the way")
    change = Commit(moves=(("a", "place/a"),), texts={"b": "b"})
    with pytest.raises(UserError, match="cannot change the run folder"):
        commit(tmp_path, change)
    assert not (tmp_path / "b").exists()
    (tmp_path / "place").unlink()
    finish(tmp_path, ("a", "b", "place"))
    assert tree(tmp_path).keys() == {"place/a", "b"}
