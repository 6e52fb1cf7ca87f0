"""Contract tests of transports (`interfaces.Transport`) and of runtimes of the device kit."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hwnas.builders.onnx import context, network
from hwnas.core.errors import UserError
from hwnas.core.progress import silent
from hwnas.core.resources import resource
from hwnas.core.store import read_jsonl
from hwnas.devices.runtimes import describe_runtime, runtime_packages
from hwnas.interfaces import DeviceSpec, Transport, TransportModule
from hwnas.latency.plan import Plan, write_plan
from hwnas.latency.samples import read_samples
from hwnas.latency.sections import ProfileConfig
from hwnas.measure.networks import serialized
from hwnas.spaces.lowering import lower
from hwnas.testing.suite import Suite, name_of, tiny_space

__all__ = ["Execute", "RuntimeSuite", "TransportSuite", "execute"]

QUICK = ProfileConfig(rounds=4, min_rounds=1, hot_samples=3)
Execute = Callable[[Transport, Plan], None]


def execute(transport: Transport, plan: Plan) -> None:
    """Runs a plan, as profiling does."""
    transport.run_bench(plan.path, plan.results, progress=silent)


class TransportSuite(Suite):
    """Contract of a transport, on a device that has ONNX Runtime.

    Override `config` to reach a device from the test, and `run` if a user must take part.
    """

    CONTRACT = TransportModule

    @pytest.fixture
    def run(self) -> Execute:
        """Runs a plan as a user would."""
        return execute

    def _device(self, variant: Any, **fields: Any) -> DeviceSpec:
        return DeviceSpec("board", transport=name_of(variant), **fields)

    def test_a_plan_is_timed_once(
        self, variant: Any, config: Any, run: Execute, tmp_path: Path
    ) -> None:
        """All models have results with facts about the device; a second run times nothing."""
        device = self._device(variant)
        transport = variant.build(config, device)
        models = {f"c{hw}": context(8, hw).SerializeToString() for hw in (4, 16)}
        plan = write_plan(models, device, tmp_path / "plan", QUICK, seed=0)
        run(transport, plan)
        timings = read_samples(plan).timings()
        assert timings["c16"].n > 4 and timings["c16"].median_ms > 0
        header = read_jsonl(plan.results)[0]
        assert header["threads"] == 1 and header["provider"] == "CPUExecutionProvider"
        before = plan.results.read_bytes()
        run(transport, plan)
        assert plan.results.read_bytes() == before

    def test_a_failure_on_the_device_is_explained(
        self, variant: Any, config: Any, run: Execute, tmp_path: Path
    ) -> None:
        """The error message of the kit on the device reaches the user."""
        device = self._device(variant, provider="NoSuchProvider")
        models = {"c4": context(8, 4).SerializeToString()}
        plan = write_plan(models, device, tmp_path / "plan", QUICK, seed=0)
        with pytest.raises(UserError, match="NoSuchProvider"):
            run(variant.build(config, device), plan)


class RuntimeSuite:
    """Contract of `run_NAME.py` of the device kit; the fixture `variant` gives NAME."""

    @pytest.fixture
    def variant(self) -> str:
        """Name of the runtime."""
        pytest.fail("give the suite's subclass a fixture `variant` that returns a runtime's name")

    @pytest.fixture
    def provider(self) -> str:
        """Value of `provider` in a device spec with which the runtime uses this machine's CPU."""
        return ""

    @pytest.fixture
    def python(self, variant: str) -> str:
        """An interpreter that has the runtime."""
        if missing := describe_runtime(variant).missing:
            pytest.skip(
                f"{', '.join(missing)} is not installed: {describe_runtime(variant).install}"
            )
        return sys.executable

    def _plan(self, runtime: str, provider: str, folder: Path) -> Plan:
        net = network(lower(tiny_space(), tiny_space().smallest()))
        models = {"context": context(8, 8), "net": net}
        config = ProfileConfig(rounds=3, min_rounds=2, hot_samples=2, target_error=0.0)
        device = DeviceSpec("d", runtime=runtime, provider=provider)
        written = {name: serialized(model, device) for name, model in models.items()}
        return write_plan(written, device, folder, config, seed=0)

    def test_it_is_described_without_being_imported(self, variant: str) -> None:
        """The description has a summary, and an install command if a package is missing."""
        found = describe_runtime(variant)
        assert found.summary
        assert bool(found.missing) == bool(found.install)

    def test_whole_networks_are_timed(
        self, variant: str, provider: str, python: str, tmp_path: Path
    ) -> None:
        """A network takes longer than one small convolution; the header names the software."""
        plan = self._plan(variant, provider, tmp_path)
        command = [python, str(resource("export", "bench.py")), str(plan.path)]
        done = subprocess.run(
            [*command, "--out", str(plan.results)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        timings = read_samples(plan).timings()
        assert timings["net"].median_ms > timings["context"].median_ms > 0
        header = read_jsonl(plan.results)[0]
        assert header["runtime"] == variant and header["runtime_version"]
        assert header["host"]["accelerator"] is None

    def test_where_it_is_absent_its_install_line_is_named(
        self, variant: str, provider: str, tmp_path: Path
    ) -> None:
        """Without the runtime, the kit stops and prints the command that installs it."""
        install = describe_runtime(variant).install or ""
        plan = self._plan(variant, provider, tmp_path)
        kit = resource("export", "bench.py")
        hidden = dict.fromkeys(set(runtime_packages(variant)) - {"numpy"})
        hide = (
            f"import sys, runpy; sys.modules.update({hidden!r}); sys.argv[1:] = "
            f"[{str(plan.path)!r}, '--out', {str(plan.results)!r}]; sys.path.insert(0, "
            f"{str(kit.parent)!r}); runpy.run_path({str(kit)!r}, run_name='__main__')"
        )
        done = subprocess.run(
            [sys.executable, "-c", hide], capture_output=True, text=True, check=False
        )
        assert done.returncode == 1, done.stderr
        assert "fix: python -m pip install" in done.stderr and install in done.stderr
        assert "Traceback" not in done.stderr
