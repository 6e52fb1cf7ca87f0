"""Engines on an imitated GPU (tests/gpu.py), and a `tensorrt` that follows its API.

What this proves is our side: which calls are made, in which order, with which arguments. That the
API exists as used is checked against the real TensorRT for RTX in test_runtimes.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from hwnas.builders.onnx import context
from hwnas.core.store import read_jsonl
from hwnas.interfaces import DeviceSpec
from hwnas.latency.plan import Plan, write_plan
from hwnas.latency.samples import read_samples
from hwnas.latency.sections import ProfileConfig
from tests.gpu import EVENT_GAP_NS, imitated_cuda
from tests.kit import KIT

TENSORRT = """
import enum, json, os, numpy
__version__ = "10.0"
class TensorIOMode(enum.Enum):
    INPUT = 1
    OUTPUT = 2
class NetworkDefinitionCreationFlag(enum.IntEnum):
    STRONGLY_TYPED = 1
class Logger:
    ERROR = 1
    def __init__(self, level): pass
def nptype(kind): return numpy.float32
class Value:
    name, shape = "input", (1, 8, 4, 4)
class Network:
    num_inputs = 1
    def get_input(self, index): return Value
class Builder:
    def __init__(self, logger): pass
    def create_network(self, flags):
        assert flags == 2
        return Network()
    def create_builder_config(self): return self
    def create_optimization_profile(self): return None
    def add_optimization_profile(self, profile): pass
    def build_serialized_network(self, network, config):
        with open(os.environ["BUILDS"], "a") as stream:
            stream.write("built\\n")
        return b"engine"
class OnnxParser:
    def __init__(self, network, logger): pass
    def parse(self, data): return len(data) > 100
class Context:
    def __init__(self): self.addresses, self.shapes = {}, {}
    def set_input_shape(self, name, shape):
        self.shapes[name] = tuple(shape)
        return True
    def get_tensor_shape(self, name):
        assert self.shapes == {"input": (1, 8, 4, 4)}
        return self.shapes.get(name, (1, 10))
    def set_tensor_address(self, name, address): self.addresses[name] = address
    def execute_async_v3(self, stream):
        return bool(stream) and all(self.addresses[n] for n in ("input", "logits"))
class Engine:
    num_io_tensors = 2
    def create_execution_context(self): return Context()
    def get_tensor_name(self, index): return ("input", "logits")[index]
    def get_tensor_mode(self, name): return TensorIOMode(1 + (name == "logits"))
    def get_tensor_shape(self, name): return (1, 8, 4, 4)
    def get_tensor_dtype(self, name): return "float"
class Runtime:
    def __init__(self, logger): pass
    def deserialize_cuda_engine(self, data): return Engine() if data == b"engine" else None
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "tensorrt.py").write_text(TENSORRT)
    return {**imitated_cuda(tmp_path), "BUILDS": str(tmp_path / "builds")}


def engine_plan(folder: Path, rounds: int = 3, **fields: object) -> Plan:
    device = DeviceSpec("gpu", **{"runtime": "tensorrt", "provider": "cuda:0", **fields})
    models = {f"c{hw}": context(8, hw).SerializeToString() for hw in (4, 8)}
    config = ProfileConfig(rounds=rounds, min_rounds=2, hot_samples=2, target_error=0.0)
    return write_plan(models, device, folder / "plan", config, seed=0)


def bench(plan: Plan, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(KIT), str(plan.path), "--out", str(plan.results)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_engines_are_built_once_and_timed_by_events(environment, tmp_path: Path):
    plan = engine_plan(tmp_path)
    done = bench(plan, environment)
    assert done.returncode == 0, done.stderr
    lines = read_jsonl(plan.results)
    assert lines[0]["host"]["accelerator"] == "Imaginary 9000"
    assert lines[0]["runtime_version"] == "10.0"
    samples = [ns for line in lines for turn in line.get("turns", ()) for ns in turn[2:]]
    assert set(samples) == {EVENT_GAP_NS}
    assert read_samples(plan).timings()["c4"].median_ms == pytest.approx(EVENT_GAP_NS * 1e-6)
    more = engine_plan(tmp_path, rounds=5)
    assert more.hash == plan.hash
    assert bench(more, environment).returncode == 0
    assert Path(environment["BUILDS"]).read_text().count("built") == 2


@pytest.mark.parametrize(
    ("fields", "changes", "words"),
    [
        ({}, {"NO_GPU": "1"}, ["no usable CUDA GPU", "no driver"]),
        ({"provider": "cuda:3"}, {}, ["there is no GPU 3"]),
        ({"provider": "CPUExecutionProvider"}, {}, ["the provider is cuda"]),
        ({"batch": 2}, {}, ["batch is 1"]),
    ],
)
def test_what_it_cannot_do_is_explained(fields, changes, words, environment, tmp_path: Path):
    done = bench(engine_plan(tmp_path, **fields), environment | changes)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert all(word in done.stderr for word in words), done.stderr


def test_a_damaged_engine_is_explained(environment, tmp_path: Path):
    plan = engine_plan(tmp_path)
    assert bench(plan, environment).returncode == 0
    for engine in plan.path.parent.rglob("*.engine"):
        engine.write_bytes(json.dumps("damaged").encode())
    done = bench(engine_plan(tmp_path, rounds=5), environment)
    assert done.returncode == 1 and "delete it" in done.stderr
