"""Policy: archs from learned probabilities, trained in alternation with the weights (WPNAS).

WPNAS (2203.02086) samples archs from probabilities that a self-critical policy gradient improves.
The paper leaves details open; this is one way to define them. Every `every` steps after the
warm-up, archs drawn from the policy are scored with the shared weights. All are scored on the same
batch of validation images, with BN statistics of the batch. The reward is the negative loss,
standardised by its running mean and variance, minus `cost_weight` * cost / cost of the largest
arch.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from pydantic import Field

from hwnas.core.rng import rng
from hwnas.interfaces import ArchSampler, CostMetric, FloatArray, SamplerContext, Slot
from hwnas.spaces.arch import Arch
from hwnas.spaces.policy import Baseline, Policy
from hwnas.training.samplers._slots import CostConfig, SlotBySlot, metric_named

__all__ = ["Config", "build"]


class Config(CostConfig):
    """Parameters of the sampler; the policy is uniform during the warm-up."""

    name: Literal["policy"] = "policy"
    warmup: float = Field(
        default=0.25,
        ge=0,
        le=1,
        description="Share of the steps, at the start, in which the policy is uniform and does not"
        " learn.",
    )
    every: int = Field(
        default=5, ge=1, description="Number of steps between two updates of the policy."
    )
    n_trials: int = Field(
        default=8,
        ge=2,
        le=1024,
        description="Number of archs that are scored for an update of the policy.",
    )
    baseline: Baseline = "self_critical"
    """What is subtracted from rewards. `self_critical`: the reward of the most probable arch;
    `ema`: a moving average; `leave_one_out`: the mean of the other archs.
    """
    learning_rate: float = Field(
        default=0.05, gt=0, le=10, description="Learning rate of the policy (Adam)."
    )
    entropy: float = Field(
        default=0.05,
        ge=0,
        le=100,
        description="Weight of the entropy of the policy in its objective; it keeps the archs"
        " varied.",
    )
    cost_weight: float = Field(
        default=0.0,
        ge=0,
        description="Weight of cost / cost of the largest arch, which is subtracted from the"
        " reward.",
    )
    memory: float = Field(
        default=0.9,
        ge=0,
        lt=1,
        description="Decay per update of the mean and variance by which losses are standardised.",
    )


class PolicySampler:
    """A sampler that learns a policy.

    Its state is the policy, mean and variance of scores, and the average reward.
    """

    def __init__(self, config: Config, context: SamplerContext, metric: CostMetric | None) -> None:
        self._config, self._space, self._seed = config, context.space, context.seed
        self._metric = metric
        self._first = round(config.warmup * context.n_steps)
        self.policy = Policy(context.space, learning_rate=config.learning_rate)
        self._drawn = SlotBySlot(
            context.space, context.seed, config.n_random, config.ends, self._draw
        )
        self._moments: tuple[float, float] | None = None  # mean and variance of scores
        self._average = 0.0

    @property
    def in_place(self) -> bool:
        """Whether the largest arch teaches the others; it does if the setting `ends` is on."""
        return self._config.ends

    def slots(self, step: int) -> list[Slot]:
        """Largest and smallest arch, if enabled, and n archs from the current policy."""
        return self._drawn.slots(step)

    def _draw(self, stream: np.random.Generator) -> Slot:
        return Slot((self._space.arch(self.policy.draw(stream, 1)[0]),))

    def trials(self, step: int) -> list[Arch]:
        """Archs from the policy if an update is due; with `self_critical`, its mode comes first."""
        since = step - self._first
        if since < 0 or since % self._config.every:
            return []
        stream = rng(self._seed, "train/trial", step)
        codes = self.policy.draw(
            stream,
            self._config.n_trials,
            mode_first=self._config.baseline == "self_critical",
        )
        return [self._space.arch(row) for row in codes]

    def learn(self, archs: list[Arch], losses: FloatArray) -> None:
        """One step of the policy towards archs with a high reward."""
        config, codes = self._config, self._space.codes(archs)
        scores = -losses
        now = float(scores.mean()), float(scores.var())
        before = now if self._moments is None else self._moments
        keep = config.memory
        mean, variance = (
            keep * old + (1 - keep) * new for old, new in zip(before, now, strict=True)
        )
        self._moments = mean, variance
        rewards = (scores - mean) / np.sqrt(variance + 1e-12)
        if self._metric is not None:
            largest = self._metric(self._space.codes([self._space.largest()]))
            rewards = rewards - config.cost_weight * self._metric(codes) / largest
        self.policy.learn(
            codes,
            rewards,
            baseline=config.baseline,
            average=self._average,
            entropy=config.entropy,
        )
        self._average = keep * self._average + (1 - keep) * float(rewards.mean())

    def state(self) -> dict[str, Any]:
        """The state as JSON values."""
        moments = None if self._moments is None else list(self._moments)
        return {"policy": self.policy.state(), "moments": moments, "average": self._average}

    def load_state(self, state: dict[str, Any]) -> None:
        """Inverse of `state`."""
        self.policy.load_state(state["policy"])
        self._moments = None if state["moments"] is None else tuple(state["moments"])
        self._average = state["average"]


def build(config: Config, context: SamplerContext) -> ArchSampler:
    """Builds the sampler, a `LearningSampler`.

    Raises:
        UserError: unknown cost metric.
    """
    metric = metric_named(config, context) if config.cost_weight else None
    return PolicySampler(config, context, metric)
