"""A space, images and a recipe with which a training step takes no time."""

from __future__ import annotations

from hwnas.interfaces import DatasetContext
from hwnas.spaces import mobilenet_tiny
from hwnas.training.datasets import digits
from hwnas.training.samplers import sandwich
from hwnas.training.sections import CalibrationConfig, TrainConfig

SPACE = mobilenet_tiny.build(
    mobilenet_tiny.Config(resolutions=(8, 10), width_mult=0.25), num_classes=10
)
DATA = digits.build(
    digits.Config(base_px=10, val_fraction=0.45, test_fraction=0.45), DatasetContext(0)
)
METRICS = {"macs": lambda codes: codes.sum(axis=1).astype(float)}


def recipe(**changes):
    return TrainConfig(
        **{
            "steps": 4,
            "batch_size": 32,
            "sampler": sandwich.Config(n_random=1),
            "calibration": CalibrationConfig(batch_size=32),
            "curve_every": 2,
            "curve_images": 64,
            "checkpoint_every": 1,
            **changes,
        }
    )
