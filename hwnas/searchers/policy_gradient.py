"""Policy gradient over independent categoricals, one per choice, with a self-critical baseline.

It is an instance of the controller of WPNAS (2203.02086), whose paper leaves details open. It uses
REINFORCE with Adam, a decaying entropy bonus, and one of three baselines.
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
    """Rewards should have the scale of standardised scores (about one unit of spread).

    baseline: `self_critical` subtracts the reward of the mode of the policy, the first arch of
        every ask (Rennie et al. 1612.00563; WPNAS). `ema` subtracts a moving average of mean
        rewards. `leave_one_out` subtracts the mean of the other archs of the same ask.
    warm_start: codes of an arch, for example the winner for another device. Its active choices
        initially have the probability `warm_probability`. Without it the policy starts uniform.
    """

    name: Literal["policy_gradient"] = "policy_gradient"
    baseline: Baseline = "self_critical"
    """What is subtracted from rewards. `self_critical`: the reward of the most probable arch;
    `ema`: a moving average; `leave_one_out`: the mean of the other archs.
    """
    learning_rate: Annotated[
        float, Field(gt=0, le=10, description="Learning rate of the policy (Adam).")
    ] = 0.1
    entropy: Annotated[
        float,
        Field(
            ge=0,
            le=100,
            description="Initial weight of the entropy of the policy in its objective; it keeps the"
            " proposals varied.",
        ),
    ] = 0.05
    entropy_half_life: Annotated[
        float,
        Field(
            gt=0, description="Number of generations after which the weight `entropy` is halved."
        ),
    ] = 30.0
    warm_start: Annotated[
        tuple[int, ...] | None,
        Field(
            description="Codes of an arch (e.g. a winner for another device) that the policy"
            " favours at the start; null: a uniform policy."
        ),
    ] = None
    warm_probability: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Initial probability of each code of `warm_start`."""
    ema_decay: Annotated[
        float,
        Field(
            ge=0,
            lt=1,
            description="Decay per generation of the moving average of rewards; only for the"
            " baseline `ema`.",
        ),
    ] = 0.9


def build(config: Config, context: SearcherContext) -> PolicyGradient:
    """A policy over the space, initially uniform, or around `config.warm_start`.

    Raises:
        UserError: the arch to start from does not belong to the space.
    """
    return PolicyGradient(config, context.space, context.seed)


class PolicyGradient:
    """REINFORCE. Its state is the policy and the average reward."""

    def __init__(self, config: Config, space: SearchSpace, seed: int) -> None:
        self._config, self._space, self._seed = config, space, seed
        self._policy = Policy(space, learning_rate=config.learning_rate)
        if config.warm_start is not None:
            start = space.check(Arch(space.id, config.warm_start))
            self._policy.favour(start, config.warm_probability)
        self._average: float | None = None

    def probabilities(self) -> FloatArray:
        """Probability of every code of every choice, [d, k]; 0 if the code is not allowed."""
        return self._policy.probabilities()

    def mode(self) -> Codes:
        """The most probable codes of the policy: [1, d]."""
        return self._policy.mode()

    def ask(self, n: int) -> Codes:
        """n draws from the policy (with repeats); with `self_critical` the first is its mode."""
        if n == 0:
            return self._space.codes([])
        stream = rng(self._seed, "search/policy", self._policy.generation)
        return self._policy.draw(stream, n, mode_first=self._config.baseline == "self_critical")

    def tell(self, codes: Codes, rewards: FloatArray, objectives: FloatArray | None = None) -> None:
        """One Adam step along the gradient of mean(advantage * log p), plus the entropy bonus."""
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
        """The policy, its generation (which seeds the draws), and the average reward."""
        return {**self._policy.state(), "average": self._average}

    def load_state(self, state: dict[str, Any]) -> None:
        """Inverse of `state`.

        Raises:
            UserError: the state belongs to a space of another shape.
        """
        self._policy.load_state(state)
        self._average = state["average"]
