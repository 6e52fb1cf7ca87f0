"""Files that are not what they should be: refused with what to do, and nothing in them runs."""

from __future__ import annotations

import argparse
import os
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import hwnas
from hwnas.core.errors import UserError
from hwnas.nets.origin import Origin
from hwnas.nets.pretrained import read_weights, start_from
from hwnas.nets.pretrained_import import import_weights
from hwnas.nets.supernet import Supernet
from hwnas.spaces.load import build_space
from hwnas.training.checkpoint import weights_bytes
from tests.published_layouts import attentive_weights

ALPHANET = "alphanet_pretrained.pth.tar"


class Evil:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self._path}",)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("name", ["w.pth", "w.pth.tar", "ofa_w1.0", "w"])
def test_a_file_that_carries_code_is_refused_and_nothing_runs(
    name: str, tmp_path: Path, *, legacy: bool
) -> None:
    mark, path = tmp_path / "ran", tmp_path / name
    found = {"state_dict": {"w": torch.ones(2)}, "extra": Evil(mark)}
    torch.save(found, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(UserError, match="no code was run") as caught:
        read_weights(path)
    assert "system" in str(caught.value)
    assert not mark.exists()
    torch.load(path, weights_only=False)
    assert mark.exists(), "the file does carry code"


@pytest.mark.parametrize("name", ["w.pth", "my weights.pth.tar", "ofa_w1.0"])
def test_the_two_lines_convert_a_trusted_file(name: str, tmp_path: Path) -> None:
    weights = {"a.weight": torch.arange(6.0).view(2, 3).t(), "a.bias": torch.ones(2)}
    torch.save({"state_dict": weights, "args": argparse.Namespace(lr=1)}, tmp_path / name)
    with pytest.raises(UserError, match="Namespace") as caught:
        read_weights(tmp_path / name)
    assert caught.value.fix is not None
    lines = caught.value.fix.splitlines()[-2:]
    exec("\n".join(lines), {})
    (written,) = tmp_path.glob("*.safetensors")
    found = load_file(written)
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[name], weights[name]) for name in weights)


def test_a_compressed_file_is_refused(tmp_path: Path) -> None:
    """A file of two megabytes could hold a tensor of two gigabytes."""
    torch.save({"w": torch.zeros(1000)}, tmp_path / "plain.pth")
    with (
        zipfile.ZipFile(tmp_path / "plain.pth") as plain,
        zipfile.ZipFile(tmp_path / "w.pth", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    assert read_weights(tmp_path / "plain.pth")["w"].shape == (1000,)
    with pytest.raises(UserError, match=r"compressed archive[\s\S]*fix: save .*torch\.save") as no:
        read_weights(tmp_path / "w.pth")
    assert str(no.value.found).endswith("is compressed")


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("kept", [0, 3, 60, 500, 0.5, 0.99])
def test_a_truncated_file_is_refused(kept: float, tmp_path: Path, *, legacy: bool) -> None:
    path = tmp_path / "w.pth"
    weights = {f"w{i}": torch.ones(100) for i in range(20)}
    torch.save({"state_dict": weights}, path, _use_new_zipfile_serialization=not legacy)
    data = path.read_bytes()
    path.write_bytes(data[: kept if isinstance(kept, int) else int(kept * len(data))])
    with pytest.raises(UserError, match=r"damaged[\s\S]*w\.pth"):
        read_weights(path)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (torch.ones(3), "an object of the type Tensor"),
        ({}, "an empty dictionary"),
        ([torch.ones(3)], "an object of the type list"),
        (
            {"state_dict": {"a": torch.ones(2), "b": 3}},
            "the key 'b' with an object of the type int",
        ),
        (
            {"state_dict": {1: torch.ones(2)}},
            "the key 1, which is not a text",
        ),
        (
            {"w": torch.ones(3).to_sparse()},
            "the key 'w' with a tensor of the layout sparse_coo on the device cpu",
        ),
    ],
    ids=["tensor", "empty", "list", "number", "nameless", "sparse"],
)
def test_what_is_no_state_dict_is_refused(content: object, found: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(UserError, match="no state dict") as caught:
        read_weights(tmp_path / "w.pth")
    assert caught.value.found == found and "model.state_dict()" in str(caught.value.fix)


def test_a_pipe_in_the_place_of_weights_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"w\.pth"):
        read_weights(tmp_path / "w.pth")


def test_weights_of_another_network_name_the_tensor_and_the_nearest(tmp_path: Path) -> None:
    path = tmp_path / ALPHANET
    torch.save(attentive_weights(), path)
    space = build_space("mobilenet_v3", {"resolutions": [64]}, num_classes=1000)
    supernet = Supernet(space, seed=0)
    before = {name: value.clone() for name, value in supernet.state_dict().items()}
    with pytest.raises(UserError, match=r"first_conv\.conv\.weight") as caught:
        start_from(supernet, path)
    assert "attentive_nas" in str(caught.value.fix)
    assert "a tensor of shape [" in str(caught.value)
    assert all(torch.equal(v, before[n]) for n, v in supernet.state_dict().items())
    assert supernet.origin is None


def test_a_network_that_is_nearly_known_is_told_from_the_nearest(tmp_path: Path) -> None:
    weights = attentive_weights()
    name = "blocks.3.mobile_inverted_conv.depth_conv.conv.conv.weight"
    weights[name] = torch.ones(192, 1, 7, 7)
    torch.save(weights, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"blocks\.3\.depth_conv[\s\S]*AttentiveNAS") as caught:
        import_weights(tmp_path / "w.pth")
    assert "[192, 1, 5, 5]" in str(caught.value) and "[192, 1, 7, 7]" in str(caught.value)
    del weights[name]
    torch.save(weights, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"blocks\.3\.depth_conv[\s\S]*no such tensor"):
        import_weights(tmp_path / "w.pth")
    weights = {**attentive_weights(), "blocks.99.mobile_inverted_conv.x.weight": torch.ones(1)}
    torch.save(weights, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"blocks\.99"):
        import_weights(tmp_path / "w.pth")


def test_a_network_of_another_kind_is_of_none_that_can_be_imported(tmp_path: Path) -> None:
    torch.save({"conv1.weight": torch.ones(64, 3, 7, 7)}, tmp_path / "resnet.pth")
    with pytest.raises(UserError, match=r"conv1\.weight[\s\S]*pretrained list"):
        import_weights(tmp_path / "resnet.pth")


def test_a_head_of_other_classes_needs_num_classes(tmp_path: Path) -> None:
    path, out = tmp_path / ALPHANET, tmp_path / "ten.safetensors"
    torch.save({"state_dict": attentive_weights(num_classes=12)}, path)
    supernet = Supernet(build_space("attentive_nas", num_classes=10), seed=0)
    with pytest.raises(UserError, match=r"10 classes[\s\S]*12 classes") as caught:
        start_from(supernet, path)
    assert "--num-classes 10" in str(caught.value.fix)
    found = hwnas.pretrained_import(path, out=out, num_classes=10)
    assert found.supernet.space.macro.num_classes == 10
    start_from(supernet, out)
    assert supernet.origin == found.supernet.origin
    assert supernet.origin is not None and supernet.origin.licence == "CC-BY-NC-4.0"
    assert supernet.state_dict()["classifier.linear.weight"].shape == (10, 1984)
    assert supernet.state_dict()["classifier.linear.weight"].std() > 0.01
    theirs = attentive_weights()["last_conv.feature_mix_layer.conv.conv.weight"]
    assert torch.equal(supernet.state_dict()["feature.conv.weight"], theirs)


def test_the_licence_travels_and_is_warned_of_at_export(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    space = build_space("mobilenet_tiny", {"resolutions": [16]}, num_classes=10)
    origin = Origin("AlphaNet", "CC-BY-NC-4.0", "https://there", ALPHANET, "0" * 64)
    given, path = Supernet(space, seed=1), tmp_path / "w.safetensors"
    given.origin = origin
    path.write_bytes(weights_bytes(given, {}))
    supernet = Supernet(space, seed=0)
    start_from(supernet, path)
    assert supernet.origin == origin
    net = supernet.extract(space.smallest(), recalibrate_on=[torch.randn(8, 3, 16, 16)])
    hwnas.export(net, "onnx", tmp_path)
    (warning,) = [r.message for r in caplog.records if r.levelname == "WARNING"]
    assert "CC-BY-NC-4.0" in warning and "AlphaNet" in warning
    import onnx

    facts = {p.key: p.value for p in onnx.load(tmp_path / "model.onnx").metadata_props}
    assert facts["licence_of_weights"] == "CC-BY-NC-4.0" and ALPHANET in facts["origin"]


def test_a_licence_can_be_given(tmp_path: Path) -> None:
    torch.save(attentive_weights(num_classes=10), tmp_path / "mine.pth")
    found = hwnas.pretrained_import(tmp_path / "mine.pth", licence="Apache-2.0")
    assert found.supernet.origin is not None and found.supernet.origin.is_free


def test_what_weights_say_of_themselves_is_checked(tmp_path: Path) -> None:
    space = build_space("mobilenet_tiny", num_classes=10)
    state = Supernet(space, seed=0).state_dict()
    for said in ("{", "[1]", '{"network": 3}'):
        save_file(state, tmp_path / "w.safetensors", {"origin": said})
        with pytest.raises(UserError, match=r"w\.safetensors"):
            start_from(Supernet(space, seed=0), tmp_path / "w.safetensors")
