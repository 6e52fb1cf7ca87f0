"""What the protocol promises beyond a median: drift, stopping, warnings, kills, pinning."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwnas.builders.onnx import context
from hwnas.core.store import read_jsonl
from hwnas.interfaces import DeviceSpec
from hwnas.latency.plan import Plan, plan_hash, write_plan
from hwnas.latency.samples import Samples, read_samples
from hwnas.latency.sections import ProfileConfig
from tests.kit import FACTS, HOST, KIT, FakeMachine, load_kit

kit = load_kit()
NETS = {f"net{i}": 20_000.0 * 1.3**i for i in range(10)}


def plan_of(ids: Any, **changes: Any) -> dict[str, Any]:
    plan = {
        "schema_version": 1,
        "runtime": "onnxruntime",
        "provider": "CPUExecutionProvider",
        "precision": "fp32",
        "threads": 1,
        "batch": 1,
        "seed": 0,
        "rounds": 40,
        "min_rounds": 5,
        "time_budget_s": 1e6,
        "target_error": 0.0,
        "warmup_runs": 1,
        "hot_samples": 8,
        "turn_budget_s": 1.0,
        "reference": next(iter(ids)),
        "items": [{"id": name, "file": f"{name}.onnx", "sha256": "0" * 64} for name in ids],
    }
    return plan | changes


def measure(
    path: Path, true_ns: Mapping[str, float], changes: Mapping[str, Any] = {}, **disturbances: Any
) -> Samples:
    """Samples of a fake machine by the kit's own protocol."""
    plan = plan_of(true_ns, **changes)
    machine = FakeMachine(true_ns, **disturbances)
    results = kit.Results(path)
    results.open_for(plan, FACTS, HOST)
    kit.run(plan, machine.load, machine, results)
    return read_samples(Plan(path, path, plan_hash(plan), tuple(true_ns)))


def test_the_reference_corrects_the_drift_of_a_few_items(tmp_path: Path):
    """Ever hotter, 60 % in all: without the reference, early and late rounds differ by as much."""
    true_ns = {"a": 300_000.0, "b": 500_000.0}
    total_ns = 40 * 9 * (2 * 300_000 + 500_000) * 1.3

    def drift(t_ns: float) -> float:
        return 1 + 0.6 * t_ns / total_ns

    samples = measure(tmp_path / "r.jsonl", true_ns, drift=drift, noise=0.01)
    fastest = samples.fastest()
    uncorrected = np.nanmin(samples.hot, axis=2)
    assert (uncorrected.max(axis=1) / uncorrected.min(axis=1) > 1.4).all()
    assert (fastest.max(axis=1) / fastest.min(axis=1) < 1.06).all()
    medians = np.median(fastest, axis=1)
    assert medians[1] / medians[0] == pytest.approx(5 / 3, rel=0.01)


def test_one_item_alone_is_not_corrected_by_itself(tmp_path: Path):
    """Else its two halves would agree exactly, whatever the noise."""
    samples = measure(tmp_path / "r.jsonl", {"a": 300_000.0}, noise=0.2)
    even, odd = samples.halves()
    assert even[0] != odd[0]
    assert even[0] == pytest.approx(odd[0], rel=0.1)


def test_the_reference_takes_turns_all_along_a_round():
    order = kit.round_order(0, 3, 100)
    assert sorted(order) == list(range(-4, 100))
    assert [order.index(-1 - extra) for extra in range(4)] == [0, 33, 66, 99]


# --- stopping -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("noise", "least", "most"), [(0.0, 5, 5), (0.03, 6, 30), (0.3, 40, 40)])
def test_rounds_end_when_the_medians_are_known(noise, least, most, tmp_path: Path):
    samples = measure(tmp_path / "r.jsonl", NETS, {"target_error": 0.005}, noise=noise)
    assert least <= samples.hot.shape[1] <= most


def test_the_stated_error_of_a_median_holds(tmp_path: Path):
    """Of 40 items' intervals, some 90 % contain the median that a hundred times the rounds give."""
    true_ns = {f"n{i}": 100_000.0 for i in range(40)}
    truth = np.median(FakeNoise(0.1).fastest(200_000))
    inside = []
    for seed in range(3):
        path = tmp_path / f"{seed}.jsonl"
        measure(path, true_ns, {"rounds": 20}, noise=0.1, seed=seed)
        results = kit.Results(path)
        for by_round in (results.fastest[index] for index in range(40)):
            one = type("One", (), {"fastest": {0: by_round}})
            half = kit.median_error(one, 0.0) * np.median(list(by_round.values()))
            inside.append(abs(np.median(list(by_round.values())) - 100_000 * truth) <= half)
    assert 0.8 < np.mean(inside) < 0.99


class FakeNoise:
    """Draws of the fastest of eight half-normal disturbances, as FakeMachine makes them."""

    def __init__(self, noise: float) -> None:
        self.noise, self.random = noise, np.random.default_rng(9)

    def fastest(self, n: int) -> np.ndarray:
        draws = 1 + self.noise * np.abs(self.random.standard_normal((n, 8)))
        return np.asarray(draws.min(axis=1))


def test_the_medians_are_looked_at_seldom_when_there_are_many_rounds(tmp_path: Path, monkeypatch):
    looks = []
    judge = kit.median_error
    monkeypatch.setattr(kit, "median_error", lambda *a: looks.append(1) or judge(*a))
    measure(tmp_path / "r.jsonl", {"a": 1000.0}, {"rounds": 1000, "target_error": 0.0}, noise=0.1)
    assert len(looks) < 150


# --- warnings -------------------------------------------------------------------------------------


def test_a_quiet_machine_is_not_blamed(tmp_path: Path):
    assert measure(tmp_path / "r.jsonl", NETS, noise=0.02, outliers=0.02).warnings == ()


def test_throttling_is_reported(tmp_path: Path):
    one_round_ns = 9 * (sum(NETS.values()) + NETS["net0"])
    samples = measure(
        tmp_path / "r.jsonl", NETS, noise=0.02, drift=lambda t: 1 + 0.3 * (t > 22 * one_round_ns)
    )
    (warning,) = samples.warnings
    assert "slower" in warning and "throttling" in warning
    assert 25 <= int(warning.split("%")[0].split()[-1]) <= 35


def test_noisy_neighbours_are_reported(tmp_path: Path):
    samples = measure(tmp_path / "r.jsonl", NETS, outliers=0.3)
    (warning,) = samples.warnings
    assert "noisy neighbours" in warning
    assert 27 <= int(warning.split("%")[0].split()[-1]) <= 33


def test_a_changing_clock_is_reported(tmp_path: Path):
    one_round_ns = 9 * (sum(NETS.values()) + NETS["net0"])
    samples = measure(
        tmp_path / "r.jsonl", NETS, drift=lambda t: 1 + 0.2 * (t // (3 * one_round_ns) % 2)
    )
    (warning,) = samples.warnings
    assert "unsteady" in warning


# --- time, progress, kills ------------------------------------------------------------------------


def test_a_device_with_its_own_clock_is_believed(tmp_path: Path):
    plan = plan_of({"a": 1.0}, rounds=6)
    machine = FakeMachine({"a": 50_000.0})

    def load(item: dict[str, str]) -> Any:
        def once() -> int:
            machine.execute("a")
            return 777

        return once

    results = kit.Results(tmp_path / "r.jsonl")
    results.open_for(plan, FACTS, HOST)
    kit.run(plan, load, machine, results)
    assert set(results.fastest[0].values()) == {777}


def test_progress_tells_the_time_left(tmp_path: Path):
    plan = plan_of(NETS, rounds=400, time_budget_s=1e6)
    machine = FakeMachine(NETS)
    total_s = 400 * 9 * (sum(NETS.values()) + NETS["net0"]) * 1e-9
    left = []

    def progress(done: int, total: int, note: str, seconds_left: float | None) -> None:
        if note == "timing":
            left.append((machine.time_ns * 1e-9, seconds_left))

    results = kit.Results(tmp_path / "r.jsonl")
    results.open_for(plan, FACTS, HOST)
    kit.run(plan, machine.load, machine, results, progress)
    assert len(left) >= 2
    for passed, seconds_left in left:
        assert passed + seconds_left == pytest.approx(total_s, rel=0.05)


def real_plan(folder: Path, **changes: Any) -> Plan:
    models = {f"c{hw}": context(8, hw).SerializeToString() for hw in (8, 32)}
    settings = {"rounds": 1_000_000, "target_error": 0.0, "time_budget_s": 60.0} | changes
    config = ProfileConfig(min_rounds=1, hot_samples=4, **settings)
    return write_plan(models, DeviceSpec("local"), folder, config, seed=0)


def start(plan: Plan) -> subprocess.Popen[str]:
    command = [sys.executable, str(KIT), str(plan.path), "--out", str(plan.results)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def test_a_killed_process_loses_a_line_at_most_and_goes_on(tmp_path: Path):
    plan = real_plan(tmp_path)
    process = start(plan)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("{") and json.loads(line)["note"] == "timing":
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stderr.close()
    before = read_jsonl(plan.results)
    n_turns = sum(len(line.get("turns", ())) for line in before)
    assert n_turns > 0
    spent_s = sum(line.get("seconds", 0) for line in before)
    again = real_plan(tmp_path, time_budget_s=spent_s + 0.5)
    assert again.hash == plan.hash
    done = start(again)
    assert done.wait(60) == 0
    after = read_jsonl(plan.results)
    assert after[: len(before)] == before and "warnings" in after[-1]
    assert sum(len(line.get("turns", ())) for line in after) > n_turns
    read_samples(plan)  # which refuses a turn that occurs twice


def test_samples_arrive_under_no_other_name_of_their_file(tmp_path: Path):
    """A copy of the run folder by `cp -l` or `rsync --link-dest` stays as it is."""
    kit = load_kit()
    path, backup = tmp_path / "r.jsonl", tmp_path / "backup.jsonl"
    first = kit.Results(path)
    first.open_for(plan_of({"a": 1.0}), FACTS, HOST)
    first.add(0, 0, [5, 4], [])
    first.flush(1.0)
    del first
    os.link(path, backup)
    before = backup.read_bytes()
    second = kit.Results(path)
    assert second.has(0, 0)
    second.add(1, 0, [5, 4], [])
    second.flush(1.0)
    assert backup.read_bytes() == before
    assert path.read_bytes().startswith(before)
    assert len(path.read_bytes().splitlines()) == len(before.splitlines()) + 1
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["backup.jsonl", "r.jsonl"]


@pytest.mark.parametrize("kind", ["pipe", "link", "device", "folder"])
def test_a_kit_writes_into_a_regular_file_alone(kind: str, tmp_path: Path):
    kit = load_kit()
    path, victim = tmp_path / "r.jsonl", tmp_path / "victim"
    victim.write_text("precious")
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "link":
        path.symlink_to(victim)
    else:
        path = Path("/dev/zero")
    with pytest.raises(kit.KitError, match="give another --out"):
        kit.Results(path)
    assert victim.read_text() == "precious"


def test_a_kit_does_not_wait_for_a_plan_that_is_a_pipe(tmp_path: Path):
    os.mkfifo(tmp_path / "plan.json")
    done = subprocess.run(
        [sys.executable, KIT, tmp_path / "plan.json", "--out", tmp_path / "r.jsonl"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1 and "no plan at" in done.stderr


def test_a_kit_waits_for_one_that_is_about_to_end(tmp_path: Path):
    plan = real_plan(tmp_path, rounds=2)
    holder = kit.Results(plan.results)
    process = start(plan)
    time.sleep(0.5)
    holder._stream.close()
    assert process.wait(30) == 0


def test_interrupted_runs_have_their_processor_time_where_it_can_be_told(tmp_path: Path):
    """With nine of ten runs interrupted, the truth is found all the same; without it, it is not."""
    truth = np.array(list(NETS.values())) * 1e-6
    found = {}
    for counts_work in (True, False):
        facts = "processor time" if counts_work else "dropped"
        plan = plan_of(NETS)
        machine = FakeMachine(NETS, noise=0.01, outliers=0.95, counts_work=counts_work)
        results = kit.Results(tmp_path / f"{facts}.jsonl")
        results.open_for(plan, FACTS | {"interrupted_runs": facts}, HOST)
        kit.run(plan, machine.load, machine, results)
        path = tmp_path / f"{facts}.jsonl"
        samples = read_samples(Plan(path, path, plan_hash(plan), tuple(NETS)))
        found[counts_work] = np.array([samples.timings()[name].median_ms for name in NETS])
    assert found[True] == pytest.approx(truth, rel=0.02)
    assert np.abs(found[False] / truth - 1).max() > 0.3
