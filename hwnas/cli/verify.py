"""`hwnas verify`: checks exported networks, or a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import hwnas
from hwnas.api.result import as_shown
from hwnas.cli.options import (
    ConfigOption,
    DryRunOption,
    FormatOption,
    ReportOnly,
    SearchOption,
    SetOption,
)
from hwnas.cli.output import Format, emit, progress_for
from hwnas.cli.run import show_run
from hwnas.cli.shared import show, show_plan
from hwnas.core.overrides import assignments

if TYPE_CHECKING:
    from hwnas.api.verify import BundleCheck

__all__ = ["register"]


def register(parent: typer.Typer) -> None:
    """Adds the verb to the command line."""
    parent.command()(verify)


def verify(
    folder: Annotated[
        Path,
        typer.Argument(metavar="RUN|BUNDLE", readable=False, help="A run folder, or a bundle."),
    ],
    config: ConfigOption = None,
    search: SearchOption = None,
    settings: SetOption = None,
    format: FormatOption = Format.table,
    dry_run: DryRunOption = False,
    report_only: ReportOnly = False,
    latency: Annotated[
        bool | None,
        typer.Option(
            "--latency/--no-latency",
            help="For a bundle: re-time it on this host [if it was measured on this host].",
        ),
    ] = None,
    trust: Annotated[
        bool,
        typer.Option(
            "--trust", help="For a bundle: also run models that can contain untrusted code."
        ),
    ] = False,
) -> None:
    """Re-time and test the exported networks, or check a bundle; exit 3 if a check fails.

    A bundle is checked against torch on the test split of its data set. The run folder around the
    bundle, or --config, defines the data set. Models that can contain code (.pt2, engines) and that
    this hwnas did not write are only run with --trust.

    Example: `hwnas verify runs/quickstart --config quickstart --dry-run`.
    """
    from hwnas.api.open_run import Run
    from hwnas.api.stage import of_known_search
    from hwnas.api.verify import bundle_plan, is_bundle, refuse_of_bundles, refuse_of_runs

    changes = assignments(settings or ())
    if dry_run and is_bundle(folder):
        refuse_of_runs(search)
        show(bundle_plan(folder, config=config, settings=changes), format)
    elif dry_run:
        refuse_of_bundles(latency, trust)
        planned = of_known_search(folder, search, changes)
        show_plan(folder, format, config=config, settings=planned, only="verify")
    else:
        found = hwnas.verify(
            folder,
            config=config,
            search=search,
            settings=changes,
            report_only=True,
            latency=latency,
            trust=trust,
            progress=progress_for,
        )
        if isinstance(found, Run):
            show_run(found, format, report_only=report_only)
        else:
            _show_bundle(found, format, report_only=report_only)


def _show_bundle(found: BundleCheck, format: Format, *, report_only: bool) -> None:
    import logging

    log = logging.getLogger("hwnas.cli")
    show(found, format)
    if found.latency and format is Format.table:
        emit([*map(as_shown, found.latency)], format=format, title="latency")
    for note in found.notes:
        log.info("note: %s", note)
    for problem in found.failed:
        log.info("FAIL %s", problem)
    for problem in found.not_judged:
        log.info("not judged: %s", problem)
    if not report_only:
        found.raise_for_checks()
