"""TensorRT engines: built ahead of time for real GPUs, refused when stale."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from hwnas.builders.onnx import network
from hwnas.builders.precision import to_precision
from hwnas.core.errors import UserError
from hwnas.core.rng import rng
from hwnas.exporters import REGISTRY
from hwnas.exporters.base import PROMISES
from hwnas.exporters.engine import EngineExporter, Precision, check_engine
from hwnas.exporters.quantize import quantized
from hwnas.spaces.lowering import lower
from hwnas.spaces.space import SearchSpace

DEFAULT, OTHERS = "8.9", ("7.5", "8.0", "8.6", "12.0")


@pytest.fixture
def folder(tiny_space: SearchSpace, tmp_path: Path) -> Path:
    """ONNX files in two precisions."""
    model = network(lower(tiny_space, tiny_space.smallest()), batch=None)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    half = to_precision(model, "fp16", float_io=True)
    (tmp_path / "model.fp16.onnx").write_bytes(half.SerializeToString())
    return tmp_path


def need_rtx() -> None:
    variant = REGISTRY.describe("tensorrt_rtx")
    if variant.missing:
        pytest.skip(f"tensorrt_rtx is not installed: {variant.install}")


def rtx(folder: Path, capability: str | None, precision: str = "fp32") -> list[Path]:
    module = REGISTRY.load("tensorrt_rtx")
    config = module.Config(capability=capability, precision=precision, batches=(1, 2, 8))
    files = module.build(config).export(None, input_shape=(3, 16, 16), folder=folder)
    return list(files)


@pytest.mark.parametrize(
    "capability",
    [DEFAULT, *(pytest.param(other, marks=pytest.mark.full) for other in OTHERS)],
)
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_real_engine_of_a_gpu_that_is_not_here(
    capability: str, precision: str, folder: Path
) -> None:
    need_rtx()
    import tensorrt_rtx

    if (capability, precision) == ("7.5", "fp32"):  # TensorRT for RTX has no such kernels
        with pytest.raises(UserError, match="FP32 GEMM is not supported"):
            rtx(folder, capability, precision)
        return
    engine, facts_path = rtx(folder, capability, precision)
    facts = json.loads(facts_path.read_text())
    source = folder / {"fp32": "model.onnx", "fp16": "model.fp16.onnx"}[precision]
    assert check_engine(engine, source=source, version=tensorrt_rtx.__version__) == facts
    assert (facts["capability"], facts["precision"], facts["batches"]) == (
        capability, precision, [1, 2, 8]
    )  # fmt: skip
    assert facts["inputs"] == [{"name": "input", "shape": [-1, 3, 16, 16], "dtype": "FLOAT"}]
    assert facts["outputs"] == [{"name": "logits", "shape": [-1, 10], "dtype": "FLOAT"}]
    assert facts["size_bytes"] == engine.stat().st_size > 10_000


def test_an_engine_in_8_bits_is_of_a_symmetric_graph(folder: Path) -> None:
    need_rtx()
    graph = onnx.load(folder / "model.onnx")
    images = rng(0, "images").standard_normal((16, 3, 16, 16)).astype(np.float32)
    settings = {"method": "minmax", "target_agreement": 0.01, "max_float_layers": 0.0}
    found = quantized(graph, images, images, symmetric=True, **settings)
    (folder / "model.int8.onnx").write_bytes(found.model.SerializeToString())
    engine, _ = rtx(folder, DEFAULT, "int8")
    assert check_engine(engine, source=folder / "model.int8.onnx")["precision"] == "int8"
    found = quantized(graph, images, images, **settings)
    (folder / "model.int8.onnx").write_bytes(found.model.SerializeToString())
    with pytest.raises(UserError, match="symmetric: true"):
        rtx(folder, DEFAULT, "int8")


def test_a_broken_model_and_an_unknown_gpu_are_refused(folder: Path) -> None:
    need_rtx()
    source = folder / "model.onnx"
    source_bytes = source.read_bytes()
    before = set(folder.iterdir())
    with pytest.raises(UserError, match="cannot build for another GPU"):
        rtx(folder, "9.9")
    source.write_bytes(source_bytes.replace(b"Conv", b"Vnoc"))
    with pytest.raises(UserError, match=r"model\.onnx.*cannot be parsed"):
        rtx(folder, DEFAULT)
    assert set(folder.iterdir()) == before


def test_engines_sum_in_half_precision_and_promise_less() -> None:
    def tolerance(precision: Precision) -> float:
        exporter = EngineExporter("tensorrt", precision, (1, 1, 1), "8.9")
        return exporter.describe([Path("model.engine")]).parity_tolerance

    assert tolerance("fp16") == 0.03 > PROMISES["fp16"].parity_tolerance
    assert tolerance("fp32") == 5e-3 > PROMISES["fp32"].parity_tolerance
    assert tolerance("int8") == PROMISES["int8"].parity_tolerance


def test_an_engine_needs_its_onnx_file_and_its_package(folder: Path) -> None:
    (folder / "model.fp16.onnx").unlink()
    with pytest.raises(UserError, match="export the format fp16 before tensorrt_rtx"):
        EngineExporter("tensorrt_rtx", "fp16", (1, 1, 1), "8.9").export(
            None, input_shape=(3, 16, 16), folder=folder
        )
    if REGISTRY.describe("tensorrt").missing:
        with pytest.raises(UserError, match=r"hwnas\[tensorrt\]"):
            REGISTRY.load("tensorrt")
        with pytest.raises(UserError, match="pip install tensorrt"):
            EngineExporter("tensorrt", "fp32", (1, 1, 1)).export(
                None, input_shape=(3, 16, 16), folder=folder
            )
    assert not list(folder.glob("*.engine*"))


def stored(folder: Path) -> Path:
    """An engine as the kit leaves it."""
    path, source = folder / "model.engine", folder / "model.onnx"
    path.write_bytes(b"engine")
    facts = {
        "runtime": "tensorrt",
        "runtime_version": "10.8.0",
        "capability": "8.9",
        "model_sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
        "sha256": hashlib.sha256(b"engine").hexdigest(),
    }
    path.with_name("model.engine.json").write_text(json.dumps(facts))
    return path


def test_a_stale_engine_is_refused(folder: Path) -> None:
    path, source = stored(folder), folder / "model.onnx"
    check_engine(path, source=source, version="10.8.0", capability="8.9")
    with pytest.raises(UserError, match="another version of tensorrt"):
        check_engine(path, version="10.9.0")
    with pytest.raises(UserError, match="another GPU"):
        check_engine(path, capability="8.6")
    with pytest.raises(UserError, match=r"another model file[\s\S]*\w{64} of model.fp16.onnx\n"):
        check_engine(path, source=folder / "model.fp16.onnx")
    path.write_bytes(b"another")
    hashes = [hashlib.sha256(data).hexdigest() for data in (b"engine", b"another")]
    with pytest.raises(UserError, match="altered") as altered:
        check_engine(path)
    assert altered.value.expected == f"sha256 {hashes[0]}, as in model.engine.json"
    assert altered.value.found == f"sha256 {hashes[1]} of model.engine"
    path.unlink()
    with pytest.raises(UserError, match="missing"):
        check_engine(path)
    path.with_name("model.engine.json").write_text("[]")
    with pytest.raises(UserError, match="found: a list"):
        check_engine(path)
