"""Networks as users have them: hooks, masks, wrappers, other devices, threads, their own files."""

from __future__ import annotations

import logging
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import hwnas
from hwnas.core.errors import UserError
from hwnas.exporters import capture
from hwnas.exporters.formats import open_model
from hwnas.exporters.logit_scale import logit_scale
from hwnas.exporters.parity import compare, torch_logits

IMAGES = np.random.default_rng(0).standard_normal((8, 3, 8, 8)).astype(np.float32)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(8, 5)).eval()


class After(nn.Module):
    """A network with something after it."""

    def __init__(self, what: Any) -> None:
        super().__init__()
        self.body, self.what = network(), what

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.what(self.body(x))
        return found


def agrees(net: nn.Module, path: Path) -> None:
    expected, found = torch_logits(net, IMAGES), open_model("onnx", path).logits(IMAGES)
    np.testing.assert_allclose(found, expected, atol=1e-5)


# --- what the network computes ------------------------------------------------------------------


@pytest.mark.parametrize("layer", [0, 1, 3])
def test_hooks_are_part_of_the_network(layer: int, tmp_path: Path) -> None:
    net = network()
    net[layer].register_forward_hook(lambda _module, _given, found: found * 3 + 1)
    (path,) = hwnas.export(net, "onnx", tmp_path, images=IMAGES)
    agrees(net, path)


@pytest.mark.parametrize("mask", [-1e4, -1e6, -1e9, 1e9])
def test_a_masked_class_hides_no_difference(mask: float) -> None:
    expected = np.random.default_rng(0).normal(0, 3, (16, 5)).astype(np.float32)
    expected[:, 4] = mask
    other = expected.copy()
    other[:, :4] += np.random.default_rng(1).normal(0, 2, (16, 4)).astype(np.float32)
    plain = compare(expected[:, :4], other[:, :4])
    masked = compare(expected, other)
    assert masked.relative == pytest.approx(plain.relative) and masked.relative > 0.01
    if mask < 0:
        assert masked.top1_agreement == plain.top1_agreement < 1
    other = expected.copy()
    other[:, 4] *= 1 + 1e-5  # relative to the mask itself
    assert compare(expected, other).relative == pytest.approx(1e-5, rel=0.1)


def test_large_logits_that_vary_are_no_masks() -> None:
    logits = np.array([[1.0, 4e3], [2.0, -5e3]], np.float32)
    np.testing.assert_array_equal(logit_scale(logits), [[5e3, 5e3]])
    constant = np.full((4, 3), 2e3, np.float32)  # all classes
    np.testing.assert_array_equal(logit_scale(constant), [[2e3] * 3])


@pytest.mark.parametrize(
    "what",
    [lambda y: y.cumsum(0), lambda y: y + torch.tensor([0.1]) * len(y), lambda y: y.sort(0)[0]],
)
def test_images_that_read_others_are_refused(what: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="depend on the other images"):
        hwnas.export(After(what).eval(), "onnx", tmp_path, images=IMAGES)


def test_logits_of_another_type_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not compute in float32") as error:
        hwnas.export(After(lambda y: y.double()).eval(), "onnx", tmp_path, images=IMAGES)
    assert error.value.found == "logits in float64"


@pytest.mark.parametrize("kind", [nn.Dropout2d, nn.AlphaDropout, nn.Dropout, nn.BatchNorm2d])
def test_every_layer_in_training_mode_is_named(kind: type[nn.Module], tmp_path: Path) -> None:
    net = (
        nn.Sequential(kind(3), network())
        if kind is nn.BatchNorm2d
        else nn.Sequential(kind(0.5), network())
    )
    net.eval()[0].train()
    with pytest.raises(UserError, match="in training mode") as error:
        hwnas.export(net, "onnx", tmp_path, images=IMAGES)
    assert error.value.where == "0" and error.value.fix == "call network.eval()"


# --- wrappers, devices, types -------------------------------------------------------------------


def test_wrapped_networks_are_unwrapped(tmp_path: Path) -> None:
    net = network()
    for number, wrapped in enumerate((torch.compile(net), nn.DataParallel(net))):
        (path,) = hwnas.export(wrapped, "onnx", tmp_path / str(number), images=IMAGES)
        agrees(net, path)


@pytest.mark.parametrize("how", ["script", "trace"])
def test_what_is_no_module_of_python_is_refused(how: str, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net: Any = {
            "script": lambda: torch.jit.script(network()),
            "trace": lambda: torch.jit.trace(network(), torch.zeros(1, 3, 8, 8)),
        }[how]()
    with pytest.raises(UserError, match="not a module of Python") as error:
        hwnas.export(net, "onnx", tmp_path, images=IMAGES)
    assert error.value.fix


def test_weights_that_are_missing_or_cannot_be_copied_are_named(tmp_path: Path) -> None:
    with torch.device("meta"):
        empty = network()
    with torch.inference_mode():
        built = network()
    for net, wrong in ((empty, "weights without values"), (built, r"torch\.inference_mode")):
        with pytest.raises(UserError, match=wrong) as error:
            hwnas.export(net, "onnx", tmp_path, images=IMAGES)
        assert error.value.where == "0.weight" and error.value.fix


@pytest.mark.parametrize(
    "images",
    [
        torch.zeros(4, 3, 8, 8, device="meta"),
        torch.zeros(4, 3, 8, 8).to_sparse(),
        np.zeros((4, 3, 0, 8), np.float32),
        np.zeros((0, 3, 8, 8), np.float32),
        [(torch.zeros(3, 8, 8), 1), (torch.zeros(3, 8, 8), 0)],
    ],
)
def test_odd_images_are_refused_with_a_fix(images: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        hwnas.export(network(), "onnx", tmp_path, images=images)
    assert error.value.where == "images" and error.value.fix


def test_images_to_read_only_are_taken_without_a_warning(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", IMAGES)
    images = np.load(tmp_path / "x.npy", mmap_mode="r")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (path,) = hwnas.export(network(), "onnx", tmp_path, images=images)
    agrees(network(), path)


@pytest.mark.parametrize("metadata", ["abc", {"a": "\ud800"}, [("a", "b")]])
def test_metadata_that_cannot_be_stored_are_refused_first(metadata: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no mapping of texts") as error:
        hwnas.export(network(), "onnx", tmp_path, images=IMAGES, metadata=metadata)
    assert error.value.where == "metadata" and error.value.fix and not [*tmp_path.iterdir()]


# --- files and threads --------------------------------------------------------------------------


@pytest.mark.parametrize("folder", ["a\0b", "n" * 300])
def test_folders_that_cannot_be(folder: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="folder of the exported files") as error:
        hwnas.export(network(), "onnx", f"{tmp_path}/{folder}", images=IMAGES)
    assert error.value.fix


def test_a_folder_in_the_place_of_a_file_stays(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").mkdir()
    with pytest.raises(UserError, match="that hwnas did not write") as error:
        hwnas.export(network(), "onnx", tmp_path, images=IMAGES)
    assert error.value.found == "a folder" and [*tmp_path.iterdir()] == [tmp_path / "model.onnx"]


def test_code_of_the_user_is_not_replaced(tmp_path: Path) -> None:
    space = hwnas.space("mobilenet_tiny", num_classes=4)
    from hwnas.nets.subnet import build_subnet

    net = build_subnet(space, space.smallest(), seed=0).eval()
    (tmp_path / "model.py").write_text("print('mine')\n")
    with pytest.raises(UserError, match="that hwnas did not write") as error:
        hwnas.export(net, "timm", tmp_path)
    assert error.value.found == "other code"
    assert [path.name for path in tmp_path.iterdir()] == ["model.py"]
    (tmp_path / "model.py").unlink()
    for _ in range(2):  # its own code is replaced
        assert len(hwnas.export(net, "timm", tmp_path)) == 3


def test_files_are_moved_together_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hwnas.exporters import formats

    staged, folder = tmp_path / "staged", tmp_path / "out"
    for where, text in ((staged, "new"), (folder, "old")):
        where.mkdir()
        for name in ("model.xml", "model.bin"):
            (where / name).write_text(text)
    files = staged / "model.xml", staged / "model.bin"
    replace = formats.os.replace

    def fails(source: Path, target: Path) -> None:
        if target == folder / "model.xml" and source == files[0]:
            raise PermissionError(1, "Operation not permitted", str(source), None, str(target))
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(formats.os, "replace", fails)
        with pytest.raises(UserError, match="cannot replace a file") as error:
            formats._moved(files, folder)
    assert str(error.value.where) == str(folder / "model.xml") and error.value.fix
    assert {path.name: path.read_text() for path in folder.iterdir()} == {
        "model.xml": "old", "model.bin": "old",
    }  # fmt: skip


def test_exports_in_threads_leave_streams_and_logs_as_they_were() -> None:
    before = sys.stdout, sys.stderr, logging.root.manager.disable
    inside = []

    def silence() -> None:
        with capture.quiet():
            inside.append(sys.stdout)
            start.wait(0.2)
            inside.append(sys.stdout)

    start = threading.Event()
    threads = [threading.Thread(target=silence) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (sys.stdout, sys.stderr, logging.root.manager.disable) == before
    pairs = [*zip(inside[::2], inside[1::2], strict=True)]
    assert len(pairs) == 3 and all(one is other for one, other in pairs), "one after the other"
