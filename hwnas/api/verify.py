"""`hwnas verify`: checks exported networks, or a bundle."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hwnas.api.bundle_source import require_data_of, source_of_settings, with_search
from hwnas.api.open_run import Run
from hwnas.api.options import refuse_unused
from hwnas.api.result import Folder, Listing, ProgressFor, Row, Settings, no_progress
from hwnas.api.run import held, reported
from hwnas.api.stage import bring_up_to_date, of_known_search
from hwnas.core.errors import CheckFailed, NotJudged, UserError
from hwnas.core.stats import accuracy_text
from hwnas.pipeline.opening import open_project

__all__ = [
    "BundleCheck",
    "bundle_plan",
    "is_bundle",
    "refuse_of_bundles",
    "refuse_of_runs",
    "verify",
]


NOT_SHOWN = ("n test", "max diff", "mean diff")
"""Columns that a terminal leaves out; `relative` is the difference that is judged."""


@dataclass(frozen=True)
class BundleCheck:
    """Result of `verify` for a bundle.

    models: rows about the files. latency: rows about their latencies.
    notes: checks that were not made, with the reason.
    failed: failed checks.
    not_judged: checks that could not be judged, because the speed of the machine differs too much
        from that of the table.
    """

    folder: Path
    models: tuple[Row, ...]
    latency: tuple[Row, ...]
    notes: tuple[str, ...]
    failed: tuple[str, ...]
    not_judged: tuple[str, ...]

    @property
    def title(self) -> str:
        """Headline of the table of models: the folder of the bundle."""
        return str(self.folder)

    @property
    def shown(self) -> list[Row]:
        """The rows of the models for a terminal: accuracies in percent, with standard errors."""
        return [_in_percent(row) for row in self.models]

    def to_dict(self) -> dict[str, Any]:
        """JSON values; models are in `"table"`."""
        return {
            "table": [dict(row) for row in self.models],
            "latency": [dict(row) for row in self.latency],
            "notes": list(self.notes),
            "failed": list(self.failed),
            "not_judged": list(self.not_judged),
        }

    def raise_for_checks(self) -> None:
        """Raises an error if a check of the bundle failed or could not be judged.

        Raises:
            CheckFailed: names the failed checks.
            NotJudged: no check failed, but some could not be judged.
        """
        if self.failed:
            raise CheckFailed(
                "checks of the bundle failed",
                found="; ".join(self.failed),
                where=self.folder,
                fix="export the run again, or accept the result with `--report-only`",
            )
        if self.not_judged:
            raise NotJudged(
                "checks of the bundle could not be judged",
                found="; ".join(self.not_judged),
                where=self.folder,
                fix="repeat the command when the machine is idle, or accept the result with"
                " `--report-only`",
            )


def _in_percent(row: Row) -> Row:
    n = row.get("n test")
    texts = {key: accuracy_text(row.get(key), n) for key in ("test top1", "promised top1")}
    lost = row.get("lost")
    texts["lost"] = None if lost is None else f"{100 * lost:+.2f} points"
    return {key: texts.get(key, value) for key, value in row.items() if key not in NOT_SHOWN}


def verify(
    folder: Folder,
    *,
    config: str | None = None,
    search: str | None = None,
    settings: Settings = None,
    report_only: bool = False,
    latency: bool | None = None,
    trust: bool = False,
    progress: ProgressFor = no_progress,
) -> Run | BundleCheck:
    """Re-times and tests the exported networks of a run, or checks a bundle.

    Args:
        folder: a run folder, or a bundle. A bundle is checked against torch on the test split of
            its data set, which the run folder around it or `config` defines.
        config: starts or replaces the configuration of the run folder.
        search: for a run folder: name of the search; default: the last one.
        settings: changes of the configuration.
        report_only: return even if a check failed.
        latency: for a bundle: whether to re-time it on this host, and judge its limits. None: only
            if it was measured on this host, otherwise a note explains how to judge it. True: it is
            an error if it was not measured here.
        trust: for a bundle: also run models that can contain code (`.pt2`, engines) and that this
            hwnas did not write. Use it only for bundles from a trusted source.
        progress: shows the progress.

    Raises:
        CheckFailed: a check failed.
        NotJudged: the speed of the machine differs too much from that of the table to judge.
        UserError: `latency` is True, and a model cannot be timed here.
    """
    if not is_bundle(folder):
        refuse_of_bundles(latency, trust)
        return bring_up_to_date(
            folder,
            "verify",
            config=config,
            changes=of_known_search(folder, search, settings),
            progress=progress,
            found=lambda project: held(reported(project), report_only),
            then_reports=True,
        )
    refuse_of_runs(search)
    found = _check_bundle(Path(folder), config, settings, latency, trust, progress)
    if not report_only:
        found.raise_for_checks()
    return found


def is_bundle(folder: Folder) -> bool:
    """Whether a folder is a bundle instead of a run folder."""
    with contextlib.suppress(OSError):  # an invalid file name
        return (Path(folder) / "manifest.json").exists()
    return False


def refuse_of_bundles(latency: bool | None, trust: bool) -> None:
    """Refuses options that only apply to bundles.

    Raises:
        UserError: names the option.
    """
    refuse_unused(
        {"--no-latency": latency is False, "--trust": trust},
        to="a run folder, only to a bundle",
        fix="leave it out, or give a folder in RUN/bundles/",
    )


def refuse_of_runs(search: str | None) -> None:
    """Refuses options that only apply to run folders.

    Raises:
        UserError: names the option.
    """
    refuse_unused({"--search": search}, to="a bundle, which has one search", fix="leave it out")


def bundle_plan(folder: Folder, *, config: str | None = None, settings: Settings = None) -> Listing:
    """The checks that `verify` would make for a bundle.

    Raises:
        UserError: not a bundle, or settings that do not apply to it.
    """
    from hwnas.exporters.bundle import read_manifest

    models = read_manifest(Path(folder)).models
    if (source := source_of_settings(Path(folder), config, settings)) is not None:
        changes, _ = with_search(source, Path(folder), config, settings)
        with open_project(
            source,
            config=config,
            changes=changes,
            progress_for=no_progress,
            command="hwnas verify",
            read_only=True,
        ):
            pass
    return Listing(
        [{"model": m.path, "format": m.format, "checks": "torch, test split"} for m in models]
    )


def _check_bundle(
    folder: Path,
    config: str | None,
    settings: Settings,
    latency: bool | None,
    trust: bool,
    progress: ProgressFor,
) -> BundleCheck:
    from hwnas.latency.sections import ProfileConfig
    from hwnas.measure.bundle_check import verify_bundle
    from hwnas.measure.limits import CheckSettings, VerifyConfig

    source = source_of_settings(folder, config, settings)
    if source is None:
        found = verify_bundle(
            folder,
            data=None,
            settings=CheckSettings(ProfileConfig(), VerifyConfig(), 0),
            with_latency=latency is not False,
            trust=trust,
            progress=progress("verify"),
        )
    else:
        changes, notes = with_search(source, folder, config, settings)
        with open_project(
            source,
            config=config,
            changes=changes,
            progress_for=progress,
            command="hwnas verify",
            read_only=True,
            as_recorded=config is None,
        ) as project:
            chosen, absent = project.config, project.source.absent
            if not absent and config is None:
                require_data_of(folder, project)
            found = verify_bundle(
                folder,
                data=None if absent else project.data,
                settings=CheckSettings(chosen.profile, chosen.verify, chosen.seed),
                with_latency=latency is not False,
                threads=chosen.threads,
                trust=trust,
                progress=progress("verify"),
            )
            if absent:
                notes = (absent, *notes)
            doubts = () if absent else tuple(map(str, project.source.shared))
            found = replace(found, notes=(*notes, *doubts, *found.notes))
    if latency:
        _require_timed(folder, found.latency, found.notes)
    return BundleCheck(
        folder, found.models, found.latency, found.notes, found.failed, found.not_judged
    )


def _require_timed(folder: Path, latency: tuple[Row, ...], notes: tuple[str, ...]) -> None:
    """Refuses a result without the requested timings.

    Raises:
        UserError: a model was not timed here.
    """
    absent = [f"{row['model']} on {row['device']}" for row in latency if row["here_ms"] is None]
    if absent or not latency:
        why = [note for note in notes if note.startswith("latency on ")]
        raise UserError(
            "--latency: a model was not timed on this machine",
            expected="models that were measured on this machine",
            found="; ".join([*absent, *why]) or "the manifest names no device",
            where=folder,
            fix="run `python3 device_run.py --check .` in the bundle on its device, or leave out"
            " --latency",
        )
