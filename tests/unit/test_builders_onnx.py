"""ONNX graphs compute what the layers of an OpSpec say, and are what the exporter writes."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from torch import nn
from torch.nn import functional

from hwnas.builders.onnx import INPUT, context, micro, network
from hwnas.builders.precision import to_precision
from hwnas.core.rng import rng
from hwnas.exporters.onnx import Config, build
from hwnas.nets.subnet import build_subnet, placed_slots, timm_names
from hwnas.spaces.arch import Arch
from hwnas.spaces.cost import op_macs
from hwnas.spaces.index import enumerate_ops
from hwnas.spaces.load import build_space
from hwnas.spaces.lowering import lower
from hwnas.spaces.network import Network
from hwnas.spaces.ops import OpSpec, layers
from hwnas.spaces.space import SearchSpace
from tests.mobile_spaces import MOBILE_SPACES, REGISTERED, some_archs

SPACES = pytest.mark.parametrize("space", MOBILE_SPACES.values(), ids=MOBILE_SPACES)
BLOCK = {"in_channels": 8, "mid_channels": 24, "padding": 1, "kernel": 3}
OPS = {
    "stem": OpSpec("conv", 3, 8, 9, 5, kernel=3, stride=2, padding=1, act="hard_swish"),
    "grouped conv": OpSpec("conv", 8, 16, 6, 6, kernel=5, padding=2, groups=4, act="relu6"),
    "mbconv": OpSpec("mbconv", out_channels=8, in_hw=6, out_hw=6, act="swish", skip=True, **BLOCK),
    "mbconv with SE": OpSpec(
        "mbconv", out_channels=16, in_hw=6, out_hw=3, stride=2, se_channels=8, act="relu", **BLOCK
    ),
    "dsconv with SE": OpSpec(
        "dsconv",
        in_channels=8,
        mid_channels=8,
        out_channels=8,
        in_hw=6,
        out_hw=6,
        kernel=3,
        padding=1,
        se_channels=8,
        act="hard_swish",
        skip=True,
    ),
    "mbconv with groups": OpSpec(
        "mbconv", out_channels=16, in_hw=6, out_hw=6, groups=4, act="relu", **BLOCK
    ),
    "mbconv with a projected shortcut": OpSpec(
        "mbconv", out_channels=16, in_hw=6, out_hw=6, act="swish", skip=True, **BLOCK
    ),
    "mbconv with a pooled shortcut": OpSpec(
        "mbconv", out_channels=8, in_hw=7, out_hw=4, stride=2, act="relu", skip=True, **BLOCK
    ),
    "mbconv with both and an activation behind": OpSpec(
        "mbconv",
        out_channels=16,
        in_hw=7,
        out_hw=4,
        stride=2,
        groups=2,
        se_channels=8,
        act="relu",
        skip=True,
        out_act="hard_swish",
        **BLOCK,
    ),
    "feature without bias": OpSpec("conv", 8, 16, 1, 1, act="hard_swish", norm="none"),
    "feature with bias": OpSpec("conv", 8, 16, 1, 1, act="relu", norm="bias"),
    "pool": OpSpec("pool", 8, 8, 5, 1),
    "linear": OpSpec("linear", 8, 10, 1, 1),
}
ACTIVATIONS = {
    "none": lambda x: x,
    "relu": functional.relu,
    "relu6": functional.relu6,
    "hard_swish": functional.hardswish,
    "swish": functional.silu,
    "hard_sigmoid": functional.hardsigmoid,
}


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {INPUT: x})[0]


def random_input(model: onnx.ModelProto, batch: int) -> np.ndarray:
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    return np.random.default_rng(0).standard_normal((batch, *shape[1:]), dtype=np.float32)


def reference(op: OpSpec, x: torch.Tensor, weights: dict[str, torch.Tensor]) -> torch.Tensor:
    """The block written down by hand, in torch, from MobileNetV3 (1905.02244, figure 4)."""
    if op.kind == "pool":
        return x.mean((2, 3), keepdim=True)
    parts = {layer.name: layer for layer in layers(op)}

    def layer(name: str, value: torch.Tensor) -> torch.Tensor:
        part, weight = parts[name], weights[f"0.{name}.weight"]
        bias = weights.get(f"0.{name}.bias")
        assert (bias is not None) == (part.has_bn or part.has_bias)
        if name == "linear":
            return functional.linear(value.flatten(1), weight, bias)
        out = functional.conv2d(value, weight, bias, part.stride, part.padding, 1, part.groups)
        return ACTIVATIONS[part.act](out)

    if op.kind in ("conv", "linear"):
        return layer(op.kind, x)
    out = x
    if op.kind == "mbconv":
        out = functional.channel_shuffle(layer("conv_pw", x), op.groups)
    out = layer("conv_dw", out)
    if op.se_channels:
        squeezed = layer("se.conv_reduce", out.mean((2, 3), keepdim=True))
        out = out * layer("se.conv_expand", squeezed)
    out = layer("conv_pwl" if op.kind == "mbconv" else "conv_pw", out)
    if op.skip:
        pool = {"ceil_mode": True, "count_include_pad": False}
        shortcut = functional.avg_pool2d(x, op.stride, **pool) if op.stride > 1 else x
        out += layer("conv_shortcut", shortcut) if op.has_projection else shortcut
    return ACTIVATIONS[op.out_act](out)


@pytest.mark.parametrize("name", OPS)
def test_an_operator_computes_what_torch_computes_with_its_weights(name: str):
    op = OPS[name]
    model = network(Network((op,)), batch=2)
    onnx.checker.check_model(model, full_check=True)
    weights = {
        i.name: torch.from_numpy(numpy_helper.to_array(i).copy()) for i in model.graph.initializer
    }
    x = random_input(model, 2)
    expected = reference(op, torch.from_numpy(x), weights).numpy()
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(run(model, x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", OPS)
def test_the_graph_has_the_macs_and_the_shapes_of_the_operator(name: str):
    op = OPS[name]
    model = onnx.shape_inference.infer_shapes(network(Network((op,))), strict_mode=True)
    shapes = {
        value.name: [d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*model.graph.value_info, *model.graph.output)
    }
    sizes = {i.name: int(np.prod(i.dims)) for i in model.graph.initializer}
    macs = 0
    for node in model.graph.node:
        if node.op_type in ("Conv", "Gemm"):
            macs += sizes[node.input[1]] * int(np.prod(shapes[node.output[0]][2:]))
    assert macs == op_macs(op)
    pooled = [] if op.kind == "linear" else [op.out_hw, op.out_hw]
    assert shapes["logits"] == [1, op.out_channels, *pooled]


def test_an_open_batch_axis_takes_any_batch_and_gives_the_same(tiny_space: SearchSpace):
    ops = lower(tiny_space, tiny_space.smallest())
    dynamic, fixed = network(ops, batch=None), network(ops, batch=1)
    x = random_input(fixed, 5)
    assert run(dynamic, x).shape == (5, 10)
    np.testing.assert_allclose(run(dynamic, x)[:1], run(fixed, x[:1]), rtol=1e-4, atol=1e-5)


def test_activations_keep_a_realistic_scale_through_a_deep_network(tiny_space: SearchSpace):
    model = network(lower(tiny_space, tiny_space.largest()))
    logits = run(model, random_input(model, 1))
    assert 1e-2 < np.abs(logits).mean() < 1e4  # neither denormal nor overflowing


def test_equal_arguments_give_equal_bytes(tiny_space: SearchSpace):
    ops = lower(tiny_space, tiny_space.largest())
    assert network(ops).SerializeToString() == network(ops).SerializeToString()
    assert network(ops).SerializeToString() != network(ops, seed=1).SerializeToString()


@pytest.mark.parametrize("name", OPS)
def test_a_micro_net_is_its_context_plus_the_operator(name: str):
    op = OPS[name]
    last = op.kind == "linear"
    model = micro(op, before=name != "stem", after=not last)
    onnx.checker.check_model(model, full_check=True)
    kinds = [node.op_type for node in model.graph.node]
    alone = [node.op_type for node in network(Network((op,))).graph.node]
    assert kinds == ["Conv"] * (name != "stem") + alone + ["Conv"] * (not last)
    run(model, random_input(model, 1))


def test_an_empty_context_is_two_pointwise_convolutions():
    model = context(24, 7)
    assert [node.op_type for node in model.graph.node] == ["Conv", "Conv"]
    assert [list(i.dims) for i in model.graph.initializer if len(i.dims) == 4] == [
        [24, 8, 1, 1],
        [8, 24, 1, 1],
    ]
    assert random_input(model, 1).shape == (1, 8, 7, 7)


def loaded(model: nn.Module, arch: Arch, space: SearchSpace, graph: onnx.GraphProto) -> nn.Module:
    """`model` in eval mode with the weights of a graph of the same operators, BN folded."""
    weights = {i.name: torch.from_numpy(numpy_helper.to_array(i).copy()) for i in graph.initializer}
    state = model.state_dict()
    for position, (_, place, op) in enumerate(placed_slots(space, arch)):
        for layer in layers(op):
            name, bn = timm_names(place, op, layer)
            state[f"{name}.weight"] = weights.pop(f"{position}.{layer.name}.weight")
            if bn or layer.has_bias:
                state[f"{bn or name}.bias"] = weights.pop(f"{position}.{layer.name}.bias")
            if bn:
                state[f"{bn}.running_var"] -= space.macro.bn_eps
    assert not [name for name, value in weights.items() if value.is_floating_point() and value.ndim]
    model.load_state_dict(state)
    return model.eval()


def calm(graph: onnx.GraphProto) -> None:
    """Shrink the ends of all blocks: deep random nets are too chaotic to compare in float32."""
    for tensor in graph.initializer:
        if tensor.name.endswith("conv_pwl.weight"):
            value = 0.2 * numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array(value.astype(np.float32), tensor.name))


@SPACES
def test_a_whole_network_computes_what_the_subnet_computes(space: SearchSpace):
    for arch in some_archs(space, 3):
        model = network(lower(space, arch), batch=2)
        calm(model.graph)
        onnx.checker.check_model(model, full_check=True)
        subnet = loaded(build_subnet(space, arch), arch, space, model.graph)
        x = random_input(model, 2)
        with torch.no_grad():
            expected = subnet(torch.from_numpy(x)).numpy()
        difference = np.abs(run(model, x) - expected).max() / np.abs(expected).max()
        assert np.ptp(expected) > 0.1 and difference < 1e-4


@pytest.mark.parametrize(
    "name",
    [
        name if name in ("mixed", "strange") else pytest.param(name, marks=pytest.mark.full)
        for name in MOBILE_SPACES
    ],
)
def test_a_whole_network_has_the_node_list_of_the_exporter(name: str, tmp_path: Path):
    """The table prices graphs built here; what ships is exported. They must be the same graph."""
    space = MOBILE_SPACES[name]
    arch = some_archs(space, 3)[-1]
    px = space.view(arch)["resolution"]
    subnet = build_subnet(space, arch).eval()
    shape = (space.macro.in_channels, px, px)
    (path,) = build(Config()).export(subnet, input_shape=shape, folder=tmp_path)
    exported = onnx.load(path)
    built = network(lower(space, arch), batch=None)
    assert [n.op_type for n in built.graph.node] == [n.op_type for n in exported.graph.node]
    assert built.opset_import[0].version == exported.opset_import[0].version
    assert built.ir_version == exported.ir_version


@pytest.mark.parametrize("space", REGISTERED.values(), ids=REGISTERED)
def test_networks_of_every_space_run(space: SearchSpace) -> None:
    if space.macro.reads_tokens:
        pytest.skip("a step of a language model has two inputs: see test_spaces_recurrent.py")
    for arch in some_archs(space, 3):
        model = network(lower(space, arch), batch=2)
        onnx.checker.check_model(model, full_check=True)
        logits = run(model, random_input(model, 2))
        assert logits.shape == (2, space.macro.num_classes) and np.isfinite(logits).all()


# --- cells ----------------------------------------------------------------------------------------

CELLS = build_space("nasbench201", num_classes=10)
PATHS = ((0, 3), (0, 1, 3), (0, 2, 3), (0, 1, 2, 3))  # through a cell of four nodes


def cell_reference(
    ops: dict[tuple[int, int], str], weights: list[torch.Tensor], x: torch.Tensor
) -> torch.Tensor:
    """NAS-Bench-201 (2001.00326, section 2) in torch; edges on no path compute nothing.

    weights: in the order in which the network uses them, BN of convolutions folded.
    """
    used = iter(weights)
    paths = [set(pairwise(path)) for path in PATHS]
    live = set().union(*(path for path in paths if all(ops[edge] != "none" for edge in path)))

    def conv(value: torch.Tensor, *, bias: bool = True, stride: int = 1) -> torch.Tensor:
        weight = next(used)
        shift = next(used) if bias else None
        return functional.conv2d(value, weight, shift, stride, weight.shape[-1] // 2)

    def apply(name: str, value: torch.Tensor) -> torch.Tensor:
        if name == "skip_connect":
            return value
        if name == "avg_pool_3x3":
            return functional.avg_pool2d(value, 3, 1, 1, count_include_pad=False)
        return conv(functional.relu(value))

    x = conv(x)
    for stage in range(3):
        if stage:
            main = conv(functional.relu(x), stride=2)
            main = conv(functional.relu(main))
            x = main + conv(functional.avg_pool2d(x, 2), bias=False)
        for _ in range(5):
            nodes = [x, *(torch.zeros_like(x) for _ in range(3))]
            for source, target in ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3)):
                if (source, target) in live:
                    name = ops[source, target]
                    nodes[target] = nodes[target] + apply(name, nodes[source])
            x = nodes[3]
    scale, shift, mean, var = (next(used) for _ in range(4))
    x = functional.relu(functional.batch_norm(x, mean, var, scale, shift))
    return functional.linear(x.mean((2, 3)), next(used), next(used))


def floats(model: onnx.ModelProto) -> list[torch.Tensor]:
    arrays = [numpy_helper.to_array(tensor) for tensor in model.graph.initializer]
    return [torch.from_numpy(a.copy()) for a in arrays if a.dtype == np.float32]


def edges_of(arch: Arch) -> dict[tuple[int, int], str]:
    names = {name: str(value) for name, value in CELLS.view(arch).items()}
    return {(int(n[4]), int(n[5])): op for n, op in names.items() if n.startswith("edge")}


def joins(arch: Arch) -> bool:
    ops = edges_of(arch)
    return any(all(ops[edge] != "none" for edge in pairwise(path)) for path in PATHS)


def test_the_network_of_a_cell_computes_what_torch_computes() -> None:
    drawn = [CELLS.arch(row) for row in CELLS.sample(12, rng=rng(0, "cells"))]
    archs = [arch for arch in (CELLS.largest(), *drawn) if joins(arch)]
    assert len(archs) > 9
    for arch in archs:
        model = network(lower(CELLS, arch), batch=2)
        onnx.checker.check_model(model, full_check=True)
        x = random_input(model, 2)
        expected = cell_reference(edges_of(arch), floats(model), torch.from_numpy(x)).numpy()
        difference = np.abs(run(model, x) - expected).max() / np.abs(expected).max()
        assert np.ptp(expected) > 0.1 and difference < 1e-4, edges_of(arch)


@pytest.mark.parametrize("dead_end", [None, "edge01", "edge23"])
def test_a_cell_without_a_path_computes_a_constant(dead_end: str | None) -> None:
    edges = CELLS.choices[1:]
    chosen = {dead_end: "nor_conv_3x3"}
    codes = [edge.values.index(chosen.get(edge.name, "none")) for edge in edges]
    model = network(lower(CELLS, CELLS.arch([0, *codes])), batch=None)
    onnx.checker.check_model(model, full_check=True)
    x = np.random.default_rng(0).standard_normal((3, 3, 32, 32), dtype=np.float32)
    found = run(model, x)
    assert found.shape == (3, 10) and np.ptp(found) > 0
    np.testing.assert_array_equal(found, run(model, -x))
    if dead_end != "edge23":  # there, a convolution of zeros stands before the normalisation
        weights = floats(model)[-6:]
        scale, shift, mean, var = (w[None, :, None, None] for w in weights[:4])
        value = functional.relu((0 - mean) / (var + 1e-5).sqrt() * scale + shift).mean((2, 3))
        expected = functional.linear(value, *weights[4:])
        np.testing.assert_allclose(found, expected.expand(3, -1).numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("op", enumerate_ops(CELLS), ids=str)
def test_operators_of_cells_have_micro_nets(op: OpSpec) -> None:
    model = micro(op, before=op.in_channels != 3, after=op.kind != "linear")
    onnx.checker.check_model(model, full_check=True)
    run(model, random_input(model, 1))


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_cells_have_a_form_in_every_precision(precision: Literal["fp16", "int8"]) -> None:
    arch = CELLS.arch(CELLS.sample(1, rng=rng(3, "cells"))[0])
    assert joins(arch)
    whole = network(lower(CELLS, arch))
    model = to_precision(whole, precision)
    onnx.checker.check_model(model, full_check=True)
    if precision == "int8":
        assert run(model, random_input(whole, 1)).shape == (1, 10)
