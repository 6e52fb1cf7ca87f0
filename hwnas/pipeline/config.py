"""The experiment configuration with all its sections. Torch-free."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from hwnas.acquisitions import REGISTRY as ACQUISITIONS
from hwnas.controller.sections import EvaluatorConfig, RemeasureConfig, SearchConfig
from hwnas.core.command import command_line
from hwnas.core.config import LATER, NUMBER, StrictModel, build_model, variant
from hwnas.core.errors import Invalid, UserError
from hwnas.core.ledger import config_of
from hwnas.core.overrides import override
from hwnas.core.resources import resource, resource_names
from hwnas.core.yaml_data import read_yaml
from hwnas.devices import REGISTRY as TRANSPORTS
from hwnas.exporters import REGISTRY as EXPORTERS
from hwnas.exporters.artifact import duplicates
from hwnas.exporters.every import ALL, every_format
from hwnas.exporters.sections import format_section
from hwnas.latency.sections import ProfileConfig
from hwnas.measure.limits import VerifyConfig
from hwnas.measure.references.settings import ReferencesConfig
from hwnas.nets.proxies import REGISTRY as PROXIES
from hwnas.predictors import REGISTRY as PREDICTORS
from hwnas.predictors.readers import REGISTRY as READERS
from hwnas.searchers import REGISTRY as SEARCHERS
from hwnas.spaces import REGISTRY as SPACES
from hwnas.spaces.load import space_data
from hwnas.training.datasets import REGISTRY as DATASETS
from hwnas.training.label_sections import LabelConfig, StandaloneConfig
from hwnas.training.samplers import REGISTRY as SAMPLERS
from hwnas.training.sections import FinetuneConfig, SupernetConfig, TrainConfig

__all__ = [
    "REGISTRIES",
    "ExperimentConfig",
    "SearchSection",
    "load_config",
    "read_config_data",
    "sections_of",
    "with_formats",
]

log = logging.getLogger(__name__)

RENAMED = {"image_folder": "photos"}
"""Maps the names that shipped configurations had in earlier versions to their present names."""

REGISTRIES = {
    registry.kind: registry
    for registry in (
        SPACES,
        DATASETS,
        SAMPLERS,
        PROXIES,
        PREDICTORS,
        READERS,
        SEARCHERS,
        ACQUISITIONS,
        TRANSPORTS,
        EXPORTERS,
    )
}


class SearchSection(SearchConfig):
    """Settings of the controller and of its searcher, and the source of scores.

    `per_device`: a front and a winner for every device of the project, with the limits on its own
    latency and those without a device. The winner of the first device is deployed.
    """

    searcher: variant(SEARCHERS) = Field(  # type: ignore[valid-type]
        default={"name": "policy_gradient"}, validate_default=True
    )
    """Search algorithm that proposes archs; see `hwnas list searchers`."""
    acquisition: Annotated[variant(ACQUISITIONS) | None, LATER] = None  # type: ignore[valid-type]
    """Rule that selects which proposed archs are evaluated (`hwnas list acquisitions`); null:
    `exploration` with the weight `search.exploration`.
    """
    evaluator: EvaluatorConfig = EvaluatorConfig()
    closing: RemeasureConfig = RemeasureConfig()
    per_device: bool = False
    """Whether every device of `devices` gets its own front and winner, with the limits on its own
    latency and those without a device.
    """
    references: Annotated[ReferencesConfig | None, LATER] = None
    """Published networks that are timed together with the winner; `{}`: eight common ones."""

    @model_validator(mode="after")
    def _one_acquisition(self) -> SearchSection:
        if self.acquisition is not None and self.exploration:
            one = "at most one of `acquisition` and `exploration` (above 0)"
            raise Invalid(one, f"exploration {self.exploration:g} with an acquisition")
        return self


class ExperimentConfig(StrictModel):
    """One project: data, space, devices, and the settings of every stage."""

    schema_version: Annotated[Literal[1], NUMBER]
    """Version of the format of this file, 1."""
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    """Name of the project; its default run folder is `runs/NAME`."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of everything random: starting weights, splits of the data, samples, searches."""
    threads: Annotated[
        int,
        Field(
            ge=1,
            le=1024,
            description="Number of CPU threads of torch on this machine; devices have their own"
            " setting.",
        ),
    ] = 1
    workers: Annotated[
        int,
        Field(
            ge=0,
            le=256,
            description="Number of processes that prepare training images; 0: the main process"
            " does it.",
        ),
    ] = 0
    accelerator: Literal["auto", "cpu", "cuda"] = Field(
        default="auto",
        description="Processor on which networks are trained and scored; `auto`: CUDA if"
        " available, else the CPU.",
    )
    space: variant(SPACES)  # type: ignore[valid-type]
    """Search space: a section with settings, a name from `hwnas space list`, or a YAML file."""
    restrict: dict[str, tuple[int | float | str, ...]] = Field(
        default={},
        description="Values that a choice keeps, listed under the name of the choice, e.g."
        " `stage1.width: [16, 24]`; `hwnas analyze --prune` writes this section. A choice that is"
        " not listed keeps all its values.",
    )
    data: variant(DATASETS)  # type: ignore[valid-type]
    """Data set of images or text; see `hwnas list datasets`."""
    devices: Annotated[tuple[str, ...], Field(min_length=1)] = ("local",)
    """Devices of the run, as names (`hwnas list devices`) or YAML files; the winner is deployed to
    the first one.
    """
    profile: ProfileConfig = ProfileConfig()
    supernet: SupernetConfig = SupernetConfig()
    train: TrainConfig = TrainConfig()
    label: LabelConfig = LabelConfig()
    predictor: variant(PREDICTORS) = Field(  # type: ignore[valid-type]
        default={"name": "gcn"}, validate_default=True
    )
    """Model that predicts scores of archs from labels; see `hwnas list predictors`."""
    search: SearchSection
    finetune: FinetuneConfig = FinetuneConfig()
    alone: StandaloneConfig = StandaloneConfig()
    export: tuple[variant(EXPORTERS), ...] = Field(  # type: ignore[valid-type]
        default=({"name": "onnx"}, {"name": "timm"}), validate_default=True
    )
    """Formats in which networks are exported; ONNX is always included. See `hwnas list exporters`.
    """
    verify: VerifyConfig = VerifyConfig()

    @field_validator("export", mode="before")
    @classmethod
    def _sections(cls, export: Any) -> Any:
        is_list = isinstance(export, (list, tuple))
        return tuple(map(format_section, export)) if is_list else export

    @field_validator("export")
    @classmethod
    def _has_onnx(cls, export: tuple[Any, ...]) -> tuple[Any, ...]:
        if not any(config.name == "onnx" for config in export):
            names = ", ".join(config.name for config in export)
            expected = "a list with onnx, from which the other formats are made"
            raise Invalid(expected, f"a list of {names}" if names else "an empty list")
        if problem := duplicates(export):
            raise Invalid("formats that write different files", f"a section that {problem}")
        return export


def read_config_data(name_or_path: str) -> tuple[dict[str, Any], Path]:
    """Plain data of a shipped config (by name) or of a YAML file (by path), and its path.

    Raises:
        UserError: neither exists; lists the shipped names.
    """
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml") and not path.is_file():
        shipped = resource_names("configs", ".yaml")
        if name_or_path in RENAMED:
            log.warning("the configuration %s is now called %s", path, RENAMED[name_or_path])
            name_or_path = RENAMED[name_or_path]
        if name_or_path not in shipped:
            raise UserError(
                f"no config {name_or_path!r}",
                expected=f"a path to a .yaml file, or one of {', '.join(shipped)}",
                fix=_instead_of(path) or "see `hwnas list configs`",
            )
        path = resource("configs", f"{name_or_path}.yaml")
    return read_yaml(path), path


def _instead_of(path: Path) -> str:
    """The fix if `path` is a run folder or a folder of photos instead of a configuration."""
    if (config := config_of(path)) is not None:
        return f"to continue this run folder, {command_line('run', config, '--run', path)}"
    if path.is_dir():
        photos = command_line("run", "photos", "--set", f"data.root={path}")
        return f"if it is a folder of photos with a subfolder per class, {photos}"
    return ""


def load_config(
    data: dict[str, Any], changes: Mapping[str, Any] | None = None, *, where: object
) -> ExperimentConfig:
    """Applies `changes`, e.g. `{"train.steps": 50}`, to plain data and validates the result.

    If `space:` names a shipped space or a YAML file, the result contains its section.

    Raises:
        UserError: lists all problems with their key paths.
    """
    changes = changes or {}
    data = override(data, changes)
    if isinstance(data.get("space"), (str, dict)):
        data["space"] = space_data(data["space"])
    return build_model(ExperimentConfig, data, where=where, changes=changes)


def with_formats(names: Iterable[str], configured: tuple[Any, ...]) -> list[dict[str, Any]]:
    """The `export:` section that lists the formats `names`, with their configured settings.

    ONNX is always included, because the other formats are made from it and compared with it.
    `NAME:PRECISION` is a format with a precision, see `format_section`; `all` stands for every
    format that is installed.
    """
    given = [name.strip() for name in names if name.strip()]
    every = every_format() if ALL in given else []
    chosen: list[dict[str, Any]] = []
    for wanted in ["onnx", *(one for one in given if one != ALL), *every]:
        chosen += [one for one in sections_of(wanted, configured) if one not in chosen]
    return chosen


def sections_of(format: Any, configured: Sequence[Any]) -> list[dict[str, Any]]:
    """The configured sections of a format; if there are none, one section with defaults."""
    wanted: dict[str, Any] = format_section(format)
    known = [config.model_dump(mode="json") for config in configured]
    return [one for one in known if wanted.items() <= one.items()] or [wanted]
