"""The GCN on a truth that is not additive, and the training machinery under it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hwnas.core.errors import UserError
from hwnas.core.rng import rng
from hwnas.core.stats import kendall_tau
from hwnas.interfaces import PredictorContext
from hwnas.nets.graph_conv import EnsembleMLP
from hwnas.predictors import gcn, mlp, ridge
from hwnas.predictors.descent import Training
from hwnas.predictors.ensemble import _share
from hwnas.predictors.losses import ensemble_loss
from hwnas.predictors.recipe import Recipe
from hwnas.spaces.cost import cost
from hwnas.spaces.mobilenet_tiny import Config as SpaceConfig
from hwnas.spaces.mobilenet_tiny import build as build_space


@pytest.fixture(scope="module")
def space():
    return build_space(SpaceConfig(resolutions=(16, 24, 32)), num_classes=10)


def synthetic_top1(space, codes):
    """A made-up accuracy with diminishing returns and interactions, between 0.5 and 1.

    Stage s of width w, whose active blocks b have kernel k_b and expansion e_b, has the capacity
        c_s = w / w_max * sum_b 0.7^b * sqrt(e_b) * (1.25 if k_b = 5 and the map is large else 1),
    where the map is large in stage 0, and in stage 1 from 24 px on. Capacities multiply:
        q = sum_s log(c_s) + 0.8 * log(resolution) + 0.2 * log(stem width), centred,
    and accuracy saturates: top1 = 0.5 + 0.5 / (1 + exp(-1 - 1.5 q)) with its long tail of bad ones.
    """
    names = [choice.name for choice in space.choices]
    active = space.active(codes)

    def value(name):
        at = names.index(name)
        return np.array(space.choices[at].values)[codes[:, at]].astype(float)

    resolution = value("resolution")
    quality = 0.8 * np.log(resolution) + 0.2 * np.log(value("stem.width"))
    for s, stage in enumerate(space.macro.stages):
        is_large = (s == 0) | ((s == 1) & (resolution >= 24))
        blocks = 0
        for b in range(max(stage.depths)):
            is_active = active[:, names.index(f"stage{s}.block{b}.kernel")]
            gain = np.where((value(f"stage{s}.block{b}.kernel") == 5) & is_large, 1.25, 1.0)
            blocks = (
                blocks + is_active * 0.7**b * np.sqrt(value(f"stage{s}.block{b}.expand")) * gain
            )
        quality = quality + np.log(value(f"stage{s}.width") / max(stage.widths) * blocks)
    return 0.5 + 0.5 / (1 + np.exp(-1 - 1.5 * (quality - quality.mean())))


@pytest.fixture(scope="module")
def labelled(space):
    codes = space.sample(1100, rng=rng(0, "test/synthetic"))
    return codes, synthetic_top1(space, codes)


def test_beats_ridge_and_macs_where_choices_interact(space, labelled):
    codes, top1 = labelled
    taus = {}
    for module in (gcn, ridge):
        predictor = module.build(module.Config(), PredictorContext(space, 0))
        predictor.fit(codes[:100], top1[:100])
        taus[module.__name__] = kendall_tau(predictor.predict(codes[100:])[0], top1[100:])
    macs = kendall_tau(cost(space, codes[100:], "macs").astype(float), top1[100:])
    assert taus["hwnas.predictors.gcn"] > taus["hwnas.predictors.ridge"] + 0.02
    assert taus["hwnas.predictors.gcn"] > macs + 0.2


def test_averages_out_label_noise(space, labelled):
    # GCN space fitting (2004.08423): labels = truth + independent noise of the truth's own size;
    # the fit ranks the labelled archs themselves better than their labels do.
    codes, top1 = labelled
    noisy = top1 + top1.std() * rng(0, "test/noise").normal(size=len(top1))
    predictor = gcn.build(gcn.Config(), PredictorContext(space, 0))
    predictor.fit(codes[:200], noisy[:200])
    raw = kendall_tau(noisy[:200], top1[:200])
    fitted = kendall_tau(predictor.predict(codes[:200])[0], top1[:200])
    assert fitted > raw + 0.15


@pytest.mark.parametrize("loss", ["mse", "pairwise", "listwise", "both"])
def test_every_loss_gives_scores_in_the_labels_unit(space, labelled, loss):
    codes, top1 = labelled
    config = gcn.Config(width=16, depth=2, training=Recipe(loss=loss, min_steps=200))
    predictor = gcn.build(config, PredictorContext(space, 0))
    predictor.fit(codes[:100], top1[:100])
    mean, std = predictor.predict(codes[100:])
    assert kendall_tau(mean, top1[100:]) > 0.6
    assert np.sqrt(((mean - top1[100:]) ** 2).mean()) < 0.5 * top1.std()
    assert 0.8 <= (np.abs(mean - top1[100:]) <= 1.645 * std).mean() <= 0.98


def test_state_of_another_size_is_refused(space, labelled):
    codes, top1 = labelled
    quick = Recipe(min_steps=5, max_steps=5)
    small = gcn.build(gcn.Config(width=8, training=quick), PredictorContext(space, 0))
    small.fit(codes[:20], top1[:20])
    large = gcn.build(gcn.Config(width=16, training=quick), PredictorContext(space, 0))
    with pytest.raises(UserError, match="state belongs to another predictor"):
        large.load_state(small.state())
    with pytest.raises(UserError, match="state belongs to another predictor"):
        large.load_state({})


def test_state_is_a_copy(space, labelled):
    codes, top1 = labelled
    config = mlp.Config(width=16, training=Recipe(min_steps=5, max_steps=5))
    predictor = mlp.build(config, PredictorContext(space, 0))
    predictor.fit(codes[:20], top1[:20])
    before = predictor.predict(codes[:5])
    for array in predictor.state().values():
        array.fill(0)
    np.testing.assert_array_equal(predictor.predict(codes[:5]), before)


def test_number_of_steps_follows_the_labels_within_bounds():
    recipe = Recipe(epochs=100, batch_size=32, min_steps=400, max_steps=2400)
    assert [recipe.n_steps(n) for n in (8, 128, 256, 10_000)] == [400, 400, 800, 2400]


def test_weights_of_longer_fits_decay_as_much_in_all():
    recipe = Recipe(epochs=100, batch_size=32, min_steps=300, max_steps=2400, learning_rate=0.01)
    assert [recipe.decay(n) for n in (8, 192, 288)] == [1.0, 1.0, 1.0]  # at most 900 steps
    for n in (384, 640, 10_000):
        assert recipe.decay(n) * recipe.n_steps(n) == pytest.approx(900)
    slow = mlp.Config().training  # of Once-for-All, with a low learning rate: it decays as before
    assert slow.decay(10_000) == slow.weight_decay


@pytest.mark.parametrize(("n_steps", "decay"), [(12, 1.0), (800, 0.75)])
def test_training_is_adamw_with_a_cosine(n_steps, decay):
    """The same steps with torch's optimiser class, whose import the fit avoids."""
    recipe = Recipe(members=2, batch_size=8, min_steps=n_steps, max_steps=n_steps, loss="mse")
    stream = rng(0, "test/adamw")
    inputs, targets = (
        torch.tensor(stream.normal(size=size), dtype=torch.float32) for size in ((8, 3), 8)
    )
    nets = [EnsembleMLP(2, (3, 4, 1), torch.Generator().manual_seed(1)) for _ in range(2)]

    class Scored(torch.nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net = net

        def forward(self, x):
            return self.net(x)[..., 0]

    training = Training(Scored(nets[0]), [inputs], targets, torch.ones(2, 8), recipe, seed=0)
    training.run("mse", 5)
    training.run("mse", n_steps)
    named = list(nets[1].named_parameters())
    groups = [
        {"params": [p for name, p in named if not name.endswith("bias")], "weight_decay": decay},
        {"params": [p for name, p in named if name.endswith("bias")], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, lr=1.0)
    warm_up = max(1, round(0.05 * n_steps))
    for step in range(n_steps):
        rate = recipe.learning_rate * 0.5 * (1 + np.cos(np.pi * step / n_steps))
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1, (step + 1) / warm_up)
        optimiser.zero_grad()
        ((nets[1](inputs)[..., 0] - targets) ** 2).mean(dim=1).sum().backward()
        optimiser.step()
    for found, expected in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


def test_listwise_loss_is_the_cross_entropy_of_the_labels_that_a_member_sees():
    outputs = torch.tensor([[0.5, -1.0, 2.0], [0.0, 1.0, 3.0]])
    targets, seen = torch.tensor([1.0, 0.0, -1.0]), torch.tensor([[1.0, 1, 1], [1, 0, 1]])
    by_hand = -(targets.softmax(0) * outputs[0].log_softmax(0)).sum()
    kept = [0, 2]
    by_hand -= (targets[kept].softmax(0) * outputs[1][kept].log_softmax(0)).sum()
    found = ensemble_loss(outputs, targets, seen, Recipe(), "listwise")
    torch.testing.assert_close(found, by_hand)


def test_the_process_gets_the_share_that_ranks_best():
    stream = rng(0, "test/share")
    truth = stream.normal(size=400)
    good, poor = truth + 0.2 * stream.normal(size=400), stream.normal(size=400)
    assert _share(poor, good, truth) > 0.9
    assert _share(good, poor, truth) < 0.1
    assert 0.3 < _share(*(truth + stream.normal(size=(2, 400))), truth) < 0.7
    assert _share(poor[:2], good[:2], truth[:2]) == pytest.approx(0.25, abs=0.05)  # knows nothing
