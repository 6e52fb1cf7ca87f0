"""Training rounds as the exported file in 8 bits does, and gets its accuracy back."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from hwnas.core.errors import UserError
from hwnas.exporters import int8, litert, onnx
from hwnas.interfaces import DatasetContext, EightBits
from hwnas.nets.subnet import build_subnet
from hwnas.spaces import mobilenet_tiny
from hwnas.training.datasets import digits
from hwnas.training.features import classifier_of, with_features
from hwnas.training.finetune import finetune
from hwnas.training.label_sections import StandaloneRecipe, TrainedLabelConfig
from hwnas.training.qat import FakeQuantized, rounded_forward
from hwnas.training.sections import (
    CalibrationConfig,
    FinetuneConfig,
    OptimizerConfig,
)
from tests.machine import has_8_bit_products

RULES: tuple[EightBits, ...] = ("litert", "onnx", "onnx symmetric")
PX = 6


class Everything(nn.Module):
    """One of everything that the rule tells apart: [n, 3, px, px] -> [n, classes]."""

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.conv_pw, self.bn1 = nn.Conv2d(3, 8, 1, bias=False), nn.BatchNorm2d(8)
        self.conv_dw = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.bn2 = nn.BatchNorm2d(8)
        self.reduce, self.expand = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.conv_pwl, self.bn3 = nn.Conv2d(8, 8, 1, bias=False), nn.BatchNorm2d(8)
        self.classifier = nn.Linear(8, n_classes)
        self.relu, self.relu6 = nn.ReLU(), nn.ReLU6()
        self.swish, self.gate = nn.Hardswish(), nn.Hardsigmoid()

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu6(self.bn1(self.conv_pw(x)))
        y = self.swish(self.bn2(self.conv_dw(x)))
        squeezed = self.relu(self.reduce(y.mean((2, 3), keepdim=True)))
        y = y * self.gate(self.expand(squeezed))
        y = self.bn3(self.conv_pwl(y)) + x
        logits: Tensor = self.classifier(y.mean((2, 3)))
        return logits


def net(n_classes: int = 5) -> Everything:
    """Weights and statistics that nothing is special about; in eval mode."""
    generator = torch.Generator().manual_seed(0)
    found = Everything(n_classes)
    with torch.no_grad():
        for name, tensor in found.state_dict().items():
            if tensor.dtype == torch.float32:
                drawn = torch.rand(tensor.shape, generator=generator)
                tensor.copy_(drawn + 0.5 if name.endswith("var") else 2 * drawn - 0.8)
    return found.eval()


def images(n: int = 32, seed: int = 1) -> Tensor:
    return torch.randn(n, 3, PX, PX, generator=torch.Generator().manual_seed(seed))


def rms(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.sqrt(np.square(a - b).mean()))


def in_the_file(
    model: nn.Module, x: Tensor, rule: EightBits, folder: Path, images: Tensor | None = None
) -> np.ndarray:
    """Logits of the file with the ranges of images x, no layer in float; of x, or of `images`."""
    all_8_bits = {"max_float_layers": 0.0, "n_calibration": len(x), "weights": "nearest"}
    exporter = (
        litert.build(litert.Config(precision="int8", **all_8_bits))
        if rule == "litert"
        else int8.build(int8.Config(symmetric=rule == "onnx symmetric", **all_8_bits))
    )
    shape = tuple(x.shape[1:])
    path, *_ = exporter.export(model, input_shape=shape, folder=folder, images=x.numpy())
    return exporter.open_model(path).logits((x if images is None else images).numpy())


def with_graph(model: nn.Module, px: int, folder: Path) -> Path:
    """A folder with the network's ONNX file, from which other formats start: it takes seconds."""
    exporter = onnx.build(onnx.Config())
    exporter.export(model, input_shape=(3, px, px), folder=folder)
    return folder


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_graph(net(), PX, tmp_path_factory.mktemp("graph"))


def fake(model: nn.Module, x: Tensor, rule: EightBits) -> FakeQuantized:
    found = FakeQuantized(model, x, rule)
    found.observe([x])
    return found


@pytest.mark.parametrize("rule", RULES)
def test_it_computes_what_the_file_in_8_bits_computes(rule: EightBits, graph: Path) -> None:
    """Far closer to the file than the float network is: rounding is in the same places."""
    if rule == "litert":
        pytest.importorskip("ai_edge_litert", reason="pip install 'hwnas[litert]'")
    if rule == "onnx symmetric" and not has_8_bit_products():
        pytest.skip("sums of 8-bit products saturate on this processor")
    model, x = net(), images()
    with torch.no_grad():
        in_float, rounded = model(x).numpy(), fake(model, x, rule)(x).numpy()
    file = in_the_file(model, x, rule, graph)
    assert rms(in_float, file) > 0
    # with weights of 7 bits, single values flip to the next step; with 63 levels it would be 1.4
    assert rms(rounded, file) < (0.4 if rule == "onnx" else 0.2) * rms(in_float, file)


def test_formats_say_how_they_round() -> None:
    assert litert.Config(precision="int8").rounding == "litert"
    assert litert.Config().rounding is None
    assert int8.Config().rounding == "onnx"
    assert int8.Config(symmetric=True).rounding == "onnx symmetric"


def test_one_convolution_is_the_closed_form() -> None:
    """Image, weight and output are rounded: q = clip(round(x / s) + z)."""
    model = nn.Conv2d(1, 1, 1, bias=False).eval()
    with torch.no_grad():
        model.weight.fill_(0.7)
    x = torch.tensor([-1.0, 0.1234, 3.0]).reshape(3, 1, 1, 1)
    step = 4 / 255
    zero = round(-128 - -1 / step)
    given = (np.clip(np.round(x.flatten().numpy() / step) + zero, -128, 127) - zero) * step
    made = np.round(given * 0.7 / (0.7 * step)) * (0.7 * step)
    with torch.no_grad():
        found = fake(model, x, "litert")(x).flatten().numpy()
    np.testing.assert_allclose(found, made, rtol=1e-5)


def test_gradients_pass_where_nothing_is_clipped() -> None:
    """Of inputs in the observed range the gradient is the weight; of others it is 0."""
    model = nn.Conv2d(1, 1, 1, bias=False).eval()
    with torch.no_grad():
        model.weight.fill_(0.5)
    rounded = fake(model, torch.tensor([-1.0, 1.0]).reshape(2, 1, 1, 1), "litert")
    x = torch.tensor([0.3, 1.7]).reshape(2, 1, 1, 1).requires_grad_()
    rounded(x).sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None and model.weight.grad is not None
    np.testing.assert_allclose(x.grad.flatten(), [0.5, 0.0])


def test_ranges_are_extremes_of_all_batches_in_float() -> None:
    model = nn.Conv2d(1, 1, 1, bias=False).eval()
    with torch.no_grad():
        model.weight.fill_(1.0)
    found = FakeQuantized(model, torch.zeros(1, 1, 1, 1), "onnx symmetric")
    found.observe([torch.full((2, 1, 1, 1), 254.0), torch.full((3, 1, 1, 1), -10.0)])
    with torch.no_grad():
        logits = found(torch.tensor([1.2, 300.0]).reshape(2, 1, 1, 1))
    np.testing.assert_allclose(logits.flatten(), [2.0, 254.0])


def test_batch_statistics_normalise_in_training_and_stay_as_they_are() -> None:
    model, x = net(), images()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    rounded = fake(model.train(), x, "onnx")
    with torch.no_grad():
        shifted = rounded(x)
        assert torch.allclose(shifted, model.train()(x), atol=0.2)
    model.load_state_dict(before)
    with torch.no_grad():
        rounded(x)
    same = {name: torch.equal(value, before[name]) for name, value in model.state_dict().items()}
    assert all(same.values()), same


def test_the_first_quarter_of_the_steps_is_in_float() -> None:
    model, x = net().train(), images()
    forward = rounded_forward(model, [x], "onnx", steps_per_epoch=4, n_steps=8)
    with torch.no_grad():
        assert torch.equal(forward(1, x)[1], model(x))
        assert not torch.equal(forward(2, x)[1], model(x))


def test_features_are_what_the_rounded_classifier_reads() -> None:
    model, x = net().train(), images()
    rounded = fake(model, x, "onnx")
    with torch.no_grad():
        features, logits = rounded.with_features(x)
        near, _ = with_features(model, x)
        classifier = classifier_of(model)
        weight = classifier.weight
        scale = weight.abs().amax(1, keepdim=True) / 127
        expected = features @ ((weight / scale).round() * scale).T + classifier.bias
    torch.testing.assert_close(features, near, atol=0.2, rtol=0)
    assert not torch.equal(features, near)
    torch.testing.assert_close(
        logits, expected, atol=float(logits.max() - logits.min()) / 254, rtol=0
    )


# --- accuracy -------------------------------------------------------------------------------------

SPACE = mobilenet_tiny.build(
    mobilenet_tiny.Config(resolutions=(10,), width_mult=0.5), num_classes=10
)
DATA = digits.build(digits.Config(base_px=10), DatasetContext(0))
EPOCHS = 8
TEST = [torch.cat(parts) for parts in zip(*DATA.eval_batches("test", 256), strict=True)]


def tuned(model: nn.Module, epochs: int, lr: float, **settings: Any) -> nn.Module:
    rounding = settings.pop("rounding", None)
    config = FinetuneConfig(epochs=epochs, optimizer=OptimizerConfig(lr=lr), **settings)
    return finetune(model, DATA, config, px=10, teacher=None, seed=0, rounding=rounding)


def spread(model: nn.Module, factor: float) -> nn.Module:
    """The same function in float, with ranges that 8 bits cannot hold.

    The first channel of every expansion is `factor` times as large, its depthwise weight as small.
    """
    model = copy.deepcopy(model)
    for block in model.modules():
        if hasattr(block, "conv_pw") and hasattr(block, "conv_dw"):
            with torch.no_grad():
                block.bn1.weight[0] *= factor
                block.bn1.bias[0] *= factor
                block.conv_dw.weight[0] /= factor
    return model


def top1(logits: np.ndarray) -> float:
    return float((logits.argmax(1) == TEST[1].numpy()).mean())


def top1_in_float(model: nn.Module) -> float:
    with torch.no_grad():
        return top1(model(TEST[0]).numpy())


def top1_in_8_bits(model: nn.Module, folder: Path, rule: EightBits) -> float:
    """Of the exported file."""
    return top1(in_the_file(model, training_images(), rule, folder, TEST[0]))


def training_images() -> torch.Tensor:
    """They determine the ranges of 8-bit values."""
    return torch.cat([*DATA.calibration_batches(1, 128)])


@pytest.fixture(scope="module")
def hurt() -> nn.Module:
    """A trained network that loses more than a point in 8 bits."""
    return spread(tuned(build_subnet(SPACE, SPACE.smallest()), 8, 2e-2), 150)


@pytest.fixture(scope="module")
def in_float(hurt: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    """It after more steps in float, and the folder of its files."""
    found = tuned(hurt, EPOCHS, 1e-2)
    return found, with_graph(found, 10, tmp_path_factory.mktemp("float"))


@pytest.mark.parametrize("rule", RULES[:2])
def test_it_gets_back_at_least_half_of_what_8_bits_lose(
    rule: EightBits, hurt: nn.Module, in_float: tuple[nn.Module, Path], tmp_path: Path
) -> None:
    """Against the same steps in float, which leave the loss as it is."""
    if rule == "litert":
        pytest.importorskip("ai_edge_litert", reason="pip install 'hwnas[litert]'")
    before = top1_in_8_bits(*in_float, rule)
    aware = tuned(hurt, EPOCHS, 1e-2, precision="int8", rounding=rule)
    after = top1_in_8_bits(aware, tmp_path, rule)
    lost = top1_in_float(in_float[0]) - before
    assert lost > 0.01
    assert after - before >= lost / 2
    seen = fake(aware, training_images(), rule)(TEST[0]).detach().numpy()
    assert abs(top1(seen) - after) < 0.02, "the file does what training saw"


def test_it_resumes_after_an_epoch(tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def kill(done: int, total: int, note: str = "") -> None:
        if done == 7:  # 4 steps an epoch
            raise Killed

    config = FinetuneConfig(
        epochs=2, batch_size=256, precision="int8", calibration=CalibrationConfig(batch_size=64)
    )
    settings: dict[str, Any] = {"px": 10, "teacher": None, "seed": 0, "rounding": "onnx"}
    expected = finetune(net(10), DATA, config, **settings)
    with pytest.raises(Killed):
        finetune(net(10), DATA, config, checkpoints=tmp_path, progress=kill, **settings)
    again = finetune(net(10), DATA, config, checkpoints=tmp_path, **settings)
    pairs = zip(again.state_dict().values(), expected.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    with pytest.raises(UserError, match="rounding"):
        settings["rounding"] = "litert"
        finetune(net(10), DATA, config, checkpoints=tmp_path, **settings)


def test_weights_rounded_in_training_are_not_averaged() -> None:
    """Averages are compared in float."""
    config = FinetuneConfig(
        epochs=1, batch_size=256, precision="int8", calibration=CalibrationConfig(batch_size=64)
    )
    averaged = config.model_copy(update={"average": True})
    settings: dict[str, Any] = {"px": 10, "teacher": None, "seed": 0, "rounding": "onnx"}
    pair = [finetune(net(10), DATA, recipe, **settings) for recipe in (config, averaged)]
    states = [network.state_dict().values() for network in pair]
    assert all(torch.equal(a, b) for a, b in zip(*states, strict=True))


def test_labels_are_of_float_networks() -> None:
    with pytest.raises(ValidationError, match="labels are accuracies of float networks"):
        TrainedLabelConfig(n=1, recipe=StandaloneRecipe(precision="int8"))
