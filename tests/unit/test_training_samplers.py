"""What every sampler is for: the archs that it favours, and how it learns."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from hwnas.core.errors import UserError
from hwnas.interfaces import SamplerContext
from hwnas.spaces import mobilenet_tiny, nasbench_macro
from hwnas.testing.samplers import N_STEPS, archs_of, prices
from hwnas.training.samplers import (
    attentive,
    balanced,
    fair,
    policy,
    progressive,
    sandwich,
    uniform,
)
from hwnas.training.samplers._slots import cost_range

SPACE = mobilenet_tiny.build(mobilenet_tiny.Config(resolutions=(16, 24)), num_classes=10)


def made(module, space=SPACE, *, seed=0, **settings):
    config = module.Config(**settings)
    return module.build(config, SamplerContext(space, seed, N_STEPS, prices(space)))


def test_sandwich_is_largest_smallest_and_n_random():
    archs = archs_of(made(sandwich, n_random=3).slots(7))
    assert len(archs) == 5
    assert archs[:2] == [SPACE.largest(), SPACE.smallest()]
    assert len(set(archs)) == 5
    # A further slot leaves the others as they are.
    assert archs_of(made(sandwich, n_random=4).slots(7))[:5] == archs


def test_uniform_is_one_arch_that_learns_labels():
    sampler = made(uniform)
    assert not sampler.in_place
    slots = [sampler.slots(step) for step in range(400)]
    assert all(len(archs_of(step)) == 1 for step in slots)
    codes = SPACE.codes([arch for step in slots for arch in archs_of(step)])
    shares = np.bincount(codes[:, 0]) / 400  # resolution: always active
    assert np.all(np.abs(shares - 1 / len(shares)) < 0.1)


def test_fair_trains_every_operator_once_per_step():
    space = nasbench_macro.build(nasbench_macro.Config(), num_classes=10)
    sampler = made(fair, space)
    assert not sampler.in_place
    for step in range(20):
        codes = space.codes(archs_of(sampler.slots(step)))
        for column, allowed in enumerate(space.allowed):
            if len(allowed) == 3:
                assert sorted(codes[:, column]) == [0, 1, 2]


def test_fair_deals_unequal_choices_out_evenly():
    sampler = made(fair)
    dealt = [arch.codes[0] for step in range(7) for arch in archs_of(sampler.slots(step))]
    assert len(dealt) == 21 and len(SPACE.allowed[0]) == 2
    for n in range(2, 21, 2):  # two resolutions: each pair of archs has both
        assert sorted(dealt[n - 2 : n]) == [0, 1]


def test_progressive_frees_kernels_then_depths_then_widths():
    free = {"kernel": set(), "depth": set(), "expand": set(), "width": set(), "resolution": set()}
    sampler = made(progressive)
    first_free = {}
    for step in range(N_STEPS):
        archs = archs_of(sampler.slots(step))
        assert archs[0] == SPACE.largest()
        for arch in archs[1:]:
            for name, value in SPACE.view(arch).items():
                kind = name.rsplit(".", 1)[-1]
                if value != SPACE.view(SPACE.largest())[name]:
                    free[kind].add(value)
                    first_free.setdefault(kind, step)
    assert archs_of(sampler.slots(0)) == [SPACE.largest()]
    assert len(archs_of(sampler.slots(99))) == 5
    assert 20 <= first_free["kernel"] < 40 <= first_free["depth"] < 65 <= first_free["expand"]
    assert first_free["width"] >= 65


def test_progressive_frees_the_largest_values_first():
    phase = progressive.Phase(share=1, n_random=4, free={"depth": 2})
    sampler = made(progressive, phases=(phase,))
    depths = {
        SPACE.view(arch)["stage1.depth"]
        for step in range(40)
        for arch in archs_of(sampler.slots(step))
    }
    assert depths == set(sorted(SPACE.choices[11].values)[-2:])
    assert SPACE.choices[11].name == "stage1.depth"


@pytest.mark.parametrize("setting", [{"metric": "macs"}, {"metric": "latency_ms"}])
def test_balanced_spreads_archs_evenly_over_the_metric(setting):
    setting = setting | {"device": "phone", "ends": False}
    sampler = made(balanced, **setting)
    assert not sampler.in_place
    metric = prices(SPACE)["macs" if setting["metric"] == "macs" else "latency_ms@phone"]

    def shares(archs):
        low, high = cost_range(SPACE, metric, 0)
        return np.histogram(metric(SPACE.codes(archs)), 5, (low, high))[0] / len(archs)

    even = shares([arch for step in range(150) for arch in archs_of(sampler.slots(step))])
    assert even.min() > 0.13 and even.max() < 0.28
    plain = shares([SPACE.arch(row) for row in SPACE.sample(300, rng=np.random.default_rng(0))])
    assert plain.min() < 0.02  # what balancing is for


def test_a_metric_without_a_table_is_refused():
    with pytest.raises(UserError, match="latency_ms@board"):
        made(balanced, metric="latency_ms", device="board")


@pytest.mark.parametrize("keep, meaning", [("best", "lowest"), ("worst", "highest")])
def test_attentive_offers_archs_of_one_bucket(keep, meaning):
    sampler = made(attentive, keep=keep, k=4, n_buckets=10)
    low, high = cost_range(SPACE, prices(SPACE)["macs"], 0)
    sizes = Counter()
    for step in range(20):
        *ends, first, second = sampler.slots(step)
        assert [slot.candidates for slot in ends] == [(SPACE.largest(),), (SPACE.smallest(),)]
        for slot in (first, second):
            assert slot.keep == meaning
            macs = prices(SPACE)["macs"](SPACE.codes(list(slot.candidates)))
            assert len(set(np.floor((macs - low) / (high - low) * 10))) == 1
            sizes[len(slot.candidates)] += 1
    assert sizes[4] > 30  # but for rare buckets, all k


def test_policy_learns_what_the_scores_say():
    """Archs with the larger resolution score better: the policy comes to prefer it."""
    sampler = made(policy, warmup=0.1, every=1, learning_rate=0.2)
    assert sampler.trials(9) == [] and len(sampler.trials(10)) == 8
    for step in range(10, 90):
        archs = sampler.trials(step)
        losses = [1.0 - 0.5 * (SPACE.view(arch)["resolution"] == 24) for arch in archs]
        sampler.learn(archs, np.array(losses))
    assert sampler.policy.probabilities()[0, 1] > 0.8
    drawn = archs_of(sampler.slots(99))[2:]
    assert len(drawn) == 2


def test_policy_pays_for_cost():
    sampler = made(policy, warmup=0, every=1, learning_rate=0.2, cost_weight=20.0)
    for step in range(60):
        archs = sampler.trials(step)
        sampler.learn(archs, np.ones(len(archs)))
    cheap = prices(SPACE)["macs"](sampler.policy.mode())
    assert cheap < np.median(prices(SPACE)["macs"](SPACE.sample(500, rng=np.random.default_rng(0))))
