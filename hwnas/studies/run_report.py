"""The report of a run folder: all results so far in one HTML file."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path

import numpy as np

from hwnas.analysis.ranks import MIN_ARCHS
from hwnas.core.pareto import non_dominated
from hwnas.core.progress import duration
from hwnas.interfaces import PERPLEXITY, Evaluation, quality_of
from hwnas.pipeline.artifacts import SearchFiles
from hwnas.pipeline.data_checks import doubts_known, images_text
from hwnas.pipeline.evaluators import evaluator
from hwnas.pipeline.graph import stages_of
from hwnas.pipeline.listings import training_rows
from hwnas.pipeline.project import Project
from hwnas.pipeline.standalone import read_standalone
from hwnas.pipeline.winners import networks, search_files, winner_role
from hwnas.reporting.data import (
    Curve,
    Drawing,
    Front,
    LatencyFit,
    NetRow,
    Point,
    Prediction,
    ReportData,
    Training,
    Trust,
    Truth,
)
from hwnas.reporting.html import write_report
from hwnas.spaces.cell_views import cell_views
from hwnas.spaces.lowering import lower
from hwnas.studies.device_winners import device_winners
from hwnas.studies.published_networks import published_networks
from hwnas.studies.rank_analysis import analyze_run
from hwnas.studies.report_answers import bundles_of, classes_of
from hwnas.studies.search_facts import search_facts
from hwnas.studies.winner_verdict import belief_data

__all__ = [
    "front_data",
    "latency_data",
    "prediction_data",
    "training_data",
    "write_run_report",
]

N_BIASES = 8  # rows of the table of biases


def write_run_report(project: Project, path: Path | None = None) -> Path:
    """Writes the report to `path`, by default in the run folder; returns its path.

    Sections of unfinished stages are left out.
    """
    name = project.config.search.name
    path = project.files.report if path is None else path
    done = {stage for stage, record in project.run.ledger().items() if record.state == "done"}
    verified = f"verify/{name}" in done
    results = project.files.results.read() if verified else None
    failed = () if results is None else tuple(c for c in results.checks if not c.passed)
    at_chance = results.at_chance(project.space.macro.num_classes) if results else ""
    chance = (at_chance,) * bool(at_chance)
    write_report(
        ReportData(
            title=f"{project.config.name}: {name}",
            table=_table(project) if verified else (),
            belief=belief_data(project) if f"search/{name}" in done else None,
            fronts=tuple(front_data(project, device) for device in project.devices)
            if f"search/{name}" in done
            else (),
            latency_fits=_latency_fits(project, done),
            prediction=prediction_data(project) if "predictor" in done else None,
            trust=_trust(project) if "predictor" in done else None,
            training=training_data(project),
            winner=_drawing(project) if f"finetune/{name}" in done else None,
            winners=device_winners(project, results) if f"search/{name}" in done else None,
            references=published_networks(project, done),
            truths=_truths(project) if f"finetune/{name}" in done else (),
            facts=_facts(project, has_search=f"search/{name}" in done),
            remarks=doubts_known(project) + chance,
            commands={s.name.partition("/")[0]: s.command for s in reversed(stages_of(project))},
            bundles=bundles_of(project, path) if verified else (),
            classes=classes_of(project) if verified else (),
            warnings=tuple(f"{check.name}: {check.detail}" for check in failed),
        ),
        path,
    )
    return path


def _trust(project: Project) -> Trust | None:
    """Rank analysis of the predictor on held-out labels; None if there are too few."""
    if len(project.files.predictor_report.read().predicted) < MIN_ARCHS:
        return None
    found, _ = analyze_run(project, "predictor")
    clear = [row for row in found.bias.choices if row.is_clear]
    return Trust(
        ranking=found.ranking,
        truth=found.truth,
        n=found.ranks.n,
        verdict=found.verdict,
        biases=tuple((f"{row.choice} = {row.value}", row.shift, row.n) for row in clear[:N_BIASES]),
    )


def _latency_fits(project: Project, done: Container[str]) -> tuple[LatencyFit, ...]:
    made = [device for device in project.devices if f"profile/{device}" in done]
    found = [latency_data(project, device) for device in made]
    return tuple(estimate for estimate in found if estimate is not None)


def _table(project: Project) -> tuple[NetRow, ...]:
    return tuple(
        NetRow(
            name=row.name,
            macs=row.macs,
            params=row.params,
            test_top1=row.test_top1,
            forecast_ms=row.forecast_ms,
            measured_ms=row.measured_ms,
            constraint_met=row.constraint_met,
            key=row.arch.key,
            device=row.device,
            file=row.file,
            fp32_top1=row.fp32_top1 if row.precision != "fp32" else None,
            limit_ms=row.limit_ms,
            is_winner=row.name == winner_role(project, row.device),
            top1_error=row.top1_error,
            pace=row.pace,
            test_perplexity=row.test_perplexity,
            energy_mj=row.energy_mj,
            limit_mj=row.limit_mj,
        )
        for row in project.files.results.read().networks
    )


def front_data(project: Project, device: str) -> Front:
    """Labelled and evaluated archs: estimated latency on a device, and validation score.

    The score is an accuracy or a perplexity. The search is that of the device, or the common one.
    If each device has its own, random search ran only for the first one, and only its front has it.
    """
    estimator, scorer = project.estimator(device), evaluator(project)
    per_device = project.config.search.per_device
    own = search_files(project, device if per_device else None)
    result, quality = own.result.read(), quality_of(project.space)
    sign = -1 if quality.best == "highest" else 1

    def points(evaluations: list[Evaluation]) -> tuple[Point, ...]:
        latency = estimator.latency_ms(project.space.codes([e.arch for e in evaluations]))
        return tuple(
            Point(float(ms), quality.of(e.top1, e.val_loss), e.arch.key)
            for ms, e in zip(latency, evaluations, strict=True)
        )

    def evaluated(files: SearchFiles) -> list[Evaluation]:
        archive = files.archive(project.space)
        codes = archive.column("codes")[archive.evaluated]
        return [scorer.evaluate(project.space.arch(row)) for row in codes]

    cloud = tuple(dict.fromkeys((*points(project.files.read_labels()), *points(evaluated(own)))))
    plane = np.array([[p.latency_ms, sign * p.top1] for p in cloud])
    front = sorted((cloud[i] for i in np.flatnonzero(non_dominated(plane))), key=_by_latency)
    has_baseline = not per_device or device == project.first_device
    return Front(
        device=device,
        score=f"validation {quality.name}, supernet weights",
        archive=cloud,
        front=tuple(front),
        winner=points([scorer.evaluate(result.winner.arch)])[0],
        constraint_ms=result.limit("latency_ms", device),
        baseline=points(evaluated(project.files.baseline)) if has_baseline else (),
        n_images=None if sign == 1 else scorer.evaluate(result.winner.arch).n_images or None,
        is_perplexity=quality == PERPLEXITY,
    )


def _by_latency(point: Point) -> float:
    return point.latency_ms


def latency_data(project: Project, device: str) -> LatencyFit | None:
    """Estimates and timings of the whole networks in a device's table, if it has any."""
    correction = project.files.read_table(device).corrections.get(project.space.id)
    if correction is None:
        return None
    validation, width = correction.validation, correction.interval_fraction
    within_5, within_10 = validation.within
    return LatencyFit(
        device=device,
        forecast_ms=tuple(net.forecast_ms for net in validation.nets),
        measured_ms=tuple(net.measured_ms for net in validation.nets),
        interval_ms=tuple(
            (net.forecast_ms * (1 - width), net.forecast_ms * (1 + width))
            for net in validation.nets
        ),
        mape=validation.forecast.mape,
        tau=validation.forecast.kendall_tau,
        repeat_noise=validation.repeat_mape,
        within_5=within_5,
        within_10=within_10,
    )


def prediction_data(project: Project) -> Prediction:
    """Results of the predictor on held-out subnets."""
    report = project.files.predictor_report.read()
    return Prediction(
        predictor=project.config.predictor.name,
        score="minus log validation cross-entropy",
        predicted=report.predicted,
        measured=report.truth,
        tau=report.kendall_tau,
        tau_interval=report.kendall_tau_interval,
        macs_tau=report.macs_tau,
        n_train=report.n_fit,
        n_at_1=report.top.n_at_1,
        n_at_10=report.top.n_at_10,
        precision_at_10=report.top.precision_at_10,
        regret=report.top.regret,
    )


def training_data(project: Project) -> Training | None:
    """Curves of the supernet training; None if the training has not recorded a point yet."""
    rows = training_rows(project.run)
    if not rows:
        return None
    steps, names = tuple(row.step for row in rows), tuple(rows[0].top1)
    return Training(
        val_top1=tuple(Curve(n, steps, tuple(row.top1[n] for row in rows)) for n in names),
        loss=tuple(Curve(n, steps, tuple(row.val_loss[n] for row in rows)) for n in names),
    )


def _drawing(project: Project) -> Drawing:
    arch, space = networks(project)["winner"], project.space
    caption = f"arch {arch.key}, codes {','.join(map(str, arch.codes))}"
    notation = space.macro.text_of(arch.codes)
    return Drawing("winner", lower(space, arch), caption, notation, cell_views(space, arch))


def _truths(project: Project) -> tuple[Truth, ...]:
    return tuple(
        Truth(
            alone.candidate.arch.key,
            alone.candidate.predicted,
            alone.supernet_top1,
            alone.trained.top1,
        )
        for alone in read_standalone(project)
    )


def _facts(project: Project, *, has_search: bool) -> dict[str, str]:
    config, info = project.config, project.source.info
    host = project.files.environment.read()
    seconds = {name: record.seconds for name, record in project.run.ledger().items()}
    return {
        "data": f"{info.name}, {info.num_classes} classes, {images_text(project)}",
        "space": f"{project.space.id}, {project.space.size():.3g} archs",
        "devices": ", ".join(
            f"{spec.name} ({spec.runtime} {spec.provider}, {spec.precision}, batch {spec.batch},"
            f" {spec.threads} thread{'s' * (spec.threads > 1)}, {spec.transport})"
            for spec in project.devices.values()
        ),
        "constraints": "; ".join(
            f"{c.metric} on {c.device} <= "
            + (f"{c.max}" if c.max is not None else f"{c.max_fraction_of_largest} of the largest")
            + ("" if c.probability is None else f" with probability {c.probability:g}")
            for c in config.search.constraints
        ),
        "searcher": config.search.searcher.name,
        **(search_facts(project) if has_search else {}),
        "seed": str(config.seed),
        "host": f"{host.cpu}, {host.n_cpus} CPUs, {host.system}",
        "packages": ", ".join(f"{name} {version}" for name, version in host.packages.items()),
        "time": ", ".join(f"{name} {duration(s)}" for name, s in seconds.items())
        + f"; {duration(sum(seconds.values()))} in all",
    }
