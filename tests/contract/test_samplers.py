"""What every arch sampler promises: `interfaces.ArchSampler`."""

from __future__ import annotations

import pytest

from hwnas.spaces import mobilenet_tiny
from hwnas.training.samplers import REGISTRY, sandwich

SPACE = mobilenet_tiny.build(mobilenet_tiny.Config(resolutions=(16, 24)), num_classes=10)


@pytest.fixture(params=REGISTRY.names)
def build(request):
    module = REGISTRY.load(request.param)
    return lambda seed=0, space=SPACE: module.build(module.Config(), space, seed=seed)


def test_archs_are_members_of_the_space(build):
    for step in range(5):
        archs = build().archs(step)
        assert archs
        assert all(SPACE.check(arch) for arch in archs)


def test_archs_depend_on_seed_and_step_alone(build):
    forward = [build().archs(step) for step in range(5)]
    sampler = build()
    backward = [sampler.archs(step) for step in reversed(range(5))]
    assert forward == backward[::-1]
    assert len({tuple(archs) for archs in forward}) == 5
    assert forward != [build(seed=1).archs(step) for step in range(5)]


def test_restricted_spaces_are_respected(build):
    space = SPACE.restrict({"resolution": (16,), "stage0.depth": (2,)})
    for step in range(5):
        assert all(space.check(arch) for arch in build(space=space).archs(step))


def test_sandwich_is_largest_smallest_and_n_random():
    sampler = sandwich.build(sandwich.Config(n_random=3), SPACE, seed=0)
    archs = sampler.archs(7)
    assert len(archs) == 5
    assert archs[:2] == [SPACE.largest(), SPACE.smallest()]
    assert len(set(archs)) == 5
    # A further slot leaves the others as they are.
    more = sandwich.build(sandwich.Config(n_random=4), SPACE, seed=0).archs(7)
    assert more[:5] == archs
