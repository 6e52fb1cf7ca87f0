"""Static subnets: counts against the cost model and fvcore, weights and logits against timm."""

from __future__ import annotations

import json

import pytest
import timm
import torch
from fvcore.nn import FlopCountAnalysis
from timm.models.efficientnet import EfficientNet
from torch import nn

from hwnas.core.errors import UserError
from hwnas.core.rng import rng
from hwnas.nets.subnet import (
    active_slots,
    build_from_definition,
    build_subnet,
    subnet_definition,
    timm_names,
)
from hwnas.spaces import mobilenet_tiny
from hwnas.spaces.arch import Arch
from hwnas.spaces.cost import cost
from hwnas.spaces.macro import MobileMacro, Stage
from hwnas.spaces.ops import layers
from hwnas.spaces.space import SearchSpace

TINY = mobilenet_tiny.build(mobilenet_tiny.Config(resolutions=(16, 20)), num_classes=10)
MIXED = SearchSpace(  # SE, three kernels, expansion 1 beside others, odd maps, gray images
    "mixed",
    MobileMacro(
        in_channels=1,
        num_classes=7,
        resolutions=(18, 21),
        stem_widths=(8, 16),
        stem_kernel=5,
        stem_stride=2,
        stem_act="hard_swish",
        stages=(
            Stage((16, 24), (1, 2), (3, 5, 7), (1, 3, 6), 1, "relu6", 0.25),
            Stage((24, 40), (1, 2), (3, 5, 7), (3, 6), 2, "swish", 0.25),
        ),
        head_width=96,
        head_act="relu",
    ),
)


def archs(space: SearchSpace, n: int) -> list[Arch]:
    return [
        space.largest(),
        space.smallest(),
        *map(space.arch, space.sample(rng(0, "archs"), n - 2)),
    ]


@pytest.mark.parametrize("space", [TINY, MIXED], ids=lambda space: space.name)
def test_params_and_macs_agree_with_the_cost_model_and_with_fvcore(space: SearchSpace) -> None:
    for arch in archs(space, 20 if space is TINY else 8):
        model = build_subnet(space, arch, seed=None).eval()
        codes = space.codes([arch])
        assert sum(p.numel() for p in model.parameters()) == cost(space, codes, "params")[0]
        px = space.view(arch)["resolution"]
        count = FlopCountAnalysis(model, torch.zeros(1, space.macro.in_channels, px, px))
        flops = count.unsupported_ops_warnings(False).by_operator()
        assert flops["conv"] + flops["linear"] == cost(space, codes, "macs")[0]


@pytest.mark.parametrize("space", [TINY, MIXED], ids=lambda space: space.name)
def test_every_layer_is_the_one_of_lower(space: SearchSpace) -> None:
    for arch in archs(space, 5):
        model = build_subnet(space, arch)
        maps: dict[str, tuple[int, ...]] = {}
        for name, module in model.named_modules():
            module.register_forward_hook(
                lambda _m, _x, y, maps=maps, name=name: maps.update({name: tuple(y.shape)})
            )
        px = space.view(arch)["resolution"]
        model(torch.randn(2, space.macro.in_channels, px, px))
        expected = set()
        for slot, op in active_slots(space, arch):
            for layer in layers(op):
                name, bn = timm_names(slot, op, layer)
                module = model.get_submodule(name)
                expected.add(name)
                if isinstance(module, nn.Conv2d):
                    fan_in = layer.in_channels // layer.groups
                    shape = (layer.out_channels, fan_in, layer.kernel, layer.kernel)
                    assert tuple(module.weight.shape) == shape
                    assert module.padding == (layer.padding,) * 2
                    assert maps[name] == (2, layer.out_channels, layer.out_hw, layer.out_hw)
                assert bool(bn) == layer.has_bn
                assert not bn or isinstance(model.get_submodule(bn), nn.BatchNorm2d)
        weighted = (nn.Conv2d, nn.Linear)
        assert expected == {n for n, m in model.named_modules() if isinstance(m, weighted)}


def test_mobilenet_v2_is_timms() -> None:
    def stage(width: int, depth: int, stride: int, expand: int = 6) -> Stage:
        return Stage((width,), (depth,), (3,), (expand,), stride, "relu6")  # type: ignore[arg-type]

    macro = MobileMacro(
        in_channels=3,
        num_classes=1000,
        resolutions=(64,),
        stem_widths=(32,),
        stem_kernel=3,
        stem_stride=2,
        stem_act="relu6",
        stages=(
            stage(16, 1, 1, expand=1),
            stage(24, 2, 2),
            stage(32, 3, 2),
            stage(64, 4, 2),
            stage(96, 3, 1),
            stage(160, 3, 2),
            stage(320, 1, 1),
        ),
        head_width=1280,
        head_act="relu6",
    )
    space = SearchSpace("mobilenet_v2", macro)
    assert cost(space, space.codes([space.largest()]), "params")[0] == 3_504_872
    theirs = timm.create_model("mobilenetv2_100").eval()
    ours = build_subnet(space, space.largest(), seed=None).eval()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(ours(x), theirs(x))


def test_the_definition_builds_the_same_network_after_a_trip_through_json() -> None:
    for space in (TINY, MIXED):
        arch = archs(space, 3)[-1]
        model = build_subnet(space, arch).eval()
        definition = json.loads(json.dumps(subnet_definition(space, arch)))
        again = build_from_definition(definition).eval()
        assert type(model) is type(again) is EfficientNet
        again.load_state_dict(model.state_dict())
        px = definition["resolution"]
        x = torch.randn(2, definition["in_chans"], px, px)
        torch.testing.assert_close(again(x), model(x))


def test_weights_depend_on_the_seed_alone_and_leave_the_global_generator() -> None:
    before = torch.random.get_rng_state()
    one, same, other = (build_subnet(TINY, TINY.smallest(), seed=s) for s in (1, 1, 2))
    build_subnet(TINY, TINY.smallest(), seed=None)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(one.conv_stem.weight, same.conv_stem.weight)
    assert not torch.equal(one.conv_stem.weight, other.conv_stem.weight)


def test_an_arch_of_another_space_is_refused() -> None:
    with pytest.raises(UserError, match="another space"):
        build_subnet(TINY, MIXED.largest())
