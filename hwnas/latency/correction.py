"""Corrections from sums of rows to whole networks, and their validation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from hwnas.core.records import STRICT

__all__ = ["MAX_MS", "Correction", "Fit", "NetTiming", "Spill", "Validation"]

FEATURES = (
    "overhead_ms",
    "scale",
    "root_scale",
    "cold_scale",
    "ms_per_million_macs",
    "spill_scale",
)
MAX_MS = 1e9  # eleven days; sums of a network's rows stay finite
MAX_PARAMS = 1e12


@dataclass(frozen=True)
class Fit:
    """Quality of estimates against measured networks: relative errors as fractions, rank order."""

    __pydantic_config__: ClassVar[Any] = STRICT

    mape: float
    p95: float
    max: float
    spearman: float
    kendall_tau: float


@dataclass(frozen=True)
class NetTiming:
    """Measured and estimated latency of a network that its correction has not seen."""

    __pydantic_config__: ClassVar[Any] = STRICT

    codes: tuple[int, ...]
    measured_ms: float
    forecast_ms: float

    def __post_init__(self) -> None:
        if not (0 < self.measured_ms < MAX_MS and 0 <= self.forecast_ms < MAX_MS):
            raise ValueError("expected latencies between 0 and 1e9 ms")


@dataclass(frozen=True)
class Validation:
    """Quality of estimates of unseen networks, by cross-fitting over `nets`.

    `repeat_*`: the same networks from two halves of the rounds, the best that any forecast could
    look; None where nothing was repeated. `raw_sum`: rows without a correction; of transferred and
    fitted tables, what they started from. `macs_line`: a line on MACs, `forest`: a random forest on
    operator counts, both cross-fitted (`forest` is None in tables that older versions wrote).
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    forecast: Fit
    raw_sum: Fit
    macs_line: Fit
    repeat_mape: float | None
    repeat_tau: float | None
    nets: tuple[NetTiming, ...]
    forest: Fit | None = None


@dataclass(frozen=True)
class Spill:
    """A cache that a network's weights may not fit, as whole networks tell of it.

    `params_cached`: parameters that it holds; 0: no network timed had room there. `params_per_ms`:
    how fast those beyond it are read. In parameters, so that it says the same in any precision.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    params_cached: float
    params_per_ms: float

    def __post_init__(self) -> None:
        if not (0 <= self.params_cached < MAX_PARAMS and 0 < self.params_per_ms < MAX_PARAMS):
            raise ValueError("expected parameters from 0 to 1e12, and above 0 per ms")


@dataclass(frozen=True)
class Correction:
    """From sums of rows to whole networks: `coefficients` of what `hwnas.latency.formula` names.

    `spill`: the cache of coefficient `spill_scale`. `interval_fraction`: 90 % of
    networks lie within this fraction of their estimate. `p95_factor`: a network's 95th percentile
    over runs, as a multiple of its median. `n_fit` networks, of a space with this `fingerprint`.
    `covers`: keys of the operators of that space; None: all rows of the table.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    coefficients: dict[str, float]
    interval_fraction: float
    p95_factor: float
    n_fit: int
    fingerprint: str
    validation: Validation
    covers: tuple[str, ...] | None = None
    spill: Spill | None = None

    def __post_init__(self) -> None:
        if ("spill_scale" in self.coefficients) != (self.spill is not None):
            raise ValueError("expected `spill` where there is a coefficient `spill_scale`")
        if self.interval_fraction < 0 or self.p95_factor < 1:
            raise ValueError("expected interval_fraction >= 0 and p95_factor >= 1")
        if any(
            not (-MAX_MS if name == "overhead_ms" else 0) <= value < MAX_MS
            for name, value in self.coefficients.items()
        ):
            raise ValueError("expected coefficients between 0 and 1e9: no operator saves time")
        if not set(self.coefficients) <= set(FEATURES):
            raise ValueError(f"expected coefficients of {', '.join(FEATURES)}")
