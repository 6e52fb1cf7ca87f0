"""Errors of whole sections name the wrong key and its value, and do not print the whole section."""

from __future__ import annotations

from typing import Any

import pytest

from hwnas.controller.sections import EvaluatorConfig
from hwnas.core.config import StrictModel, build_model
from hwnas.core.errors import UserError
from hwnas.core.records import load
from hwnas.pipeline.config import SearchSection
from hwnas.pipeline.listings import TrainingRow
from hwnas.pipeline.outcomes import DataRecord
from hwnas.spaces.mobile_sections import BlockOpConfig, StageConfig
from hwnas.training.datasets.digits import Config as Digits
from hwnas.training.datasets.text import Config as Text
from hwnas.training.label_sections import LabelConfig, TrainedLabelConfig
from hwnas.training.photo_config import AugmentConfig
from hwnas.training.samplers.progressive import Config as Progressive
from hwnas.training.sections import FinetuneConfig, TrainConfig

OPS = {"ops": [{"name": "a"}]}
BLOCKS = {"kernels": [3], "expands": [2]}
MULTIPLE = "expected a multiple of accumulation (3), and at least 6 (2 images per part)"
AREAS = "expected two shares, least and largest, with 0 < least <= largest <= 1"
SPLIT_TWICE = "expected only one of `groups` and `expand_groups`, because both split the expansion"
FLOATS = "expected fp32, bf16 or fp16, because labels are accuracies of float networks"

SECTIONS: list[tuple[type[StrictModel], dict[str, Any], str]] = [
    (TrainConfig, {"batch_size": 64, "accumulation": 3}, f"batch_size: {MULTIPLE}, found 64"),
    (TrainConfig, {"batch_size": 3, "accumulation": 3}, f"batch_size: {MULTIPLE}, found 3"),
    (
        FinetuneConfig,
        {"precision": "int8", "auxiliary": 0.4},
        "auxiliary: expected 0 with precision int8, found 0.4",
    ),
    (
        TrainedLabelConfig,
        {"n": 1, "recipe": {"precision": "int8"}},
        f"recipe.precision: {FLOATS}, found int8",
    ),
    (
        LabelConfig,
        {"reader": "hwnas", "target": "top1"},
        "expected `records` with `reader` or `target`, found `reader` and `target` without"
        " `records`",
    ),
    (
        EvaluatorConfig,
        {"target": "top1"},
        "expected `records` with `reader` or `target`, found `target` without `records`",
    ),
    (Text, {"files": ["a", "b"]}, "files: expected one file, or three (train, val, test), found"),
    (Text, {"files": ["a", "b", "b"]}, "files: expected different files, found b twice"),
    (AugmentConfig, {"crop_scale": [0.5, 0.2]}, f"crop_scale: {AREAS}, found [0.5, 0.2]"),
    (
        Digits,
        {"val_fraction": 0.5, "test_fraction": 0.45},
        "val_fraction + test_fraction: expected at most 0.9, found 0.95",
    ),
    (
        Progressive,
        {"phases": [{"share": 1, "free": {"kernel": 0}}]},
        "phases.0.free.kernel: expected a number of at least 1, found 0",
    ),
    (
        SearchSection,
        {"acquisition": {"name": "mean"}, "exploration": 0.5},
        "expected at most one of `acquisition` and `exploration` (above 0), found exploration 0.5",
    ),
    (
        BlockOpConfig,
        {"name": "a", "kind": "dsconv", "expand": 6},
        "expected neither `expand` nor `groups` for the kind dsconv, found expand 6 and groups 1",
    ),
    (
        BlockOpConfig,
        {"name": "a", "kind": "conv", "expand_groups": 2},
        "expected no `expand_groups` for the kind conv, found 2",
    ),
    (
        BlockOpConfig,
        {"name": "a", "kind": "fused", "groups": 2},
        "expected `expand_groups` instead of `groups` for the kind fused, found `groups`",
    ),
    (
        BlockOpConfig,
        {"name": "a", "kind": "uib", "groups": 2, "expand_groups": 2},
        f"{SPLIT_TWICE}, found both",
    ),
    (
        BlockOpConfig,
        {"name": "a", "kind": "fused", "start_kernel": 5},
        "expected `start_kernel` only for the kind uib, found start_kernel 5 for the kind fused",
    ),
    (
        BlockOpConfig,
        {"name": "a", "kind": "mbconv", "kernel": 0},
        "expected a kernel of 0 only for the kind uib, found kernel 0 for the kind mbconv",
    ),
    (
        StageConfig,
        OPS | {"first_kernels": [3]},
        "expected neither `start_kernels` nor `first_kernels` with `ops`, found `first_kernels`",
    ),
    (
        StageConfig,
        BLOCKS | {"first_kernels": [3], "per_stage": True},
        "expected at most one of `first_kernels` and `per_stage`, found both",
    ),
    (
        StageConfig,
        BLOCKS | {"kernels": [0, 3]},
        "expected kernels above 0 in a stage without `start_kernels`, found a kernel of 0",
    ),
    (
        StageConfig,
        BLOCKS | {"first_ops": [{"name": "a"}]},
        "expected `ops`, because `first_ops` is given, found no `ops`",
    ),
]


@pytest.mark.parametrize(("section", "given", "line"), SECTIONS)
def test_a_section_names_the_wrong_value(
    section: type[StrictModel], given: dict[str, Any], line: str
) -> None:
    data = given | ({"widths": [16], "depths": [1]} if section is StageConfig else {})
    with pytest.raises(UserError) as error:
        build_model(section, data, where="the config")
    found = str(error.value).split("\n    ", 1)[1].splitlines()[0]
    assert found.startswith(line) and len(found) < len(line) + 40, found


def test_a_record_names_the_wrong_part() -> None:
    curves = {"step": 1, "lr": 0.1, "losses": [], "top1": {"largest": 0.5}, "val_loss": {}}
    with pytest.raises(UserError, match=r"the curves largest\n  found: val_loss: no curves"):
        load(TrainingRow, curves, where="metrics.jsonl", versioned=False)
    with pytest.raises(UserError, match=r"an index of `seen`, below 0\n  found: last: the index 2"):
        load(DataRecord, {"seen": [], "last": 2}, where="data.json", versioned=False)
