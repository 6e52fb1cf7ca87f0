"""Opens a run folder as a project: which settings apply, and when they are stored."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from hwnas.core.env import use_threads
from hwnas.core.errors import UserError, worker_killed
from hwnas.core.history import needs_settling, settle
from hwnas.core.memory import keep_freed_memory
from hwnas.core.overrides import checked_changes
from hwnas.core.progress import Progress
from hwnas.core.rundir import NewSettings, RunDir
from hwnas.core.store import explained
from hwnas.pipeline.changed_defaults import with_kept_defaults
from hwnas.pipeline.config import ExperimentConfig, load_config
from hwnas.pipeline.project import Project
from hwnas.pipeline.search_files import SettingsFiles
from hwnas.pipeline.stored import (
    config_data,
    earlier_config,
    new_settings,
    require_same_space,
    stored_config,
    warn_of_edits,
)
from hwnas.training.distributed import join

__all__ = ["open_project"]

log = logging.getLogger(__name__)


@contextlib.contextmanager
def open_project(
    root: Path,
    *,
    config: str | None = None,
    changes: Mapping[str, Any] | None = None,
    progress_for: Callable[[str], Progress],
    command: str,
    read_only: bool = False,
    as_recorded: bool = False,
) -> Iterator[Project]:
    """Opens the project in `root` and locks it while in use.

    `config` (a shipped name or a path) replaces the configuration of the folder, and `changes` set
    single keys by path. `engine.execute` stores the changed configuration after all checks have
    passed, and sends it to other ranks under torchrun (`pipeline.follow`).

    read_only: nothing is stored, and no lock is taken.
    as_recorded: facts about the data come from the record of the run, for verbs that only read it.

    Raises:
        UserError: the configuration is missing or invalid, the folder is in use, or it contains
            links, pipes or devices.
    """
    changes = None if changes is None else checked_changes(changes)
    run = RunDir(root)
    with explained("look into the run folder", root):
        run.check()
        stored_config(run).exists()
    _end_unfinished(run)
    given = config, changes
    how = {"progress_for": progress_for, "as_recorded": as_recorded, "read_only": read_only}
    project, _ = _opened(run, given, **how)
    warn_of_edits(project.files.of_search(project.config.search.name))
    if read_only:
        with _kills_in_words():
            yield project
        return
    _ = project.formats, project.space  # invalid settings are not stored
    project.require_limited_devices()
    with run.locked(command), _kills_in_words():
        settle(run)
        project, earlier = _opened(run, given, **how)
        project = replace(project, ranks=join())
        use_threads(project.config.threads)
        keep_freed_memory()
        warn_of_edits(stored_config(run))
        for note in project.outside.notes:
            log.warning("%s", note)
        to_store = _to_store(project, earlier, command, given)
        yield replace(project, run=replace(run, settings=to_store))


@contextlib.contextmanager
def _kills_in_words() -> Iterator[None]:
    """Raises an error that the user can fix if a process that prepares images is killed."""
    try:
        yield
    except RuntimeError as error:
        if (killed := worker_killed(error)) is None:
            raise
        raise killed from error


def _opened(
    run: RunDir, given: tuple[str | None, Mapping[str, Any] | None], **how: Any
) -> tuple[Project, ExperimentConfig | None]:
    """The project for a command's `config` and `changes`, and the stored configuration."""
    config, changes = given
    data, where = config_data(run, config, changes)
    around = SettingsFiles(run).around
    folders = [where.parent, run.root] + ([] if around is None else [around.root])
    beside = (*folders, *(folder.absolute().parent for folder in folders[1:]))
    is_named = config is not None and (around is None or where.parent != run.root.parent)
    settings = changes if config is None else with_kept_defaults(run, data, changes or {})
    loaded = load_config(data, settings, where=where)
    earlier = loaded if config is None and not changes else earlier_config(run)
    require_same_space(run, earlier, loaded)
    changed = None if is_named else tuple(changes or ())
    return Project(run, loaded, beside=beside, around=around, changed=changed, **how), earlier


def _to_store(
    project: Project,
    earlier: ExperimentConfig | None,
    command: str,
    given: tuple[str | None, Mapping[str, Any] | None],
) -> NewSettings:
    """The changes that a command with these settings stores after its checks have passed."""
    run, ranks, plain = project.run, project.ranks, project.config.model_dump(mode="json")
    return new_settings(
        run,
        earlier,
        project.config,
        command=command,
        given=given,
        outside=project.outside.texts(),
        stored=lambda: ranks.tell({"root": str(run.root.resolve()), "config": plain}),
    )


def _end_unfinished(run: RunDir) -> None:
    """Completes or reverts the work of a killed process, if no other process is running."""
    if not needs_settling(run):
        return
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(run.locked("hwnas"))
        except UserError:
            return
        settle(run)
