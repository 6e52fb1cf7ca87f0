"""Rounded weights that make up for each other's error: half precision, and 8 bits."""

from __future__ import annotations

import copy
import importlib
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper
from torch import nn

from hwnas.exporters import fp16, int8, weight_rounding
from hwnas.exporters import onnx as onnx_format
from hwnas.exporters.artifact import as_trained, planned_formats
from hwnas.exporters.float_graph import float_graph
from hwnas.exporters.fold import folded
from hwnas.exporters.quantize import on_grid, quantized
from hwnas.exporters.weight_rounding import grid_weights, half_weights
from hwnas.interfaces import Images
from hwnas.nets.subnet import build_subnet
from hwnas.spaces.space import SearchSpace

SHAPE = (4, 10, 10)
LAYERS = {
    "pointwise": nn.Conv2d(4, 8, 1),
    "depthwise": nn.Conv2d(4, 4, 3, padding=1, groups=4),
    "grouped, strided, dilated": nn.Conv2d(4, 6, 3, stride=2, dilation=2, groups=2),
    "without bias": nn.Conv2d(4, 8, (3, 5), bias=False),
    "linear": nn.Linear(10, 5),
}


def images(n: int, *shape: int) -> Images:
    """Inputs as after an activation: not negative, similar in all channels."""
    random = np.random.default_rng(0)
    found = random.normal(1.0, 0.5, (n, 1, *shape[1:])) + random.normal(0.0, 0.2, (n, *shape))
    return found.clip(0).astype(np.float32)


def classifier() -> nn.Module:
    layers = (nn.Conv2d(4, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))
    return nn.Sequential(*layers).eval()


def of_half(net: nn.Module) -> bool:
    return all(torch.equal(value, value.half().float()) for value in net.parameters())


def nearest(net: nn.Module) -> nn.Module:
    other = copy.deepcopy(net)
    for value in other.parameters():
        value.data = value.data.half().float()
    return other


@torch.no_grad()
def error(net: nn.Module, exact: nn.Module, x: Images) -> float:
    """Root mean square of the difference of the outputs."""
    difference = net(torch.from_numpy(x)) - exact(torch.from_numpy(x))
    return float(difference.square().mean().sqrt())


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_a_layer_errs_less_than_with_the_nearest_values(layer: nn.Module) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(copy.deepcopy(layer)).eval()
    for value in net.parameters():
        value.data = torch.randn_like(value)
    x = images(40, *SHAPE)
    before = copy.deepcopy(net.state_dict())
    found = half_weights(net, x[:32])
    assert of_half(found) and not of_half(net)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert 0 < error(found, net, x[32:]) < 0.9 * error(nearest(net), net, x[32:])


def test_a_network_with_bn_is_folded_first(tiny_space: SearchSpace) -> None:
    net = build_subnet(tiny_space, tiny_space.largest(), seed=1).eval()
    x = images(40, 3, 16, 16)
    found = half_weights(net, x[:32])
    assert of_half(found) and not any(isinstance(m, nn.BatchNorm2d) for m in found.modules())
    exact = folded(net)
    assert 0 < error(found, net, x[32:]) < 0.6 * error(nearest(exact), net, x[32:])


def test_the_images_of_one_seed_decide() -> None:
    net = nn.Sequential(
        nn.Conv2d(4, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)
    ).eval()
    x = images(64, *SHAPE)
    one, other = (half_weights(net, x).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_what_half_precision_cannot_say_remains() -> None:
    net = nn.Sequential(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)).eval()
    with torch.no_grad():
        net[1].weight[0, 0, 0, 0] = 1e6
    x = images(4, *SHAPE)
    found = half_weights(net, x)
    assert [of_half(layer) for layer in found.children()] == [True, False, True]
    assert torch.equal(found[1].weight, net[1].weight)
    unknown = half_weights(net, np.full_like(x, np.nan))
    for name, value in net.state_dict().items():
        assert torch.equal(unknown.state_dict()[name], value)


def test_the_half_precision_file_has_these_weights(tmp_path: Path) -> None:
    net = nn.Sequential(
        nn.Conv2d(4, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)
    ).eval()
    x = images(16, *SHAPE)

    def stored(folder: str, **given: Images) -> list[float]:
        (path,) = fp16.build(fp16.Config()).export(
            net, input_shape=SHAPE, folder=tmp_path / folder, **given
        )
        found = onnx.load(path).graph.initializer
        arrays = [numpy_helper.to_array(t) for t in found if t.data_type == TensorProto.FLOAT16]
        return sorted(float(v) for a in arrays for v in a.ravel())

    def values(net: nn.Module) -> list[float]:
        return sorted(float(v) for value in net.parameters() for v in value.detach().ravel())

    assert stored("with", images=x) == values(half_weights(net, x))
    assert stored("without") == values(nearest(net)) != stored("with", images=x)


@pytest.mark.parametrize(
    ("format", "package"),
    [
        ("fp16", "onnxruntime"),
        ("litert:fp16", "ai_edge_litert"),
        ("openvino:fp16", "openvino"),
        ("coreml", "coremltools"),
        ("onnx", "onnxruntime"),
        ("litert", "ai_edge_litert"),
        ("openvino", "openvino"),
        ("coreml:fp32", "coremltools"),
    ],
)
def test_formats_in_half_precision_and_no_others_round_so(
    format: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(package)
    net = nn.Sequential(
        nn.Conv2d(4, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)
    ).eval()
    asked: list[Images] = []

    def rounded(model: nn.Module, images: Images) -> nn.Module:
        asked.append(images)
        return folded(model)

    monkeypatch.setattr(weight_rounding, "half_weights", rounded)
    name, _, precision = format.partition(":")
    module = importlib.import_module(f"hwnas.exporters.{name}")
    config = module.Config(precision=precision) if precision else module.Config()
    x = images(16, *SHAPE)
    module.build(config).export(net, input_shape=SHAPE, folder=tmp_path, images=x)
    is_half = precision == "fp16" or format in ("fp16", "coreml")
    assert len(asked) == int(is_half) and all(given is x for given in asked)


def to_grid(net: nn.Module, levels: int) -> nn.Module:
    """The nearest weights."""
    other = copy.deepcopy(net)
    for layer in other.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            scale = layer.weight.detach().abs().flatten(1).amax(1) / levels
            scale = scale.reshape(-1, *[1] * (layer.weight.dim() - 1))
            layer.weight.data = (layer.weight.data / scale).round() * scale
    return other


@pytest.mark.parametrize("levels", [64, 127])
@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_8_bit_weights_are_integers_times_the_scale_of_the_converter(
    layer: nn.Module, levels: int
) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(copy.deepcopy(layer)).eval()
    x = images(40, *SHAPE)
    found = grid_weights(net, x[:32], levels=levels)
    exact, weight = (one[0].weight.detach().flatten(1) for one in (net, found))
    largest = exact.abs().argmax(1, keepdim=True)
    assert torch.equal(weight.gather(1, largest), exact.gather(1, largest))
    assert torch.equal(weight.abs().amax(1), exact.abs().amax(1))
    integers = weight / weight.abs().amax(1, keepdim=True) * levels
    assert torch.allclose(integers, integers.round(), atol=1e-3)
    assert 0 < error(found, net, x[32:]) < 0.9 * error(to_grid(net, levels), net, x[32:])


def test_a_channel_without_weights_stays_so() -> None:
    net = nn.Sequential(nn.Conv2d(4, 2, 1)).eval()
    with torch.no_grad():
        net[0].weight[0] = 0
    found = grid_weights(net, images(8, *SHAPE), levels=64)
    assert torch.equal(found[0].weight[0], torch.zeros(4, 1, 1))
    assert found[0].weight.isfinite().all() and found[0].bias.isfinite().all()


def in_8_bits(
    net: nn.Module, x: Images, folder: Path, rounded: dict[str, Images]
) -> onnx.ModelProto:
    graph = float_graph(net, input_shape=SHAPE, folder=folder)
    return quantized(
        graph, x[:64], x[64:], method="minmax", target_agreement=0.1, max_float_layers=0,
        rounded=rounded,
    ).model  # fmt: skip


def test_the_8_bit_file_takes_rounded_weights_only_if_they_are_closer(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net, x = classifier(), images(128, *SHAPE)
    graph = float_graph(net, input_shape=SHAPE, folder=tmp_path)
    rounded = on_grid(graph, net, x[:64], symmetric=False)
    assert set(rounded) == {name for name, _ in net.named_parameters()}
    wrong = {name: np.zeros_like(value) for name, value in rounded.items()}
    plain, better, other = (
        in_8_bits(net, x, tmp_path, one).SerializeToString() for one in ({}, rounded, wrong)
    )
    assert plain != better and plain == other


def test_layers_that_stay_in_float_keep_their_weights(tmp_path: Path) -> None:
    """Every class is missed unless a layer is in float."""
    torch.manual_seed(0)
    net, x = classifier(), images(128, *SHAPE)
    graph = float_graph(net, input_shape=SHAPE, folder=tmp_path)
    rounded = on_grid(graph, net, x[:64], symmetric=False)
    found = quantized(
        graph, x[:64], x[64:], method="minmax", target_agreement=1.0, max_float_layers=0.5,
        rounded=rounded | {"0.bias": rounded["0.bias"] + 1e3},
    )  # fmt: skip
    assert len(found.float_layers) <= 1
    exact = dict(net.named_parameters())
    for one in found.model.graph.initializer:
        if one.name in exact:  # in float
            assert np.array_equal(numpy_helper.to_array(one), exact[one.name].detach().numpy())


@pytest.mark.parametrize("symmetric", [False, True])
def test_the_format_int8_gives_its_levels(
    symmetric: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def rounded(model: nn.Module, images: Images, *, levels: int) -> nn.Module:
        asked.append(levels)
        return grid_weights(model, images, levels=levels)

    monkeypatch.setattr(weight_rounding, "grid_weights", rounded)
    int8.build(int8.Config(symmetric=symmetric)).export(
        classifier(), input_shape=SHAPE, folder=tmp_path, images=images(64, *SHAPE)
    )
    assert asked == [127 if symmetric else 64]
    int8.build(int8.Config(symmetric=symmetric, weights="nearest")).export(
        classifier(), input_shape=SHAPE, folder=tmp_path, images=images(64, *SHAPE)
    )
    assert len(asked) == 1


def test_networks_trained_in_8_bits_keep_the_nearest_weights() -> None:
    planned = planned_formats([onnx_format.Config(), int8.Config()], ())
    assert [getattr(one.config, "weights", None) for one in planned] == [None, "compensated"]
    assert [getattr(one.config, "weights", None) for one in as_trained(planned)] == [
        None,
        "nearest",
    ]
