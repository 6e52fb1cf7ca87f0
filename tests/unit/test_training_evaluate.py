from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss

from hwnas.core.errors import UserError
from hwnas.interfaces import DatasetContext
from hwnas.nets.bn import recalibrate
from hwnas.nets.extract import extract
from hwnas.nets.supernet import Supernet
from hwnas.spaces import mobilenet_tiny
from hwnas.training.datasets import digits
from hwnas.training.evaluate import EVAL_BATCH, SupernetEvaluator, evaluate, first_images
from hwnas.training.images import resize
from hwnas.training.sections import CalibrationConfig

SPACE = mobilenet_tiny.build(
    mobilenet_tiny.Config(resolutions=(8, 10), width_mult=0.25), num_classes=10
)
DATA = digits.build(digits.Config(base_px=10), DatasetContext(0))
CALIBRATION = CalibrationConfig(n_batches=2, batch_size=32)


def test_scores_equal_scikit_learn():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(50, 7, generator=generator)
    y = torch.randint(7, (50,), generator=generator)
    batches = list(zip(logits.split(16), y.split(16), strict=True))  # unequal last batch
    score = evaluate(torch.nn.Identity(), batches)
    assert score.n_images == 50
    assert score.top1 == pytest.approx(accuracy_score(y, logits.argmax(1)))
    p = logits.double().softmax(1).numpy()
    assert score.cross_entropy == pytest.approx(log_loss(y, p, labels=np.arange(7)), rel=1e-5)


def test_nothing_to_evaluate_on():
    with pytest.raises(UserError, match="no images to evaluate"):
        evaluate(torch.nn.Identity(), [])


@pytest.mark.parametrize("n", [1, EVAL_BATCH - 1, EVAL_BATCH, EVAL_BATCH + 1, 9999, None])
def test_first_images_of_a_split(n):
    whole = [torch.cat(parts) for parts in zip(*DATA.eval_batches("val", 50), strict=True)]
    assert EVAL_BATCH + 1 < len(whole[1]) < 9999
    found = first_images(DATA, "val", n)
    for part, expected in zip(zip(*found, strict=True), whole, strict=True):
        torch.testing.assert_close(torch.cat(part), expected[:n])
    assert len(found) == -(-min(n or 9999, len(whole[1])) // EVAL_BATCH)  # no more are read


@pytest.mark.parametrize("arch", [SPACE.largest(), SPACE.smallest()])
def test_evaluator_is_extract_recalibrate_evaluate(arch):
    supernet = Supernet(SPACE, seed=0)
    before = {k: v.clone() for k, v in supernet.state_dict().items()}
    evaluator = SupernetEvaluator(supernet, DATA, CALIBRATION, seed=3)
    found = evaluator.evaluate(arch)
    px = SPACE.view(arch)["resolution"]
    clean = [resize(x, px) for x in DATA.calibration_batches(2, 32)]
    model = recalibrate(extract(supernet, arch), clean)
    score = evaluate(model, [(resize(x, px), y) for x, y in DATA.eval_batches("val", 512)])
    assert found.top1 == score.top1
    assert found.val_loss == pytest.approx(score.cross_entropy, rel=1e-5)
    assert (found.source, found.split, found.seed) == ("supernet", "val", 3)
    assert found.n_images == DATA.info.n_images["val"]
    assert found == evaluator.evaluate(arch)  # nothing is left behind by a call
    assert supernet.training
    assert all(torch.equal(v, before[k]) for k, v in supernet.state_dict().items())


def test_evaluator_follows_the_weights():
    supernet = Supernet(SPACE, seed=0)
    evaluator = SupernetEvaluator(supernet, DATA, CALIBRATION, seed=0)
    before = evaluator.evaluate(SPACE.largest())
    supernet.load_state_dict(Supernet(SPACE, seed=1).state_dict())
    assert evaluator.evaluate(SPACE.largest()).val_loss != before.val_loss


@pytest.mark.parametrize("n", [1, 100, 10_000])
def test_evaluator_on_the_first_images(n):
    supernet = Supernet(SPACE, seed=0)
    evaluator = SupernetEvaluator(supernet, DATA, CALIBRATION, seed=0, n_images=n)
    assert evaluator.evaluate(SPACE.smallest()).n_images == min(n, DATA.info.n_images["val"])
