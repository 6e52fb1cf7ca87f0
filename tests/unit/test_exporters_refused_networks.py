"""A failed export of a network of a user loses nothing, and says what is wrong with the network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import hwnas
from hwnas.core.errors import CheckFailed, UserError
from hwnas.exporters import REGISTRY
from hwnas.exporters.formats import open_model
from hwnas.exporters.parity import torch_logits

IMAGES = np.random.default_rng(0).standard_normal((8, 3, 16, 16)).astype(np.float32)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(8, 5)).eval()


class Random(nn.Module):
    """Its outputs are others whenever it runs."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3)) + torch.rand(x.shape[0], 3)


class Divided(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3)) / (x.mean((2, 3)) * 0)


class Otherwise(nn.Module):
    """Computes something else when it is exported."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3)) * (-1 if torch.compiler.is_exporting() else 1)


class OfTheBatch(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3)) - x.mean((0, 2, 3))


class Maps(nn.Module):
    """Returns a map of classes, as for segmentation."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.head(x)
        return found


def test_a_file_that_fails_its_check_does_not_replace_a_good_one(tmp_path: Path) -> None:
    (path,) = hwnas.export(network(), "onnx", tmp_path, images=IMAGES)
    good = path.read_bytes()
    with pytest.raises(CheckFailed, match="differ from those of the torch network") as error:
        hwnas.export(Otherwise().eval(), "onnx", tmp_path, images=IMAGES)
    assert error.value.where == path and error.value.fix
    assert path.read_bytes() == good
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(CheckFailed):
        hwnas.export(Otherwise().eval(), "onnx", tmp_path / "new", images=IMAGES)
    assert not list((tmp_path / "new").iterdir())


def test_a_checked_file_replaces_an_older_one(tmp_path: Path) -> None:
    other = network()
    with torch.no_grad():
        other[0].weight.mul_(-1)  # type: ignore[operator]
    (path,) = hwnas.export(network(), "onnx", tmp_path, images=IMAGES)
    assert hwnas.export(other, "onnx", tmp_path, images=IMAGES) == (path,)
    found = open_model("onnx", path).logits(IMAGES)
    np.testing.assert_allclose(found, torch_logits(other, IMAGES), atol=1e-5)


def test_flipped_and_strided_images_are_copied(tmp_path: Path) -> None:
    for number, images in enumerate((IMAGES[:, :, ::-1, ::-1], IMAGES[::2, :, ::2])):
        net = network()
        (path,) = hwnas.export(net, "onnx", tmp_path / str(number), images=images)
        same = np.ascontiguousarray(images)
        found = open_model("onnx", path).logits(same)
        np.testing.assert_allclose(found, torch_logits(net, same), atol=1e-5)


def test_a_part_in_training_mode_is_named_and_left_as_it_is(tmp_path: Path) -> None:
    net = network()
    net[1].train()
    with pytest.raises(UserError, match="in training mode") as error:
        hwnas.export(net, "onnx", tmp_path, images=IMAGES)
    assert (error.value.where, error.value.found) == ("1", "BatchNorm2d in training mode")
    assert net[1].training


@pytest.mark.parametrize(
    ("net", "wrong", "where"),
    [
        (network(), "weights that are not finite", "5.bias"),
        (Divided().eval(), "outputs of the network are not finite", "images"),
    ],
)
def test_what_is_not_finite_is_said_before_the_conversion(
    net: nn.Module, wrong: str, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hwnas.exporters import formats

    monkeypatch.setattr(formats, "export_safely", lambda *_, **__: pytest.fail("converted"))
    if isinstance(net, nn.Sequential):
        with torch.no_grad():
            net[5].bias[2] = float("nan")  # type: ignore[index]
    with pytest.raises(UserError, match=wrong) as error:
        hwnas.export(net, "onnx", tmp_path, images=IMAGES)
    assert error.value.where == where and error.value.fix


@pytest.mark.parametrize("folder", ["", None, 3])
def test_what_is_no_path_is_no_folder(folder: Any) -> None:
    with pytest.raises(UserError, match="is not a path") as error:
        hwnas.export(network(), "onnx", folder, images=IMAGES)
    assert error.value.found == repr(folder)


@pytest.mark.parametrize("name", ["file", "file/deeper"])
def test_a_file_instead_of_the_folder_is_said_before_the_conversion(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hwnas.exporters import formats

    monkeypatch.setattr(formats, "export_safely", lambda *_, **__: pytest.fail("converted"))
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="cannot create or write to the folder") as error:
        hwnas.export(network(), "onnx", tmp_path / name, images=IMAGES)
    known: Any = error.value
    assert known.where == tmp_path / name and known.fix
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    ("net", "wrong"),
    [(Random(), "of the network are random"), (OfTheBatch(), "depend on the other images")],
)
def test_what_is_no_function_of_an_image_is_refused(
    net: nn.Module, wrong: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=wrong) as error:
        hwnas.export(net.eval(), "onnx", tmp_path, images=IMAGES)
    assert error.value.where == "forward() of the network" and error.value.fix


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_a_network_in_another_type_is_told_to_be_converted(
    dtype: torch.dtype, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="does not compute in float32") as error:
        hwnas.export(network().to(dtype), "onnx", tmp_path, images=IMAGES)
    assert error.value.where == "0.weight" and error.value.fix == "call network.float()"
    assert hwnas.export(network().to(dtype).float(), "onnx", tmp_path, images=IMAGES)


def test_maps_of_classes_are_exported(tmp_path: Path) -> None:
    (path,) = hwnas.export(Maps().eval(), "onnx", tmp_path, images=IMAGES)
    assert open_model("onnx", path).logits(IMAGES).shape == (8, 4, 16, 16)


class OneImage(nn.Module):
    """Takes batches of one image only."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(768, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.head(x.reshape(1, -1))
        return found


class Branch(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3)) if x.sum() > -1e9 else x.amax((2, 3))


@pytest.mark.parametrize("net", [OneImage(), Branch()])
def test_torch_prints_nothing_beside_the_error(
    net: nn.Module, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match="ONNX cannot express the network") as error:
        hwnas.export(net.eval(), "onnx", tmp_path, images=IMAGES)
    assert not str(error.value.found).endswith(":")
    assert capfd.readouterr() == ("", "")


def test_weights_without_a_network_are_not_taken_for_several_networks(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing to export") as error:
        hwnas.export(network().state_dict(), "onnx", tmp_path)  # type: ignore[call-overload]
    assert "load_state_dict" in str(error.value.fix)


@pytest.mark.parametrize("format", ["pt2", "litert", "coreml", "executorch", "ncnn"])
def test_a_branch_is_named_and_nothing_is_printed(
    format: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    if REGISTRY.describe(format).missing:
        pytest.skip(f"{format} is not installed")
    with pytest.raises(UserError, match=r"torch\.export cannot capture|ONNX cannot") as error:
        hwnas.export(Branch().eval(), format, tmp_path, images=IMAGES)
    assert Path(__file__).name in str(error.value.where)
    assert "torch.where" in str(error.value.fix)
    assert capfd.readouterr() == ("", "") and not [*tmp_path.iterdir()]
