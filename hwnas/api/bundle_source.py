"""The settings for `hwnas verify BUNDLE`: from a run folder around it, or from `--config`."""

from __future__ import annotations

import contextlib
from pathlib import Path

from hwnas.api.options import refuse_unused
from hwnas.api.result import Settings
from hwnas.core.errors import UserError
from hwnas.core.rundir import RunDir
from hwnas.pipeline.project import Project
from hwnas.pipeline.stored import search_of_bundle, stored_config

__all__ = ["READ_OF_SETTINGS", "require_data_of", "source_of_settings", "with_search"]

READ_OF_SETTINGS = ("data", "profile", "seed", "threads", "verify", "workers")
"""Sections of the configuration that a check of a bundle depends on."""


def _is_run_folder(folder: Path) -> bool:
    with contextlib.suppress(UserError):  # a link: not a run folder that would be opened
        return stored_config(RunDir(folder)).is_file()
    return False


def source_of_settings(folder: Path, config: str | None, settings: Settings) -> Path | None:
    """The folder to open as a project for the check of a bundle; None: check with default settings.

    Without `config`, it is the run folder that contains the bundle, whose stored configuration
    applies. With `config`, it is the folder of the bundle, and the caller opens it with `config`.

    Raises:
        UserError: `settings` has keys that the check does not use, or any keys although there is
            neither a `config` nor a run folder.
    """
    around = [p for p in folder.resolve().parents if config is None and _is_run_folder(p)]
    unread = {k: v for k, v in (settings or {}).items() if k.split(".")[0] not in READ_OF_SETTINGS}
    if config is None and not around:
        refuse_unused(
            {"--set": settings},
            to="a bundle outside of its run folder, which is checked with default settings",
            fix="add --config NAME, the configuration that the bundle was made with",
        )
        return None
    refuse_unused(
        {"--set": unread},
        to="a bundle",
        fix=f"leave it out; the check of a bundle only uses {', '.join(READ_OF_SETTINGS)}",
    )
    return around[0] if around else folder


def with_search(
    source: Path, bundle: Path, config: str | None, settings: Settings
) -> tuple[Settings, tuple[str, ...]]:
    """Returns the settings with the bundle's search selected, and a note if it is unknown."""
    from hwnas.exporters.bundle import read_manifest

    if config is not None:
        return settings, ()
    named = read_manifest(bundle).provenance.get("search")
    name = search_of_bundle(RunDir(source), bundle.resolve(), named)
    if name is None:
        return settings, (
            "the run folder does not know the search of this bundle, so the bundle is checked with"
            " the settings of the last search",
        )
    return {**(settings or {}), "search.name": name}, ()


def require_data_of(bundle: Path, project: Project) -> None:
    """Refuses to test a bundle on images that its network may have been trained on.

    Raises:
        UserError: the run has read other data since the bundle was made.
    """
    from hwnas.exporters.bundle import read_manifest

    promised = read_manifest(bundle).provenance.get("data")
    if promised is not None and promised != project.source.digest:
        raise UserError(
            "the bundle was made with different data",
            expected="the data with which the bundle was made (`provenance.data` in its manifest)",
            found="other data",
            where=bundle,
            fix="restore the data, or export a new bundle; `--config` compares with"
            " the data of another configuration",
        )
