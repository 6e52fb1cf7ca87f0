"""Parity: repeated images, ties, and what a report says."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import hwnas
from hwnas.core.errors import CheckFailed, UserError
from hwnas.exporters import formats
from hwnas.exporters.opened import onnxruntime_model
from hwnas.exporters.parity import (
    ParityReport,
    compare,
    compare_batches,
    is_kept,
    promised,
    torch_logits,
    torch_rounding,
)
from hwnas.interfaces import ModelFile

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


def test_only_the_largest_batch_sees_all_images_if_asked_for() -> None:
    report = compare_batches(
        linear(IMAGES), Opened(), IMAGES, file="x", batches=(1, 4, 2), most=len(IMAGES) // 2
    )
    n = len(IMAGES) // 2
    assert [b.n_images for b in report.batches] == [n, len(IMAGES) // 4 * 4, n // 2 * 2]


def test_without_images_there_is_nothing_to_compare() -> None:
    with pytest.raises(UserError, match=r"(?s)torch needs images.*at least one image.*found"):
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


def test_what_is_not_finite_is_named() -> None:
    good, bad = np.zeros((2, 3), np.float32), np.full((2, 3), np.nan, np.float32)
    for pair, names in (
        ((good, bad), "the exported file"),
        ((bad, good), "the torch network"),
        ((bad, bad), "the torch network and the exported file"),
    ):
        with pytest.raises(CheckFailed, match=f"not finite\n  found: .* from {names}\n"):
            compare(*pair)


@pytest.mark.parametrize(("value", "relative"), [(0.0, 0.0), (0.25, 1.0)])
def test_logits_of_zero_have_no_scale(value: float, relative: float) -> None:
    """Any difference from them is a whole one."""
    zeros = np.zeros((2, 3), dtype=np.float32)
    found = compare(zeros, np.full((2, 3), value, dtype=np.float32))
    assert found.relative == relative and found.max_abs_difference == value


# --- a tolerance for torch's own rounding ---------------------------------------------------------


class Constant(nn.Module):
    """Logits x + 2^power - 2^power: the second of two BN channels of variance 0 loses its image."""

    def __init__(self, power: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 1, groups=2)
        self.bn = nn.BatchNorm2d(2, eps=2.0**-20)
        with torch.no_grad():
            self.conv.weight.fill_(1.0)
            self.conv.bias.fill_(2.0**power)  # type: ignore[union-attr]
            self.bn.running_mean.fill_(2.0**power)  # type: ignore[union-attr]
            self.bn.running_var.zero_()  # type: ignore[union-attr]
            self.bn.weight.fill_(2.0**-10)
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.bn(self.conv(x)).flatten(1)
        return logits


def logits_of(power: int, share: float) -> tuple[nn.Module, Any]:
    """The network, and images of which float32 keeps 1 and rounds a share of its last bit to 0."""
    x = np.zeros((4, 2, 1, 1), dtype=np.float32)
    x[:, 0], x[:, 1] = 1.0, share * 2.0 ** (power - 23)
    return Constant(power), x


def test_the_rounding_of_torch_is_that_to_float64() -> None:
    network, x = logits_of(17, 0.25)
    assert torch_rounding(network, x, torch_logits(network, x)) == 2.0**-8
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Flatten(), nn.Linear(2, 2)).eval()
    before = copy.deepcopy(plain.state_dict())
    assert torch_rounding(plain, x, torch_logits(plain, x)) < 1e-6
    assert all(torch.equal(before[key], value) for key, value in plain.state_dict().items())


def test_only_float32_files_get_a_tolerance_for_it_and_never_above_the_cap() -> None:
    file = ModelFile("model.onnx", "onnx", "fp32")
    assert promised(file, 2e-5) == file
    raised = promised(file, 2.0**-8)
    assert (raised.parity_tolerance, raised.torch_rounding) == (4 * 2.0**-8, 2.0**-8)
    assert promised(file, 0.5).parity_tolerance == 0.03
    for precision, tolerance in (("fp16", 0.01), ("int8", 0.3)):
        other = ModelFile("model.onnx", "onnx", precision, parity_tolerance=tolerance)  # type: ignore[arg-type]
        assert promised(other, 0.5) == other


def test_a_file_that_computes_what_torch_rounds_away_is_exported(tmp_path: Path) -> None:
    """ONNX Runtime folds BN into the convolution, and so computes the exact logits."""
    network, x = logits_of(17, 0.25)
    (file,) = hwnas.export(network, format="onnx", folder=tmp_path, images=x)
    exact = np.array([[1.0, 2.0**-8]] * 4)
    assert np.array_equal(onnxruntime_model(file).logits(x), exact)


def test_a_file_that_is_wrong_fails_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, x = logits_of(17, 0.25)
    wrong = copy.deepcopy(network)
    wrong.bn.bias.data.fill_(0.02)  # type: ignore[union-attr, operator]
    rounding = torch_rounding(network, x, torch_logits(network, x))
    monkeypatch.setattr(formats, "torch_logits", lambda *given: torch_logits(wrong, x))
    monkeypatch.setattr(formats, "torch_rounding", lambda *given: rounding)
    with pytest.raises(CheckFailed, match="2e-02, because torch's own rounding is 4e-03"):
        hwnas.export(network, format="onnx", folder=tmp_path, images=x)
    monkeypatch.undo()
    lost, x = logits_of(20, 0.5)  # a sixteenth is lost, more than the cap allows
    with pytest.raises(CheckFailed, match=r"at most 3e-02[\s\S]*6\.2e-02"):
        hwnas.export(lost, format="onnx", folder=tmp_path, images=x)


def test_classes_within_the_rounding_of_torch_are_tied() -> None:
    expected = np.array([[1.0, 0.995, 0.0]], dtype=np.float32)
    found = expected[:, [1, 0, 2]]
    file = promised(ModelFile("model.onnx", "onnx", "fp32"), 0.004)
    assert is_kept(file, compare(expected, found, rounding=file.torch_rounding))
    assert not is_kept(file, compare(expected, found))
    further = np.array([[1.0, 0.99, 0.0]], dtype=np.float32)
    found = further[:, [1, 0, 2]]
    assert not is_kept(file, compare(further, found, rounding=file.torch_rounding))
