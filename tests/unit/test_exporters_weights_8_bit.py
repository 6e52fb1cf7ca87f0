"""Weights in 8 bits that make up for each other's error, in every format."""

from __future__ import annotations

import copy
import importlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from hwnas.exporters import int8, weight_rounding
from hwnas.exporters import onnx as onnx_format
from hwnas.exporters.artifact import as_trained, planned_formats
from hwnas.exporters.float_graph import float_graph
from hwnas.exporters.formats import exporter
from hwnas.exporters.quantize import on_grid, quantized
from hwnas.exporters.weight_rounding import grid_weights, nearest_weights
from hwnas.interfaces import Images
from tests.unit.test_exporters_weight_rounding import LAYERS, SHAPE, classifier, error, images


def to_grid(net: nn.Module, levels: int) -> nn.Module:
    """The nearest weights."""
    other = copy.deepcopy(net)
    for layer in other.modules():
        if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Linear):
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
    net[0].reset_parameters()
    x = images(40, *SHAPE)
    found = grid_weights(net, x[:32], levels=levels)
    exact, weight = (one[0].weight.detach().flatten(1) for one in (net, found))
    largest = exact.abs().argmax(1, keepdim=True)
    assert torch.equal(weight.gather(1, largest), exact.gather(1, largest))
    assert torch.equal(weight.abs().amax(1), exact.abs().amax(1))
    integers = weight / weight.abs().amax(1, keepdim=True) * levels
    assert torch.allclose(integers, integers.round(), atol=1e-3)
    assert 0 < error(found, net, x[32:]) < 0.9 * error(to_grid(net, levels), net, x[32:])
    nearest = nearest_weights(net, SHAPE, levels=levels)
    torch.testing.assert_close(nearest[0].weight, to_grid(net, levels)[0].weight)
    assert torch.equal(nearest_weights(found, SHAPE, levels=levels)[0].weight, found[0].weight)


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
    rounded = on_grid(graph, net, x[:64], levels=64)
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
    rounded = on_grid(graph, net, x[:64], levels=64)
    found = quantized(
        graph, x[:64], x[64:], method="minmax", target_agreement=1.0, max_float_layers=0.5,
        rounded=rounded | {"0.bias": rounded["0.bias"] + 1e3},
    )  # fmt: skip
    assert len(found.float_layers) <= 1
    exact = dict(net.named_parameters())
    for one in found.model.graph.initializer:
        if one.name in exact:  # in float
            assert np.array_equal(numpy_helper.to_array(one), exact[one.name].detach().numpy())


IN_8_BITS = {
    "int8": ("onnxruntime", 64),
    "int8:symmetric": ("onnxruntime", 127),
    "litert:int8": ("ai_edge_litert", 127),
    "executorch:int8": ("executorch", 127),
    "coreml:int8": ("coremltools", 127),
}


@pytest.mark.parametrize("format", IN_8_BITS)
def test_every_8_bit_format_rounds_to_its_levels_unless_told(
    format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package, levels = IN_8_BITS[format]
    pytest.importorskip(package)
    asked: list[int] = []

    def rounded(model: nn.Module, images: Images, *, levels: int, **more: int) -> nn.Module:
        asked.append(levels)
        return grid_weights(model, images, levels=levels, **more)

    monkeypatch.setattr(weight_rounding, "grid_weights", rounded)
    settings: dict[str, Any] = {"symmetric": True} if format == "int8:symmetric" else {}
    format = format.removesuffix(":symmetric")
    for weights in ("compensated", "nearest"):
        name, _, precision = format.partition(":")
        module = importlib.import_module(f"hwnas.exporters.{name}")
        given = settings | ({"precision": precision} if precision else {})
        module.build(module.Config(weights=weights, **given)).export(
            classifier(), input_shape=SHAPE, folder=tmp_path, images=images(64, *SHAPE)
        )
        assert asked == [levels]


def test_networks_trained_in_8_bits_keep_the_nearest_weights() -> None:
    planned = planned_formats([onnx_format.Config(), int8.Config()], ())
    assert [getattr(one.config, "weights", None) for one in planned] == [None, "compensated"]
    assert [getattr(one.config, "weights", None) for one in as_trained(planned)] == [
        None,
        "nearest",
    ]
    for name in ("litert", "executorch", "coreml"):
        fields = importlib.import_module(f"hwnas.exporters.{name}").Config.model_fields
        assert fields["weights"].default == "compensated"


def litert_weights(content: bytes) -> list[list[float]]:
    """Weights of all layers, in float: those in 8 bits times their scale."""
    pytest.importorskip("ai_edge_litert")
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content)
    found = []
    for one in interpreter.get_tensor_details():
        if "weight" in one["name"]:
            value = interpreter.get_tensor(one["index"]).astype(np.float64)
            scales = one["quantization_parameters"]["scales"]
            axis = one["quantization_parameters"]["quantized_dimension"]
            if len(scales):
                value *= scales.reshape([-1 if i == axis else 1 for i in range(value.ndim)])
            found.append(sorted(value.ravel().tolist()))
    return sorted(found, key=len)


def test_litert_has_these_weights_in_8_bits_and_the_exact_ones_in_float(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    torch.manual_seed(0)
    net, x = classifier(), images(32, *SHAPE)

    def weights(**settings: Any) -> list[list[float]]:
        made = exporter("litert:int8", n_calibration=32, target_agreement=1.0, **settings)
        (path,) = made.export(net, input_shape=SHAPE, folder=tmp_path, images=x, held_out=judged)
        return litert_weights(path.read_bytes())

    def of(net: nn.Module) -> list[list[float]]:
        layers = [net[0].weight, net[-1].weight]
        return sorted((sorted(w.detach().double().ravel().tolist()) for w in layers), key=len)

    judged = x[:1]  # one image agrees at once
    exact, compensated = of(net), of(grid_weights(net, x, levels=127))
    found = weights()
    for one, other, float32 in zip(found, compensated, exact, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-6)
        assert np.abs(np.subtract(one, float32)).max() > 1e-4
    assert weights(weights="nearest") != found


def test_executorch_has_these_weights_in_8_bits_and_the_exact_ones_in_float() -> None:
    pytest.importorskip("executorch")
    from hwnas.exporters import pt2e

    torch.manual_seed(0)
    net, x = classifier(), np.zeros((4, *SHAPE), np.float32)
    rounded = {name: torch.full_like(value, 0.5) for name, value in net.state_dict().items()}
    program = torch.export.export(net, (torch.zeros(1, *SHAPE),))
    with torch.no_grad():
        found = pt2e.quantized(program, x, rounded, but=["linear"], at_once=1)
        values = dict(found.named_parameters()) | dict(found.named_buffers())
        exact = {"3.weight": net[3].weight, "3.bias": net[3].bias}
        for name, value in exact.items():
            assert torch.equal(values[name], value)
        expected = net[3](torch.full((1, 8), 0.5))  # the bias of the convolution
        torch.testing.assert_close(found(torch.from_numpy(x[:1])), expected, atol=5e-3, rtol=0)
        assert (net(torch.from_numpy(x[:1])) - expected).abs().max() > 0.05


def test_core_ml_has_these_weights(tmp_path: Path) -> None:
    pytest.importorskip("coremltools")
    torch.manual_seed(0)
    layers = nn.Conv2d(4, 64, 3), nn.Conv2d(64, 64, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    net, x = nn.Sequential(*layers).eval(), images(64, *SHAPE)
    small, large = net[0].weight.numel(), net[1].weight.numel()
    assert small > 2048 and large > 2048
    (path,) = exporter("coreml:int8").export(net, input_shape=SHAPE, folder=tmp_path, images=x)
    found = exporter("coreml:int8").open_model(path).logits(x)
    exact = net(torch.from_numpy(x)).detach().numpy()
    (path,) = exporter("coreml:int8", weights="nearest").export(
        net, input_shape=SHAPE, folder=tmp_path, images=x
    )
    nearest = exporter("coreml:int8").open_model(path).logits(x)
    assert 0 < np.square(found - exact).mean() < 0.8 * np.square(nearest - exact).mean()


def test_core_ml_takes_rounded_weights_only_if_they_are_closer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("coremltools")
    torch.manual_seed(0)
    layers = nn.Conv2d(4, 64, 3), nn.Conv2d(64, 64, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    net, x = nn.Sequential(*layers).eval(), images(16, *SHAPE)

    def logits(**given: Any) -> Images:
        (path,) = exporter("coreml:int8", weights=given.pop("weights", "compensated")).export(
            net, input_shape=SHAPE, folder=tmp_path, images=x, **given
        )
        return exporter("coreml:int8").open_model(path).logits(x)

    def wrong(model: nn.Module, images: Images, **more: int) -> nn.Module:
        found = grid_weights(model, images, **more)
        found[0].bias.data += 9
        return found

    compensated, nearest = logits(), logits(weights="nearest")
    assert not np.array_equal(compensated, nearest)
    monkeypatch.setattr(weight_rounding, "grid_weights", wrong)
    assert np.array_equal(logits(held_out=x[:4]), nearest)


def test_layers_below_the_least_size_remain_as_they_are() -> None:
    net = nn.Sequential(nn.Conv2d(4, 2, 1), nn.Conv2d(2, 4, 1)).eval()
    nearest = nearest_weights(net, SHAPE, levels=8, at_least=9)
    assert torch.equal(net[0].weight, nearest[0].weight)
    assert not torch.equal(net[0].weight, nearest_weights(net, SHAPE, levels=8)[0].weight)
    found = grid_weights(net, images(8, *SHAPE), levels=8, at_least=9)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), found.parameters(), strict=True))
    found = grid_weights(net, images(8, *SHAPE), levels=8, at_least=8)
    assert not torch.equal(net[0].weight, found[0].weight)
