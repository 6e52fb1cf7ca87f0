"""LiteRT in the device kit: what it computes, refuses and warns of."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hwnas.builders.onnx import context, network
from hwnas.builders.tflite import converted, timed
from hwnas.builders.tflite_graph import OLDEST, Op
from hwnas.builders.tflite_precision import to_precision
from hwnas.interfaces import DeviceSpec
from hwnas.latency.plan import Plan, write_plan
from hwnas.latency.samples import read_samples
from hwnas.latency.sections import ProfileConfig
from hwnas.measure.networks import serialized
from hwnas.spaces.lowering import lower
from hwnas.spaces.network import Network
from hwnas.spaces.ops import conv
from hwnas.spaces.space import SearchSpace
from tests.unit.test_builders_onnx import random_input, run
from tests.unit.test_runtimes import bench, kit_module

pytest.importorskip("ai_edge_litert", reason="pip install 'hwnas[litert]'")
from hwnas.exporters.interpreter import Interpreted

ROOT = Path(__file__).parents[2]


def plan_of(content: bytes, folder: Path, **fields: object) -> Plan:
    device = DeviceSpec("d", **{"runtime": "litert", "provider": "cpu", **fields})
    config = ProfileConfig(rounds=3, min_rounds=2, hot_samples=2, target_error=0.0)
    return write_plan({"net": content}, device, folder, config, seed=0)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("batch", [1, 3])
def test_every_precision_and_batch_is_timed(
    precision: str, batch: int, tiny_space: SearchSpace, tmp_path: Path
) -> None:
    device = DeviceSpec("d", "litert", "cpu", precision=precision, batch=batch)  # type: ignore[arg-type]
    model = network(lower(tiny_space, tiny_space.smallest()), batch=batch)
    plan = plan_of(serialized(model, device), tmp_path, precision=precision, batch=batch)
    assert plan.path.with_name("models").joinpath("net.tflite").is_file()
    done = bench(plan)
    assert done.returncode == 0, done.stderr
    assert "not run by XNNPACK" not in done.stderr
    assert read_samples(plan).timings()["net"].median_ms > 0


def test_an_open_batch_is_timed_at_the_plans(tiny_space: SearchSpace, tmp_path: Path) -> None:
    model = network(lower(tiny_space, tiny_space.smallest()), batch=None)
    done = bench(plan_of(timed(model), tmp_path, batch=4))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"provider": "Abacus"}, "it has cpu, gpu, npu"),
        ({"batch": 2}, "the model's batch is 1, the plan's 2"),
        ({"provider": "gpu"}, "cannot"),
    ],
)
def test_what_it_cannot_do_is_explained(
    fields: dict[str, object], word: str, tmp_path: Path
) -> None:
    done = bench(plan_of(timed(context(8, 4)), tmp_path, **fields))
    assert done.returncode == 1 and word in done.stderr, done.stderr
    assert "Traceback" not in done.stderr


def test_a_wheel_that_is_too_old_is_named_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kit = kit_module("run_litert")
    assert kit.OLDEST == OLDEST
    kit.Runner("cpu", 1, 1, "fp32")
    monkeypatch.setattr(kit.Runner, "version", "2.2.9")
    with pytest.raises(ValueError, match=r"2\.2\.9 is too old; fix: .*ai-edge-litert>=2\.3"):
        kit.Runner("cpu", 1, 1, "fp32")


def pooled_in_8_bits() -> bytes:
    """An average pooling in 8 bits, for which XNNPACK has no kernel, between two conversions."""
    graph = to_precision(converted(network(Network((conv(4, 4, 6, 1, 1, "none"),)))), "int8")
    last = graph.ops[-1]
    eight = graph.tensors[last.inputs[0]]
    pooled = graph.add(replace(eight, name="pooled"))
    window = {"strideW": 1, "strideH": 1, "filterWidth": 3, "filterHeight": 3, "padding": "SAME"}
    graph.ops[-1:] = [
        Op("AVERAGE_POOL_2D", (eight.name,), pooled, window),
        replace(last, inputs=(pooled,)),
    ]
    return graph.serialized()


def test_what_xnnpack_does_not_take_is_named_here_and_on_the_device(tmp_path: Path) -> None:
    content = pooled_in_8_bits()
    assert Interpreted(content, where="test").fell_out() == ["AVERAGE_POOL_2D"]
    kit = kit_module("run_litert")
    (tmp_path / "m.tflite").write_bytes(content)
    interpreter = kit.open_interpreter(tmp_path / "m.tflite", 1)
    assert kit.fell_out(interpreter) == ["AVERAGE_POOL_2D"]
    done = bench(plan_of(content, tmp_path / "plan"))
    assert done.returncode == 0 and "not run by XNNPACK: AVERAGE_POOL_2D" in done.stderr


def test_it_computes_what_onnxruntime_computes(tiny_space: SearchSpace, tmp_path: Path) -> None:
    model = network(lower(tiny_space, tiny_space.smallest()), batch=2)
    (tmp_path / "m.tflite").write_bytes(timed(model))
    kit = kit_module("run_litert")
    predict = kit.Runner("cpu", 1, 2, "fp32").open(tmp_path / "m.tflite")
    x = random_input(model, 2)
    np.testing.assert_allclose(predict(x), run(model, x), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="takes"):
        predict(x[:, :, 1:])


def test_accelerators_are_asked_for_the_whole_model(
    tiny_space: SearchSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The way to GPU and NPU, walked with LiteRT's accelerator for the processor."""
    model = network(lower(tiny_space, tiny_space.smallest()))
    (tmp_path / "m.tflite").write_bytes(timed(model))
    kit = kit_module("run_litert")
    monkeypatch.setitem(kit.ACCELERATORS, "gpu", "CPU")
    runner = kit.Runner("gpu", 1, 1, "fp32")
    assert not runner.is_on_cpu and runner.load(tmp_path / "m.tflite")() is None
    x = random_input(model, 1)
    found = runner.open(tmp_path / "m.tflite")(x)
    np.testing.assert_allclose(found, run(model, x), rtol=1e-4, atol=1e-5)


HOST = "from hwnas.exporters.interpreter import litert_model; litert_model(path).run(x)"
DEVICE = "import run_litert; run_litert.Runner('cpu', 1, 2, 'fp32').open(path)(x)"


@pytest.mark.parametrize("code", [HOST, DEVICE], ids=["host", "device"])
def test_the_library_writes_nothing_to_the_terminal(
    code: str, tiny_space: SearchSpace, tmp_path: Path
) -> None:
    model = network(lower(tiny_space, tiny_space.smallest()), batch=None)
    (tmp_path / "m.tflite").write_bytes(timed(model))
    np.save(tmp_path / "x.npy", random_input(model, 2))
    begin = "import numpy, pathlib; path, x = pathlib.Path('m.tflite'), numpy.load('x.npy'); "
    done = subprocess.run(
        [sys.executable, "-c", begin + code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "export")])},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
