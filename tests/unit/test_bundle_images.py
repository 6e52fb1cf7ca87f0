"""Images that a bundle carries: of all classes, also where a split is read class by class."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from hwnas.pipeline.bundle import _of_all_classes


def project(labels: list[int], n_classes: int, batch: int = 4) -> Any:
    """A split whose i-th image holds the number i."""
    images = torch.arange(len(labels), dtype=torch.float32).reshape(-1, 1, 1, 1)
    read: list[int] = []

    def eval_batches(split: str, size: int) -> Any:
        for start in range(0, len(labels), batch):
            read.append(start)
            yield images[start : start + batch], torch.tensor(labels[start : start + batch])

    info = SimpleNamespace(class_names=[str(c) for c in range(n_classes)])
    data = SimpleNamespace(eval_batches=eval_batches)
    return SimpleNamespace(source=SimpleNamespace(info=info), data=data, read=read)


@pytest.mark.parametrize(
    ("labels", "n_classes", "n", "expected"),
    [
        ([0] * 10 + [1] * 10 + [2] * 10, 3, 8, [0, 0, 0, 1, 1, 1, 2, 2]),
        ([0, 1, 2] * 10, 3, 8, [0, 0, 0, 1, 1, 1, 2, 2]),
        ([0] * 10 + [1] * 2, 2, 8, [0, 0, 0, 0, 0, 0, 1, 1]),  # the others fill up
        ([0] * 3, 2, 8, [0, 0, 0]),
        (sorted(range(30)), 30, 8, list(range(8))),
    ],
)
def test_images_are_of_all_classes_alike(labels, n_classes, n, expected):
    given = project(labels, n_classes)
    images, found = _of_all_classes(given, "test", n)
    assert sorted(found.tolist()) == expected
    numbers = [int(i) for i in images.flatten()]
    assert len(set(numbers)) == len(numbers)
    assert [labels[number] for number in numbers] == found.tolist()


def test_no_more_is_read_than_needed():
    given = project([0, 1] * 100, 2)
    _of_all_classes(given, "test", 8)
    assert given.read == [0, 4]
