"""The official benchmark_model as the timer of a phone: an imitation prints what it would."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from hwnas.core.errors import UserError
from hwnas.core.progress import silent
from hwnas.core.resources import kit_module
from hwnas.core.store import read_json, read_jsonl
from hwnas.devices import adb_phone, benchmark_model
from hwnas.devices.spec import load_device, load_transport
from hwnas.interfaces import ReachedTransport, Transport, TryingTransport
from hwnas.latency.plan import Plan, write_plan
from hwnas.latency.samples import read_samples
from hwnas.latency.sections import ProfileConfig
from tests.boards import Phone, fake_phone

SIZES = [200, 400, 3000]  # bytes of the models; the imitation takes 1 us per 10 bytes
MODELS = {f"m{size}": b"x" * size for size in SIZES}
BINARY = """#!/bin/sh
echo "$@" >> {calls}
for word in "$@"; do
  case $word in
    --graph=*) file=${{word#--graph=}} ;;
    --enable_op_profiling=true) profiled=yes ;;
  esac
done
[ -e {broken} ] && {{ echo "ERROR: Could not load $file"; exit 1; }}
size=$(wc -c < "$file")
echo "INFO: count=1 curr=$((size / 5))"
echo "INFO: count=48 first=$((size / 5)) curr=7 min=7 max=9 avg=$((size / 10)).25 std=0"
echo "INFO: Inference timings in us: Init: 9, Inference (avg): 9"
[ -n "$profiled" ] || exit 0
echo "INFO: Operator-wise Profiling Info for Regular Benchmark Runs:"
echo "============================== Run Order =============================="
printf '\\t[node type]\\t[first]\\t[avg ms]\\t[%%]\\t[times called]\\t[Name]\\n'
printf '\\tConvolution (NHWC, F32) GEMM\\t0.1\\t0.2\\t9%%\\t1\\tDelegate/Convolution:0\\n'
printf '\\tHARD_SWISH\\t0.1\\t0.2\\t9%%\\t1\\t[hs]:1\\n'
"""


@pytest.fixture
def phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Phone:
    monkeypatch.setattr(adb_phone, "LOOK_S", 0.05)
    monkeypatch.setattr(benchmark_model, "COOL_STEP_S", 0.05)
    made = fake_phone(tmp_path / "adb", monkeypatch)
    made.program("getprop", 'case $1 in *soc*) echo GS201 ;; *product*) echo "Pixel 7" ;; esac')
    calls, broken = made.folder / "runs", made.folder / "broken"
    (tmp_path / "benchmark_model").write_text(BINARY.format(calls=calls, broken=broken))
    return made


def opened(phone: Phone, folder: Path, **changes: Any) -> tuple[Transport, Plan]:
    transport = {"name": "adb", "folder": "hwnas-kit", "runner": "benchmark_model", "wait_s": 0}
    transport |= {"binary": "benchmark_model"} if "binary_on_phone" not in changes else {}
    device = {"schema_version": 1, "runtime": "litert", "provider": "cpu"}
    device |= {key: changes.pop(key) for key in ("runtime", "batch") if key in changes}
    path = folder / "phone.yaml"
    path.write_text(json.dumps({**device, "transport": transport | changes}))
    config = ProfileConfig(rounds=2, min_rounds=1, target_error=0.0)
    plan = write_plan(MODELS, load_device(str(path)), folder / "plan", config, seed=0)
    return load_transport(str(path)), plan


def run(transport: Transport, plan: Plan, progress: Any = silent) -> None:
    transport.run_bench(plan.path, plan.results, progress=progress)


def graphs(phone: Phone) -> Sequence[str]:
    """Models in the order in which the binary timed them, without profiles."""
    lines = (phone.folder / "runs").read_text().splitlines()
    return [line.split("--graph=")[1] for line in lines if "profiling" not in line]


def test_models_are_timed_in_the_order_of_the_protocol(phone: Phone, tmp_path: Path) -> None:
    transport, plan = opened(phone, tmp_path)
    run(transport, plan)
    order = kit_module("bench_protocol").round_order
    items = read_json(plan.path)["items"]
    wanted = [items[i if i >= 0 else -1]["file"] for n in range(2) for i in order(0, n, len(SIZES))]
    assert graphs(phone) == wanted
    samples = read_samples(plan)
    timings = samples.timings()
    assert {name: timings[name].median_ms for name in MODELS} == pytest.approx(
        {f"m{size}": (size / 10 + 0.25) / 1000 for size in SIZES}
    )
    assert timings["m400"].cold_ms == pytest.approx(0.08)
    host = samples.facts["host"]
    assert host["cpu"] == "GS201 Pixel 7" and samples.facts["runtime_version"].startswith("bench")
    n_runs = len(graphs(phone))
    run(transport, plan)
    assert len(graphs(phone)) == n_runs, "nothing is timed twice"


def test_a_turn_has_the_runs_of_the_plan(phone: Phone, tmp_path: Path) -> None:
    phone.processors([160, 160, 1024])
    phone.program("taskset", f'echo "$1" >> {phone.folder}/masks; shift; exec "$@"')
    run(*opened(phone, tmp_path))
    line = (phone.folder / "runs").read_text().splitlines()[0]
    for word in ("--num_threads=1", "--num_runs=48", "--warmup_runs=", "--min_secs=0.02"):
        assert word in line
    assert set((phone.folder / "masks").read_text().split()) == {"4"}
    assert [call[-2] for call in phone.calls() if "push" in call] == [
        call[-2] for call in phone.calls() if "push" in call
    ][:1], "models and binary travel together, once"


def test_the_profile_of_a_whole_network_lies_beside_the_results(
    phone: Phone, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    transport, plan = opened(phone, tmp_path)
    run(transport, plan)
    profile = read_json(plan.results.with_name(f"{plan.results.stem}-operators.json"))
    assert profile["model"] == "m3000"
    kinds = [one["kind"] for one in profile["operators"]]
    assert kinds == ["Convolution (NHWC, F32) GEMM", "HARD_SWISH"]
    assert "m3000: XNNPACK does not run HARD_SWISH" in caplog.text


@pytest.mark.parametrize(("flag", "n_operators"), [("use_profiler", 2), ("neither", 0)])
def test_the_flag_of_litert_is_given_too(
    flag: str, n_operators: int, phone: Phone, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A binary ignores flags that it does not know, and then prints no profile."""
    binary = tmp_path / "benchmark_model"
    binary.write_text(binary.read_text().replace("enable_op_profiling", flag))
    transport, plan = opened(phone, tmp_path)
    run(transport, plan)
    path = plan.results.with_name(f"{plan.results.stem}-operators.json")
    said = "because benchmark_model does not print them; the latencies of all models are complete"
    assert (said in caplog.text) == (n_operators == 0) == (not path.exists())
    if n_operators:
        assert len(read_json(path)["operators"]) == n_operators


def test_a_binary_that_cannot_profile_times_all_the_same(
    phone: Phone, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    binary = tmp_path / "benchmark_model"
    refuses = '[ -n "$profiled" ] && { echo "ERROR: unknown flag"; exit 1; }\nexit 0\n'
    binary.write_text(binary.read_text().replace('[ -n "$profiled" ] || exit 0\n', refuses))
    transport, plan = opened(phone, tmp_path)
    run(transport, plan)
    read_samples(plan)
    assert "single operators were not measured; the latencies of all models are" in caplog.text
    assert "unknown flag" in caplog.text and "android_aarch64" in caplog.text


def test_a_lost_cable_costs_no_more_than_the_turns_of_a_call(
    phone: Phone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark_model, "TURNS_PER_CALL", 2)
    plug, binary = phone.folder / "unplugged", tmp_path / "benchmark_model"
    count = f'[ "$(wc -l < {phone.folder}/runs)" = 6 ] && touch {plug}\n'
    binary.write_text(
        binary.read_text().replace('[ -n "$profiled" ]', count + '[ -n "$profiled" ]')
    )
    transport, plan = opened(phone, tmp_path, wait_s=60)

    def replug() -> None:
        for _ in range(1000):
            time.sleep(0.02)
            if plug.exists():
                time.sleep(0.3)
                return plug.unlink()

    waiting = threading.Thread(target=replug, daemon=True)
    waiting.start()
    run(transport, plan)
    waiting.join(10)
    read_samples(plan)  # refuses turns that occur twice
    assert len(graphs(phone)) == 2 * 4 + 2


def test_a_binary_on_the_phone_is_used(phone: Phone, tmp_path: Path) -> None:
    there = phone.folder / "mine"
    there.write_text((tmp_path / "benchmark_model").read_text())
    there.chmod(0o755)
    run(*opened(phone, tmp_path, binary_on_phone=str(there)))
    assert len(graphs(phone)) == 2 * 4


def test_it_is_tried_before_anything_is_timed(phone: Phone, tmp_path: Path) -> None:
    transport, plan = opened(phone, tmp_path)
    assert isinstance(transport, TryingTransport)
    transport.try_out(plan.path)
    assert len(graphs(phone)) == len(SIZES) and not plan.results.exists()
    (phone.folder / "broken").touch()
    with pytest.raises(UserError, match="Could not load"):
        transport.try_out(plan.path)


def test_it_pauses_while_the_phone_throttles(phone: Phone, tmp_path: Path) -> None:
    phone.program(
        "dumpsys",
        f"echo x >> {phone.folder}/looks\n"
        f'[ "$(wc -l < {phone.folder}/looks)" -lt 3 ] && s=1 || s=0\necho "Thermal Status: $s"',
    )
    shown: list[tuple[int, int, str]] = []
    run(*opened(phone, tmp_path), progress=lambda *step: shown.append(step))
    assert [note for *_, note in shown].count("waiting for the device to cool down") == 2
    done, total, note = shown[-1]
    assert done == total > 0 and note == "timing"


def test_what_goes_wrong_is_explained(phone: Phone, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"(?s)cannot time this device.*litert.*onnxruntime"):
        opened(phone, tmp_path, runtime="onnxruntime")
    with pytest.raises(UserError, match="batch: 1"):
        opened(phone, tmp_path, batch=4)
    transport, plan = opened(phone, tmp_path)
    (phone.folder / "broken").touch()
    with pytest.raises(UserError, match=r"(?s)failed on models/.*Could not load"):
        run(transport, plan)
    (phone.folder / "broken").unlink()
    binary = tmp_path / "benchmark_model"
    good = binary.read_text()
    binary.write_text("#!/bin/sh\necho STARTING\n")
    plan.results.unlink()
    with pytest.raises(UserError, match=r"(?s)the output for .* is malformed.*STARTING"):
        run(transport, plan)
    plan.results.unlink()
    binary.write_text(good)
    run(transport, plan)
    binary.write_text(good + "# another version\n")
    with pytest.raises(UserError, match="another runtime version"):
        run(transport, plan)
    binary.unlink()
    assert isinstance(transport, ReachedTransport)
    with pytest.raises(UserError, match=r"(?s)file of benchmark_model is missing.*binary_on_phone"):
        transport.check()


def test_samples_are_written_after_every_call(
    phone: Phone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark_model, "TURNS_PER_CALL", 2)
    transport, plan = opened(phone, tmp_path)

    def interrupt(done: int, total: int, note: str = "") -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(transport, plan, interrupt)
    assert sum(len(line.get("turns", ())) for line in read_jsonl(plan.results)) == 2
    run(transport, plan)
    assert len(graphs(phone)) == 2 * 4


def test_a_cable_that_is_lost_again_and_again_is_an_error(phone: Phone, tmp_path: Path) -> None:
    """A phone that restarts whenever a model runs is not waited for endlessly."""
    transport, plan = opened(phone, tmp_path, wait_s=5)
    binary = tmp_path / "benchmark_model"
    binary.write_text("#!/bin/sh\nexec kill -9 $PPID\n")
    phone.program("kill", "exit 255")
    adb_file = phone.folder.parent / "bin" / "adb"
    adb_file.write_text(adb_file.read_text().replace("  status=$?\n", "  status=$?; status=255\n"))
    with pytest.raises(UserError, match="cannot reach the device"):
        run(transport, plan)
    assert len(phone.calls()) < 100


def test_a_cable_may_be_lost_while_the_phone_cools_down(phone: Phone, tmp_path: Path) -> None:
    once = phone.folder / "once"
    phone.program("dumpsys", f"[ -e {once} ] || {{ touch {once}; kill -9 $PPID; }}")
    adb_file = phone.folder.parent / "bin" / "adb"
    fails = f"  [ ! -e {once} ] || [ -e {once}2 ] || {{ touch {once}2; exit 255; }}\n  exit $status"
    adb_file.write_text(adb_file.read_text().replace("  exit $status", fails))
    transport, plan = opened(phone, tmp_path, wait_s=5)
    run(transport, plan)
    assert (phone.folder / "once2").exists()
    read_samples(plan)
