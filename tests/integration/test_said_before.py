"""What a user is told before anything runs: time, reasons, latencies that can be reached."""

from __future__ import annotations

import itertools
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import hwnas
from hwnas.api.profile import profile_plan
from hwnas.core import speed as core_speed
from hwnas.core.errors import UserError
from hwnas.core.speed import Speed, busyness
from hwnas.core.stats import accuracy_text
from hwnas.latency import session_time
from hwnas.pipeline import duration, network_time
from hwnas.pipeline.outcomes import Check, Results
from hwnas.pipeline.project import Project
from hwnas.pipeline.stages import export

MINI = str(Path(__file__).with_name("mini.yaml"))


def test_a_dry_run_has_a_time_for_every_stage_and_one_for_all(tmp_path: Path) -> None:
    planned = hwnas.plan(tmp_path / "run", config=MINI, settings={"train.steps": 8})
    left = [row["left_s"] for row in planned]
    assert all(seconds > 0 for seconds in left)
    assert planned.facts["left_s"] == sum(left)
    assert all(row["time"].startswith("about ") for row in planned.shown)
    longer = hwnas.plan(tmp_path / "run", config=MINI, settings={"train.steps": 8000})
    train, more = (next(r["left_s"] for r in p if r["stage"] == "train") for p in (planned, longer))
    assert more > 100 * train > 0
    assert not (tmp_path / "run").exists()


def test_stages_of_later_commands_have_a_time_outside_of_the_sum(tmp_path: Path) -> None:
    planned = hwnas.plan(tmp_path / "run", config=MINI, only="profile")
    now = [row["left_s"] for row in planned if row["now"]]
    assert planned.facts["left_s"] == sum(now) < sum(row["left_s"] for row in planned)
    for row, shown in zip(planned, planned.shown, strict=True):
        assert shown["time"].startswith("about " if row["now"] else "later, about ")


def test_on_a_busy_machine_everything_takes_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"search.references": {"resolutions": [24], "time_budget_s": 1, "min_rounds": 2}}

    def left(busy: float) -> dict[str, float]:
        monkeypatch.setattr(session_time, "busyness", lambda: busy)
        for module in (duration, network_time):
            monkeypatch.setattr(module, "slowness", lambda: busy)
        passes = (1e-3 * busy, 1e-10 * busy)
        monkeypatch.setattr(duration, "_speed", lambda of: Speed(passes, passes))
        planned = hwnas.plan(tmp_path / "run", config=MINI, settings=settings)
        return {row["stage"]: row["left_s"] for row in planned}

    idle, busy = left(1.0), left(10.0)
    assert len(idle) == 9
    for stage in idle:
        assert busy[stage] > 2 * idle[stage] > 0, stage
    assert 1.0 <= busyness() < 1000


def test_constants_in_seconds_follow_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core_speed, "busyness", lambda: 3.0)
    for factor in (0.5, 1.0, 2.0):
        monkeypatch.setattr(core_speed, "_steps", lambda: factor * core_speed.STEPS_S)  # noqa: B023
        core_speed.slowness.cache_clear()
        assert core_speed.slowness() == pytest.approx(3.0 * factor)
    moments = itertools.cycle([0.4, 1.0, 1.0])  # the neighbour on the same core pauses
    monkeypatch.setattr(core_speed, "_steps", lambda: next(moments) * core_speed.STEPS_S)
    core_speed.slowness.cache_clear()
    assert core_speed.slowness() == pytest.approx(3.0)
    core_speed.slowness.cache_clear()


def test_published_networks_and_their_training_have_a_time(tmp_path: Path) -> None:
    def left(**references: object) -> float:
        settings = {"search.references": {"resolutions": [24], **references}}
        planned = hwnas.plan(tmp_path / "run", config=MINI, settings=settings)
        return next(row["left_s"] for row in planned if row["stage"] == "references/main")

    names = ["lcnet_100.ra2_in1k"]
    few = left(names=names, time_budget_s=1, min_rounds=2)
    assert left(names=names, time_budget_s=50, min_rounds=2) > few
    assert left(names=names, time_budget_s=1, min_rounds=2, train=names, epochs=900) > few + 60
    with_torch = ["hgnetv2_b0.ssld_stage2_ft_in1k"]
    assert left(names=with_torch, time_budget_s=1, min_rounds=2) > few + 3


def test_what_is_done_takes_no_time_and_shows_what_it_took(folder: Path) -> None:
    status = hwnas.status(folder)
    planned = hwnas.plan(folder, only="search")
    assert {row["status"] for row in status} == {"done"} and planned.facts["left_s"] == 0
    for row, shown in zip(status, planned.shown, strict=True):
        assert shown["time"] == f"{row['seconds']:.0f} s" and row["why"] == ""
    (search,) = status.facts["searches"]
    assert search["top1"] in (None, hwnas.open_run(folder).winner.accuracy)  # earlier versions


@pytest.mark.usefixtures("its_machine")
def test_a_plan_says_which_setting_makes_a_stage_stale(folder: Path) -> None:
    planned = hwnas.plan(folder, settings={"finetune.epochs": 2})
    why = {row["stage"]: row["why"] for row in planned}
    assert why["search/main"] == "" and why["export/main"] == "finetune/main runs first"
    assert why["finetune/main"] == "settings or inputs changed", "recorded by an earlier version"
    assert next(row["why"] for row in planned.shown) is None


def test_latencies_that_can_be_reached_are_told_before_a_limit_is_chosen(folder: Path) -> None:
    run = hwnas.open_run(folder)
    rows = hwnas.plan(folder, only="search").facts["latencies"]
    assert [row["device"] for row in rows] == [*run.project.devices]
    for row in rows:
        table = run.latency_table(row["device"])
        (shown,) = hwnas.space_show(run.space, table=table).facts["latencies"]
        classes = run.space.macro.num_classes
        assert (shown.pop("classes"), shown.pop("classes timed")) == (classes, [classes])
        assert shown == {key: value for key, value in row.items() if key != "limit"}
        latency = run.project.estimator(row["device"]).latency_ms
        drawn = latency(run.space.sample(20_000, seed=1))
        share = [float((drawn <= row[key]).mean()) for key in [*row][3:6]]
        assert np.allclose(share, [0.25, 0.5, 0.75], atol=0.05)
        ends = latency(run.space.codes([run.space.smallest(), run.space.largest()]))
        assert row["smallest"] <= min(ends.min(), np.quantile(drawn, 0.01))
        assert row["largest"] >= max(ends.max(), np.quantile(drawn, 0.99))
    assert rows[0]["limit"] == run.limits[f"latency_ms@{rows[0]['device']}"]


def test_a_failed_check_stands_beside_done(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "artifacts_are_there", lambda project: True)  # as of this version
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    project: Project = hwnas.open_run(copy).project
    file = project.files.results
    results = file.read()
    bad = (Check("constraint on local", False, "too slow"), *results.checks)
    file.write(Results(results.networks, bad, results.predictor, results.winners))
    ledger = project.run.ledger()["verify/main"]
    name = str(file.path.relative_to(copy))
    changed = {**ledger.outputs, **project.run.hash_outputs([file.path])}
    assert name in changed
    project.run.record("verify/main", replace(ledger, outputs=changed))
    row = next(row for row in hwnas.status(copy) if row["stage"] == "verify/main")
    assert row["status"] == "done"
    assert row["why"] == "1 check failed: constraint on local"


@pytest.mark.parametrize("verb", ["export", "verify", "finetune", "report"])
def test_another_search_is_refused_with_those_there_are(folder: Path, verb: str) -> None:
    before = json.loads((folder / "stages.json").read_text())
    with pytest.raises(UserError, match=r"has no search 'nope'[\s\S]*one of main[\s\S]*nope"):
        getattr(hwnas, verb)(folder, search="nope")
    assert json.loads((folder / "stages.json").read_text()) == before


@pytest.mark.parametrize("formats", [["onnx", "onnx"], ["int8", " onnx", "onnx "]])
def test_a_format_that_is_named_twice_is_refused(folder: Path, formats: list[str]) -> None:
    with pytest.raises(UserError, match=r"named twice[\s\S]*name onnx once"):
        hwnas.export(folder, formats=formats)


@pytest.mark.parametrize(
    ("formats", "one"),
    [
        (["onnx", "onnx:fp32"], "onnx or onnx:fp32"),
        (["int8", "onnx", "onnx:int8"], "int8 or onnx:int8"),
        (["litert", "litert:fp32"], "litert or litert:fp32"),
    ],
)
def test_two_names_of_one_format_are_refused(folder: Path, formats: list[str], one: str) -> None:
    shown = ", ".join(formats)
    expected = (
        rf"named twice[\s\S]*every format once[\s\S]*{shown}[\s\S]*where: formats[\s\S]*{one}"
    )
    with pytest.raises(UserError, match=expected):
        hwnas.export(folder, formats=formats)


@pytest.mark.parametrize(
    ("format", "problem"),
    [
        ("onxn", r"unknown exporter 'onxn'[\s\S]*onnx"),
        ("litert:fp17", r"precision[\s\S]*fp32[\s\S]*fp17"),
        ("onnx:fp17", r"onnx has no precision 'fp17'[\s\S]*onnx:int8"),
        ("timm:int8", r"precision"),
    ],
)
def test_a_wrong_format_is_located_in_formats(folder: Path, format: str, problem: str) -> None:
    with pytest.raises(UserError, match=problem) as error:
        hwnas.export(folder, formats=["onnx", format])
    assert str(error.value.where) == f"formats: {format}"
    assert "--set" not in str(error.value)


def test_accuracies_of_training_and_labels_are_listed_with_their_error(folder: Path) -> None:
    trained, labels = hwnas.train(folder), hwnas.label(folder)
    n = hwnas.open_run(folder).project.source.info.n_images["val"]
    assert trained.facts["n_images"] == labels.facts["n_images"] == n
    (row,), (shown,) = trained, trained.shown
    assert {shown[f"validation top-1, {name}"] for name in ("largest", "smallest")} == {
        accuracy_text(row[f"top1 {name}"], n) for name in ("largest", "smallest")
    }
    (row,), (shown,) = labels, labels.shown
    for name in ("lowest", "median", "highest"):
        assert shown[f"{name} validation top-1"] == accuracy_text(row[f"{name} top1"], n)


def test_exports_name_the_network_and_the_format(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, notes = hwnas.open_run(folder).project, []
    known = project.files.read_exports()
    model, px = torch.nn.Identity(), np.zeros((1, 3, 8, 8), np.float32)
    network = export._Network(model, folder, {}, px, px, 0.0, {})
    monkeypatch.setattr(export, "_network", lambda *_: network)
    monkeypatch.setattr(export, "export_safely", lambda *_, **__: ())
    monkeypatch.setattr(export, "_checked", lambda project, one, *_: by_format[one.name])
    by_format = {row.model.format: row for rows in known.values() for row in rows}
    monkeypatch.setattr(type(project.files), "write_exports", lambda *given, **named: None)
    export.export(project, lambda done, total, note="": notes.append((done, total, note)))
    formats = [one.shown for one in project.formats]
    of_all = f"of {len(known)} networks)"
    assert [note for *_, note in notes[: len(formats)]] == [
        f"winner (1 {of_all}, {name}" for name in formats
    ]
    assert notes[len(formats)][2].startswith(f"winner (1 {of_all}, parity ")
    done, totals = [done for done, _, _ in notes], {total for _, total, _ in notes}
    assert done == sorted(done) and totals == {done[-1]} and done[-1] >= len(formats)
    names = {"winner", "largest", "smallest", "random search", "random subnet"}
    assert {note.split(" (")[0] for _, _, note in notes} <= names


def test_predicted_scores_name_their_unit(folder: Path) -> None:
    found = hwnas.predictor_predict(folder, ["largest"])
    assert found.facts["score_unit"] == "minus log of the validation loss"
    ((shown,), (row,)) = found.shown, found
    assert shown["score [minus log of the validation loss]"] == row["score"]


def test_more_threads_than_processors_are_refused_unless_forced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In a dry run and before any model is built; in a run folder before the first stage."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "many.yaml").write_text("schema_version: 1\nthreads: 4000\n")
    device = str(tmp_path / "many.yaml")
    said = "4000 threads, but this process may use "
    refused = rf"(?s)more threads than processors.*{said}.*device many.*force_threads"

    def plan(**settings: bool) -> None:
        profile_plan(
            device,
            "mobilenet_tiny",
            resolutions=[8],
            settings=None,
            num_classes=10,
            profile_settings=settings,
        )

    with pytest.raises(UserError, match=refused):
        plan()
    with pytest.raises(UserError, match=refused):
        hwnas.profile(device, "mobilenet_tiny", resolutions=[8], num_classes=10)
    limits = [{"metric": "macs", "max_fraction_of_largest": 0.5}]
    changes = {"devices": [device], "search.constraints": limits}
    with pytest.raises(UserError, match=refused):
        hwnas.plan(tmp_path / "run", config=MINI, settings=changes)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["many.yaml"]
    assert not caplog.text
    plan(force_threads=True)
    assert caplog.text.count(f"device many: {said}") == 1
    caplog.clear()
    hwnas.plan(tmp_path / "run", config=MINI, settings=changes | {"profile.force_threads": True})
    assert caplog.text.count(f"device many: {said}") == 1


def test_the_winners_are_listed_with_unit_accuracy_and_error(folder: Path) -> None:
    found = hwnas.search(folder)
    n = hwnas.open_run(folder).project.source.info.n_images["val"]
    for row, shown in zip(found, found.shown, strict=True):
        assert "score [minus log of the validation loss]" in shown
        if row["top1"] is not None:
            error = (row["top1"] * (1 - row["top1"]) / n) ** 0.5
            assert row["top1_se"] == pytest.approx(error)
            assert shown["validation top-1"] == f"{row['top1']:.2%} ± {error:.2%}"


def test_every_further_format_takes_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def seconds(*formats: str) -> float:
        planned = hwnas.plan(folder, only="export", settings={"export": [*formats]})
        return next(row["left_s"] for row in planned if row["stage"].startswith("export"))

    monkeypatch.setattr(duration, "slowness", lambda: 1.0)
    monkeypatch.setattr(duration, "_speed", lambda of: Speed((0.0, 0.0), (0.0, 0.0)))
    few = seconds("onnx")
    assert seconds("onnx", "fp16", "timm") == pytest.approx(few + 7.0)
