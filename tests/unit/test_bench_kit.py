"""The device kit's protocol, on a machine whose truth is known, and its files."""

from __future__ import annotations

import ast
import gc
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from hwnas.builders.onnx import context
from hwnas.core.store import read_json, read_jsonl
from hwnas.interfaces import DeviceSpec
from hwnas.latency.plan import PROTOCOL, Plan, plan_hash, write_plan
from hwnas.latency.samples import read_samples
from hwnas.latency.sections import ProfileConfig
from tests.kit import FACTS, HOST, KIT, FakeMachine, load_kit

kit = load_kit()
TRUE_NS = {f"net{i}": 20_000.0 * 1.5**i for i in range(8)}


def plan_of(ids: Any = TRUE_NS, **changes: Any) -> dict[str, Any]:
    plan = {
        "schema_version": 1,
        "runtime": "onnxruntime",
        "provider": "CPUExecutionProvider",
        "precision": "fp32",
        "threads": 1,
        "batch": 1,
        "seed": 0,
        "rounds": 30,
        "min_rounds": 2,
        "time_budget_s": 1000.0,
        "target_error": 0.0,
        "warmup_runs": 1,
        "hot_samples": 8,
        "turn_budget_s": 1.0,
        "reference": "net0",
        "items": [{"id": name, "file": f"{name}.onnx", "sha256": "0" * 64} for name in ids],
    }
    return plan | changes


def measure(plan: dict[str, Any], machine: FakeMachine, path: Path) -> None:
    results = kit.Results(path)
    results.open_for(plan, FACTS, HOST)
    kit.run(plan, machine.load, machine, results)


def medians(plan: dict[str, Any], path: Path) -> np.ndarray:
    ids = tuple(item["id"] for item in plan["items"])
    timings = read_samples(Plan(path, path, plan_hash(plan), ids)).timings()
    return np.array([timings[name].median_ms for name in ids])


def all_turns(path: Path) -> list[list[int]]:
    return [turn for line in read_jsonl(path)[1:] for turn in line.get("turns", ())]


def turns(path: Path) -> list[list[int]]:
    """Without the reference's extra ones."""
    return [turn for turn in all_turns(path) if turn[1] >= 0]


# --- truth --------------------------------------------------------------------------------------


def test_it_recovers_the_truth_under_noise_interruptions_and_cold_caches(tmp_path: Path):
    plan, path = plan_of(), tmp_path / "r.jsonl"
    measure(plan, FakeMachine(TRUE_NS, noise=0.05, outliers=0.1, cold=1.8), path)
    truth = np.array(list(TRUE_NS.values())) * 1e-6
    # half-normal noise of 5 %: the fastest of 8 runs is 0.8 % above the truth
    np.testing.assert_allclose(medians(plan, path) / truth, 1.007, atol=0.01)


def test_a_neighbour_that_comes_in_the_middle_slows_all_items_alike(tmp_path: Path):
    """It comes halfway through the middle round, so half of the items have one more slow round
    than fast ones: their plain medians would be 1.5 times too high. Ever hotter, too.
    """
    plan, path = plan_of(rounds=61), tmp_path / "r.jsonl"
    one_round_ns = 9 * sum(TRUE_NS.values()) * 1.04

    def drift(t_ns: float) -> float:
        return (1.5 if t_ns > 30.5 * one_round_ns else 1.0) * (1 + 5e-4 * t_ns / one_round_ns)

    measure(plan, FakeMachine(TRUE_NS, noise=0.02, outliers=0.01, drift=drift), path)
    found = medians(plan, path) / np.array(list(TRUE_NS.values()))
    assert np.ptp(found) / found.mean() < 0.02


def test_interrupted_runs_are_marked_and_left_out(tmp_path: Path):
    plan, path = plan_of(rounds=10), tmp_path / "r.jsonl"
    measure(plan, FakeMachine(TRUE_NS, outliers=0.5), path)
    marked = sum(len(line["preempted"]) for line in read_jsonl(path)[1:-1])
    assert marked / (10 * 9 * 9) == pytest.approx(0.5, abs=0.06)
    samples = read_samples(Plan(path, path, plan_hash(plan), tuple(TRUE_NS)))
    truth = np.array(list(TRUE_NS.values()))[:, None, None] * 1e-6
    clean = np.isclose(samples.hot, truth, rtol=1e-3)  # the clock truncates to nanoseconds
    assert np.nanmean(np.where(np.isnan(samples.hot), np.nan, clean)) > 0.98


def test_the_cold_run_is_the_first_of_a_turn(tmp_path: Path):
    plan, path = plan_of(rounds=3), tmp_path / "r.jsonl"
    measure(plan, FakeMachine(TRUE_NS, cold=2.0), path)
    ratios = [turn[2] / turn[3] for turn in turns(path)]
    assert np.mean(np.isclose(ratios, 2.0, rtol=1e-3)) > 0.9  # the same item twice is possible


def test_every_round_has_its_own_order_and_times_all_items(tmp_path: Path):
    plan, path = plan_of(rounds=5), tmp_path / "r.jsonl"
    measure(plan, FakeMachine(TRUE_NS), path)
    orders = [tuple(t[1] for t in turns(path) if t[0] == number) for number in range(5)]
    assert all(sorted(order) == list(range(8)) for order in orders)
    assert len(set(orders)) == 5


def test_a_long_turn_takes_fewer_hot_runs_but_two_at_least(tmp_path: Path):
    plan, path = plan_of(rounds=2, turn_budget_s=300e-6), tmp_path / "r.jsonl"
    measure(plan, FakeMachine(TRUE_NS), path)
    for _, item, *samples in turns(path):
        run_s = TRUE_NS[f"net{item}"] * 1e-9
        assert len(samples) == min(9, max(3, int(np.ceil(300e-6 / run_s - 1e-2)) + 0))


def test_garbage_is_not_collected_while_timing(tmp_path: Path):
    states = []

    class Machine(FakeMachine):
        def execute(self, name: str) -> None:
            states.append(gc.isenabled())
            super().execute(name)

    measure(plan_of(rounds=2, warmup_runs=0), Machine(TRUE_NS), tmp_path / "r.jsonl")
    assert not any(states)
    assert gc.isenabled()


# --- stopping and resuming ----------------------------------------------------------------------


def test_the_time_budget_ends_it_after_the_least_rounds(tmp_path: Path):
    round_s = 9 * (sum(TRUE_NS.values()) + TRUE_NS["net0"]) * 1e-9
    for rounds_affordable, min_rounds, expected in ((6.5, 2, 7), (1.0, 4, 4)):
        path = tmp_path / f"{min_rounds}.jsonl"
        plan = plan_of(time_budget_s=rounds_affordable * round_s, min_rounds=min_rounds)
        measure(plan, FakeMachine(TRUE_NS), path)
        assert 1 + max(turn[0] for turn in turns(path)) == expected


def test_a_killed_run_goes_on_and_times_nothing_twice(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(kit, "FLUSH_S", 0.0)
    plan, path = plan_of(rounds=4), tmp_path / "r.jsonl"

    class Dying(FakeMachine):
        def execute(self, name: str) -> None:
            if len(self.runs) == 150:
                raise KeyboardInterrupt
            super().execute(name)

    with pytest.raises(KeyboardInterrupt):
        measure(plan, Dying(TRUE_NS), path)
    before = path.read_bytes()
    n_before = len(all_turns(path))
    assert n_before == (150 - 8) // 9  # all finished turns; 8 runs were warm-up
    path.write_bytes(before + b'{"seconds":0.1,"turns":[[3,1,')  # a kill tears the last line
    machine = FakeMachine(TRUE_NS)
    measure(plan, machine, path)
    assert path.read_bytes().startswith(before)
    done = [(turn[0], turn[1]) for turn in turns(path)]
    assert sorted(done) == [(number, item) for number in range(4) for item in range(8)]
    assert len(machine.runs) == 8 + 9 * (4 * 9 - n_before)


def test_finished_results_load_no_model(tmp_path: Path):
    plan, path = plan_of(rounds=2), tmp_path / "r.jsonl"
    measure(plan, FakeMachine(TRUE_NS), path)
    again = FakeMachine(TRUE_NS)
    measure(plan, again, path)
    assert again.loaded == []
    measure(plan_of(rounds=3), again, path)  # more rounds of the same plan: only those
    assert len(again.runs) == 8 + 9 * 9


@pytest.mark.parametrize(
    ("changes", "facts", "host", "word"),
    [
        ({"seed": 1}, {}, {}, "another plan:"),
        ({"hot_samples": 9}, {}, {}, "another plan:"),
        ({}, {"runtime_version": "0.1"}, {}, "another runtime version"),
        ({}, {}, {"cpu": "Fake 2"}, "another cpu"),
    ],
)
def test_results_of_another_plan_or_machine_are_refused(tmp_path, changes, facts, host, word):
    path = tmp_path / "r.jsonl"
    measure(plan_of(rounds=1), FakeMachine(TRUE_NS), path)
    before = path.read_bytes()
    with pytest.raises(kit.KitError, match=word):
        kit.Results(path).open_for(plan_of(rounds=1, **changes), FACTS | facts, HOST | host)
    assert path.read_bytes() == before


def test_damaged_results_are_refused(tmp_path: Path):
    path = tmp_path / "r.jsonl"
    path.write_text('{"schema_version":1}\nnonsense\n{"seconds":0,"turns":[],"preempted":[]}\n')
    with pytest.raises(kit.KitError, match="damaged"):
        kit.Results(path)


def test_two_kits_cannot_write_one_file(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(kit, "LOCK_PATIENCE_S", 0.1)
    first = kit.Results(tmp_path / "r.jsonl")
    with pytest.raises(kit.KitError, match="another process"):
        kit.Results(tmp_path / "r.jsonl")
    del first


# --- files --------------------------------------------------------------------------------------


@pytest.fixture
def real_plan(tmp_path: Path) -> Plan:
    models = {f"c{hw}": context(8, hw).SerializeToString() for hw in (4, 8)}
    config = ProfileConfig(rounds=3, min_rounds=1, hot_samples=2)
    return write_plan(models, DeviceSpec("local"), tmp_path / "plan", config, seed=0)


def bench(plan: Plan) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(KIT), str(plan.path), "--out", str(plan.results)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_both_sides_agree_on_formats_and_hash(real_plan: Plan):
    done = bench(real_plan)
    assert done.returncode == 0, done.stderr
    plan = read_json(real_plan.path)
    jsonschema.validate(plan, read_json(KIT.with_name("plan.schema.json")))
    jsonschema.validate(plan_of(), read_json(KIT.with_name("plan.schema.json")))
    lines = read_jsonl(real_plan.results)
    schema = read_json(KIT.with_name("results.schema.json"))
    for line in lines:
        jsonschema.validate(line, schema)
    assert lines[0]["plan_hash"] == real_plan.hash == kit.plan_hash(plan)
    assert lines[0]["protocol"] == PROTOCOL == kit.PROTOCOL
    assert set(read_samples(real_plan).timings()) == {"c4", "c8"}


def test_the_rules_that_stop_a_run_are_not_part_of_its_hash():
    assert kit.plan_hash(plan_of()) == kit.plan_hash(plan_of(rounds=99, time_budget_s=1.0))
    assert kit.plan_hash(plan_of()) != kit.plan_hash(plan_of(threads=2))


def break_plan(plan: Plan, **changes: Any) -> None:
    plan.path.write_text(json.dumps(read_json(plan.path) | changes))


def test_problems_are_explained_without_a_traceback(real_plan: Plan, tmp_path: Path):
    whole = real_plan.path.read_text()
    items = json.loads(whole)["items"]
    (tmp_path / "outside.onnx").write_bytes(b"")
    cases: list[tuple[dict[str, Any], str]] = [
        ({"provider": "NoSuchProvider"}, "NoSuchProvider"),
        ({"runtime": "abacus"}, "abacus"),
        ({"surprise": 1}, "surprise"),
        ({"rounds": "3"}, "rounds"),
        ({"schema_version": 2}, "schema_version"),
        ({"items": [items[0], items[0]]}, "unique"),
        ({"items": [items[0] | {"file": "../outside.onnx"}]}, "outside.onnx"),
        ({"items": [items[0] | {"sha256": "0" * 64}]}, "sha256"),
        ({"batch": 2}, "batch"),
    ]
    for changes, word in cases:
        real_plan.path.write_text(whole)
        break_plan(real_plan, **changes)
        done = bench(real_plan)
        real_plan.results.unlink(missing_ok=True)
        assert done.returncode == 1, (changes, done.stderr)
        assert word in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("path", sorted(KIT.parent.glob("*.py")), ids=lambda path: path.name)
def test_the_kit_needs_only_the_standard_library_numpy_and_one_runtime(path: Path):
    names = set()
    for node in ast.walk(ast.parse(path.read_text(), feature_version=(3, 8))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").split(".")[0])
    outside = names - set(sys.stdlib_module_names) - {p.stem for p in KIT.parent.glob("*.py")}
    allowed = {
        "bench_cuda.py": {"numpy"},
        "bench_tensorrt.py": {"numpy"},
        "bundle_checks.py": {"numpy"},
        "bundle_cli.py": {"numpy"},
        "bundle_latency.py": {"numpy"},
        "bundle_statistics.py": {"numpy"},
        "device_run.py": {"numpy"},
        "bundle_files.py": {"numpy"},
        "bundle_images.py": {"numpy"},
        "photo_rule.py": {"numpy", "PIL", "pillow_heif"},  # only to read image formats
        "ort_run.py": {"numpy", "onnxruntime"},
        "run_litert.py": {"numpy", "ai_edge_litert"},
        "run_onnxruntime.py": {"numpy", "onnxruntime"},
        "run_openvino.py": {"numpy", "openvino"},
        "run_tensorrt.py": {"tensorrt"},
        "run_tensorrt_rtx.py": {"tensorrt_rtx"},
        "run_torch.py": {"numpy", "onnx", "torch"},  # of the host only
        "trt_run.py": {"numpy"},
    }
    assert outside == allowed.get(path.name, set())
