"""Contract tests of arch samplers: `interfaces.ArchSampler` and `LearningSampler`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from hwnas.interfaces import (
    ArchSampler,
    CostMetric,
    LearningSampler,
    SamplerContext,
    SamplerModule,
    Slot,
)
from hwnas.spaces.arch import Arch
from hwnas.spaces.cost import AnalyticMetric, cost
from hwnas.spaces.space import SearchSpace
from hwnas.testing.suite import Suite, tiny_space

__all__ = ["N_STEPS", "SamplerSuite", "archs_of", "prices"]

N_STEPS = 100


def prices(space: SearchSpace) -> dict[str, CostMetric]:
    """Costs by metric key: MACs, parameters, and latencies that equal the parameters."""

    def metric(name: AnalyticMetric) -> CostMetric:
        return lambda codes: cost(space, codes, name).astype(float)

    params = metric("params")
    latencies = {"latency_ms@phone": params, "latency_ms@local": params}
    return {"macs": metric("macs"), "params": params, **latencies}


def archs_of(slots: Iterable[Slot]) -> list[Arch]:
    """All candidates of all slots."""
    return [arch for slot in slots for arch in slot.candidates]


def _build(
    variant: Any, config: Any, space: SearchSpace | None = None, seed: int = 0
) -> ArchSampler:
    space = space or tiny_space()
    sampler: ArchSampler = variant.build(
        config, SamplerContext(space, seed, N_STEPS, prices(space))
    )
    return sampler


class SamplerSuite(Suite):
    """Contract of an arch sampler."""

    CONTRACT = SamplerModule

    def test_archs_are_members_of_the_space(self, variant: Any, config: Any) -> None:
        """Every step has a slot, every slot has a candidate, and all are archs of the space."""
        for step in (0, 30, 99):
            slots = _build(variant, config).slots(step)
            assert slots and all(slot.candidates for slot in slots)
            assert all(tiny_space().check(arch) for arch in archs_of(slots))

    def test_archs_depend_on_seed_and_step_alone(self, variant: Any, config: Any) -> None:
        """Earlier calls have no effect, so a resumed run continues identically."""
        steps = range(90, 95)
        forward = [_build(variant, config).slots(step) for step in steps]
        sampler = _build(variant, config)
        backward = [sampler.slots(step) for step in reversed(steps)]
        assert forward == backward[::-1]
        assert len({tuple(slots) for slots in forward}) == 5
        assert forward != [_build(variant, config, seed=1).slots(step) for step in steps]

    def test_restricted_spaces_are_respected(self, variant: Any, config: Any) -> None:
        """No arch has a removed value."""
        space = tiny_space().restrict({"resolution": (16,), "stage0.depth": (2,)})
        for step in (0, 30, 99):
            slots = _build(variant, config, space).slots(step)
            assert all(space.check(arch) for arch in archs_of(slots))

    def test_the_teacher_is_the_largest(self, variant: Any, config: Any) -> None:
        """If the first arch of a step is the teacher, it is the largest arch."""
        sampler = _build(variant, config)
        if sampler.in_place:
            assert sampler.slots(50)[0].candidates == (tiny_space().largest(),)

    def test_learning_resumes_exactly(self, variant: Any, config: Any) -> None:
        """A sampler that is restored from JSON learns and samples like the original."""
        sampler, other = _build(variant, config), _build(variant, config)
        if not isinstance(sampler, LearningSampler) or not isinstance(other, LearningSampler):
            pytest.skip("does not learn")
        stream = np.random.default_rng(0)
        for step in range(40, 80):
            if archs := sampler.trials(step):
                sampler.learn(archs, stream.uniform(1, 2, len(archs)))
        assert sampler.slots(80) != other.slots(80), "learning does not change the slots"
        other.load_state(json.loads(json.dumps(sampler.state())))
        for one in (sampler, other):
            one.learn(one.trials(80), np.arange(len(one.trials(80)), dtype=float))
        assert sampler.state() == other.state()
        assert sampler.slots(81) == other.slots(81)
