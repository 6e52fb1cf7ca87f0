"""Finds problems that would stop a stage, before the first stage runs.

`Stage.check` calls these functions. Checks that need images are in `data_checks.py`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from hwnas.core.env import require
from hwnas.core.errors import UserError
from hwnas.core.store import why_unwritable
from hwnas.devices.kit import CPU_PROVIDERS, require_processors
from hwnas.devices.runtimes import describe_runtime
from hwnas.interfaces import ReachedTransport, TryingTransport
from hwnas.latency.validation import MIN_NETS
from hwnas.measure.networks import validation_nets
from hwnas.measure.try_device import try_device
from hwnas.pipeline.foreign_tables import table_file
from hwnas.pipeline.project import Project
from hwnas.predictors.blend import MIN_HELD_OUT
from hwnas.predictors.evaluate import held_out_rows
from hwnas.predictors.labels import MIN_LABELS
from hwnas.training.sections import FinetuneConfig, OptimizerConfig

__all__ = [
    "asked",
    "can_be_profiled",
    "can_learn",
    "can_train",
    "device_runs",
    "folder_is_writable",
    "optimizer_exists",
    "out_of_reach",
    "reads_the_data",
]
MANY_ARCHS = 1000  # among this many, enough are different networks
COMMON_OPTIMIZERS = ("adamw", "sgd")  # known without importing timm


# --- training -------------------------------------------------------------------------------------


def can_train(project: Project) -> None:
    """Refuses supernet training that would fail at its start; does not check the images.

    Raises:
        UserError: the space shares no weights, CUDA or a package is missing, or a batch does not
            divide among the processes.
    """
    config = project.config
    reads_the_data(project)
    project.space.macro.require("supernet", space=project.space.name)
    if config.accelerator == "cuda":
        _ = project.accelerator
    if config.train.tensorboard:
        require("tensorboard", extra="tensorboard")
    optimizer_exists(config.train.optimizer, "train.optimizer")
    if (n_ranks := int(os.environ.get("WORLD_SIZE", "1"))) > 1:
        from hwnas.training.data import part_of_batch

        part_of_batch(config.train.batch_size, 0, n_ranks)


def reads_the_data(project: Project) -> None:
    """Refuses text for networks that read images, and images for networks that read tokens.

    Raises:
        UserError: names the space and the data set.
    """
    has_tokens = bool(getattr(project.source.module, "HAS_TOKENS", False))
    if has_tokens != project.space.macro.reads_tokens:
        raise UserError(
            f"networks of the space {project.space.name} cannot read the data set",
            expected="`data.name: text`" if not has_tokens else "`space.name: darts_ptb`",
            found=f"data {project.config.data.name}, space {project.space.name}",
            where="data" if not has_tokens else "space",
        )


def optimizer_exists(config: OptimizerConfig, setting: str) -> None:
    """Refuses an optimiser that timm does not have, or cannot create with these settings.

    Raises:
        UserError: timm cannot create the optimiser.
    """
    if config.name in COMMON_OPTIMIZERS:
        return
    import torch

    from hwnas.training.optim import Stepper

    try:
        Stepper(torch.nn.Linear(2, 2), config, n_steps=2)
    except UserError as error:
        raise UserError(
            "cannot create the optimiser",
            expected=error.expected,
            found=error.found,
            where=f"{setting}.name",
            fix='`python -c "import timm.optim; print(timm.optim.list_optimizers())"` prints the'
            " names",
        ) from error


def auxiliary_exists(project: Project, recipe: FinetuneConfig, setting: str) -> None:
    """Refuses an auxiliary classifier, or dropout, in a space whose networks have no place for it.

    Raises:
        UserError: names the setting.
    """
    if recipe.dropout and not project.space.macro.reads_tokens:
        raise UserError(
            "networks of this space have no locked dropout; only recurrent networks have it",
            expected="dropout 0, or the space darts_ptb",
            found=f"dropout {recipe.dropout:g}, space {project.space.name}",
            where=f"{setting}.dropout",
        )
    if recipe.auxiliary and not project.space.macro.auxiliary_slot:
        raise UserError(
            "networks of this space have no place for an auxiliary classifier",
            expected="auxiliary 0, or the space darts",
            found=f"auxiliary {recipe.auxiliary:g}, space {project.space.name}",
            where=f"{setting}.auxiliary",
        )


# --- predictor ------------------------------------------------------------------------------------


def can_learn(project: Project) -> None:
    """Refuses too few labels for fitting and evaluating the predictor.

    Raises:
        UserError: states the required number.
    """
    config = project.config
    n = min(config.label.n_archs, project.space.size())
    if _is_enough(n, config.seed):
        return
    least = next(k for k in range(n, 1000) if _is_enough(k, config.seed))
    raise UserError(
        "too few labelled archs to fit a predictor and to test it on held-out archs",
        expected=f"at least {least} archs",
        found=f"{n} archs" + ", all of the space" * (n != config.label.n_archs),
        where="label.n_archs",
        fix=f"label.n_archs={least}",
    )


def _is_enough(n: int, seed: int) -> bool:
    fit, held = held_out_rows(n, seed=seed)
    return len(fit) >= MIN_LABELS and len(held) >= MIN_HELD_OUT


# --- machine --------------------------------------------------------------------------------------


def device_runs(project: Project, device: str) -> None:
    """Refuses a device that cannot run a small network now, if networks are timed on it.

    A dry run does not connect to remote devices.

    Raises:
        UserError: the runtime is not installed or does not run the model, or the device does not
            respond.
    """
    if table_file(project, device) is not None:
        return
    spec = project.devices[device]
    is_here = spec.transport == "local"
    if is_here and (lacks := describe_runtime(spec.runtime)).missing:
        raise UserError(
            f"device {device!r} is timed with {spec.runtime}, which is not installed",
            expected=f"the installed package {', '.join(lacks.missing)}",
            found=f"no package {', '.join(lacks.missing)}",
            where="devices",
            fix=lacks.install or "install it, or remove the device",
        )
    require_processors(spec, is_forced=project.config.profile.force_threads)
    if spec.provider in CPU_PROVIDERS if is_here else project.is_plan:
        return
    transport = project.transport(device)
    if isinstance(transport, ReachedTransport):
        transport.check()
    if isinstance(transport, TryingTransport):
        try_device(project.space, spec, transport, seed=project.config.seed)


def asked(project: Project, devices: Iterable[str]) -> dict[str, Callable[[], None]]:
    """Maps `device NAME` to a call of `device_runs` for this device, as in `Stage.asks`."""
    return {f"device {name}": partial(device_runs, project, name) for name in devices}


def can_be_profiled(project: Project) -> None:
    """Refuses a space with too few networks to profile.

    Raises:
        UserError: there are too few networks to validate a table.
    """
    space = project.space
    if space.size() > MANY_ARCHS:
        return
    config = project.config
    n = len(validation_nets(space, config.profile.n_validation, seed=config.seed))
    if n < MIN_NETS:
        raise UserError(
            "the space has too few networks to validate a latency table",
            expected=f"at least {MIN_NETS} different networks",
            found=f"{n} in a sample of the {space.size():,} archs",
            where="space",
            fix="allow more values in `space` or `restrict`",
        )


def out_of_reach(project: Project) -> tuple[str, ...]:
    """Names the checks that a dry run leaves out because it does not connect to remote devices."""
    return tuple(
        f"whether device {name!r} answers"
        for name in project.devices
        if isinstance(project.transport(name), ReachedTransport)
    )


def folder_is_writable(root: Path) -> None:
    """Refuses a run folder that cannot be created or written; creates nothing.

    Raises:
        UserError: names the folder.
    """
    there = next(path for path in (root, *root.absolute().parents) if path.exists())
    if (problem := why_unwritable(there)) is not None:
        raise UserError(
            "cannot write into the run folder",
            expected="a writable folder, or a path where one can be created",
            found=problem,
            where=root,
            fix="change the owner of the folder, or use another run folder",
        )
