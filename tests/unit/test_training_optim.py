from __future__ import annotations

import math

import pytest
import torch

from hwnas.core.errors import UserError
from hwnas.nets.extract import extract, subnet_tensors
from hwnas.nets.supernet import Supernet
from hwnas.spaces import mobilenet_tiny, mobilenet_v3
from hwnas.training.layer_decay import parameter_groups
from hwnas.training.losses import soft_cross_entropy
from hwnas.training.optim import Stepper
from hwnas.training.sections import OptimizerConfig


def net():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))


PLAIN = {"name": "momentum", "lr": 0.1, "momentum": 0.0, "weight_decay": 0.0, "warmup": 0.0}


def config(**changes):
    return OptimizerConfig(**{**PLAIN, "clip_norm": None, **changes})


def test_learning_rate_is_warm_up_then_cosine():
    stepper = Stepper(net(), config(warmup=0.1, min_lr=0.01), n_steps=100)
    for step in (0, 5, 10, 50, 99):
        stepper.start(step)
        if step < 10:
            expected = 0.001 + step * (0.1 - 0.001) / 10
        else:
            expected = 0.01 + (0.1 - 0.01) * (1 + math.cos(math.pi * step / 100)) / 2
        assert stepper.lr == pytest.approx(expected)


def test_weight_decay_spares_biases_and_bn():
    model = net()
    before = [p.detach().clone() for p in model.parameters()]
    stepper = Stepper(model, config(weight_decay=0.5), n_steps=10)
    stepper.start(0)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    stepper.finish([1.0], step=0, nets=["net"])
    kernel, *others = model.parameters()
    torch.testing.assert_close(kernel, before[0] * (1 - 0.1 * 0.5))
    assert all(torch.equal(now, old) for now, old in zip(others, before[1:], strict=True))


def test_gradient_is_clipped_to_a_global_norm():
    model = net()
    before = torch.cat([p.detach().flatten() for p in model.parameters()])
    stepper = Stepper(model, config(clip_norm=2.0, lr=1.0), n_steps=10)
    stepper.start(0)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    stepper.finish([1.0], step=0, nets=["net"])
    after = torch.cat([p.detach().flatten() for p in model.parameters()])
    assert float((after - before).norm()) == pytest.approx(2.0, rel=1e-4)


@pytest.mark.parametrize("loss, gradient", [(math.nan, 1.0), (math.inf, 1.0), (1.0, math.nan)])
def test_a_step_that_is_not_finite_leaves_the_weights(loss, gradient):
    model = net()
    before = [p.detach().clone() for p in model.parameters()]
    stepper = Stepper(model, config(), n_steps=10)
    stepper.start(0)
    for p in model.parameters():
        p.grad = torch.full_like(p, gradient)
    with pytest.raises(UserError) as caught:
        stepper.finish([0.5, loss], step=7, nets=["good", "bad"])
    assert "step 7" in str(caught.value)
    assert ("step 7, bad" in str(caught.value)) == (not math.isfinite(loss))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True))


def test_unknown_optimiser():
    with pytest.raises(UserError, match="sgdd"):
        Stepper(net(), config(name="sgdd"), n_steps=1)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_soft_cross_entropy_is_kl_plus_entropy(temperature):
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(8, 5, generator=generator) for _ in range(2))
    p = (teacher / temperature).softmax(1)
    kl = torch.nn.functional.kl_div(
        (student / temperature).log_softmax(1), p, reduction="batchmean"
    )
    entropy = -(p * p.log()).sum(1).mean()
    ours = soft_cross_entropy(student, teacher, temperature)
    torch.testing.assert_close(ours, (kl + entropy) * temperature**2)


def test_teacher_gets_no_gradient():
    student, teacher = (torch.randn(4, 3, requires_grad=True) for _ in range(2))
    soft_cross_entropy(student, teacher).backward()
    assert student.grad is not None and teacher.grad is None


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({"schedule": "constant"}, lambda t: 0.1),
        ({"schedule": "step", "decay_every": 0.25}, lambda t: 0.1 * 0.1 ** (t // 25)),
        ({"schedule": "poly"}, lambda t: 0.1 * (1 - t / 100) ** 0.5),
        ({"schedule": "tanh"}, lambda t: 0.05 * (1 - math.tanh(-7 * (1 - t / 100) + 3 * t / 100))),
    ],
    ids=["constant", "step", "poly", "tanh"],
)
def test_schedules_are_timms_and_have_no_memory(changes, expected):
    stepper = Stepper(net(), config(**changes), n_steps=100)
    for step in (99, 0, 24, 25, 50, 75):
        stepper.start(step)
        assert stepper.lr == pytest.approx(expected(step))


def test_values_of_gradients_are_clipped():
    model = net()
    before = [p.detach().clone() for p in model.parameters()]
    stepper = Stepper(model, config(clip_value=0.5, lr=1.0), n_steps=10)
    stepper.start(0)
    for p in model.parameters():
        p.grad = torch.full_like(p, 3.0)
    stepper.finish([1.0], step=0, nets=["net"])
    for old, new in zip(before, model.parameters(), strict=True):
        torch.testing.assert_close(old - new, torch.full_like(old, 0.5))


def test_a_gradient_that_overflows_in_fp16_is_dropped_and_lowers_the_scale():
    model = net()
    before = [p.detach().clone() for p in model.parameters()]
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    stepper = Stepper(model, config(), n_steps=10, scaler=scaler)
    for scale in (4.0, 2.0):
        assert scaler.get_scale() == scale
        stepper.start(0)
        scaler.scale(model(torch.randn(2, 3, 4, 4)).sum()).backward()
        next(model.parameters()).grad[0, 0, 0, 0] = math.inf
        stepper.finish([1.0], step=0, nets=["net"])
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True))
    stepper.start(1)
    scaler.scale(model(torch.randn(2, 3, 4, 4)).pow(2).sum()).backward()
    stepper.finish([1.0], step=1, nets=["net"])
    assert not torch.equal(next(model.parameters()), before[0])
    with pytest.raises(UserError, match="loss is not finite"):
        stepper.start(2)
        scaler.scale(model(torch.randn(2, 3, 4, 4)).sum()).backward()
        stepper.finish([math.nan], step=2, nets=["net"])


SPACE = mobilenet_v3.build(mobilenet_v3.Config(resolutions=(32,)), num_classes=4)
SUPERNET = Supernet(SPACE, seed=0)


def rates(model, decay):
    """(lr_scale, weight_decay) of every parameter by name."""
    groups = parameter_groups(model, decay=decay, weight_decay=0.1)
    found = {
        id(p): (group["lr_scale"], group["weight_decay"])
        for group in groups
        for p in group["params"]
    }
    return {name: found[id(p)] for name, p in model.named_parameters()}


def test_rates_decay_from_the_classifier_to_the_stem():
    """Stem, 6 stages of blocks, head, feature, classifier: 10 stages."""
    found = rates(SUPERNET, 0.5)
    expected = {
        "classifier.linear.weight": 0,
        "feature.conv.weight": 1,
        "head.conv.weight": 2,
        "stage5.block3.conv_dw.weight": 3,
        "stage5.block0.conv_pw_bn.weight": 3,
        "stage0.block0.conv_dw.weight": 8,
        "stem.conv.weight": 9,
    }
    for name, n in expected.items():
        assert found[name][0] == pytest.approx(0.5**n), name
    assert found["stem.conv.weight"][1] == 0.1
    assert found["stem.conv_bn.weight"][1] == found["classifier.linear.bias"][1] == 0


@pytest.mark.parametrize("name", ["smallest", "largest"])
def test_a_subnet_has_the_rates_of_the_supernet(name):
    arch = getattr(SPACE, name)()
    supernet, subnet = rates(SUPERNET, 0.7), rates(extract(SUPERNET, arch), 0.7)
    owners = {p.untyped_storage().data_ptr(): name for name, p in SUPERNET.named_parameters()}
    tensors = subnet_tensors(SUPERNET, arch, modulated=False)
    shared = {name: owners.get(t.untyped_storage().data_ptr()) for name, t in tensors}
    assert shared.keys() == subnet.keys()
    for name, owner in shared.items():
        if owner is not None:  # a small kernel is a learned map, a tensor of its own
            assert subnet[name] == supernet[owner], name


def test_a_hypernetwork_learns_at_the_full_rate():
    tiny = mobilenet_tiny.build(mobilenet_tiny.Config(resolutions=(8,)), num_classes=3)
    found = rates(Supernet(tiny, seed=0, weak=True), 0.5)
    of_hypernet = {rate for name, (rate, _) in found.items() if name.startswith("hypernet.")}
    assert of_hypernet == {1.0} and found["classifier.linear.weight"][0] == 1.0


def test_layer_decay_scales_the_steps_of_every_stage():
    """Plain gradient descent: the update is lr * decay**n times the gradient, on any schedule."""
    model = torch.nn.Sequential()
    for name in ("conv_stem", "head", "classifier"):
        model.add_module(name, torch.nn.Linear(2, 2))
    before = [p.detach().clone() for p in model.parameters()]
    stepper = Stepper(model, config(layer_decay=0.5, schedule="poly"), n_steps=4)
    stepper.start(2)
    assert stepper.lr == pytest.approx(0.1 * 0.5**0.5)  # that of the classifier
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    stepper.finish([1.0], step=2, nets=["net"])
    steps = [
        float((old - new.detach()).mean())
        for old, new in zip(before, model.parameters(), strict=True)
    ]
    expected = [stepper.lr * scale for scale in (0.25, 0.25, 0.5, 0.5, 1, 1)]
    assert steps == pytest.approx(expected)
