from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from hwnas.core.config import build_model
from hwnas.core.errors import UserError
from hwnas.core.rng import rng
from hwnas.interfaces import DatasetContext
from hwnas.training.data import batches_from
from hwnas.training.datasets import digits
from hwnas.training.sections import TrainConfig
from hwnas.training.splits import stratified_split


def test_split_is_a_partition_with_every_class_at_its_share():
    labels = np.repeat([0, 1, 2], [100, 53, 7])
    np.random.default_rng(0).shuffle(labels)
    parts = stratified_split(labels, (0.6, 0.2), rng(0, "split"))
    assert sorted(np.concatenate(parts).tolist()) == list(range(160))
    for part, share in zip(parts, (0.6, 0.2, 0.2), strict=True):
        counts = np.bincount(labels[part], minlength=3)
        assert np.all(np.abs(counts - share * np.array([100, 53, 7])) <= 1)


def test_split_is_seeded_and_its_parts_are_shuffled():
    labels = np.repeat(np.arange(4), 50)
    first, second, other = (stratified_split(labels, (0.5,), rng(s, "split")) for s in (0, 0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert not np.array_equal(first[0], other[0])
    assert np.bincount(labels[first[0][:50]], minlength=4).min() > 5  # not sorted by class


def test_digits_are_the_real_ones():
    from sklearn.datasets import load_digits

    data = digits.build(digits.Config(base_px=8), DatasetContext(0))
    sizes = data.info.n_images
    assert abs(sizes["val"] - 359.4) <= 5 and abs(sizes["test"] - 359.4) <= 5  # 10 classes, rounded
    mean, std = data.info.mean[0], data.info.std[0]
    bunch = load_digits()
    real = {image.astype(np.uint8).tobytes(): t for image, t in zip(bunch.images, bunch.target)}
    found = 0
    for split in ("train", "val", "test"):
        for x, y in data.eval_batches(split, 512):
            assert torch.equal(x[:, 0], x[:, 2])
            pixels = ((x[:, 0] * std + mean) * 16).round().to(torch.uint8).numpy()
            assert [real[image.tobytes()] for image in pixels] == y.tolist()
            found += len(y)
    assert found == len(real) == 1797


def test_digits_without_augmentation_repeat_the_training_images():
    still = digits.Warp(rotate_degrees=0.0, scale=0.0, shear=0.0, shift=0.0, elastic=0.0)
    data = digits.build(digits.Config(base_px=8, augment=still), DatasetContext(0))
    clean = torch.cat([x for x, _ in data.eval_batches("train", 512)])
    x, _ = next(data.train_batches(0, 16))
    distance = (x[:, None] - clean[None]).abs().amax(dim=(2, 3, 4)).amin(dim=1)
    assert distance.max() < 1e-4


def test_noise_on_digits_is_as_asked_for_and_new_in_every_epoch():
    still = digits.Warp(rotate_degrees=0.0, scale=0.0, shear=0.0, shift=0.0, elastic=0.0)
    clean, noisy, again = (
        digits.build(digits.Config(base_px=8, noise_std=std, augment=still), DatasetContext(0))
        for std in (0.0, 0.5, 0.5)
    )

    def pixels(data, batches):
        xs, ys = zip(*batches, strict=True)
        return torch.cat(xs) * data.info.std[0] + data.info.mean[0], torch.cat(ys)

    for take in (lambda d: d.eval_batches("val", 512), lambda d: d.train_batches(0, 64)):
        (x, y), (noisy_x, noisy_y) = pixels(clean, take(clean)), pixels(noisy, take(noisy))
        assert torch.equal(y, noisy_y)  # the same split and order
        noise = noisy_x - x
        assert abs(float(noise.std()) - 0.5) < 0.01 and abs(float(noise.mean())) < 0.01
        assert torch.equal(noisy_x, pixels(again, take(again))[0])
    first, second = (
        pixels(noisy, noisy.train_batches(e, 64))[0] - pixels(clean, clean.train_batches(e, 64))[0]
        for e in (0, 1)
    )
    assert abs(float((first * second).mean())) < 0.01  # unrelated


def test_digits_need_training_images():
    with pytest.raises(ValidationError, match=r"_fraction: expected at most 0\.9, found 1"):
        digits.Config(val_fraction=0.5, test_fraction=0.5)


@pytest.mark.parametrize("start", [0, 1, 7, 8, 9, 17])
def test_batches_continue_anywhere(start):
    data = digits.build(digits.Config(base_px=8), DatasetContext(0))

    def take(step, n):
        stream = batches_from(data, 128, step)
        return [next(stream) for _ in range(n)]

    expected = take(0, 20)[start : start + 2]  # 8 batches an epoch
    for (x, y), (expected_x, expected_y) in zip(take(start, 2), expected, strict=False):
        assert torch.equal(x, expected_x) and torch.equal(y, expected_y)


def test_a_batch_larger_than_the_data_is_an_error_not_an_endless_loop():
    data = digits.build(digits.Config(base_px=8), DatasetContext(0))
    with pytest.raises(UserError, match="5000"):
        next(batches_from(data, 5000, 0))


def test_configs_and_variants_import_no_torch():
    code = """
import sys
from hwnas.training.label_sections import LabelConfig
from hwnas.training.sections import FinetuneConfig, TrainConfig
from hwnas.training import datasets, samplers
for registry in (datasets.REGISTRY, samplers.REGISTRY):
    for name in registry.names:
        registry.load(name).Config()
TrainConfig(), FinetuneConfig(), LabelConfig()
assert not {"torch", "timm", "sklearn"} & set(sys.modules), "heavy import"
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_sampler_section_is_checked():
    config = build_model(TrainConfig, {"sampler": {"name": "sandwich", "n_random": 1}}, where="x")
    assert config.sampler.n_random == 1
    with pytest.raises(UserError, match="n_rndom"):
        build_model(TrainConfig, {"sampler": {"name": "sandwich", "n_rndom": 1}}, where="x")
