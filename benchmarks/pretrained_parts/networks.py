"""Networks beside the winner of a run: drawn, cut or smaller images; trained, tested and timed."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from hwnas.core.errors import UserError
from hwnas.core.rng import rng
from hwnas.measure.drift import judge
from hwnas.measure.networks import network_id, network_models
from hwnas.nets.extract import extract
from hwnas.nets.supernet import Supernet
from hwnas.pipeline.project import Project
from hwnas.pipeline.timing import time_beside_table
from hwnas.pipeline.tuning import Tuning
from hwnas.spaces.arch import Arch
from hwnas.spaces.choice import Choice
from hwnas.spaces.load import build_space
from hwnas.spaces.lowering import resolution
from hwnas.spaces.space import SearchSpace
from hwnas.training.finetune import finetune
from hwnas.training.sections import FinetuneConfig

N_DRAWN = 8192
SAME_LATENCY = 0.97
STEP_PX = 8


def random_subnets(project: Project, winner: Arch, n: int) -> list[Arch]:
    """n archs drawn blindly among those as fast as `winner` by the table; see stage `finetune`."""
    space, estimator = project.space, project.estimator(project.first_device)
    drawn = space.sample(N_DRAWN, rng=rng(project.config.seed, "benchmark/random-subnets"))
    drawn = drawn[(drawn != space.codes([winner])).any(axis=1)]
    shares = estimator.latency_ms(drawn) / estimator.latency_ms(space.codes([winner]))
    equal = np.flatnonzero((shares <= 1) & (shares >= SAME_LATENCY))
    nearest = np.argsort(np.abs(shares - 1))
    rows = dict.fromkeys([*equal.tolist(), *nearest.tolist()])
    return list(dict.fromkeys(space.arch(drawn[row]) for row in rows))[:n]


class Tuner:
    """Fine-tunes networks of the trained supernet as the winner was; reads it when first called."""

    def __init__(self, project: Project) -> None:
        self._project, self._tuning = project, Tuning(project)

    def __call__(self, arch: Arch, px: int, folder: Path) -> torch.nn.Module:
        """The network, trained and tested at `px`; `folder`: to resume from."""
        project, tuning = self._project, self._tuning
        return finetune(
            tuning.inherited.network(arch),
            project.data,
            project.config.finetune,
            px=px,
            teacher=tuning.teacher,
            seed=project.config.seed,
            checkpoints=folder,
        )


def alone_recipe(project: Project, lr: float | None = None) -> FinetuneConfig:
    """As many images as the winner saw, by the supernet's optimiser, from labels alone.

    lr: the peak learning rate; None: that of the supernet.
    """
    train, config = project.config.train, project.config.finetune
    n_train = project.data.info.n_images["train"]
    return config.model_copy(
        update={
            "epochs": round(train.steps * train.batch_size / n_train) + config.epochs,
            "optimizer": train.optimizer.model_copy(update={"lr": lr} if lr else {}),
            "average": False,
            "distillation": 0.0,
            "feature_distillation": 0.0,
        }
    )


def alone(
    project: Project,
    start: Supernet,
    arch: Arch,
    px: int,
    folder: Path,
    lr: float | None = None,
) -> torch.nn.Module:
    """A network of the pretrained weights, fine-tuned by itself; `start`: see `pipeline.start`."""
    return finetune(
        extract(start, arch),
        project.data,
        alone_recipe(project, lr),
        px=px,
        teacher=None,
        seed=project.config.seed,
        checkpoints=folder,
    )


def time_archs(
    project: Project, archs: Mapping[str, tuple[SearchSpace, Arch]], folder: Path
) -> dict[str, float]:
    """Latency of networks in ms at the table's speed, timed by turns on the first device."""
    device = project.devices[project.first_device]
    models: dict[str, Path | bytes] = {}
    names: dict[str, str] = {}
    for name, (space, arch) in archs.items():
        codes = space.codes([arch])
        key = network_id(space, codes[0])
        names[name] = f"{resolution(space, arch)}-{key}"
        models[names[name]] = network_models(space, codes, device, seed=0)[key]
    return time_files(project, models, names, folder)


def time_files(
    project: Project, models: Mapping[str, Path | bytes], names: Mapping[str, str], folder: Path
) -> dict[str, float]:
    """Latency of model files in ms at the table's speed; names: of what is asked, in `models`."""
    device = project.first_device
    table = project.estimator(device).table
    timings = time_beside_table(project, device, models, table, folder)
    return {
        name: judge(timings.models[key], None, timings.pace).median_ms
        for name, key in names.items()
    }


def at_px(project: Project, px: int) -> tuple[SearchSpace, Arch]:
    """The largest network at another resolution.

    Raises:
        UserError: it cannot take so small an image.
    """
    settings = project.config.space.model_dump(mode="json", exclude={"name"})
    space = build_space(
        project.config.space.name,
        settings | {"resolutions": [px]},
        num_classes=project.space.macro.num_classes,
    )
    return space, space.largest()


def lower_resolution(project: Project, limit_ms: float, folder: Path) -> tuple[int, float] | None:
    """The largest resolution, in steps of 8 px, at which the largest network keeps the limit.

    Returns:
        It, and the latency there in ms; None: the network keeps the limit at no resolution that it
        can take.
    """
    most = resolution(project.space, project.space.largest())
    candidates = {}
    for px in range(STEP_PX, most + 1, STEP_PX):
        with contextlib.suppress(UserError):
            candidates[str(px)] = at_px(project, px)
    found = time_archs(project, candidates, folder)
    return max(((int(px), ms) for px, ms in found.items() if ms <= limit_ms), default=None)


def uniform_cuts(project: Project, limit_ms: float, n: int = 512) -> list[Arch]:
    """The largest cuts of depth, and of width, alike in all stages, that keep the limit.

    All at the largest resolution at which one does, as far as the space offers them: `expand`
    counts as width.
    """
    for px in reversed(project.space.allowed[0]):
        if found := _cuts_at(project, px, limit_ms, n):
            return found
    return []


def _cuts_at(project: Project, px: int, limit_ms: float, n: int) -> list[Arch]:
    """The same at the resolution with the code `px`."""
    space, estimator = project.space, project.estimator(project.first_device)
    found = []
    for roles in (("depth",), ("width", "expand"), ("depth", "width", "expand")):
        best: tuple[float, Arch] | None = None
        for share in np.linspace(1, 0, n):
            cut = [_cut(c, space.allowed[i], roles, share) for i, c in enumerate(space.choices)]
            arch = space.arch([px, *cut[1:]])
            ms = float(estimator.latency_ms(space.codes([arch]))[0])
            if ms <= limit_ms and (best is None or ms > best[0]):
                best = ms, arch
        if best is not None and best[1] not in found:
            found.append(best[1])
    return found


def _cut(choice: Choice, allowed: tuple[int, ...], roles: tuple[str, ...], share: float) -> int:
    """The code of a choice: the largest, or for the given roles that at `share` of its codes."""
    if choice.name.rpartition(".")[2] not in roles:
        return allowed[-1]
    return allowed[math.floor(share * (len(allowed) - 1) + 0.5)]
