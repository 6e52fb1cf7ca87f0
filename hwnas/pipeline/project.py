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
import yaml
from numpy.typing import NDArray

from hwnas.core.config import settled
from hwnas.core.confined import holds
from hwnas.core.env import host_facts, use_threads
from hwnas.core.errors import UserError
from hwnas.core.progress import Progress
from hwnas.core.records import SCHEMA_VERSION, dump, sparse
from hwnas.core.rundir import RunDir
from hwnas.core.store import explained, read_json, write_json, write_text
from hwnas.core.yaml_data import read_yaml
from hwnas.devices.spec import load_device, load_transport
from hwnas.interfaces import DataModule, DeviceSpec, Split, Transport
from hwnas.latency.estimator import TableEstimator
from hwnas.pipeline.artifacts import Artifacts
from hwnas.pipeline.config import ExperimentConfig, load_config, read_config_data
from hwnas.pipeline.data_source import DataSource
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

        from hwnas.training.precision import place

        supernet = self.new_supernet()
        supernet.load_state_dict(load_file(self.run.made(self.files.supernet, "train")))
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
    single keys by path; the result is stored as the folder's config.yaml unless `read_only`, which
    also takes no lock. `as_recorded`: facts of the data are those of the run, for verbs that only
    look at it. Under torchrun the other processes learn of the project (`pipeline.follow`).

    Raises:
        UserError: no configuration, an invalid one, the folder is in use, or it holds links, pipes
            or devices.
    """
    run = RunDir(root)
    with explained("look into the run folder", root):
        run.check()
        stored = stored_config(run)
        is_run = stored.exists()
    if config is not None:
        data, where = read_config_data(config)
    elif is_run:
        data, where = read_yaml(stored), stored
    else:
        raise UserError(
            "this is not a run folder",
            expected="a folder with a config.yaml",
            where=root,
            fix=f"hwnas run quickstart --run {root}, or add --config NAME",
        )
    beside = (where.parent, root, root.absolute().parent)
    project = Project(
        run,
        load_config(data, changes, where=where),
        progress_for,
        beside=beside,
        as_recorded=as_recorded,
    )
    _require_same_space(project, stored)
    if read_only:
        yield project
        return
    _ = project.devices, project.space  # settings that cannot be used are not stored
    with run.locked(command):
        project = replace(project, ranks=join())
        use_threads(project.config.threads)
        plain = project.config.model_dump(mode="json")
        text = yaml.safe_dump(plain, sort_keys=False)
        if not holds(stored, text.encode()):
            write_text(stored, text)
        _remember_host(run)
        project.ranks.tell({"root": str(root.resolve()), "config": plain})
        yield project


def _require_same_space(project: Project, stored: Path) -> None:
    """Refuse a run folder that holds results of another space.

    Raises:
        UserError: its configuration names another space.
    """
    try:
        earlier = load_config(read_yaml(stored), where=stored)
    except UserError:  # absent or broken: about to be replaced
        return
    if earlier.space == project.config.space or not project.run.ledger():
        return
    before, now = (c.space.model_dump(mode="json") for c in (earlier, project.config))
    changed = [key for key in before | now if before.get(key) != now.get(key)]
    raise UserError(
        "this run folder is of another space",
        expected=", ".join(f"{key}: {before.get(key)}" for key in changed),
        found=", ".join(f"{key}: {now.get(key)}" for key in changed),
        where=project.run.root,
        fix="give another folder with --run, or set the space back",
    )


def stored_config(run: RunDir) -> Path:
    """The configuration that a run folder was last used with."""
    return Artifacts(run).config


def _remember_host(run: RunDir) -> None:
    path = Artifacts(run).environment
    facts = {"schema_version": 1, **host_facts()}
    if not path.exists() or read_json(path) != facts:
        write_json(path, facts)
