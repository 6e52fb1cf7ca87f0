"""Networks of the space `timm` beside timm's own: definitions, logits, gradients, exports."""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

import hwnas
from hwnas.core.config import build_model, settled
from hwnas.core.errors import UserError
from hwnas.core.rng import rng
from hwnas.core.yaml_data import parse_yaml
from hwnas.exporters.formats import export, open_model
from hwnas.exporters.parity import torch_logits
from hwnas.nets.bn import recalibrate
from hwnas.nets.extract import extract
from hwnas.nets.from_timm import published_of, to_yaml
from hwnas.nets.subnet import build_subnet, definition_of
from hwnas.spaces.load import build_space
from hwnas.spaces.lowering import resolution
from hwnas.spaces.published import published_network, published_networks
from hwnas.spaces.space import SearchSpace
from hwnas.spaces.timm import Config
from hwnas.testing.spaces import shaken
from tests.mobile_spaces import headless

FAMILIES = (  # of each head, kind of block, kind of SE and padding
    *("mobilenetv1_100", "mobilenetv2_050", "mobilenetv3_small_050", "mobilenetv3_rw"),
    *("tf_efficientnet_lite0", "tf_efficientnet_b0", "semnasnet_050", "fbnetc_100"),
    *("spnasnet_100", "hardcorenas_a", "tinynet_e", "lcnet_050"),
    *("mobilenetv4_conv_small_050", "tf_efficientnetv2_b0"),
)
PUBLISHED = [
    pytest.param(name, marks=() if name in FAMILIES else pytest.mark.full)
    for name in published_networks()
]


def space(model: str, px: int, **settings: Any) -> SearchSpace:
    return build_space("timm", {"model": model, "resolutions": [px], **settings}, num_classes=1000)


@cache
def theirs(name: str) -> nn.Module:
    """timm's network, no tensor of which has a special value."""
    model = timm.create_model(name)
    generator = torch.Generator().manual_seed(0)
    for key, value in model.state_dict().items():
        if key.endswith("running_var"):
            value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
        elif value.ndim == 1:
            value.add_(0.1 * torch.randn(value.shape, generator=generator))
    return model


def images(px: int, n: int = 2) -> Tensor:
    return torch.from_numpy(rng(0, "images").standard_normal((n, 3, px, px)).astype(np.float32))


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_network_is_timms(name: str) -> None:
    """Its data, every tensor, and with the same weights the logits, at even and odd sizes."""
    model = theirs(name).eval()
    network = published_network(name)
    assert published_of(model) == network
    for px in (48, 55):
        largest = space(name, px).largest()
        ours = build_subnet(space(name, px), largest, seed=None)
        assert {k: v.shape for k, v in ours.state_dict().items()} == {
            k: v.shape for k, v in model.state_dict().items()
        }
        ours.load_state_dict(model.state_dict())
        with torch.no_grad():
            expected, found = model(images(px)), ours.eval()(images(px))
        assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_gradients_with_tensorflows_padding_are_timms() -> None:
    """Through the faster depthwise layers, whose kernels here have 3 and 5 px."""
    name, px = "tf_efficientnet_lite0", 40
    model = deepcopy(theirs(name)).train()
    ours = build_subnet(space(name, px), space(name, px).largest(), seed=None).train()
    ours.load_state_dict(model.state_dict())
    parts = []
    for net in (model, ours):
        net.double().zero_grad()
        net(images(px, 4).double()).square().mean().backward()
        parts.append({key: parameter.grad for key, parameter in net.named_parameters()})
    for key, grad in parts[0].items():
        torch.testing.assert_close(parts[1][key], grad, rtol=1e-6, atol=1e-9, msg=key)


NARROW = {"expands": [2], "width_ratios": [0.5, 1], "pad_mode": "tf_same"}


@pytest.mark.parametrize(
    ("name", "px"),
    [
        ("tinynet_e", 45),
        ("headless", 45),
        pytest.param("tinynet_e", 32, marks=pytest.mark.full),
        pytest.param("headless", 32, marks=pytest.mark.full),
    ],
)
def test_supernet_static_net_onnx_and_litert_compute_the_same(
    name: str, px: int, tmp_path: Path
) -> None:
    """SE of swish and sigmoid, TensorFlow's padding on even and odd maps; a random arch."""
    elastic = headless(px) if name == "headless" else space(name, px, **NARROW)
    arch = elastic.arch(elastic.sample(3, rng=rng(px, "archs"))[2])
    assert resolution(elastic, arch) == px
    supernet = shaken(elastic)
    shape = elastic.macro.in_channels, px, px
    x = rng(1, "images").standard_normal((16, *shape)).astype(np.float32)
    batch = torch.from_numpy(x)
    network = extract(supernet, arch)
    assert definition_of(network)["form"] == ("torch" if name == "headless" else "timm")
    with torch.no_grad():
        expected = supernet(batch.double(), arch)
        torch.testing.assert_close(network(batch.double()), expected, rtol=0, atol=1e-9)
    network = recalibrate(network.float(), [batch])
    logits = torch_logits(network, x)
    for format in ("onnx", "litert"):
        if format == "litert":
            pytest.importorskip("ai_edge_litert", reason="pip install 'hwnas[litert]'")
        (path, *_) = export(network, format, tmp_path, images=x)
        found = open_model(format, path).logits(x, 1)
        assert np.abs(found - logits).max() <= 1e-4 * np.abs(logits).max(), format


@pytest.mark.parametrize(
    "name", ["mobilenetv2_050", "tf_efficientnet_b0", "mobilenetv4_conv_small"]
)
def test_a_networks_file_reads_back(name: str) -> None:
    """One line per block, numbers exactly."""
    network = published_of(timm.create_model(name, bn_eps=0.0012345678901234))
    text = to_yaml(network)
    assert network.bn_eps == 0.0012345678901234
    n_blocks = sum(map(len, network.stages))
    assert len([line for line in text.splitlines() if "kind:" in line]) == n_blocks
    data = {"network": parse_yaml(text, where="test"), "resolutions": [32]}
    elastic = build_space("timm", data, num_classes=10)
    assert elastic.macro.bn_eps == network.bn_eps


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("mobilenetv4_hybrid_medium", "blocks.1.0.layer_scale"),
        ("mobilenetv4_conv_aa_medium", "blocks.0.0.aa"),
        ("mobilenet_edgetpu_v2_xs", "blocks.1.1.conv_exp"),
        ("efficientnet_b0_gn", "conv_stem"),
        ("resnet10t", "the network"),
    ],
)
def test_what_the_space_cannot_hold_is_refused_by_name(name: str, place: str) -> None:
    with pytest.raises(UserError, match=f"does not support(?s:.)*where: {place}"):
        published_of(timm.create_model(name))


def test_a_network_of_timm_becomes_a_space(tmp_path: Path) -> None:
    """By name, by name and tag, and a model that somebody built; nothing is downloaded."""
    listing = hwnas.space_from_timm("mobilenetv2_050", out=tmp_path / "a.yaml")
    assert [row["block"] for row in listing][:2] == ["stage0.block0", "stage1.block0"]
    tagged = hwnas.space_from_timm("mobilenetv2_050.lamb_in1k")
    assert tagged.facts["network"] == listing.facts["network"]
    hwnas.space_from_timm(timm.create_model("mobilenetv2_050"), out=tmp_path / "b.yaml")
    by_name = hwnas.space("timm", model="mobilenetv2_050")
    for file in ("a.yaml", "b.yaml"):
        assert hwnas.space(str(tmp_path / file)).id == by_name.id
    inline = hwnas.space("timm", network=listing.facts["network"])
    assert inline.id == by_name.id


@pytest.mark.parametrize(
    ("name", "out", "message"),
    [
        ("mobilenetv2_1000", None, "has no model(?s:.)*did you mean 'mobilenetv2_100'"),
        ("hf-hub:somebody/something", None, "has no model"),
        ("mobilenetv2_100", "net.json", "a space is written to a YAML file"),
    ],
)
def test_bad_names_and_files_are_refused(name: str, out: str | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        hwnas.space_from_timm(name, out=out)


def test_the_configuration_keeps_a_network_without_its_defaults() -> None:
    """A block that gains a field later leaves hashes of settings as they are."""
    config = Config(network=published_network("mobilenetv2_050"))
    stored = settled(config)["network"]
    assert stored["stages"][0] == [{"kind": "dsconv", "out": 8, "act": "relu6"}]
    assert build_model(Config, {"name": "timm", "network": stored}, where="test") == config
