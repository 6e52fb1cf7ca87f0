"""Static subnets: counts against the cost model and fvcore, weights and logits against timm."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import get_args

import pytest
import timm
import torch
from fvcore.nn import FlopCountAnalysis
from timm.layers import Conv2dSame
from timm.models import EfficientNet, MobileNetV3
from torch import Tensor, nn

from hwnas.core.errors import UserError
from hwnas.nets import definition as definitions
from hwnas.nets.depthwise import DepthwiseConv2d
from hwnas.nets.plain_net import ChannelShuffle, Network
from hwnas.nets.subnet import (
    build_from_definition,
    build_subnet,
    definition_of,
    placed_slots,
    subnet_definition,
    timm_names,
)
from hwnas.nets.supernet import Supernet
from hwnas.spaces.arch import Arch
from hwnas.spaces.cost import cost
from hwnas.spaces.load import build_space
from hwnas.spaces.lowering import resolution
from hwnas.spaces.ops import layers
from hwnas.spaces.padding import same_padding
from hwnas.spaces.skeleton import Ability
from hwnas.spaces.space import SearchSpace
from tests.mobile_spaces import MIXED, MOBILE_SPACES, REGISTERED, STRANGE, headless, some_archs

DEPTHWISE = ("conv_dw", "dw_start", "dw_mid")
TINY = MOBILE_SPACES["mobilenet_tiny"]
ALL = {**MOBILE_SPACES, "headless": headless(33)}
SPACES = pytest.mark.parametrize("space", ALL.values(), ids=ALL)


def images(space: SearchSpace, arch: Arch, n: int = 2) -> Tensor:
    px = resolution(space, arch)
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, space.macro.in_channels, px, px, generator=generator)


@SPACES
def test_params_and_macs_agree_with_the_cost_model_and_with_fvcore(space: SearchSpace) -> None:
    for arch in some_archs(space, 4):
        model = build_subnet(space, arch, seed=None).eval()
        codes = space.codes([arch])
        assert sum(p.numel() for p in model.parameters()) == cost(space, codes, "params")[0]
        count = FlopCountAnalysis(model, images(space, arch, 1)).unsupported_ops_warnings(False)
        flops = count.by_operator()
        assert flops["conv"] + flops["linear"] == cost(space, codes, "macs")[0]


def zeros_around(conv: nn.Conv2d, hw: int) -> tuple[int, int]:
    """Rows on every side, and further ones at the bottom, for maps of `hw` px."""
    if isinstance(conv, Conv2dSame) or getattr(conv, "pads_same", False):
        assert conv.padding == (0, 0)
        return same_padding(hw, conv.kernel_size[0], conv.stride[0])
    return int(conv.padding[0]), getattr(conv, "pad_more", 0)


@SPACES
def test_every_layer_is_the_one_of_lower(space: SearchSpace) -> None:
    for arch in some_archs(space, 4):
        model = build_subnet(space, arch, seed=None)
        maps: dict[str, tuple[int, ...]] = {}
        for name, module in model.named_modules():
            module.register_forward_hook(
                lambda _m, _x, y, maps=maps, name=name: maps.update({name: tuple(y.shape)})
            )
        model(images(space, arch))
        expected = set()
        for _slot, place, op in placed_slots(space, arch):
            for layer in layers(op):
                name, bn = timm_names(place, op, layer)
                module = model.get_submodule(name)
                expected.add(name)
                assert (module.bias is not None) == layer.has_bias
                if isinstance(module, nn.Conv2d):
                    fan_in = layer.in_channels // layer.groups
                    shape = (layer.out_channels, fan_in, layer.kernel, layer.kernel)
                    assert tuple(module.weight.shape) == shape
                    assert zeros_around(module, layer.in_hw) == (layer.padding, layer.pad_more)
                    assert maps[name] == (2, layer.out_channels, layer.out_hw, layer.out_hw)
                assert isinstance(module, DepthwiseConv2d) == (layer.name in DEPTHWISE)
                assert bool(bn) == layer.has_bn
                assert not bn or isinstance(model.get_submodule(bn), nn.BatchNorm2d)
        weighted = (nn.Conv2d, nn.Linear)
        assert expected == {n for n, m in model.named_modules() if isinstance(m, weighted)}


@pytest.mark.parametrize(
    ("shipped", "name"),
    [
        ("mobilenet_v2", "mobilenetv2_100"),
        ("mobilenet_v3_large", "mobilenetv3_large_100"),
        ("mobilenet_v3_small", "mobilenetv3_small_100"),
    ],
)
def test_the_mobilenets_are_those_of_timm(shipped: str, name: str) -> None:
    space = build_space(shipped, {"resolutions": [64]}, num_classes=1000)
    theirs = timm.create_model(name).eval()
    ours = build_subnet(space, space.largest(), seed=None).eval()
    values = theirs.state_dict().values()  # in order: some stages of timm's are two of ours
    ours.load_state_dict(dict(zip(ours.state_dict(), values, strict=True)))
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize("name", MOBILE_SPACES)
def test_a_network_is_a_timm_model_where_timms_blocks_can_say_it(name: str) -> None:
    expected = {"mobilenet_v3": {MobileNetV3}}
    expected |= {key: {Network} for key in ("attentive_nas", "strange", "resnet_pgonas")}
    expected |= {key: {MobileNetV3} for key in ("timm", "mobilenet_v4")}
    expected["fbnet"] = {EfficientNet, Network}  # by whether an arch has groups
    space = MOBILE_SPACES[name]
    found = {type(build_subnet(space, arch, seed=None)) for arch in some_archs(space, 8)}
    assert found == expected.get(name, {EfficientNet})


@pytest.mark.parametrize(
    "name", ["mobilenet_v3", "mobilenet_v4", "nasbench_macro", "mixed", "timm"]
)
def test_plain_networks_compute_what_timms_do(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    space = MOBILE_SPACES[name]
    for arch in some_archs(space, 3):
        theirs = build_subnet(space, arch)
        with monkeypatch.context() as patch:
            patch.setattr(definitions, "_timm_can_say", lambda network: False)
            ours = build_subnet(space, arch)
        assert type(ours) is Network and type(theirs) is not Network
        assert {k: v.shape for k, v in ours.state_dict().items()} == {
            k: v.shape for k, v in theirs.state_dict().items()
        }
        for key, weight in ours.named_parameters():  # equal initialisation, as a distribution
            other = theirs.get_parameter(key)
            if weight.numel() > 500:
                assert weight.std().item() == pytest.approx(other.std().item(), rel=0.2), key
        ours.load_state_dict(theirs.state_dict())
        x = images(space, arch)
        torch.testing.assert_close(ours(x), theirs(x))


def test_channel_shuffle_is_torchs() -> None:
    x = torch.randn(2, 12, 3, 3)
    assert torch.equal(ChannelShuffle(4)(x), nn.functional.channel_shuffle(x, 4))


def test_a_shortcut_that_changes_the_shape_pools_and_projects() -> None:
    """With the main branch silenced, a block is its shortcut; written down by hand."""
    model = build_subnet(STRANGE, STRANGE.largest()).eval()
    block = model.blocks[1][0]
    nn.init.zeros_(block.bn3.weight)
    x = torch.randn(1, 12, 5, 5)
    rows = [[x[..., i : i + 2, j : j + 2].mean((2, 3)) for j in (0, 2, 4)] for i in (0, 2, 4)]
    pooled = torch.stack([torch.stack(row, -1) for row in rows], -2)
    expected = torch.einsum("oi,bihw->bohw", block.conv_shortcut.weight[..., 0, 0], pooled)
    torch.testing.assert_close(block(x), expected)


@SPACES
def test_the_definition_builds_the_same_network_after_a_trip_through_json(
    space: SearchSpace,
) -> None:
    arch = some_archs(space, 3)[-1]
    model = build_subnet(space, arch).eval()
    definition = json.loads(json.dumps(subnet_definition(space, arch)))
    assert definition == definition_of(model)
    assert definition["resolution"] == resolution(space, arch)
    assert re.fullmatch("hwnas_[0-9a-f]{16}", definition["name"])
    again = build_from_definition(definition, seed=1).eval()
    assert definition == subnet_definition(space, arch), "building does not use it up"
    again.load_state_dict(model.state_dict())
    x = images(space, arch)
    torch.testing.assert_close(again(x), model(x))


@pytest.mark.parametrize("space", [TINY, STRANGE], ids=lambda space: space.name)
def test_the_definition_carries_the_epsilon_of_batch_norm(space: SearchSpace) -> None:
    model = build_from_definition(subnet_definition(space, space.largest(), bn_eps=0.001))
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) > 3 and {norm.eps for norm in norms} == {0.001}


def test_a_network_from_elsewhere_has_no_definition() -> None:
    with pytest.raises(UserError, match="hwnas did not build the network"):
        definition_of(nn.Linear(1, 1))


def test_weights_depend_on_the_seed_alone_and_leave_the_global_generator() -> None:
    before = torch.random.get_rng_state()
    one, same, other = (build_subnet(TINY, TINY.smallest(), seed=s) for s in (1, 1, 2))
    build_subnet(TINY, TINY.smallest(), seed=None)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(one.conv_stem.weight, same.conv_stem.weight)
    assert not torch.equal(one.conv_stem.weight, other.conv_stem.weight)


@pytest.mark.parametrize("name", REGISTERED)
def test_what_a_space_can_do_works_and_what_it_lacks_is_refused_with_the_reason(name: str) -> None:
    space = REGISTERED[name]
    doors: dict[Ability, Callable[[], object]] = {
        "supernet": lambda: Supernet(space, seed=0),
        "static net": lambda: build_subnet(space, space.largest(), seed=None),
    }
    assert set(doors) == set(get_args(Ability)) >= set(space.macro.lacks)
    for ability, build in doors.items():
        if ability not in space.macro.lacks:
            assert isinstance(build(), nn.Module)
            continue
        with pytest.raises(UserError, match=re.escape(space.macro.lacks[ability])):
            build()


def test_an_arch_of_another_space_is_refused() -> None:
    with pytest.raises(UserError, match="another space"):
        build_subnet(TINY, MIXED.largest())
