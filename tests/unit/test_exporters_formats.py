"""Formats made from the ONNX graph: what is in the files, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from hwnas.builders.onnx import network
from hwnas.core.errors import UserError
from hwnas.core.rng import rng
from hwnas.exporters import float_graph, fp16, int8, ort
from hwnas.exporters import quantize as quantize_module
from hwnas.exporters.base import PROMISES, Source
from hwnas.exporters.mixed import calibration
from hwnas.exporters.opened import onnxruntime_model
from hwnas.exporters.ort_order import in_fixed_order
from hwnas.exporters.quantize import quantized
from hwnas.interfaces import OpenModel
from hwnas.nets.subnet import build_subnet
from hwnas.spaces.lowering import lower
from hwnas.spaces.space import SearchSpace
from tests.mobile_spaces import MOBILE_SPACES

SHAPE = (3, 16, 16)
IMAGES = rng(0, "formats").standard_normal((48, *SHAPE)).astype(np.float32)


@pytest.fixture
def net(tiny_space: SearchSpace) -> nn.Module:
    return build_subnet(tiny_space, tiny_space.smallest()).eval()


@pytest.fixture(autouse=True)
def _graph_without_torch(tiny_space: SearchSpace, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fp32 graph of `onnx_build`, which has the same nodes and is there in milliseconds."""

    def exported(model: nn.Module, *rest: object) -> onnx.ModelProto:
        return network(lower(tiny_space, tiny_space.smallest()), batch=None)

    monkeypatch.setattr(float_graph, "_translated", exported)


def test_a_graph_of_the_same_network_is_taken_from_the_folder(
    net: nn.Module, tiny_space: SearchSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def graph(model: nn.Module, **settings: object) -> onnx.ModelProto:
        return float_graph.float_graph(model, input_shape=SHAPE, folder=tmp_path, **settings)

    first = graph(net)
    (tmp_path / float_graph.FILE_NAME).write_bytes(first.SerializeToString())

    def again(*_: object) -> onnx.ModelProto:
        raise InterruptedError

    monkeypatch.setattr(float_graph, "_translated", again)
    assert graph(net) == first
    with pytest.raises(InterruptedError):
        graph(build_subnet(tiny_space, tiny_space.smallest(), seed=1))
    with pytest.raises(InterruptedError):
        graph(net, dynamic_batch=False)
    with pytest.raises(InterruptedError):
        graph(net, metadata={"another": "card"})


def test_fp16_computes_in_half_between_float_images_and_logits(
    net: nn.Module, tmp_path: Path
) -> None:
    (path,) = fp16.build(fp16.Config()).export(
        net, input_shape=SHAPE, folder=tmp_path, metadata={"model_card": "x"}
    )
    model = onnx.load(path)
    for value in (*model.graph.input, *model.graph.output):
        assert value.type.tensor_type.elem_type == TensorProto.FLOAT
    kinds = {tensor.data_type for tensor in model.graph.initializer}
    assert TensorProto.FLOAT not in kinds and TensorProto.FLOAT16 in kinds
    assert "model_card" in {item.key for item in model.metadata_props}
    whole = float_graph.float_graph(net, input_shape=SHAPE, folder=tmp_path)
    assert len(model.graph.node) == len(whole.graph.node) + 2
    assert path.stat().st_size < 0.6 * len(whole.SerializeToString())
    source = tmp_path / "float.onnx"
    source.write_bytes(whole.SerializeToString())
    expected, found = (onnxruntime_model(p).logits(IMAGES) for p in (source, path))
    assert (
        0
        < np.abs(expected - found).max()
        < PROMISES["fp16"].parity_tolerance * np.abs(expected).max()
    )


def test_fp16_refuses_weights_beyond_its_range(
    net: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = float_graph._translated(net, SHAPE, 18, True)
    tensor = next(t for t in graph.graph.initializer if t.data_type == TensorProto.FLOAT)
    weights = 1e5 * np.ones_like(numpy_helper.to_array(tensor))
    tensor.CopyFrom(numpy_helper.from_array(weights, tensor.name))
    monkeypatch.setattr(float_graph, "_translated", lambda *_: graph)
    with pytest.raises(UserError, match="half precision"):
        fp16.build(fp16.Config()).export(net, input_shape=SHAPE, folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_int8_is_static_qdq_per_channel_with_a_seeded_calibration(
    net: nn.Module, tmp_path: Path
) -> None:
    def export(name: str, **settings: object) -> onnx.ModelProto:
        config = int8.Config(n_calibration=8, target_agreement=0.01, **settings)
        (path,) = int8.build(config).export(
            net, input_shape=SHAPE, folder=tmp_path / name, images=IMAGES
        )
        return onnx.load(path)

    model = export("a")
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("QuantizeLinear") and "QLinearConv" not in kinds
    constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    weights = {
        node.input[0]: constants[node.input[1]]
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in constants
    }
    kernels = {k: v for k, v in weights.items() if constants[k].ndim == 4}
    assert len(kernels) == kinds.count("Conv")
    for name, scale in kernels.items():
        assert constants[name].dtype == np.int8 and scale.shape == (len(constants[name]),)
    for value in (*model.graph.input, *model.graph.output):
        assert value.type.tensor_type.elem_type == TensorProto.FLOAT
    facts = json.loads({item.key: item.value for item in model.metadata_props}["int8"])
    assert facts["n_calibration"] == 8 and facts["float_layers"] == []
    assert export("b") == model, "equal seeds, equal files"
    assert export("c", seed=1) != model, "another subset, other ranges"


@pytest.mark.parametrize("symmetric,levels", [(False, 64), (True, 127)])
def test_weights_leave_room_for_sums_of_two_products(
    symmetric: bool, levels: int, net: nn.Module, tmp_path: Path
) -> None:
    """2 x 255 x 64 fits into the 16 bits of processors without VNNI, 2 x 255 x 127 does not."""
    exporter = int8.build(int8.Config(symmetric=symmetric, max_float_layers=0.0))
    path, *_ = exporter.export(net, input_shape=SHAPE, folder=tmp_path, images=IMAGES)
    weights = [
        numpy_helper.to_array(one)
        for one in onnx.load(path).graph.initializer
        if one.data_type == TensorProto.INT8 and len(one.dims) > 1
    ]
    assert len(weights) > 3
    assert {int(np.abs(one.astype(int)).max()) for one in weights} == {levels}


def test_int8_needs_images(net: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="calibration images"):
        int8.build(int8.Config()).export(net, input_shape=SHAPE, folder=tmp_path)


def test_layers_that_suffer_stay_float(tiny_space: SearchSpace) -> None:
    """One channel that nothing reads, a thousand times wider than the others, spoils the range."""
    graph = network(lower(tiny_space, tiny_space.smallest()), batch=None)
    tensors = {tensor.name: tensor for tensor in graph.graph.initializer}

    def change(name: str, index: object, value: float) -> None:
        array = numpy_helper.to_array(tensors[name]).copy()
        array[index] = value
        tensors[name].CopyFrom(numpy_helper.from_array(array, name))

    convolutions = [node for node in graph.graph.node if node.op_type == "Conv"]
    stem = convolutions[0]
    change(stem.input[2], 0, 2000.0)
    reader = next(node for node in convolutions if node.name != stem.name)
    is_depthwise = tensors[reader.input[1]].dims[1] == 1
    change(reader.input[1], (0,) if is_depthwise else (slice(None), 0), 0.0)
    settings = {"method": "minmax", "target_agreement": 0.9}
    spoiled = quantized(graph, IMAGES[:16], IMAGES[16:], max_float_layers=0.0, **settings)
    assert spoiled.agreement < 0.9 and not spoiled.float_layers
    mended = quantized(graph, IMAGES[:16], IMAGES[16:], max_float_layers=0.9, **settings)
    assert mended.agreement_all_int8 == spoiled.agreement
    assert mended.agreement >= 0.9 and mended.float_layers


def test_float_layers_read_what_their_activation_clips() -> None:
    """With all depthwise layers float, the rest in 8 bits still agrees: no ReLU6 went missing."""
    space = MOBILE_SPACES["proxyless"]
    graph = network(lower(space, space.smallest()), batch=None)
    px = graph.graph.input[0].type.tensor_type.shape.dim[2].dim_value
    images = 3 * rng(0, "wide").standard_normal((16, 3, px, px)).astype(np.float32)
    inferred = onnx.shape_inference.infer_shapes(graph)
    quantize = quantize_module._Quantizer(
        inferred, quantize_module._ranges(inferred, images, "minmax"), symmetric=False, rounded={}
    )
    depthwise = [
        node.name
        for node in graph.graph.node
        if any(a.name == "group" and a.i > 1 for a in node.attribute)
    ]
    expected, whole, some = (
        quantize_module._logits(model, images)
        for model in (graph, quantize(), quantize(but=depthwise))
    )
    scale = np.abs(expected).max()
    assert np.abs(whole - expected).max() < 0.2 * scale
    assert np.abs(some - expected).max() < 0.2 * scale


def test_sums_beside_float_layers_stay_float() -> None:
    """x -> a -> Clip -> sum1 -> b -> sum2 (of b and sum1) -> c: only what a float layer touches."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], "a"),
        helper.make_node("Clip", ["a"], ["clipped"], "clip"),
        helper.make_node("Add", ["clipped", "x"], ["s1"], "sum1"),
        helper.make_node("Conv", ["s1", "w"], ["b"], "b"),
        helper.make_node("Add", ["b", "s1"], ["s2"], "sum2"),
        helper.make_node("Conv", ["s2", "w"], ["c"], "c"),
    ]
    expected = {"a": ["sum1"], "b": ["sum1", "sum2"], "c": ["sum2"]}
    for layer, sums in expected.items():
        assert quantize_module._sums_beside(nodes, {layer}) == sums, layer


@pytest.mark.parametrize("n", [0, 5])
def test_held_out_images_decide_where_they_are_given(n: int, tmp_path: Path) -> None:
    held_out = IMAGES[:n] + 1
    source = Source(nn.Identity(), SHAPE, tmp_path, {}, IMAGES, held_out)
    found = calibration(source, 4, 0, "any")
    assert len(found.ranges) == 4 and len(found.judged) == (n or len(IMAGES) - 4)
    if n:
        np.testing.assert_array_equal(found.judged, held_out)
    wrong = Source(nn.Identity(), SHAPE, tmp_path, {}, IMAGES, IMAGES[..., 1:])
    with pytest.raises(UserError, match=r"(?s)input size of the network.*where: held_out"):
        calibration(wrong, 4, 0, "any")


def test_ort_is_what_onnxruntime_mobile_reads(net: nn.Module, tmp_path: Path) -> None:
    model, operators = ort.build(ort.Config()).export(net, input_shape=SHAPE, folder=tmp_path)
    assert model.read_bytes()[4:8] == b"ORTM"  # file identifier of its flatbuffers
    assert "Conv" in operators.read_text()
    whole = tmp_path / "float.onnx"
    whole.write_bytes(network_bytes(net, tmp_path))
    expected, found = (onnxruntime_model(p).logits(IMAGES) for p in (whole, model))
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("target", ["any", "amd64"])
def test_ort_files_are_equal_when_repeated(net: nn.Module, tmp_path: Path, target: str) -> None:
    """ONNX Runtime orders attributes and tables by the addresses of its hash maps."""
    exporter = ort.build(ort.Config(target=target))

    def exported(n: int) -> bytes:
        model, _ = exporter.export(net, input_shape=SHAPE, folder=tmp_path / str(n))
        return model.read_bytes()

    first = exported(0)
    assert all(exported(n) == first for n in (1, 2))
    assert in_fixed_order(first) == first


def network_bytes(net: nn.Module, folder: Path) -> bytes:
    graph = float_graph.float_graph(net, input_shape=SHAPE, folder=folder)
    return bytes(graph.SerializeToString())


def test_a_fixed_batch_is_filled_up() -> None:
    seen = []

    def run(x: np.ndarray) -> np.ndarray:
        seen.append(len(x))
        return x.reshape(len(x), -1)[:, :2]

    model = OpenModel(run, "test", batch=4)
    assert np.array_equal(model.logits(IMAGES[:6]), IMAGES[:6].reshape(6, -1)[:, :2])
    assert seen == [4, 4]
