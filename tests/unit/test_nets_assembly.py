"""Assembled networks are the ones that timm and plain_net construct, and share nothing."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hwnas.nets import plain_net, timm_net
from hwnas.nets.assembly import assemble, with_fast_layers
from hwnas.nets.subnet import subnet_definition
from hwnas.spaces.space import SearchSpace
from tests.mobile_spaces import MOBILE_SPACES, headless, some_archs

BUILD = {"timm": timm_net.build, "torch": plain_net.build}
ALL = {**MOBILE_SPACES, "headless": headless(32)}
SPACES = pytest.mark.parametrize("space", ALL.values(), ids=ALL)


@SPACES
def test_an_assembled_network_is_the_constructed_one(space: SearchSpace) -> None:
    for arch in some_archs(space, 4):
        definition = subnet_definition(space, arch, bn_eps=0.002)
        theirs = with_fast_layers(BUILD[definition["form"]](definition))
        ours = assemble(definition)
        assert str(ours) == str(theirs) and ours.training
        assert [n for n, _ in ours.named_modules()] == [n for n, _ in theirs.named_modules()]
        state = theirs.state_dict()
        for name, buffer in ours.named_buffers():
            assert torch.equal(buffer, state[name]), name
        ours.load_state_dict(state)
        if definition["form"] == "timm":
            assert ours.feature_info == theirs.feature_info
            assert ours.stage_ends == theirs.stage_ends
            assert ours.num_features == theirs.num_features


@SPACES
def test_assembled_networks_share_nothing(space: SearchSpace) -> None:
    definition = subnet_definition(space, space.largest())
    one, two = assemble(definition), assemble(definition)
    assert not {id(m) for m in one.modules()} & {id(m) for m in two.modules()}
    for parameter in one.parameters():
        nn.init.ones_(parameter)
    for parameter in two.parameters():
        nn.init.zeros_(parameter)
    assert all(bool((parameter == 1).all()) for parameter in one.parameters())
    one.eval()
    assert all(module.training for module in two.modules())
    calls: list[nn.Module] = []
    for module in one.modules():
        module.register_forward_hook(lambda module, x, y: calls.append(module))
    px = definition["resolution"]
    two(torch.zeros(2, space.macro.in_channels, px, px))
    assert not calls
    assert all(int(m.num_batches_tracked) == 0 for m in one.modules() if hasattr(m, "running_mean"))


def test_assembling_draws_nothing_from_torchs_generator() -> None:
    space = MOBILE_SPACES["fbnet"]
    before = torch.random.get_rng_state()
    for arch in some_archs(space, 3):
        assemble(subnet_definition(space, arch, bn_eps=0.003))
    assert torch.equal(torch.random.get_rng_state(), before)
