"""Losses of predictors by their definitions, and the switch between them."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest
import torch

from hwnas.core.rng import rng
from hwnas.core.stats import top_weighted_tau
from hwnas.interfaces import PredictorContext
from hwnas.predictors import mlp
from hwnas.predictors.losses import BOUND, TOP_SHARE, ensemble_loss
from hwnas.predictors.recipe import LossName, Recipe, SwitchName
from hwnas.spaces.space import SearchSpace

N_BATCH = 12


@pytest.fixture(scope="module")
def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Outputs [3, 12], targets [12], and which labels the members see."""
    stream = rng(0, "test/losses")
    outputs, targets = stream.normal(size=(3, N_BATCH)), stream.normal(size=N_BATCH)
    seen = np.arange(N_BATCH) % 3 != np.arange(3)[:, None]
    return tuple(torch.tensor(a, dtype=torch.float32) for a in (outputs, targets, seen))  # type: ignore[return-value]


def by_hand(batch: tuple[torch.Tensor, ...], loss: LossName, recipe: Recipe) -> float:
    """Sum over members, written out for one label after the other."""
    outputs, targets, seen = (tensor.double().numpy() for tensor in batch)
    n_top = round(TOP_SHARE * N_BATCH)
    top = np.argsort(-targets)[:n_top]
    total = 0.0
    for scores, member in zip(outputs, seen > 0, strict=True):
        rows, terms = np.flatnonzero(member), []
        for row in rows:
            worse = [r for r in rows if targets[r] < targets[row]]
            if loss == "listmle":
                rest = sum(math.exp(scores[r]) for r in [row, *worse])
                terms.append(math.log(rest) - scores[row])
            elif loss == "mape":
                bound = targets.max() + BOUND
                terms.append(abs(scores[row] - targets[row]) / (bound - targets[row]))
            elif row in top:
                wrong = [recipe.margin - scores[row] + scores[r] for r in worse]
                wrong = [error for error in wrong if error > 0]
                price = sum(1 / (k + 1) for k in range(len(wrong)))
                terms.append(price * np.mean(wrong) if wrong else 0.0)
        total += float(np.mean(terms))
    return total


@pytest.mark.parametrize("weight", [0.0, 1.0, 2.5])
def test_the_ranking_loss_is_added_by_its_weight(
    batch: tuple[torch.Tensor, ...], weight: float
) -> None:
    squared, pairwise, both = (
        float(ensemble_loss(*batch, Recipe(ranking_weight=weight), loss))
        for loss in ("mse", "pairwise", "both")
    )
    assert both == pytest.approx(squared + weight * pairwise) and pairwise > 0


@pytest.mark.parametrize("loss", ["listmle", "warp", "mape"])
@pytest.mark.parametrize("margin", [0.1, 2.0])
def test_losses_are_their_definitions(
    batch: tuple[torch.Tensor, ...], loss: LossName, margin: float
) -> None:
    recipe = Recipe(margin=margin)
    found = float(ensemble_loss(*batch, recipe, loss))  # type: ignore[arg-type]
    assert found == pytest.approx(by_hand(batch, loss, recipe), rel=1e-5)


def test_listmle_is_the_likelihood_of_one_of_all_orders() -> None:
    """The probabilities of all orders of four archs sum to 1."""
    outputs = torch.tensor([[0.3, -1.0, 2.0, 0.7]])
    losses = [
        ensemble_loss(outputs, torch.tensor(order).float(), torch.ones(1, 4), Recipe(), "listmle")
        for order in permutations(range(4))
    ]
    assert sum(math.exp(-4 * float(loss)) for loss in losses) == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize("loss", ["warp", "mape"])
def test_top_weighted_losses_charge_most_for_errors_at_the_top(loss: LossName) -> None:
    """One error of equal size: the best arch scored low, or a bad one."""
    targets = torch.linspace(-1, 1, 12)
    perfect = targets.repeat(1, 1)

    def price(row: int) -> float:
        outputs = perfect.clone()
        outputs[0, row] -= 0.7
        return float(ensemble_loss(outputs, targets, torch.ones(1, 12), Recipe(), loss))

    assert price(11) > 2 * price(3)


@pytest.mark.parametrize("loss", ["listmle", "warp", "mape"])
def test_gradients_are_finite_where_a_member_sees_little(loss: LossName) -> None:
    """Also of a member that sees one label or none, and of equal labels."""
    seen = torch.tensor([[0.0, 0, 0, 0], [0, 1, 0, 0], [1, 1, 1, 1]])
    for targets in (torch.arange(4.0), torch.zeros(4)):
        outputs = torch.zeros(3, 4, requires_grad=True)
        ensemble_loss(outputs, targets, seen, Recipe(), loss).backward()  # type: ignore[no-untyped-call]
        assert outputs.grad is not None and outputs.grad.isfinite().all()
        assert (outputs.grad[0] == 0).all()


def fitted(space: SearchSpace, switch: SwitchName, n: int) -> np.ndarray:
    """Predictions of 40 archs after a fit on n labels."""
    codes = space.sample(n + 40, rng=rng(1, "test/switch"))
    scores = np.sin(codes.sum(axis=1) / 3.0) + codes[:, 1]
    recipe = Recipe(members=2, min_steps=40, max_steps=40, switch=switch)
    predictor = mlp.build(mlp.Config(training=recipe), PredictorContext(space, 0))
    predictor.fit(codes[:n], scores[:n])
    return predictor.predict(codes[n:])[0]


def test_the_held_out_labels_choose_the_loss(
    tiny_space: SearchSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever they say: the first loss, WARP or MAPE, each as if nothing else had been trained."""
    fits = [fitted(tiny_space, switch, 32) for switch in ("never", "warp", "mape")]
    assert len({tuple(fit) for fit in fits}) == 3
    for best in range(3):
        answers = iter([float(number == best) for number in range(3)])
        with monkeypatch.context() as patch:
            patch.setattr(
                "hwnas.predictors.ensemble.top_weighted_tau", lambda *_, it=answers: next(it)
            )
            np.testing.assert_array_equal(fitted(tiny_space, "held_out", 32), fits[best])


def test_too_few_labels_choose_nothing(tiny_space: SearchSpace) -> None:
    few = [fitted(tiny_space, switch, 19) for switch in ("never", "held_out")]
    np.testing.assert_array_equal(*few)


def test_the_top_counts_most_in_the_weighted_tau() -> None:
    truth = np.arange(20.0)
    at_top, at_bottom = truth.copy(), truth.copy()
    at_top[[18, 19]], at_bottom[[0, 1]] = at_top[[19, 18]], at_bottom[[1, 0]]
    assert top_weighted_tau(truth, truth) == 1
    assert top_weighted_tau(at_top, truth) < top_weighted_tau(at_bottom, truth) < 1
    assert top_weighted_tau(np.zeros(20), truth) == 0
