"""Converts the Pixel 1 table of ProxylessNAS (1812.00332)."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hwnas.core.errors import UserError
from hwnas.core.stats import Z80, Z90
from hwnas.core.yaml_data import read_yaml
from hwnas.interfaces import DeviceSpec
from hwnas.latency.samples import Timing
from hwnas.latency.table import LatencyTable, Protocol
from hwnas.measure.published import DOWNLOAD_AGAIN, OTHER_FORMAT
from hwnas.spaces.ops import OpSpec

__all__ = ["convert"]

_N = "([1-9][0-9]{0,5})"
_BLOCK = re.compile(
    rf"expanded_conv-input:{_N}x\1x{_N}-output:{_N}x\3x{_N}"
    rf"-expand:{_N}-kernel:{_N}-stride:{_N}-idskip:([01])"
)
_CONV = re.compile(rf"(Conv|Conv_1)-input:{_N}x\2x{_N}-output:{_N}x\4x{_N}")
_LOGITS = re.compile(rf"Logits-input:{_N}x\1x{_N}-output:{_N}")


def convert(path: Path) -> LatencyTable:
    """Converts a copy of the YAML file of ProxylessNAS.

    Raises:
        UserError: the file has another format.
    """
    rows: dict[OpSpec, Timing] = {}
    for key, value in read_yaml(path).items():
        mean, deviation, n = _statistics(key, value, path)
        for op, share in _operators(key, path):
            rows[op] = _timing(share * mean, share * deviation, n)
    return LatencyTable(
        device=DeviceSpec("pixel1", runtime="tflite", provider="CPU", transport="offline"),
        protocol=Protocol("published-proxylessnas", "mean of single operators", 1),
        source="converted",
        facts={
            "source": "github.com/itouchz/Neural-Predictor-Tensorflow, commit a660b8a35082, "
            "proxylessnas/pixel_trim.yaml; the table of github.com/mit-han-lab/proxylessnas",
            "licence": "MIT (2021 Patara Trirat; ProxylessNAS: MIT)",
            "percentiles": "of a normal distribution with the source's variance",
            "threads": "not stated by the source",
        },
        rows=rows,
        warnings=(
            "sums of operators are not whole networks: ProxylessNAS-Mobile sums to 86.4 ms, its "
            "paper measured 78 ms; use as relative cost, or carry over with `hwnas table transfer`",
            "pooling and classifier were timed together; their time is split by operation counts; "
            "latencies of whole networks do not depend on this split",
        ),
    )


def _operators(key: str, path: Path) -> Iterator[tuple[OpSpec, float]]:
    """The operators of a key, each with its share of the time."""
    name = key.rstrip(":")
    if block := _BLOCK.fullmatch(name):
        in_hw, width, out_hw, out, expand, kernel, stride, skip = map(int, block.groups())
        yield (
            OpSpec(
                "dsconv" if expand == 1 else "mbconv",
                width,
                out,
                in_hw,
                out_hw,
                mid_channels=width * expand,
                kernel=kernel,
                stride=stride,
                padding=kernel // 2,
                act="relu6",
                skip=bool(skip),
            ),
            1.0,
        )
    elif conv := _CONV.fullmatch(name):
        in_hw, width, out_hw, out = (int(number) for number in conv.groups()[1:])
        kernel = 3 if conv[1] == "Conv" else 1
        yield (
            OpSpec(
                "conv",
                width,
                out,
                in_hw,
                out_hw,
                kernel=kernel,
                stride=(in_hw - 1) // out_hw + 1,
                padding=kernel // 2,
                act="relu6",
            ),
            1.0,
        )
    elif logits := _LOGITS.fullmatch(name):
        hw, width, out = map(int, logits.groups())
        pooling, classifying = hw * hw * width, width * out
        share = pooling / (pooling + classifying)
        yield OpSpec("pool", width, width, hw, 1), share
        yield OpSpec("linear", width, out, 1, 1), 1 - share
    else:
        raise UserError(
            "unknown operator",
            expected="keys of ProxylessNAS, such as `Logits-input:7x7x1280-output:1000`",
            found=key[:200],
            where=path,
            fix=OTHER_FORMAT,
        )


def _statistics(key: str, value: Any, path: Path) -> tuple[float, float, int]:
    """Mean and standard deviation in ms, and number of runs of one entry."""
    try:
        mean, variance, n = float(value["mean"]), float(value["var"]), int(value["count"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UserError(
            "malformed entry",
            expected="numbers `mean` and `var`, and an integer `count`",
            found=f"{value!r:.200}",
            where=f"{path}: {key}",
            fix=DOWNLOAD_AGAIN,
        ) from error
    if not (0 < mean < math.inf and 0 <= variance < math.inf and n > 0):
        raise UserError(
            "malformed entry",
            expected="mean > 0, var >= 0, count > 0",
            found=f"mean {mean}, var {variance}, count {n}",
            where=f"{path}: {key}",
            fix=DOWNLOAD_AGAIN,
        )
    return mean, math.sqrt(variance), n


def _timing(mean: float, deviation: float, n: int) -> Timing:
    """A timing with the percentiles of a normal distribution."""
    low, high, p95 = mean - Z80 * deviation, mean + Z80 * deviation, mean + Z90 * deviation
    mean, low, high, p95 = (float(f"{value:.6g}") for value in (mean, max(low, 0.0), high, p95))
    return Timing(mean, low, high, p95, n)
