"""Stage `references`: times published networks in one plan with the winner of every device."""

from __future__ import annotations

from dataclasses import replace

from hwnas.core.command import command_line
from hwnas.core.config import settled
from hwnas.core.progress import Parts, Progress
from hwnas.interfaces import DeviceSpec
from hwnas.measure.references.graphs import require_reference
from hwnas.measure.references.settings import ReferencesConfig
from hwnas.measure.references.timing import (
    Reference,
    References,
    RunReferences,
    model_bytes,
    remove_models,
    time_references,
)
from hwnas.pipeline.checks import asked
from hwnas.pipeline.data_checks import recipe_fits
from hwnas.pipeline.exports import exported_artifact, file_of
from hwnas.pipeline.foreign_tables import timed_devices
from hwnas.pipeline.plan import Stage
from hwnas.pipeline.project import Project
from hwnas.pipeline.reference_training import (
    recipe,
    require_weights,
    train_references,
    trained_px,
)
from hwnas.pipeline.task import task
from hwnas.pipeline.winners import networks, winner_role
from hwnas.training.identity import SPLITS

__all__ = ["OWN", "check", "references", "stage"]

TIMED, TRAINED = 10, 100  # units of progress: of timing one device, of training one network

OWN = "winner"
"""Name of the run's network that is timed with the references."""


def stage(project: Project) -> Stage:
    """Times the networks `search.references.names`, and trains those of `train`."""
    files, search = project.files, project.config.search.name
    config, name = _config(project), f"references/{search}"
    n = len(_chosen(project, config))
    trained = f", {len(config.train)} trained" * bool(config.train)
    return Stage(
        name=name,
        command=command_line("references", "--run", project.run.root),
        needs=(
            *(f"profile/{device}" for device in project.devices),
            *(("train",) if config.train else ()),
            f"finetune/{search}",
            f"export/{search}",
        ),
        names=("seed", "search.references", "recipe", "data"),
        settings=[
            project.config.seed,
            settled(config),
            *([settled(recipe(project, config)), project.source.settings] if config.train else ()),
        ],
        owns=(files.pattern(files.references.folder),),
        outputs=(files.pattern(files.references.results.path),),
        run=task(project, name, references, reads_data=bool(config.train)),
        cost=f"{n} networks timed on {len(timed_devices(project))} devices{trained}",
        data=project.source.input(SPLITS) if config.train else None,
        check=lambda: check(project),
        check_data=lambda: _check_recipe(project),
        asks=asked(project, project.devices),
        writes=lambda: model_bytes(_chosen(project, config)),
    )


def check(project: Project) -> None:
    """Checks that timm knows the networks, and that the weights for training are available.

    Raises:
        UserError: suggests similar names, or says how to get the weights.
    """
    config = _config(project)
    for name in config.all_names:
        require_reference(name)
    require_weights(project, config)


def references(project: Project, progress: Progress) -> None:
    """Times the networks with the winner on every timed device, then trains some."""
    config = _config(project)
    devices = timed_devices(project)
    parts = Parts(progress, [TIMED] * len(devices) + [TRAINED * len(config.train)])
    found = tuple(
        _timed(project, config, name, device, parts.part(number, name))
        for number, (name, device) in enumerate(devices.items())
    )
    trained = train_references(project, config, parts.part(len(found)))
    project.files.references.results.write(RunReferences(found, trained))


def _config(project: Project) -> ReferencesConfig:
    config = project.config.search.references
    assert config is not None  # otherwise the project has no such stage
    return config


def _sizes(project: Project, config: ReferencesConfig) -> tuple[int, ...]:
    space = project.space
    return config.sizes(space.macro.resolutions[code] for code in space.allowed[0])


def _timed(
    project: Project,
    config: ReferencesConfig,
    name: str,
    device: DeviceSpec,
    progress: Progress,
) -> References:
    winner = networks(project)[winner_role(project, name)]
    chosen = _chosen(project, config)
    chosen += [replace(one, px=trained_px(project)) for one in chosen if one.name in config.train]
    folder = project.files.references.timings(name)
    found = time_references(
        list(dict.fromkeys(chosen)),
        device,
        folder,
        config.protocol(project.config.profile),
        own={OWN: file_of(project, winner, exported_artifact(project, winner, device))},
        table=project.files.read_table(name),
        space=project.space,
        seed=project.config.seed,
        progress=progress,
        transport=project.transport(name),
    )
    remove_models(folder)
    return found


def _chosen(project: Project, config: ReferencesConfig) -> list[Reference]:
    """All reference networks in the settings, at all their resolutions.

    They have as many classes and image channels as the data of the run.
    """
    in_channels, num_classes = project.source.ends
    return [
        Reference(name, px, num_classes, in_channels)
        for name in config.all_names
        for px in _sizes(project, config)
    ]


def _check_recipe(project: Project) -> None:
    config = _config(project)
    if config.train:
        recipe_fits(project, recipe(project, config), "finetune")
