"""Generic result of public functions: rows, and facts about all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from hwnas.core.html_table import html_table
from hwnas.core.metrics import MetricKey
from hwnas.core.progress import Progress, silent
from hwnas.core.records import dump
from hwnas.core.stats import accuracy_text
from hwnas.pipeline.outcomes import NetworkResult
from hwnas.spaces.arch import Arch
from hwnas.spaces.choice import Value

__all__ = [
    "Folder",
    "Listing",
    "Point",
    "ProgressFor",
    "Result",
    "Row",
    "Settings",
    "as_shown",
    "closing_row",
    "listed",
    "no_progress",
]

LATENCY = "latency_ms"
SHOWN_AS = {"forecast_ms": "estimate_ms", "forecast_error": "estimate_error"}
"""Maps keys of rows, as in files and JSON, to the headings that a terminal shows instead."""

Row = Mapping[str, Any]
Folder = Path | str
Settings = Mapping[str, Any] | None
"""Maps key paths of settings to new values, e.g. `{"train.steps": 50}`; option `--set`."""

ProgressFor = Callable[[str], Progress]
"""Maps the name of a stage to the function that shows its progress."""


def listed(given: Sequence[str]) -> list[str]:
    """Names as a list; a single string counts as one name."""
    return [given] if isinstance(given, str) else [*given]


def no_progress(stage: str) -> Progress:
    """Shows nothing."""
    return silent


class Result(Protocol):
    """Result of a verb. JSON output is `to_dict()`; a table shows its `"table"` below `title`."""

    @property
    def title(self) -> str:
        """Headline of the table in `to_dict`; may be empty."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """JSON values; the rows are in `"table"`."""
        ...


@dataclass(frozen=True)
class Listing:
    """Rows of JSON values with named columns, and facts about all of them.

    shown: the rows for a terminal, if `rows` are too wide.
    """

    rows: Sequence[Row]
    title: str = ""
    facts: Row = field(default_factory=dict)
    shown: Sequence[Row] = ()

    def __str__(self) -> str:
        rows = (", ".join(f"{k}: {v}" for k, v in row.items()) for row in self.shown or self.rows)
        return "\n".join([*([self.title] if self.title else []), *rows])

    def _repr_html_(self) -> str:
        return html_table(self.shown or self.rows, title=self.title)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> Row:
        return self.rows[row]

    def to_dict(self) -> dict[str, Any]:
        """JSON values; the rows are in `"table"`."""
        return {"table": [dict(row) for row in self.rows], **self.facts}


def as_shown(row: Row) -> dict[str, Any]:
    """A row with the headings that a terminal and a notebook show."""
    return {SHOWN_AS.get(key, key): value for key, value in row.items()}


def closing_row(network: NetworkResult) -> dict[str, Any]:
    """A row of the result table as a terminal shows it: accuracy and error in one column."""
    row = network.summary()
    del row["test_top1_se"]
    row["test_top1"] = accuracy_text(network.test_top1, network.n_test_images)
    row["fp32_top1"] = accuracy_text(row["fp32_top1"], network.n_test_images)
    return as_shown(row)


@dataclass(frozen=True)
class Point:
    """An arch that a search found.

    choices: maps the names of its active choices to their values.
    score: the value that the search maximised.
    accuracy: top-1 with the supernet's weights on the validation split, in [0, 1]; None if the arch
        was only predicted.
    costs: maps metric keys (`macs`, `latency_ms@DEVICE`) to costs in the unit of the metric.
    """

    arch: Arch
    choices: Mapping[str, Value]
    score: float
    accuracy: float | None
    costs: Mapping[str, float]

    def __str__(self) -> str:
        costs = ", ".join(f"{key} {value:.4g}" for key, value in self.costs.items())
        return f"{self.arch.key}: score {self.score:.4g}, {costs}"

    @property
    def latency_ms(self) -> Mapping[str, float]:
        """Maps each device to the estimated median latency in ms."""
        keys = {MetricKey.parse(key): ms for key, ms in self.costs.items()}
        return {key.device: ms for key, ms in keys.items() if key.device and key.metric == LATENCY}

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return dump(self, versioned=False)
