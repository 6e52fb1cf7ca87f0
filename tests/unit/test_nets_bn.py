"""BN recalibration against closed forms."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from hwnas.core.errors import UserError
from hwnas.nets.bn import recalibrate, recalibrate_in_place
from hwnas.nets.subnet import build_subnet
from hwnas.spaces.mobilenet_tiny import Config, build

SPACE = build(Config(resolutions=(16,)), num_classes=10)


def batches(*sizes: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [i + torch.randn(n, 3, 16, 16, generator=generator) for i, n in enumerate(sizes)]


def test_unequal_batches_pool_to_the_statistics_of_all_images() -> None:
    model = build_subnet(SPACE, SPACE.largest())
    some = batches(7, 20, 3)
    result = recalibrate(model, iter(some))
    first = model.conv_stem(torch.cat(some)).double()
    mean, variance = first.mean((0, 2, 3)), first.var((0, 2, 3), unbiased=False)
    torch.testing.assert_close(result.bn1.running_mean.double(), mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(result.bn1.running_var.double(), variance, rtol=1e-4, atol=1e-5)


def test_on_one_batch_eval_mode_equals_training_mode_at_every_layer() -> None:
    model = build_subnet(SPACE, SPACE.largest())
    (x,) = batches(24)
    in_training = model(x)
    result = recalibrate(model, [x])
    assert not any(module.training for module in result.modules())
    torch.testing.assert_close(result(x), in_training, rtol=1e-4, atol=1e-4)


def test_the_model_is_not_touched_and_dropout_is_off() -> None:
    model = build_subnet(SPACE, SPACE.smallest()).train()
    model.drop_rate = 0.9
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.random.get_rng_state()
    some = batches(8, 8)
    result = recalibrate(model, some)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    momenta = {m.momentum for m in result.modules() if isinstance(m, nn.BatchNorm2d)}
    assert momenta == {0.1}
    again = recalibrate(model, some)
    assert torch.equal(again(some[0]), result(some[0]))


def test_in_place_is_the_same_without_a_copy() -> None:
    model, some = build_subnet(SPACE, SPACE.smallest()), batches(8, 5)
    expected = recalibrate(model, some).state_dict()
    assert recalibrate_in_place(model, some) is model
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize("function", [recalibrate, recalibrate_in_place])
def test_no_batches_is_an_error(function: Callable[..., nn.Module]) -> None:
    with pytest.raises(UserError, match="at least one batch"):
        function(build_subnet(SPACE, SPACE.smallest()), [])
