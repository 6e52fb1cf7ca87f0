"""A bundle that can be checked by hand: its net names the brightest of three colours. No torch."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from hwnas.builders.onnx import with_least_ir
from hwnas.core.rng import rng
from hwnas.exporters.bundle import write_bundle
from hwnas.exporters.manifest import AccuracyFact, ConstraintFact, InputSpec, LatencyFact, Manifest
from hwnas.exporters.samples import SampleImage
from hwnas.interfaces import DataInfo, DeviceSpec, ModelFile
from hwnas.spaces.arch import Arch
from tests.kit import KIT

PX, BASE_PX = 4, 8
CLASSES = ("red", "green", "blue")
INPUTS = rng(0, "bundle").standard_normal((8, 3, PX, PX)).astype(np.float32)
LOGITS = INPUTS.mean(axis=(2, 3))
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
TOLERANCES = {"fp32": 1e-4, "fp16": 1e-2, "int8": 0.1}
INT8_STEP = 0.03


def colour_net(precision: str = "fp32", batch: int | str = "batch") -> onnx.ModelProto:
    """Logits = mean of each channel; the input of the fp16 net is float16, the output float32."""
    kind = TensorProto.FLOAT16 if precision == "fp16" else TensorProto.FLOAT
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    constants = {
        "axes": np.array([2, 3]),
        "weight": np.eye(3, dtype=dtype),
        "step": np.array(INT8_STEP, dtype=np.float32),
        "zero": np.array(0, dtype=np.int8),
    }
    nodes = {
        "fp32": [("ReduceMean", ["input", "axes"], "mean")],
        "fp16": [("ReduceMean", ["input", "axes"], "mean")],
        "int8": [
            ("QuantizeLinear", ["input", "step", "zero"], "quantised"),
            ("DequantizeLinear", ["quantised", "step", "zero"], "rounded"),
            ("ReduceMean", ["rounded", "axes"], "mean"),
        ],
    }[precision] + [("Gemm", ["mean", "weight"], "product")]
    keepdims = {"ReduceMean": {"keepdims": 0}}
    graph = helper.make_graph(
        [
            *(helper.make_node(op, i, [o], **keepdims.get(op, {})) for op, i, o in nodes),
            helper.make_node("Cast", ["product"], ["logits"], to=TensorProto.FLOAT),
        ],
        "colours",
        [helper.make_tensor_value_info("input", kind, [batch, 3, PX, PX])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, 3])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 18)]
    model = with_least_ir(helper.make_model(graph, opset_imports=opsets))
    onnx.checker.check_model(model, full_check=True)
    return model


def failing_net(name: str) -> onnx.ModelProto:
    """`colour_net`, which loads; its node `name` fails when the model runs."""
    model = colour_net()
    nodes = model.graph.node
    constants = {"none": np.float32(0), "far": np.float32(1000), "shape": np.array([-1, 3])}
    for constant, value in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), constant))
    (gemm,) = (node for node in nodes if node.op_type == "Gemm")
    gemm.input[0] = "rows"
    at = list(nodes).index(gemm)
    for node in (  # an index that depends on the input, and is always beyond the end
        helper.make_node("Reshape", ["row", "shape"], ["rows"]),
        helper.make_node("Gather", ["mean", "index"], ["row"], name=name, axis=0),
        helper.make_node("Cast", ["sum"], ["index"], to=TensorProto.INT64),
        helper.make_node("Add", ["product0", "far"], ["sum"]),
        helper.make_node("Mul", ["largest", "none"], ["product0"]),
        helper.make_node("ReduceMax", ["mean"], ["largest"], keepdims=0),
    ):
        nodes.insert(at, node)
    return model


def colour_images(n: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [n, 8, 8, 3] of noise in which one channel is brighter by far, and which one."""
    labels = np.arange(n) % 3
    pixels = rng(0, "colours").integers(0, 60, (n, BASE_PX, BASE_PX, 3), dtype=np.uint8)
    pixels[np.arange(n), :, :, labels] += 150
    return pixels, labels


def colour_manifest(
    promised_ms: float = 1e6, precisions: Sequence[str] = ("fp32",), **fields: Any
) -> Manifest:
    """What `colour_bundle` promises; `fields` replace others."""
    info = DataInfo("colours", CLASSES, MEAN, STD, BASE_PX, {"test": 200})
    names = {precision: f"models/{precision}.onnx" for precision in precisions}
    known: dict[str, Any] = {
        "name": "winner",
        "hwnas_version": "0",
        "arch": Arch("toy-1", (0, 1)),
        "arch_view": {"resolution": PX, "stage0.kind": "conv"},
        "input": InputSpec.of(info, PX),
        "models": tuple(
            ModelFile(
                name,
                "onnx",
                precision,  # type: ignore[arg-type]
                opset=18,
                parity_tolerance=TOLERANCES[precision],
                min_agreement={"fp32": 1.0, "fp16": 0.995, "int8": 0.98}[precision],
            )
            for precision, name in names.items()
        ),
        "runtimes": {"onnxruntime": "1"},
        "latency": tuple(
            LatencyFact(
                DeviceSpec("local", precision=precision),  # type: ignore[arg-type]
                name,
                "cpu",
                promised_ms,
                (promised_ms / 2, promised_ms),
            )
            for precision, name in names.items()
        ),
        "accuracy": tuple(AccuracyFact(n, "colours", "test", 200, 0.9) for n in names.values()),
        "constraints": (ConstraintFact("latency_ms", "local", 2.0, True),),
        "provenance": {"seed": "0"},
    }
    return Manifest(**{**known, **fields})


def colour_bundle(folder: Path, manifest: Manifest | None = None, **parts: Any) -> Manifest:
    """Write a bundle; `parts` replace arguments of `write_bundle`."""
    manifest = manifest or colour_manifest()
    sources = folder.parent / "sources"
    sources.mkdir(parents=True, exist_ok=True)
    models: Mapping[str, Path] = {m.path: sources / Path(m.path).name for m in manifest.models}
    for model in manifest.models:
        if model.path.endswith(".onnx"):
            onnx.save(colour_net(model.precision, model.batch or "batch"), models[model.path])
    pixels, labels = colour_images()
    samples = [SampleImage(p, int(y), int(y)) for p, y in zip(pixels, labels, strict=True)]
    known = {
        "models": models,
        "golden_input": INPUTS,
        "golden_output": LOGITS,
        "samples": samples,
    }
    return write_bundle(folder, manifest, **{**known, **parts})


def kit_module(name: str) -> ModuleType:
    """A module of the kit in this process, from the checkout."""
    if str(KIT.parent) not in sys.path:
        sys.path.append(str(KIT.parent))
    return importlib.import_module(name)


def run_kit(
    folder: Path, script: str, *arguments: str | Path, **options: Any
) -> subprocess.CompletedProcess[str]:
    """A script of the bundle's own kit, started there."""
    python = options.pop("python", sys.executable)
    command = [str(part) for part in (python, folder / script, *arguments)]
    return subprocess.run(
        command, **{"capture_output": True, "text": True, "cwd": folder, "check": False, **options}
    )
