from __future__ import annotations

import pytest
import torch

from hwnas.core.errors import UserError
from hwnas.interfaces import DatasetContext
from hwnas.nets.bn import recalibrate
from hwnas.nets.extract import extract
from hwnas.nets.supernet import Supernet
from hwnas.spaces import mobilenet_tiny
from hwnas.training.datasets import digits
from hwnas.training.evaluate import SupernetEvaluator, evaluate
from hwnas.training.finetune import TeacherSubnet, finetune
from hwnas.training.images import resize
from hwnas.training.losses import soft_cross_entropy
from hwnas.training.sections import CalibrationConfig, FinetuneConfig, OptimizerConfig

SPACE = mobilenet_tiny.build(
    mobilenet_tiny.Config(resolutions=(8, 10), width_mult=0.25), num_classes=10
)
DATA = digits.build(digits.Config(base_px=10), DatasetContext(0))
CALIBRATION = CalibrationConfig(batch_size=64)
CONFIG = FinetuneConfig(epochs=2, batch_size=256, calibration=CALIBRATION)
SUPERNET = Supernet(SPACE, seed=0)
MODEL = extract(SUPERNET, SPACE.smallest())
TEACHER = TeacherSubnet(
    SupernetEvaluator(SUPERNET, DATA, CALIBRATION, seed=0).network(SPACE.largest()), px=10
)


def tune(config=CONFIG, teacher=TEACHER, model=MODEL, **more):
    return finetune(model, DATA, config, px=8, teacher=teacher, seed=0, **more)


def same(a, b):
    return all(
        torch.equal(x, y)
        for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )


def test_no_epochs_only_recalibrates():
    clean = [resize(x, 8) for x in DATA.calibration_batches(1, 64)]
    tuned = tune(CONFIG.model_copy(update={"epochs": 0}))
    assert not tuned.training
    assert same(tuned, recalibrate(MODEL, clean))


def test_the_model_given_is_left_as_it_is():
    before = {k: v.clone() for k, v in MODEL.state_dict().items()}
    tuned = tune()
    assert all(torch.equal(v, before[k]) for k, v in MODEL.state_dict().items())
    assert not same(tuned, MODEL)


@pytest.mark.parametrize(
    ("weight", "of_features"), [(0.0, 0.0), (0.3, 0.0), (1.0, 0.0), (0.3, 2.0), (0.0, 2.0)]
)
def test_one_step_follows_the_documented_loss(weight, of_features):
    """Plain SGD with one batch per epoch: the update is -lr * gradient of the documented mix."""
    n = DATA.info.n_images["train"]
    plain = OptimizerConfig(
        name="momentum", lr=0.1, momentum=0.0, weight_decay=0.0, warmup=0.0, clip_norm=None
    )
    config = FinetuneConfig(
        epochs=1, batch_size=n, optimizer=plain, label_smoothing=0.1, distillation=weight,
        feature_distillation=of_features, calibration=CALIBRATION,
    )  # fmt: skip
    tuned = tune(config)
    student = extract(SUPERNET, SPACE.smallest())
    x, y = next(DATA.train_batches(0, n))
    features = student.forward_head(student.forward_features(resize(x, 8)), pre_logits=True)
    logits = student.classifier(features)
    with torch.no_grad():
        taught = TEACHER.model(x)
        shown = TEACHER.model.forward_head(TEACHER.model.forward_features(x), pre_logits=True)
    shown = shown[:, : features.shape[1]]
    labels = torch.nn.functional.cross_entropy(logits, y, label_smoothing=0.1)
    loss = (1 - weight) * labels + weight * soft_cross_entropy(logits, taught)
    (loss + of_features * ((features - shown) ** 2).mean() / shown.var()).backward()
    for p, q in zip(student.parameters(), tuned.parameters(), strict=True):
        torch.testing.assert_close(q, p - 0.1 * p.grad, atol=1e-5, rtol=1e-4)


def test_layer_decay_spares_what_was_inherited():
    """Stem, stages of blocks, head and classifier count."""
    n = DATA.info.n_images["train"]
    plain = OptimizerConfig(
        name="momentum", lr=0.1, momentum=0.0, weight_decay=0.0, warmup=0.0, clip_norm=None
    )
    updates = []
    for decay in (1.0, 0.5):
        optimizer = plain.model_copy(update={"layer_decay": decay})
        recipe = {"epochs": 1, "batch_size": n, "optimizer": optimizer}
        tuned = dict(tune(CONFIG.model_copy(update=recipe)).named_parameters())
        updates.append({name: tuned[name] - p for name, p in MODEL.named_parameters()})
    whole, decayed = updates
    n_stages = 3 + len(MODEL.blocks)
    for name, factor in {"conv_stem.weight": n_stages - 1, "classifier.weight": 0}.items():
        torch.testing.assert_close(decayed[name], whole[name] * 0.5**factor, atol=1e-6, rtol=1e-3)


def test_without_a_teacher_only_labels_count():
    no_weight = tune(CONFIG.model_copy(update={"distillation": 0.0}))
    assert same(tune(teacher=None), no_weight)
    assert not same(tune(), no_weight)


def test_resumes_after_an_epoch(tmp_path):
    class Killed(Exception):
        pass

    def kill(done, total, note=""):
        if done == 6:  # 4 steps an epoch
            raise Killed

    expected = tune()
    with pytest.raises(Killed):
        tune(checkpoints=tmp_path, progress=kill)
    steps = []
    again = tune(checkpoints=tmp_path, progress=lambda done, total, note="": steps.append(done))
    assert steps == [4, 5, 6, 7, 8]
    assert same(again, expected)
    changed = CONFIG.model_copy(update={"distillation": 0.9})
    with pytest.raises(UserError, match=r"config\.distillation"):
        tune(changed, checkpoints=tmp_path)


def test_tuning_helps():
    config = CONFIG.model_copy(update={"epochs": 6, "batch_size": 64})
    batches = [(resize(x, 8), y) for x, y in DATA.eval_batches("val", 512)]
    before = evaluate(tune(CONFIG.model_copy(update={"epochs": 0})), batches)
    after = evaluate(tune(config, teacher=None), batches)
    assert after.cross_entropy < before.cross_entropy - 0.3
