"""Contract tests of data sets: `interfaces.DataModule`."""

from __future__ import annotations

import random
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch

from hwnas.core.errors import UserError
from hwnas.interfaces import (
    ArchivedDataset,
    CutDataset,
    DataModule,
    DatasetContext,
    DatasetModule,
    IdentifiedDataset,
    NamedImages,
)
from hwnas.testing.suite import Suite
from hwnas.training.identity import SPLITS, identity_of_arrays

__all__ = ["DatasetSuite", "everything", "has_tokens"]

BATCH = 64


def everything(
    batches: Iterable[tuple[torch.Tensor, torch.Tensor]],
) -> tuple[torch.Tensor, torch.Tensor]:
    """All images and labels of some batches, concatenated."""
    xs, ys = zip(*batches, strict=True)
    return torch.cat(xs), torch.cat(ys)


def has_tokens(variant: Any) -> bool:
    """Whether batches of the data set are tokens instead of images."""
    return bool(getattr(variant, "HAS_TOKENS", False))


def _bytes(x: torch.Tensor) -> list[bytes]:
    return [image.numpy().tobytes() for image in x]


@lru_cache(maxsize=4)  # a data set is built once for all tests, which only read it
def _built(variant: Any, settings: str, seed: int, n_workers: int) -> DataModule:
    config = variant.Config.model_validate_json(settings)
    data: DataModule = variant.build(config, DatasetContext(seed, n_workers))
    return data


class DatasetSuite(Suite):
    """Contract of a data set. `config` must have about 200 images or more in every split.

    If the default configuration needs files, override `config`: write a small data set, and use its
    path. Promises about pixels, classes and seeds do not apply to texts (`HAS_TOKENS`).
    """

    CONTRACT = DatasetModule

    def build(self, variant: Any, config: Any, seed: int = 0, n_workers: int = 0) -> DataModule:
        """Builds the data set."""
        return _built(variant, config.model_dump_json(), seed, n_workers)

    @pytest.fixture
    def data(self, variant: Any, config: Any) -> DataModule:
        """The data set with seed 0."""
        return self.build(variant, config)

    def test_ends_are_those_of_the_data(self, variant: Any, config: Any, data: DataModule) -> None:
        """Channels and classes are known before an image is loaded."""
        assert variant.ends(config) == (data.info.in_channels, data.info.num_classes)

    def test_identity_is_that_of_the_data(
        self, variant: Any, config: Any, data: DataModule
    ) -> None:
        """Digests are the same each time; class names are complete, and every split has files."""
        if isinstance(variant, IdentifiedDataset):
            found = variant.identity(config)
            assert data.info.digests == found.digests == variant.identity(config).digests
        else:
            found = identity_of_arrays(data)
        assert found.digests.keys() == set(SPLITS)
        assert len(found.class_names) == data.info.num_classes
        assert all(found.files[part] for part in found.parts.values())

    def test_optional_lists_of_images_are_whole(
        self, variant: Any, config: Any, data: DataModule
    ) -> None:
        """If a data set lists names of its images or contents of its archives, it lists all."""
        if isinstance(data, NamedImages):
            for split, n in data.info.n_images.items():
                assert len(data.contents(split)) == n  # type: ignore[arg-type]
        if isinstance(variant, CutDataset) and isinstance(data, NamedImages):
            known = variant.contents(config, DatasetContext(0))
            assert known in (None, {split: data.contents(split) for split in SPLITS})
        if isinstance(variant, ArchivedDataset) and (inside := variant.inside(config)) is not None:
            assert inside == variant.inside(config)
            assert len(inside.class_names) == data.info.num_classes
            assert sum(map(len, inside.files.values())) >= sum(data.info.n_images.values())

    def test_info_describes_the_batches(self, variant: Any, config: Any, data: DataModule) -> None:
        """Shapes, types and numbers of images are correct; every split has every class."""
        if has_tokens(variant):
            self._describes_windows(config, data)
            return
        for split in SPLITS:
            x, y = everything(data.eval_batches(split, BATCH))
            px = data.info.base_px
            assert x.shape == (data.info.n_images[split], data.info.in_channels, px, px)
            assert x.dtype == torch.float32 and y.dtype == torch.int64
            assert torch.isfinite(x).all()
            assert set(y.tolist()) == set(range(data.info.num_classes))

    def _describes_windows(self, config: Any, data: DataModule) -> None:
        """Tokens are in the vocabulary; labels are the next tokens of the last segment."""
        shape = config.context + 1, config.steps
        for split in SPLITS:
            x, y = everything(data.eval_batches(split, BATCH))
            assert x.shape == (data.info.n_images[split], *shape)
            assert x.dtype == y.dtype == torch.int64
            assert min(x.min(), y.min()) >= 0 and max(x.max(), y.max()) < data.info.num_classes
            assert torch.equal(x[:, -1, 1:], y[:, :-1])

    def test_training_images_are_normalised(self, variant: Any, data: DataModule) -> None:
        """Training images have mean 0 and variance 1."""
        if has_tokens(variant):
            pytest.skip("tokens have no pixels")
        x, _ = everything(data.eval_batches("train", BATCH))
        assert x.mean().abs() < 0.05
        assert abs(float(x.std()) - 1) < 0.05

    def test_splits_are_disjoint_and_stratified(self, variant: Any, data: DataModule) -> None:
        """No image is in two splits; each class has the same share of every split."""
        if has_tokens(variant):
            pytest.skip("parts of a text are in their order")
        seen, share = {}, {}
        for split in SPLITS:
            x, y = everything(data.eval_batches(split, BATCH))
            seen[split] = set(_bytes(x))
            share[split] = np.bincount(y.numpy()) / len(y)
        assert not seen["train"] & seen["val"]
        assert not seen["train"] & seen["test"]
        assert not seen["val"] & seen["test"]
        for split in ("val", "test"):
            np.testing.assert_allclose(share[split], share["train"], atol=0.01)

    def test_training_batches_are_full_and_fixed_by_seed_and_epoch(
        self, variant: Any, config: Any, data: DataModule
    ) -> None:
        """A partial last batch is dropped; another epoch or seed has another order."""
        first = list(data.train_batches(0, BATCH))
        assert len(first) == data.info.n_images["train"] // BATCH
        assert all(len(x) == len(y) == BATCH for x, y in first)
        x, y = everything(first)
        anew: DataModule = variant.build(config, DatasetContext(0))
        again, labels = everything(anew.train_batches(0, BATCH))
        assert torch.equal(x, again) and torch.equal(y, labels)
        assert not torch.equal(y, everything(data.train_batches(1, BATCH))[1])
        other = self.build(variant, config, seed=1)
        assert not torch.equal(y, everything(other.train_batches(0, BATCH))[1])

    def test_results_do_not_depend_on_the_number_of_workers(
        self, variant: Any, config: Any, data: DataModule
    ) -> None:
        """Batches from worker processes are bit-identical to those without."""
        workers = self.build(variant, config, n_workers=2)
        for (x, y), (other_x, other_y) in zip(
            data.train_batches(1, BATCH), workers.train_batches(1, BATCH), strict=True
        ):
            assert torch.equal(x, other_x) and torch.equal(y, other_y)
            assert x.stride() == other_x.stride()  # affects the order of additions in a convolution

    def test_global_generators_are_left_alone(self, data: DataModule) -> None:
        """The generators of Python, numpy and torch do not change."""

        def states() -> list[Any]:
            numpy = np.random.get_state(legacy=False)
            return [random.getstate(), str(numpy), torch.get_rng_state().tolist()]

        before = states()
        next(iter(data.train_batches(0, BATCH)))
        assert states() == before

    def test_results_do_not_depend_on_the_batch_size(self, data: DataModule) -> None:
        """Image i of an epoch is the same for every batch size."""
        x, y = everything(data.train_batches(0, 64))
        small_x, small_y = everything(data.train_batches(0, 32))
        assert torch.equal(small_y[: len(y)], y)
        torch.testing.assert_close(small_x[: len(x)], x)

    def test_ranks_together_have_the_whole_batch(self, data: DataModule) -> None:
        """The parts of a batch that the ranks get make up the whole batch, in rank order."""
        whole = everything(data.train_batches(0, BATCH))
        parts = [list(data.train_batches(0, BATCH, rank=rank, n_ranks=2)) for rank in (0, 1)]
        for found, expected in zip(
            everything(batch for pair in zip(*parts, strict=True) for batch in pair), whole
        ):
            torch.testing.assert_close(found, expected)

    def test_seeds_change_the_validation_split(
        self, variant: Any, config: Any, data: DataModule
    ) -> None:
        """Runs with different seeds must not all depend on the same validation images."""
        if has_tokens(variant):
            pytest.skip("parts of a text are in their order")
        x, _ = everything(data.eval_batches("val", BATCH))
        other, _ = everything(self.build(variant, config, seed=1).eval_batches("val", BATCH))
        assert x.shape != other.shape or not torch.equal(x, other)

    def test_calibration_images_are_clean_training_images(self, data: DataModule) -> None:
        """Images are not augmented, and drawn without replacement."""
        x, _ = everything(data.eval_batches("train", BATCH))
        batches = data.calibration_batches(3, 32)
        assert [len(batch) for batch in batches] == [32] * 3
        drawn = [image for batch in batches for image in _bytes(batch)]
        assert set(drawn) <= set(_bytes(x))
        assert len(set(drawn)) > 90

    def test_too_few_images_for_a_batch_say_so(self, data: DataModule) -> None:
        """Batches that are larger than the data set are refused before any image is computed."""
        too_many = data.info.n_images["train"] + 1
        with pytest.raises(UserError, match=str(too_many)):
            data.train_batches(0, too_many)
        with pytest.raises(UserError, match="calibration"):
            data.calibration_batches(1, too_many)
