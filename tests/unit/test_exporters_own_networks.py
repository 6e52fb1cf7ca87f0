"""Networks of users: built by torch alone, or subnets of hwnas whose layers were replaced."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from hwnas.core.errors import CheckFailed, UserError
from hwnas.exporters import formats, weight_rounding
from hwnas.exporters.apart_network import DEFINITION, PROGRAM, WEIGHTS, saved
from hwnas.exporters.base import Source
from hwnas.exporters.formats import export, open_model
from hwnas.exporters.parity import torch_logits
from hwnas.exporters.pt2 import captured, network_of
from hwnas.exporters.weight_rounding import Layer, grid_weights, half_weights
from hwnas.interfaces import Images
from hwnas.nets.subnet import build_subnet, computes_as_defined, input_shape_of
from hwnas.spaces.space import SearchSpace

SHAPE = (3, 24, 24)


def images(n: int, shape: tuple[int, ...] = SHAPE) -> Images:
    return np.random.default_rng(0).standard_normal((n, *shape)).astype(np.float32)


class Own(nn.Module):
    """Layers of all kinds; one used twice, and one weight in two layers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.bn = nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8)
        self.twice = nn.Sequential(nn.Conv2d(8, 8, 1, bias=False), nn.ReLU6())
        self.same = nn.Conv2d(8, 8, 3, groups=4, padding="same")
        self.dilated = nn.Conv2d(8, 8, (3, 1), dilation=(2, 1), groups=8)
        self.first, self.second = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1, stride=2)
        self.second.weight = self.first.weight
        self.line = nn.Conv1d(8, 8, 3, padding="same")
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.twice(self.twice(self.bn(self.a(x))))
        x = self.second(self.first(self.dilated(self.same(x))))
        found: torch.Tensor = self.head(self.line(x.flatten(2)).mean(2))
        return found


@pytest.fixture
def edited(tiny_space: SearchSpace) -> nn.Module:
    """A subnet whose activation functions are others, with the same tensors."""
    net = build_subnet(tiny_space, tiny_space.smallest()).eval()
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            if type(child).__name__ in ("ReLU", "ReLU6"):
                setattr(parent, name, nn.Hardswish())
    return net


def test_programs_have_layers_again(tmp_path: Path) -> None:
    net, x = Own().eval(), images(8)
    torch.export.save(captured(net, SHAPE), tmp_path / PROGRAM)
    found = network_of(tmp_path / PROGRAM)
    assert np.abs(torch_logits(found, x) - torch_logits(net, x)).max() < 1e-6
    layers = {name for name, one in found.named_modules() if isinstance(one, Layer)}
    assert layers == {"a", "twice.0", "same", "dilated", "second", "line", "head"}
    assert isinstance(found.dilated, nn.Conv2d) and found.dilated.dilation == (2, 1)
    for rounded in (half_weights(found, x), grid_weights(found, x, levels=8)):
        state, exact = rounded.state_dict(), found.state_dict()
        changed = {n for n in layers if (state[f"{n}.weight"] != exact[f"{n}.weight"]).any()}
        assert changed == layers - {"second"}  # the first one uses its weight
        difference = np.abs(torch_logits(rounded, x) - torch_logits(net, x)).max()
        assert 0 < difference < 0.5 * np.abs(torch_logits(net, x)).max()


def test_a_changed_subnet_does_not_pass_for_its_definition(
    tiny_space: SearchSpace, edited: nn.Module, tmp_path: Path
) -> None:
    net = build_subnet(tiny_space, tiny_space.smallest()).eval()
    assert computes_as_defined(net) and not computes_as_defined(edited)
    assert computes_as_defined(copy.deepcopy(net).double().float())
    shape = (3, *images(1).shape[2:])
    assert saved(net, tmp_path, shape) == tmp_path / WEIGHTS and (tmp_path / DEFINITION).exists()
    assert saved(edited, tmp_path, shape) == tmp_path / PROGRAM


def test_a_replaced_head_and_other_activations_are_exported(
    edited: nn.Module, tiny_space: SearchSpace, tmp_path: Path
) -> None:
    pytest.importorskip("ai_edge_litert")
    px = tiny_space.macro.resolutions[0]
    x = images(16, (tiny_space.macro.in_channels, px, px))
    head = build_subnet(tiny_space, tiny_space.smallest()).eval()
    head.classifier = nn.Linear(head.classifier.in_features, 3)
    for number, net in enumerate((edited, head)):
        for format in ("litert", "litert:fp16"):
            folder = tmp_path / f"{number}{format[6:]}"
            path, *_ = export(net, format, folder, images=x)
            found = open_model("litert", path).logits(x)
            expected = torch_logits(net, x)
            assert np.abs(found - expected).max() < 0.01 * np.abs(expected).max()
        with pytest.raises(UserError, match="changed after hwnas"):
            export(net, "timm", tmp_path / "timm", images=x)


class Odd(Own):
    """Does not compute one tensor of logits from one batch of images."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: torch.Tensor, *others: torch.Tensor) -> Any:
        logits = super().forward(x)
        if self.kind == "two inputs":
            (other,) = others
            return logits + other
        if self.kind == "control flow":
            return logits if logits.sum() > 0 else -logits
        kinds = {"two outputs": (logits, x), "names": {"logits": logits}, "numbers": logits[:, 0]}
        return kinds[self.kind]


@pytest.mark.parametrize("format", ["onnx", "litert", "executorch:int8", "coreml"])
@pytest.mark.parametrize(
    ("kind", "found"),
    [
        ("two inputs", "does not run on a batch of images"),
        ("two outputs", "found: tuple"),
        ("names", "found: dict"),
        ("numbers", r"found: a tensor \[1\] for one image"),
    ],
)
def test_networks_of_other_inputs_or_outputs_are_refused(
    kind: str, found: str, format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats, "planned", lambda *_: None)  # before any package is needed
    with pytest.raises(UserError, match=found):
        export(Odd(kind).eval(), format, tmp_path, images=images(4))
    assert not any(tmp_path.iterdir())


def test_what_onnx_cannot_express_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="ONNX cannot express the network") as error:
        export(Odd("control flow").eval(), "onnx", tmp_path, images=images(4))
    assert "data-dependent" in str(error.value.found) and not any(tmp_path.iterdir())


def test_images_that_are_not_finite_are_named(tmp_path: Path) -> None:
    x = images(4)
    x[2, 1, 3, 3] = np.nan
    with pytest.raises(UserError, match="not finite") as error:
        export(Own().eval(), "onnx", tmp_path, images=x)
    assert "1 of 4 images, first in image 2" in str(error.value)
    with pytest.raises(UserError, match="held_out"):
        export(Own().eval(), "onnx", tmp_path, images=images(4), held_out=x)


def test_pixels_and_images_that_are_not_stacked_have_a_fix(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    export(Own().eval(), "onnx", tmp_path, images=images(4))
    assert "pixels" not in caplog.text
    export(Own().eval(), "onnx", tmp_path, images=np.abs(images(4)) * 50)
    assert "like pixels that are not normalised" in caplog.text and "images / 255" in caplog.text
    with pytest.raises(UserError, match="not in one array") as error:
        export(Own().eval(), "onnx", tmp_path, images=list(images(4)))  # type: ignore[arg-type]
    assert "np.stack(images)" in str(error.value.fix)
    with pytest.raises(UserError, match="does not run on a batch") as error:
        export(Own().eval(), "onnx", tmp_path, images=images(4)[0, 0])
    assert "float32 [n, C, H, W]" in str(error.value.expected)
    assert "images[None]" in str(error.value.fix)


def test_one_image_of_a_subnet_lacks_an_axis(edited: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="input shape of the network") as error:
        export(edited, "onnx", tmp_path, images=np.zeros(input_shape_of(edited), np.float32))
    assert error.value.fix == "add the axis of the images: images[None]"


@pytest.mark.parametrize("folder", [None, 3, ""])
def test_a_folder_that_is_no_path_is_refused(folder: Any) -> None:
    with pytest.raises(UserError, match="not a path") as error:
        export(Own().eval(), "onnx", folder, images=images(4))
    assert error.value.found == repr(folder) and error.value.fix


@pytest.mark.parametrize("format", ["timm", "features"])
def test_formats_of_subnets_say_what_they_take(format: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="hwnas did not build the network") as error:
        export(Own().eval(), format, tmp_path, images=images(4))
    assert "onnx" in str(error.value.fix) and error.value.where


def test_a_weight_beyond_half_precision_is_found_before_the_rounding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weight_rounding, "half_weights", lambda *_: pytest.fail("rounded"))
    net = Own().eval()
    with torch.no_grad():
        net.head.weight[0, 0] = 7e4
    source = Source(net, SHAPE, tmp_path, {}, images(4))
    with pytest.raises(UserError, match="does not fit into half precision") as error:
        source.in_precision("fp16")
    assert error.value.where == "head.weight" and "--formats" not in str(error.value.fix)
    assert source.in_precision("fp32") is source


def test_without_images_the_input_shape_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="input shape of the network is not known") as error:
        export(Own().eval(), "onnx", tmp_path)
    assert "give `images`" in str(error.value)


def test_a_network_that_onnx_cannot_express_is_refused(tmp_path: Path) -> None:
    class Branching(Own):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) if x.sum() > 1e9 else super().forward(2 * x)

    with pytest.raises(UserError, match="ONNX cannot express the network") as error:
        export(Branching().eval(), "onnx", tmp_path, images=images(4))
    assert "data-dependent" in str(error.value.found) and "torch.where" in str(error.value.fix)
    assert not list(tmp_path.iterdir())


def test_what_the_quantiser_warns_of_is_not_printed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The factors of a LayerNorm of maps stay in float; the quantiser fails on them."""
    torch.manual_seed(0)
    norm = nn.LayerNorm([8, 6, 6])
    nn.init.uniform_(norm.weight, 0.2, 2.0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, 4), norm, nn.Flatten(), nn.Linear(8 * 36, 3))
    path, *_ = export(net.eval(), "onnx:int8", tmp_path / "quiet", images=images(64))
    assert "out-of-range" not in caplog.text
    x = images(256)
    found, expected = open_model("onnx", path).logits(x), torch_logits(net, x)
    assert (found.argmax(1) == expected.argmax(1)).mean() > 0.95


@pytest.mark.parametrize("is_wrong", [False, True])
def test_half_precision_that_is_simply_wrong_is_an_error(
    is_wrong: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Rounding explains a few percent of the largest logit, not a third."""
    logits = torch_logits

    def other(network: nn.Module, x: Images) -> Images:
        found = logits(network, x)
        found[0, 0] += (0.3 if is_wrong else 0.05) * np.abs(found).max()
        return found

    monkeypatch.setattr(formats, "torch_logits", other)
    if is_wrong:
        with pytest.raises(CheckFailed, match="differ from those of the torch network"):
            export(Own().eval(), "fp16", tmp_path, images=images(16))
    else:
        export(Own().eval(), "fp16", tmp_path, images=images(16))
        assert "differs from the torch network" in caplog.text


class Scaled(nn.Module):
    """A network whose attributes and code change its outputs, but neither layers nor weights."""

    def __init__(self, act: Any, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.act, self.conv, self.head = act, nn.Conv2d(3, 8, 3), nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.head(self.act(self.conv(x)).mean((2, 3)))
        return found


def test_files_of_another_network_in_the_folder_are_not_used(tmp_path: Path) -> None:
    """The other network has equal layers and weights; before, its graph was taken."""
    x = images(16)
    export(Scaled(torch.relu).eval(), "onnx", tmp_path, images=x)
    net = Scaled(torch.tanh).eval()
    for format in ("fp16", "onnx", "int8"):
        path, *_ = export(net, format, tmp_path, images=x)
        logits, true = open_model(format, path).run(x), torch_logits(net, x)
        assert np.abs(logits - true).max() < 0.1 * np.abs(true).max(), format


def test_8_bits_of_openvino_are_made_from_the_same_network(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    x = images(16)
    export(Scaled(torch.relu).eval(), "int8", tmp_path, images=x)
    net = Scaled(torch.relu, seed=1).eval()
    for folder in (tmp_path, tmp_path / "fresh"):
        path, *_ = export(net, "openvino:int8", folder, images=x)
        logits, true = open_model("openvino", path).run(x), torch_logits(net, x)
        assert np.abs(logits - true).max() < 0.1 * np.abs(true).max()


def test_a_branch_on_values_is_refused_by_torch_export_with_a_fix(tmp_path: Path) -> None:
    net = Scaled(lambda y: y if y.sum() > -1e9 else -y).eval()
    with pytest.raises(UserError, match=r"torch\.export cannot capture the network") as error:
        export(net, "pt2", tmp_path, images=images(4))
    assert error.value.fix and not [*tmp_path.iterdir()]


def test_a_folder_that_cannot_be_written_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(formats.tempfile, "TemporaryDirectory", refuse)
    with pytest.raises(UserError, match=r"write to the folder[\s\S]*Permission denied"):
        export(Own().eval(), "onnx", tmp_path, images=images(4))


def test_a_full_disk_of_temporary_files_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes) -> int:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match=r"converter[\s\S]*free disk space"):
        saved(Own().eval(), tmp_path, SHAPE)
