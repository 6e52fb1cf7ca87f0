"""`hwnas clean`: lists and removes files that hwnas makes again when it needs them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from hwnas.api.profile_run import device_name
from hwnas.api.result import Folder, Listing, listed, no_progress
from hwnas.core.leftover import Leftover
from hwnas.core.rundir import RunDir
from hwnas.core.store import explained
from hwnas.devices.spec import load_transport
from hwnas.interfaces import Transport
from hwnas.pipeline.artifacts import Artifacts
from hwnas.pipeline.opening import open_project
from hwnas.studies.clean import caches, kits, of_run, of_timings, samples_of

__all__ = ["clean"]


def clean(
    folder: Folder | None = None,
    *,
    device: Sequence[str] = (),
    with_undo: bool = False,
    yes: bool = False,
) -> Listing:
    """Lists files that can be removed, with their sizes; `yes` removes them.

    hwnas makes these files again when it needs them: decoded images, models that were timed, kits
    on devices, and superseded stages.

    Args:
        folder: a run folder, for its superseded files and the models that it timed; or a folder of
            timings (`TABLE.samples`). Without `folder` and `device`: the caches in ~/.cache/hwnas
            ($HWNAS_CACHE).
        device: names or YAML files of devices whose kits to list. Samples that exist only there are
            kept; samples that `folder` has, too, are removed.
        with_undo: also files that the next `undo` would restore.
        yes: remove the listed files.

    Returns:
        A row per file or folder: `what`, `where`, size in `mb`, and what is `kept` and why.
            Facts: the total `mb`, and whether it was `removed`.

    Raises:
        UserError: not a run folder, another process uses it, or a device does not respond.
    """
    with _found(folder, listed(device), with_undo=with_undo, alone=yes) as found:
        for left in found if yes else ():
            if left.n_bytes:
                left.remove()
    megabytes = round(sum(left.n_bytes for left in found) / 1e6, 3)
    rows = [
        {
            "what": left.what,
            "where": left.where,
            "mb": round(left.n_bytes / 1e6, 3),
            "kept": left.kept or None,
        }
        for left in found
        if left.n_bytes or left.kept
    ]
    title = f"{'removed' if yes else 'can be removed'}: {megabytes:.1f} MB"
    return Listing(rows, title=title, facts={"mb": megabytes, "removed": yes})


@contextlib.contextmanager
def _found(
    folder: Folder | None, devices: list[str], *, with_undo: bool, alone: bool
) -> Iterator[list[Leftover]]:
    """Yields the files to remove; with `alone`, the run folder is locked meanwhile."""
    if folder is None:
        yield [left for name in devices for left in kits(load_transport(name), {})] or (
            [] if devices else caches()
        )
        return
    run = RunDir(Path(folder))
    with explained("look into the run folder", run.root):
        run.check()
        is_run = Artifacts(run).config.is_file()
    if not is_run:
        there = [left for name in devices for left in kits(load_transport(name), _home(run.root))]
        yield [*of_timings(run.root), *there]
        return
    with contextlib.ExitStack() as stack:
        if alone:
            stack.enter_context(run.locked("hwnas clean"))
        there = []
        for name in devices:
            there += kits(_transport(run, name), samples_of(run, device_name(name)))
        yield [*of_run(run, with_undo=with_undo), *there]


def _home(folder: Path) -> dict[str, int]:
    return {path.stem: path.stat().st_size for path in folder.glob("results-*.jsonl")}


def _transport(run: RunDir, device: str) -> Transport:
    """Transport of a device of the run, or of any other device."""
    if device == device_name(device):
        with open_project(
            run.root,
            progress_for=no_progress,
            command="hwnas clean",
            read_only=True,
            as_recorded=True,
        ) as project:
            if device in project.devices:
                return project.transport(device)
    return load_transport(device)
