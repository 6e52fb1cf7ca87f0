"""Re-measurement and verification end to end, on a simulated device of known speed.

A model takes 1 ns per byte of its file. Networks that the table was not fitted on may take longer
than that by a factor that the table cannot know, and the whole machine may slow down.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from hwnas.cli.main import app
from hwnas.core.env import host_facts
from hwnas.core.errors import NotJudged
from hwnas.core.progress import silent
from hwnas.pipeline import foreign_tables, opening, project
from hwnas.pipeline.artifacts import Artifacts
from hwnas.pipeline.engine import execute
from hwnas.pipeline.graph import stages_of
from tests.kit import FakeMachine, SizeTransport
from tests.photos import class_folders

CONFIG = Path(__file__).parent / "kills.yaml"
UNTIL_PREDICTOR = ("profile/local", "train", "label", "predictor")
ROUNDS = ("--set", "search.closing={n_retimed: 2, max_rounds: 4}")


class Device(SizeTransport):
    """`pace`: of all models. `surprise`: of those that were not in the first plan, the table's."""

    pace = surprise = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.known: set[str] = set()

    def _machine(self, plan: dict[str, Any]) -> FakeMachine:
        names = {item["id"] for item in plan["items"]}
        self.known = self.known or names
        exact = super()._machine(plan).true_ns
        return FakeMachine(
            {
                name: ns * self.pace * (1.0 if name in self.known else self.surprise)
                for name, ns in exact.items()
            }
        )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, set[str]]:
    """A run that is ready to be searched, and the ids of its table's models."""
    folder = tmp_path_factory.mktemp("runs")
    class_folders(folder / "pets", ["ant", "bee", "cat"], 40, px=14)
    device = Device()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HWNAS_DATA", str(folder))
        patch.setattr(project, "load_transport", lambda name, **_: device)
        with opening.open_project(
            folder / "run",
            config=str(CONFIG),
            changes={"workers": 0, "data.root": str(folder / "pets")},
            progress_for=lambda stage: silent,
            command="test",
        ) as opened:
            execute(stages_of(opened), opened.run, only=UNTIL_PREDICTOR)
    return folder / "run", device.known


@pytest.fixture
def device(trained: tuple[Path, set[str]], monkeypatch: pytest.MonkeyPatch) -> Device:
    device = Device()
    device.known = trained[1]
    monkeypatch.setattr(project, "load_transport", lambda name, **_: device)
    monkeypatch.setattr(foreign_tables, "host_facts", lambda: host_facts() | {"cpu": "Fake 1"})
    return device


@pytest.fixture
def run(trained: tuple[Path, set[str]], tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained[0], tmp_path / "run"))


def hwnas(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def files(run: Path) -> Artifacts:
    with opening.open_project(
        run, progress_for=lambda stage: silent, command="test", read_only=True
    ) as opened:
        return opened.files


def limit(metric: str, fraction: float) -> tuple[str, str]:
    one = f"{{metric: {metric}, max_fraction_of_largest: {fraction}}}"
    return "--set", f"search.constraints=[{one}]"


@pytest.mark.parametrize("metric", ["latency_ms", "latency_p95_ms"])
def test_a_winner_that_misses_its_limit_when_measured_is_replaced(
    run: Path, device: Device, metric: str
) -> None:
    device.surprise = 1.3  # more than winners stay below their limit by the estimate
    searched = hwnas("search", run, *ROUNDS, *limit(metric, 0.6))
    assert searched.exit_code == 0, searched.exception
    search = files(run).main_search
    found, result = search.remeasurement.read(), search.result.read()
    assert found.met and found.n_rounds > 1
    assert found.retimed[0].worst_ratio > 1  # the first winner
    (winner,) = [one for one in found.retimed if one.arch == result.winner.arch]
    assert winner.worst_ratio <= 1
    measured = winner.measured_ms if metric == "latency_ms" else winner.measured_p95_ms
    bound = result.limit(metric, "local")
    assert measured is not None and bound is not None and measured <= bound


def test_where_nothing_meets_the_limit_it_says_so(run: Path, device: Device) -> None:
    device.surprise = 5.0
    searched = hwnas("search", run, *ROUNDS, *limit("latency_p95_ms", 0.6))
    assert searched.exit_code == 0, searched.exception
    found = files(run).main_search.remeasurement.read()
    assert not found.met and " timings): the nearest one has p95 latency" in found.reason
    assert all(one.worst_ratio > 1 for one in found.retimed)


def test_a_slower_machine_changes_nothing_and_one_too_slow_is_not_judged(
    run: Path, device: Device, tmp_path: Path
) -> None:
    device.surprise = 1.1
    given = (*ROUNDS, *limit("latency_ms", 0.6))
    calm = Path(shutil.copytree(run, tmp_path / "calm"))
    assert hwnas("search", calm, *given).exit_code == 0
    device.pace = 1.65
    stopped = hwnas("search", run, *given)
    assert isinstance(stopped.exception, NotJudged) and stopped.exception.exit_code == 4
    assert "takes 1.65 times as long" in str(stopped.exception)
    device.pace = 1.2
    again = hwnas("search", run, *given)  # goes on, and measures again
    assert again.exit_code == 0, again.exception
    one, other = (
        [row for row in files(folder).main_search.remeasurement.read().retimed if row.round == 0]
        for folder in (run, calm)
    )
    assert [row.arch for row in one] == [row.arch for row in other]
    measured = [row.measured_ms for row in other]
    assert [row.measured_ms for row in one] == pytest.approx(measured, rel=1e-4)


def test_every_point_of_a_front_says_what_is_known_of_its_accuracy(
    run: Path, device: Device
) -> None:
    assert hwnas("search", run).exit_code == 0
    search = files(run).main_search
    result = search.result.read()
    journal = [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()]
    top1 = {tuple(row["evaluation"]["arch"]["codes"]): row["evaluation"]["top1"] for row in journal}
    points = [point for front in result.fronts.values() for point in front]
    assert any(point.supernet is None for point in points), "the search evaluated all of them"
    for point in (*points, *result.top):
        assert point.accuracy is not None
        assert (point.accuracy.source, point.accuracy.split) == ("supernet", "val")
        assert point.accuracy.top1 == top1[point.arch.codes]
    assert result.n_evaluations < len(top1)
    (stored,) = (run / "search" / "main" / "fronts").iterdir()
    rows = json.loads(stored.read_text())["front"]
    assert all(row["accuracy"]["unit"] == "top1" for row in rows)


def test_verification_has_a_third_state_and_is_repeated(run: Path, device: Device) -> None:
    for verb in ("search", "finetune", "export"):
        done = hwnas(verb, run)
        assert done.exit_code == 0, done.exception
    device.pace = 1.65
    not_judged = hwnas("verify", run, "--format", "json")
    assert isinstance(not_judged.exception, NotJudged) and not_judged.exception.exit_code == 4
    printed = json.loads(not_judged.stdout)
    states = {check["name"]: check["passed"] for check in printed["checks"]}
    assert states["estimate on local"] is states["constraint on local"] is None
    assert states["parity of the winner"] is True
    assert printed["table"][0]["constraint_met"] is None
    assert printed["table"][0]["pace"] == pytest.approx(1.65, rel=1e-3)
    accepted = hwnas("verify", run, "--report-only")
    assert accepted.exit_code == 0, accepted.exception
    manifest = json.loads((run / "bundles" / "main" / "local" / "manifest.json").read_text())
    assert [c["met"] for c in manifest["constraints"]] == [None]
    device.pace = 1.2
    again = ("verify", run, "--report-only", "--format", "json")
    judged = json.loads(hwnas(*again).stdout)  # the same command measures again
    assert None not in [check["passed"] for check in judged["checks"]]
    # exported files are larger than the table's networks, hence slower here; not by the pace
    assert 1 < judged["table"][0]["measured_ms"] / judged["table"][0]["forecast_ms"] < 1.2
    n_runs = device.runs
    assert json.loads(hwnas(*again).stdout)["checks"] == judged["checks"]
    assert device.runs == n_runs  # what is judged stays
