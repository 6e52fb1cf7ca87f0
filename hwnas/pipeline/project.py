"""A run folder together with its configuration and what is built from it: space, data, devices."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hwnas.core.config import settled
from hwnas.core.env import use_threads
from hwnas.core.errors import UserError
from hwnas.core.history import needs_settling, settle
from hwnas.core.progress import Progress
from hwnas.core.records import SCHEMA_VERSION, dump, sparse
from hwnas.core.rundir import RunDir
from hwnas.core.store import explained
from hwnas.devices.spec import load_device, load_transport
from hwnas.interfaces import DataModule, DeviceSpec, Split, Transport
from hwnas.latency.estimator import TableEstimator
from hwnas.pipeline.artifacts import Artifacts
from hwnas.pipeline.config import ExperimentConfig, load_config
from hwnas.pipeline.data_source import DataSource
from hwnas.pipeline.stored import (
    config_data,
    config_of_search,
    new_settings,
    require_same_space,
    stored_config,
)
from hwnas.spaces import REGISTRY as SPACES
from hwnas.spaces.arch import Arch
from hwnas.spaces.space import SearchSpace
from hwnas.training.distributed import ALONE, Ranks, join

if TYPE_CHECKING:
    import torch

    from hwnas.nets.supernet import Supernet

__all__ = ["Project", "open_project", "stored_config"]


@dataclass(frozen=True)
class Project:
    """The argument of every stage. Everything built from the configuration is built once.

    ranks: this process among those that torchrun started together. beside, as_recorded: see
    `DataSource`.
    """

    run: RunDir
    config: ExperimentConfig
    progress_for: Callable[[str], Progress]
    ranks: Ranks = ALONE
    beside: tuple[Path, ...] = ()
    as_recorded: bool = False

    @cached_property
    def files(self) -> Artifacts:
        """The files of the run folder and of the configured search."""
        return Artifacts(self.run, self.config.search.name)

    def of_search(self, name: str) -> Project:
        """The same run folder with the configuration of another search."""
        return replace(self, config=config_of_search(self.run, self.config, name))

    @cached_property
    def settled(self) -> dict[str, Any]:
        """The configuration as hashes of stages see it."""
        return settled(self.config)

    @cached_property
    def space_settings(self) -> list[Any]:
        """What a stage depends on that works in the space."""
        return [self.space.name, sparse(self.space.macro), self.space.allowed]

    @cached_property
    def source(self) -> DataSource:
        """Where the data come from, what they are, and what the run remembers of them."""
        files = self.files
        return DataSource(
            self.config,
            files.data,
            files.data_files,
            files.data_of_weights,
            self.beside,
            self.as_recorded,
        )

    @property
    def data(self) -> DataModule:
        """The data set with its splits."""
        return self.source.data

    @cached_property
    def accelerator(self) -> torch.device:
        """Where networks are trained and scored.

        Raises:
            UserError: CUDA is asked for and absent.
        """
        from hwnas.training.precision import pick_device

        return pick_device(self.config.accelerator)

    @cached_property
    def space(self) -> SearchSpace:
        """The search space, with the first and last layer that the data set needs, restricted."""
        in_channels, num_classes = self.source.ends
        module = SPACES.load(self.config.space.name)
        space = module.build(self.config.space, num_classes=num_classes, in_channels=in_channels)
        return space.restrict(self.config.restrict)

    def metadata(self, arch: Arch | None = None) -> dict[str, str]:
        """What a file of weights says of itself: class names, normalisation, space and arch."""
        facts: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "space": self.space.id,
            "data": dump(self.source.info, versioned=False),
        }
        if arch is not None:
            facts["arch"] = dump(arch, versioned=False)
        return {"hwnas": json.dumps(facts)}

    @cached_property
    def devices(self) -> dict[str, DeviceSpec]:
        """Device specs by name, in the order of the configuration."""
        specs = [load_device(name) for name in self.config.devices]
        return {spec.name: spec for spec in specs}

    def transport(self, device: str) -> Transport:
        """How the kit gets to a device; connects when it is used."""
        names = dict(zip(self.devices, self.config.devices, strict=True))
        return load_transport(names[device])

    @property
    def first_device(self) -> str:
        """The device that is deployed first, on which baselines are drawn and reported."""
        return next(iter(self.devices))

    def estimator(self, device: str) -> TableEstimator:
        """Latency estimates of a device's table for this space."""
        return TableEstimator(self.files.read_table(device), self.space)

    def images(
        self, split: Split, px: int, n: int | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The first n images (default: all) of a split: [n, C, px, px], normalised, and labels."""
        import torch

        from hwnas.training.images import resize

        batches = list(self.data.eval_batches(split, n or 512))[: 1 if n else None]
        x = torch.cat([resize(batch, px) for batch, _ in batches])
        return x.contiguous().numpy(), torch.cat([labels for _, labels in batches]).numpy()

    def supernet(self) -> Supernet:
        """The trained supernet, on `accelerator`."""
        from safetensors.torch import load_file

        from hwnas.nets.pretrained_list import read_origin
        from hwnas.training.precision import place

        supernet, path = self.new_supernet(), self.run.made(self.files.supernet, "train")
        supernet.load_state_dict(load_file(path))
        supernet.origin = read_origin(path)
        place(supernet, self.accelerator)
        return supernet

    def new_supernet(self) -> Supernet:
        """The supernet that the configuration asks for, with random weights."""
        from hwnas.nets.supernet import Supernet

        options = self.config.supernet
        return Supernet(
            self.space,
            seed=self.config.seed,
            kernel_transform=options.kernel_transform,
            share_ops=options.share_ops,
            weak=options.weak_sharing,
        )


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
    """A project in `root`, locked while in use.

    `config` (a shipped name or a path) replaces the folder's configuration, `changes` set
    single keys by path. The result is stored by `engine.execute`, when all checks have passed;
    under torchrun the other processes learn of it then (`pipeline.follow`). `read_only`: nothing is
    stored, and no lock taken. `as_recorded`: facts of the data are those of the run, for verbs that
    only look at it.

    Raises:
        UserError: no configuration, an invalid one, the folder is in use, or it holds links, pipes
            or devices.
    """
    run = RunDir(root)
    with explained("look into the run folder", root):
        run.check()
        stored_config(run).exists()
    _end_unfinished(run)
    given = config, changes

    def opened() -> Project:
        data, where = config_data(run, *given)
        beside = (where.parent, root, root.absolute().parent)
        loaded = load_config(data, changes, where=where)
        require_same_space(run, loaded)
        return Project(run, loaded, progress_for, beside=beside, as_recorded=as_recorded)

    project = opened()
    if read_only:
        yield project
        return
    _ = project.devices, project.space  # settings that cannot be used are not stored
    with run.locked(command):
        settle(run)
        project = replace(opened(), ranks=join())
        use_threads(project.config.threads)
        plain, ranks = project.config.model_dump(mode="json"), project.ranks
        settings = new_settings(
            run,
            project.config,
            command=command,
            given=given,
            stored=lambda: ranks.tell({"root": str(root.resolve()), "config": plain}),
        )
        yield replace(project, run=replace(run, settings=settings))


def _end_unfinished(run: RunDir) -> None:
    """End what a killed process left unfinished, if none is at work here and it can be done."""
    if not needs_settling(run):
        return
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(run.locked("hwnas"))
        except UserError:
            return
        settle(run)
