"""Published small networks, which one would take instead of a search.

Each takes images of the largest resolution, in steps of 8 px up to that of the photos, at which it
keeps the limit, and sees as many images as the winner did. It is trained in two ways.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from pretrained_parts import networks

import hwnas
from hwnas.core.errors import UserError
from hwnas.nets.extract import extract
from hwnas.nets.supernet import Supernet
from hwnas.pipeline.project import Project
from hwnas.pipeline.start import start_images
from hwnas.pipeline.tuning import Tuning
from hwnas.spaces.load import build_space
from hwnas.spaces.lowering import resolution
from hwnas.spaces.space import SearchSpace
from hwnas.training.finetune import finetune
from hwnas.training.head import fit_head

WAYS = ("distilled", "labels alone")
ONE_ARCH: dict[str, object] = {"depths": (), "expands": (), "kernels": (), "width_ratios": ()}


@dataclass(frozen=True)
class Published:
    """A published network at the largest resolution that keeps the limit.

    ms: latency there, at the table's speed.
    """

    file: Path
    space: SearchSpace
    ms: float

    @property
    def name(self) -> str:
        """Name of the file."""
        return self.file.stem

    @property
    def px(self) -> int:
        """Resolution of the images."""
        return resolution(self.space, self.space.largest())


def at_limits(
    project: Project, files: Iterable[Path], limit_ms: float, folder: Path
) -> list[Published]:
    """The networks of these files; one that keeps the limit at no resolution is left out."""
    found = []
    for file in files:
        spaces = _spaces(project, file)
        archs = {str(px): (space, space.largest()) for px, space in spaces.items()}
        ms = networks.time_archs(project, archs, folder / file.stem)
        if fast := [px for px in spaces if ms[str(px)] <= limit_ms]:
            found.append(Published(file, spaces[max(fast)], ms[str(max(fast))]))
    return found


def trained(project: Project, one: Published, way: str, folder: Path) -> torch.nn.Module:
    """The network with a classifier for these photos, which is trained first, as the winner's was.

    Like the winner it then learns from the largest network, or from the labels alone by the
    optimiser of the supernet; see `networks.alone`.
    """
    start, arch = _start(project, one), one.space.largest()
    if way == "labels alone":
        return networks.alone(project, start, arch, one.px, folder)
    n_epochs = networks.alone_recipe(project).epochs
    recipe = project.config.finetune.model_copy(
        update={"epochs": n_epochs, "feature_distillation": 0.0}
    )
    return finetune(
        extract(start, arch),
        project.data,
        recipe,
        px=one.px,
        teacher=Tuning(project).teacher,
        seed=project.config.seed,
        checkpoints=folder,
    )


def _start(project: Project, one: Published) -> Supernet:
    imported = hwnas.pretrained_import(
        one.file,
        space=one.space,
        num_classes=one.space.macro.num_classes,
        images=start_images(project),
    )
    if project.config.train.head_epochs:
        seed = project.config.seed
        fit_head(imported.supernet, project.data, project.config.train, seed=seed)
    return imported.supernet


def _spaces(project: Project, file: Path) -> dict[int, SearchSpace]:
    """The network with the classes of the run, by resolution."""
    settings = {**hwnas.pretrained_import(file, images=start_images(project)).settings}
    name, most = settings.pop("name"), project.config.data.model_dump()["base_px"]
    found = {}
    for px in range(networks.STEP_PX, most + 1, networks.STEP_PX):
        with contextlib.suppress(UserError):  # too small for the network
            found[px] = build_space(
                name,
                {**settings, **ONE_ARCH, "resolutions": [px]},
                num_classes=project.space.macro.num_classes,
            )
    return found
