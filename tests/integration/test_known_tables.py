"""A run for a device of which only the latency table is known: nothing is timed on it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import hwnas
from hwnas.core.errors import UserError
from hwnas.core.progress import silent
from hwnas.exporters.bundle import read_manifest
from hwnas.pipeline.engine import execute
from hwnas.pipeline.graph import stages_of
from hwnas.pipeline.opening import open_project
from hwnas.pipeline.plan import plan_stages

PER_MS = 3.0  # energy of the made table: mJ in each ms
ENERGY = {"metric": "energy_mj", "device": "board", "max_fraction_of_largest": 0.75}
LATENCY = {"metric": "latency_ms", "device": "board", "max_fraction_of_largest": 0.9}


def with_energies(source: Path, target: Path) -> None:
    """A copy of a table with energies in proportion to the times of its rows."""
    table = json.loads(source.read_text())
    for row in table["rows"]:
        row["energy_mj"] = PER_MS * row["median_ms"]
    target.write_text(json.dumps(table))


def device_file(folder: Path, **settings: Any) -> Path:
    folder.mkdir(exist_ok=True)
    spec = {"schema_version": 1, "transport": {"name": "table", "table": "board.json"}} | settings
    path = folder / "board.yaml"
    path.write_text(json.dumps(spec))
    return path


def statuses(run: Path) -> dict[str, str]:
    with open_project(run, progress_for=lambda _: silent, command="", read_only=True) as project:
        plans = plan_stages(stages_of(project), project.run)
    return {plan.stage.name: plan.status for plan in plans}


@pytest.fixture(scope="module")
def place(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run `run`, whose search is then repeated for `devices/board.yaml`."""
    place = tmp_path_factory.mktemp("known")
    run = Path(shutil.copytree(folder, place / "run"))
    device = device_file(place / "devices")
    with_energies(run / "tables/local.json", place / "devices/board.json")
    changes = {
        "devices": [str(device)],
        "search.constraints": [LATENCY, ENERGY],
        "search.closing": {"max_rounds": 2},
        "search.references": {"names": ["mobilenetv3_small_050"], "resolutions": [32]},
    }
    with open_project(
        run, changes=changes, progress_for=lambda _: silent, command="test"
    ) as project:
        execute(stages_of(project), project.run)
    return place


def test_estimates_take_the_place_of_timings(place: Path) -> None:
    """Limits hold by the table; closing, verify and references time nothing."""
    run = hwnas.open_run(place / "run")
    rows = run.project.files.results.read().networks
    assert {row.device for row in rows} == {"board"}
    assert {row.measured_ms for row in rows} == {None}
    winner = next(row for row in rows if row.name == "winner")
    largest = run.space.codes([run.space.largest()])
    with_table = run.project.estimator("board")
    most_mj = ENERGY["max_fraction_of_largest"] * with_table.energy_mj(largest)[0]
    assert winner.limit_mj == pytest.approx(most_mj, abs=1e-5)
    codes = run.space.codes([winner.arch])
    assert winner.energy_mj == pytest.approx(with_table.energy_mj(codes)[0], abs=1e-5)
    assert winner.energy_mj <= winner.limit_mj
    assert winner.forecast_ms == pytest.approx(with_table.latency_ms(codes)[0])
    assert winner.forecast_ms <= winner.limit_ms and winner.constraint_met is None
    low, high = winner.interval_ms
    assert low < winner.forecast_ms < high
    assert not run.project.files.references.results.read().devices
    assert not [check for check in run.project.files.results.read().checks if not check.passed]


def test_the_bundle_promises_the_estimate_alone(place: Path) -> None:
    """Its manifest passes the schema of the kit, and names no machine that timed anything."""
    bundle = place / "run/bundles/main/board"
    manifest = read_manifest(bundle)
    (latency,) = manifest.latency
    assert latency.measured_ms is None and latency.forecast_ms and latency.interval_ms
    assert {limit.metric: limit.met for limit in manifest.constraints} == {
        "latency_ms": None,
        "energy_mj": None,
    }
    checked = hwnas.verify(bundle)
    assert not checked.failed and not checked.not_judged
    assert "ms measured" not in (bundle / "README.md").read_text().split("| file |")[1][:400]


def test_the_report_and_the_tables_say_so(place: Path) -> None:
    report = hwnas.report(place / "run").read_text()
    assert "estimated latency, not measured" in report and "energy [mJ]" in report
    results = hwnas.open_run(place / "run").project.files.results.read()
    shown = results.networks[0].summary()
    assert shown["measured_ms"] is None and shown["forecast_error"] is None
    assert shown["energy_mj"] > 0


def test_the_run_stands_without_the_files_and_notices_their_change(place: Path) -> None:
    """The table's content counts: gone files change nothing, another table makes it stale."""
    assert set(statuses(place / "run").values()) == {"done"}
    kept = place / "devices-kept"
    shutil.move(place / "devices", kept)
    assert set(statuses(place / "run").values()) == {"done"}
    shutil.copytree(kept, place / "devices")
    table = json.loads((kept / "board.json").read_text())
    table["rows"][0]["median_ms"] *= 2
    (place / "devices/board.json").write_text(json.dumps(table))
    found = statuses(place / "run")
    assert found["profile/board"] == "stale" and found["search/main"] == "stale"
    assert found["train"] == found["label"] == "done"
    (place / "devices/board.json").unlink()
    shutil.copy(kept / "board.json", place / "devices")
    assert set(statuses(place / "run").values()) == {"done"}


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"precision": "int8"}, "(?s)expected.*precision: int8.*found.*precision: fp32"),
        ({"batch": 4}, "(?s)expected.*batch: 4.*found.*batch: 1"),
        ({"runtime": "litert", "provider": "cpu"}, "(?s)expected.*litert.*found.*onnxruntime"),
        ({"threads": 2}, "(?s)expected.*threads: 2.*found.*threads: 1"),
    ],
)
def test_tables_of_other_devices_are_refused(
    place: Path, tmp_path: Path, settings: dict[str, Any], found: str
) -> None:
    device = device_file(tmp_path / "other", **settings)
    shutil.copy(place / "run/tables/board.json", tmp_path / "other/board.json")
    with pytest.raises(UserError, match=found):
        hwnas.profile(str(device), run=place / "run", settings={"devices": [str(device)]})


@pytest.mark.parametrize(
    ("table", "found"),
    [
        ("pixel1-proxyless", "(?s)lacks operators.*name another table in the file of the device"),
        ("pixel1-proxyles", "(?s)no latency table 'pixel1-proxyles'.*did you mean"),
        ("gone.json", "needs a file that does not exist"),
    ],
)
def test_tables_of_another_space_and_missing_ones_are_refused(
    place: Path, tmp_path: Path, table: str, found: str
) -> None:
    device = device_file(tmp_path / "other", transport={"name": "table", "table": table})
    with pytest.raises(UserError, match=found):
        hwnas.profile(str(device), run=place / "run", settings={"devices": [str(device)]})


@pytest.mark.parametrize(
    ("limit", "found"),
    [
        ({"metric": "energy_mj", "max": 1.0}, "energy_mj@board, but there is no estimate"),
        ({"metric": "latency_p95_ms", "max": 1.0}, "latency_p95_ms@board, but there is no estima"),
        ({"metric": "latency_ms", "max": 1.0, "probability": 0.9}, "has no correction for"),
        ({"metric": "latency_ms", "max": 1e-9}, "no arch of the space meets the constraints"),
    ],
)
def test_limits_that_the_table_cannot_tell_are_refused_before_training(
    place: Path, tmp_path: Path, limit: dict[str, Any], found: str
) -> None:
    """The table is read before the first stage, also in a dry run."""
    device = device_file(tmp_path / "other")
    table = json.loads((place / "run/tables/local.json").read_text())
    (tmp_path / "other/board.json").write_text(json.dumps({**table, "corrections": {}}))
    changes = {"devices": [str(device)], "search.constraints": [{"device": "board", **limit}]}
    with pytest.raises(UserError, match=found):
        hwnas.plan(tmp_path / "new", config=str(place / "run/config.yaml"), settings=changes)


def test_the_energy_of_a_timed_device_cannot_be_limited(place: Path, tmp_path: Path) -> None:
    limit = {"metric": "energy_mj", "device": "local", "max": 1.0}
    changes = {"devices": ["local"], "search.constraints": [limit]}
    with pytest.raises(UserError, match="the energy on 'local', which hwnas cannot measure"):
        hwnas.plan(tmp_path / "new", config=str(place / "run/config.yaml"), settings=changes)


def test_it_cannot_be_timed_outside_of_a_run(tmp_path: Path) -> None:
    device = str(device_file(tmp_path / "alone"))
    message = "nothing can be timed on .*board"
    with pytest.raises(UserError, match=message):
        hwnas.profile(device, space="mobilenet_tiny")
    with pytest.raises(UserError, match=message):
        hwnas.profile_pack(device, space="mobilenet_tiny", out=tmp_path / "kit.zip")
    with pytest.raises(UserError, match=message):
        hwnas.references(device=device, names=["mobilenetv3_small_050"], resolutions=[32])
