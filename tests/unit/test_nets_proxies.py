"""Proxies against their formulas on networks small enough to write down, and against real ranks."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from hwnas.core.rng import rng
from hwnas.core.stats import kendall_tau
from hwnas.interfaces import ProxyContext
from hwnas.nets.proxies import REGISTRY
from hwnas.nets.proxies.naswot import naswot_score
from hwnas.nets.proxies.synflow import synflow_score
from hwnas.nets.proxies.zen import zen_score
from hwnas.nets.subnet import build_subnet
from hwnas.spaces import mobilenet_tiny
from hwnas.spaces.cost import cost
from hwnas.spaces.nasbench_macro import Config, build

SPACE = mobilenet_tiny.build(
    mobilenet_tiny.Config(resolutions=(8, 12), width_mult=0.25), num_classes=4
)
CODES = SPACE.sample(4, rng=rng(0, "test"))


def test_analytic_proxies_are_the_costs():
    for name in ("macs", "params"):
        module = REGISTRY.load(name)
        scores = module.build(module.Config(), ProxyContext(SPACE, 0))(CODES)
        assert np.array_equal(scores, cost(SPACE, CODES, name))


class Bare(nn.Module):
    """One 1x1 convolution and what follows; `forward_features` as in timm."""

    def __init__(self, *layers):
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward_features(self, x):
        return self.layers(x)

    def forward(self, x):
        return self.layers(x)


def test_zen_of_a_linear_network_is_the_closed_form():
    """f = conv 1x1, so f(x) - f(x + g e) = g W e whatever x is; E |W e| by its distribution."""
    gamma, px, n_in, n_out = 0.01, 16, 3, 8
    found = zen_score(
        Bare(nn.Conv2d(n_in, n_out, 1)), px, repeats=64, batch_size=16, gamma=gamma, seed=0
    )
    # Per output value: g |w . e| = g |w| sqrt(2 / pi) on average; |w| is chi with 3 degrees.
    norms = np.linalg.norm(np.random.default_rng(0).standard_normal((20000, n_out, n_in)), axis=2)
    expected = np.log(gamma * px**2 * math.sqrt(2 / math.pi) * norms.sum(axis=1)).mean()
    assert found == pytest.approx(expected, abs=0.05)


def test_zen_undoes_batch_normalisation():
    """A BN divides the change by its deviation and adds that deviation's log: no difference."""
    settings = {"repeats": 4, "batch_size": 16, "gamma": 0.01, "seed": 1}
    one_channel = Bare(nn.Conv2d(3, 1, 1))
    normalised = Bare(nn.Conv2d(3, 1, 1), nn.BatchNorm2d(1))
    plain, undone = (zen_score(model, 16, **settings) for model in (one_channel, normalised))
    assert undone == pytest.approx(plain, abs=0.02)


def test_zen_removes_residual_connections_and_stops_before_the_pooling():
    model = build_subnet(SPACE, SPACE.largest(), seed=0)
    n_skips = sum(bool(getattr(module, "has_skip", False)) for module in model.modules())
    assert n_skips > 0
    zen_score(model, 12, repeats=1, batch_size=2, gamma=0.01, seed=0)
    assert not any(getattr(module, "has_skip", False) for module in model.modules())


def test_naswot_counts_equal_activations():
    """Three images, two ReLUs wide: codes 11, 10 and 00 by construction."""
    conv = nn.Conv2d(1, 2, 1)
    conv.weight.data = torch.tensor([1.0, 1.0]).view(2, 1, 1, 1)
    conv.bias.data = torch.tensor([1.5, 0.5])
    x = torch.tensor([1.0, -1.0, -2.0]).view(3, 1, 1, 1)
    kernel = np.array([[2, 1, 0], [1, 2, 1], [0, 1, 2]])  # N_A - Hamming distance
    found = naswot_score(Bare(conv, nn.ReLU()), x)
    assert found == pytest.approx(np.log(np.linalg.det(kernel)))


def test_synflow_of_a_linear_chain_by_hand():
    """R = sum |W2| |W1| 1 of two 1x1 layers, and the sum of w dR/dw of each of them is R."""
    first, second = nn.Conv2d(2, 3, 1, bias=False), nn.Conv2d(3, 2, 1, bias=False)
    w1, w2 = first.weight.detach().double().abs(), second.weight.detach().double().abs()
    total = float((w2[:, :, 0, 0] @ w1[:, :, 0, 0] @ torch.ones(2, dtype=torch.float64)).sum())
    found = synflow_score(Bare(first, nn.BatchNorm2d(3), nn.ReLU(), second), 2)
    assert found == pytest.approx(math.log(2 * 4 * total), rel=1e-6)  # two layers, 4 pixels


def test_zen_ranks_real_networks(test_data):
    """Above nothing on 40 archs of NAS-Bench-Macro, whose accuracies are of CIFAR-10 trainings."""
    table = json.loads((test_data / "nas_bench_macro" / "cifar10.json").read_text())
    space = build(Config(), num_classes=10)
    keys = sorted(table)
    chosen = [keys[row] for row in rng(0, "test/rows").permutation(len(keys))[:40]]
    codes = np.zeros((40, len(space.choices)), dtype=np.int16)
    columns = [i for i, choice in enumerate(space.choices) if choice.role == "op"]
    codes[:, columns] = [[int(digit) for digit in key] for key in chosen]
    truth = np.array([np.mean(table[key]["test_acc"]) for key in chosen])
    zen = REGISTRY.load("zen")
    config = zen.Config(repeats=2, batch_size=4, px=16)
    scores = zen.build(config, ProxyContext(space, 0))(codes)
    assert kendall_tau(scores, truth) > 0.2
