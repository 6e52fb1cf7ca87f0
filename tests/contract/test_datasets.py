"""What every data set promises: `interfaces.DataModule`."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from hwnas.core.errors import UserError
from hwnas.interfaces import DataModule, DatasetContext
from hwnas.training.datasets import REGISTRY
from tests.photos import small_config

BATCH = 64


@pytest.fixture(scope="module", params=REGISTRY.names)
def config(request, tmp_path_factory):
    return small_config(request.param, tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def build(config):
    module = REGISTRY.load(config.name)
    return lambda seed=0, n_workers=0: module.build(config, DatasetContext(seed, n_workers))


@pytest.fixture(scope="module")
def data(build) -> DataModule:
    return build()


def everything(batches):
    xs, ys = zip(*batches, strict=True)
    return torch.cat(xs), torch.cat(ys)


def test_ends_are_those_of_the_data(config, data):
    assert REGISTRY.load(config.name).ends(config) == (data.info.in_channels, data.info.num_classes)


def test_info_describes_the_batches(data):
    for split in ("train", "val", "test"):
        x, y = everything(data.eval_batches(split, BATCH))
        px = data.info.base_px
        assert x.shape == (data.info.n_images[split], data.info.in_channels, px, px)
        assert x.dtype == torch.float32 and y.dtype == torch.int64
        assert torch.isfinite(x).all()
        assert set(y.tolist()) == set(range(data.info.num_classes))


def test_training_images_are_normalised(data):
    x, _ = everything(data.eval_batches("train", BATCH))
    assert x.mean().abs() < 0.05
    assert abs(float(x.std()) - 1) < 0.05


def test_splits_are_disjoint_and_stratified(data):
    seen = {}
    for split in ("train", "val", "test"):
        x, y = everything(data.eval_batches(split, BATCH))
        seen[split] = {image.numpy().tobytes() for image in x}
        share = np.bincount(y.numpy()) / len(y)
        seen[split, "share"] = share
    assert not seen["train"] & seen["val"]
    assert not seen["train"] & seen["test"]
    assert not seen["val"] & seen["test"]
    for split in ("val", "test"):
        np.testing.assert_allclose(seen[split, "share"], seen["train", "share"], atol=0.01)


def test_training_batches_are_full_and_fixed_by_seed_and_epoch(build, data):
    first = list(data.train_batches(0, BATCH))
    assert len(first) == data.info.n_images["train"] // BATCH
    assert all(len(x) == len(y) == BATCH for x, y in first)
    x, y = everything(first)
    again, labels = everything(build().train_batches(0, BATCH))
    assert torch.equal(x, again) and torch.equal(y, labels)
    assert not torch.equal(y, everything(data.train_batches(1, BATCH))[1])
    assert not torch.equal(y, everything(build(seed=1).train_batches(0, BATCH))[1])


def test_results_do_not_depend_on_the_number_of_workers(build, data):
    for (x, y), (other_x, other_y) in zip(
        data.train_batches(1, BATCH), build(n_workers=2).train_batches(1, BATCH), strict=True
    ):
        assert torch.equal(x, other_x) and torch.equal(y, other_y)
        assert x.stride() == other_x.stride()  # what a convolution adds up first


def test_global_generators_are_left_alone(data):
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    next(data.train_batches(0, BATCH))
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    assert before == after


def test_results_do_not_depend_on_the_batch_size(data):
    x, y = everything(data.train_batches(0, 64))
    small_x, small_y = everything(data.train_batches(0, 32))
    assert torch.equal(small_y[: len(y)], y)
    torch.testing.assert_close(small_x[: len(x)], x)


def test_seeds_change_the_validation_split(build, data):
    x, _ = everything(data.eval_batches("val", BATCH))
    other, _ = everything(build(seed=1).eval_batches("val", BATCH))
    assert x.shape != other.shape or not torch.equal(x, other)


def test_calibration_images_are_clean_training_images(data):
    x, _ = everything(data.eval_batches("train", BATCH))
    train = {image.numpy().tobytes() for image in x}
    batches = data.calibration_batches(3, 32)
    assert [len(batch) for batch in batches] == [32] * 3
    drawn = [image.numpy().tobytes() for batch in batches for image in batch]
    assert set(drawn) <= train
    assert len(set(drawn)) > 90  # drawn without replacement


def test_too_few_images_for_a_batch_say_so(data):
    too_many = data.info.n_images["train"] + 1
    with pytest.raises(UserError, match=str(too_many)):
        data.train_batches(0, too_many)
    with pytest.raises(UserError, match="calibration"):
        data.calibration_batches(1, too_many)
