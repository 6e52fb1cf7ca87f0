"""A network as a feature extractor: the maps that timm's `features_only` gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import timm
import torch
from timm.models._features import FeatureGetterNet
from torch import nn

import hwnas
from hwnas.core.errors import UserError
from hwnas.nets.features import features_only
from hwnas.nets.subnet import build_subnet, definition_of
from hwnas.spaces.lowering import resolution
from tests.mobile_spaces import MOBILE_SPACES, some_archs


def network_and_images(name: str) -> tuple[nn.Module, torch.Tensor]:
    space = MOBILE_SPACES[name]
    arch = some_archs(space, 3)[1]
    px = resolution(space, arch)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, space.macro.in_channels, px, px, generator=generator)
    return build_subnet(space, arch).eval(), images


@pytest.mark.parametrize("name", MOBILE_SPACES)
def test_the_maps_are_the_last_of_every_stride_as_in_timm(name: str) -> None:
    network, images = network_and_images(name)
    pyramid = features_only(network)
    with torch.no_grad():
        maps = pyramid(images)
    channels, strides = pyramid.feature_info.channels(), pyramid.feature_info.reduction()
    assert strides == sorted(set(strides)) and len(strides) > 1
    for found, n, stride in zip(maps, channels, strides, strict=True):
        px = -(-images.shape[-1] // stride)
        assert found.shape == (2, n, px, px)
    if definition_of(network)["form"] == "timm":
        theirs = FeatureGetterNet(network, len(strides))
        assert theirs.feature_info.channels() == channels
        assert theirs.feature_info.reduction() == strides
        with torch.no_grad():
            assert all(torch.equal(a, b) for a, b in zip(theirs(images), maps, strict=True))


@pytest.mark.parametrize(
    ("space", "name"),
    [("mobilenet_v2", "mobilenetv2_100"), ("mobilenet_v3_large", "mobilenetv3_large_100")],
)
def test_known_networks_have_the_channels_that_timm_says(space: str, name: str) -> None:
    network = build_subnet(found := hwnas.space(space), found.largest())
    info = features_only(network).feature_info
    theirs = timm.create_model(name, features_only=True).feature_info
    assert (info.channels(), info.reduction()) == (theirs.channels(), theirs.reduction())


def test_some_strides_need_only_the_blocks_before_them() -> None:
    network, images = network_and_images("mobilenet_v3")
    every, some = features_only(network), features_only(network, strides=(4, 8))
    assert some.feature_info.reduction() == [4, 8]
    with torch.no_grad():
        maps = every(images)
        assert all(torch.equal(a, b) for a, b in zip(some(images), maps[1:3], strict=True))
    assert len(list(some.parameters())) < len(list(every.parameters()))
    assert set(some.state_dict()) < set(every.state_dict()) < set(network.state_dict())


def test_weights_are_a_copy_that_trains() -> None:
    network, images = network_and_images("strange")
    pyramid = features_only(network.train())
    assert pyramid.training
    sum(found.square().mean() for found in pyramid(images)).backward()
    assert all(p.grad is not None for p in pyramid.parameters())
    assert all(p.grad is None for p in network.parameters())


@pytest.mark.parametrize("strides", [(3,), (4, 64)])
def test_strides_that_the_network_lacks_are_refused(strides: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="strides among 2, 4, 8, 16, 32"):
        features_only(network_and_images("mobilenet_v3")[0], strides)


def test_any_other_network_is_refused() -> None:
    with pytest.raises(UserError, match="hwnas did not build the network"):
        features_only(nn.Sequential(nn.Conv2d(3, 4, 3)))


@pytest.mark.parametrize("name", ["mobilenet_tiny", "strange"])
def test_onnx_has_the_maps_beside_the_logits(name: str, tmp_path: Path) -> None:
    network, images = network_and_images(name)
    (path,) = hwnas.export(network, "features", tmp_path)
    session = onnxruntime.InferenceSession(path)
    pyramid = features_only(network)
    names = [f"stride{stride}" for stride in pyramid.feature_info.reduction()]
    assert [tensor.name for tensor in session.get_outputs()] == ["logits", *names]
    with torch.no_grad():
        maps, logits = pyramid(images), network(images)
    found = session.run(["logits", *names], {"input": images.numpy()})
    for ours, theirs in zip([logits, *maps], found, strict=True):
        scale = float(ours.abs().max())
        np.testing.assert_allclose(theirs, ours.numpy(), rtol=0, atol=1e-5 * max(1.0, scale))
