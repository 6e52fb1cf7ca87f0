"""A run folder with its configuration, and the objects built from it: space, data, devices."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hwnas.core.config import settled
from hwnas.core.errors import UserError, did_you_mean
from hwnas.core.metrics import OF_DEVICE
from hwnas.core.progress import Outlook, Progress
from hwnas.core.records import SCHEMA_VERSION, dump, sparse
from hwnas.core.rundir import RunDir
from hwnas.core.store import file_hash
from hwnas.devices.spec import load_devices, load_transport
from hwnas.exporters.artifact import PlannedFormat, planned_formats
from hwnas.interfaces import DataModule, DeviceSpec, Split, Transport
from hwnas.latency.estimator import TableEstimator
from hwnas.latency.table import LatencyTable
from hwnas.latency.validation import as_sums
from hwnas.pipeline.artifacts import Artifacts
from hwnas.pipeline.config import ExperimentConfig
from hwnas.pipeline.data_source import DataSource
from hwnas.pipeline.outside import Outside
from hwnas.pipeline.stored import config_of_search
from hwnas.predictors.open_records import open_records
from hwnas.predictors.records import Records
from hwnas.searchers import REGISTRY as SEARCHERS
from hwnas.spaces import REGISTRY as SPACES
from hwnas.spaces.arch import Arch
from hwnas.spaces.space import SearchSpace
from hwnas.training.distributed import ALONE, Ranks

if TYPE_CHECKING:
    import torch

    from hwnas.nets.supernet import Supernet

__all__ = ["Project"]


@dataclass(frozen=True)
class Project:
    """The argument of every stage. Every object that the configuration defines is built once.

    ranks: this process among those that torchrun started together.
    beside, as_recorded, changed, read_only: see `DataSource` and `Outside`.
    is_plan: a dry run, which neither downloads data nor requires that the data exist yet.
    around: run folder of the first round, if this is a second training round; else None.
    outlook: the expected time of the command, once it is known.
    """

    run: RunDir
    config: ExperimentConfig
    progress_for: Callable[[str], Progress]
    ranks: Ranks = ALONE
    beside: tuple[Path, ...] = ()
    as_recorded: bool = False
    is_plan: bool = False
    changed: tuple[str, ...] | None = ()
    read_only: bool = False
    around: RunDir | None = None
    outlook: Outlook = field(default_factory=Outlook, compare=False)
    _records: dict[str, Records] = field(default_factory=dict, init=False, compare=False)

    @cached_property
    def files(self) -> Artifacts:
        """The files of the run folder and of the configured search."""
        return Artifacts(self.run, self.config.search.name)

    def of_search(self, name: str) -> Project:
        """The same run folder with the configuration of another search."""
        return replace(self, config=config_of_search(self.run, self.config, name))

    @cached_property
    def settled(self) -> dict[str, Any]:
        """The configuration as stages hash it, see `core.config.settled`."""
        return settled(self.config)

    @cached_property
    def space_settings(self) -> list[Any]:
        """Settings of the space, on which every stage that uses it depends."""
        return [self.space.name, sparse(self.space.macro), self.space.allowed]

    @cached_property
    def source(self) -> DataSource:
        """The data: their source, identity, and the record of the run."""
        files = self.files
        return DataSource(
            self.config,
            files.data,
            files.data_files,
            files.data_of_weights,
            self.beside,
            self.as_recorded,
            None if self.around is None else Artifacts(self.around).data,
            self.read_only and not self.is_plan,
        )

    @property
    def data(self) -> DataModule:
        """The data set with its splits."""
        return self.source.data

    @cached_property
    def outside(self) -> Outside:
        """Files outside the run folder that the configuration names, and the run's copies."""
        return Outside(
            self.config,
            self.files.outside,
            self.files.device_copy,
            self.beside,
            self.changed,
            self.as_recorded,
            self.read_only and not self.is_plan,
            None if self.around is None else Artifacts(self.around),
        )

    @cached_property
    def accelerator(self) -> torch.device:
        """The device for training and scoring networks.

        Raises:
            UserError: CUDA is requested but not available.
        """
        from hwnas.training.precision import pick_device

        return pick_device(self.config.accelerator)

    @cached_property
    def space(self) -> SearchSpace:
        """The search space: restricted, and with the first and last layer for the data set."""
        in_channels, num_classes = self.source.ends
        module = SPACES.load(self.config.space.name)
        space = module.build(self.config.space, num_classes=num_classes, in_channels=in_channels)
        return space.restrict(self.config.restrict)

    def metadata(self, arch: Arch | None = None) -> dict[str, str]:
        """Metadata of a file of weights: class names, normalisation, space and arch."""
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
        return load_devices([str(path) for path in self.outside.devices])

    @cached_property
    def formats(self) -> tuple[PlannedFormat, ...]:
        """The exported formats: those of the configuration, and further ones that devices need.

        Raises:
            UserError: a device runs no format that can be exported.
        """
        return planned_formats(self.config.export, self.devices.values())

    def records(self, setting: str) -> Records:
        """Scores of archs of the space, from the file that `setting` names; it is read once.

        Raises:
            UserError: the file cannot be read, its archs belong to another space, it has losses, or
                it changed since the command began.
        """
        if setting in self._records:
            return self._records[setting]
        config, path = self.config, self.outside.path(setting)
        section = config.label if setting == "label.records" else config.search.evaluator
        expected = self.outside.sha256(setting)
        found = open_records(
            path,
            reader=section.reader,
            space=config.space.name,
            settings=config.space.model_dump(mode="json", exclude={"name"}),
            num_classes=self.space.macro.num_classes,
        ).accuracies(section.target)
        if file_hash(path) != expected:
            raise UserError(
                "the file changed while the command was running",
                expected="the content that the file had when the command started",
                found="other content: its sha256 is different",
                where=path,
                fix="repeat the command when no other program writes to this file",
            )
        return self._records.setdefault(setting, found)

    def progress(self, stage: str) -> Progress:
        """The progress of a stage, with its expected duration."""
        return self.outlook.tell(self.progress_for(stage), stage)

    def transport(self, device: str) -> Transport:
        """The transport of the kit to a device; it connects when it is first used."""
        files = zip(self.outside.devices, self.outside.device_folders, strict=True)
        path, folder = dict(zip(self.devices, files, strict=True))[device]
        return load_transport(str(path), beside=folder)

    @property
    def first_device(self) -> str:
        """Name of the first configured device, to which baselines and reports refer."""
        return next(iter(self.devices))

    def require_device(self, name: str | None) -> str:
        """Checks the name of a device of the project; None stands for the first device.

        Raises:
            UserError: there is no such device.
        """
        if name is not None and name not in self.devices:
            raise UserError(
                f"{name!r} is not a device of this run",
                expected=f"one of {', '.join(self.devices)}",
                where=self.run.root,
            )
        return name or self.first_device

    def require_limited_devices(self) -> None:
        """Checks that every limit on latency or energy names a device of the project.

        Raises:
            UserError: a limit names another device; suggests a similar name.
        """
        known = [*self.devices]
        for number, limit in enumerate(self.config.search.constraints):
            if limit.metric in OF_DEVICE and limit.device not in known:
                raise UserError(
                    f"a limit names {limit.device!r}, which is not a device of this run",
                    expected=f"one of {', '.join(known)}",
                    found=limit.device,
                    where=f"search.constraints.{number}.device",
                    fix=did_you_mean(
                        str(limit.device),
                        known,
                        otherwise=f"name one of `devices`, or add {limit.device} to them",
                    ),
                )

    @property
    def needs_sums(self) -> bool:
        """Whether the searcher requires scores and costs that are sums over operators."""
        searcher = SEARCHERS.load(self.config.search.searcher.name)
        return bool(getattr(searcher, "NEEDS_SUMS", False))

    def estimator(self, device: str, table: LatencyTable | None = None) -> TableEstimator:
        """Estimator of latencies on a device; they are sums over operators if `needs_sums`."""
        table = table or self.files.read_table(device)
        return TableEstimator(as_sums(table, self.space) if self.needs_sums else table, self.space)

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

        from hwnas.core.tensor_file import readable_tensors
        from hwnas.nets.origin import read_origin
        from hwnas.training.precision import place

        supernet, path = self.new_supernet(), self.run.made(self.files.supernet, "train")
        with readable_tensors(path, "cannot read the weights of the supernet"):
            supernet.load_state_dict(load_file(path))
        supernet.origin = read_origin(path)
        place(supernet, self.accelerator)
        return supernet

    def new_supernet(self) -> Supernet:
        """The supernet of the configuration, with random weights."""
        from hwnas.nets.supernet import Supernet

        options = self.config.supernet
        return Supernet(
            self.space,
            seed=self.config.seed,
            kernel_transform=options.kernel_transform,
            share_ops=options.share_ops,
            weak=options.weak_sharing,
            branches=options.branches,
        )
