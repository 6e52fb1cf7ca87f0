"""Archs compared by the predictions of the largest network."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hwnas.interfaces import DatasetContext, Evaluation
from hwnas.nets.supernet import Supernet
from hwnas.pipeline.evaluators import scores_of
from hwnas.spaces import mobilenet_tiny
from hwnas.training.datasets import digits
from hwnas.training.evaluate import SupernetEvaluator, evaluate, losses
from hwnas.training.images import resize
from hwnas.training.sections import CalibrationConfig

N = 200
SPACE = mobilenet_tiny.build(
    mobilenet_tiny.Config(resolutions=(8, 10), width_mult=0.25), num_classes=10
)
DATA = digits.build(digits.Config(base_px=10), DatasetContext(0))
CALIBRATION = CalibrationConfig(batch_size=64)
SUPERNET = Supernet(SPACE, seed=0)


def scorer(agreement: int) -> SupernetEvaluator:
    return SupernetEvaluator(SUPERNET, DATA, CALIBRATION, seed=0, agreement=agreement)


@torch.no_grad()
def test_agreement_is_the_cross_entropy_to_the_largest_network() -> None:
    (images,) = DATA.calibration_batches(1, N)
    it = scorer(N)
    taught = it.network(SPACE.largest())(resize(images, 10)).softmax(1)
    for arch in (SPACE.smallest(), SPACE.largest()):
        px = 8 if arch == SPACE.smallest() else 10
        logits = it.network(arch)(resize(images, px))
        expected = -(taught * logits.log_softmax(1)).sum(1)
        np.testing.assert_allclose(it.losses(arch), expected, rtol=1e-4)
        assert it.evaluate(arch).agreement == pytest.approx(float(expected.mean()), rel=1e-4)


def test_accuracy_and_loss_stay_those_of_validation() -> None:
    arch = SPACE.smallest()
    plain, compared = scorer(0).evaluate(arch), scorer(N).evaluate(arch)
    assert plain.agreement is None
    for name in ("top1", "val_loss", "n_images", "hits"):
        assert getattr(plain, name) == getattr(compared, name)
    assert scorer(0).losses(arch).mean() == pytest.approx(plain.val_loss)


def test_at_most_all_training_images_are_compared() -> None:
    assert len(scorer(10**9).losses(SPACE.smallest())) == DATA.info.n_images["train"]


def test_losses_are_those_of_labels_or_probabilities() -> None:
    network = scorer(0).network(SPACE.smallest())
    batches = [(resize(x, 8), y) for x, y in DATA.eval_batches("val", 64)]
    found = losses(network, batches)
    assert found.mean() == pytest.approx(evaluate(network, batches).cross_entropy)
    sure = [(x, torch.nn.functional.one_hot(y, 10).float()) for x, y in batches]
    np.testing.assert_allclose(losses(network, sure), found, rtol=1e-5)


def test_scores_prefer_agreement_to_labels() -> None:
    given = Evaluation(SPACE.smallest(), 0.5, "supernet", "val", 10, 0, val_loss=2.0, agreement=0.5)
    assert scores_of([given])[0] == pytest.approx(-np.log(0.5))
