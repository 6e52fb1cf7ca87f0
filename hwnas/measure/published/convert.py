"""Published latencies of real devices as tables of ours; source and licence travel in the facts.

What a source does not say stays missing: a table serves a space only where its rows cover it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hwnas.core.config import read_yaml
from hwnas.core.errors import UserError
from hwnas.core.store import read_json
from hwnas.interfaces import DeviceSpec
from hwnas.latency.fitted import fit_table
from hwnas.latency.samples import Timing
from hwnas.latency.table import Fact, LatencyTable, Protocol
from hwnas.measure.published.networks import batch_of, group_of, read_measurements
from hwnas.spaces.index import op_counts
from hwnas.spaces.ops import OpSpec

__all__ = ["CONVERTERS", "convert"]

Z80, Z90 = 1.2816, 1.6449  # of a normal: its 90th and its 95th percentile
NOISY = 0.05  # a cross-fitted mean error above which a fitted table says so
PHONES = ("pixel", "samsung", "essential")


def convert(format: str, path: Path, column: str | None = None) -> LatencyTable:
    """The table in a published file or folder; `column` names a device where there are several.

    Raises:
        UserError: unknown format, or a file that is not of that format.
    """
    if format not in CONVERTERS:
        raise UserError(f"unknown format {format!r}", expected=", ".join(sorted(CONVERTERS)))
    if (column is None) == (format == "help"):
        raise UserError(
            "a column is given for the format `help`, and only there",
            found=f"format {format}, column {column}",
        )
    return CONVERTERS[format](path, column or "")


# --- Pixel 1, ProxylessNAS ------------------------------------------------------------------------

_BLOCK = re.compile(
    r"expanded_conv-input:(\d+)x\1x(\d+)-output:(\d+)x\3x(\d+)"
    r"-expand:(\d+)-kernel:(\d+)-stride:(\d+)-idskip:([01])"
)
_CONV = re.compile(r"(Conv|Conv_1)-input:(\d+)x\2x(\d+)-output:(\d+)x\4x(\d+)")
_LOGITS = re.compile(r"Logits-input:(\d+)x\1x(\d+)-output:(\d+)")


def _pixel1(path: Path, _: str) -> LatencyTable:
    """The table of ProxylessNAS (1812.00332), whose keys name shapes as our operators do."""
    rows: dict[OpSpec, Timing] = {}
    for key, value in read_yaml(path).items():
        mean, deviation, n = _statistics(key, value, path)
        for op, share in _pixel1_ops(key, path):
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
            "pooling and classifier were timed together; their time is split by operation counts, "
            "which no sum over networks depends on",
        ),
    )


def _pixel1_ops(key: str, path: Path) -> Iterator[tuple[OpSpec, float]]:
    """The operators that a key stands for, each with its share of the time."""
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
        raise UserError("an operator that is not known", found=key[:200], where=path)


def _statistics(key: str, value: Any, path: Path) -> tuple[float, float, int]:
    """Mean, standard deviation in ms and number of runs of one entry."""
    try:
        mean, variance, n = float(value["mean"]), float(value["var"]), int(value["count"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UserError("malformed entry", found=repr(error), where=f"{path}: {key}") from error
    if not (0 < mean < math.inf and 0 <= variance < math.inf and n > 0):
        raise UserError(
            "malformed entry",
            expected="mean > 0, var >= 0, count > 0",
            found=f"{mean}, {variance}, {n}",
            where=f"{path}: {key}",
        )
    return mean, math.sqrt(variance), n


# --- Xeon Gold 6130, TF-NAS -----------------------------------------------------------------------

_TFNAS = re.compile(r"MBInvertedResBlock_(\d+)_(\d+)_(\d+)_(\d+)_k(\d+)_s(\d+)_(relu|swish)")
MULTIPLES = (2, 3, 4, 6, 8)  # of the input's channels: widths kept, of every number from 1


def _tfnas(path: Path, _: str) -> LatencyTable:
    """Blocks of TF-NAS (2008.05314) at the expansions of mobile spaces; nothing but blocks."""
    data = read_json(path)
    base_ms = data.get("base") if isinstance(data, dict) else None
    if not isinstance(base_ms, float) or not 0 < base_ms < math.inf:
        raise UserError("not a table of TF-NAS", expected="`base` in ms", where=path)
    rows: dict[OpSpec, Timing] = {}
    for key, values in data.items():
        if key == "base":
            continue
        match = _TFNAS.fullmatch(key)
        if match is None or not isinstance(values, list):
            raise UserError("an operator that is not known", found=key[:200], where=path)
        in_hw, width, se, out, kernel, stride = (int(number) for number in match.groups()[:-1])
        for mid in (width * multiple for multiple in MULTIPLES if width * multiple <= len(values)):
            ms = values[mid - 1]
            if not isinstance(ms, float) or not 0 < ms < math.inf:
                raise UserError("malformed entry", found=f"{ms!r} at {mid}", where=f"{path}: {key}")
            op = OpSpec(
                "mbconv",
                width,
                out,
                in_hw,
                (in_hw - 1) // stride + 1,
                mid_channels=mid,
                kernel=kernel,
                stride=stride,
                padding=kernel // 2,
                se_channels=se,
                act="relu" if match[7] == "relu" else "swish",
                skip=stride == 1 and width == out,
            )
            rows[op] = Timing(ms, ms, ms, ms, 1)
    return LatencyTable(
        device=DeviceSpec("xeon-gold-6130", runtime="torch", provider="CPU", transport="offline"),
        protocol=Protocol("published-tfnas", "mean of single blocks, fixed overhead removed", 1),
        source="converted",
        facts={
            "source": "github.com/AberHu/TF-NAS, commit 08b31a2e6dc2, latency_pkl/ as JSON",
            "licence": "MIT (2020 Aber Hu)",
            "cpu": "Intel Xeon Gold 6130",
            "runtime_version": "PyTorch 1.1",
            "base_ms": base_ms,
            "percentiles": "none in the source: all equal to its one number",
        },
        rows=rows,
        warnings=(
            f"blocks only: of stem, first block, head and classifier the source has just the sum, "
            f"{base_ms:.5g} ms (facts.base_ms), so no space is served without measuring those",
            "the source's numbers of runs and spread are not known",
        ),
    )


# --- HELP's whole networks ------------------------------------------------------------------------


def _help(folder: Path, column: str) -> LatencyTable:
    """A fitted table of one column of a data set of HELP (2106.08630)."""
    data = read_measurements(folder)
    measured = data.column(column)
    counts = op_counts(data.space, data.live_codes)
    rows, correction = fit_table(data.space, data.codes, counts, measured)
    error = correction.validation.forecast
    warnings = [
        "rows are fitted to whole networks, not timed: only their sums over networks of "
        f"{data.space.name} are meaningful",
        "p95 is over networks: 95 % of all timings lie below that multiple of their forecast",
    ]
    if error.mape > NOISY or column.startswith(PHONES):
        warnings.append(
            f"noisy source: forecasts miss by {error.mape:.1%} on average and {error.p95:.0%} at "
            "the 95th percentile; phones throttle and are stored as whole milliseconds"
        )
    facts: dict[str, Fact] = {
        "runtime": "not stated by the source",
        "source": "github.com/HayeonLee/HELP, commit 45f70eb92d0d, data/*/latency (NeurIPS 2021)",
        "licence": "MIT (2024 HayeonLee); pixel3 comes from GATECH-EIC/HW-NAS-Bench, MIT",
        "column": column,
        "n_networks": len(measured),
        "threads": "not stated by the source",
    }
    return LatencyTable(
        device=DeviceSpec(
            group_of(column).replace("_", "-"),
            runtime="unknown",
            provider="unknown",
            transport="offline",
            batch=batch_of(column),
        ),
        protocol=Protocol("published-help", "whole networks, as the authors measured them", 1),
        source="fitted",
        facts=facts,
        rows=rows,
        corrections={data.space.id: correction},
        warnings=tuple(warnings),
    )


def _timing(mean: float, deviation: float, n: int) -> Timing:
    """Percentiles of a normal."""
    low, high, p95 = mean - Z80 * deviation, mean + Z80 * deviation, mean + Z90 * deviation
    mean, low, high, p95 = (float(f"{value:.6g}") for value in (mean, max(low, 0.0), high, p95))
    return Timing(mean, low, high, p95, n)


CONVERTERS: dict[str, Callable[[Path, str], LatencyTable]] = {
    "help": _help,
    "pixel1": _pixel1,
    "tfnas": _tfnas,
}
