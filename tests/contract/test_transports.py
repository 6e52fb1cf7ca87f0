"""Every transport runs the kit on a plan, resumes, and hands its failures on."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hwnas.builders.onnx import context
from hwnas.core.errors import UserError
from hwnas.core.progress import silent
from hwnas.core.store import read_jsonl
from hwnas.devices import REGISTRY
from hwnas.devices.spec import load_device, load_transport
from hwnas.interfaces import Transport
from hwnas.latency.config import ProfileConfig
from hwnas.latency.plan import Plan, write_plan
from hwnas.latency.samples import read_samples
from tests.boards import fake_phone, loopback_sshd

CONFIG = ProfileConfig(rounds=4, min_rounds=1, hot_samples=3)
Execute = Callable[[Transport, Plan], None]


def execute(transport: Transport, plan: Plan) -> None:
    transport.run_bench(plan.path, plan.results, progress=silent)


def execute_by_hand(transport: Transport, plan: Plan) -> None:
    """What the offline transport asks its user to do."""
    try:
        execute(transport, plan)
    except UserError:
        (archive,) = plan.path.parent.glob("*-kit.zip")
        there = plan.path.parent / "there"
        zipfile.ZipFile(archive).extractall(there)
        command = [sys.executable, "bench.py", "plan.json", "--out", "results.jsonl"]
        done = subprocess.run(command, cwd=there, capture_output=True, text=True, check=False)
        if done.returncode:
            raise UserError(done.stderr) from None
        shutil.copy(there / "results.jsonl", plan.results)
        execute(transport, plan)


@pytest.fixture(params=REGISTRY.names)
def reach(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[dict[str, object], Execute]]:
    """Settings of a transport, as in a device's YAML, and how its user runs a plan."""
    if request.param == "ssh":
        with loopback_sshd(tmp_path / "sshd") as server:
            yield server.settings, execute
    elif request.param == "adb":
        yield fake_phone(tmp_path / "adb", monkeypatch).settings, execute
    else:
        yield {"name": request.param}, execute_by_hand if request.param == "offline" else execute


def write_device(folder: Path, transport: dict[str, object], **fields: object) -> str:
    path = folder / "board.yaml"
    path.write_text(json.dumps({"schema_version": 1, "transport": transport, **fields}))
    return str(path)


def test_a_plan_is_timed_once(reach: tuple[dict[str, object], Execute], tmp_path: Path):
    settings, run = reach
    name = write_device(tmp_path, settings)
    device, transport = load_device(name), load_transport(name)
    assert device.transport == settings["name"]
    models = {f"c{hw}": context(8, hw).SerializeToString() for hw in (4, 16)}
    plan = write_plan(models, device, tmp_path / "plan", CONFIG, seed=0)
    run(transport, plan)
    timings = read_samples(plan).timings()
    assert timings["c16"].n > 4 and timings["c16"].median_ms > 0
    header = read_jsonl(plan.results)[0]
    assert header["threads"] == 1 and header["provider"] == "CPUExecutionProvider"
    before = plan.results.read_bytes()
    run(transport, plan)
    assert plan.results.read_bytes() == before


def test_a_failure_on_the_device_is_explained(
    reach: tuple[dict[str, object], Execute], tmp_path: Path
):
    settings, run = reach
    name = write_device(tmp_path, settings, provider="NoSuchProvider")
    models = {"c4": context(8, 4).SerializeToString()}
    plan = write_plan(models, load_device(name), tmp_path / "plan", CONFIG, seed=0)
    with pytest.raises(UserError, match="NoSuchProvider"):
        run(load_transport(name), plan)
