"""Stage `verify`: checks the file of each device against the results of the search."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from math import isfinite
from pathlib import Path

from hwnas.core.command import command_line
from hwnas.core.decimals import rounded
from hwnas.core.progress import Parts, Progress
from hwnas.interfaces import DeviceSpec
from hwnas.latency.estimator import TableEstimator
from hwnas.measure.drift import judge, widened, worst
from hwnas.measure.limits import VerifyConfig
from hwnas.measure.profile import Timings
from hwnas.measure.winner_matrix import winner_matrix
from hwnas.pipeline.accuracy import (
    Accuracies,
    artifact_check,
    format_checks,
    test_accuracies,
    test_hits,
)
from hwnas.pipeline.answers import Answered, Answers, Replies, answers_of
from hwnas.pipeline.bundle import Winner, bundle_winner, remove_other_bundles
from hwnas.pipeline.checks import asked
from hwnas.pipeline.device_checks import device_checks, judged_excess
from hwnas.pipeline.disk import weights_bytes
from hwnas.pipeline.exports import exported_artifact, exports_of, file_of
from hwnas.pipeline.foreign_tables import is_profiled, require_own_table, table_file, timed_devices
from hwnas.pipeline.outcomes import NetworkResult, PredictorFacts, Results
from hwnas.pipeline.plan import Stage
from hwnas.pipeline.project import Project
from hwnas.pipeline.task import task
from hwnas.pipeline.timing import time_beside_table
from hwnas.pipeline.winners import (
    network_names,
    networks,
    result_on,
    role_names,
    winner_role,
    winners_by_device,
)
from hwnas.spaces.arch import Arch
from hwnas.spaces.cost import cost
from hwnas.spaces.lowering import resolution
from hwnas.spaces.space import Codes
from hwnas.training.identity import SPLITS

__all__ = ["check", "stage", "verify"]

log = logging.getLogger(__name__)

UNTIMED = "%s: latencies are estimates; `python3 device_run.py --check .` checks a bundle there"
RETIMED = 10  # units of progress of timing one device's networks; testing one file has 1


def stage(project: Project) -> Stage:
    """Re-times and tests the exported networks on every device, and bundles the winners."""
    files, search = project.files, project.config.search.name
    name, plain = f"verify/{search}", project.settled
    return Stage(
        name=name,
        command=command_line("verify", project.run.root),
        needs=(*(f"profile/{device}" for device in project.devices), f"export/{search}"),
        names=("seed", "data", "search.constraints", "verify"),
        settings=[
            project.config.seed,
            project.source.settings,
            plain["search"]["constraints"],
            plain["verify"],
        ],
        owns=(files.pattern(files.verification), files.pattern(files.bundles)),
        outputs=(files.pattern(files.results.path),),
        remade=(files.pattern(files.bundles / "*"),),
        stays=(files.pattern(files.bundles),),
        run=task(project, name, verify),
        cost=f"{len(role_names(project))} networks "
        + ("re-timed and tested" if timed_devices(project) else "tested"),
        data=project.source.input(SPLITS),
        check=lambda: check(project),
        asks=asked(project, project.devices),
        writes=lambda: len(project.devices) * weights_bytes(project)[0],
        settled=lambda: not files.results.read().of(None),
    )


def check(project: Project) -> None:
    """Refuses a local device if its table is up to date but was measured on another machine.

    A table that is not up to date is measured again before this stage.

    Raises:
        UserError: see `foreign_tables.require_own_table`.
    """
    for name in project.devices:
        if is_profiled(project, name):
            require_own_table(project, name)


def verify(project: Project, progress: Progress) -> None:
    """Tests and re-times every network, checks the winner, and writes its bundle."""
    for name in project.devices:
        require_own_table(project, name)
    archs = networks(project)
    tested, accuracies = network_names(project), {}
    n_files = [len(exports_of(project, arch)) for arch in tested]
    parts = Parts(progress, [*n_files, *[RETIMED] * len(project.devices)])
    for number, (arch, title) in enumerate(tested.items()):
        progress_of = parts.part(number, f"{title}, test images")
        accuracies[arch] = test_accuracies(project, arch, progress_of)
    rows: list[NetworkResult] = []
    answers: list[Answered] = []
    checks = format_checks(project, archs, accuracies)
    for number, (name, device) in enumerate(project.devices.items(), start=len(tested)):
        estimator = project.estimator(name)
        role = winner_role(project, name)
        timings = None
        if table_file(project, name) is None:
            timings = time_beside_table(
                project,
                name,
                _timed_files(project, archs, role, device),
                estimator.table,
                project.files.verification / name,
                progress=parts.part(number, name),
            )
        else:
            log.info(UNTIMED, name)
        found = [
            _result(project, name, archs[name], estimator, timings, accuracies[archs[name]])
            for name in archs
        ]
        winner = next(row for row in found if row.name == role)
        checks += artifact_check(project, device, winner.arch, accuracies[winner.arch])
        found_out = device_checks(winner, project.config.verify)
        if any(check.passed is None for check in found_out):
            _measure_again(project, name)
        checks += found_out
        replies = accuracies[winner.arch].replies_on(name).get(winner.file)
        if replies is not None:
            answers.append(_answered(project, winner, replies))
        if not project.space.macro.reads_tokens:  # bundles describe image classifiers
            facts = winner, timings, accuracies[winner.arch]
            bundle_winner(project, device, _winner(*facts, project.config.verify))
        rows += found
    remove_other_bundles(project)
    found_by = {name: result_on(project, name).found_by for name in project.devices}
    matrix = winner_matrix(rows, winners_by_device(project), found_by)
    results = Results(tuple(rows), tuple(checks), _predictor(project), matrix)
    project.files.answers.write(Answers(tuple(answers)))
    project.files.test_hits.write(test_hits(project, rows, accuracies))
    project.files.results.write(results)
    if warning := results.at_chance(project.space.macro.num_classes):
        log.warning("%s", warning)


def _answered(project: Project, winner: NetworkResult, replies: Replies) -> Answered:
    """Predictions of a device's winner on the test images."""
    test = project.images("test", resolution(project.space, winner.arch))
    return answers_of(
        project.source.info,
        test,
        replies,
        device=winner.device,
        arch=winner.arch,
        file=winner.file,
    )


def _measure_again(project: Project, device: str) -> None:
    """Removes timings that could not be judged, so that the next command repeats them."""
    shutil.rmtree(project.files.verification / device, ignore_errors=True)


def _predictor(project: Project) -> PredictorFacts:
    """Facts about the predictor for the result table."""
    report = project.files.predictor_report.read()
    return {
        "name": project.config.predictor.name,
        "kendall_tau": report.kendall_tau,
        "kendall_tau_interval": list(report.kendall_tau_interval),
        "macs_tau": report.macs_tau,
        "n_at_1": report.top.n_at_1,
        "n_at_10": report.top.n_at_10,
        "precision_at_10": report.top.precision_at_10,
        "regret": report.top.regret,
        "n_fit": report.n_fit,
        "n_held_out": report.n_held_out,
        "coverage": report.coverage,
        "blend_weight": project.files.blend.read().weight,
    }


def _timed_files(
    project: Project, archs: dict[str, Arch], winner: str, device: DeviceSpec
) -> dict[str, Path]:
    """The file of the device for every network; for the winner also its other ONNX files."""
    files = {
        arch.key: file_of(project, arch, exported_artifact(project, arch, device))
        for arch in dict.fromkeys(archs.values())
    }
    if device.runtime == "onnxruntime":
        arch = archs[winner]
        artifact = exported_artifact(project, arch, device)
        for one in project.files.read_exports()[arch.key]:
            is_onnx = any(name.endswith(".onnx") for name in one.files[:1])
            if is_onnx and one.model.batch in (None, device.batch) and one != artifact:
                files[f"{arch.key}.{one.files[0]}"] = file_of(project, arch, one)
    return files


def _winner(
    row: NetworkResult, timings: Timings | None, accuracies: Accuracies, config: VerifyConfig
) -> Winner:
    own, measured_ms = f"{row.arch.key}.", {}
    states = {one.metric: judged_excess(one.excess, row, config) for one in row.timed_limits}
    if timings is not None and row.measured_ms is not None:
        measured_ms[row.file] = row.measured_ms
        measured_ms |= {
            key.removeprefix(own): judge(timing, None, timings.pace).median_ms
            for key, timing in timings.models.items()
            if key.startswith(own)
        }
    return Winner(
        arch=row.arch,
        forecast_ms=row.forecast_ms,
        interval_ms=row.interval_ms,
        met={metric: is_met for metric, is_met in states.items() if is_met is not None},
        n_test_images=row.n_test_images,
        top1=accuracies.on(row.device),
        by_class=accuracies.by_class(row.device),
        measured_ms=measured_ms,
    )


def _result(
    project: Project,
    role: str,
    arch: Arch,
    estimator: TableEstimator,
    timings: Timings | None,
    accuracies: Accuracies,
) -> NetworkResult:
    """The row of a network on the device of the estimator.

    role: name of the network, such as `winner`.
    timings: timings on the device, among them that of the network by its key; None if only the
        table of the device is known.
    """
    codes, device = project.space.codes([arch]), estimator.device.name
    estimate = estimator.latency_ms(codes)
    forecast_ms, pace = float(estimate[0]), None if timings is None else timings.pace
    search = result_on(project, device)
    has_energy = estimator.table.has_energy
    artifact = exported_artifact(project, arch, project.devices[device])
    float_path, top1 = exports_of(project, arch)[0].model.path, accuracies.on(device)
    judged = None if timings is None else judge(timings.models[arch.key], forecast_ms, pace)
    found = NetworkResult(
        name=role,
        device=device,
        arch=arch,
        test_top1=top1.get(artifact.model.path, top1[float_path]),
        n_test_images=len(accuracies.labels),
        macs=int(cost(project.space, codes, "macs")[0]),
        params=int(cost(project.space, codes, "params")[0]),
        forecast_ms=forecast_ms,
        interval_ms=_interval(estimator, codes, 0.0 if timings is None else timings.pace_spread),
        measured_ms=None if judged is None else judged.median_ms,
        repeat_noise=0.0 if timings is None else timings.noise,
        limit_ms=search.limit("latency_ms", device),
        constraint_met=None,
        measured_p95_ms=None if judged is None else judged.p95_ms,
        limit_p95_ms=search.limit("latency_p95_ms", device),
        pace=pace,
        file=artifact.model.path,
        precision=artifact.model.precision,
        fp32_top1=accuracies.here[float_path],
        test_loss=accuracies.loss.get(artifact.model.path),
        energy_mj=rounded(float(estimator.energy_mj(codes)[0]), 5) if has_energy else None,
        limit_mj=rounded(search.limit("energy_mj", device), 5),
    )
    config, limits = project.config.verify, found.timed_limits
    states = [judged_excess(limit.excess, found, config) for limit in limits]
    return replace(found, constraint_met=worst(states) if states else None)


def _interval(
    estimator: TableEstimator, codes: Codes, pace_spread: float
) -> tuple[float, float] | None:
    """90 % interval of the estimate of one arch; None if it is unknown."""
    if estimator.correction_id is None:
        return None
    estimate, interval = estimator.latency_ms(codes), estimator.interval_ms(codes)
    low, high = map(float, widened(estimate, interval, pace_spread)[0])
    return (low, high) if isfinite(high) else None
