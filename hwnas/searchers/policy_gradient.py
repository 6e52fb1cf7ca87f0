"""Policy gradient over independent categoricals, one per choice, with a self-critical baseline.

Our instantiation of the controller of WPNAS (2203.02086), whose paper leaves the details open:
REINFORCE with Adam, an entropy bonus that decays, and a choice of three baselines.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from hwnas.core.config import StrictModel
from hwnas.core.rng import rng
from hwnas.interfaces import FloatArray, SearcherContext
from hwnas.spaces.arch import Arch
from hwnas.spaces.policy import (
    Baseline,
    Policy,
    advantages,
    entropy_gradient,
    log_prob_gradient,
)
from hwnas.spaces.space import Codes, SearchSpace

__all__ = [
    "Baseline",
    "Config",
    "PolicyGradient",
    "advantages",
    "build",
    "entropy_gradient",
    "log_prob_gradient",
]


class Config(StrictModel):
    """Rewards are expected on the scale of standardised scores (about one unit of spread).

    `baseline`: `self_critical` subtracts the reward of the policy's mode, which is the first arch
    of every ask (Rennie et al. 1612.00563; WPNAS); `ema` a moving average of mean rewards;
    `leave_one_out` the mean of the other archs of the same ask. `warm_start`: codes of an arch
    (the winner for another device, say), each of whose active choices has the probability
    `warm_probability` at first; without it the policy starts uniform.
    """

    name: Literal["policy_gradient"] = "policy_gradient"
    baseline: Baseline = "self_critical"
    """Subtracted from rewards: that of the policy's mode, a moving average or the others' mean."""
    learning_rate: Annotated[float, Field(gt=0, le=10, description="Adam step on logits")] = 0.1
    entropy: Annotated[float, Field(ge=0, le=100, description="weight of the entropy bonus")] = 0.05
    entropy_half_life: Annotated[float, Field(gt=0, description="generations")] = 30.0
    warm_start: Annotated[tuple[int, ...] | None, Field(description="codes of an arch")] = None
    warm_probability: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Of each choice of `warm_start` at first."""
    ema_decay: Annotated[float, Field(ge=0, lt=1, description="used by baseline `ema`")] = 0.9


def build(config: Config, context: SearcherContext) -> PolicyGradient:
    """A policy over the space, uniform at first, or around `config.warm_start`.

    Raises:
        UserError: the arch to start from is not one of the space.
    """
    return PolicyGradient(config, context.space, context.seed)


class PolicyGradient:
    """State: that of the policy, and the average reward."""

    def __init__(self, config: Config, space: SearchSpace, seed: int) -> None:
        self._config, self._space, self._seed = config, space, seed
        self._policy = Policy(space, learning_rate=config.learning_rate)
        if config.warm_start is not None:
            start = space.check(Arch(space.id, config.warm_start))
            self._policy.favour(start, config.warm_probability)
        self._average: float | None = None

    def probabilities(self) -> FloatArray:
        """[d, k]: probability of every code of every choice; 0 where it is not allowed."""
        return self._policy.probabilities()

    def mode(self) -> Codes:
        """The policy's most probable codes: [1, d]."""
        return self._policy.mode()

    def ask(self, n: int) -> Codes:
        """n draws from the policy (with repeats); under `self_critical` the first is its mode."""
        if n == 0:
            return self._space.codes([])
        stream = rng(self._seed, "search/policy", self._policy.generation)
        return self._policy.draw(stream, n, mode_first=self._config.baseline == "self_critical")

    def tell(self, codes: Codes, rewards: FloatArray, objectives: FloatArray | None = None) -> None:
        """One Adam step up the mean of advantage * log p, plus the entropy bonus."""
        config = self._config
        mean = float(rewards.mean())
        average = mean if self._average is None else self._average
        self._policy.learn(
            codes,
            rewards,
            baseline=config.baseline,
            average=average,
            entropy=config.entropy * 0.5 ** (self._policy.generation / config.entropy_half_life),
        )
        self._average = config.ema_decay * average + (1 - config.ema_decay) * mean

    def state(self) -> dict[str, Any]:
        """Everything that learning changed; draws derive from the generation."""
        return {**self._policy.state(), "average": self._average}

    def load_state(self, state: dict[str, Any]) -> None:
        """Inverse of `state`.

        Raises:
            UserError: the state belongs to a space of another shape.
        """
        self._policy.load_state(state)
        self._average = state["average"]
