"""Stage `export`: deployable files of every fine-tuned network, proven to be the same network.

The winners get every configured format; the networks that they are compared with get the ONNX file
that is timed and tested.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hwnas.core.errors import CheckFailed
from hwnas.core.progress import Progress
from hwnas.core.records import STRICT, dump, load
from hwnas.core.store import read_json, write_json
from hwnas.exporters import REGISTRY as EXPORTERS
from hwnas.exporters.manifest import InputSpec, ModelFile
from hwnas.exporters.opened import CannotRunHere
from hwnas.exporters.parity import ParityReport, compare_batches, torch_logits
from hwnas.interfaces import Split
from hwnas.pipeline.project import Project
from hwnas.pipeline.stages.finetune import load_network, networks, winner_role
from hwnas.spaces.arch import Arch
from hwnas.spaces.lowering import resolution

__all__ = ["Exported", "export", "exports", "images_of", "onnx_path", "with_formats"]

N_PARITY_IMAGES = 256
N_TRAIN_IMAGES, CALIBRATION_BATCH = 512, 32


@dataclass(frozen=True)
class Exported:
    """One format of one network. `files` are names in the arch's folder, the model first.

    `parity` is None where the format cannot run on this host, `not_run` says why.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    model: ModelFile
    files: tuple[str, ...]
    parity: ParityReport | None
    not_run: str = ""

    def summary(self) -> dict[str, Any]:
        """The row of a table."""
        found: dict[str, Any] = {"format": self.model.format, "file": self.files[0]}
        if self.parity is None:
            return found | {"not run": self.not_run}
        return found | {
            "runtime": self.parity.runtime,
            "relative difference": float(f"{self.parity.worst:.2e}"),
            "agreement": round(self.parity.agreement, 4),
            "passed": self.parity.passed,
        }


def with_formats(names: str, configured: tuple[Any, ...]) -> str:
    """The `--set` assignment for `--formats onnx,int8,...`: settings of a format are kept.

    ONNX is always among them: it is what is timed, and what the others are made of.
    """
    sections = {config.name: config.model_dump(mode="json") for config in configured}
    chosen = dict.fromkeys(["onnx", *(name.strip() for name in names.split(",") if name.strip())])
    return "export=" + json.dumps([sections.get(name, {"name": name}) for name in chosen])


def onnx_path(project: Project, arch: Arch) -> Path:
    """The exported ONNX file of a network."""
    return project.search_path("export", arch.key, "model.onnx")


def images_of(
    project: Project, split: Split, px: int, n: int | None = None
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The first n images of a split at `px`, normalised, and their labels."""
    import torch

    from hwnas.training.images import resize

    batches = list(project.data.eval_batches(split, n or 512))[: 1 if n else None]
    x = torch.cat([resize(batch, px) for batch, _ in batches])
    return x.contiguous().numpy(), torch.cat([labels for _, labels in batches]).numpy()


def export(project: Project, progress: Progress) -> None:
    """Export every network; each file must compute what its torch net computes.

    Raises:
        CheckFailed: an fp32 file computes something else.
    """
    roles = networks(project)
    winners = {roles[winner_role(project, device)] for device in project.devices}
    archs = list(dict.fromkeys(roles.values()))
    found: dict[str, list[Exported]] = {}
    for done, arch in enumerate(archs, start=1):
        formats = [c for c in project.config.export if arch in winners or c.name == "onnx"]
        found[arch.key] = _export_arch(project, arch, formats)
        worst = max(e.parity.worst for e in found[arch.key][:1] if e.parity is not None)
        progress(done, len(archs), f"{arch.key} parity {worst:.1e}")
    write_json(
        _exports_path(project),
        {
            "schema_version": 1,
            "exports": {
                key: [dump(one, versioned=False) for one in rows] for key, rows in found.items()
            },
        },
    )
    failed = {
        f"{key}/{one.files[0]}": one.parity.worst
        for key, rows in found.items()
        for one in rows
        if one.model.precision == "fp32" and one.parity is not None and not one.parity.passed
    }
    if failed:
        raise CheckFailed(
            "an exported file does not compute what its torch network computes",
            expected="relative difference of logits within the tolerance, equal top-1",
            found=failed,
            where=project.search_path("export"),
        )


def _export_arch(project: Project, arch: Arch, formats: list[Any]) -> list[Exported]:
    model, px = load_network(project, arch), resolution(project.space, arch)
    folder = project.search_path("export", arch.key)
    images, _ = images_of(project, "val", px, N_PARITY_IMAGES)
    expected = torch_logits(model, images)
    is_calibrated = any(config.name not in ("onnx", "timm") for config in formats)
    calibration = _training_images(project, px) if is_calibrated else None
    found = []
    for config in sorted(formats, key=lambda config: config.name != "onnx"):
        module = EXPORTERS.load(config.name)
        files = module.build(config).export(
            model,
            input_shape=images.shape[1:],
            folder=folder,
            metadata=_card(project, arch),
            images=calibration,
        )
        described: ModelFile = module.describe(config, files)
        report, not_run = None, ""
        try:
            report = compare_batches(
                expected,
                module.open_model(files[0], threads=project.config.threads),
                images,
                file=files[0].name,
                batches=project.config.verify.parity_batches,
                tolerance=described.parity_tolerance,
                min_agreement=described.min_agreement,
            )
        except CannotRunHere as error:
            not_run = str(error).splitlines()[0]
        found.append(Exported(described, tuple(file.name for file in files), report, not_run))
    return found


def _training_images(project: Project, px: int) -> NDArray[np.float32]:
    """Un-augmented training images [n, C, px, px], a seeded draw."""
    import torch

    from hwnas.training.images import resize

    n = min(N_TRAIN_IMAGES, project.data.info.n_images["train"])
    size = min(CALIBRATION_BATCH, n)
    batches = project.data.calibration_batches(n // size, size)
    x: NDArray[np.float32] = torch.cat([resize(b, px) for b in batches]).contiguous().numpy()
    return x


def _card(project: Project, arch: Arch) -> dict[str, str]:
    """What a model file says of itself: what it is, how images become its input, its classes."""
    info, px = project.data.info, resolution(project.space, arch)
    spec = dump(InputSpec.of(info, px), versioned=False)
    card = (
        f"Image classifier found by hwnas ({project.config.name}): {info.num_classes} classes of"
        f" {info.name}, input {info.in_channels} x {px} x {px}, space {project.space.name}."
        " Logits; softmax gives probabilities."
    )
    return project.metadata(arch) | {
        "model_card": card,
        "preprocessing": json.dumps(spec),
        "class_names": json.dumps(list(info.class_names)),
    }


def exports(project: Project) -> dict[str, tuple[Exported, ...]]:
    """What stage `export` wrote, by arch key."""
    path = _exports_path(project)
    return {
        key: tuple(load(Exported, row, where=path, versioned=False) for row in rows)
        for key, rows in read_json(path)["exports"].items()
    }


def _exports_path(project: Project) -> Path:
    return project.search_path("export", "exports.json")
