"""The latency table of one device: rows per operator, and corrections of their sums."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from hwnas.core.errors import UserError
from hwnas.core.html_table import html_table
from hwnas.core.records import SCHEMA_VERSION, STRICT, Positive, dump, load, sparse
from hwnas.core.store import read_json, write_text
from hwnas.interfaces import DeviceSpec
from hwnas.latency.classifiers import is_classifier
from hwnas.latency.correction import MAX_MS, Correction, Fit, NetTiming, Validation
from hwnas.latency.estimator import Estimate, TableEstimator
from hwnas.latency.samples import Timing
from hwnas.spaces.arch import Arch
from hwnas.spaces.index import enumerate_ops
from hwnas.spaces.load import require_space
from hwnas.spaces.ops import OpSpec
from hwnas.spaces.space import Codes, SearchSpace

__all__ = [
    "Correction",
    "Fact",
    "Fit",
    "LatencyTable",
    "NetTiming",
    "Protocol",
    "Source",
    "Validation",
    "check_operator",
]

FACTS_OF_TIMINGS = ("cpu", "runtime_version")
ALIKE = "tables of one device, with equal protocol, source, processor and runtime version"
IQR_OF_NORMAL = 1.349
MEDIAN_ERROR = 1.2533  # standard error of a median over that of a mean, of a normal
MAX_SIZE = 1 << 24  # maximum of channels and map sizes

Fact = str | int | float | bool | None | list[int]
Source = Literal["measured", "fitted", "converted", "transferred", "simulated"]


@dataclass(frozen=True)
class Protocol:
    """The timing protocol; only tables of one protocol can be merged."""

    __pydantic_config__: ClassVar[Any] = STRICT

    name: str
    statistic: str
    hot_samples: int


@dataclass(frozen=True, repr=False)
class LatencyTable:
    """Latency per operator on one device. A table serves every space whose operators it has.

    corrections: by `SearchSpace.id`, fitted on networks of this space; see `correction_for`.
    facts: runtime and host at the first measurement.
    warnings: rows that noise made unreliable.
    source: `measured` by hwnas, `converted` from timings of other programs, `fitted` to whole
        networks, `transferred` from other devices, or `simulated` (for a device `simulated-*`).
    pace: time of the plan's reference model in successive parts of the measurement, relative to
        its median; empty if unknown. The intervals of estimates include its spread.
    """

    device: DeviceSpec
    protocol: Protocol
    source: Source
    facts: dict[str, Fact]
    rows: Mapping[OpSpec, Timing]
    corrections: dict[str, Correction] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    pace: tuple[Positive, ...] = ()

    def __post_init__(self) -> None:
        if (self.source == "simulated") != self.device.name.startswith("simulated-"):
            raise UserError(
                "the device must be named simulated-* if, and only if, the table is simulated",
                expected="the source `simulated` and a device simulated-*, or neither",
                found=f"source {self.source}, device {self.device.name}",
            )
        if min(self.device.batch, self.device.threads) < 1:
            raise UserError(
                "a latency table needs batch >= 1 and threads >= 1",
                expected="batch and threads of at least 1",
                found=f"batch {self.device.batch}, threads {self.device.threads}",
            )

    def __repr__(self) -> str:
        device = self.device
        spaces = ", ".join(sorted(self.corrections)) or "not compared with whole networks"
        return (
            f"LatencyTable of {device.name} ({device.runtime}, {device.precision}, batch "
            f"{device.batch}): {len(self.rows)} operators, {self.source}; {spaces}"
        )

    def _repr_html_(self) -> str:
        facts = {"operators": len(self.rows), "source": self.source}
        return html_table([vars(self.device) | facts], title="latency table")

    @property
    def rows_are_timed(self) -> bool:
        """Whether operators were timed separately, instead of inferred from whole networks."""
        return self.source not in ("fitted", "transferred")

    @property
    def pace_error(self) -> float:
        """Standard error of the median pace while the table was measured, as a fraction.

        It is computed from the quartiles, so a short pause or burst does not count. 0 if the pace
        is unknown.
        """
        if len(self.pace) < 2:
            return 0.0
        low, high = np.quantile(self.pace, (0.25, 0.75))
        return float((high - low) / IQR_OF_NORMAL * MEDIAN_ERROR / np.sqrt(len(self.pace)))

    @property
    def has_energy(self) -> bool:
        """Whether every operator has an energy."""
        return all(row.energy_mj is not None for row in self.rows.values())

    def estimate(self, space: SearchSpace, archs: Codes | Sequence[Arch]) -> Estimate:
        """Latency and 90 % interval of archs: codes [n, d] of `space`, or a list of its `Arch`.

        Raises:
            UserError: the table lacks operators of the space, or the space does not allow an arch.
        """
        require_space(space)
        return TableEstimator(self, space).estimate(archs)

    def correction_for(self, space: SearchSpace) -> str | None:
        """Key of the correction for `space`; None if there is none.

        It is the correction of the space itself, or of another space that contains all operators of
        `space` except classifiers. Among several, those of the same skeleton are preferred, and of
        these the one with the fewest operators.
        """
        if space.id in self.corrections:
            return space.id
        needed = {op.key for op in enumerate_ops(space) if not is_classifier(op)}
        found = []
        for key in self.corrections:
            covered = self._covered(key)
            if needed <= covered:
                found.append((not key.startswith(f"{space.name}-"), len(covered), key))
        return min(found)[2] if found else None

    def save(self, path: Path) -> None:
        """Writes sorted JSON atomically, with one row per line."""
        head = {
            "schema_version": SCHEMA_VERSION,
            "device": dump(self.device, versioned=False),
            "protocol": dump(self.protocol, versioned=False),
            "source": self.source,
            "facts": self.facts,
            "warnings": list(self.warnings),
            "corrections": {
                space: sparse(correction) for space, correction in self.corrections.items()
            },
        }
        if self.pace:
            head["pace"] = list(self.pace)
        rows = [{"op": sparse(op), **sparse(self.rows[op])} for op in sorted(self.rows, key=_order)]
        lines = [f'"{key}": {json.dumps(value, sort_keys=True)}' for key, value in head.items()]
        lines.append('"rows": [\n' + ",\n".join(json.dumps(row) for row in rows) + "\n]")
        write_text(path, "{\n" + ",\n".join(lines) + "\n}\n")

    @staticmethod
    def load(path: Path) -> LatencyTable:
        """Inverse of `save`.

        Raises:
            UserError: the file is unreadable, or has unknown keys, numbers that are negative, not
                finite or implausible, text with control characters, or duplicate rows.
        """
        try:
            stored = load(_File, read_json(path), where=path, what="latency table")
        except OSError as error:
            raise UserError("cannot read the latency table", found=error, where=path) from error
        texts = (*stored.warnings, *(v for v in stored.facts.values() if isinstance(v, str)))
        if any(not text.isprintable() for text in (stored.device.name, *texts)):
            raise UserError("the latency table has control characters in its text", where=path)
        rows: dict[OpSpec, Timing] = {}
        for row in stored.rows:
            check_operator(row.op, (row.p90_ms, row.p95_ms, row.cold_ms or 0.0), where=path)
            if row.op in rows:
                one, found = "one row for each operator", f"two rows for {row.op}"
                raise UserError("duplicate rows in a table", expected=one, found=found, where=path)
            rows[row.op] = Timing(**{f.name: getattr(row, f.name) for f in fields(Timing)})
        keys = {op.key for op in rows}
        for space, correction in stored.corrections.items():
            if lost := set(correction.covers or ()) - keys:
                raise UserError(
                    f"the correction of {space} covers operators that the table lacks",
                    expected="rows for all operators in the list `covers` of the correction",
                    found=f"no rows for {len(lost)} of them, such as {min(lost)}",
                    where=path,
                )
        kept = {f.name: getattr(stored, f.name) for f in fields(LatencyTable) if f.name != "rows"}
        return LatencyTable(rows=rows, **kept)

    def differences(self, other: LatencyTable) -> tuple[str, ...]:
        """Differences that prevent a merge, e.g. of device, protocol, source or runtime."""
        found = []
        for name in ("device", "protocol"):
            mine, theirs = getattr(self, name), getattr(other, name)
            for part in fields(mine):
                values = getattr(mine, part.name), getattr(theirs, part.name)
                label = name if part.name == "name" else part.name
                found.append((label, *values))
        found.append(("source", self.source, other.source))
        found += [(key, self.facts.get(key), other.facts.get(key)) for key in FACTS_OF_TIMINGS]
        return tuple(f"{name} {a} and {b}" for name, a, b in found if a != b)

    def merge(self, other: LatencyTable) -> LatencyTable:
        """One table with the rows and corrections of both; those of `self` replace the other's.

        Raises:
            UserError: the tables differ in device, protocol, source, processor or runtime version.
        """
        if found := "; ".join(self.differences(other)):
            raise UserError("cannot merge latency tables that differ", expected=ALIKE, found=found)
        rows = {**other.rows, **self.rows}
        keys = {op.key for op in rows}
        corrections = {}
        for key, correction in {**other.corrections, **self.corrections}.items():
            covered = self._covered(key) | other._covered(key)
            covers = None if covered == keys else tuple(sorted(covered))
            corrections[key] = replace(correction, covers=covers)
        return replace(
            self,
            rows=rows,
            corrections=corrections,
            warnings=tuple(dict.fromkeys((*self.warnings, *other.warnings))),
        )

    def _covered(self, key: str) -> set[str]:
        """Keys of the operators that a correction covers; empty if there is no such correction."""
        if key not in self.corrections:
            return set()
        covers = self.corrections[key].covers
        return {op.key for op in self.rows} if covers is None else set(covers)


@dataclass(frozen=True)
class _Row(Timing):
    """A row as a line of the file: the operator and its timing."""

    op: OpSpec = field(kw_only=True)


@dataclass(frozen=True)
class _File:
    """A `LatencyTable` as JSON."""

    __pydantic_config__: ClassVar[Any] = STRICT

    device: DeviceSpec
    protocol: Protocol
    source: Source
    facts: dict[str, Fact]
    rows: tuple[_Row, ...]
    corrections: dict[str, Correction]
    warnings: tuple[str, ...]
    pace: tuple[Positive, ...] = ()


def check_operator(op: OpSpec, ms: Iterable[float], *, where: object) -> None:
    """Refuses operators of size 0, and latencies that would make sums infinite: a UserError."""
    extents = (op.in_channels, op.out_channels, op.in_hw, op.out_hw, op.stride)
    counts = (op.mid_channels, op.se_channels, op.padding, op.pad_more, op.start_kernel)
    least = 0 if op.kind == "uib" else 1
    if (
        min(*extents, op.groups, op.expand_groups) < 1
        or op.kernel < least
        or min(counts) < 0
        or max(*extents, *counts, op.kernel) > MAX_SIZE
    ):
        sizes = f"channels, map sizes, kernel and strides from 1 to {MAX_SIZE:,}"
        raise UserError("an operator has an invalid shape", expected=sizes, found=op, where=where)
    if high := [value for value in ms if not value < MAX_MS]:
        limit, found = f"less than {MAX_MS:g} ms", f"{high[0]:g} ms for {op}"
        raise UserError("operator latency out of range", expected=limit, found=found, where=where)


def _order(op: OpSpec) -> tuple[Any, ...]:
    """Sort key of rows: the fields of their operator (kind, channels, map size, ...)."""
    return tuple(getattr(op, f.name) for f in fields(op))
