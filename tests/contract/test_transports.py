"""Every transport runs the kit on a plan, resumes, and hands its failures on."""

from __future__ import annotations

from pathlib import Path

import pytest

from hwnas.core.errors import UserError
from hwnas.core.progress import silent
from hwnas.core.store import read_jsonl
from hwnas.devices import REGISTRY
from hwnas.devices.spec import open_transport
from hwnas.interfaces import DeviceSpec
from hwnas.latency.config import ProfileConfig
from hwnas.latency.plan import write_plan
from hwnas.latency.samples import read_samples
from hwnas.onnx_build import context


@pytest.mark.parametrize("name", REGISTRY.names)
def test_a_plan_is_timed_once(name: str, tmp_path: Path):
    device = DeviceSpec("board", transport=name)
    models = {f"c{hw}": context(8, hw).SerializeToString() for hw in (4, 16)}
    config = ProfileConfig(rounds=4, min_rounds=1, hot_samples=3)
    plan = write_plan(models, device, tmp_path, config, seed=0)
    transport = open_transport(device)
    transport.run_bench(plan.path, plan.results, progress=silent)
    timings = read_samples(plan).timings()
    assert timings["c16"].n > 4 and timings["c16"].median_ms > 0
    header = read_jsonl(plan.results)[0]
    assert header["threads"] == 1 and header["provider"] == "CPUExecutionProvider"
    before = plan.results.read_bytes()
    transport.run_bench(plan.path, plan.results, progress=silent)
    assert plan.results.read_bytes() == before


@pytest.mark.parametrize("name", REGISTRY.names)
def test_a_failure_on_the_device_is_explained(name: str, tmp_path: Path):
    device = DeviceSpec("board", transport=name, provider="NoSuchProvider")
    models = {"c4": context(8, 4).SerializeToString()}
    plan = write_plan(models, device, tmp_path, ProfileConfig(), seed=0)
    with pytest.raises(UserError, match="NoSuchProvider"):
        open_transport(device).run_bench(plan.path, plan.results, progress=silent)
