"""Stage `verify`: the exported networks on the device, against what the search promised."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from hwnas.core.progress import Progress
from hwnas.core.records import STRICT, dump, load
from hwnas.core.store import read_json, write_json
from hwnas.exporters import REGISTRY as EXPORTERS
from hwnas.interfaces import DeviceSpec
from hwnas.latency.estimator import TableEstimator
from hwnas.measure.limits import TimedLimit, timed_limits
from hwnas.measure.profile import Timings, time_models
from hwnas.pipeline.project import Project
from hwnas.pipeline.stages.bundle import Winner, bundle_winner
from hwnas.pipeline.stages.export import exports, images_of, onnx_path
from hwnas.pipeline.stages.finetune import networks, winner_role
from hwnas.pipeline.stages.predictor import read_blend, read_report
from hwnas.pipeline.stages.profile import require_own_table
from hwnas.pipeline.stages.search import result_on
from hwnas.spaces.arch import Arch
from hwnas.spaces.cost import cost
from hwnas.spaces.lowering import resolution

__all__ = ["Check", "NetworkResult", "Results", "read_results", "verify"]


@dataclass(frozen=True)
class NetworkResult:
    """One network on one device.

    `repeat_noise`: how far timings of equal networks are apart, as a fraction: the larger of two
    halves of this re-timing, and of this re-timing and the table's (on the table's own networks).
    `measured_p95_ms`: what 95 % of the runs stay below. `constraint_met`: what was re-timed is
    within its limits, or within the forecast's 90 % interval above them; None where the search had
    no limit for this device.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    name: str
    device: str
    arch: Arch
    test_top1: float
    n_test_images: int
    macs: int
    params: int
    forecast_ms: float
    interval_ms: tuple[float, float]
    measured_ms: float
    repeat_noise: float
    limit_ms: float | None
    constraint_met: bool | None
    measured_p95_ms: float | None = None
    limit_p95_ms: float | None = None

    @property
    def forecast_error(self) -> float:
        """Relative error of the forecast, signed."""
        return self.forecast_ms / self.measured_ms - 1

    @property
    def timed_limits(self) -> tuple[TimedLimit, ...]:
        """The latency limits of the search, against the re-timing."""
        return timed_limits(
            {"latency_ms": self.measured_ms, "latency_p95_ms": self.measured_p95_ms},
            {"latency_ms": self.limit_ms, "latency_p95_ms": self.limit_p95_ms},
            widening=self.interval_ms[1] / self.forecast_ms,
        )

    def summary(self) -> dict[str, Any]:
        """The row of the closing table."""
        return {
            "name": self.name,
            "test_top1": round(self.test_top1, 4),
            "macs": self.macs,
            "params": self.params,
            "forecast_ms": round(self.forecast_ms, 5),
            "measured_ms": round(self.measured_ms, 5),
            "forecast_error": round(self.forecast_error, 4),
            "limit_ms": None if self.limit_ms is None else round(self.limit_ms, 5),
            "constraint_met": self.constraint_met,
            "device": self.device,
        }


@dataclass(frozen=True)
class Check:
    """One promise and whether it holds."""

    __pydantic_config__: ClassVar[Any] = STRICT

    name: str
    passed: bool
    detail: str

    def summary(self) -> dict[str, Any]:
        """JSON-ready form."""
        return dump(self, versioned=False)


@dataclass(frozen=True)
class Results:
    """What a search comes down to: the closing table and its checks."""

    __pydantic_config__: ClassVar[Any] = STRICT

    networks: tuple[NetworkResult, ...]
    checks: tuple[Check, ...]
    predictor: dict[str, Any]


def read_results(project: Project) -> Results:
    """What stage `verify` found."""
    path = _results_path(project)
    return load(Results, read_json(path), where=path)


def _results_path(project: Project) -> Path:
    return project.search_path("verify", "results.json")


def verify(project: Project, progress: Progress) -> None:
    """Test and re-time every network, check the winner's promises, write its bundle."""
    for name in project.devices:
        require_own_table(project, name)
    archs = networks(project)
    accuracy = {arch: _test_top1(project, arch) for arch in set(archs.values())}
    rows, checks = [], _format_checks(project, archs["winner"], accuracy[archs["winner"]])
    for name, device in project.devices.items():
        estimator = project.estimator(name)
        role = winner_role(project, name)
        timings = time_models(
            _timed_files(project, archs, role, device),
            device,
            project.search_path("verify", name),
            project.config.profile,
            seed=project.config.seed,
            table=estimator.table,
            space=project.space,
            progress=progress,
            transport=project.transport(name),
        )
        found = [
            _result(project, name, archs[name], estimator, timings, accuracy) for name in archs
        ]
        winner = next(row for row in found if row.name == role)
        checks += _device_checks(project, winner)
        bundle_winner(project, device, _winner(winner, timings, accuracy[winner.arch]))
        rows += found
    report = read_report(project)
    facts = {
        "name": project.config.predictor.name,
        "kendall_tau": report.kendall_tau,
        "kendall_tau_interval": list(report.kendall_tau_interval),
        "macs_tau": report.macs_tau,
        "n_fit": report.n_fit,
        "n_held_out": report.n_held_out,
        "coverage": report.coverage,
        "blend_weight": read_blend(project).weight,
    }
    results = Results(tuple(rows), tuple(checks), facts)
    write_json(_results_path(project), dump(results))


def _timed_files(
    project: Project, archs: dict[str, Arch], winner: str, device: DeviceSpec
) -> dict[str, Path]:
    """The ONNX file of every network; beside it, the winner's files of other precisions."""
    files = {arch.key: onnx_path(project, arch) for arch in dict.fromkeys(archs.values())}
    if device.runtime == "onnxruntime":
        arch = archs[winner]
        for one in exports(project)[arch.key]:
            fits = one.model.batch in (None, device.batch) and one.files[0].endswith(".onnx")
            if fits and one.model.format != "onnx":
                files[f"{arch.key}.{one.model.format}"] = project.search_path(
                    "export", arch.key, one.files[0]
                )
    return files


def _winner(row: NetworkResult, timings: Timings, accuracy: dict[str, tuple[float, int]]) -> Winner:
    own = f"{row.arch.key}."
    return Winner(
        arch=row.arch,
        forecast_ms=row.forecast_ms,
        interval_ms=row.interval_ms,
        met={limit.metric: limit.held for limit in row.timed_limits},
        n_test_images=row.n_test_images,
        top1={format: top1 for format, (top1, _) in accuracy.items()},
        measured_ms={
            "onnx": row.measured_ms,
            **{
                key.removeprefix(own): timing.median_ms
                for key, timing in timings.models.items()
                if key.startswith(own)
            },
        },
    )


def _result(
    project: Project,
    role: str,
    arch: Arch,
    estimator: TableEstimator,
    timings: Timings,
    accuracy: dict[Arch, dict[str, tuple[float, int]]],
) -> NetworkResult:
    codes = project.space.codes([arch])
    low, high = (float(bound) for bound in estimator.interval_ms(codes)[0])
    forecast_ms = float(estimator.latency_ms(codes)[0])
    limits = result_on(project, estimator.device.name).limits
    top1, n_images = accuracy[arch]["onnx"]
    timing = timings.models[arch.key]
    since_table = 0.0 if timings.drift is None else abs(timings.drift - 1)
    found = NetworkResult(
        name=role,
        device=estimator.device.name,
        arch=arch,
        test_top1=top1,
        n_test_images=n_images,
        macs=int(cost(project.space, codes, "macs")[0]),
        params=int(cost(project.space, codes, "params")[0]),
        forecast_ms=forecast_ms,
        interval_ms=(low, high),
        measured_ms=timing.median_ms,
        repeat_noise=max(timings.repeat_mape, since_table),
        limit_ms=limits.get(f"latency_ms@{estimator.device.name}"),
        constraint_met=None,
        measured_p95_ms=timing.p95_ms,
        limit_p95_ms=limits.get(f"latency_p95_ms@{estimator.device.name}"),
    )
    held = [limit.held for limit in found.timed_limits]
    return replace(found, constraint_met=all(held) if held else None)


def _test_top1(project: Project, arch: Arch) -> dict[str, tuple[float, int]]:
    """By format that runs here: top-1 on the test split in its runtime, and of how many images."""
    x, labels = images_of(project, "test", resolution(project.space, arch))
    folder = project.search_path("export", arch.key)
    found = {}
    for one in exports(project)[arch.key]:
        if one.parity is not None:
            opened = EXPORTERS.load(one.model.format).open_model(
                folder / one.files[0], threads=project.config.threads
            )
            top1 = float((opened.logits(x).argmax(axis=1) == labels).mean())
            found[one.model.format] = top1, len(labels)
    return found


def _format_checks(
    project: Project, arch: Arch, accuracy: dict[str, tuple[float, int]]
) -> list[Check]:
    """Parity of every exported format of the winner."""
    checks = []
    for one in exports(project)[arch.key]:
        report, format = one.parity, one.model.format
        name = "parity of the winner" if format == "onnx" else f"{format} of the winner"
        if report is None or format == "timm":  # which is the torch network itself
            continue
        sizes = ", ".join(str(batch.batch) for batch in report.batches)
        checks.append(
            Check(
                name,
                report.passed,
                f"torch and {report.runtime} differ by {report.worst:.1e} of the largest logit"
                f" (batch {sizes}), agree on {report.agreement:.2%} of images; test top-1"
                f" {accuracy[format][0]:.2%}",
            )
        )
    return checks


def _device_checks(project: Project, winner: NetworkResult) -> list[Check]:
    config = project.config.verify
    accepted = max(config.max_forecast_error, config.repeat_noise_factor * winner.repeat_noise)
    error = winner.forecast_error
    checks = [
        Check(
            f"forecast on {winner.device}",
            abs(error) <= accepted,
            f"forecast {winner.forecast_ms:.4f} ms, re-timed {winner.measured_ms:.4f} ms"
            f" ({error:+.1%}; accepted {accepted:.1%}, repeat noise {winner.repeat_noise:.1%})",
        )
    ]
    for limit in winner.timed_limits:
        which = "constraint" if limit.metric == "latency_ms" else "p95 constraint"
        checks.append(
            Check(
                f"{which} on {winner.device}",
                limit.held,
                f"re-timed {limit.ms:.4f} ms, limit {limit.limit_ms:.4f} ms"
                f" ({limit.ms / limit.limit_ms:.1%} of it)",
            )
        )
    return checks
