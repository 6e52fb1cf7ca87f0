"""Converts TF-NAS's latencies of blocks on a Xeon Gold 6130 (2008.05314).

Only blocks with the expansion ratios of the mobile spaces are kept.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from hwnas.core.errors import UserError
from hwnas.core.store import read_json
from hwnas.core.text import in_words, kind_of
from hwnas.interfaces import DeviceSpec
from hwnas.latency.samples import Timing
from hwnas.latency.table import LatencyTable, Protocol
from hwnas.measure.published import DOWNLOAD_AGAIN, OTHER_FORMAT
from hwnas.spaces.ops import OpSpec

__all__ = ["convert"]

_N = "([1-9][0-9]{0,5})"
_BLOCK = re.compile(rf"MBInvertedResBlock_{_N}_{_N}_([0-9]{{1,6}})_{_N}_k{_N}_s{_N}_(relu|swish)")
MULTIPLES = (2, 3, 4, 6, 8)  # widths that are kept, as multiples of the input channels


def convert(path: Path) -> LatencyTable:
    """Converts a copy of TF-NAS's latencies as JSON; the table only has blocks.

    Raises:
        UserError: the file has another format.
    """
    data = read_json(path)
    base_ms = data.get("base") if isinstance(data, dict) else None
    if not isinstance(base_ms, float) or not 0 < base_ms < math.inf:
        found = f"`base`: {in_words(base_ms):.80}" if isinstance(data, dict) else kind_of(data)
        raise _other_file(path, "`base`: a decimal number of ms above 0", found)
    rows: dict[OpSpec, Timing] = {}
    for key, values in data.items():
        if key == "base":
            continue
        match = _BLOCK.fullmatch(key)
        if match is None or not isinstance(values, list):
            expected = "keys MBInvertedResBlock_..., each with a list of latencies"
            raise _other_file(path, expected, key[:200])
        in_hw, width, se, out, kernel, stride = (int(number) for number in match.groups()[:-1])
        for mid in (width * multiple for multiple in MULTIPLES if width * multiple <= len(values)):
            ms = _entry(values, mid, where=f"{path}: {key}")
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
            "rows of blocks only: for stem, first block, head and classifier, the source has one "
            f"sum, {base_ms:.5g} ms (facts.base_ms), so the table estimates no whole network",
            "the source does not state numbers of runs, or the spread of latencies",
        ),
    )


def _other_file(path: Path, expected: str, found: str) -> UserError:
    return UserError(
        "not a table of TF-NAS",
        expected=expected,
        found=found,
        where=path,
        fix=OTHER_FORMAT,
    )


def _entry(values: list[Any], number: int, *, where: str) -> float:
    """Entry `number` of the latencies in ms, counted from 1."""
    ms = values[number - 1]
    if isinstance(ms, float) and 0 < ms < math.inf:
        return ms
    raise UserError(
        "a latency is not a positive number",
        expected="ms > 0 as a decimal number, e.g. 1.0",
        found=f"{ms!r:.80} at entry {number}, counted from 1",
        where=where,
        fix=DOWNLOAD_AGAIN,
    )
