"""Trains the networks of an ensemble: batches, losses, AdamW with a cosine schedule."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.adamw import adamw

from hwnas.core.rng import rng
from hwnas.predictors.recipe import Recipe

__all__ = ["ensemble_loss", "train"]

WARM_UP_FRACTION = 0.05


def train(
    net: nn.Module,
    inputs: list[Tensor],
    targets: Tensor,
    seen: Tensor,
    recipe: Recipe,
    *,
    seed: int,
) -> None:
    """Minimises the loss of the recipe on `targets` [n]; `seen` [e, n] is 1 for a member's labels.

    Uses the function of AdamW instead of its class, because the class loads torch's compiler, which
    takes longer than a small fit. Biases have no weight decay.
    """
    weights = [_Moments(p) for name, p in net.named_parameters() if not name.endswith("bias")]
    biases = [_Moments(p) for name, p in net.named_parameters() if name.endswith("bias")]
    total = recipe.n_steps(len(targets))
    warm_up = max(1, round(WARM_UP_FRACTION * total))
    for step, rows in enumerate(_batches(recipe, len(targets), seed)):
        picked = torch.from_numpy(rows)
        outputs = net(*(tensor[picked] for tensor in inputs))
        loss = ensemble_loss(outputs, targets[picked], seen[:, picked], recipe)
        net.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        cosine = 0.5 * (1 + math.cos(math.pi * step / total))
        rate = recipe.learning_rate * cosine * min(1.0, (step + 1) / warm_up)
        for group, decay in ((weights, recipe.weight_decay), (biases, 0.0)):
            _adamw_step(group, rate, decay)


def ensemble_loss(outputs: Tensor, targets: Tensor, weights: Tensor, recipe: Recipe) -> Tensor:
    """Sum over members of their mean losses. `outputs`, `weights`: [e, b]; `targets`: [b]."""
    loss = outputs.new_zeros(())
    if recipe.loss == "listwise":
        unseen = torch.where(weights > 0, 0.0, -torch.inf)
        wanted = torch.softmax(targets + unseen, dim=1)
        found = torch.log_softmax(outputs + unseen, dim=1)
        return -(wanted * torch.where(weights > 0, found, 0.0)).sum()
    if recipe.loss != "pairwise":
        errors = weights * (outputs - targets) ** 2
        loss = loss + (errors.sum(1) / weights.sum(1).clamp(min=1)).sum()
    if recipe.loss != "mse":
        better = (targets[:, None] > targets) * weights[:, :, None] * weights[:, None, :]
        hinge = better * F.relu(recipe.margin - (outputs[:, :, None] - outputs[:, None, :]))
        ranking = (hinge.sum((1, 2)) / better.sum((1, 2)).clamp(min=1)).sum()
        loss = loss + (recipe.ranking_weight if recipe.loss == "both" else 1.0) * ranking
    return loss


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
