"""Policy gradient over independent categoricals, one per choice, with a self-critical baseline.

Our instantiation of the controller of WPNAS (2203.02086), whose paper leaves the details open:
REINFORCE with Adam, an entropy bonus that decays, and a choice of three baselines.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from hwnas.core.config import StrictModel
from hwnas.core.errors import UserError
from hwnas.core.rng import rng
from hwnas.interfaces import FloatArray
from hwnas.spaces.arch import Arch
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

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8  # Adam (1412.6980, algorithm 1)
CHUNK = 1024  # rows at a time, so that temporaries stay in the cache

Baseline = Literal["self_critical", "ema", "leave_one_out"]


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
    learning_rate: Annotated[float, Field(gt=0, le=10, description="Adam step on logits")] = 0.1
    entropy: Annotated[float, Field(ge=0, le=100, description="weight of the entropy bonus")] = 0.05
    entropy_half_life: Annotated[float, Field(gt=0, description="generations")] = 30.0
    warm_start: Annotated[tuple[int, ...] | None, Field(description="codes of an arch")] = None
    warm_probability: Annotated[float, Field(gt=0, lt=1)] = 0.5
    ema_decay: Annotated[float, Field(ge=0, lt=1, description="used by baseline `ema`")] = 0.9


def build(config: Config, *, space: SearchSpace, seed: int) -> PolicyGradient:
    """A policy over `space`, uniform at first, or around `config.warm_start`.

    Raises:
        UserError: the arch to start from is not one of the space.
    """
    return PolicyGradient(config, space, seed)


def log_prob_gradient(
    probabilities: FloatArray,
    codes: Codes,
    active: NDArray[np.bool_],
    weights: FloatArray,
) -> FloatArray:
    """Gradient over logits [d, k] of sum_i weights[i] * log p(codes[i]).

    log p of an arch sums over its active choices only; d log softmax = onehot - p.
    """
    n_choices, n_codes = probabilities.shape
    first = n_codes * np.arange(n_choices)
    chosen, total = np.zeros(n_choices * n_codes), np.zeros(n_choices)
    for start in range(0, len(codes), CHUNK):
        part = slice(start, start + CHUNK)
        weighted = weights[part, None] * active[part]
        flat = (codes[part] + first).ravel()
        chosen += np.bincount(flat, weights=weighted.ravel(), minlength=len(chosen))
        total += weighted.sum(axis=0)
    return np.asarray(chosen.reshape(n_choices, n_codes) - probabilities * total[:, None])


def entropy_gradient(probabilities: FloatArray) -> FloatArray:
    """Gradient over logits [d, k] of the summed entropies of all choices: -p * (log p + H)."""
    log = np.log(np.where(probabilities > 0, probabilities, 1.0))
    entropies = -(probabilities * log).sum(axis=1, keepdims=True)
    return np.asarray(-probabilities * (log + entropies))


def advantages(baseline: Baseline, rewards: FloatArray, average: float) -> FloatArray:
    """Rewards above the baseline: [n]; zero for self-critical's own mode (row 0)."""
    if baseline == "self_critical":
        above = rewards - rewards[0]
    elif baseline == "ema":
        above = rewards - average
    else:
        above = (rewards - rewards.mean()) * len(rewards) / max(len(rewards) - 1, 1)
    return np.asarray(above)


class PolicyGradient:
    """State: logits, Adam's two moments, the average reward, and the generation."""

    def __init__(self, config: Config, space: SearchSpace, seed: int) -> None:
        self._config, self._space, self._seed = config, space, seed
        n_codes = max(len(choice.values) for choice in space.choices)
        self._allowed = np.zeros((len(space.choices), n_codes), dtype=bool)
        for column, codes in enumerate(space.allowed):
            self._allowed[column, list(codes)] = True
        self._last = np.array([codes[-1] for codes in space.allowed])
        self._logits = np.zeros(self._allowed.shape)
        if config.warm_start is not None:
            self._favour(space.check(Arch(space.id, config.warm_start)), config.warm_probability)
        self._moments = np.zeros((2, *self._allowed.shape))
        self._average: float | None = None
        self._generation = 0

    def _favour(self, arch: Arch, probability: float) -> None:
        """Give the arch's active choices a probability; equal odds to the other codes."""
        active = self._space.active(self._space.codes([arch]))[0]
        for column in np.flatnonzero(active & (self._allowed.sum(axis=1) > 1)):
            n_others = int(self._allowed[column].sum()) - 1
            odds = probability / (1 - probability) * n_others
            self._logits[column, arch.codes[column]] = np.log(odds)

    def probabilities(self) -> FloatArray:
        """[d, k]: probability of every code of every choice; 0 where it is not allowed."""
        logits = np.where(self._allowed, self._logits, -np.inf)
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(odds / odds.sum(axis=1, keepdims=True))

    def mode(self) -> Codes:
        """The policy's most probable codes: [1, d]."""
        logits = np.where(self._allowed, self._logits, -np.inf)
        return self._space.normalise(logits.argmax(axis=1).astype(np.int16)[None])

    def ask(self, n: int) -> Codes:
        """n draws from the policy (with repeats); under `self_critical` the first is its mode."""
        if n == 0:
            return self._space.codes([])
        stream = rng(self._seed, "search/policy", self._generation)
        ends = self.probabilities().cumsum(axis=1)
        ends[np.arange(ends.shape[1]) >= self._last[:, None]] = np.inf  # rounding never overshoots
        drawn = stream.random((n, len(ends)))
        below = np.zeros(drawn.shape, dtype=np.uint8)  # as wide as a bool: no conversions
        for end in ends.T[:-1]:
            below += (drawn >= end).view(np.uint8)
        if self._config.baseline == "self_critical":
            below[:1] = self.mode()
        return self._space.normalise(below.astype(np.int16))

    def tell(self, codes: Codes, rewards: FloatArray, objectives: FloatArray | None = None) -> None:
        """One Adam step up the mean of advantage * log p, plus the entropy bonus."""
        config = self._config
        mean = float(rewards.mean())
        average = mean if self._average is None else self._average
        weights = advantages(config.baseline, rewards, average)
        n_drawn = max(len(codes) - (config.baseline == "self_critical"), 1)
        probabilities = self.probabilities()
        gradient = log_prob_gradient(
            probabilities, codes, self._space.active(codes), weights / n_drawn
        )
        bonus = config.entropy * 0.5 ** (self._generation / config.entropy_half_life)
        self._climb(gradient + bonus * entropy_gradient(probabilities))
        self._average = config.ema_decay * average + (1 - config.ema_decay) * mean

    def _climb(self, gradient: FloatArray) -> None:
        self._generation += 1
        first = BETA1 * self._moments[0] + (1 - BETA1) * gradient
        second = BETA2 * self._moments[1] + (1 - BETA2) * gradient**2
        self._moments = np.stack([first, second])
        step = first / (1 - BETA1**self._generation)
        scale = np.sqrt(second / (1 - BETA2**self._generation)) + EPSILON
        self._logits = self._logits + self._config.learning_rate * step / scale

    def state(self) -> dict[str, Any]:
        """Everything that learning changed; draws derive from the generation."""
        return {
            "generation": self._generation,
            "average": self._average,
            "logits": self._logits.tolist(),
            "moments": self._moments.tolist(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Inverse of `state`.

        Raises:
            UserError: the state belongs to a space of another shape.
        """
        logits, moments = np.array(state["logits"]), np.array(state["moments"])
        if logits.shape != self._logits.shape or moments.shape != self._moments.shape:
            raise UserError(
                "searcher state of another space",
                expected=f"logits {self._logits.shape}",
                found=f"logits {logits.shape}",
                where=self._space.id,
            )
        self._logits, self._moments = logits, moments
        self._average, self._generation = state["average"], state["generation"]
