"""`hwnas predictor ...`: fit, evaluate and use the accuracy predictor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwnas.api.options import refuse_unused, require_place
from hwnas.api.result import Folder, Listing, ProgressFor, Row, Settings, no_progress
from hwnas.api.stage import bring_up_to_date
from hwnas.core.errors import UserError
from hwnas.pipeline.evaluators import score_unit
from hwnas.pipeline.opening import open_project
from hwnas.pipeline.project import Project
from hwnas.spaces.arch import Arch
from hwnas.spaces.choice import Value
from hwnas.spaces.load import read_arch
from hwnas.spaces.space import SearchSpace

if TYPE_CHECKING:
    from hwnas.studies.compare_predictors import Labels

__all__ = [
    "predictor_eval",
    "predictor_export_lut",
    "predictor_fit",
    "predictor_lookup",
    "predictor_predict",
]


def predictor_fit(
    folder: Folder,
    *,
    config: str | None = None,
    settings: Settings = None,
    progress: ProgressFor = no_progress,
) -> Listing:
    """Fits the predictor on the labels of a run; returns its report on held-out labels."""
    return bring_up_to_date(
        folder, "predictor", config=config, changes=settings, progress=progress, found=_fit
    )


def _fit(project: Project) -> Listing:
    report = project.files.predictor_report.read()
    low, high = report.kendall_tau_interval
    row: Row = {
        "predictor": project.config.predictor.name,
        "labels": ", ".join(f"{n} {source}" for source, n in report.sources.items()),
        "n_fit": report.n_fit,
        "n_held_out": report.n_held_out,
        "kendall_tau": report.kendall_tau,
        "tau_low": low,
        "tau_high": high,
        **report.top.row(),
        "macs_tau": report.macs_tau,
        "coverage": report.coverage,
        "blend_weight": project.files.blend.read().weight,
    }
    return Listing([row])


# long: every argument is documented; the body is short
def predictor_eval(
    folder: Folder | None = None,
    *,
    records: Folder | None = None,
    reader: str | None = None,
    target: str | None = None,
    also: Sequence[str] = (),
    proxy: Sequence[str] = (),
    space: str | None = None,
    num_classes: int | None = None,
    settings: Settings = None,
    predictor: str = "gcn",
    train_size: int = 100,
    seeds: int = 3,
    baselines: bool = True,
    progress: ProgressFor = no_progress,
) -> Listing:
    """Fits predictors to `train_size` random labels, and compares how well they rank the rest.

    Args:
        folder: a run folder, whose labels are used; either this or `records` is required.
        records: a file of labelled archs.
        reader: format of `records`; default: detected.
        target: column to predict.
        also: columns with cheaper labels of all archs to learn from.
        proxy: columns to use as features.
        space: space of the archs, if the reader does not define it, with `settings`, `num_classes`.
        predictor: see `hwnas.list("predictors")`.
        seeds: number of random splits.
        baselines: whether to evaluate the other predictors too.
        progress: shows the progress.

    Raises:
        UserError: not exactly one of `folder` and `records`, or fewer archs than requested.
    """
    from hwnas.studies.compare_predictors import compare, labels_of_file

    if (records is None) == (folder is None):
        given = "neither" if folder is None else "both"
        raise UserError(
            "predictor eval needs one source of labels",
            expected="RUN (in Python `folder`), or --records FILE (in Python `records`)",
            found=given,
        )
    if folder is not None:
        refuse_unused(
            {
                "--reader": reader,
                "--target": target,
                "--also": also,
                "--proxy": proxy,
                "--space": space,
                "--num-classes": num_classes,
                "--set": settings,
            },
            to="the labels of a run folder, only to --records",
            fix="leave it out, or give --records FILE in place of the run folder",
        )
        labels = _labels_of_run(Path(folder), progress)
    else:
        labels = labels_of_file(
            Path(str(records)),
            reader=reader,
            target=target,
            also=also,
            proxies=proxy,
            space=space,
            settings=settings,
            num_classes=num_classes,
        )
    rows = compare(
        labels,
        predictor,
        n_fit=train_size,
        n_seeds=seeds,
        has_baselines=baselines,
        progress=progress("predictor eval"),
    )
    first, *others = rows
    sources = {labels.target: train_size, **{o.source: len(o.codes) for o in labels.others}}
    facts: dict[str, Any] = {
        **first,
        "baselines": {row["predictor"]: row for row in others},
        "n_fit": train_size,
        "n_test": len(labels.codes) - train_size,
        "n_seeds": seeds,
        "sources": sources,
    }
    return Listing(rows, facts=facts)


def _labels_of_run(folder: Path, progress: ProgressFor) -> Labels:
    from hwnas.studies.compare_predictors import labels_of_run

    with open_project(
        folder,
        progress_for=progress,
        command="hwnas predictor eval",
        read_only=True,
        as_recorded=True,
    ) as project:
        return labels_of_run(project)


def predictor_predict(folder: Folder, archs: Sequence[Arch | str]) -> Listing:
    """Predicted score of some archs, its standard deviation, and all metrics.

    The fact `score_unit` says what the score is, e.g. `minus log of the validation loss`.

    archs: archs, `largest`, `smallest`, comma-separated codes, or `.json` files.
    """
    from hwnas.pipeline.costs import prices
    from hwnas.pipeline.predictor import load_predictor

    with open_project(
        Path(folder),
        progress_for=no_progress,
        command="hwnas predictor predict",
        read_only=True,
        as_recorded=True,
    ) as project:
        members = [_member(project.space, arch) for arch in archs]
        codes = project.space.codes(members)
        mean, std = load_predictor(project).predict(codes)
        costs = {key: metric(codes) for key, metric in prices(project).items()}
        unit = score_unit(project)
    rows = [
        {
            "arch": arch.key,
            "score": float(mean[row]),
            "std": float(std[row]),
            **{key: float(cost[row]) for key, cost in costs.items()},
        }
        for row, arch in enumerate(members)
    ]
    return Listing(rows, shown=_with_unit(rows, unit), facts={"score_unit": unit})


def _with_unit(rows: Sequence[Row], unit: str) -> list[Row]:
    """Rows for a terminal, which name the unit of the score."""
    names = {"score": f"score [{unit}]", "best score": f"best score [{unit}]"}
    return [{names.get(key, key): value for key, value in row.items()} for row in rows]


def _member(space: SearchSpace, given: Arch | str) -> Arch:
    return space.check(given) if isinstance(given, Arch) else read_arch(space, given)


def predictor_export_lut(
    folder: Folder,
    *,
    out: Folder | None = None,
    restrict: Mapping[str, Sequence[Value]] | None = None,
    base: Arch | str | None = None,
    free: Sequence[str] = (),
    progress: ProgressFor = no_progress,
) -> Listing:
    """Writes the prediction of every arch of a (sub)space to a lookup table.

    Args:
        folder: the run folder.
        out: the file; default: `predictor/lut.safetensors` of the run.
        restrict: maps a choice to the values to keep.
        base: an arch that fixes all choices that do not match `free`.
        free: patterns of choices, such as `stage2.*`.
        progress: shows the progress.
    """
    from hwnas.studies.score_table import export

    require_place(out)
    with open_project(
        Path(folder),
        progress_for=progress,
        command="hwnas predictor export-lut",
        read_only=out is not None,
        as_recorded=out is not None,
    ) as project:
        path = Path(out) if out is not None else project.files.score_table
        table = export(
            project,
            path,
            restrict=restrict,
            base=None if base is None else _member(project.space, base),
            free=free,
            progress=progress("export-lut"),
        )
        unit = score_unit(project)
    row: Row = {
        "table": str(path),
        "archs": len(table.means),
        "best score": float(table.means.max()),
        "source": table.source,
    }
    return Listing([row], shown=_with_unit([row], unit), facts={"score_unit": unit})


def predictor_lookup(
    folder: Folder,
    *,
    table: Folder | None = None,
    limits: Mapping[str, float] | None = None,
    top: int = 5,
) -> Listing:
    """Finds the `top` best archs of a lookup table within limits, without new predictions.

    table: the file; default: `predictor/lut.safetensors` of the run.
    limits: maximum cost by metric key, e.g. `{"latency_ms@local": 2.5}`.
    """
    from hwnas.studies.score_table import look_up

    with open_project(
        Path(folder),
        progress_for=no_progress,
        command="hwnas predictor lookup",
        read_only=True,
        as_recorded=True,
    ) as project:
        path = Path(table) if table is not None else project.files.score_table
        found = look_up(project, path, limits or {}, k=top)
        unit = score_unit(project)
    rows = [
        {
            "arch": ",".join(map(str, codes)),
            "score": float(found.means[row]),
            "std": float(found.stds[row]),
            **{key: float(cost[row]) for key, cost in found.costs.items()},
        }
        for row, codes in enumerate(found.codes.tolist())
    ]
    return Listing(
        rows,
        title=f"{found.n_feasible:,} of {found.n:,} archs are within the limits",
        facts={"n_feasible": found.n_feasible, "n": found.n, "score_unit": unit},
        shown=_with_unit(rows, unit),
    )
