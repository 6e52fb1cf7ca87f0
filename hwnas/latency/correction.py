"""Corrections from sums of rows to whole networks, and their validation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import Field

from hwnas.core.errors import Invalid
from hwnas.core.records import STRICT, NotNegative, Rank, Share
from hwnas.spaces.arch import Code

__all__ = ["MAX_MS", "Correction", "Fit", "NetTiming", "Spill", "Validation"]

FEATURES = (
    "overhead_ms",
    "scale",
    "root_scale",
    "cold_scale",
    "ms_per_million_macs",
    "spill_scale",
    "ms_per_million_late",
    "ms_per_million_sums",
)
MAX_FACTOR = 1e6
TOLERANCE = 1e-3  # for claims about the listed networks, whose numbers are rounded
MAX_MS = 1e9  # eleven days; sums over a network stay finite
MAX_PARAMS = 1e12


@dataclass(frozen=True)
class Fit:
    """Quality of estimates of measured networks: relative errors (fractions), rank correlations.

    within_5, within_10: share of networks whose error is at most 5 % and 10 %; None in tables that
    older versions wrote.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    mape: NotNegative
    p95: NotNegative
    max: NotNegative
    spearman: Rank
    kendall_tau: Rank
    within_5: Share | None = None
    within_10: Share | None = None


@dataclass(frozen=True)
class NetTiming:
    """Measured and estimated latency of a network held out of the fit of its correction."""

    __pydantic_config__: ClassVar[Any] = STRICT

    codes: tuple[Code, ...]
    measured_ms: float
    forecast_ms: float

    def __post_init__(self) -> None:
        if not (0 < self.measured_ms < MAX_MS and 0 <= self.forecast_ms < MAX_MS):
            raise Invalid(
                "0 < measured_ms < 1e9 and 0 <= forecast_ms < 1e9",
                f"measured_ms {self.measured_ms:g}, forecast_ms {self.forecast_ms:g}",
            )


@dataclass(frozen=True)
class Validation:
    """Quality of estimates of held-out networks, by cross-fitting over `nets`.

    forecast: the estimates of the table.
    raw_sum: sums of rows without a correction. In transferred tables, the known device that ranks
        the networks best; in fitted tables, sums of the starting prices.
    macs_line: a cross-fitted line on MACs.
    forest: a cross-fitted random forest on operator counts; None in tables of older versions.
    repeat_mape, repeat_tau: difference and rank agreement of two halves of the rounds on the same
        networks. No estimate can be better. None if nothing was repeated.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    forecast: Fit
    raw_sum: Fit
    macs_line: Fit
    repeat_mape: NotNegative | None
    repeat_tau: Rank | None
    nets: tuple[NetTiming, ...]
    forest: Fit | None = None

    def __post_init__(self) -> None:
        if len(lengths := {len(net.codes) for net in self.nets}) > 1:
            found = f"archs of {' and '.join(map(str, sorted(lengths)[:3]))} codes"
            raise Invalid("archs of one space", found, key="nets")

    @property
    def within(self) -> tuple[float | None, float | None]:
        """Shares of networks estimated within 5 % and 10 %; from `nets` if the table has none."""
        claimed = self.forecast.within_5, self.forecast.within_10
        if None not in claimed or not self.nets:
            return claimed
        errors = [abs(net.forecast_ms / net.measured_ms - 1) for net in self.nets]
        five, ten = (sum(e <= limit for e in errors) / len(errors) for limit in (0.05, 0.1))
        return five, ten


@dataclass(frozen=True)
class Spill:
    """A cache that holds the weights of small networks but not of large ones.

    It is inferred from the latencies of timed networks. Both numbers count parameters, not bytes.

    params_cached: number of parameters that the cache holds. 0: fewer than any timed network has,
        so every run of a network reads all its weights again.
    params_per_ms: number of parameters read per ms from the memory behind the cache.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    params_cached: float
    params_per_ms: float

    def __post_init__(self) -> None:
        if not (0 <= self.params_cached < MAX_PARAMS and 0 < self.params_per_ms < MAX_PARAMS):
            raise Invalid(
                "0 <= params_cached < 1e12 and 0 < params_per_ms < 1e12",
                f"params_cached {self.params_cached:g}, params_per_ms {self.params_per_ms:g}",
            )


@dataclass(frozen=True)
class Correction:
    """Maps sums of rows to whole networks: `coefficients` of the terms in `hwnas.latency.formula`.

    spill: the hardware cache, for the term `spill_scale`; None without this term.
    interval_fraction: 90 % of networks are within this fraction of their estimate.
    p95_factor: 95th percentile over runs of a network / its median.
    n_fit: number of fitted networks.
    fingerprint: fingerprint of the space of these networks. In any other space, and in another
        restriction of this space, the interval is wider.
    covers: keys of the operators of that space; None: all rows of the table.
    repeats_once: whether sums count equal poolings of the same input once, as networks that hwnas
        exports compute them. False for published timings, whose networks hwnas did not export.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    coefficients: dict[str, float]
    interval_fraction: float
    p95_factor: float
    n_fit: Annotated[int, Field(ge=1)]
    fingerprint: Annotated[str, Field(pattern="^[0-9a-f]{16}$")]
    validation: Validation
    covers: tuple[str, ...] | None = None
    spill: Spill | None = None
    repeats_once: bool = False

    def __post_init__(self) -> None:
        if ("spill_scale" in self.coefficients) != (self.spill is not None):
            found = "`spill`" if self.spill else "the coefficient"
            raise Invalid(
                "both `spill` and the coefficient `spill_scale`, or neither", f"only {found}"
            )
        if self.interval_fraction < 0 or self.p95_factor < 1:
            raise Invalid(
                "interval_fraction >= 0 and p95_factor >= 1",
                f"interval_fraction {self.interval_fraction:g}, p95_factor {self.p95_factor:g}",
            )
        for name, value in self.coefficients.items():
            least = -MAX_MS if name == "overhead_ms" else 0
            if not least <= value < MAX_MS:
                raise Invalid(f"a number from {least:g} to 1e9", value, f"coefficients.{name}")
        if not set(self.coefficients) <= set(FEATURES):
            unknown = min(set(self.coefficients) - set(FEATURES))
            raise Invalid(f"only {', '.join(FEATURES)}", f"{unknown:.80}", "coefficients")
        if not any(value > 0 for value in self.coefficients.values()):
            raise Invalid("at least one coefficient above 0", "none, so all latencies are 0")
        self._check_claim()
        if max(self.interval_fraction, self.p95_factor) >= MAX_FACTOR:
            raise Invalid(
                f"interval_fraction and p95_factor below {MAX_FACTOR:g}",
                f"interval_fraction {self.interval_fraction:g}, p95_factor {self.p95_factor:g}",
            )

    def _check_claim(self) -> None:
        """Refuses claimed errors that are below those of the listed networks, if all are listed."""
        nets = self.validation.nets
        if not nets or len(nets) != self.n_fit:
            return
        errors = [abs(net.forecast_ms / net.measured_ms - 1) for net in nets]
        claimed = self.validation.forecast
        for key, claim, found in (
            ("mape", claimed.mape, sum(errors) / len(errors)),
            ("max", claimed.max, max(errors)),
        ):
            if claim < found - TOLERANCE * max(1.0, found):
                expected = f"at least {found:.4g}, the error computed from `nets`"
                raise Invalid(expected, f"{claim:.4g}", f"validation.forecast.{key}")
        for share, percent in ((claimed.within_5, 5), (claimed.within_10, 10)):
            inside = sum(error <= percent / 100 + TOLERANCE for error in errors) / len(errors)
            if share is not None and share > inside + TOLERANCE:
                raise Invalid(
                    f"at most {inside:.4g}: the estimates of this share of `nets` have an error of"
                    f" {percent} % or less",
                    f"{share:.4g}",
                    f"validation.forecast.within_{percent}",
                )
