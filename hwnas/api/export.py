"""`hwnas.export`: the networks of a run folder, or any network."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from hwnas.api.export_formats import export_changes, fetch_for, is_all
from hwnas.api.result import Folder, Listing, ProgressFor, Settings, no_progress
from hwnas.api.stage import bring_up_to_date, of_known_search
from hwnas.api.status import plan
from hwnas.core.errors import CheckFailed, UserError
from hwnas.core.progress import Progress, duration
from hwnas.exporters.every import left_out
from hwnas.exporters.formats import export as export_network
from hwnas.exporters.names import one_per_call
from hwnas.pipeline.format_time import table_s
from hwnas.pipeline.project import Project
from hwnas.studies.format_table import N_IMAGES, QUIET, ROUNDS, format_table, spread_of

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

__all__ = ["export", "export_plan", "export_run"]

log = logging.getLogger(__name__)

TABLE = "table of formats"
"""Name of the row of a plan for what `--formats all` measures."""


@overload
def export(
    folder: Folder,
    /,
    *,
    config: str | None = None,
    search: str | None = None,
    formats: Sequence[str] | None = None,
    settings: Settings = None,
    fetch: bool = False,
    progress: ProgressFor = no_progress,
) -> Listing: ...


@overload
def export(
    network: torch.nn.Module,
    /,
    format: str,
    folder: Folder,
    *,
    images: NDArray[np.float32] | torch.Tensor | None = None,
    held_out: NDArray[np.float32] | torch.Tensor | None = None,
    metadata: Mapping[str, str] | None = None,
    fetch: bool = False,
    **settings: Any,
) -> tuple[Path, ...]: ...


def export(what: Any, /, *place: Any, **arguments: Any) -> Any:
    """Writes deployable files of the networks of a run (`export_run`), or of any network.

    `export(network, format, folder)` writes one format, and compares the file with the network.
    A network that hwnas did not build needs `images`: normalised training images, float32
    [n, C, H, W], an array or a tensor. `exporters.formats.export` documents `images`, `held_out`,
    `metadata` and further settings. `fetch` downloads what the format needs, see `export_run`.

    Raises:
        UserError: a setting is invalid, the format cannot express the network, or its converter or
            runtime crashed (in another process, unless hwnas itself needs this runtime).
        CheckFailed: the outputs of a file differ from those of the network.
    """
    if isinstance(what, (str, Path)):
        return export_run(what, *place, **arguments)
    _require_network(what)
    if "formats" in arguments:
        raise one_per_call(arguments["formats"])
    if arguments.pop("fetch", False):
        fetch_for([str(format) for format in (*place[:1], arguments.get("format")) if format])
    return export_network(what, *place, **arguments)


def _require_network(what: object) -> None:
    """Refuses objects that are not networks.

    Raises:
        UserError: describes the object.
    """
    from torch import is_tensor
    from torch.nn import Module

    if not isinstance(what, Module):
        fix = "give the path of a run folder, or a torch.nn.Module"
        if isinstance(what, (list, tuple, set, dict)):
            fix = "call hwnas.export(network, format, folder) once for each network"
        if isinstance(what, dict) and what and all(map(is_tensor, what.values())):
            fix = (
                "load these weights into a network (network.load_state_dict), and give the network"
            )
        raise UserError(
            "there is nothing to export",
            expected="a run folder, or a torch network such as supernet.extract(arch) returns",
            found=f"{type(what).__name__}: {repr(what)[:80]}",
            where="the first argument of hwnas.export",
            fix=fix,
        )


def export_run(
    folder: Folder,
    *,
    config: str | None = None,
    search: str | None = None,
    formats: Sequence[str] | None = None,
    settings: Settings = None,
    fetch: bool = False,
    progress: ProgressFor = no_progress,
) -> Listing:
    """Exports the fine-tuned networks of a run and checks their parity; `verify` makes the bundle.

    search: name of the search; default: the last one.
    formats: see `hwnas.list("exporters")`, with a precision as in `onnx:int8`; None: as configured.
        Files for the devices are always exported. `all`: every format that is installed, in every
        precision; the result is then the table of the winners' files, see
        `studies.format_table`.
    fetch: download files that formats need and the cache lacks, such as LiteRT.js for `web`.

    Raises:
        CheckFailed: the outputs of a float32 file differ from those of the network; or a format of
            `formats` cannot express a network, or its runtime crashed. The other formats are still
            exported; with `all`, such a format is a row of the table.
    """
    if fetch:
        fetch_for(formats)
    return bring_up_to_date(
        folder,
        "export",
        config=config,
        changes=export_changes(folder, config, formats, of_known_search(folder, search, settings)),
        progress=progress,
        found=(lambda project: _table(project, progress("formats")))
        if is_all(formats)
        else _exports,
    )


def export_plan(
    folder: Folder,
    *,
    config: str | None = None,
    search: str | None = None,
    formats: Sequence[str] | None = None,
    settings: Settings = None,
) -> Listing:
    """What `export_run` would do: the plan of the stages, and the table of `all` as a last row.

    The table is measured by every call, also if all files are up to date. The fact `notes` names
    the formats that `all` leaves out, and how to install what they need.

    Raises:
        UserError: any error for which the command itself would be refused.
    """
    changes = export_changes(folder, config, formats, of_known_search(folder, search, settings))
    planned = plan(folder, config=config, settings=changes, only="export")
    if not is_all(formats):
        return planned
    n_files = len(changes["export"])
    cost = f"{n_files} files of each winner on up to {N_IMAGES} images, {ROUNDS} rounds of timing"
    row = {"stage": TABLE, "status": "new", "cost": cost}
    notes = [*planned.facts["notes"], *left_out()]
    names = [section["name"] for section in changes["export"]]
    why, left_s = "measured by every call", table_s(names)
    shown = {**row, "time": f"about {duration(left_s)}"}
    if "why" in planned.shown[0]:
        shown["why"] = why
    return replace(
        planned,
        rows=[*planned, {**row, "seconds": None, "why": why, "left_s": left_s, "now": True}],
        shown=[*planned.shown, {key: shown[key] for key in planned.shown[0]}],
        facts={**planned.facts, "notes": notes, "left_s": planned.facts["left_s"] + left_s},
    )


def _exports(project: Project) -> Listing:
    exports = project.files.read_exports()
    failed = {
        f"{key}/{one.model.path}": one.failure
        for key, formats in exports.items()
        for one in formats
        if one.failure
    }
    if failed:
        raise CheckFailed(
            "some formats are missing; all others were exported",
            found="; ".join(f"{name}: {reason}" for name, reason in failed.items()),
            where=project.files.exported,
            fix="remove these formats from the formats to export",
        )
    rows: list[Mapping[str, Any]] = [
        {"arch": key, **one.summary()} for key, formats in exports.items() for one in formats
    ]
    return Listing(rows)


def _table(project: Project, progress: Progress) -> Listing:
    rows = format_table(project, progress)
    n = max(row.n_images for row in rows)
    archs = list(dict.fromkeys(row.arch for row in rows))
    shown = [({"arch": row.arch} if len(archs) > 1 else {}) | row.shown() for row in rows]
    spread, threads = spread_of(rows), project.config.threads
    title = (
        f"files of the {'winners' if len(archs) > 1 else 'winner'}: top-1 and parity on {n} test"
        f" images; ms: latency of one image with {threads} thread{'s' * (threads > 1)}, all files"
        " timed in turns"
    )
    if spread is not None:
        title += f", which vary by {spread:.1%}"
        if spread > QUIET:
            log.warning(
                "%s",
                "the times in the table are noisy: those of a file vary by"
                f" {spread:.1%} between rounds (expected: at most {QUIET:.0%}); close other"
                " programs, and run the same command again",
            )
    facts = {"n_images": n, "threads": threads, "spread": spread}
    return Listing([row.to_dict() for row in rows], title, facts, shown)
