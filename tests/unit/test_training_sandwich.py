"""The sandwich step on a stand-in supernet whose losses and gradients are known."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from hwnas.nets.shared_start import n_common
from hwnas.nets.sharing import plan, program
from hwnas.nets.supernet import Supernet
from hwnas.spaces import mobilenet_tiny
from hwnas.training.images import resize
from hwnas.training.losses import distillation
from hwnas.training.sandwich import SandwichSettings, sandwich_step, subnet_logits

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

    def plan(self, arch):
        return (arch,)  # nothing in common with others

    def forward(self, x, arch, rng=None, *, dropout=0.0, drop_path=0.0, start=None):
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


# --- operators that archs have in common ----------------------------------------------------------


class Counted(Supernet):
    """Counts how often each elastic layer runs."""

    def elastic(self, path):
        self.ran = getattr(self, "ran", Counter())
        self.ran[path] += 1
        return super().elastic(path)


def counted(archs, space, **settings):
    supernet = Counted(space, seed=0, weak=settings.pop("weak", False))
    sandwich_step(supernet, *batch(), archs, SandwichSettings(**settings), rng=torch.Generator())
    return supernet.ran


def beginning(*archs):
    """The paths of the operators that archs have in common."""
    n = n_common([program(SPACE, arch, share_ops=False) for arch in archs])
    return {p for node in plan(SPACE, archs[0], share_ops=False)[:n] for p in paths(node)}


def test_common_operators_of_equal_resolution_run_once():
    wide = SPACE.restrict({"resolution": (12,), "stem.width": (16,), "stage0.width": (24,)})
    block = {"stage0.block0.kernel": (3,), "stage0.block0.expand": (4,)}
    archs = [wide.restrict(block).largest(), wide.restrict(block).smallest()]
    ran, common = counted(archs, SPACE), beginning(*archs)
    assert {"stem.conv", "stage0.block0.conv_dw_bn"} <= common
    assert {ran[path] for path in common} == {1} and ran["classifier.linear"] == 2
    other = wide.restrict({"stage0.block0.expand": (2,)}).largest()
    ran = counted([*archs, other], SPACE)
    assert ran["stem.conv"] == 1 and ran["stage0.block0.conv_dw"] == 3, "what all begin with"
    narrow = SPACE.restrict({"resolution": (12,), "stem.width": (8,)}).largest()
    ran = counted([*archs, narrow], SPACE)
    assert ran["stem.conv"] == 2 and ran["stage0.block0.conv_dw"] == 2, "two of three begin alike"


def test_archs_of_other_resolutions_share_nothing():
    other = SPACE.restrict({"resolution": (8,)}).largest()
    assert counted([SPACE.largest(), other], SPACE)["stem.conv"] == 2


@pytest.mark.parametrize("settings", [{"drop_path": 0.1}, {"weak": True}])
def test_nothing_is_shared_where_passes_differ(settings):
    archs = [SPACE.largest(), SPACE.largest()]
    assert counted(archs, SPACE, **settings)["stem.conv"] == 2
    assert counted(archs, SPACE)["stem.conv"] == 1


def test_the_largest_drops_features_behind_the_common_operators():
    """Two equal archs share all but the classifier, before which only the first has dropout."""
    largest = SPACE.largest()
    losses = sandwich_step(
        Supernet(SPACE, seed=0),
        *batch(),
        [largest, largest],
        SandwichSettings(dropout=0.5, in_place=False),
        rng=torch.Generator().manual_seed(0),
    )
    assert losses[0] != losses[1], "each draws its own"


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_gradients_are_those_of_separate_passes(dtype, error):
    """With dropout before the classifier of the largest, and BN everywhere."""
    supernet, (x, y) = Supernet(SPACE, seed=0).to(dtype), batch()
    archs = [*ARCHS, SPACE.restrict({"stage0.depth": (1,)}).largest()]
    for n, arch in enumerate(archs):
        first = {"dropout": 0.5, "rng": torch.Generator().manual_seed(0)} if n == 0 else {}
        logits = subnet_logits(supernet, x.to(dtype), arch, **first)
        torch.nn.functional.cross_entropy(logits, y).backward()
    alone = {name: parameter.grad for name, parameter in supernet.named_parameters()}
    supernet.zero_grad()
    settings = SandwichSettings(in_place=False, dropout=0.5)
    sandwich_step(supernet, x.to(dtype), y, archs, settings, rng=torch.Generator().manual_seed(0))
    most = max(gradient.abs().max() for gradient in alone.values() if gradient is not None)
    for name, parameter in supernet.named_parameters():
        torch.testing.assert_close(parameter.grad, alone[name], rtol=0, atol=error * most)


def paths(node):
    return {path for site in node.all_sites for path in (site.path, site.bn_path) if path}
