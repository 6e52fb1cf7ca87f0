"""PGONAS's residual space: members, oracles, sorted channels, smooth activations, bad input."""

from __future__ import annotations

import pytest
import timm
import torch

from hwnas.core.errors import UserError
from hwnas.nets.extract import extract
from hwnas.nets.features import features_only
from hwnas.nets.pretrained import start_from
from hwnas.nets.subnet import build_subnet
from hwnas.nets.supernet import Supernet
from hwnas.spaces.arch import Arch
from hwnas.spaces.cost import cost
from hwnas.spaces.load import build_space
from hwnas.spaces.space import SearchSpace

RESNETS = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3)}
PARAMS = {"resnet18": 11_689_512, "resnet34": 21_797_672}  # timm's
MACS_18 = 1_814_073_344  # 1.814 G at 224 px


def of_depths(space: SearchSpace, depths: tuple[int, ...]) -> Arch:
    """The arch of these depths, and the largest value everywhere else."""
    left = iter(depths)
    codes = [
        choice.values.index(next(left)) if choice.role == "depth" else allowed[-1]
        for choice, allowed in zip(space.choices, space.allowed, strict=True)
    ]
    return space.arch(codes)


@pytest.mark.parametrize("name", RESNETS)
def test_resnets_are_members_with_timms_parameters_and_logits(name: str) -> None:
    space = build_space("resnet_pgonas", {"resolutions": [64, 224]}, num_classes=1000)
    arch = of_depths(space, RESNETS[name])
    codes = space.codes([arch])
    assert cost(space, codes, "params")[0] == PARAMS[name]
    if name == "resnet18":
        assert cost(space, codes, "macs")[0] == MACS_18
    theirs = timm.create_model(name).eval()
    ours = build_subnet(space, arch, seed=None).eval()
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)


def test_published_weights_start_the_supernet_and_channels_are_sorted() -> None:
    """The most important first channels (L1 of what reads them) come first; logits stay."""
    settings = {"resolutions": [64], "max_depths": [2, 2, 2, 2], "ratios": [0.5, 1.0]}
    space = build_space("resnet_pgonas", settings, num_classes=1000)
    theirs = timm.create_model("resnet18")
    supernet = Supernet(space, seed=0)
    start_from(supernet, theirs.state_dict())
    x = torch.randn(4, 3, 64, 64)
    with torch.no_grad():
        expected = theirs.train()(x)
        found = supernet(x, space.largest())
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()
    names = [name for name in supernet.state_dict() if name.endswith("block0.conv2.weight")]
    assert len(names) == 4
    for name in names:
        importance = supernet.state_dict()[name].abs().sum((0, 2, 3))
        assert (importance.diff() <= 1e-4).all(), name
    narrow = supernet(x, space.smallest())
    assert torch.isfinite(narrow).all()


@pytest.mark.parametrize("out_act", ["relu", "swish"])
def test_the_smooth_activation_is_only_after_the_sum(out_act: str) -> None:
    settings = {"resolutions": [32], "width_mult": 0.25, "out_act": out_act}
    space = build_space("resnet_pgonas", settings, num_classes=5)
    arch = space.smallest()
    net = build_subnet(space, arch, seed=0)
    inner = {type(m).__name__ for n, m in net.named_modules() if n.endswith("act1")}
    outer = {type(m).__name__ for n, m in net.named_modules() if n.endswith("out_act")}
    assert (inner, outer) == ({"ReLU"}, {{"relu": "ReLU", "swish": "SiLU"}[out_act]})
    supernet = Supernet(space, seed=0).double()
    x = torch.randn(4, 3, 32, 32).double()
    with torch.no_grad():
        expected = extract(supernet, arch).train()(x)
        torch.testing.assert_close(supernet(x, arch), expected, rtol=1e-5, atol=1e-5)


def test_feature_maps_have_the_strides_of_a_resnet() -> None:
    space = build_space("resnet_pgonas", {"resolutions": [64]}, num_classes=5)
    pyramid = features_only(build_subnet(space, of_depths(space, (2, 2, 2, 2)), seed=0))
    assert pyramid.feature_info.reduction() == [4, 8, 16, 32]
    assert pyramid.feature_info.channels() == [64, 128, 256, 512]
    maps = pyramid(torch.zeros(1, 3, 64, 64))
    assert [tuple(x.shape[1:]) for x in maps] == [
        (64, 16, 16), (128, 8, 8), (256, 4, 4), (512, 2, 2)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_depths": [1, 2, 2, 2]}, "a number of at least 2"),
        ({"max_depths": [2, 2, 2]}, "max_depths"),
        ({"ratios": [1.2]}, "a number of at most 1"),
        ({"resolutions": [16]}, "a number of at least 32"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_space("resnet_pgonas", settings, num_classes=5)
