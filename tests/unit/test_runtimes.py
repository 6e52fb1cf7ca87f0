"""The runtimes of the kit: precisions, refusals, and what each computes."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from hwnas.builders.onnx import network
from hwnas.builders.precision import to_precision
from hwnas.core.rng import rng
from hwnas.core.store import read_json, read_jsonl
from hwnas.devices.runtimes import describe_runtime, runtime_names
from hwnas.interfaces import DeviceSpec
from hwnas.latency.plan import Plan, write_plan
from hwnas.latency.samples import read_samples
from hwnas.latency.sections import ProfileConfig
from hwnas.spaces import REGISTRY
from hwnas.spaces.lowering import lower
from hwnas.spaces.space import SearchSpace
from tests.kit import KIT, interpreter


def kit_module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, KIT.with_name(f"{name}.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def plan_of(models: dict[str, onnx.ModelProto], device: DeviceSpec, folder: Path) -> Plan:
    config = ProfileConfig(rounds=3, min_rounds=2, hot_samples=2, target_error=0.0)
    written = {name: model.SerializeToString() for name, model in models.items()}
    return write_plan(written, device, folder, config, seed=0)


def bench(plan: Plan, python: str = sys.executable) -> subprocess.CompletedProcess[str]:
    command = [python, str(KIT), str(plan.path), "--out", str(plan.results)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def device_of(runtime: str, **fields: object) -> DeviceSpec:
    provider = {"onnxruntime": "CPUExecutionProvider", "openvino": "CPU", "torch": "cpu"}
    return DeviceSpec("d", **{"runtime": runtime, "provider": provider.get(runtime, ""), **fields})


@pytest.fixture(scope="module")
def net(tiny_space: SearchSpace) -> onnx.ModelProto:
    return network(lower(tiny_space, tiny_space.smallest()))


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_precisions(runtime: str, precision: str, net: onnx.ModelProto, tmp_path: Path):
    python = interpreter(runtime)
    device = device_of(runtime, precision=precision)
    done = bench(plan_of({"net": to_precision(net, precision)}, device, tmp_path), python)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("runtime", "fields", "word"),
    [
        ("onnxruntime", {"provider": "Abacus"}, "CPUExecutionProvider"),
        ("onnxruntime", {"batch": 2}, "batch is 1"),
        ("openvino", {"provider": "Abacus"}, "it has CPU"),
        ("openvino", {"batch": 2}, "batch is 1"),
        ("torch", {"provider": "cuda:99"}, "it has cpu"),
        ("torch", {"precision": "int8"}, "no torch form of the ONNX operator"),
    ],
)
def test_what_a_runtime_cannot_do_is_explained(
    runtime: str, fields: dict[str, object], word: str, net: onnx.ModelProto, tmp_path: Path
):
    python = interpreter(runtime)
    device = device_of(runtime, **fields)
    done = bench(plan_of({"net": to_precision(net, device.precision)}, device, tmp_path), python)
    assert done.returncode == 1 and word in done.stderr, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("kind", [TensorProto.UINT8, TensorProto.INT8])
def test_quantized_inputs_are_made_up(kind: int, tmp_path: Path):
    graph = helper.make_graph(
        [helper.make_node("DequantizeLinear", ["x", "scale"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", kind, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor("scale", TensorProto.FLOAT, [], [0.1])],
    )
    opset = [helper.make_opsetid("", 18)]
    model = helper.make_model(graph, ir_version=10, opset_imports=opset)
    done = bench(plan_of({"m": model}, device_of("onnxruntime", batch=3), tmp_path))
    assert done.returncode == 0, done.stderr


def test_the_kit_lists_its_runtimes():
    done = subprocess.run([sys.executable, str(KIT), "--runtimes"], capture_output=True, text=True)
    lines = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    assert tuple(lines) == runtime_names()
    assert "CPUExecutionProvider" in lines["onnxruntime"] and "cpu" in lines["torch"]


def test_the_plan_schema_knows_every_runtime():
    schema = read_json(KIT.with_name("plan.schema.json"))
    assert tuple(schema["properties"]["runtime"]["enum"]) == runtime_names()


def test_runtimes_are_described_without_importing_them():
    described = {name: describe_runtime(name) for name in runtime_names()}
    assert all(variant.summary for variant in described.values())
    assert described["onnxruntime"].missing == () and described["onnxruntime"].install is None
    if importlib.util.find_spec("tensorrt") is None:
        assert described["tensorrt"].missing == ("tensorrt",)
        assert "tensorrt" in (described["tensorrt"].install or "")


# --- torch ----------------------------------------------------------------------------------------


def test_torch_computes_what_onnxruntime_computes():
    import torch

    run_torch = kit_module("run_torch")
    for name in ("mobilenet_v3", "attentive_nas", "fbnet", "proxyless"):
        module = REGISTRY.load(name)
        space = module.build(module.Config(), num_classes=4)
        model = network(lower(space, space.arch(space.sample(1, rng=rng(0, "x"))[0])))
        shape = [size.dim_value for size in model.graph.input[0].type.tensor_type.shape.dim]
        x = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
        session = onnxruntime.InferenceSession(model.SerializeToString())
        (expected,) = session.run(None, {"input": x})
        translated = run_torch.translate(model.graph, torch.device("cpu"))
        (found,) = translated({"input": torch.from_numpy(x)})
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-3 * np.abs(expected).max())


@pytest.mark.skipif(
    "torch" not in sys.modules and importlib.util.find_spec("torch") is None, reason="no torch"
)
def test_torch_on_a_gpu_is_timed_by_the_gpu(net: onnx.ModelProto, tmp_path: Path):
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no CUDA GPU")
    plan = plan_of({"net": net}, device_of("torch", provider="cuda"), tmp_path)
    done = bench(plan)
    assert done.returncode == 0, done.stderr
    assert read_jsonl(plan.results)[0]["host"]["accelerator"]


# --- TensorRT -------------------------------------------------------------------------------------


def test_tensorrt_rtx_builds_engines_without_a_gpu_and_says_that_there_is_none(
    net: onnx.ModelProto, tmp_path: Path
):
    python = interpreter("tensorrt_rtx")
    device = device_of("tensorrt_rtx", provider="cuda:0")
    models = {
        "half": to_precision(net, "fp16"),
        "int8": to_precision(net, "int8", for_tensorrt=True),
        "net": net,
    }
    plan = plan_of(models, device, tmp_path)
    done = bench(plan, python)
    if done.returncode == 0:  # there is a GPU after all
        assert read_samples(plan).timings()["net"].median_ms > 0
        return
    assert "no usable CUDA GPU" in done.stderr and "Traceback" not in done.stderr
    build = (
        "import sys, pathlib, tensorrt_rtx as trt, bench_tensorrt\n"
        "log = trt.Logger(trt.Logger.ERROR)\n"
        "for path in sys.argv[1:]:\n"
        "    engine = bench_tensorrt.build_engine(\n"
        "        trt, log, pathlib.Path(path), [1, 1, 1], target=trt.ComputeCapability.SM89)\n"
        "    assert len(engine) > 10_000\n"
        "needed = {trt.ICudaEngine: 'num_io_tensors get_tensor_name get_tensor_mode '\n"
        "          'get_tensor_shape get_tensor_dtype create_execution_context',\n"
        "          trt.IExecutionContext: 'set_input_shape get_tensor_shape '\n"
        "          'set_tensor_address execute_async_v3'}\n"
        "for kind, names in needed.items():\n"
        "    assert all(hasattr(kind, name) for name in names.split()), kind\n"
    )
    paths = [str(path) for path in (tmp_path / "models").iterdir()]
    assert len(paths) == 3
    done = subprocess.run(
        [python, "-c", build, *paths],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(KIT.parent)},
    )
    assert done.returncode == 0, done.stderr


# --- precision ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["mobilenet_tiny", "mobilenet_v3", "attentive_nas", "fbnet", "nasbench201"]
)
def test_the_int8_graph_is_that_of_the_static_quantizer(name: str, tmp_path: Path):
    """Node for node: kinds, and what every quantisation follows."""
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.calibrate import CalibrationDataReader

    module = REGISTRY.load(name)
    space = module.build(module.Config(), num_classes=4)
    drawn = space.arch(space.sample(1, rng=rng(0, "x"))[0])
    arch = drawn if name in ("fbnet", "nasbench201") else space.smallest()
    model = network(lower(space, arch))
    shape = [size.dim_value for size in model.graph.input[0].type.tensor_type.shape.dim]

    class Images(CalibrationDataReader):
        def __init__(self) -> None:
            x = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
            self.left = [{"input": x}]

        def get_next(self):
            return self.left.pop() if self.left else None

    onnx.save(model, tmp_path / "fp32.onnx")
    quantize_static(
        tmp_path / "fp32.onnx",
        tmp_path / "int8.onnx",
        Images(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )

    def shape_of(graph: onnx.GraphProto) -> Counter[tuple[str, str]]:
        makers = {name: node.op_type for node in graph.node for name in node.output}
        return Counter(
            (makers.get(node.input[0], "constant or input"), node.op_type) for node in graph.node
        )

    expected = shape_of(onnx.load(tmp_path / "int8.onnx").graph)
    assert shape_of(to_precision(model, "int8").graph) == expected


def test_other_precisions_are_sound_models(net: onnx.ModelProto):
    x = np.random.default_rng(0).standard_normal(
        [size.dim_value for size in net.graph.input[0].type.tensor_type.shape.dim], dtype=np.float32
    )

    def logits(model: onnx.ModelProto, given: np.ndarray) -> np.ndarray:
        onnx.checker.check_model(model, full_check=True)
        session = onnxruntime.InferenceSession(model.SerializeToString())
        return np.asarray(session.run(None, {"input": given})[0], dtype=np.float32)

    exact = logits(net, x)
    half = logits(to_precision(net, "fp16"), x.astype(np.float16))
    np.testing.assert_allclose(half, exact, atol=0.02 * np.abs(exact).max())
    assert np.isfinite(logits(to_precision(net, "int8"), x)).all()
    assert to_precision(net, "fp32") is net
    n_quantized = json.dumps([n.op_type for n in to_precision(net, "int8").graph.node])
    assert "QuantizeLinear" in n_quantized
