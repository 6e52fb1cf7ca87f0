"""Results of stages, as records that later stages, verbs and the report read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from typing_extensions import TypedDict

from hwnas.analysis.chance import chance_warning
from hwnas.core.confined import check_name
from hwnas.core.decimals import rounded
from hwnas.core.errors import CheckFailed, Invalid, NotJudged
from hwnas.core.records import STRICT, Count, Milliseconds, NotNegative, Positive, Rank, Share, dump
from hwnas.core.stats import standard_error
from hwnas.core.text import in_words
from hwnas.exporters.parity import ParityReport
from hwnas.interfaces import PERPLEXITY, DataInfo, ModelFile
from hwnas.measure.limits import TimedLimit, timed_limits
from hwnas.measure.winner_matrix import WinnerMatrix
from hwnas.spaces.arch import Arch
from hwnas.training.duplicates import SharedImages
from hwnas.training.identity import SPLITS

__all__ = [
    "Check",
    "DataRecord",
    "Exported",
    "NetworkResult",
    "PredictorFacts",
    "Results",
    "SeenData",
]


@dataclass(frozen=True)
class SeenData:
    """Data that a stage of the run read.

    digest: name of the file that lists them.
    root: the setting `data.root` when they were first read.
    folder: their last folder, absolute.
    shared: images that are in two splits, for the split settings with the hash `cut`; None if an
        earlier version did not search for them.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    digest: str
    root: str | None
    info: DataInfo
    folder: str | None
    shared: tuple[SharedImages, ...] | None = None
    cut: str = ""

    def __post_init__(self) -> None:
        check_name(self.digest, where="data of a run")
        if not self.info.digests.keys() >= set(SPLITS):
            found = f"the splits {in_words(list(self.info.digests))}"
            raise Invalid(f"the splits {in_words(SPLITS)}", found, "info.digests")


@dataclass(frozen=True)
class DataRecord:
    """All data that stages of the run read, oldest first; `last` is the index of the latest."""

    __pydantic_config__: ClassVar[Any] = STRICT

    seen: tuple[SeenData, ...]
    last: int

    def __post_init__(self) -> None:
        if not 0 <= self.last < len(self.seen):
            raise Invalid(
                f"an index of `seen`, below {len(self.seen)}", f"the index {self.last}", "last"
            )

    @property
    def latest(self) -> SeenData:
        """The data that a stage read last."""
        return self.seen[self.last]


@dataclass(frozen=True)
class Exported:
    """The exported files of one network in one format, and their comparison with torch.

    files: names in the folder of the arch, the model first; empty if the export failed.
    parity: result of the comparison; None if the files cannot run on this host, or are missing.
    not_run: why they cannot run on this host; empty if they can.
    failure: why the export failed, or how the runtime of the files crashed; empty if neither did.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    model: ModelFile
    files: tuple[str, ...]
    parity: ParityReport | None
    not_run: str = ""
    failure: str = ""

    def __post_init__(self) -> None:
        if not self.files and not self.failure:
            raise Invalid("files of the format, or `failure`: why it has none", "neither")
        for name in self.files:
            check_name(name, where="exports of a network")

    def summary(self) -> dict[str, Any]:
        """A row of the table of exported formats."""
        found: dict[str, Any] = {"format": self.model.format, "file": (*self.files, None)[0]}
        if self.parity is None:
            return found | {"not run": self.not_run}
        return found | {
            "runtime": self.parity.runtime,
            "relative difference": float(f"{self.parity.worst:.2e}"),
            "agreement": round(self.parity.agreement, 4),
            "passed": self.parity.passed,
        }


@dataclass(frozen=True)
class NetworkResult:
    """One network on one device.

    measured_ms, measured_p95_ms: median and 95th percentile of the latency at the speed of the
        table: timings divided by `pace` (see `measure.drift`; None in results of earlier versions).
        None on a device of which only the table is known.
    interval_ms: 90 % interval of the estimate; None if the table has none.
    repeat_noise: relative uncertainty of timings (`measure.profile.Timings.noise`); 0 without any.
    constraint_met: whether the measured latency is within its limits, widened by the 90 % interval
        of the estimate; None without a limit for this device, or if it cannot be judged.
    file, precision: the file that the device runs (path in a bundle); `test_top1` is its accuracy.
    fp32_top1: accuracy of the float32 file. If `file` does not run on this machine, and in results
        of earlier versions, `test_top1` is this accuracy, too.
    test_loss: mean cross-entropy per token of `file` in nats; only for language models.
    energy_mj, limit_mj: estimated energy of one run and its limit; None if the table has none.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    name: str
    device: str
    arch: Arch
    test_top1: Share
    n_test_images: Count
    macs: Count
    params: Count
    forecast_ms: Milliseconds
    interval_ms: tuple[NotNegative, NotNegative] | None
    measured_ms: Milliseconds | None
    repeat_noise: NotNegative
    limit_ms: Milliseconds | None
    constraint_met: bool | None
    measured_p95_ms: Milliseconds | None = None
    limit_p95_ms: Milliseconds | None = None
    pace: Positive | None = None
    file: str = "model.onnx"
    precision: Literal["fp32", "fp16", "int8"] = "fp32"
    fp32_top1: Share | None = None
    test_loss: NotNegative | None = None
    energy_mj: NotNegative | None = None
    limit_mj: Positive | None = None

    @property
    def test_perplexity(self) -> float | None:
        """Perplexity of a language model on the test text; None for other networks."""
        return None if self.test_loss is None else PERPLEXITY.of(self.test_top1, self.test_loss)

    @property
    def top1_error(self) -> float | None:
        """Standard error of `test_top1`."""
        return standard_error(self.test_top1, self.n_test_images) if self.n_test_images else None

    @property
    def estimate_error(self) -> float | None:
        """Signed relative error of the estimate; None without a timing."""
        return None if self.measured_ms is None else self.forecast_ms / self.measured_ms - 1

    @property
    def timed_limits(self) -> tuple[TimedLimit, ...]:
        """The latency limits of the search, each with the measured latency."""
        return timed_limits(
            {"latency_ms": self.measured_ms, "latency_p95_ms": self.measured_p95_ms},
            {"latency_ms": self.limit_ms, "latency_p95_ms": self.limit_p95_ms},
            widening=self.interval_ms[1] / self.forecast_ms if self.interval_ms else 1.0,
        )

    def summary(self) -> dict[str, Any]:
        """The row of the result table."""
        perplexity = self.test_perplexity
        return {
            "name": self.name,
            **({} if perplexity is None else {"test_perplexity": round(perplexity, 2)}),
            "test_top1": round(self.test_top1, 4),
            "test_top1_se": rounded(self.top1_error, 4),
            "macs": self.macs,
            "params": self.params,
            "forecast_ms": round(self.forecast_ms, 5),
            "measured_ms": rounded(self.measured_ms, 5),
            "forecast_error": rounded(self.estimate_error, 4),
            "limit_ms": rounded(self.limit_ms, 5),
            **({} if self.energy_mj is None else {"energy_mj": self.energy_mj}),
            **({} if self.limit_mj is None else {"limit_mj": self.limit_mj}),
            "constraint_met": self.constraint_met,
            "device": self.device,
            "file": self.file,
            "fp32_top1": None if self.precision == "fp32" else rounded(self.fp32_top1, 4),
            "pace": rounded(self.pace, 4),
        }


@dataclass(frozen=True)
class Check:
    """One check and its result; `passed` is None if it cannot be judged."""

    __pydantic_config__: ClassVar[Any] = STRICT

    name: str
    passed: bool | None
    detail: str

    def __str__(self) -> str:
        return f"{self.name}: {self.detail}"

    @property
    def state(self) -> Literal["ok", "FAIL", "not judged"]:
        """The state of the check as text."""
        if self.passed is None:
            return "not judged"
        return "ok" if self.passed else "FAIL"

    def summary(self) -> dict[str, Any]:
        """The check as JSON values."""
        return dump(self, versioned=False)


class PredictorFacts(TypedDict, total=False):
    """Quality of the predictor on held-out labels, see `PredictorReport`."""

    name: str
    kendall_tau: Rank
    kendall_tau_interval: list[Rank]
    macs_tau: Rank
    n_at_1: Count
    n_at_10: Count
    precision_at_10: Share
    regret: NotNegative
    n_fit: Count
    n_held_out: Count
    coverage: Share
    blend_weight: Share


@dataclass(frozen=True)
class Results:
    """Final results of a search: the result table and its checks.

    winners: latency of each device's winner on every device; None if all devices share one winner,
        and in results of earlier versions.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    networks: tuple[NetworkResult, ...]
    checks: tuple[Check, ...]
    predictor: PredictorFacts
    winners: WinnerMatrix | None = None

    def of(self, passed: bool | None) -> tuple[Check, ...]:
        """The checks that passed (True), failed (False), or cannot be judged (None)."""
        return tuple(check for check in self.checks if check.passed is passed)

    def require(self, *, where: Path) -> None:
        """Raises an error if a check failed or could not be judged; `where`: the report.

        Raises:
            CheckFailed: names the failed checks.
            NotJudged: no check failed, but some could not be judged.
        """
        if failed := self.of(passed=False):
            raise CheckFailed(
                "checks of the run failed",
                found="; ".join(map(str, failed)),
                where=where,
                fix="see the report; `--report-only` exits with 0 although checks failed",
            )
        if unknown := self.of(passed=None):
            raise NotJudged(
                "checks could not be judged",
                found="; ".join(map(str, unknown)),
                where=where,
                fix="repeat the command when the machine is as idle as when it was profiled, or"
                " profile it again; `--report-only` accepts the result",
            )

    def at_chance(self, num_classes: int) -> str:
        """Result of `analysis.chance`: a warning if no network beats guessing, else empty."""
        rows = self.networks
        return chance_warning(((row.test_top1, row.n_test_images) for row in rows), num_classes)
