"""Stage `verify`: the exported networks on the device, against what the search promised."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from hwnas.core.progress import Progress
from hwnas.exporters.formats import open_model
from hwnas.exporters.opened import CannotRunHere
from hwnas.interfaces import DeviceSpec
from hwnas.latency.estimator import TableEstimator
from hwnas.measure.drift import can_judge, judge, pace_text, verdict
from hwnas.measure.limits import VerifyConfig
from hwnas.measure.profile import Timings
from hwnas.pipeline.bundle import Winner, bundle_winner
from hwnas.pipeline.engine import Stage
from hwnas.pipeline.foreign_tables import is_profiled, require_own_table
from hwnas.pipeline.outcomes import Check, NetworkResult, Results
from hwnas.pipeline.project import Project
from hwnas.pipeline.task import task
from hwnas.pipeline.timing import time_beside_table
from hwnas.pipeline.winners import networks, result_on, role_names, winner_role
from hwnas.spaces.arch import Arch
from hwnas.spaces.cost import cost
from hwnas.spaces.lowering import resolution
from hwnas.training.identity import SPLITS

__all__ = ["check", "device_checks", "stage", "verify"]

log = logging.getLogger(__name__)


def stage(project: Project) -> Stage:
    """Re-times and tests the exported networks on every device, and bundles the winners."""
    files, search = project.files, project.config.search.name
    name, plain = f"verify/{search}", project.settled
    return Stage(
        name=name,
        command=f"hwnas verify {project.run.root}",
        needs=(*(f"profile/{device}" for device in project.devices), f"export/{search}"),
        settings=[
            project.config.seed,
            project.source.settings,
            plain["search"]["constraints"],
            plain["verify"],
        ],
        owns=(files.pattern(files.verification), files.pattern(files.bundles)),
        outputs=(files.pattern(files.results.path),),
        run=task(project, name, verify),
        cost=f"{len(role_names(project))} networks re-timed and tested",
        data=project.source.input(SPLITS),
        check=lambda: check(project),
        settled=lambda: not files.results.read().of(None),
    )


def check(project: Project) -> None:
    """Refuse tables of another machine that would stay as they are.

    Raises:
        UserError: see `foreign_tables.require_own_table`.
    """
    for name in project.devices:
        if is_profiled(project, name):
            require_own_table(project, name)


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
        timings = time_beside_table(
            project,
            name,
            _timed_files(project, archs, role, device),
            estimator.table,
            project.files.verification / name,
            progress=progress,
        )
        found = [
            _result(project, name, archs[name], estimator, timings, accuracy) for name in archs
        ]
        winner = next(row for row in found if row.name == role)
        checks += device_checks(winner, project.config.verify)
        bundle_winner(project, device, _winner(winner, timings, accuracy[winner.arch]))
        rows += found
    project.files.results.write(Results(tuple(rows), tuple(checks), _predictor(project)))


def _predictor(project: Project) -> dict[str, Any]:
    """Facts about the predictor for the closing table."""
    report = project.files.predictor_report.read()
    return {
        "name": project.config.predictor.name,
        "kendall_tau": report.kendall_tau,
        "kendall_tau_interval": list(report.kendall_tau_interval),
        "macs_tau": report.macs_tau,
        "n_fit": report.n_fit,
        "n_held_out": report.n_held_out,
        "coverage": report.coverage,
        "blend_weight": project.files.blend.read().weight,
    }


def _timed_files(
    project: Project, archs: dict[str, Arch], winner: str, device: DeviceSpec
) -> dict[str, Path]:
    """The ONNX file of every network; beside it, the winner's files of other precisions."""
    files = {arch.key: project.files.onnx(arch) for arch in dict.fromkeys(archs.values())}
    if device.runtime == "onnxruntime":
        arch = archs[winner]
        for one in project.files.read_exports()[arch.key]:
            fits = one.model.batch in (None, device.batch) and one.files[0].endswith(".onnx")
            if fits and one.model.format != "onnx":
                name = f"{arch.key}.{one.model.format}"
                files[name] = project.files.exported_network(arch) / one.files[0]
    return files


def _winner(row: NetworkResult, timings: Timings, accuracy: dict[str, tuple[float, int]]) -> Winner:
    own = f"{row.arch.key}."
    return Winner(
        arch=row.arch,
        forecast_ms=row.forecast_ms,
        interval_ms=row.interval_ms,
        met=(
            {limit.metric: limit.held for limit in row.timed_limits} if can_judge(row.pace) else {}
        ),
        n_test_images=row.n_test_images,
        top1={format: top1 for format, (top1, _) in accuracy.items()},
        measured_ms={
            "onnx": row.measured_ms,
            **{
                key.removeprefix(own): judge(timing, None, timings.pace).median_ms
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
    search = result_on(project, estimator.device.name)
    top1, n_images = accuracy[arch]["onnx"]
    judged = judge(timings.models[arch.key], forecast_ms, timings.pace)
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
        measured_ms=judged.median_ms,
        repeat_noise=timings.repeat_mape,
        limit_ms=search.limit("latency_ms", estimator.device.name),
        constraint_met=None,
        measured_p95_ms=judged.p95_ms,
        limit_p95_ms=search.limit("latency_p95_ms", estimator.device.name),
        pace=timings.pace,
    )
    held = [limit.held for limit in found.timed_limits]
    return replace(found, constraint_met=judged.verdict(all(held)) if held else None)


def _test_top1(project: Project, arch: Arch) -> dict[str, tuple[float, int]]:
    """By format that runs here: top-1 on the test split in its runtime, and of how many images."""
    x, labels = project.images("test", resolution(project.space, arch))
    folder = project.files.exported_network(arch)
    found = {}
    for one in project.files.read_exports()[arch.key]:
        if one.parity is not None:
            try:
                opened = open_model(
                    one.model.format, folder / one.files[0], threads=project.config.threads
                )
            except CannotRunHere as error:
                log.warning("%s: test accuracy not measured: %s", one.files[0], error)
                continue
            top1 = float((opened.logits(x).argmax(axis=1) == labels).mean())
            found[one.model.format] = top1, len(labels)
    return found


def _format_checks(
    project: Project, arch: Arch, accuracy: dict[str, tuple[float, int]]
) -> list[Check]:
    """Parity of every exported format of the winner."""
    checks = []
    for one in project.files.read_exports()[arch.key]:
        report, format = one.parity, one.model.format
        name = "parity of the winner" if format == "onnx" else f"{format} of the winner"
        if report is None or format == "timm":  # which is the torch network itself
            continue
        sizes = ", ".join(str(batch.batch) for batch in report.batches)
        top1 = f"{accuracy[format][0]:.2%}" if format in accuracy else "not measured"
        checks.append(
            Check(
                name,
                report.passed,
                f"torch and {report.runtime} differ by {report.worst:.1e} of the largest logit"
                f" (batch {sizes}), agree on {report.agreement:.2%} of images; test top-1"
                f" {top1}",
            )
        )
    return checks


def device_checks(winner: NetworkResult, config: VerifyConfig) -> list[Check]:
    """The winner's latency against its estimate and its limits, at the table's speed."""
    accepted = max(config.max_forecast_error, config.repeat_noise_factor * winner.repeat_noise)
    error = winner.forecast_error

    def check(name: str, holds: bool, detail: str) -> Check:
        if winner.pace is None:
            return Check(name, holds, detail + "; the machine's pace is unknown")
        detail += f"; {pace_text(winner.pace)}"
        return Check(name, verdict(holds, winner.pace), detail)

    checks = [
        check(
            f"forecast on {winner.device}",
            abs(error) <= accepted,
            f"estimate {winner.forecast_ms:.4f} ms, measured {winner.measured_ms:.4f} ms at the"
            f" table's speed ({error:+.1%}; accepted {accepted:.1%}, repeat noise"
            f" {winner.repeat_noise:.1%})",
        )
    ]
    for limit in winner.timed_limits:
        which = "constraint" if limit.metric == "latency_ms" else "p95 constraint"
        checks.append(check(f"{which} on {winner.device}", limit.held, str(limit)))
    return checks
