"""The sandwich step on a stand-in supernet whose losses and gradients are known."""

from __future__ import annotations

import pytest
import torch

from hwnas.spaces import mobilenet_tiny
from hwnas.training.images import resize
from hwnas.training.losses import distillation
from hwnas.training.sandwich import SandwichSettings, sandwich_step

SPACE = mobilenet_tiny.build(mobilenet_tiny.Config(resolutions=(8, 12)), num_classes=5)
SMALL = SPACE.restrict({"resolution": (8,)}).largest()
ARCHS = [SPACE.largest(), SPACE.smallest(), SMALL]


class StandIn(torch.nn.Module):
    """Channel means through one shared matrix, scaled by the number of active blocks."""

    space = SPACE

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = torch.nn.Parameter(torch.randn(5, 3, generator=generator))
        self.calls: list[tuple[int, object, float, float]] = []

    def forward(self, x, arch, rng=None, *, dropout=0.0, drop_path=0.0):
        self.calls.append((x.shape[-1], rng, dropout, drop_path))
        return x.mean((2, 3)) @ self.weight.T * (1 + sum(arch.codes))


def batch():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(6, 3, 12, 12, generator=generator)
    return x, torch.randint(5, (6,), generator=generator)


def test_losses_are_the_closed_form():
    model, (x, y) = StandIn(), batch()
    losses = sandwich_step(model, x, y, ARCHS, SandwichSettings(label_smoothing=0.1))
    with torch.no_grad():
        log_p = [model(resize(x, px), arch).log_softmax(1) for px, arch in zip((12, 8, 8), ARCHS)]
    targets = torch.full((6, 5), 0.1 / 5)
    targets[torch.arange(6), y] += 0.9
    expected = [-(targets * log_p[0]).sum(1).mean()]
    expected += [-(log_p[0].exp() * student).sum(1).mean() for student in log_p[1:]]
    assert losses == pytest.approx([float(value) for value in expected], rel=1e-5)


def test_gradients_are_the_sum_of_separate_passes_with_a_detached_teacher():
    model, (x, y) = StandIn(), batch()
    sandwich_step(model, x, y, ARCHS)
    teacher = model(x, ARCHS[0])
    total = torch.nn.functional.cross_entropy(teacher, y)
    target = teacher.detach().softmax(1)
    for arch in ARCHS[1:]:
        total = total + torch.nn.functional.cross_entropy(model(resize(x, 8), arch), target)
    (expected,) = torch.autograd.grad(total, [model.weight])
    torch.testing.assert_close(model.weight.grad, expected)


def test_gradients_accumulate():
    model, (x, y) = StandIn(), batch()
    sandwich_step(model, x, y, ARCHS)
    once = model.weight.grad.clone()
    sandwich_step(model, x, y, ARCHS)
    torch.testing.assert_close(model.weight.grad, 2 * once)


def test_one_forward_per_arch_and_noise_on_the_first_alone():
    model, (x, y) = StandIn(), batch()
    rng = torch.Generator()
    sandwich_step(model, x, y, ARCHS, SandwichSettings(dropout=0.2, drop_path=0.1), rng=rng)
    assert model.calls == [(12, rng, 0.2, 0.1), (8, None, 0.0, 0.0), (8, None, 0.0, 0.0)]


def test_temperature_softens_the_students_only():
    model, (x, y) = StandIn(), batch()
    warmer = distillation("soft_cross_entropy", temperature=2.0)
    warm = sandwich_step(model, x, y, ARCHS, SandwichSettings(distill=warmer))
    cold = sandwich_step(model, x, y, ARCHS)
    assert warm[0] == pytest.approx(cold[0])
    with torch.no_grad():
        teacher = (model(x, ARCHS[0]) / 2).softmax(1)
        student = (model(resize(x, 8), ARCHS[1]) / 2).log_softmax(1)
    assert warm[1] == pytest.approx(4 * float(-(teacher * student).sum(1).mean()), rel=1e-5)
