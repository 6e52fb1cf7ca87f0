"""A space that gains an operator: what earlier sessions timed is kept, at the pace of then."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwnas.core.progress import Pace, silent
from hwnas.interfaces import DeviceSpec
from hwnas.latency.construction import op_id
from hwnas.latency.sections import ProfileConfig
from hwnas.latency.table import LatencyTable
from hwnas.measure.profile import describe_cost, profile
from hwnas.measure.session_files import known_models
from hwnas.measure.sessions import N_REFERENCES, time_all, time_missing
from hwnas.measure.timed import Timed
from hwnas.spaces.index import enumerate_ops
from hwnas.spaces.mobilenet_tiny import Config, build
from hwnas.spaces.ops import OpSpec
from hwnas.spaces.space import SearchSpace
from tests.kit import FakeMachine, FakeTransport, SizeTransport
from tests.unit.test_profiling import additive_machine

DEVICE = DeviceSpec("board", transport="offline")
QUICK = ProfileConfig(rounds=4, min_rounds=4, hot_samples=2, n_validation=12)


def space_with(*expands: int, others: tuple[int, ...] = (2,)) -> SearchSpace:
    """A handful of ops; `expands` are those of one block of three."""
    whole = build(Config(resolutions=(16,)), num_classes=4)
    widths = {f"stage{s}.width": (width,) for s, width in enumerate((16, 32, 48))}
    ratios = {f"stage{s}.block{b}.expand": others for s in range(3) for b in range(3)}
    ratios |= {"stage1.block0.expand": expands}
    return whole.restrict({"stem.width": (8,), **widths, **ratios})


SMALL, LARGE, LARGER = space_with(2), space_with(2, 4), space_with(2, 4, 6)


def rows_ms(table: LatencyTable) -> dict[OpSpec, float]:
    return {op: timing.median_ms for op, timing in table.rows.items()}


def plan_ids(folder: Path) -> set[str]:
    return {item["id"] for item in json.loads((folder / "plan.json").read_text())["items"]}


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Samples of the small space."""
    folder = tmp_path_factory.mktemp("samples")
    profile(SMALL, DEVICE, folder, QUICK, transport=additive_machine(SMALL))
    return folder


@pytest.fixture
def folder(first: Path, tmp_path: Path) -> Path:
    return shutil.copytree(first, tmp_path / "samples")


def profiled(space: SearchSpace, folder: Path, **how: Any) -> LatencyTable:
    slow = how.pop("slow", 1.0)
    return profile(space, DEVICE, folder, QUICK, transport=additive_machine(space, slow), **how)


NEW_OPS = set(enumerate_ops(LARGE)) - set(enumerate_ops(SMALL))


def test_one_operator_is_timed_beside_references_and_drift_is_divided_out(
    folder: Path, caplog: pytest.LogCaptureFixture
):
    caplog.set_level("INFO")
    kept = set(enumerate_ops(SMALL)) & set(enumerate_ops(LARGE))
    assert 0 < len(NEW_OPS) <= 2 and len(kept) >= 10
    grown = profiled(LARGE, folder, slow=1.15)
    told = re.search(r"times (\d+) of (\d+) models; (\d+) models of earlier", caplog.text)
    truth = profiled(LARGE, folder.with_name("whole"))
    assert {op_id(op) for op in NEW_OPS} < plan_ids(folder)
    n_new, n_all, n_again = map(int, told.groups() if told else ())
    assert n_new + n_again == len(plan_ids(folder)) and n_again <= N_REFERENCES + 12
    assert len(NEW_OPS) <= n_new < n_all == len(plan_ids(folder.with_name("whole")))
    again = {op_id(op) for op in kept} & plan_ids(folder)
    assert len(again) <= N_REFERENCES < len(kept) + 12, "few operators are timed twice"
    np.testing.assert_allclose(
        [rows_ms(grown)[op] for op in truth.rows], list(rows_ms(truth).values()), rtol=1e-4
    )
    assert grown.facts["pace"] == pytest.approx(1.15, rel=1e-3) and grown.facts["sessions"] == 2
    found = grown.corrections[LARGE.id].validation
    assert found.forecast.mape < 1e-3
    own = {net.codes: net.measured_ms for net in truth.corrections[LARGE.id].validation.nets}
    assert {net.codes: net.measured_ms for net in found.nets} == pytest.approx(own, rel=1e-3)


def test_the_plan_says_so(folder: Path):
    def cost(space: SearchSpace, config: ProfileConfig = QUICK) -> str:
        return describe_cost(space, config, known_models(DEVICE, config, [folder]))

    n = len(enumerate_ops(LARGE))
    about = f"({len(NEW_OPS)} of {n} operators, 12 whole networks, and {N_REFERENCES} models"
    assert about in cost(LARGE)
    fewer = QUICK.model_copy(update={"hot_samples": 3})  # not comparable
    assert f"({n} operators, 12 whole networks)" in cost(LARGE, fewer)
    wide = space_with(2, 4, 6, others=(2, 4, 6))
    assert f"({len(enumerate_ops(wide))} operators," in cost(wide), "most are missing"


def test_a_session_that_is_cut_off_goes_on_and_one_that_is_done_is_not_timed_again(folder: Path):
    class CutOff(FakeMachine):
        def execute(self, name: str) -> None:
            if len(self.runs) == 250:
                raise KeyboardInterrupt
            super().execute(name)

    transport = additive_machine(LARGE)
    whole = transport.machine

    def cut(plan: dict[str, Any]) -> FakeMachine:
        return CutOff(whole(plan).true_ns)

    with pytest.raises(KeyboardInterrupt):
        profile(LARGE, DEVICE, folder, QUICK, transport=FakeTransport(cut))
    ids = plan_ids(folder)
    table = profile(LARGE, DEVICE, folder, QUICK, transport=transport)
    assert plan_ids(folder) == ids and transport.runs > 0
    before, files = transport.runs, sorted(path.name for path in folder.iterdir())
    assert profile(LARGE, DEVICE, folder, QUICK, transport=transport) == table
    assert transport.runs == before and sorted(path.name for path in folder.iterdir()) == files
    more = QUICK.model_copy(update={"rounds": 9, "target_error": 0.0})
    profile(LARGE, DEVICE, folder, more, transport=transport)
    assert transport.runs > before, "more rounds are added to what the last session timed"


def test_sessions_add_up_also_from_other_folders(folder: Path, tmp_path: Path):
    profiled(LARGE, folder, slow=1.1)
    there = tmp_path / "there"
    table = profiled(LARGER, there, slow=0.9, earlier=[tmp_path / "none", folder])
    truth = profiled(LARGER, tmp_path / "whole")
    assert table.facts["sessions"] == 3 and table.facts["pace"] == pytest.approx(0.9, rel=1e-3)
    np.testing.assert_allclose(
        [rows_ms(table)[op] for op in truth.rows], list(rows_ms(truth).values()), rtol=1e-4
    )
    shutil.rmtree(folder)
    assert rows_ms(profiled(LARGER, there)) == rows_ms(table), "the folder has all that it needs"
    transport = additive_machine(SMALL)
    profile(SMALL, DEVICE, there, QUICK, transport=transport)
    assert transport.runs == 0, "a space of which all was timed"


@pytest.mark.parametrize("change", ["pace", "runtime", "models"])
def test_what_cannot_be_compared_is_timed_together(
    change: str, folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    if change == "runtime":
        monkeypatch.setitem(_facts(), "runtime_version", "1.0")
    if change == "models":
        monkeypatch.setattr("hwnas.measure.profile.micro", _other_micro, raising=True)
    table = profiled(LARGE, folder, slow=1.5 if change == "pace" else 1.0)
    assert "sessions" not in table.facts
    assert {op_id(op) for op in enumerate_ops(LARGE)} < plan_ids(folder)
    assert ("timing all models again" in caplog.text) == (change != "models")


def _facts() -> dict[str, Any]:
    from tests import kit

    return kit.FACTS


def _other_micro(*arguments: Any, **how: Any) -> Any:
    from hwnas.builders.onnx import micro

    return micro(*arguments, **{**how, "seed": 7})


def test_what_earlier_sessions_timed_altogether_is_not_timed_at_all(tmp_path: Path):
    """A part of the models, which is another plan."""
    models = {f"m{number}": bytes([number]) * 9 for number in range(10)}

    def machine(plan: dict[str, Any]) -> FakeMachine:
        return FakeMachine({one["id"]: 1e5 * (1 + int(one["id"][1:])) for one in plan["items"]})

    transport = FakeTransport(machine)

    def timed(names: list[str]) -> Timed:
        return time_missing(
            {name: models[name] for name in names}, DEVICE, tmp_path, QUICK, around={}, seed=0,
            progress=silent, transport=transport,
        )  # fmt: skip

    whole = timed([*models])
    n_runs = transport.runs
    part = timed([*models][:7])
    assert transport.runs == n_runs > 0
    assert part.timings == whole.timings
    assert part.timings["m6"].median_ms == pytest.approx(0.7)
    order = json.loads((tmp_path / "sessions.json").read_text())
    assert order["schema_version"] == 1 and len(order["sessions"]) == 1


class SlowLoading(SizeTransport):
    """A device whose models take a minute each to load, and two seconds per turn."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def run_bench(self, plan: Path, results: Path, *, progress: Any) -> None:
        super().run_bench(plan, results, progress=progress)
        for n in range(12):
            self.now += 60.0
            progress(n + 1, 12, "loading models")
        progress(0, 0, "waiting for the page")
        for n in range(50):
            self.now += 2.0
            progress(n + 1, 50, "timing")
            if n == 24:
                progress(n + 1, 50, "waiting for the device")


@pytest.mark.parametrize("expected_s", [None, 800.0])
def test_loading_says_nothing_of_the_time_left(expected_s: float | None, tmp_path: Path):
    """Of 100 s of timing after 12 minutes of loading, half is left in the middle."""
    device = SlowLoading()
    pace, seen = Pace(expected_s, lambda: device.now), []

    def progress(done: int, total: int, note: str = "") -> None:
        seen.append((note, done / total, pace.left(done, total)))

    time_all(
        {"m": b"a model"},
        device=DeviceSpec("board"),
        folder=tmp_path,
        config=ProfileConfig(rounds=2, min_rounds=1),
        seed=0,
        progress=progress,
        transport=device,
    )
    loading, timing = seen[:13], seen[13:]
    assert loading[5] == ("loading models: 6/12", 0.0, expected_s)
    assert {left for _, _, left in loading} == {expected_s} and loading[-1][0].startswith("waiting")
    assert timing[24] == ("timing", 0.5, pytest.approx(50.0))
    assert timing[25] == ("waiting for the device", 0.5, pytest.approx(50.0))
    assert timing[-1] == ("timing", 1.0, 0.0)
