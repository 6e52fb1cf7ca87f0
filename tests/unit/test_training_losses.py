"""Distillation losses against their closed forms, and torch's own."""

from __future__ import annotations

import math

import pytest
import torch

from hwnas.training.losses import (
    adaptive_alpha_divergence,
    alpha_divergence,
    distillation,
    feature_distance,
    kl_divergence,
    ranking_loss,
    soft_cross_entropy,
)


def logits(seed=0, n=6, classes=5, spread=1.0):
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (spread * torch.randn(n, classes, generator=generator) for _ in range(2))
    return student.double().requires_grad_(), teacher.double()


def closed_form(student, teacher, alpha):
    """D_alpha(p || q) = sum q ((p / q)^alpha - 1) / (alpha (alpha - 1)); KL(p || q) at 1."""
    q, p = student.softmax(1), teacher.softmax(1)
    if alpha == 1:
        return (p * (p / q).log()).sum(1)
    return ((q * (p / q) ** alpha).sum(1) - 1) / (alpha * (alpha - 1))


@pytest.mark.parametrize("alpha", [-1.0, -0.5, 0.5, 1.0, 2.0])
def test_unclipped_alpha_divergence_is_the_closed_form_with_its_gradient(alpha):
    student, teacher = logits()
    ours = alpha_divergence(student, teacher, alpha)
    (gradient,) = torch.autograd.grad(ours.sum(), student)
    exact = closed_form(student, teacher, alpha)
    (expected,) = torch.autograd.grad(exact.sum(), student)
    torch.testing.assert_close(ours, exact)
    torch.testing.assert_close(gradient, expected)


def test_alpha_minus_one_is_half_of_chi_square_and_one_is_kl():
    student, teacher = logits(1)
    q, p = student.softmax(1), teacher.softmax(1)
    torch.testing.assert_close(
        alpha_divergence(student, teacher, -1), ((q - p) ** 2 / p).sum(1) / 2
    )
    kl = torch.nn.functional.kl_div(q.log(), p, reduction="none").sum(1)
    torch.testing.assert_close(alpha_divergence(student, teacher, 1), kl)


@pytest.mark.parametrize("alpha", [-1.0, 1.0])
def test_clipped_weights_bound_the_gradient_by_hand(alpha):
    """Two classes: q = (1/2, 1/2), p = (1 - e, e); the weight that exceeds the clip is the clip."""
    e, clip = 0.01, 5.0
    student = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    teacher = torch.tensor([[math.log(1 - e), math.log(e)]], dtype=torch.float64)
    weights = [min(clip, (2 * p) ** alpha) for p in (1 - e, e)]
    loss = alpha_divergence(student, teacher, alpha, clip=clip)
    loss.sum().backward()
    # d(-sum q w / alpha * log q) / d logit_0 with q = softmax: -(w_0 - w_1) q_0 q_1 / alpha
    slope = -(weights[0] - weights[1]) / 4 / alpha
    torch.testing.assert_close(student.grad, torch.tensor([[slope, -slope]], dtype=torch.float64))
    if alpha == -1:
        assert loss.item() == pytest.approx((sum(weights) / 2 - 1) / 2)


def test_adaptive_takes_the_larger_per_image():
    student, teacher = logits(2, n=64)
    low, high = (closed_form(student, teacher, alpha) for alpha in (-1, 1))
    assert 0 < int((low > high).sum()) < 64  # both happen
    ours = adaptive_alpha_divergence(student, teacher, clip=1e9)
    torch.testing.assert_close(ours, torch.maximum(low, high).mean())
    (gradient,) = torch.autograd.grad(ours, student)
    (expected,) = torch.autograd.grad(torch.maximum(low, high).mean(), student)
    torch.testing.assert_close(gradient, expected)


def test_alpha_divergence_survives_extreme_logits():
    """PGONAS met NaN with it; every power is taken of a clipped logarithm here."""
    student, teacher = logits(3, spread=500.0)
    student = student.detach().float().requires_grad_()
    loss = adaptive_alpha_divergence(student, teacher.float())
    loss.backward()
    assert loss.isfinite() and student.grad.isfinite().all()


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_kl_is_soft_cross_entropy_without_the_entropy_and_has_its_gradient(temperature):
    student, teacher = logits(4)
    kl = kl_divergence(student, teacher, temperature)
    soft = soft_cross_entropy(student, teacher, temperature)
    p = (teacher / temperature).softmax(1)
    entropy = -(p * p.log()).sum(1).mean() * temperature**2
    torch.testing.assert_close(kl + entropy, soft)
    torch.testing.assert_close(torch.autograd.grad(kl, student), torch.autograd.grad(soft, student))


@pytest.mark.parametrize("kind", ["soft_cross_entropy", "kl", "alpha"])
def test_no_gradient_reaches_the_teacher(kind):
    student, teacher = logits()
    teacher.requires_grad_()
    distillation(kind, temperature=2.0)(student, teacher).backward()
    assert student.grad.abs().max() > 0 and teacher.grad is None


def test_ranking_loss_is_zero_where_the_order_agrees():
    better, worse = torch.tensor(1.0, requires_grad=True), torch.tensor(2.0, requires_grad=True)
    ranking_loss(better, worse).backward()
    assert better.grad == 0 and worse.grad == 0
    loss = ranking_loss(torch.tensor(2.5), torch.tensor(1.0))
    assert loss == 1.5


def test_the_mean_of_the_teachers_features_is_at_distance_one():
    features = torch.randn(64, 12, generator=torch.Generator().manual_seed(0))
    assert float(feature_distance(features[:, :8], features)) == 0
    mean = features[:, :8].mean().expand(64, 8)
    n = 64 * 8
    assert float(feature_distance(mean, features)) == pytest.approx((n - 1) / n, rel=1e-5)


def test_the_teachers_features_get_no_gradient():
    features = torch.randn(4, 3, requires_grad=True)
    assert not feature_distance(features.detach(), features).requires_grad
    constant = torch.ones(4, 3)  # variance 0
    assert float(feature_distance(constant, constant)) == 0
