"""Slips with whole commands: nothing is lost, nothing is made twice, every search keeps its own."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import hwnas
from hwnas.controller import controller
from hwnas.core.errors import UserError
from tests.kill_points import tree
from tests.old_runs import unpacked_run

IMPOSSIBLE = {"search.constraints": [{"metric": "macs", "max": 1}]}
TIGHT = {"search.constraints": [{"metric": "macs", "max_fraction_of_largest": 0.5}]}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run folder of an earlier version."""
    return unpacked_run("finished", tmp_path)


def statuses(run: Path) -> dict[str, str]:
    return {row["stage"]: row["status"] for row in hwnas.status(run)}


def winners(run: Path) -> dict[str, Any]:
    return {row["search"]: row["winner"] for row in hwnas.status(run).to_dict()["searches"]}


def interrupting(stage: str) -> Callable[[str], Callable[..., None]]:
    """Progress that stops the command in the middle of a stage."""

    def progress_for(name: str) -> Callable[..., None]:
        def progress(done: int, total: int, note: str = "") -> None:
            if name == stage and done > total // 2:
                raise KeyboardInterrupt

        return progress

    return progress_for


def no_stage(name: str) -> Callable[..., None]:
    """Progress of commands in which no stage may run."""
    raise AssertionError(f"{name} runs")


ON_NO_DEVICE = {"device": "none", "metric": "latency_ms", "max": 1.0}
REFUSED: list[Callable[[Path], object]] = [
    lambda run: hwnas.train(run, settings={"supernet.init": "/none", "train.steps": 12}),
    lambda run: hwnas.train(run, settings={"train.batch_size": 4000}),
    lambda run: hwnas.search(run, settings=IMPOSSIBLE),
    lambda run: hwnas.label(run, settings={"train.steps": 12}),
    lambda run: hwnas.search(run, name="second", settings={"train.steps": 12}),
    lambda run: hwnas.train(run, settings={"train.stpes": 3}),
    lambda run: hwnas.train(run, settings={"devices": ["none"]}),
    lambda run: hwnas.run(str(run / "config.yaml"), folder=run, settings={"space.head.width": 48}),
    lambda run: hwnas.profile("local", run=run, config="/none.yaml"),
    lambda run: hwnas.predictor_fit(run, settings={"search.constraints": [ON_NO_DEVICE]}),
    lambda run: hwnas.export(run, formats=""),
    lambda run: hwnas.report(run, search="nmae"),
    lambda run: hwnas.undo(run),
]


@pytest.mark.parametrize("command", REFUSED)
def test_a_refused_command_leaves_every_byte(command: Callable[[Path], object], run: Path) -> None:
    before = tree(run)
    with pytest.raises(UserError):
        command(run)
    assert tree(run) == before


def test_a_refused_command_makes_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs stages that are not up to date"):
        hwnas.label(tmp_path / "new", config="digits", settings={"label.n_archs": 8})
    with pytest.raises(UserError, match=r"fix: hwnas train \S+/new .*&& hwnas label \S+/new "):
        hwnas.predictor_fit(tmp_path / "new", config="digits")
    assert not (tmp_path / "new").exists()


def test_a_slip_is_set_back_or_undone_and_nothing_is_made_again(run: Path) -> None:
    before = tree(run)
    assert hwnas.label(run, settings={"label.n_archs": 8})[0]["labels"] == 8
    assert statuses(run)["label"] == "done" and statuses(run)["search/main"] == "stale"
    assert hwnas.label(run, settings={"label.n_archs": 16}, progress=no_stage)[0]["labels"] == 16
    assert set(statuses(run).values()) == {"done"}
    assert hwnas.label(run, settings={"label.n_archs": 8}, progress=no_stage)[0]["labels"] == 8
    undone = hwnas.undo(run)
    assert list(undone) == [{"setting": "label.n_archs", "undone": 8, "restored": 16}]
    for _ in range(2):
        hwnas.undo(run)
    with pytest.raises(UserError, match="nothing to undo"):
        hwnas.undo(run)
    after = tree(run)
    changed = {"journal.jsonl", "env.json", "stages.json"}  # the ledger is written in another form
    assert {k: v for k, v in after.items() if k in before and before[k] != v}.keys() <= changed
    assert before.keys() <= after.keys() and set(statuses(run).values()) == {"done"}


@pytest.mark.usefixtures("its_machine")
def test_a_training_that_was_stopped_goes_on_after_a_detour(run: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        hwnas.train(run, settings={"train.steps": 8}, progress=interrupting("train"))
    assert statuses(run)["train"] == "continues"
    hwnas.train(run, settings={"train.steps": 24}, progress=no_stage)
    assert set(statuses(run).values()) == {"done"}
    rows = hwnas.plan(run, settings={"train.steps": 8})
    assert next(row["status"] for row in rows if row["stage"] == "train") == "continues"


def test_every_search_keeps_its_own_settings(run: Path) -> None:
    main = hwnas.open_run(run).winner.arch.key
    bundle = tree(run / "bundles" / "main")
    hwnas.search(run, name="tight", settings=TIGHT | {"finetune.epochs": 2})
    found = hwnas.status(run)
    assert {row["stage"]: row["status"] for row in found if "main" in row["stage"]} == {
        f"{stage}/main": "done" for stage in ("search", "finetune", "export", "verify")
    }
    assert statuses(run)["search/tight"] == "done" and statuses(run)["finetune/tight"] == "new"
    assert winners(run)["main"] == main
    assert {row["search"]: row["is_last"] for row in found.to_dict()["searches"]} == {
        "main": False,
        "tight": True,
    }
    one, other = (hwnas.open_run(run, search=name) for name in ("main", "tight"))
    assert set(one.limits) == {"latency_ms@local", "latency_p95_ms@local", "macs"}
    assert set(other.limits) == {"macs"}
    assert (one.config["finetune"]["epochs"], other.config["finetune"]["epochs"]) == (1, 2)
    assert one.winner.arch.key == main and len(one.checks) > 3
    assert hwnas.report(run, search="main").name == "report.html"
    hwnas.verify(run, search="main", report_only=True, progress=no_stage)
    hwnas.export(run, search="main", progress=no_stage)
    assert hwnas.open_run(run).search == "main"  # the last one that was worked on
    assert tree(run / "bundles" / "main") == bundle
    hwnas.search(run, name="tight", progress=no_stage)
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["search"]["constraints"][0]["max_fraction_of_largest"] == 0.5
    assert set(winners(run)) == {"main", "tight"}


@pytest.mark.parametrize("name", ["main", "second"])
@pytest.mark.parametrize("how", ["impossible", "interrupted"])
def test_a_search_that_fails_replaces_none(run: Path, name: str, how: str) -> None:
    main = winners(run)
    if how == "impossible":
        with pytest.raises(UserError, match="no arch of the space meets"):
            hwnas.search(run, name=name, settings=IMPOSSIBLE)
    else:
        with pytest.raises(KeyboardInterrupt):
            hwnas.search(run, name=name, settings=TIGHT, progress=interrupting(f"search/{name}"))
    assert set(statuses(run).values()) == {"done"} and winners(run) == main
    assert hwnas.open_run(run).search == "main" and hwnas.open_run(run).checks
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert len(config["search"]["constraints"]) == 3
    assert hwnas.report(run).is_file()


def test_a_search_that_was_stopped_goes_on_with_the_same_command(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(controller, "SAVE_EVERY_S", 0)
    with pytest.raises(KeyboardInterrupt):
        hwnas.search(run, settings=TIGHT, progress=interrupting("search/main"))
    (state,) = (run / "superseded").glob("search-main-*/search/main/state.json")
    n_then = json.loads(state.read_text())["n_proposals"]
    notes: list[str] = []

    def progress_for(stage: str) -> Callable[..., None]:
        return lambda done, total, note="": notes.append(note)

    hwnas.search(run, settings=TIGHT, progress=progress_for)
    counts = map(int, re.findall(r"policy_gradient, ([\d]+) of", "\n".join(notes)))
    assert n_then > 0 and all(count > n_then for count in counts), "it began anew"
    assert statuses(run)["search/main"] == "done"


def test_settings_edited_by_hand_are_an_attempt_too(run: Path) -> None:
    hwnas.label(run, settings={"label.n_archs": 8})
    hwnas.undo(run)
    hwnas.search(run, name="second", settings=TIGHT)
    hwnas.search(run, name="main", progress=no_stage)
    path = run / "config.yaml"
    config = yaml.safe_load(path.read_text())
    config["search"] |= {"constraints": [{"metric": "macs", "max_fraction_of_largest": 0.6}]}
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    with pytest.raises(KeyboardInterrupt):
        hwnas.search(run, progress=interrupting("search/main"))
    assert set(statuses(run).values()) - {"new"} == {"done"}


def test_a_folder_of_two_searches_of_an_earlier_version_is_read(run: Path) -> None:
    """Without sections of its own, a search has those of the run folder, as ever."""
    shutil.copytree(run / "search" / "main", run / "search" / "old")
    ledger = json.loads((run / "stages.json").read_text())
    for stage in ("search", "finetune", "export", "verify"):
        record = dict(ledger["stages"][f"{stage}/main"])
        record["outputs"] = {k.replace("main", "old"): v for k, v in record["outputs"].items()}
        ledger["stages"][f"{stage}/old"] = record
    (run / "stages.json").write_text(json.dumps(ledger))
    found = statuses(run)
    assert found["search/main"] == "done" and found["search/old"] == "stale"  # of another name
    assert winners(run)["old"] == winners(run)["main"]
    hwnas.label(run, settings={"label.n_archs": 16}, progress=no_stage)
    assert statuses(run) == found


@pytest.mark.parametrize("name", ["../../victim", "x y"])
def test_hostile_names_of_searches_reach_nothing(run: Path, name: str, tmp_path: Path) -> None:
    ledger = json.loads((run / "stages.json").read_text())
    ledger["stages"][f"search/{name}"] = ledger["stages"]["search/main"]
    (run / "stages.json").write_text(json.dumps(ledger))
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "config.yaml").write_text("search: {name: stolen}")
    assert set(winners(run)) == {"main"}
    with pytest.raises(UserError):
        hwnas.open_run(run, search=name)


def failing(stage: str) -> Callable[[str], Callable[..., None]]:
    """Progress that lets a stage fail when it starts."""

    def progress_for(name: str) -> Callable[..., None]:
        if name == stage:
            raise UserError("the disk is on fire", fix="put it out")
        return lambda done, total, note="": None

    return progress_for


@pytest.mark.usefixtures("its_machine")
@pytest.mark.parametrize("verb", ["finetune", "run"])
def test_a_stage_that_fails_while_it_runs_says_how_to_undo_the_settings(
    run: Path, verb: str
) -> None:
    """The settings stay; one command brings back what was before, stages that succeeded too."""
    before, main = tree(run), winners(run)
    config = yaml.safe_load((run / "config.yaml").read_text())
    with pytest.raises(UserError, match="on fire") as caught:
        if verb == "finetune":
            changes = {"finetune.epochs": 2}
            hwnas.finetune(run, settings=changes, progress=failing("finetune/main"))
        else:
            changes = {"label.n_archs": 12}
            path = str(run / "config.yaml")
            hwnas.run(path, folder=run, settings=changes, progress=failing("predictor"))
    way_out = f"hwnas undo {run}, which restores the previous settings and stages"
    assert caught.value.fix == f"put it out; or {way_out}" and way_out in str(caught.value)
    assert yaml.safe_load((run / "config.yaml").read_text()) != config
    hwnas.undo(run)
    assert yaml.safe_load((run / "config.yaml").read_text()) == config
    assert set(statuses(run).values()) == {"done"} and winners(run) == main
    after = tree(run)
    results = {name for name in before if name.startswith(("search", "labels", "bundles"))}
    assert results and all(after[name] == before[name] for name in results)


def test_where_no_settings_changed_there_is_nothing_to_undo(run: Path) -> None:
    (run / "labels" / "supernet.json").unlink()
    with pytest.raises(UserError, match="on fire") as caught:
        hwnas.label(run, progress=failing("label"))
    assert caught.value.fix == "put it out"


def test_a_folder_in_the_place_of_a_configuration_is_explained(run: Path, tmp_path: Path) -> None:
    """`hwnas run RUN` and `hwnas run PHOTOS`: the error names the command that was meant."""
    (tmp_path / "photos" / "ant").mkdir(parents=True)
    with pytest.raises(UserError) as of_run:
        hwnas.run(str(run))
    assert f"hwnas run {run}/config.yaml --run {run}" in str(of_run.value)
    with pytest.raises(UserError) as of_photos:
        hwnas.run(str(tmp_path / "photos"))
    assert f"hwnas run photos --set data.root={tmp_path}/photos" in str(of_photos.value)
    with pytest.raises(UserError, match="hwnas list configs"):
        hwnas.run(str(tmp_path / "nothing"))
    assert all(status == "done" for status in statuses(run).values())
    hwnas.run(str(run / "config.yaml"), folder=run, progress=no_stage)


def test_too_few_labels_to_analyze_name_the_number_that_suffices(run: Path) -> None:
    with pytest.raises(UserError) as error:
        hwnas.analyze(run)
    text = str(error.value)
    assert "too few archs" in text and "at least 10 held-out labels" in text
    enough = int(re.findall(r"label.n_archs=([0-9]+)", text)[0])
    found, of = map(int, re.findall(r"found: ([0-9]+) of ([0-9]+)", text)[0])
    assert enough * found / of >= 10 > (enough - 10) * found / of
