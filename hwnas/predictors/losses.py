"""Losses of predictors: regression, ranking, and top-weighted ones (compared in 2506.05869).

Every loss gets outputs [e, b] of e members, targets [b], and weights [e, b] that are 1 for the
labels that a member learns from and 0 otherwise. It returns the sum over members of their mean
loss.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from hwnas.predictors.recipe import LossName, Recipe

__all__ = ["TOP_SHARE", "ensemble_loss"]

TOP_SHARE = 0.25
"""WARP ranks this share of the labels of a batch above all worse ones."""

BOUND = 0.5
"""MAPE: distance of the best label of a batch to the upper bound, in standard deviations."""

FAR = -1e4  # instead of minus infinity, whose gradients are undefined


def ensemble_loss(
    outputs: Tensor, targets: Tensor, weights: Tensor, recipe: Recipe, loss: LossName
) -> Tensor:
    """Computes the named loss, a scalar, with the settings of `recipe`."""
    return _LOSSES[loss](outputs, targets, weights, recipe)


def _squared(outputs: Tensor, targets: Tensor, weights: Tensor, recipe: Recipe) -> Tensor:
    return _mean((outputs - targets) ** 2, weights)


def _pairwise(outputs: Tensor, targets: Tensor, weights: Tensor, recipe: Recipe) -> Tensor:
    better, hinge = _pairs(outputs, targets, weights, recipe.margin)
    return (hinge.sum((1, 2)) / better.sum((1, 2)).clamp(min=1)).sum()


def _both(outputs: Tensor, targets: Tensor, weights: Tensor, recipe: Recipe) -> Tensor:
    ranking = recipe.ranking_weight * _pairwise(outputs, targets, weights, recipe)
    return _squared(outputs, targets, weights, recipe) + ranking


def _listwise(outputs: Tensor, targets: Tensor, weights: Tensor, recipe: Recipe) -> Tensor:
    """ListNet (Cao et al. 2007): cross-entropy of the softmax of labels and of outputs."""
    unseen = torch.where(weights > 0, 0.0, -torch.inf)
    wanted = torch.softmax(targets + unseen, dim=1)
    found = torch.log_softmax(outputs + unseen, dim=1)
    return -(wanted * torch.where(weights > 0, found, 0.0)).sum()


def _listmle(outputs: Tensor, targets: Tensor, weights: Tensor, recipe: Recipe) -> Tensor:
    """ListMLE (Xia et al. 2008): minus the mean log-likelihood of the true order.

    The likelihood draws the best arch by a softmax over all outputs, then the next by a softmax
    over the remaining outputs, and so on.
    """
    order = targets.argsort(descending=True)
    outputs, weights = outputs[:, order], weights[:, order]
    rest = torch.where(weights > 0, outputs, FAR).flip(1).logcumsumexp(1).flip(1)
    return _mean(rest - outputs, weights)


def _warp(outputs: Tensor, targets: Tensor, weights: Tensor, recipe: Recipe) -> Tensor:
    """WARP (Weston et al. 2011): hinge on pairs of a top label and a worse one.

    If k worse labels violate the margin of a top label, their mean error has weight 1 + 1/2 + ... +
    1/k. All pairs are used instead of a sample.
    """
    _, hinge = _pairs(outputs, targets, weights, recipe.margin)
    n_top = max(1, round(TOP_SHARE * len(targets)))
    is_top = (targets >= targets.topk(n_top).values[-1]) * weights  # [e, b]
    violations = (hinge > 0).sum(2)  # [e, b]
    harmonic = torch.cat([outputs.new_zeros(1), _harmonic(len(targets))])
    price = harmonic[violations] * hinge.sum(2) / violations.clamp(min=1)
    return _mean(price, is_top)


def _mape(outputs: Tensor, targets: Tensor, weights: Tensor, recipe: Recipe) -> Tensor:
    """Absolute error relative to the distance of the label from an upper bound (1910.11858).

    The bound is slightly above the best label of the batch, so errors of the best labels count
    most.
    """
    distance = targets.max() - targets + BOUND
    return _mean((outputs - targets).abs() / distance, weights)


def _pairs(
    outputs: Tensor, targets: Tensor, weights: Tensor, margin: float
) -> tuple[Tensor, Tensor]:
    """[e, b, b] each: 1 if the first label is better than the second, and the hinge of the pair."""
    better = (targets[:, None] > targets) * weights[:, :, None] * weights[:, None, :]
    return better, better * F.relu(margin - (outputs[:, :, None] - outputs[:, None, :]))


def _mean(losses: Tensor, weights: Tensor) -> Tensor:
    return ((weights * losses).sum(1) / weights.sum(1).clamp(min=1)).sum()


def _harmonic(n: int) -> Tensor:
    return (1 / torch.arange(1, n + 1, dtype=torch.float32)).cumsum(0)


_LOSSES: dict[LossName, Callable[[Tensor, Tensor, Tensor, Recipe], Tensor]] = {
    "mse": _squared,
    "pairwise": _pairwise,
    "both": _both,
    "listwise": _listwise,
    "listmle": _listmle,
    "warp": _warp,
    "mape": _mape,
}
