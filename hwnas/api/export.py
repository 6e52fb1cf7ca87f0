"""`hwnas.export`: the networks of a run folder, or any network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from pydantic import BaseModel

from hwnas.api.options import refuse_both, refuse_unused
from hwnas.api.result import Folder, Listing, ProgressFor, Settings, listed, no_progress
from hwnas.api.stage import bring_up_to_date, of_known_search
from hwnas.core.command import command_line
from hwnas.core.config import build_model
from hwnas.core.errors import CheckFailed, UserError
from hwnas.core.progress import Progress
from hwnas.exporters import REGISTRY
from hwnas.exporters.every import ALL
from hwnas.exporters.formats import export as export_network
from hwnas.exporters.names import one_per_call, require_format
from hwnas.pipeline.config import sections_of, with_formats
from hwnas.pipeline.opening import open_project
from hwnas.pipeline.project import Project
from hwnas.studies.format_table import format_table

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

__all__ = ["export", "export_changes", "export_run"]


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
    **settings: Any,
) -> tuple[Path, ...]: ...


def export(what: Any, /, *place: Any, **arguments: Any) -> Any:
    """Writes deployable files of the networks of a run (`export_run`), or of any network.

    `export(network, format, folder)` writes one format, and compares the file with the network.
    A network that hwnas did not build needs `images`: normalised training images, float32
    [n, C, H, W], an array or a tensor. `exporters.formats.export` documents `images`, `held_out`,
    `metadata` and further settings.

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
    return export_network(what, *place, **arguments)


def _require_network(what: object) -> None:
    """Refuses objects that are not networks.

    Raises:
        UserError: describes the object.
    """
    from torch.nn import Module

    if not isinstance(what, Module):
        raise UserError(
            "there is nothing to export",
            expected="a run folder, or a torch network such as supernet.extract(arch) returns",
            found=repr(what)[:80],
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
        _fetch(formats)
    every = formats is not None and ALL in (name.strip() for name in listed(formats))
    return bring_up_to_date(
        folder,
        "export",
        config=config,
        changes=export_changes(folder, config, formats, of_known_search(folder, search, settings)),
        progress=progress,
        found=(lambda project: _table(project, progress("formats"))) if every else _exports,
    )


def _fetch(formats: Sequence[str] | None) -> None:
    """Downloads what the named formats need.

    Raises:
        UserError: none of them needs a download, or it fails.
    """
    named = [name.strip().partition(":")[0] for name in listed(formats or ())]
    names = REGISTRY.names if ALL in named else [n for n in named if n in REGISTRY.names]
    modules = [REGISTRY.load(name) for name in names if not REGISTRY.describe(name).missing]
    needed = [module for module in modules if hasattr(module, "fetch")]
    refuse_unused(
        {"--fetch": not needed},
        to=f"the formats {', '.join(named) or 'of the configuration'}",
        fix="leave --fetch out, or add --formats web",
    )
    for module in needed:
        module.fetch()


def export_changes(
    folder: Folder, config: str | None, formats: Sequence[str] | None, settings: Settings
) -> dict[str, Any]:
    """Settings with which a run exports `formats`; configured settings of a format are kept.

    Raises:
        UserError: the settings contradict `formats`, no format is named, or one is named twice.
    """
    refuse_both("--formats", formats, "export", settings)
    changes = dict(settings or {})
    if formats is None:
        return changes
    if not all(name.strip() for name in listed(formats)) or not len(formats):
        raise UserError(
            "a format has no name",
            expected="names of formats, for example onnx,int8",
            found=repr(formats),
            where="--formats",
            fix=f"see `{command_line('list', 'exporters')}`",
        )
    given = [name.strip() for name in listed(formats)]
    for name in given:
        _configs(name, ())  # an invalid name is found before the run is opened
    _refuse_all_with_others(given)
    with open_project(
        Path(folder),
        config=config,
        changes=changes,
        progress_for=no_progress,
        command="hwnas export",
        read_only=True,
    ) as project:
        configured = project.config.export
        _refuse_twice(given, configured)
        return changes | {"export": with_formats(given, configured)}


def _configs(name: str, configured: Sequence[BaseModel]) -> list[BaseModel]:
    """The settings that `name` stands for, except for `all`; see `sections_of`.

    Raises:
        UserError: the format or its precision is unknown.
    """
    if name == ALL:
        return []
    where = f"--formats {name}"
    require_format(name, where=where)
    return [
        build_model(REGISTRY.declaration(section["name"]).Config, section, where=where)
        for section in sections_of(name, configured)
    ]


def _refuse_all_with_others(names: Sequence[str]) -> None:
    """Refuses `all` together with other formats.

    Raises:
        UserError: shows the names.
    """
    if ALL in names and {*names} != {ALL}:
        raise UserError(
            f"{ALL!r} includes every other format",
            expected=f"{ALL} alone, or names of formats",
            found=", ".join(names),
            where="--formats",
            fix=f"name only {ALL}, or leave {ALL} out",
        )


def _refuse_twice(names: Sequence[str], configured: Sequence[BaseModel]) -> None:
    """Refuses two names for the same format, such as `onnx` and `onnx:fp32`.

    Raises:
        UserError: shows both names.
    """
    before: list[tuple[str, list[BaseModel]]] = []
    for name in names:
        configs = _configs(name, configured)
        twice = next((one for one, others in before if any(c in others for c in configs)), None)
        if twice is not None or (name == ALL and ALL in dict(before)):
            same = dict.fromkeys((twice or name, name))
            raise UserError(
                "a format is named twice",
                expected="every format once",
                found=", ".join(names),
                where="--formats",
                fix=f"name {name} once" if len(same) == 1 else f"name only {' or '.join(same)}",
            )
        before.append((name, configs))


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
    title = (
        f"{', '.join(archs)}: top-1 and parity of the files on {n} test images; ms: latency of one"
        f" image with {project.config.threads} thread, all files timed in turns"
    )
    facts = {"n_images": n, "threads": project.config.threads}
    return Listing([row.to_dict() for row in rows], title, facts, shown)
