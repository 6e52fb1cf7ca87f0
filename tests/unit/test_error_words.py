"""Errors name what they expected and found with a noun, and both parts are of the same kind."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import hwnas
from hwnas.controller.constraints import price
from hwnas.core.errors import Invalid, UserError
from hwnas.core.json_data import strict_json
from hwnas.core.ledger import read_ledger
from hwnas.core.overrides import override
from hwnas.latency.table import check_operator
from hwnas.latency.transfer import fit_device
from hwnas.nets.features import features_only
from hwnas.nets.images import require_images
from hwnas.nets.subnet import build_subnet
from hwnas.pipeline.answers import Answered
from hwnas.pipeline.listings import listed
from hwnas.predictors.labels import check_codes, check_labels
from hwnas.predictors.open_records import open_records
from hwnas.spaces.ops import OpSpec
from hwnas.training.evaluate import evaluate

SPACE = hwnas.space("mobilenet_tiny", resolutions=[16], num_classes=10)
CODES = SPACE.codes([SPACE.largest(), SPACE.smallest()])


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def macro(folder: Path) -> object:
    return open_records(written(folder / "x.json", "[1]"), reader="nas_bench_macro")


def labels(folder: Path) -> object:
    path = written(folder / "x.json", '{"labels": 3}')
    return open_records(path, reader="hwnas", space="mobilenet_tiny", num_classes=10)


CASES: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "a cost": (
        lambda _: price({"macs": lambda codes: np.array([1.0, -2.0])}, CODES),
        "a finite number above 0 for every arch",
        "1 of 2 archs with other values, such as -2",
    ),
    "an integer": (
        lambda _: override({}, {"seed": 2**70}),
        "an integer of at most 64 bits",
        "an integer of 72 bits",
    ),
    "a ledger": (
        lambda folder: read_ledger(written(folder / "stages.json", '{"stages": 3}')),
        "a JSON object in which the value of `stages` is a JSON object",
        "no such object under `stages`",
    ),
    "the latency of an operator": (
        lambda _: check_operator(OpSpec("conv", 3, 8, 16, 16), [1.0, 1e10], where="t.json"),
        r"less than 1e\+09 ms",
        r"1e\+10 ms for .*conv.*",
    ),
    "the size of an operator": (
        lambda _: check_operator(OpSpec("conv", 0, 8, 16, 16), [1.0], where="t.json"),
        "channels, map sizes, kernel and strides from 1 to .*",
        ".*conv.*",
    ),
    "timed networks": (
        lambda _: fit_device(SimpleNamespace(), np.arange(2), np.ones(2)),  # type: ignore[arg-type]
        "at least 3",
        "2 networks",
    ),
    "images": (
        lambda _: require_images(torch.ones(2, 3, 8, 8), 16, 3, where="here"),
        r"images of shape \[B, 3, 16, 16\]",
        r"images of shape \[2, 3, 8, 8\]",
    ),
    "codes": (
        lambda _: check_codes(SPACE, CODES[:, :2]),
        r"codes of shape \[n, \d+\]",
        r"codes of shape \[2, 2\]",
    ),
    "values of codes": (
        lambda _: check_codes(SPACE, CODES + 9),
        r"codes from 0 to \d+",
        r"codes from \d+ to \d+",
    ),
    "scores": (
        lambda _: check_labels(SPACE, CODES, np.ones(3)),
        r"scores of shape \[2\]",
        r"scores of shape \[3\]",
    ),
    "an entry": (
        lambda folder: listed({"a": 1}, "b", what="b", where=folder, fix="none"),
        "an entry b",
        "the entries a",
    ),
    "a choice": (
        lambda _: SPACE.restrict({"width": [16]}),
        "one of resolution, .*",
        "None",
    ),
    "a benchmark": (macro, "a JSON object with one entry per arch: .*", "a list"),
    "labels": (
        labels,
        "a JSON object in which the value of `labels` is a list",
        "no list `labels`",
    ),
    "no images": (
        lambda _: evaluate(torch.nn.Identity(), []),
        "at least one image",
        "none",
    ),
    "strides": (
        lambda _: features_only(build_subnet(SPACE, SPACE.largest()), [3]),
        "strides among .*",
        "the strides 3",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_was_expected_and_found_is_named(case: str, tmp_path: Path) -> None:
    call, expected, found = CASES[case]
    with pytest.raises(UserError) as caught:
        call(tmp_path)
    error = caught.value
    assert re.fullmatch(expected, str(error.expected)), error.expected
    assert re.fullmatch(found, str(error.found)), error.found


def test_too_many_values_are_counted_in_values() -> None:
    with pytest.raises(Invalid, match=r"expected at most .* values, found about .* values"):
        strict_json("[" + "1," * 4_000_001 + "1]")


@pytest.mark.parametrize(
    ("confusion", "photos", "said"),
    [
        (((1, 0), (1,)), (), "2 rows of 2 numbers, one row .*found a row of 1 numbers"),
        (((1, 0), (0, 1)), (5,), "class numbers from 0 to 1, found the class number 5"),
    ],
)
def test_a_matrix_of_confusions_is_square(
    confusion: Any, photos: tuple[int, ...], said: str
) -> None:
    shown: Any = tuple(SimpleNamespace(label=label, predicted=0) for label in photos)
    with pytest.raises(Invalid, match=said):
        Answered("local", SPACE.largest(), "f", confusion, shown, ())
