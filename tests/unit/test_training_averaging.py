"""Averages of the weights before and after a training."""

from __future__ import annotations

import copy

import pytest
import torch

from hwnas.interfaces import DatasetContext
from hwnas.nets.bn import recalibrate
from hwnas.nets.extract import extract
from hwnas.nets.supernet import Supernet
from hwnas.spaces import mobilenet_tiny
from hwnas.training.averaging import SHARES, average, best_average
from hwnas.training.datasets import digits
from hwnas.training.evaluate import evaluate
from hwnas.training.finetune import finetune
from hwnas.training.images import resize
from hwnas.training.sections import CalibrationConfig, FinetuneConfig

PX = 8
SPACE = mobilenet_tiny.build(
    mobilenet_tiny.Config(resolutions=(PX, 10), width_mult=0.25), num_classes=10
)
DATA = digits.build(digits.Config(base_px=10), DatasetContext(0))
CALIBRATION = CalibrationConfig(batch_size=64)
CONFIG = FinetuneConfig(epochs=2, batch_size=256, distillation=0, calibration=CALIBRATION)
BEFORE = extract(Supernet(SPACE, seed=0), SPACE.smallest())
AFTER = finetune(BEFORE, DATA, CONFIG, px=PX, teacher=None, seed=0)


def loss(network: torch.nn.Module) -> float:
    """Validation loss with recalibrated BN."""
    seen = [resize(x, PX) for x in DATA.calibration_batches(1, 64)]
    shown = ((resize(x, PX), y) for x, y in DATA.eval_batches("val", 128))
    return evaluate(recalibrate(network, seen), shown).cross_entropy


def best(before: torch.nn.Module, after: torch.nn.Module) -> torch.nn.Module:
    return best_average(before, after, DATA, CALIBRATION, px=PX)


def noisy(network: torch.nn.Module) -> torch.nn.Module:
    """The network with useless weights."""
    found = copy.deepcopy(network)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return found


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_an_average_is_linear_in_the_weights(share: float) -> None:
    found = dict(average(BEFORE, AFTER, share).named_parameters())
    after = dict(AFTER.named_parameters())
    for name, parameter in BEFORE.named_parameters():
        expected = (1 - share) * parameter + share * after[name]
        torch.testing.assert_close(found[name], expected)


def test_an_average_changes_neither_network() -> None:
    kept = [copy.deepcopy(network.state_dict()) for network in (BEFORE, AFTER)]
    best(BEFORE, AFTER)
    for network, state in zip((BEFORE, AFTER), kept, strict=True):
        for name, tensor in network.state_dict().items():
            assert torch.equal(tensor, state[name])


def test_the_best_average_has_the_smallest_validation_loss() -> None:
    found = best(BEFORE, AFTER)
    assert not found.training
    assert loss(found) == pytest.approx(min(loss(average(BEFORE, AFTER, s)) for s in SHARES))


def test_useless_weights_get_no_share() -> None:
    for pair in ((noisy(AFTER), AFTER), (AFTER, noisy(AFTER))):
        found = dict(best(*pair).named_parameters())
        for name, parameter in AFTER.named_parameters():
            assert torch.equal(found[name], parameter)


def test_fine_tuning_ends_with_the_best_average() -> None:
    config = CONFIG.model_copy(update={"average": True})
    tuned = finetune(BEFORE, DATA, config, px=PX, teacher=None, seed=0)
    for name, parameter in best(BEFORE, AFTER).named_parameters():
        assert torch.equal(dict(tuned.named_parameters())[name], parameter)
