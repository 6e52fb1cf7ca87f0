"""Graphs for LiteRT compute what ONNX Runtime computes of the same graphs, whole in XNNPACK."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hwnas.builders.onnx import INPUT, context, micro, network
from hwnas.builders.tflite import Precision, converted, timed
from hwnas.builders.tflite_graph import Graph, Op, package_version
from hwnas.builders.tflite_precision import to_precision
from hwnas.core import env
from hwnas.core.errors import UserError
from hwnas.exporters.float_graph import float_graph
from hwnas.latency.construction import borders
from hwnas.nets.subnet import build_subnet
from hwnas.spaces.lowering import lower
from hwnas.spaces.network import Network
from hwnas.spaces.ops import OpSpec, conv
from hwnas.spaces.space import SearchSpace
from hwnas.testing.matrix import GAPS
from tests.mobile_spaces import MOBILE_SPACES, REGISTERED, some_archs
from tests.unit.test_builders_onnx import OPS, calm, random_input, run

pytest.importorskip("ai_edge_litert", reason="pip install 'hwnas[litert]'")
from hwnas.exporters.interpreter import Interpreted, value_ranges

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")


def opened(graph: Graph) -> Interpreted:
    return Interpreted(graph.serialized(), where="test")


def channels_first(value: np.ndarray) -> np.ndarray:
    return value.transpose(0, 3, 1, 2) if value.ndim == 4 else value


def difference(model: onnx.ModelProto, graph: Graph, x: np.ndarray) -> float:
    """Of all outputs, relative to the largest."""
    expected = run(model, x)
    found = opened(graph)(x)[0]
    assert np.ptp(expected) > 0.01
    return float(np.abs(channels_first(found) - expected).max() / np.abs(expected).max())


# --- fp32 -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OPS)
def test_an_operator_computes_what_onnx_runtime_computes(name: str) -> None:
    model = network(Network((OPS[name],)), batch=2)
    assert difference(model, converted(model), random_input(model, 2)) < 1e-5


@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2])
def test_padding_is_torchs_at_every_size(kernel: int, stride: int) -> None:
    """TensorFlow pads strided windows elsewhere, but for some sizes."""
    paddings = set()
    for hw in range(5, 10):
        for op in (
            conv(3, 4, hw, kernel, stride, "relu"),
            OpSpec(
                "dsconv",
                4,
                4,
                hw,
                (hw - 1) // stride + 1,
                4,
                kernel,
                stride,
                kernel // 2,
                act="relu6",
            ),
        ):
            model = network(Network((op,)))
            graph = converted(model)
            assert difference(model, graph, random_input(model, 1)) < 1e-5
            paddings |= {op.kind for op in graph.ops} & {"PAD"}
    is_other = (stride == 2 and kernel > 1) or kernel == 7  # whose depthwise windows come in parts
    assert bool(paddings) == is_other, "PAD only where SAME is not the same"


@pytest.mark.parametrize("kernel", [3, 5, 7, 9, 11])
@pytest.mark.parametrize("stride", [1, 2])
def test_no_depthwise_window_has_more_taps_than_xnnpack_has_kernels_for(
    kernel: int, stride: int
) -> None:
    """Larger ones are sums of some rows at a time; in any batch, whole in one delegate."""
    hw = 12
    op = OpSpec(
        "dsconv", 4, 4, hw, (hw - 1) // stride + 1, 4, kernel, stride, kernel // 2, act="relu6"
    )
    model = network(Network((op,)), batch=None)
    graph = converted(model)
    windows = [op for op in graph.ops if op.kind == "DEPTHWISE_CONV_2D"]
    shapes = [graph.tensors[op.inputs[1]].shape for op in windows]
    assert max(rows * columns for _, rows, columns, _ in shapes) <= 25
    assert sum(rows for _, rows, _, _ in shapes) == kernel
    assert len(windows) == {3: 1, 5: 1, 7: 3, 9: 5, 11: 6}[kernel]
    found = opened(graph)
    x = random_input(model, 3)
    expected = run(model, x)
    assert np.abs(channels_first(found(x)[0]) - expected).max() <= 1e-5 * np.abs(expected).max()
    assert found.fell_out() == []
    eight = opened(in_8_bits(model, x))
    assert np.abs(channels_first(eight(x)[0]) - expected).max() < 0.06 * np.ptp(expected)
    assert eight.fell_out() == []


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
def test_dilated_convolutions_are_torchs_at_every_size(kernel: int, stride: int) -> None:
    for hw in range(7, 11):
        facts = {"kernel": kernel, "stride": stride, "padding": kernel - 1, "dilation": 2}
        op = OpSpec("dil_conv", 4, 4, hw, (hw - 1) // stride + 1, act="relu", **facts)
        model = network(Network((op,)))
        graph = converted(model)
        assert difference(model, graph, random_input(model, 1)) < 1e-5
        assert opened(graph).fell_out() == []


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("kind", ["MaxPool", "AveragePool"])
def test_padded_pools_are_torchs_at_every_size_and_below_zero(kind: str, kernel: int) -> None:
    """Zeros around a map would change maxima of negative values, and means."""
    added = set()
    for hw in range(kernel, kernel + 4):
        facts = {} if kind == "MaxPool" else {"count_include_pad": 0}
        model = pool(kind, hw, kernel_shape=[kernel] * 2, strides=[2, 2], **facts)
        x = np.random.default_rng(0).standard_normal((3, 4, hw, hw)).astype("f") - 2
        expected, graph = run(model, x), converted(model)
        found, eight = opened(graph), opened(in_8_bits(model, x))
        assert np.abs(channels_first(found(x)[0]) - expected).max() <= 1e-6
        assert np.abs(channels_first(eight(x)[0]) - expected).max() <= 0.02
        assert found.fell_out() == eight.fell_out() == []
        added |= {op.kind for op in graph.ops} & {"CONCATENATION", "MUL"}
    assert added == {"CONCATENATION" if kind == "MaxPool" else "MUL"}


def pool(kind: str, hw: int, **facts: object) -> onnx.ModelProto:
    """Windows over a map of 4 channels, padded by half a window."""
    pads = [facts["kernel_shape"][0] // 2] * 4
    node = helper.make_node(kind, ["input"], ["logits"], pads=pads, **facts)
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4, *sides])
        for name, sides in (("input", (hw, hw)), ("logits", (None, None)))
    ]
    graph = helper.make_graph([node], "pool", ends[:1], ends[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


@pytest.mark.parametrize("name", REGISTERED)
def test_networks_of_every_space_agree_whole_in_one_delegate(name: str) -> None:
    """Random archs; in batches of 1, of 4, and of any number."""
    if reason := GAPS.get((name, "build tflite")):
        pytest.skip(reason)
    space = REGISTERED[name]
    for number, arch in enumerate(some_archs(space, 3)):
        batch = (1, 4, None)[number]
        model = network(lower(space, arch), batch=batch)
        calm(model.graph)
        graph = converted(model)
        for size in (1, 3) if batch is None else (batch,):
            x = np.random.default_rng(0).standard_normal((size, *image_shape(model)), "f")
            found = opened(graph)
            expected = run(model, x)
            logits = found(x)[0]
            assert found.fell_out() == []
            assert np.abs(logits - expected).max() <= 1e-4 * np.abs(expected).max()


def image_shape(model: onnx.ModelProto) -> list[int]:
    return [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim][1:]


def described(graph: Graph) -> list[tuple[object, ...]]:
    """Kinds, options and shapes: all that decides how long an operator takes."""
    shapes = {name: tensor.shape for name, tensor in graph.tensors.items()}
    return [
        (op.kind, *map(str, sorted(op.options.items())), *(shapes[n] for n in op.inputs))
        for op in graph.ops
    ]


@pytest.mark.parametrize(
    "name",
    [
        name if name in ("mixed", "strange") else pytest.param(name, marks=pytest.mark.full)
        for name in MOBILE_SPACES
    ],
)
def test_what_is_timed_has_the_operators_of_what_ships(name: str, tmp_path: Path) -> None:
    space = MOBILE_SPACES[name]
    arch = some_archs(space, 3)[-1]
    px = space.view(arch)["resolution"]
    shape = (space.macro.in_channels, px, px)
    shipped = float_graph(build_subnet(space, arch).eval(), input_shape=shape, folder=tmp_path)
    built = network(lower(space, arch), batch=None)
    for precision in PRECISIONS:
        graphs = [to_precision(converted(model), precision) for model in (shipped, built)]
        assert described(graphs[0]) == described(graphs[1])


def kinds(model: onnx.ModelProto, precision: Precision) -> Counter[str]:
    return Counter(op.kind for op in to_precision(converted(model), precision).ops)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", REGISTERED)
def test_a_network_has_the_operators_of_its_micro_nets(name: str, precision: Precision) -> None:
    """Less the neighbours of each, and less the conversions to and from 8 bits at both ends."""
    space = REGISTERED[name]
    neighbour = Counter({"CONV_2D": 1, "DEQUANTIZE": 2 * (precision == "fp16")})
    ends = Counter({"QUANTIZE": 1, "DEQUANTIZE": 1} if precision == "int8" else {})
    for arch in some_archs(space, 2):
        net = lower(space, arch).live()
        if not net.is_chain:
            continue  # its sums are operators of no micro-net
        found = Counter(ends)
        for op in net:
            before, after = (border is not None for border in borders(op))
            found += kinds(micro(op, before=before, after=after), precision)
            for counts in (*[neighbour] * (before + after), ends):
                found.subtract(counts)
        if net.ops[-2].kind == "pool":
            found["RESHAPE"] -= 1  # a mean before the classifier gives vectors itself
        assert +found == kinds(network(net), precision)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", OPS)
def test_micro_nets_run_whole_in_one_delegate(name: str, precision: Precision) -> None:
    model = micro(OPS[name], before=name != "stem", after=OPS[name].kind != "linear")
    whole = opened(to_precision(converted(model), precision))
    whole(random_input(model, 1))
    assert whole.fell_out() == []


def test_equal_graphs_give_equal_bytes(tiny_space: SearchSpace) -> None:
    net = lower(tiny_space, tiny_space.largest())
    for precision in PRECISIONS:
        assert timed(network(net), precision) == timed(network(net), precision)
    assert timed(network(net)) != timed(network(net, seed=1))
    assert timed(context(8, 4))[4:8] == b"TFL3"


def test_an_activation_that_others_need_without_is_not_fused() -> None:
    """Sums of a cell are read with a ReLU by one operator and without by another."""
    values = [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [1, 2, 4, 4])]
    logits = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 2, 4, 4])]
    weight = numpy_helper.from_array(np.full((2, 2, 1, 1), -0.5, np.float32), "w")
    nodes = [
        helper.make_node("Conv", [INPUT, "w"], ["a"], kernel_shape=[1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["logits"]),
    ]
    model = helper.make_model(
        helper.make_graph(nodes, "g", values, logits, [weight]),
        ir_version=10,
        opset_imports=[helper.make_opsetid("", 18)],
    )
    assert [op.kind for op in converted(model).ops] == ["CONV_2D", "RELU", "ADD"]
    assert difference(model, converted(model), random_input(model, 1)) < 1e-6


@pytest.mark.parametrize(
    ("bounds", "kind"), [(["zero", "six"], "RELU6"), (["zero"], "RELU"), (["zero", ""], "RELU")]
)
def test_clips_of_relu(bounds: list[str], kind: str) -> None:
    values = [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [1, 2, 4, 4])]
    logits = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 2, 4, 4])]
    limits = [
        numpy_helper.from_array(np.float32(value), name)
        for name, value in (("zero", 0), ("six", 6))
    ]
    node = helper.make_node("Clip", [INPUT, *bounds], ["logits"], name="here")
    graph = helper.make_graph([node], "g", values, logits, limits)
    assert [op.kind for op in converted(helper.make_model(graph)).ops] == [kind]
    node.input[1] = "six"
    graph = helper.make_graph([node], "g", values, logits, limits)
    with pytest.raises(UserError, match=r"(?s)Clip to \[6.*here"):
        converted(helper.make_model(graph))


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "attributes"),
    [
        ("Softmax", {}),
        ("LeakyRelu", {}),
        ("MaxPool", {"kernel_shape": [3, 3], "dilations": [2, 2]}),
        ("MaxPool", {"kernel_shape": [3, 2]}),
        ("AveragePool", {"kernel_shape": [2, 2], "strides": [2, 1]}),
        ("MaxPool", {"kernel_shape": [2, 2], "pads": [0, 0, 1, 1]}),
        ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
        ("MaxPool", {"kernel_shape": [3, 3], "strides": [3, 3], "ceil_mode": 1}),
        ("Transpose", {"perm": [0]}),
    ],
)
def test_an_operator_without_a_counterpart_is_named_with_the_format_that_has_it(
    kind: str, attributes: dict[str, object]
) -> None:
    values = [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [1, 2, 4, 4])]
    logits = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 2, 4, 4])]
    node = helper.make_node(kind, [INPUT], ["logits"], name="here", **attributes)
    with pytest.raises(UserError, match=rf"(?s){kind}.*here.*another format: onnx, "):
        converted(helper.make_model(helper.make_graph([node], "g", values, logits)))


@pytest.mark.parametrize(
    ("kind", "shape", "constants", "attributes", "named"),
    [
        ("Concat", (1, 2, 4, 4), [np.ones((1, 2, 4, 4), np.float32)], {"axis": 1}, "a constant"),
        ("Reshape", (1, 4, 4, 4), [np.array([1, 2, 2, 2, 8])], {}, "Reshape"),
        ("Reshape", (1, 4, 1, 1), [np.array([4, 1])], {}, "Reshape"),
        ("Slice", (1, 2, 4, 4), [np.array([n]) for n in (0, 1, -4, 1)], {}, "Slice"),
        ("BatchNormalization", (1, 4), [np.ones(4, np.float32)] * 4, {}, "BatchNormalization"),
    ],
)
def test_what_would_be_wrong_is_refused(
    kind: str,
    shape: tuple[int, ...],
    constants: list[np.ndarray],
    attributes: dict[str, object],
    named: str,
) -> None:
    """The node reads an image, or its mean if it reads vectors."""
    values = [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [1, *shape[1:], 1, 1][:4])]
    logits = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)]
    flat = helper.make_node("Reshape", [INPUT, "flat"], ["vector"])
    before = [flat] if len(shape) == 2 else []
    stored = {f"c{n}": value for n, value in enumerate(constants)} | {"flat": np.array([1, -1])}
    read = "vector" if before else INPUT
    node = helper.make_node(kind, [read, *list(stored)[:-1]], ["logits"], name="here", **attributes)
    given = [numpy_helper.from_array(value, name) for name, value in stored.items()]
    model = helper.make_model(helper.make_graph([*before, node], "g", values, logits, given))
    with pytest.raises(UserError, match=rf"(?s){named}.*here"):
        converted(model)


@pytest.mark.parametrize("axis", [1, -3])
def test_an_axis_can_be_counted_from_the_end(axis: int) -> None:
    values = [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [1, 3, 4, 5])]
    logits = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 2, 4, 5])]
    bounds = [numpy_helper.from_array(np.array([n]), f"n{n}") for n in (1, 3, axis)]
    node = helper.make_node("Slice", [INPUT, *(one.name for one in bounds)], ["logits"])
    one = numpy_helper.from_array(np.array([1]), "step")
    node.input.append("step")
    graph = helper.make_graph([node], "g", values, logits, [*bounds, one])
    opset = [helper.make_opsetid("", 18)]
    model = helper.make_model(graph, ir_version=10, opset_imports=opset)
    assert difference(model, converted(model), random_input(model, 1)) == 0


def test_one_weight_in_two_layers_with_and_without_transposition() -> None:
    values = [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [1, 4, 1, 1])]
    logits = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 4])]
    weight = np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32)
    given = {"weight": weight, "flat": np.array([1, -1])}
    nodes = [
        helper.make_node("Reshape", [INPUT, "flat"], ["x"]),
        helper.make_node("Gemm", ["x", "weight"], ["y"], transB=1),
        helper.make_node("Gemm", ["y", "weight"], ["logits"]),
    ]
    stored = [numpy_helper.from_array(value, name) for name, value in given.items()]
    graph = helper.make_graph(nodes, "g", values, logits, stored)
    opset = [helper.make_opsetid("", 18)]
    model = helper.make_model(graph, ir_version=10, opset_imports=opset)
    assert difference(model, converted(model), random_input(model, 1)) < 1e-6


def test_all_missing_operators_are_named_those_of_the_network_first() -> None:
    """torch writes an FFT as Unsqueeze, DFT and Squeeze."""
    values = [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [1, 2, 4, 4])]
    logits = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 2, 4, 4])]
    names = ["Unsqueeze", "Relu", "DFT", "Squeeze", "Softmax", "DFT"]
    values_of = [INPUT, *map(str, range(len(names) - 1)), "logits"]
    nodes = [
        helper.make_node(kind, [values_of[n]], [values_of[n + 1]], name=f"node_{kind}_{n}")
        for n, kind in enumerate(names)
    ]
    with pytest.raises(UserError) as error:
        converted(helper.make_model(helper.make_graph(nodes, "g", values, logits)))
    assert "does not support the operators DFT, Softmax, Unsqueeze, Squeeze" in str(error.value)
    assert error.value.where == "ONNX node node_DFT_2"


def test_a_graph_with_two_inputs_is_refused_with_their_names() -> None:
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in "ab"]
    with pytest.raises(UserError, match="recurrent networks") as caught:
        converted(helper.make_model(helper.make_graph([], "step", inputs, [])))
    assert caught.value.found == "inputs: a, b"
    assert caught.value.fix == "use a device with the runtime onnxruntime"


def test_a_package_that_is_absent_or_too_old_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import ai_edge_litert

    assert package_version() == ai_edge_litert.__version__
    monkeypatch.setattr(ai_edge_litert, "__version__", "1.4.0")
    with pytest.raises(UserError, match=r"(?s)too old.*1\.4\.0.*pip install -U"):
        timed(context(8, 4))
    monkeypatch.undo()
    monkeypatch.setitem(env.importlib.sys.modules, "ai_edge_litert", None)
    with pytest.raises(UserError, match=r"hwnas\[litert\]"):
        timed(context(8, 4))


@pytest.mark.parametrize("content", [b"", b"not a model", b"\0\0\0\0TFL3" + b"\xff" * 64])
def test_damaged_files_are_refused(content: bytes) -> None:
    with pytest.raises(UserError, match="LiteRT rejects the file"):
        Interpreted(content, where="damaged")


def test_a_file_of_another_network_says_so() -> None:
    model = opened(converted(context(8, 4)))
    with pytest.raises(UserError, match="another network"):
        model(np.zeros((1, 8, 5, 5), np.float32))
    with pytest.raises(UserError, match="batch"):
        model(np.zeros((2, 8, 4, 4), np.float32))


# --- precision ------------------------------------------------------------------------------------


def test_half_precision_is_of_the_weights(tiny_space: SearchSpace) -> None:
    model = network(lower(tiny_space, tiny_space.smallest()))
    graph = converted(model)
    half = to_precision(graph, "fp16")
    x = random_input(model, 1)
    expected, found = opened(graph)(x)[0], opened(half)(x)[0]
    assert 0 < np.abs(found - expected).max() < 0.01 * np.abs(expected).max()
    assert len(half.serialized()) < 0.7 * len(graph.serialized())
    rest = [op.kind for op in half.ops if op.kind != "DEQUANTIZE"]
    assert rest == [op.kind for op in graph.ops]


def test_ranges_are_the_extremes_of_all_images(tiny_space: SearchSpace) -> None:
    """Also where one image of the second batch is ten times as bright as the others."""
    model = network(lower(tiny_space, tiny_space.smallest()), batch=None)
    images = np.random.default_rng(0).standard_normal((20, *image_shape(model)), "f")
    images[18] *= 10
    found = value_ranges(converted(model), images)
    assert found[INPUT] == (images.min(), images.max())
    logits = run(model, images)
    np.testing.assert_allclose(found["logits"], (logits.min(), logits.max()), rtol=1e-4)
    without = value_ranges(converted(model), images[:16])
    assert without["logits"][1] - without["logits"][0] < np.ptp(found["logits"])


def in_8_bits(model: onnx.ModelProto, images: np.ndarray, **settings: object) -> Graph:
    graph = converted(model)
    return to_precision(graph, "int8", ranges=value_ranges(graph, images), **settings)


@pytest.mark.parametrize("name", [name for name in OPS if name != "stem"])
def test_an_operator_in_8_bits_computes_the_same_within_its_steps(name: str) -> None:
    """A few steps of 1/255 of the range, whatever the operator."""
    model = network(Network((OPS[name],)), batch=None)
    images = np.random.default_rng(0).standard_normal((16, *image_shape(model)), "f")
    graph = in_8_bits(model, images)
    found, expected = channels_first(opened(graph)(images)[0]), run(model, images)
    assert np.abs(found - expected).max() < 0.06 * np.ptp(expected)
    error = np.square(found - expected).mean() / expected.var()
    assert 0 < error < 2e-3
    in_float = {op.kind for op in graph.ops if graph.tensors[op.output].dtype == "float32"}
    assert in_float <= {"DEQUANTIZE", "HARD_SWISH", "AVERAGE_POOL_2D"}


def test_one_convolution_in_8_bits_is_the_closed_form() -> None:
    """TensorFlow's specification in numpy: q = clip(round(x/s) + z), integers summed, rescaled."""
    op = conv(3, 4, 5, 1, 1, "none")
    model = network(Network((op,)))
    x = np.random.default_rng(1).uniform(-1, 3, (1, 3, 5, 5)).astype(np.float32)
    graph = in_8_bits(model, x)
    weight, bias = (numpy_helper.to_array(t).astype(np.float64) for t in model.graph.initializer)
    weight = weight.reshape(4, 3)
    scale = (x.max() - x.min()) / 255
    zero = np.round(-128 - x.min() / scale)
    given = np.clip(np.round(x / scale) + zero, -128, 127).astype(np.float64)
    scales = np.abs(weight).max(1) / 127
    whole = np.round(weight / scales[:, None])
    sums = np.einsum("oi,nihw->nohw", whole, given - zero)
    sums += np.round(bias / (scale * scales))[:, None, None]
    real = sums * (scale * scales)[:, None, None]
    expected = run(model, x)
    low, high = min(expected.min(), 0), max(expected.max(), 0)
    step = (high - low) / 255
    found = opened(graph)(x)[0].transpose(0, 3, 1, 2)
    assert np.abs(found - real).max() <= 0.51 * step + 1e-6
    np.testing.assert_allclose(found / step, np.round(found / step), atol=1e-3)


def test_a_bias_far_beyond_its_weights_fits_32_bits() -> None:
    op = conv(3, 4, 5, 1, 1, "none")
    model = network(Network((op,)))
    for tensor in model.graph.initializer:
        value = numpy_helper.to_array(tensor) * (1e-9 if tensor.name.endswith("weight") else 10)
        tensor.CopyFrom(numpy_helper.from_array(value.astype(np.float32), tensor.name))
    x = random_input(model, 1)
    found, expected = opened(in_8_bits(model, x))(x)[0], run(model, x)
    assert np.abs(channels_first(found) - expected).max() < 0.01 * np.abs(expected).max()


def test_named_operators_stay_float(tiny_space: SearchSpace) -> None:
    model = network(lower(tiny_space, tiny_space.smallest()))
    graph = converted(model)
    kept = next(op for op in graph.ops if op.kind == "CONV_2D")
    mixed = to_precision(graph, "int8", in_float=[kept.output])
    assert Op(kept.kind, kept.inputs, kept.output, kept.options) in mixed.ops
    assert mixed.ops[0].kind == "CONV_2D" and mixed.ops[1].kind == "QUANTIZE"
