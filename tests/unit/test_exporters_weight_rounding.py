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
from timm.layers import Conv2dSame
from torch import nn

from hwnas.exporters import fp16, weight_rounding
from hwnas.exporters.fold import folded
from hwnas.exporters.weight_rounding import half_weights
from hwnas.interfaces import Images
from hwnas.nets.depthwise import DepthwiseConv2d
from hwnas.nets.plain_net import PaddedConv2d
from hwnas.nets.subnet import build_subnet
from hwnas.spaces.space import SearchSpace

SHAPE = (4, 10, 10)


class Line(nn.Conv1d):
    """A convolution over the rows of maps, one after the other."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.flatten(2))


LAYERS = {
    "pointwise": nn.Conv2d(4, 8, 1),
    "depthwise": nn.Conv2d(4, 4, 3, padding=1, groups=4),
    "grouped, strided, dilated": nn.Conv2d(4, 6, 3, stride=2, dilation=2, groups=2),
    "without bias": nn.Conv2d(4, 8, (3, 5), bias=False),
    "linear": nn.Linear(10, 5),
    "one axis": Line(4, 6, 3, stride=2, padding=1, dilation=2, groups=2),
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


class Reused(nn.Module):
    """Two layers; the first one's parameters are also those of something else."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.kind = kind
        if kind in ("weight", "bias"):
            setattr(self.second, kind, getattr(self.first, kind))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.second(self.first(x))
        if self.kind == "function":
            x = nn.functional.conv2d(x, self.first.weight)
        if self.kind == "value":
            x = x + self.first.bias[:, None, None]
        return self.first(x) if self.kind == "twice" else x


@pytest.mark.parametrize(
    ("kind", "rounded"),
    [("weight", []), ("bias", []), ("function", ["second"]), ("value", ["second"])]
    + [("twice", ["first", "second"])],
)
def test_weights_do_not_adapt_to_one_of_several_users(kind: str, rounded: list[str]) -> None:
    """They would be wrong for the others. A layer that runs twice adapts to both inputs."""
    net, x = Reused(kind).eval(), images(8, *SHAPE)
    for found in (half_weights(net, x), weight_rounding.grid_weights(net, x, levels=8)):
        pairs = zip(net.named_children(), found.children(), strict=True)
        changed = [
            name
            for (name, exact), layer in pairs
            if not all(map(torch.equal, exact.parameters(), layer.parameters()))
        ]
        assert changed == rounded


def test_a_network_with_bn_is_folded_first(tiny_space: SearchSpace) -> None:
    net = build_subnet(tiny_space, tiny_space.largest(), seed=1).eval()
    x = images(40, 3, 16, 16)
    found = half_weights(net, x[:32])
    assert of_half(found) and not any(isinstance(m, nn.BatchNorm2d) for m in found.modules())
    exact = folded(net, (3, 16, 16))
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
        return folded(model, SHAPE)

    monkeypatch.setattr(weight_rounding, "half_weights", rounded)
    name, _, precision = format.partition(":")
    module = importlib.import_module(f"hwnas.exporters.{name}")
    config = module.Config(precision=precision) if precision else module.Config()
    x = images(16, *SHAPE)
    module.build(config).export(net, input_shape=SHAPE, folder=tmp_path, images=x)
    is_half = precision == "fp16" or format in ("fp16", "coreml")
    assert len(asked) == int(is_half) and all(given is x for given in asked)


PADDED = {
    "zeros": nn.Conv2d(4, 4, 3, padding=1),
    "none": nn.Conv2d(4, 4, 3),
    "uneven": nn.Conv2d(4, 4, (3, 2), padding=(0, 1), stride=(2, 1)),
    "same": nn.Conv2d(4, 4, (4, 3), padding="same", dilation=(2, 1), groups=2),
    "circular": nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"),
    "reflect": nn.Conv2d(4, 4, 5, padding=2, padding_mode="reflect"),
    "replicate": nn.Conv2d(4, 4, 3, padding="same", padding_mode="replicate", bias=False),
    "of timm": Conv2dSame(4, 4, 3, stride=2),
    "more": PaddedConv2d(4, 4, 4, padding=1),
    "depthwise": DepthwiseConv2d(4, 4, 3, stride=2, groups=4, bias=False),
}


@pytest.mark.parametrize("layer", PADDED.values(), ids=PADDED)
def test_inputs_of_a_layer_have_its_padding(layer: nn.Conv2d) -> None:
    """With these inputs, products of weights and Gram matrix are the squares of the outputs."""
    layer = copy.deepcopy(layer).eval()
    if isinstance(layer, PaddedConv2d | DepthwiseConv2d):
        layer.pad_more = 1
    layer.pads_same = isinstance(layer, DepthwiseConv2d)
    x = torch.from_numpy(images(2, *SHAPE))
    with torch.no_grad(), weight_rounding._Grams([layer]) as grams:
        outputs = layer(x)
    weights = layer.weight.detach().reshape(layer.groups, 4 // layer.groups, -1)
    if layer.bias is not None:
        biases = layer.bias.detach().reshape(layer.groups, -1, 1)
        weights = torch.cat([weights, biases], -1)
    weights = weights.double()
    found = (weights @ grams.found[layer] * weights).sum(-1).flatten()
    torch.testing.assert_close(found, outputs.double().square().sum((0, 2, 3)), rtol=1e-5, atol=0)
