"""Trains the networks of an ensemble: batches, losses, AdamW with a cosine schedule."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.adamw import adamw

from hwnas.core.rng import rng
from hwnas.predictors.losses import ensemble_loss
from hwnas.predictors.recipe import LossName, Recipe

__all__ = ["Training"]

WARM_UP_FRACTION = 0.05


class Training:
    """Minimises losses on `targets` [n] in `recipe.n_steps(n)` steps.

    AdamW is used as a function, because its class loads torch's compiler, which takes longer than a
    small fit. Biases do not decay. A copy (`copy.deepcopy`) can continue independently.

    seen: [e, n]; 1 if a member learns from a label, else 0.
    """

    def __init__(
        self,
        net: nn.Module,
        inputs: list[Tensor],
        targets: Tensor,
        seen: Tensor,
        recipe: Recipe,
        *,
        seed: int,
    ) -> None:
        self.net, self._inputs, self._targets, self._seen = net, inputs, targets, seen
        self._recipe, self._seed = recipe, seed
        named = list(net.named_parameters())
        self._weights = [_Moments(p) for name, p in named if not name.endswith("bias")]
        self._biases = [_Moments(p) for name, p in named if name.endswith("bias")]
        self.n_steps, self._step = recipe.n_steps(len(targets)), 0
        self._decay = recipe.decay(len(targets))

    def run(self, loss: LossName, until: int) -> None:
        """Trains with this loss from the current step to step `until`."""
        recipe, n = self._recipe, len(self._targets)
        warm_up = max(1, round(WARM_UP_FRACTION * self.n_steps))
        batches = _batches(recipe, n, self._seed)
        for step, rows in enumerate(itertools.islice(batches, until)):
            if step < self._step:
                continue
            picked = torch.from_numpy(rows)
            outputs = self.net(*(tensor[picked] for tensor in self._inputs))
            seen = self._seen[:, picked]
            self.net.zero_grad()
            ensemble_loss(outputs, self._targets[picked], seen, recipe, loss).backward()  # type: ignore[no-untyped-call]
            cosine = 0.5 * (1 + math.cos(math.pi * step / self.n_steps))
            rate = recipe.learning_rate * cosine * min(1.0, (step + 1) / warm_up)
            for group, decay in ((self._weights, self._decay), (self._biases, 0.0)):
                _adamw_step(group, rate, decay)
        self._step = max(self._step, until)


def _batches(recipe: Recipe, n: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Rows of every step: new permutations cut into full batches."""
    size = min(recipe.batch_size, n)
    per_epoch = n // size
    for step in range(recipe.n_steps(n)):
        epoch, position = divmod(step, per_epoch)
        if position == 0:
            order = rng(seed, "predictor/order", epoch).permutation(n)
        yield order[position * size : (position + 1) * size]


class _Moments:
    """State of AdamW for one parameter."""

    def __init__(self, parameter: nn.Parameter) -> None:
        self.parameter = parameter
        self.first, self.second = torch.zeros_like(parameter), torch.zeros_like(parameter)
        self.step = torch.tensor(0.0)


def _adamw_step(group: list[_Moments], rate: float, decay: float) -> None:
    """One step for the parameters that have a gradient, with the default betas of torch."""
    used = [m for m in group if m.parameter.grad is not None]
    with torch.no_grad():
        adamw(
            [m.parameter for m in used],
            [m.parameter.grad for m in used if m.parameter.grad is not None],
            [m.first for m in used],
            [m.second for m in used],
            [],
            [m.step for m in used],
            fused=True,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=rate,
            weight_decay=decay,
            eps=1e-8,
            maximize=False,
        )
