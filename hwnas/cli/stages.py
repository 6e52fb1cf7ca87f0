"""The verbs that work on a run folder: one stage each, and `report` and `status`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from hwnas.cli.options import ConfigOption, DryRunOption, FormatOption, RunArgument, SetOption
from hwnas.cli.output import Format, emit, progress_for
from hwnas.cli.run import emit_plan
from hwnas.core.config import assignments

if TYPE_CHECKING:
    from hwnas.pipeline.project import Project

__all__ = ["register", "run_stage", "stage_verb"]

Rows = Sequence[Mapping[str, Any]]


def register(parent: typer.Typer) -> None:
    """Add the verbs to the command line."""
    summary = "Fine-tune the winner and the networks it is compared with."
    parent.command("finetune")(stage_verb("finetune", "hwnas finetune", summary, _finetune_rows))
    for verb in (train, label, search, report, status):
        parent.command()(verb)


def run_stage(
    folder: Path,
    prefix: str,
    *,
    config: str | None,
    changes: Mapping[str, Any],
    format: Format,
    dry_run: bool,
    show: Callable[[Project], None],
    before: Callable[[Project], None] | None = None,
    plan: Callable[[Project], None] | None = None,
    is_whole_name: bool = False,
) -> None:
    """Bring the stages called `prefix` or `prefix/...` up to date, then `show` the outcome.

    With `is_whole_name` only the one that is called `prefix`; `plan` adds to what a dry run tells.
    """
    from hwnas.pipeline.engine import execute
    from hwnas.pipeline.graph import stages_of
    from hwnas.pipeline.project import open_project

    with open_project(
        folder,
        config=config,
        changes=changes,
        progress_for=progress_for,
        command=f"hwnas {prefix}",
        read_only=dry_run,
    ) as project:
        if dry_run:
            emit_plan(project, format)
            if plan is not None:
                plan(project)
            return
        if before is not None:
            before(project)
        stages = stages_of(project)
        names = [stage.name for stage in stages]
        only = [prefix] if is_whole_name else [n for n in names if f"{n}/".startswith(f"{prefix}/")]
        execute(stages, project.run, only=only)
        show(project)


def stage_verb(
    prefix: str, command: str, summary: str, rows: Callable[[Project], Rows]
) -> Callable[..., None]:
    """The function of a verb that runs one stage and prints `rows` of its outcome."""

    def verb(
        folder: RunArgument,
        config: ConfigOption = None,
        settings: SetOption = None,
        format: FormatOption = Format.table,
        dry_run: DryRunOption = False,
    ) -> None:
        run_stage(
            folder,
            prefix,
            config=config,
            changes=assignments(settings or ()),
            format=format,
            dry_run=dry_run,
            show=lambda project: emit(rows(project), format=format),
        )

    verb.__doc__ = (
        f"{summary}\n\nExample: `{command} runs/quickstart --config quickstart --dry-run`."
    )
    return verb


def train(
    folder: RunArgument,
    config: ConfigOption = None,
    settings: SetOption = None,
    format: FormatOption = Format.table,
    dry_run: DryRunOption = False,
    processes: Annotated[
        int | None,
        typer.Option(min=1, help="With --dry-run: plan for so many [those of torchrun, or 1]."),
    ] = None,
) -> None:
    """Train the supernet.

    A dry run times real steps, on invented images, and says what all of them will take.

    Example: `hwnas train runs/quickstart --config quickstart --dry-run`.
    """
    from hwnas.studies.training_cost import tell_training_cost

    run_stage(
        folder,
        "train",
        config=config,
        changes=assignments(settings or ()),
        format=format,
        dry_run=dry_run,
        show=lambda project: emit(_train_rows(project), format=format),
        plan=lambda project: tell_training_cost(project, processes),
    )


def _train_rows(project: Project) -> Rows:
    return [
        {"step": row["step"], **{f"top1 {name}": top1 for name, top1 in row["top1"].items()}}
        for row in project.run.metrics("train")[-1:]
    ]


def _search_rows(project: Project) -> Rows:
    from hwnas.pipeline.winners import winners_by_device

    found = {
        f"winner on {device}" if project.config.search.per_device else "winner": candidate
        for device, candidate in winners_by_device(project).items()
    }
    found["random search"] = project.files.baseline.result.read().winner
    return [{"network": role, "score": c.score, **c.costs} for role, c in found.items()]


def _finetune_rows(project: Project) -> Rows:
    from hwnas.pipeline.standalone import read_standalone
    from hwnas.pipeline.winners import networks

    tuned = [{"network": role, "arch": arch.key} for role, arch in networks(project).items()]
    return [alone.summary() for alone in read_standalone(project)] + tuned


def label(
    folder: RunArgument,
    config: ConfigOption = None,
    source: Annotated[
        Literal["supernet", "trained"],
        typer.Option(help="`supernet`: inherited weights; `trained`: each trained alone."),
    ] = "supernet",
    n: Annotated[int | None, typer.Option("--n", min=1, help="Archs [as configured].")] = None,
    settings: SetOption = None,
    format: FormatOption = Format.table,
    dry_run: DryRunOption = False,
) -> None:
    """Score random subnets with the supernet's weights, or train them alone.

    Example: `hwnas label runs/quickstart --config quickstart --source trained --n 20 --dry-run`.
    """
    key, stage = {
        "supernet": ("label.n_archs", "label"),
        "trained": ("label.trained.n", "label/trained"),
    }[source]
    run_stage(
        folder,
        stage,
        config=config,
        changes=assignments(settings or ()) | ({} if n is None else {key: n}),
        format=format,
        dry_run=dry_run,
        show=lambda project: emit(_label_rows(project, source), format=format),
        before=_require_archs if source == "trained" else None,
        plan=_tell_trained_cost if source == "trained" else None,
        is_whole_name=True,
    )


def _require_archs(project: Project) -> None:
    from hwnas.core.errors import UserError

    if not project.config.label.trained.n:
        raise UserError(
            "how many archs are to be trained alone?",
            expected="--n K, or label.trained.n in the config",
            where=project.run.root,
        )


def _tell_trained_cost(project: Project) -> None:
    import logging

    from hwnas.pipeline.stages.label import measured_trained_cost

    _require_archs(project)
    logging.getLogger("hwnas.cli").info("label/trained: %s", measured_trained_cost(project))


def _label_rows(project: Project, source: str) -> Rows:
    known = project.files.read_labels(source)
    top1 = sorted(evaluation.top1 for evaluation in known)
    return [
        {
            "labels": len(top1),
            "source": source,
            "lowest top1": top1[0],
            "median top1": top1[len(top1) // 2],
            "highest top1": top1[-1],
        }
    ]


def search(
    folder: RunArgument,
    config: ConfigOption = None,
    devices: Annotated[
        str | None,
        typer.Option(help="Comma-separated: a front and a winner for each, of one search."),
    ] = None,
    settings: SetOption = None,
    format: FormatOption = Format.table,
    dry_run: DryRunOption = False,
) -> None:
    """Find the best archs under the constraints, random search beside.

    Example: `hwnas search runs/quickstart --config quickstart --dry-run`.
    """
    chosen: dict[str, Any] = {}
    if devices is not None:
        chosen = assignments([f"devices=[{devices}]"]) | {"search.per_device": True}
    run_stage(
        folder,
        "search",
        config=config,
        changes=chosen | assignments(settings or ()),
        format=format,
        dry_run=dry_run,
        show=lambda project: emit(_search_rows(project), format=format),
    )


def report(
    folder: RunArgument,
    search: Annotated[str | None, typer.Option(help="Which search [the last one].")] = None,
) -> None:
    """Write report.html of what the run folder holds so far."""
    import sys

    from hwnas.pipeline.project import open_project
    from hwnas.studies.run_report import write_run_report

    with open_project(
        folder,
        changes={"search.name": search} if search else {},
        progress_for=progress_for,
        command="hwnas report",
        read_only=True,
    ) as project:
        sys.stdout.write(f"{write_run_report(project)}\n")


def status(
    folder: RunArgument, settings: SetOption = None, format: FormatOption = Format.table
) -> None:
    """What is done, stale or missing in a run folder."""
    from hwnas.pipeline.project import open_project

    with open_project(
        folder,
        changes=assignments(settings or ()),
        progress_for=progress_for,
        command="hwnas status",
        read_only=True,
    ) as project:
        emit_plan(project, format)
