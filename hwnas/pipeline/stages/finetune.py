"""Stage `finetune`: fine-tunes the winner and its baselines with the same recipe."""

from __future__ import annotations

import logging

import numpy as np

from hwnas.core.command import command_line
from hwnas.core.errors import UserError
from hwnas.core.progress import Parts, Progress
from hwnas.core.rng import rng
from hwnas.pipeline.checks import auxiliary_exists, optimizer_exists
from hwnas.pipeline.costs import prices
from hwnas.pipeline.data_checks import recipe_fits
from hwnas.pipeline.data_source import LEARNING
from hwnas.pipeline.disk import checkpoint_bytes, weights_bytes
from hwnas.pipeline.exports import rounding_of
from hwnas.pipeline.plan import Stage
from hwnas.pipeline.project import Project
from hwnas.pipeline.standalone import train_standalone
from hwnas.pipeline.start import start_files
from hwnas.pipeline.task import task
from hwnas.pipeline.tuning import Tuning
from hwnas.pipeline.winners import (
    SMALLER_IMAGES,
    has_smaller_images,
    result_on,
    role_names,
    winner_role,
)
from hwnas.spaces.arch import Arch

__all__ = ["check", "finetune_all", "on_smaller_images", "random_subnet", "stage"]

log = logging.getLogger(__name__)

N_DRAWN = 4096
SAME_LATENCY = 0.97


def stage(project: Project) -> Stage:
    """Fine-tunes the archs of all roles, and trains the best archs of the search stand-alone."""
    files, config = project.files, project.config
    name = f"finetune/{config.search.name}"
    standalone = f", {config.alone.n} stand-alone x {config.alone.epochs}" * bool(config.alone.n)
    return Stage(
        name=name,
        command=command_line("finetune", project.run.root),
        needs=("train", f"search/{config.search.name}"),
        names=("seed", "space", "data", "finetune", "alone", "export"),
        settings=[
            config.seed,
            project.space_settings,
            project.source.settings,
            project.settled["finetune"],
            project.settled["alone"],
            *([rounding_of(project)] if config.finetune.precision == "int8" else ()),
        ],
        owns=(files.pattern(files.finetuned),),
        outputs=(files.pattern(files.roles), files.pattern(files.finetuned / "*.safetensors")),
        run=task(project, name, finetune_all),
        cost=f"{len(role_names(project))} networks x {config.finetune.epochs} epochs{standalone}",
        reads=project.outside.paths(*(start_files(project) if config.finetune.average else ())),
        data=project.source.input(LEARNING),
        check=lambda: check(project),
        check_data=lambda: recipe_fits(project, config.finetune, "finetune"),
        writes=lambda: _bytes(project),
    )


def _bytes(project: Project) -> int:
    """Estimated bytes of the files, with all networks but the largest as large as the smallest."""
    recipe, n = project.config.finetune, len(role_names(project))
    smallest, largest = weights_bytes(project)
    checkpoints = checkpoint_bytes(recipe, largest) if recipe.epochs else 0
    return largest + (n - 1) * smallest + checkpoints


def check(project: Project) -> None:
    """Refuses fine-tuning that would fail because of the space or the settings.

    Raises:
        UserError: gives the reason.
    """
    project.space.macro.require("static net", space=project.space.name)
    optimizer_exists(project.config.finetune.optimizer, "finetune.optimizer")
    auxiliary_exists(project, project.config.finetune, "finetune")
    if project.config.finetune.precision == "int8" and rounding_of(project) is None:
        raise UserError(
            "fine-tuning in 8 bits imitates the rounding of an exported file, but no exported"
            " format has a rounding that it can imitate",
            expected="onnx:int8 or litert:int8 among the exported formats (a device that runs one"
            " of them adds it)",
            found=f"the formats {', '.join(one.shown for one in project.formats)}",
            where="finetune.precision",
            fix="export: [onnx, onnx:int8], or finetune.precision: fp32",
        )


def random_subnet(project: Project, winner: Arch) -> Arch:
    """A random arch with about the latency of `winner` on the first device.

    It is the first of `N_DRAWN` random archs that is estimated to need between `SAME_LATENCY` and 1
    times the latency of the winner; if there is none, the nearest one.
    """
    space, estimator = project.space, project.estimator(project.first_device)
    drawn = space.sample(N_DRAWN, rng=rng(project.config.seed, "finetune/random-subnet"))
    drawn = drawn[(drawn != space.codes([winner])).any(axis=1)]
    shares = estimator.latency_ms(drawn) / estimator.latency_ms(space.codes([winner]))
    equal = np.flatnonzero((shares <= 1) & (shares >= SAME_LATENCY))
    return space.arch(drawn[equal[0] if len(equal) else np.abs(shares - 1).argmin()])


def on_smaller_images(project: Project) -> Arch:
    """The largest arch at the highest reduced resolution that meets the first device's limits.

    If no reduced resolution meets them, the lowest one is used.
    """
    space, limits = project.space, result_on(project, project.first_device).limits
    archs = np.repeat(space.codes([space.largest()]), len(space.allowed[0]) - 1, axis=0)
    archs[:, 0] = space.allowed[0][:-1]
    costs = prices(project)
    fits = np.all([costs[key](archs) <= limit for key, limit in limits.items()], axis=0)
    best = np.flatnonzero(np.broadcast_to(fits, len(archs)))
    return space.arch(archs[best[-1] if len(best) else 0])


def finetune_all(project: Project, progress: Progress) -> None:
    """Fine-tunes the networks of all roles, taught by the largest one; skips finished ones."""
    space, config, data = project.space, project.config.finetune, project.data
    roles = {
        winner_role(project, device): result_on(project, device).winner.arch
        for device in project.devices
    } | {
        "largest": space.largest(),
        "smallest": space.smallest(),
        "random search": project.files.baseline.result.read().winner.arch,
    }
    roles["random subnet"] = random_subnet(project, roles["winner"])
    if has_smaller_images(project):
        roles[SMALLER_IMAGES] = on_smaller_images(project)
    archs = list(dict.fromkeys([space.largest(), *roles.values()]))  # first, because it teaches
    n_steps = config.epochs * (data.info.n_images["train"] // config.batch_size)
    n_alone = project.config.alone.n
    alone = n_alone * n_steps * project.config.alone.epochs // max(1, config.epochs)
    parts = Parts(progress, [max(1, n_steps)] * len(archs) + [alone])
    names = {arch: role for role, arch in reversed(roles.items())}
    tuning = Tuning(project, rounding_of(project))
    for n, arch in enumerate(archs):
        name = f"{names[arch]} ({n + 1} of {len(archs)} networks)"
        tuning.network(arch, parts.part(n, name))
    train_standalone(project, parts.part(len(archs)))
    project.files.write_roles(roles)
