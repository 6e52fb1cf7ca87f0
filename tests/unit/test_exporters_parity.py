"""Parity: repeated images, ties, and what a report says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from hwnas.core.errors import UserError
from hwnas.exporters.parity import ParityReport, compare, compare_batches

IMAGES = np.random.default_rng(0).standard_normal((6, 3, 4, 4)).astype(np.float32)


def linear(images: Any) -> Any:
    """Logits [n, 2] of a network that torch would be."""
    return np.stack([images.mean((1, 2, 3)), -images.mean((1, 2, 3))], axis=1)


@dataclass
class Opened:
    """A file that computes the same, but for one row of a full batch of eight."""

    wrong_row: int | None = None
    batch: int | None = None
    runtime: str = "imitation"

    def logits(self, images: Any, batch: int = 32) -> Any:
        assert len(images) % batch == 0
        found = linear(images)
        if self.wrong_row is not None and batch == 8:
            found[self.wrong_row] += 1
        return found


def test_few_images_are_repeated_to_fill_a_batch() -> None:
    report = compare_batches(linear(IMAGES), Opened(), IMAGES, file="x", batches=(1, 4, 8))
    assert report.passed
    assert [(b.batch, b.n_images) for b in report.batches] == [(1, 6), (4, 4), (8, 6)]


@pytest.mark.parametrize("row", [0, 7])
def test_every_row_of_a_batch_of_repeated_images_is_compared(row: int) -> None:
    report = compare_batches(linear(IMAGES), Opened(row), IMAGES, file="x", batches=(1, 8))
    assert [b.relative > 0.1 for b in report.batches] == [False, True] and not report.passed


def test_without_images_there_is_nothing_to_compare() -> None:
    with pytest.raises(UserError, match=r"(?s)no images to compare.*expected.*found"):
        compare_batches(linear(IMAGES[:0]), Opened(), IMAGES[:0], file="x")


def test_classes_whose_logits_are_a_tie_agree() -> None:
    """What rounding exchanges is no other answer; what is more than rounding is."""
    expected = np.array([[1.0, 1.0 - 1e-6, 0.0], [1.0, 0.999, 0.0]], dtype=np.float32)
    tied = expected[:, [1, 0, 2]]
    assert compare(expected[:1], tied[:1]).top1_agreement == 1.0
    assert compare(expected, tied).top1_agreement == 0.5


def test_a_report_says_what_is_accepted() -> None:
    found = ParityReport("model.onnx", "x", 1e-4, 1.0, (compare(np.eye(4), np.eye(4)[::-1]),))
    assert "accepted 1e-04" in str(found) and "0.00% of 4 images (accepted 100.0%)" in str(found)


@pytest.mark.parametrize(("value", "relative"), [(0.0, 0.0), (0.25, 1.0)])
def test_logits_of_zero_have_no_scale(value: float, relative: float) -> None:
    """Any difference from them is a whole one."""
    zeros = np.zeros((2, 3), dtype=np.float32)
    found = compare(zeros, np.full((2, 3), value, dtype=np.float32))
    assert found.relative == relative and found.max_abs_difference == value
