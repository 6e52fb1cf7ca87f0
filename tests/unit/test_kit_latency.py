"""The kit judges latencies and limits of a bundle as `hwnas verify BUNDLE` does."""

from __future__ import annotations

import dataclasses
import itertools
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hwnas.builders.onnx import context
from hwnas.core.progress import silent
from hwnas.core.records import dump
from hwnas.exporters.manifest import ConstraintFact, LatencyFact, Manifest
from hwnas.interfaces import DeviceSpec, ModelFile
from hwnas.latency.plan import write_plan
from hwnas.latency.samples import read_samples
from hwnas.latency.sections import ProfileConfig
from hwnas.measure import bundle_latency as host
from hwnas.measure.limits import CheckSettings, VerifyConfig
from hwnas.measure.profile import Timings
from tests.bundles import colour_bundle, colour_manifest, kit_module, run_kit
from tests.kit import FACTS, HOST, FakeMachine, load_kit

kit = kit_module("bundle_latency")
DEVICE = DeviceSpec("board")
FIRST, SECOND, THIRD = "a.onnx", "b.onnx", "c.onnx"
Measured = dict[str, tuple[float, float]]


def manifest_of(facts: list[LatencyFact], constraints: tuple[ConstraintFact, ...]) -> Manifest:
    models = tuple(ModelFile(fact.model, "onnx", "fp32") for fact in facts)
    return colour_manifest(
        models=models, latency=tuple(facts), accuracy=(), constraints=constraints
    )


def by_the_host(
    manifest: Manifest, timed: Measured, noise: float, monkeypatch: pytest.MonkeyPatch
) -> list[bool | None]:
    quick = {name: SimpleNamespace(median_ms=m, p95_ms=p) for name, (m, p) in timed.items()}
    timings = Timings(quick, {}, repeat_mape=noise, pace=None, facts={})  # type: ignore[arg-type]
    monkeypatch.setattr(host, "time_models", lambda *_, **__: timings)
    monkeypatch.setattr(host, "host_facts", lambda: {"cpu": "here"})
    settings = CheckSettings(ProfileConfig(), VerifyConfig(), 0)
    return [row["holds"] for row in host.check_latency(Path(), manifest, settings, silent).rows]


def by_the_kit(
    manifest: Manifest, timed: Measured, noise: float, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[bool | None], int]:
    """Per model, and the exit status."""
    monkeypatch.setattr(
        kit, "measure_ms", lambda paths, _: ([timed[path.name] for path in paths], noise)
    )
    data = json.loads(json.dumps(dump(manifest)))
    models = {model["path"]: model for model in data["models"]}
    found = kit.check_latencies(Path(), data, models, "onnxruntime")
    states = []
    for name in models:
        mine = [line for line in found if line["model"] == name]
        is_open = not all(line["judged"] for line in mine)
        fails = any(line["passed"] is False for line in mine)
        states.append(False if fails else None if is_open else True)
    return states, kit_module("bundle_checks").show(found)


LIMITS = {
    "none": (),
    "median": (ConstraintFact("latency_ms", "board", 1.0, True),),
    "p95": (ConstraintFact("latency_p95_ms", "board", 1.3, True),),
    "both": (
        ConstraintFact("latency_ms", "board", 1.1, True),
        ConstraintFact("latency_p95_ms", "board", 1.4, False),
        ConstraintFact("macs", "board", 1.0, True),
    ),
    "another device's": (ConstraintFact("latency_ms", "phone", 0.1, True),),
}
ESTIMATES = {
    "estimate": {"forecast_ms": 1.0, "interval_ms": (0.9, 1.08)},
    "no interval": {"forecast_ms": 1.0},
    "no estimate": {},
}


@pytest.mark.parametrize("limits", LIMITS)
@pytest.mark.parametrize("estimate", ESTIMATES)
def test_host_and_kit_agree(
    limits: str,
    estimate: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Timings, paces and noise around every border; and each answer occurs."""
    seen = set()
    grid = itertools.product(
        (None, 1.0),  # whether the model was timed when the bundle was made
        (0.7, 1.06, 1.09, 1.6),  # its median here
        (1.0, 1.35),  # its 95th percentile, relative to the median
        (None, 0.79, 0.81, 1.0, 1.24, 1.26),  # pace of the others
        (0.0, 0.04),  # repeat noise
    )
    for measured_ms, median, tail, pace, noise in grid:
        first = LatencyFact(DEVICE, FIRST, "here", measured_ms=measured_ms, **ESTIMATES[estimate])
        facts = [first]
        timed = {FIRST: (median, median * tail)}
        if pace is not None:
            facts += [
                LatencyFact(DEVICE, name, "here", measured_ms=2.0) for name in (SECOND, THIRD)
            ]
            timed |= {SECOND: (2.0 * pace, 3.0 * pace), THIRD: (2.0 * pace, 3.0 * pace)}
        manifest = manifest_of(facts, LIMITS[limits])
        expected = by_the_host(manifest, timed, noise, monkeypatch)
        found, status = by_the_kit(manifest, timed, noise, monkeypatch)
        assert found == expected, (measured_ms, median, tail, pace, noise)
        assert status == (3 if False in expected else 4 if None in expected else 0)
        seen.add(expected[0])
    assert seen == {True, False, None}
    capsys.readouterr()


def test_machines_of_a_bundle_are_not_each_others_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    other = LatencyFact(DEVICE, SECOND, "another machine", measured_ms=0.1)
    facts = [LatencyFact(DEVICE, FIRST, "here", measured_ms=1.0), other]
    manifest = manifest_of(facts, ())
    timed = {FIRST: (1.0, 1.0), SECOND: (0.1, 0.1)}
    assert by_the_host(manifest, timed, 0.0, monkeypatch)[0] is True
    assert by_the_kit(manifest, timed, 0.0, monkeypatch) == ([True, True], 0)


def test_median_and_percentile_of_the_kit_are_those_of_the_host(tmp_path: Path) -> None:
    """On runs that nothing slows down together: the host then has nothing to divide out."""
    true_ns = {"fast": 20_000.0, "slow": 90_000.0}
    device, config = DeviceSpec("local"), ProfileConfig(rounds=15, time_budget_s=1000)
    plan = write_plan(dict.fromkeys(true_ns, b""), device, tmp_path, config, seed=0)
    machine = FakeMachine(true_ns, noise=0.02, outliers=0.05, cold=2.0)
    results = load_kit().Results(plan.results)
    content = json.loads(plan.path.read_text())
    results.open_for(content, FACTS, HOST)
    load_kit().run(content, machine.load, machine, results)
    lines = [json.loads(line) for line in plan.results.read_text().splitlines()][1:]
    found, noise = kit.statistics(lines, 2, drops=True)
    timings = read_samples(plan).timings()
    for (median, p95), timing in zip(found, timings.values(), strict=True):
        assert median == pytest.approx(timing.median_ms, rel=2e-3)
        assert p95 == pytest.approx(timing.p95_ms, rel=2e-3)
    assert 0 < noise < 0.01


@pytest.mark.parametrize(
    ("limit_ms", "interval_ms", "status"),
    [(1e6, (1e-3, 1e6), 0), (1e-6, (1e-3, 1e6), 0), (1e-6, (1e6, 1e6), 3)],
    ids=["meets it", "within the interval above it", "misses it"],
)
def test_a_model_that_misses_its_limit_fails_the_check(
    limit_ms: float, interval_ms: tuple[float, float], status: int, tmp_path: Path
) -> None:
    made = colour_manifest(constraints=(ConstraintFact("latency_p95_ms", "local", limit_ms, True),))
    fact = dataclasses.replace(made.latency[0], forecast_ms=interval_ms[0], interval_ms=interval_ms)
    colour_bundle(tmp_path / "winner", dataclasses.replace(made, latency=(fact,)))
    done = run_kit(tmp_path / "winner", "ort_run.py", "--check")
    assert done.returncode == status, done.stdout + done.stderr
    assert "latency: ok" in done.stdout and "p95 latency limit: " in done.stdout
    untimed = run_kit(tmp_path / "winner", "ort_run.py", "--check", "--no-latency")
    assert untimed.returncode == 0


def test_a_machine_of_another_speed_is_not_judged(tmp_path: Path) -> None:
    """Both models were said to take a million times as long: neither passed nor failed."""
    made = colour_manifest(1e6, precisions=("fp32", "int8"))
    facts = tuple(dataclasses.replace(fact, measured_ms=1e6) for fact in made.latency)
    colour_bundle(tmp_path / "winner", dataclasses.replace(made, latency=facts))
    done = run_kit(tmp_path / "winner", "ort_run.py", "--check")
    assert done.returncode == 4, done.stdout + done.stderr
    assert done.stdout.count("latency: NOT JUDGED: ") == 2 and "too far" in done.stdout


def test_what_the_kit_says_of_it_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    fact: dict[str, Any] = dump(
        LatencyFact(DEVICE, FIRST, "cpu", 1.0, (0.9, 1.1), 1.02), versioned=False
    )
    limits = [{"metric": "latency_p95_ms", "device": "board", "max": 1.2, "met": True}]
    found = kit.latency_findings({"path": FIRST}, fact, limits, (1.05, 1.5), 1.05)
    assert kit_module("bundle_checks").show(found) == 3
    assert capsys.readouterr().out.splitlines() == [
        "a.onnx: latency: ok: 1.050 ms here; estimate 1.000 ms, measured 1.020 ms on board (cpu,"
        " batch 1, 1 thread(s)); by the other models, this machine takes 1.05 times as long",
        "a.onnx: p95 latency limit: FALLS SHORT: p95 latency 1.4286 ms exceeds the limit of"
        " 1.2000 ms",
    ]


def test_a_python_that_is_a_script_is_started_by_sh(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As that of a runtime folder on a phone without /bin/sh."""
    assert kit.interpreter() == [sys.executable]
    script = tmp_path / "python3"
    script.write_text(f'#!/no/such/sh\nexec {sys.executable} "$@"\n')
    monkeypatch.setattr(sys, "executable", str(script))
    (tmp_path / "model.onnx").write_bytes(context(8, 4).SerializeToString())
    monkeypatch.setattr(kit, "TIMING", {**kit.TIMING, "rounds": 2, "min_rounds": 1})
    (timed,), _noise = kit.measure_ms([tmp_path / "model.onnx"], dump(DEVICE))
    assert 0 < timed[0] <= timed[1]
