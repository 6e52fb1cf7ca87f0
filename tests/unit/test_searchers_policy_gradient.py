"""The policy's gradient against autograd and finite differences, its step against torch's Adam."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
import torch

from hwnas.core.errors import UserError
from hwnas.interfaces import SearcherContext
from hwnas.searchers import policy_gradient
from hwnas.searchers.policy_gradient import (
    Config,
    advantages,
    build,
    entropy_gradient,
    log_prob_gradient,
)
from hwnas.spaces import mobilenet_tiny
from hwnas.spaces.space import Codes, SearchSpace

FULL = mobilenet_tiny.build(mobilenet_tiny.Config(resolutions=(16, 20)), num_classes=10)


def enumerable() -> tuple[SearchSpace, Codes]:
    """60 archs; two choices of stage 1 are inactive at depth 1, other choices are barred."""
    one = {choice.name: choice.values[-1:] for choice in FULL.choices}
    free = {
        "stage0.width": (16, 32),
        "stage1.depth": (1, 2),
        "stage1.block0.expand": (2, 4, 6),
        "stage1.block1.expand": (4, 6),
        "stage1.block1.kernel": (3, 5),
        "resolution": (16, 20),
    }
    space = FULL.restrict(one | free)
    grid = np.array(list(itertools.product(*space.allowed)), dtype=np.int16)
    archs = np.unique(space.normalise(grid), axis=0)
    assert len(archs) == space.size() == 2 * 2 * 3 * (1 + 4)
    return space, archs


def mask_of(space: SearchSpace) -> np.ndarray:
    mask = np.zeros((len(space.choices), max(len(c.values) for c in space.choices)), dtype=bool)
    for column, codes in enumerate(space.allowed):
        mask[column, list(codes)] = True
    return mask


def expected_reward(
    logits: torch.Tensor, space: SearchSpace, archs: Codes, rewards: np.ndarray
) -> torch.Tensor:
    """sum_a p(a) R(a) over the whole space, written with autograd's own softmax."""
    mask = torch.tensor(mask_of(space))
    log_p = torch.log_softmax(logits.masked_fill(~mask, -torch.inf), dim=1)
    index = torch.tensor(archs, dtype=torch.int64)
    chosen = log_p[torch.arange(archs.shape[1]), index]
    chosen = torch.where(torch.tensor(space.active(archs)), chosen, 0.0)
    probability = chosen.sum(dim=1).exp()
    assert probability.sum().item() == pytest.approx(1, abs=1e-12)
    return (probability * torch.tensor(rewards)).sum()


def test_gradient_of_the_expected_reward_is_exact() -> None:
    space, archs = enumerable()
    stream = np.random.default_rng(0)
    rewards = stream.normal(size=len(archs))
    start = np.where(mask_of(space), stream.normal(size=mask_of(space).shape), 0.0)

    logits = torch.tensor(start, requires_grad=True)
    expected_reward(logits, space, archs, rewards).backward()

    policy = build(Config(), SearcherContext(space, 0))
    policy.load_state(policy.state() | {"logits": start.tolist()})
    p = policy.probabilities()
    active = space.active(archs)
    of_arch = np.where(active, p[np.arange(p.shape[0]), archs], 1.0).prod(axis=1)
    found = log_prob_gradient(space, p, archs, of_arch * rewards)
    assert logits.grad is not None
    np.testing.assert_allclose(found, logits.grad.numpy(), atol=1e-12)

    for column, code in zip(*np.nonzero(mask_of(space)), strict=True):
        values = []
        for step in (1e-5, -1e-5):
            moved = torch.tensor(start)
            moved[column, code] += step
            values.append(expected_reward(moved, space, archs, rewards).item())
        assert found[column, code] == pytest.approx((values[0] - values[1]) / 2e-5, abs=1e-8)


def test_sampled_gradient_converges_to_the_exact_one() -> None:
    """50,000 draws of the policy itself; standard error of an entry is about 1/sqrt(50,000)."""
    space, archs = enumerable()
    values = dict(zip(space.keys(archs), np.random.default_rng(0).normal(size=len(archs))))
    rewards = np.array([values[key] for key in space.keys(archs)])
    policy = build(Config(baseline="ema"), SearcherContext(space, 0))
    logits = torch.zeros(mask_of(space).shape, dtype=torch.float64, requires_grad=True)
    expected_reward(logits, space, archs, rewards).backward()
    drawn = policy.ask(50_000)
    drawn_rewards = np.array([values[key] for key in space.keys(drawn)])
    weights = advantages("leave_one_out", drawn_rewards, 0.0) / len(drawn)
    found = log_prob_gradient(space, policy.probabilities(), drawn, weights)
    assert logits.grad is not None
    np.testing.assert_allclose(found, logits.grad.numpy(), atol=0.02)
    assert np.abs(found).max() > 0.1


def test_entropy_gradient_is_exact() -> None:
    space, _ = enumerable()
    start = np.random.default_rng(0).normal(size=mask_of(space).shape)
    logits = torch.tensor(start, requires_grad=True)
    mask = torch.tensor(mask_of(space))
    p = torch.softmax(logits.masked_fill(~mask, -torch.inf), dim=1)
    (-(p * torch.where(mask, p, 1.0).log()).sum()).backward()
    assert logits.grad is not None
    np.testing.assert_allclose(
        entropy_gradient(p.detach().numpy()), logits.grad.numpy(), atol=1e-12
    )


def test_steps_are_those_of_adam() -> None:
    space, archs = enumerable()
    config = Config(baseline="leave_one_out", entropy=0.0, learning_rate=0.05)
    policy = build(config, SearcherContext(space, 0))
    logits = torch.zeros(mask_of(space).shape, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([logits], lr=0.05, maximize=True)
    stream = np.random.default_rng(0)
    for _ in range(5):
        rewards = stream.normal(size=len(archs))
        weights = advantages("leave_one_out", rewards, 0.0) / len(archs)
        gradient = log_prob_gradient(space, policy.probabilities(), archs, weights)
        logits.grad = torch.tensor(gradient)
        adam.step()
        policy.tell(archs, rewards)
        np.testing.assert_allclose(policy.state()["logits"], logits.detach().numpy(), atol=1e-9)


def test_baselines_by_hand() -> None:
    rewards = np.array([1.0, 2.0, 6.0])
    np.testing.assert_allclose(advantages("self_critical", rewards, 9.0), [0, 1, 5])
    np.testing.assert_allclose(advantages("ema", rewards, 2.5), [-1.5, -0.5, 3.5])
    np.testing.assert_allclose(advantages("leave_one_out", rewards, 9.0), [-3, -1.5, 4.5])
    np.testing.assert_allclose(advantages("leave_one_out", rewards[:1], 9.0), [0])


def test_self_critical_asks_for_its_mode_first() -> None:
    policy = build(Config(), SearcherContext(FULL, 0))
    for _ in range(5):
        codes = policy.ask(16)
        np.testing.assert_array_equal(codes[:1], policy.mode())
        policy.tell(codes, codes.sum(axis=1).astype(np.float64))
    other = build(Config(baseline="ema"), SearcherContext(FULL, 0))
    assert (other.ask(16)[0] != other.mode()[0]).any()


@pytest.mark.parametrize("baseline", ["self_critical", "ema", "leave_one_out"])
def test_every_baseline_learns(
    baseline: policy_gradient.Baseline,
) -> None:
    """Mode after 60 generations on a separable score: the best code of nearly every choice."""
    policy = build(Config(baseline=baseline), SearcherContext(FULL, 0))
    weights = np.random.default_rng(0).normal(size=(len(FULL.choices), 3))

    def score(codes: Codes) -> np.ndarray:
        chosen = weights[np.arange(codes.shape[1]), codes]
        return np.asarray((chosen * FULL.active(codes)).sum(axis=1) / 3)

    for _ in range(60):
        codes = policy.ask(64)
        policy.tell(codes, score(codes))
    reference = score(FULL.sample(100_000, rng=np.random.default_rng(1)))
    assert score(policy.mode())[0] > reference.max()


def test_entropy_bonus_keeps_the_policy_open() -> None:
    def entropy_after(weight: float) -> float:
        policy = build(Config(entropy=weight, entropy_half_life=1e6), SearcherContext(FULL, 0))
        for _ in range(40):
            codes = policy.ask(32)
            policy.tell(codes, codes.mean(axis=1))
        p = policy.probabilities()
        return float(-(p * np.log(np.where(p > 0, p, 1))).sum())

    assert entropy_after(0.0) < entropy_after(0.05) < entropy_after(0.5)


@pytest.mark.parametrize("part", ["logits", "moments"])
def test_state_of_another_space_is_refused(part: str) -> None:
    state = build(Config(), SearcherContext(FULL, 0)).state()
    state[part] = state[part][:-1]
    shapes = [list(map(str, np.shape(state[name]))) for name in ("logits", "moments")]
    first, second = (re.escape(f"[{', '.join(shape)}]") for shape in shapes)
    found = rf"another space(.|\n)*found: arrays of shape {first} and {second}"
    with pytest.raises(UserError, match=found):
        build(Config(), SearcherContext(FULL, 0)).load_state(state)


def test_a_warm_start_favours_one_arch() -> None:
    space, archs = enumerable()
    arch = tuple(int(code) for code in archs[-1])
    policy = build(Config(warm_start=arch, warm_probability=0.8), SearcherContext(space, 0))
    np.testing.assert_array_equal(policy.mode(), archs[-1:])
    p = policy.probabilities()
    free = mask_of(space).sum(axis=1) > 1
    active = space.active(archs[-1:])[0]
    np.testing.assert_allclose(p[np.arange(len(arch)), arch][free & active], 0.8)
    np.testing.assert_allclose(p.sum(axis=1), 1)
    with pytest.raises(UserError, match="invalid code"):
        build(Config(warm_start=(9, *arch[1:])), SearcherContext(space, 0))


def test_the_baseline_is_a_moving_average_of_mean_rewards() -> None:
    space, archs = enumerable()
    searcher = build(Config(baseline="ema", ema_decay=0.75), SearcherContext(space, 0))
    for rewards, average in (((1.0, 3.0), 2.0), ((5.0, 7.0), 3.0), ((3.0, 3.0), 3.0)):
        searcher.tell(archs[:2], np.array(rewards))
        assert searcher.state()["average"] == pytest.approx(average)
