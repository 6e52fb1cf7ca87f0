"""The device kit as a module, and a machine for it whose true speeds are known."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from hwnas.devices.runtimes import runtime_packages

KIT = Path(__file__).resolve().parent.parent / "export" / "bench.py"


def interpreter(runtime: str) -> str:
    """A python that has the runtime (its path in HWNAS_TEST_OPENVINO, ...); else the test skips."""
    python = os.environ.get(f"HWNAS_TEST_{runtime.upper()}", sys.executable)
    needed = ", ".join(runtime_packages(runtime))
    found = subprocess.run([python, "-c", f"import {needed}"], capture_output=True)
    if found.returncode:
        pytest.skip(f"{python} lacks {needed}: name one that has in HWNAS_TEST_{runtime.upper()}")
    return python


def load_kit() -> ModuleType:
    """`export/bench_protocol.py`, imported by path: it is not part of the package."""
    path = KIT.with_name("bench_protocol.py")
    spec = importlib.util.spec_from_file_location("bench_protocol", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class FakeMachine:
    """A clock, and models that advance it by a known time and by what disturbs it.

    true_ns: by item id. `drift(t_ns)` multiplies; `noise` is the scale of half-normal relative
    noise; with probability `outliers` a run is interrupted and takes three times as long, a third
    of it at work, which `work` tells if `counts_work`. The first run after another model takes
    `cold` times as long. `load(t_ns)`: how much slower neighbours make the average item, which
    `sensitivity(true_ns)` multiplies.
    """

    def __init__(
        self,
        true_ns: Mapping[str, float],
        *,
        noise: float = 0.0,
        outliers: float = 0.0,
        cold: float = 1.0,
        drift: Callable[[float], float] = lambda t: 1.0,
        counts_work: bool = False,
        load: Callable[[float], float] = lambda t: 0.0,
        sensitivity: Callable[[float], float] = lambda true_ns: 1.0,
        seed: int = 0,
    ) -> None:
        self.load_at, self.sensitivity = load, sensitivity
        self.true_ns, self.noise, self.outliers = true_ns, noise, outliers
        self.cold, self.drift = cold, drift
        self.random = np.random.default_rng(seed)
        self.time_ns, self.n_switches = 0.0, 0
        self.work_ns, self.counts_work = 0.0, counts_work
        self.loaded: list[str] = []
        self.runs: list[str] = []

    def now(self) -> int:
        return int(self.time_ns)

    def switches(self) -> int:
        return self.n_switches

    def work(self) -> int | None:
        return int(self.work_ns) if self.counts_work else None

    def load(self, item: dict[str, str]) -> Callable[[], None]:
        self.loaded.append(item["id"])
        return lambda: self.execute(item["id"])

    def execute(self, name: str) -> None:
        spent = self.true_ns[name] * self.drift(self.time_ns)
        if (load := self.load_at(self.time_ns)) > 0:
            spent *= 1 + load * self.sensitivity(self.true_ns[name])
        spent *= 1 + self.noise * abs(self.random.standard_normal())
        if not self.runs or self.runs[-1] != name:
            spent *= self.cold
        self.work_ns += spent
        if self.random.random() < self.outliers:
            spent *= 3
            self.n_switches += 1
        self.time_ns += spent
        self.runs.append(name)


FACTS = {
    "runtime": "onnxruntime",
    "runtime_version": "0.0",
    "provider": "CPUExecutionProvider",
    "precision": "fp32",
    "threads": 1,
    "batch": 1,
    "interrupted_runs": "dropped",
}
HOST = {
    "cpu": "Fake 1",
    "accelerator": None,
    "n_cpus": 1,
    "affinity": [0],
    "governor": None,
    "load_average": 0.0,
    "machine": "fake",
    "system": "Fake",
    "python": "3",
    "date": "2026-01-01T00:00:00+00:00",
}


class FakeTransport:
    """A Transport to a machine whose models take `true_ns(plan)`; runs the real kit's protocol."""

    def __init__(self, machine: Callable[[dict[str, Any]], FakeMachine]) -> None:
        self.machine = machine
        self.runs = 0

    def run_bench(self, plan: Path, results: Path, *, progress: Any) -> None:
        kit = load_kit()
        content = json.loads(plan.read_text())
        machine = self.machine(content)
        stored = kit.Results(results)
        stored.open_for(content, FACTS, HOST)
        kit.run(content, machine.load, machine, stored)
        self.runs += len(machine.runs)


class SizeTransport(FakeTransport):
    """A device where a model takes 1 ns per byte of its file."""

    def __init__(self, kind: type[FakeMachine] = FakeMachine) -> None:
        super().__init__(self._machine)
        self.kind = kind

    def run_bench(self, plan: Path, results: Path, *, progress: Any) -> None:
        self._folder = plan.parent
        super().run_bench(plan, results, progress=progress)

    def _machine(self, plan: dict[str, Any]) -> FakeMachine:
        return self.kind(
            {i["id"]: (self._folder / i["file"]).stat().st_size for i in plan["items"]}
        )
