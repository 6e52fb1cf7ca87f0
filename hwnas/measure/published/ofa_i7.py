"""Converts NSGANetV2's table (2007.10396) for OFA's MobileNetV3 on a Core i7-8700K."""

from __future__ import annotations

import math
from pathlib import Path

from hwnas.core.stats import Z80, Z90
from hwnas.interfaces import DeviceSpec
from hwnas.latency.samples import Timing
from hwnas.latency.table import LatencyTable, Protocol
from hwnas.measure.published.csv_files import Row, read_rows
from hwnas.spaces.chains import divisible
from hwnas.spaces.ops import OpSpec

__all__ = ["convert"]

COLUMNS = (
    *("op", "in_hw", "in_c", "out_hw", "out_c", "expand", "kernel", "stride", "skip", "se"),
    *("ms", "var"),
)
LAST_RELU = 48  # output channels of the last stage with ReLU at width 1.2; 40 at width 1.0
SE_RATIO = 0.25


def convert(path: Path) -> LatencyTable:
    """Converts a copy of the source's lookup table as CSV (`lut.csv`, or its folder).

    Raises:
        UserError: the file is not that table.
    """
    rows: dict[OpSpec, Timing] = {}
    for row in read_rows(path, "lut.csv", COLUMNS):
        op, timing = _operator(row), _timing(row)
        rows[op] = timing
        if row.text("op") == "final_expand_layer":
            pool = OpSpec("pool", op.out_channels, op.out_channels, op.in_hw, 1)
            rows[pool] = _of(timing, 1 / op.in_channels)  # one addition for as many multiply-adds
    return LatencyTable(
        device=DeviceSpec("i7-8700k", runtime="torch", provider="CPU", transport="offline"),
        protocol=Protocol("published-nsganetv2", "mean of single operators", 1),
        source="converted",
        facts={
            "source": "github.com/mikelzc1990/nsganetv2, commit 04c495a6ba5d, "
            "data/i7-8700K_lut.yaml as CSV",
            "licence": "Apache-2.0 (Zhichao Lu et al.)",
            "cpu": "Intel Core i7-8700K",
            "percentiles": "of a normal distribution with the source's variance",
            "threads": "not stated by the source",
            "batch": "not stated by the source",
        },
        rows=rows,
        warnings=(
            "sums of operators, never compared with whole networks by the source: use as relative "
            "cost, or carry over with `hwnas table transfer`",
            "runtime, batch size, threads and numbers of runs are not stated by the source",
            "the source has no pooling: its additions are priced at the rate of the layer before "
            "it, below 2 us, equal for all networks of one resolution",
        ),
    )


def _of(timing: Timing, share: float) -> Timing:
    return Timing(
        share * timing.median_ms, share * timing.p10_ms, share * timing.p90_ms,
        share * timing.p95_ms, timing.n,
    )  # fmt: skip


def _operator(row: Row) -> OpSpec:
    name, width, out = row.text("op"), row.count("in_c"), row.count("out_c")
    if name == "classifier":
        return OpSpec("linear", width, out, 1, 1)
    in_hw = row.count("in_hw")
    if name == "first_conv":
        return OpSpec(
            "conv", width, out, in_hw, row.count("out_hw"),
            kernel=3, stride=2, padding=1, act="hard_swish",
        )  # fmt: skip
    if name == "final_expand_layer":
        return OpSpec("conv", width, out, in_hw, in_hw, act="hard_swish")
    if name == "feature_mix_layer":
        return OpSpec("conv", width, out, in_hw, in_hw, norm="none", act="hard_swish")
    if name != "MBConv":
        raise row.malformed("op", "MBConv, or a layer such as feature_mix_layer")
    kernel, mid = row.count("kernel"), width * row.count("expand")
    return OpSpec(
        "dsconv" if mid == width else "mbconv",
        width,
        out,
        in_hw,
        row.count("out_hw"),
        mid_channels=mid,
        kernel=kernel,
        stride=row.count("stride"),
        padding=kernel // 2,
        se_channels=divisible(mid * SE_RATIO) if row.flag("se") else 0,
        act="relu" if out <= LAST_RELU else "hard_swish",
        skip=row.flag("skip"),
    )


def _timing(row: Row) -> Timing:
    mean, variance = row.positive("ms"), row.number("var")
    if variance < 0:
        raise row.malformed("var", "a number of at least 0")
    deviation = math.sqrt(variance)
    low, high = max(mean - Z80 * deviation, 0.0), mean + Z80 * deviation
    return Timing(mean, low, high, mean + Z90 * deviation, 1)
