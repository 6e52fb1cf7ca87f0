from __future__ import annotations

import json
import logging

import numpy as np
import pytest
import torch

from hwnas.core.errors import UserError
from hwnas.interfaces import DatasetContext
from hwnas.nets.supernet import Supernet
from hwnas.spaces import mobilenet_tiny
from hwnas.training.curves import curve_archs
from hwnas.training.datasets import digits
from hwnas.training.evaluate import SupernetEvaluator
from hwnas.training.loop import train_supernet
from hwnas.training.samplers import sandwich
from hwnas.training.sections import CalibrationConfig, OptimizerConfig, TrainConfig

SPACE = mobilenet_tiny.build(
    mobilenet_tiny.Config(resolutions=(8, 10), width_mult=0.25), num_classes=10
)
DATA = digits.build(
    digits.Config(base_px=10, val_fraction=0.45, test_fraction=0.45), DatasetContext(0)
)
CONFIG = TrainConfig(
    steps=6,
    batch_size=64,  # 2 batches an epoch
    sampler=sandwich.Config(n_random=1),
    dropout=0.2,
    drop_path=0.1,
    calibration=CalibrationConfig(batch_size=32),
    curve_every=2,
    curve_images=64,
    checkpoint_every=2,
)


class Killed(Exception):
    pass


def train(folder, config=CONFIG, *, stop_at=None, seed=0, data=DATA):
    """A fresh supernet trained; killed when step `stop_at` is reported. Returns it and its rows."""
    supernet, rows = Supernet(SPACE, seed=seed), []

    def progress(done, total, note=""):
        assert total == config.steps
        if done == stop_at:
            raise Killed

    train_supernet(
        supernet, data, config, seed=seed, checkpoints=folder, on_metrics=rows.append,
        progress=progress,
    )  # fmt: skip
    return supernet, rows


def same_weights(a, b):
    return all(
        torch.equal(x, y)
        for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    return *train(folder), folder


@pytest.mark.parametrize("stop_at", [1, 2])
def test_killed_after_any_step_ends_with_the_same_weights_and_rows(undisturbed, tmp_path, stop_at):
    expected, rows, _ = undisturbed
    with pytest.raises(Killed):
        train(tmp_path, stop_at=stop_at)
    supernet, later = train(tmp_path)
    assert same_weights(supernet, expected)
    assert later == [row for row in rows if row["step"] > stop_at // 2 * 2]


def test_killed_at_every_step_in_turn(undisturbed, tmp_path):
    """Checkpoints out of step with the rows: the running losses travel in the checkpoint."""
    expected, rows, _ = undisturbed
    config = CONFIG.model_copy(update={"checkpoint_every": 1})
    seen = {}
    for stop_at in (1, 2, 3, 4, 5):
        with pytest.raises(Killed):
            train(tmp_path, config, stop_at=stop_at)
    supernet, later = train(tmp_path, config)
    seen.update({row["step"]: row for row in later})
    assert same_weights(supernet, expected)
    assert seen[6] == rows[-1]


def test_a_finished_training_is_only_loaded(undisturbed):
    expected, _, folder = undisturbed
    supernet, rows = train(folder)
    assert same_weights(supernet, expected)
    assert rows == []


def test_curves_do_not_touch_the_training(undisturbed, tmp_path):
    expected, _, _ = undisturbed
    update = {"curve_every": 5, "curve_images": 10, "checkpoint_every": 5}
    assert same_weights(train(tmp_path, CONFIG.model_copy(update=update))[0], expected)


def test_rows(undisturbed):
    """The last one scores the trained weights on the first validation images."""
    supernet, rows, _ = undisturbed
    assert [row["step"] for row in rows] == [2, 4, 6]
    json.dumps(rows, allow_nan=False)
    for row in rows:
        assert len(row["losses"]) == 3
        for curve in ("top1", "val_loss"):
            assert list(row[curve]) == ["largest", "middle", "smallest"]
    scorer = SupernetEvaluator(
        supernet, DATA, CONFIG.calibration, seed=0, n_images=CONFIG.curve_images
    )
    scores = {name: scorer.evaluate(arch) for name, arch in curve_archs(SPACE).items()}
    assert rows[-1]["top1"] == {name: score.top1 for name, score in scores.items()}
    assert rows[-1]["val_loss"] == {name: score.val_loss for name, score in scores.items()}


def test_middle_is_between_the_others():
    from hwnas.spaces.cost import cost

    archs = curve_archs(SPACE)
    assert all(SPACE.check(arch) for arch in archs.values())
    large, middle, small = cost(SPACE, SPACE.codes(list(archs.values())), "macs")
    assert small < middle < large


def test_changed_settings_are_refused(undisturbed):
    folder = undisturbed[-1]
    config = CONFIG.model_copy(update={"optimizer": OptimizerConfig(lr=0.5)})
    with pytest.raises(UserError, match=r"config\.optimizer\.lr: .* -> 0\.5"):
        train(folder, config)
    with pytest.raises(UserError, match="seed: 0 -> 1"):
        train(folder, seed=1)


def test_damaged_newest_checkpoint_costs_only_the_last_steps(tmp_path, undisturbed, caplog):
    expected, _, _ = undisturbed
    with pytest.raises(Killed):
        train(tmp_path, stop_at=5)
    newest = tmp_path / "step-00000004.safetensors"
    newest.write_bytes(newest.read_bytes()[:100])
    with caplog.at_level(logging.WARNING):
        supernet, _ = train(tmp_path)
    assert "step-00000004" in caplog.text
    assert same_weights(supernet, expected)


def test_divergence_stops_with_the_arch_and_keeps_the_checkpoint(tmp_path):
    class Poisoned:
        info = DATA.info
        eval_batches = DATA.eval_batches
        calibration_batches = DATA.calibration_batches

        def train_batches(self, epoch, batch_size, **part):
            for x, y in DATA.train_batches(epoch, batch_size, **part):
                yield (x * float("nan") if epoch == 2 else x), y

    with pytest.raises(UserError) as caught:
        train(tmp_path, data=Poisoned())
    assert "step 4, arch " + SPACE.largest().key in str(caught.value)
    supernet, _ = train(tmp_path)  # with sound data, from the last good checkpoint
    assert all(np.isfinite(v.numpy()).all() for v in supernet.state_dict().values())


def test_training_learns(tmp_path):
    """Far above chance after a few images per class: the loop optimises what it says."""
    config = TrainConfig(
        steps=30, batch_size=64, curve_every=25, optimizer=OptimizerConfig(lr=0.02),
        calibration=CalibrationConfig(batch_size=128),
    )  # fmt: skip
    _, rows = train(
        tmp_path, config, data=digits.build(digits.Config(base_px=10), DatasetContext(0))
    )
    assert rows[-1]["top1"]["largest"] > 0.6
    assert rows[-1]["losses"][0] < np.log(10)
