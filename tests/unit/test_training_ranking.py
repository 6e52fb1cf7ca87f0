"""Ranking pairs: their order, lambda, and which network learns."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hwnas.core.errors import UserError
from hwnas.interfaces import ProxyContext, SamplerContext
from hwnas.nets.proxies import REGISTRY as PROXIES
from hwnas.spaces import mobilenet_tiny
from hwnas.spaces.cost import cost
from hwnas.training.optional_sections import RankingConfig
from hwnas.training.ranking import PairSampler, pair_weight, ranking_step
from hwnas.training.samplers import sandwich
from hwnas.training.sections import TrainConfig
from hwnas.training.step import SupernetStep

SPACE = mobilenet_tiny.build(mobilenet_tiny.Config(resolutions=(8, 12)), num_classes=5)


def prior(name="macs", metrics=None):
    module = PROXIES.load(name)
    return module.build(module.Config(), ProxyContext(SPACE, 0, metrics or {}))


class ByArch(torch.nn.Module):
    """Every arch has its own logits for the first class: losses are known and separate."""

    space = SPACE

    def __init__(self, **first_logit):
        super().__init__()
        self.logits = torch.nn.ParameterDict(
            {key: torch.nn.Parameter(torch.tensor(value)) for key, value in first_logit.items()}
        )
        self.n_calls = 0

    def plan(self, arch):
        return (arch,)  # nothing in common with others

    def forward(self, x, arch, rng=None, *, dropout=0.0, drop_path=0.0, start=None):
        self.n_calls += 1
        if arch.key not in self.logits:
            self.logits[arch.key] = torch.nn.Parameter(torch.tensor(0.0))
        first = self.logits[arch.key].expand(len(x), 1)
        return torch.cat([first, torch.zeros(len(x), 4)], dim=1)


X, Y = torch.zeros(3, 3, 12, 12), torch.zeros(3, dtype=torch.int64)
WORSE, BETTER = SPACE.smallest(), SPACE.largest()


@pytest.mark.parametrize("both", [False, True])
def test_a_broken_order_pulls_the_better_one_down_alone(both):
    model = ByArch(**{WORSE.key: 2.0, BETTER.key: 0.0})
    losses = ranking_step(model, X, Y, [(WORSE, BETTER)], weight=0.5, both=both)
    expected = [float(torch.logsumexp(torch.tensor([v, 0, 0, 0, 0]), 0)) - v for v in (2.0, 0.0)]
    assert losses == pytest.approx([expected[1] - expected[0]])
    better, worse = model.logits[BETTER.key].grad, model.logits[WORSE.key].grad
    assert float(better) == pytest.approx(0.5 * (1 / 5 - 1))  # d loss / d logit = p - 1
    if both:
        assert float(worse) > 0  # a step against it makes the worse arch worse
    else:
        assert worse is None


def test_an_agreeing_order_costs_two_passes_and_no_gradient():
    model = ByArch(**{WORSE.key: 0.0, BETTER.key: 2.0})
    assert ranking_step(model, X, Y, [(WORSE, BETTER)], weight=1.0) == [0.0]
    assert model.n_calls == 2
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("n_pairs", [1, 2])
def test_a_step_is_n_plus_2m_forward_passes(n_pairs):
    config = TrainConfig(
        sampler=sandwich.Config(n_random=2), ranking=RankingConfig(pairs=n_pairs), steps=10
    )
    sampler = sandwich.build(config.sampler, SamplerContext(SPACE, 0, 10))
    model = ByArch()
    step = SupernetStep(model, config, sampler, 0, PairSampler(SPACE, prior(), config.ranking, 0))
    losses = step(3, X, Y)
    assert model.n_calls == 4 + 2 * n_pairs
    assert len(losses.nets) == 4 and len(losses.pairs) == n_pairs
    assert len(losses.names) == 4 + n_pairs


def test_pairs_are_ordered_by_the_prior_and_depend_on_seed_step_and_slot():
    config = RankingConfig(pairs=3, min_distance=5)
    sampler = PairSampler(SPACE, prior(), config, 0)
    for step in range(20):
        pairs = sampler.pairs(step)
        assert pairs == PairSampler(SPACE, prior(), config, 0).pairs(step)
        for worse, better in pairs:
            low, high = cost(SPACE, SPACE.codes([worse, better]), "macs")
            assert low < high
            assert np.sum(np.array(worse.codes) != better.codes) >= 5
    assert sampler.pairs(0)[:1] == PairSampler(
        SPACE, prior(), RankingConfig(pairs=1, min_distance=5), 0
    ).pairs(0)
    assert sampler.pairs(0) != PairSampler(SPACE, prior(), config, 1).pairs(0)


def test_any_table_can_be_the_prior():
    slow = {"latency_ms@local": lambda codes: -cost(SPACE, codes, "macs").astype(float)}
    sampler = PairSampler(SPACE, prior("latency", slow), RankingConfig(), 0)
    worse, better = sampler.pairs(0)[0]
    assert cost(SPACE, SPACE.codes([worse]), "macs") > cost(SPACE, SPACE.codes([better]), "macs")
    with pytest.raises(UserError, match="no latency table"):
        prior("latency")


def test_a_prior_that_tells_nothing_is_refused():
    sampler = PairSampler(SPACE, lambda codes: np.ones(len(codes)), RankingConfig(), 0)
    with pytest.raises(UserError, match="gives all archs the same value"):
        sampler.pairs(0)


def test_warm_up_of_lambda_is_that_of_pgonas():
    """min(2, epoch / 10) of 70 epochs."""
    config = RankingConfig(ramp=2 / 7)
    for epoch in (0, 1, 5, 10, 19, 20, 21, 50, 70):
        assert pair_weight(config, epoch / 70) == pytest.approx(min(2, epoch / 10))


@pytest.mark.parametrize(
    "schedule, values",
    [("constant", [2, 2, 2]), ("sine", [0, 2, 0]), ("trapezoid", [0, 2, 0]), ("warmup", [0, 2, 2])],
)
def test_schedules_of_lambda_at_start_middle_and_end(schedule, values):
    config = RankingConfig(schedule=schedule)
    found = [pair_weight(config, progress) for progress in (0, 0.5, 1)]
    assert found == pytest.approx(values, abs=1e-9)
