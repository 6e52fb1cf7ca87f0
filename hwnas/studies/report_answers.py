"""The report's sections on classes and bundles, from what stage `verify` wrote."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

from hwnas.core.errors import HwnasError
from hwnas.exporters.bundle import read_manifest
from hwnas.pipeline.answers import Answered, Photo
from hwnas.pipeline.project import Project
from hwnas.reporting.sections.bundles import Bundle
from hwnas.reporting.sections.classes import Classes, Picture
from hwnas.spaces.arch import Arch

__all__ = ["bundles_of", "classes_of"]

N_SHOWN = 3  # different networks


def classes_of(project: Project) -> tuple[Classes, ...]:
    """The predictions of every device's network; nothing for run folders of earlier versions.

    Devices that run the same file of the same network share one entry, with the photos of the first
    device.
    """
    answers = project.files.answers.read_if_there()
    names = project.source.info.class_names

    def picture(photo: Photo) -> Picture:
        return Picture(photo.jpeg, names[photo.label], names[photo.predicted], photo.confidence)

    groups: dict[tuple[Arch, str], list[Answered]] = {}
    for one in answers.devices if answers is not None else ():
        if len(one.confusion) == len(names):
            groups.setdefault((one.arch, one.file), []).append(one)
    return tuple(
        Classes(
            device=", ".join(one.device for one in group),
            file=group[0].file,
            names=names,
            confusion=group[0].confusion,
            right=tuple(map(picture, group[0].right if number == 0 else ())),
            wrong=tuple(map(picture, group[0].wrong if number == 0 else ())),
        )
        for number, group in enumerate(groups.values())
    )[:N_SHOWN]


def bundles_of(project: Project, report: Path) -> tuple[Bundle, ...]:
    """The complete bundles, linked from a report at this path."""
    found = []
    for device in project.devices:
        folder = project.files.bundle(device)
        try:
            models = tuple(model.path for model in read_manifest(folder).models)
        except HwnasError:  # not made, or altered: then nobody should be sent there
            continue
        try:
            href = quote(Path(os.path.relpath(folder, report.absolute().parent)).as_posix())
        except ValueError:  # another drive
            href = folder.absolute().as_uri()
        found.append(Bundle(device, f"{href}/", models))
    return tuple(found)
