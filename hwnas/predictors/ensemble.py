"""Fits an ensemble network to labels, and calibrates its std on labels held out by members.

Member k is trained without fold k of the labels. Its errors on this fold estimate the errors of the
ensemble on new archs, slightly pessimistically, without additional labels or fits. They also
determine the weight of a Gaussian process on the same archs. The process is better if accuracy is
smooth in the choices; the networks are better if operators interact. Tau of process and networks
with 100 labels: 0.94 and 0.92 on OFA records, 0.69 and 0.82 on records of nasbench201.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hwnas.core.errors import UserError
from hwnas.core.rng import rng, stable_seed
from hwnas.core.stats import kendall_tau, top_weighted_tau
from hwnas.interfaces import FloatArray
from hwnas.predictors.descent import Training
from hwnas.predictors.labels import (
    RobustScale,
    check_codes,
    check_labels,
    not_fitted,
    spread_factor,
)
from hwnas.predictors.process import Processes, fit_processes
from hwnas.predictors.recipe import Recipe
from hwnas.spaces.space import Codes, SearchSpace

__all__ = ["EnsemblePredictor"]

PREDICT_CHUNK = 256  # fastest of 64..2048 on one core: activations stay in the cache
FLOOR = 2.0
"""The spread of each arch is combined (root sum of squares) with `FLOOR` times the mean spread.

With few members, low spreads occur by chance. Measured on NAS-Bench-Macro and OFA records at n =
50..400: 90 % intervals cover 86-93 %.
"""

SHARES = tuple(float(share) for share in np.linspace(0, 1, 11))
PRIOR_SHARE, PRIOR_LABELS = 0.25, 60
"""The weight of the processes is shrunk towards `PRIOR_SHARE` as if by `PRIOR_LABELS` more labels.

Tau of few labels is noisy. Held-out labels also favour the processes, because each is predicted by
one network only, and new archs by the mean of all networks. Measured on seven files at 39 to 532
labels (seeds 0 to 7): mean tau is 0.802, and 0.799 with 0.5 and 10 instead.
"""

Encode = Callable[[Codes], tuple[NDArray[Any], ...]]
Make = Callable[[torch.Generator], nn.Module]
Smooth = Callable[[Codes], tuple[FloatArray, ...]]


@dataclass(frozen=True)
class _Fitted:
    net: nn.Module
    scale: RobustScale
    gain: FloatArray  # [e, 1], per member, from network output to standardised score
    offset: FloatArray  # [e, 1]
    floor: float  # minimum spread, in standardised scores
    factor: float  # from spread to std
    processes: Processes
    share: float  # weight of the processes in the mean; the networks have the rest

    def spread(self, mean: FloatArray, std: FloatArray) -> FloatArray:
        """Uncalibrated std, in the unit of the labels, for a standardised mean and std."""
        width = np.hypot(std, self.floor)
        return (self.scale.restore(mean + width) - self.scale.restore(mean - width)) / 2


class EnsemblePredictor:
    """An `AccuracyPredictor` around a module that maps encoded archs to scores [e, n].

    Args:
        space: the space of the codes.
        seed: determines initial weights, held-out labels and batches.
        recipe: training settings.
        encode: maps codes to the inputs of the module, arrays with one row per arch.
        make: builds the module with weights drawn from the generator.
        smooth: maps codes to features [n, f] for each Gaussian process; () for no processes.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int,
        recipe: Recipe,
        encode: Encode,
        make: Make,
        smooth: Smooth = lambda codes: (),
    ) -> None:
        self.space = space
        self._seed, self._recipe, self._encode, self._make = seed, recipe, encode, make
        self._smooth = smooth
        self._fitted: _Fitted | None = None

    def fit(self, codes: Codes, scores: FloatArray) -> None:
        """Learns from n >= 4 labels; forgets earlier labels."""
        scores = check_labels(self.space, codes, scores)
        scale = RobustScale.of(scores)
        targets = scale.standardise(scores)
        folds = rng(self._seed, "predictor/folds").permutation(len(codes)) % self._recipe.members
        seen = folds != np.arange(self._recipe.members)[:, None]  # [e, n]
        own = folds, np.arange(len(codes))  # of every label, the member that holds it out

        def of_held_out(net: nn.Module) -> FloatArray:
            return _members(net, self._encode, codes, targets, seen)[2][own]

        net = self._trained(codes, targets, seen, of_held_out)
        gain, offset, members = _members(net, self._encode, codes, targets, seen)
        floor = FLOOR * float(members.std(axis=0).mean())
        held_out = members[own]
        processes, share = Processes(()), 0.0
        if features := self._smooth(codes):
            processes, left_out = fit_processes(features, targets, seed=self._seed)
            share = _share(held_out, left_out, targets)
            held_out = (1 - share) * held_out + share * left_out
        fitted = _Fitted(net, scale, gain, offset, floor, 1.0, processes, share)
        residuals = scale.restore(held_out) - scores
        factor = spread_factor(residuals, fitted.spread(held_out, members.std(axis=0)))
        self._fitted = replace(fitted, factor=factor)

    def predict(self, codes: Codes) -> tuple[FloatArray, FloatArray]:
        """Ensemble mean [n] and calibrated std [n], in the unit of the labels."""
        fitted = self._require()
        check_codes(self.space, codes)
        members = fitted.gain * _outputs(fitted.net, self._encode, codes) + fitted.offset
        mean = members.mean(axis=0)
        if fitted.processes.parts:
            smooth = fitted.processes.predict(self._smooth(codes))
            mean = (1 - fitted.share) * mean + fitted.share * smooth
        return fitted.scale.restore(mean), fitted.factor * fitted.spread(mean, members.std(axis=0))

    def state(self) -> dict[str, NDArray[Any]]:
        """Weights as `net.*`, and the parameters that convert outputs to scores and intervals."""
        fitted = self._require()
        weights = fitted.net.state_dict()
        return (
            {f"net.{name}": weight.numpy().copy() for name, weight in weights.items()}
            | {
                "scale": np.array([fitted.scale.median, fitted.scale.unit]),
                "members": np.hstack([fitted.gain, fitted.offset]),
                "spread": np.array([fitted.floor, fitted.factor]),
                "share": np.array([fitted.share]),
            }
            | fitted.processes.state()
        )

    def load_state(self, state: dict[str, NDArray[Any]]) -> None:
        """Inverse of `state`.

        Raises:
            UserError: the state belongs to a predictor of another kind or size, or to another
                space.
        """
        net = self._new_net()
        names = [name for name in state if name.startswith("net.")]
        try:
            net.load_state_dict({name[4:]: torch.from_numpy(state[name].copy()) for name in names})
            median, unit = state["scale"].tolist()
            gain, offset = np.hsplit(np.asarray(state["members"], dtype=np.float64), 2)
            floor, factor = state["spread"].tolist()
            n_processes = len(self._smooth(self.space.codes([])))
            processes, (share,) = Processes.load(state, n_processes), state["share"].tolist()
        except (KeyError, RuntimeError, ValueError) as error:
            raise UserError(
                "the stored state belongs to another predictor",
                expected="the config and space that it was fitted with",
                found=str(error),
                fix="fit the predictor again",
            ) from error
        self._fitted = _Fitted(
            net, RobustScale(median, unit), gain, offset, floor, factor, processes, share
        )

    def _trained(
        self,
        codes: Codes,
        targets: FloatArray,
        seen: NDArray[np.bool_],
        held_out: Callable[[nn.Module], FloatArray],
    ) -> nn.Module:
        """A network trained by the recipe; `held_out` predicts the labels [n] held out from it."""
        recipe = self._recipe
        training = Training(
            self._new_net(),
            [torch.from_numpy(array) for array in self._encode(codes)],
            torch.from_numpy(targets).float(),
            torch.from_numpy(seen).float(),
            recipe,
            seed=self._seed,
        )
        training.run(recipe.loss, training.n_steps // 2)
        losses = recipe.late_losses(len(codes))
        runs = [copy.deepcopy(training) for _ in losses[1:]] + [training]
        for run, loss in zip(runs, losses, strict=True):
            run.run(loss, training.n_steps)
        if len(runs) == 1:
            return training.net
        return max(runs, key=lambda run: top_weighted_tau(held_out(run.net), targets)).net

    def _new_net(self) -> nn.Module:
        return self._make(torch.Generator().manual_seed(stable_seed(self._seed, "predictor/init")))

    def _require(self) -> _Fitted:
        if self._fitted is None:
            raise not_fitted()
        return self._fitted


def _share(networks: FloatArray, process: FloatArray, targets: FloatArray) -> float:
    """Weight in [0, 1] of the process that ranks held-out labels best: three arrays [n].

    The weight is shrunk towards `PRIOR_SHARE`.
    """
    taus = [kendall_tau((1 - share) * networks + share * process, targets) for share in SHARES]
    best = SHARES[int(np.argmax(taus))]
    n = len(targets)
    return (n * best + PRIOR_LABELS * PRIOR_SHARE) / (n + PRIOR_LABELS)


def _outputs(net: nn.Module, encode: Encode, codes: Codes) -> FloatArray:
    """Scores of every member: float64 [e, n]."""
    parts = []
    with torch.inference_mode():
        for start in range(0, max(1, len(codes)), PREDICT_CHUNK):
            arrays = encode(codes[start : start + PREDICT_CHUNK])
            parts.append(net(*(torch.from_numpy(array) for array in arrays)).numpy())
    return np.concatenate(parts, axis=1).astype(np.float64)


def _members(
    net: nn.Module, encode: Encode, codes: Codes, targets: FloatArray, seen: NDArray[np.bool_]
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Gain and offset of every member, [e, 1] each, and its scores [e, n] of the labelled archs."""
    outputs = _outputs(net, encode, codes)
    gain, offset = _least_squares(outputs, targets, seen)
    return gain, offset, gain * outputs + offset


def _least_squares(
    outputs: FloatArray, targets: FloatArray, seen: NDArray[np.bool_]
) -> tuple[FloatArray, FloatArray]:
    """Fits, for each member, a line from its outputs to the targets: gain and offset, [e, 1] each.

    A ranking loss does not determine the scale and the origin of the outputs. With the squared
    error, the line is close to the identity.

    seen: [e, n], whether member e was trained on label n. Only these labels are used.
    """
    weights = seen / seen.sum(axis=1, keepdims=True)
    mean_out = (weights * outputs).sum(axis=1, keepdims=True)
    mean_target = (weights * targets).sum(axis=1, keepdims=True)
    centred = outputs - mean_out
    variance = (weights * centred**2).sum(axis=1, keepdims=True)
    covariance = (weights * centred * (targets - mean_target)).sum(axis=1, keepdims=True)
    gain = np.where(variance > 1e-12, covariance / np.maximum(variance, 1e-12), 1.0)
    return gain, mean_target - gain * mean_out
