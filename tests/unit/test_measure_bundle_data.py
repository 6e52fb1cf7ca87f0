"""The test split for a bundle, and how another data set is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from hwnas.core.errors import UserError
from hwnas.exporters.manifest import InputSpec
from hwnas.interfaces import DataInfo, DatasetContext
from hwnas.measure import bundle_data
from hwnas.measure.bundle_data import N_NAMED
from hwnas.training.datasets import digits
from hwnas.training.images import resize
from tests.bundles import colour_manifest

DATA = digits.build(digits.Config(base_px=12), DatasetContext(0))


def manifest(**changes: Any) -> Any:
    """A bundle for images of 10 px of these data, except for `changes` of their facts."""
    info = replace(DATA.info, **changes)
    return replace(
        colour_manifest(), input=InputSpec.of(info, 10), accuracy=(), latency=(), samples=()
    )


def refused(**changes: Any) -> UserError:
    with pytest.raises(UserError, match="another data set") as caught:
        bundle_data.test_split(manifest(**changes), DATA, Path("bundle"))
    return caught.value


def test_images_are_those_of_the_test_split_at_the_size_of_the_bundle() -> None:
    x, labels = bundle_data.test_split(manifest(), DATA, Path("bundle"))
    batches = list(DATA.eval_batches("test", 1000))
    expected = torch.cat([resize(images, 10) for images, _ in batches])
    np.testing.assert_allclose(x, expected.numpy())
    np.testing.assert_array_equal(labels, torch.cat([y for _, y in batches]).numpy())
    assert x.shape == (DATA.info.n_images["test"], 3, 10, 10)


def test_other_preprocessing_is_named() -> None:
    mean = (0.1, 0.2, 0.3)
    error = refused(mean=mean)
    assert error.expected == "mean (0.1, 0.2, 0.3)"
    assert error.found == f"mean {DATA.info.mean} (data set digits)"
    assert error.fix == "give the configuration that the bundle was made with: --config NAME"
    both = refused(mean=mean, class_names=tuple("abcdefghij"))
    assert "mean (0.1, 0.2, 0.3); 10 classes" in str(both.expected) and both.fix == error.fix


def names(*changed: str) -> tuple[str, ...]:
    return (*changed, *DATA.info.class_names[len(changed) :])


def test_renamed_classes_are_named() -> None:
    error = refused(class_names=names("zero", "one"))
    assert error.expected == "10 classes, with the names in its manifest.json"
    assert error.found == "class 'zero' is now '0'; class 'one' is now '1' (data set digits)"
    assert "restore the names of the classes" in str(error.fix)


@pytest.mark.parametrize(("n", "more"), [(N_NAMED, None), (N_NAMED + 2, 2)])
def test_only_some_changes_are_named(n: int, more: int | None) -> None:
    found = str(refused(class_names=names(*(f"class{i}" for i in range(n)))).found)
    assert found.count("is now") == N_NAMED
    assert ("more changes of classes" in found) == (more is not None)
    assert more is None or f"{more} more changes of classes" in found


def test_moved_and_missing_classes_are_no_renamed_ones() -> None:
    order = (*DATA.info.class_names[1:], DATA.info.class_names[0])
    for names in (order, DATA.info.class_names[:-1]):
        assert "is now" not in str(refused(class_names=names).found)


def test_several_batches_are_joined() -> None:
    """More images than a batch has."""
    n = 700
    images, labels = torch.rand(n, 1, 10, 10), torch.arange(n) % 10
    info = DataInfo("made", tuple("0123456789"), (0.5,), (0.25,), 10, {"test": n})
    data = SimpleNamespace(
        info=info,
        eval_batches=lambda split, size: zip(images.split(size), labels.split(size), strict=True),
    )
    x, y = bundle_data.test_split(
        replace(manifest(), input=InputSpec.of(info, 10)),
        data,
        Path("bundle"),  # type: ignore[arg-type]
    )
    np.testing.assert_allclose(x, images.numpy())
    np.testing.assert_array_equal(y, labels.numpy())
