"""`hwnas verify`: checks exported networks, or a bundle, against their promises."""

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
from hwnas.api.stage import bring_up_to_date, of_search
from hwnas.core.errors import CheckFailed, NotJudged, UserError
from hwnas.pipeline.opening import open_project

__all__ = [
    "BundleCheck",
    "bundle_plan",
    "is_bundle",
    "refuse_of_bundles",
    "refuse_of_runs",
    "verify",
]


@dataclass(frozen=True)
class BundleCheck:
    """What `verify` found of a bundle.

    models, latency: rows. notes: what was not checked, and why. failed: what fell short.
    not_judged: what was checked, but on a machine too far from its speed to judge it.
    """

    folder: Path
    models: tuple[Row, ...]
    latency: tuple[Row, ...]
    notes: tuple[str, ...]
    failed: tuple[str, ...]
    not_judged: tuple[str, ...]

    @property
    def title(self) -> str:
        """Headline of the table of models."""
        return str(self.folder)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; models are under `"table"`."""
        return {
            "table": [dict(row) for row in self.models],
            "latency": [dict(row) for row in self.latency],
            "notes": list(self.notes),
            "failed": list(self.failed),
            "not_judged": list(self.not_judged),
        }

    def raise_for_checks(self) -> None:
        """Raise if a check of the bundle failed or could not be judged.

        Raises:
            CheckFailed: says where it falls short.
            NotJudged: no check failed, but some could not be judged.
        """
        if self.failed:
            raise CheckFailed(
                "checks of the bundle failed",
                found="; ".join(self.failed),
                where=self.folder,
                fix="export it again, or `--report-only` accepts it",
            )
        if self.not_judged:
            raise NotJudged(
                "checks of the bundle could not be judged",
                found="; ".join(self.not_judged),
                where=self.folder,
                fix="repeat the command when the machine is quiet; `--report-only` accepts it",
            )


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
    """Re-time and test what was exported, or check a bundle.

    Args:
        folder: a run folder, or a bundle. A bundle is checked against torch on the test split of
            its data set, which the run folder around it tells, or `config`.
        config: starts or replaces the run folder's configuration.
        search: of a run folder: which search [the last one].
        settings: changes of the configuration.
        report_only: return even if a check fell short.
        latency: of a bundle: re-time it on this host, and judge its limits. None: if it was
            measured here, else a note says how to judge it. True: else it is an error.
        trust: of a bundle: also run models that can hold code (`.pt2`, engines) and that this hwnas
            did not write; only for bundles of somebody whom you trust.
        progress: shows it.

    Raises:
        CheckFailed: what was exported falls short.
        NotJudged: the machine is too far from the table's speed to judge it.
        UserError: `latency` is True, and a model cannot be timed here.
    """
    if not is_bundle(folder):
        refuse_of_bundles(latency, trust)
        return bring_up_to_date(
            folder,
            "verify",
            config=config,
            changes=of_search(search, settings),
            progress=progress,
            found=lambda project: held(reported(project), report_only),
        )
    refuse_of_runs(search)
    found = _check_bundle(Path(folder), config, settings, latency, trust, progress)
    if not report_only:
        found.raise_for_checks()
    return found


def is_bundle(folder: Folder) -> bool:
    """Whether a folder is a bundle, and not a run folder."""
    with contextlib.suppress(OSError):  # a name that no folder can have
        return (Path(folder) / "manifest.json").exists()
    return False


def refuse_of_bundles(latency: bool | None, trust: bool) -> None:
    """Refuse what applies to bundles alone.

    Raises:
        UserError: names the option.
    """
    refuse_unused(
        {"--no-latency": latency is False, "--trust": trust},
        to="a run folder, only to a bundle",
        fix="leave it out, or give a folder in RUN/bundles/",
    )


def refuse_of_runs(search: str | None) -> None:
    """Refuse what applies to run folders alone.

    Raises:
        UserError: names the option.
    """
    refuse_unused({"--search": search}, to="a bundle, which is of one search", fix="leave it out")


def bundle_plan(folder: Folder, *, config: str | None = None, settings: Settings = None) -> Listing:
    """What `verify` would check of a bundle.

    Raises:
        UserError: not a bundle, or settings that it would not be checked with.
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
    """Refuse to leave out the timings that were asked for.

    Raises:
        UserError: a model was not timed here.
    """
    absent = [f"{row['model']} on {row['device']}" for row in latency if row["here_ms"] is None]
    if absent or not latency:
        why = [note for note in notes if note.startswith("latency on ")]
        raise UserError(
            "--latency cannot be done here",
            expected="models that were measured on this machine",
            found="; ".join([*absent, *why]) or "the manifest names no device",
            where=folder,
            fix="run `python3 device_run.py --check .` in the bundle on its device, or leave out"
            " --latency",
        )
