"""A run folder together with its configuration and what is built from it: space, data, devices."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from hwnas.core.config import read_yaml
from hwnas.core.env import host_facts
from hwnas.core.errors import UserError
from hwnas.core.progress import Progress
from hwnas.core.rundir import RunDir
from hwnas.core.store import read_json, write_json, write_text
from hwnas.devices.spec import load_device
from hwnas.interfaces import DataModule, DeviceSpec
from hwnas.latency.estimator import TableEstimator
from hwnas.latency.table import LatencyTable
from hwnas.pipeline.config import ExperimentConfig, load_config, read_config_data
from hwnas.spaces import REGISTRY as SPACES
from hwnas.spaces.space import SearchSpace
from hwnas.training.datasets import REGISTRY as DATASETS

if TYPE_CHECKING:
    from hwnas.nets.supernet import Supernet

__all__ = ["Project", "open_project"]


@dataclass(frozen=True)
class Project:
    """What every stage is given. Everything built from the configuration is built once."""

    run: RunDir
    config: ExperimentConfig
    progress_for: Callable[[str], Progress]

    @cached_property
    def data(self) -> DataModule:
        """The data set with its splits."""
        module = DATASETS.load(self.config.data.name)
        data: DataModule = module.build(self.config.data, seed=self.config.seed)
        return data

    @cached_property
    def space(self) -> SearchSpace:
        """The search space, with the first and last layer that the data set needs."""
        in_channels, num_classes = DATASETS.load(self.config.data.name).ends(self.config.data)
        module = SPACES.load(self.config.space.name)
        space: SearchSpace = module.build(
            self.config.space, num_classes=num_classes, in_channels=in_channels
        )
        return space

    @cached_property
    def devices(self) -> dict[str, DeviceSpec]:
        """Device specs by name, in the order of the configuration."""
        specs = [load_device(name) for name in self.config.devices]
        return {spec.name: spec for spec in specs}

    def table_path(self, device: str) -> Path:
        """Where a device's latency table lies."""
        return self.run.path("tables", f"{device}.json")

    def estimator(self, device: str) -> TableEstimator:
        """Forecasts of a device's table for this space."""
        return TableEstimator(LatencyTable.load(self.table_path(device)), self.space)

    def search_path(self, *parts: str) -> Path:
        """A path inside the folder of the configured search."""
        return self.run.path("search", self.config.search.name, *parts)

    @property
    def supernet_path(self) -> Path:
        """The trained supernet's weights."""
        return self.run.path("checkpoints", "supernet.safetensors")

    def supernet(self) -> Supernet:
        """The trained supernet."""
        from safetensors.torch import load_file

        from hwnas.nets.supernet import Supernet

        supernet = Supernet(self.space, seed=self.config.seed)
        supernet.load_state_dict(load_file(self.supernet_path))
        return supernet


@contextlib.contextmanager
def open_project(
    root: Path,
    *,
    config: str | None = None,
    assignments: Sequence[str] = (),
    progress_for: Callable[[str], Progress],
    command: str,
    read_only: bool = False,
) -> Iterator[Project]:
    """A project in `root`, locked while in use.

    `config` (a shipped name or a path) replaces the folder's configuration, `assignments` change
    single keys; the result is stored as the folder's config.yaml unless `read_only`, which also
    takes no lock.

    Raises:
        UserError: no configuration, an invalid one, or the folder is in use.
    """
    run = RunDir(root)
    stored = run.path("config.yaml")
    if config is not None:
        data, where = read_config_data(config)
    elif stored.exists():
        data, where = read_yaml(stored), stored
    else:
        raise UserError(
            "this is not a run folder",
            expected="a folder with a config.yaml",
            where=root,
            fix=f"hwnas run quickstart --run {root}, or add --config NAME",
        )
    project = Project(run, load_config(data, assignments, where=where), progress_for)
    if read_only:
        yield project
        return
    with run.locked(command):
        _use_threads(project.config.threads)
        text = yaml.safe_dump(project.config.model_dump(mode="json"), sort_keys=False)
        if not stored.exists() or stored.read_text() != text:
            write_text(stored, text)
        _remember_host(run)
        yield project


def _remember_host(run: RunDir) -> None:
    path = run.path("env.json")
    facts = {"schema_version": 1, **host_facts()}
    if not path.exists() or read_json(path) != facts:
        write_json(path, facts)


def _use_threads(n: int) -> None:
    """Let torch use n threads when it is imported, and at once if it already is."""
    import os
    import sys

    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(n)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(n)
