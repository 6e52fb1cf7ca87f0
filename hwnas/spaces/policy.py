"""A policy over archs: one categorical distribution per choice, and its gradient.

The policy learns by REINFORCE with Adam and an entropy bonus, in numpy. It has two users, as in
WPNAS (2203.02086): a searcher, and a sampler that trains the supernet on the preferred archs.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hwnas.core.errors import UserError
from hwnas.spaces.arch import Arch
from hwnas.spaces.space import Codes, SearchSpace

__all__ = ["Baseline", "Policy", "advantages", "entropy_gradient", "log_prob_gradient"]

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8  # Adam (1412.6980, algorithm 1)
# quantisation of a draw: probabilities are exact to 1.5e-5, in a third of the time of doubles
N_LEVELS = 1 << 16

FloatArray = NDArray[np.float64]
Baseline = Literal["self_critical", "ema", "leave_one_out"]


def log_prob_gradient(
    space: SearchSpace, probabilities: FloatArray, codes: Codes, weights: FloatArray
) -> FloatArray:
    """Gradient over logits [d, k] of sum_i weights[i] * log p(codes[i]).

    log p of an arch is the sum over its active choices; d log softmax = onehot - p. `codes` must be
    canonical: codes above 0 belong to active choices, and the codes of the parents determine which
    other choices are active.
    """
    chosen = np.zeros(probabilities.shape)
    for code in range(1, probabilities.shape[1]):
        # not `@`: in BLAS the order of additions depends on the number of threads
        chosen[:, code] = np.einsum("i,ij->j", weights, codes == code)
    others = chosen.sum(axis=1)
    total = np.full(len(chosen), weights.sum())
    for column, choice in enumerate(space.choices):  # parents come before their children
        if choice.parent is not None:
            total[column] = chosen[choice.parent, list(choice.parent_codes)].sum()
        chosen[column, 0] = total[column] - others[column]
    return np.asarray(chosen - probabilities * total[:, None])


def entropy_gradient(probabilities: FloatArray) -> FloatArray:
    """Gradient of the sum of the choices' entropies with respect to the logits, [d, k].

    It is -p * (log p + H), with H the entropy of the choice.
    """
    log = np.log(np.where(probabilities > 0, probabilities, 1.0))
    entropies = -(probabilities * log).sum(axis=1, keepdims=True)
    return np.asarray(-probabilities * (log + entropies))


def advantages(baseline: Baseline, rewards: FloatArray, average: float) -> FloatArray:
    """Rewards minus the baseline: [n]; 0 for row 0 (the mode) with `self_critical`."""
    if baseline == "self_critical":
        above = rewards - rewards[0]
    elif baseline == "ema":
        above = rewards - average
    else:
        above = (rewards - rewards.mean()) * len(rewards) / max(len(rewards) - 1, 1)
    return np.asarray(above)


class Policy:
    """Independent categorical distributions over the allowed codes of every choice.

    They are uniform at first. State: logits, the two moments of Adam, and the number of updates,
    `generation`.
    """

    def __init__(self, space: SearchSpace, *, learning_rate: float) -> None:
        self.generation = 0
        self._space, self._learning_rate = space, learning_rate
        n_codes = max(len(choice.values) for choice in space.choices)
        self._allowed = np.zeros((len(space.choices), n_codes), dtype=bool)
        for column, codes in enumerate(space.allowed):
            self._allowed[column, list(codes)] = True
        self._dtype = np.uint8 if n_codes <= 256 else np.uint16
        self._last = np.array([codes[-1] for codes in space.allowed], dtype=self._dtype)
        self._logits = np.zeros(self._allowed.shape)
        self._moments = np.zeros((2, *self._allowed.shape))

    def favour(self, arch: Arch, probability: float) -> None:
        """Gives each code of the arch this probability; the other codes share the rest equally."""
        active = self._space.active(self._space.codes([arch]))[0]
        for column in np.flatnonzero(active & (self._allowed.sum(axis=1) > 1)):
            n_others = int(self._allowed[column].sum()) - 1
            odds = probability / (1 - probability) * n_others
            self._logits[column, arch.codes[column]] = np.log(odds)

    def probabilities(self) -> FloatArray:
        """Probability of every code of every choice, [d, k]; 0 if the code is not allowed."""
        logits = np.where(self._allowed, self._logits, -np.inf)
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(odds / odds.sum(axis=1, keepdims=True))

    def mode(self) -> Codes:
        """The most probable codes: [1, d]."""
        logits = np.where(self._allowed, self._logits, -np.inf)
        return self._space.normalise(logits.argmax(axis=1).astype(np.int16)[None])

    def draw(self, stream: np.random.Generator, n: int, *, mode_first: bool = False) -> Codes:
        """n draws [n, d] with repetitions; with `mode_first` the first one is the mode."""
        ends = np.rint(self.probabilities().cumsum(axis=1) * N_LEVELS).clip(max=N_LEVELS - 1)
        shape = n, len(ends)
        raw = stream.bit_generator.random_raw(-(-n * len(ends) // 4))
        drawn = np.asarray(raw).view(np.uint16)[: n * len(ends)].reshape(shape)
        codes = np.zeros(shape, dtype=self._dtype)  # usually one byte like bool, so no conversion
        for end in ends.T[:-1].astype(np.uint16):
            codes += (drawn >= end).view(np.uint8)
        np.minimum(codes, self._last, out=codes)
        if mode_first:
            codes[:1] = self.mode()
        codes *= self._space.active(codes).view(np.uint8)
        return codes.astype(np.int16)

    def learn(
        self,
        codes: Codes,
        rewards: FloatArray,
        *,
        baseline: Baseline,
        average: float,
        entropy: float,
    ) -> None:
        """Takes one Adam step that increases the expected advantage and the entropy.

        The objective is mean(advantage * log p) + `entropy` * (sum of entropies). With the baseline
        `self_critical`, the first row of `codes` is the mode. With `ema`, `average` is the
        baseline.
        """
        weights = advantages(baseline, rewards, average)
        n_drawn = max(len(codes) - (baseline == "self_critical"), 1)
        probabilities = self.probabilities()
        gradient = log_prob_gradient(self._space, probabilities, codes, weights / n_drawn)
        self._climb(gradient + entropy * entropy_gradient(probabilities))

    def _climb(self, gradient: FloatArray) -> None:
        self.generation += 1
        first = BETA1 * self._moments[0] + (1 - BETA1) * gradient
        second = BETA2 * self._moments[1] + (1 - BETA2) * gradient**2
        self._moments = np.stack([first, second])
        step = first / (1 - BETA1**self.generation)
        scale = np.sqrt(second / (1 - BETA2**self.generation)) + EPSILON
        self._logits = self._logits + self._learning_rate * step / scale

    def state(self) -> dict[str, Any]:
        """Logits, moments of Adam and number of updates, as JSON values."""
        return {
            "generation": self.generation,
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
                "the saved policy belongs to another space",
                expected=f"arrays of shape {list(self._logits.shape)} (logits) and"
                f" {list(self._moments.shape)} (moments of Adam)",
                found=f"arrays of shape {list(logits.shape)} and {list(moments.shape)}",
                where=self._space.id,
                fix="restore the space with which the policy was saved, or start a new search",
            )
        self._logits, self._moments = logits, moments
        self.generation = state["generation"]
