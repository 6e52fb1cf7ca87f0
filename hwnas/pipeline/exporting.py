"""Stage `export`: deployable files of every fine-tuned network, proven to be the same network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hwnas.core.errors import CheckFailed
from hwnas.core.progress import Progress
from hwnas.core.records import dump, load
from hwnas.core.store import read_json, write_json
from hwnas.exporters import REGISTRY as EXPORTERS
from hwnas.exporters.parity import ParityReport, check_parity
from hwnas.interfaces import Split
from hwnas.pipeline.finetuning import load_network, networks
from hwnas.pipeline.project import Project
from hwnas.spaces.arch import Arch
from hwnas.spaces.lowering import resolution

__all__ = ["export", "images_of", "onnx_path", "parity_reports"]

N_PARITY_IMAGES = 64


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
    return x.numpy(), torch.cat([labels for _, labels in batches]).numpy()


def export(project: Project, progress: Progress) -> None:
    """Export every network in every configured format; each ONNX file must equal its torch net.

    Raises:
        CheckFailed: an exported file computes something else.
    """
    archs = list(dict.fromkeys(networks(project).values()))
    reports: dict[str, ParityReport] = {}
    for done, arch in enumerate(archs, start=1):
        model, px = load_network(project, arch), resolution(project.space, arch)
        folder = project.search_path("export", arch.key)
        for config in project.config.export:
            exporter = EXPORTERS.load(config.name).build(config)
            exporter.export(
                model,
                input_shape=(project.data.info.in_channels, px, px),
                folder=folder,
                metadata=project.metadata(arch),
            )
        x, _ = images_of(project, "val", px, N_PARITY_IMAGES)
        batches = project.config.verify.parity_batches
        reports[arch.key] = check_parity(model, onnx_path(project, arch), x, batches=batches)
        progress(done, len(archs), f"{arch.key} parity {_worst(reports[arch.key]):.1e}")
    write_json(
        project.search_path("export", "parity.json"),
        {
            "schema_version": 1,
            "parity": {key: dump(report, versioned=False) for key, report in reports.items()},
        },
    )
    failed = [key for key, report in reports.items() if not report.passed]
    if failed:
        raise CheckFailed(
            "an exported file does not compute what its torch network computes",
            expected="relative difference of logits within the tolerance, equal top-1",
            found={key: _worst(reports[key]) for key in failed},
            where=project.search_path("export"),
        )


def parity_reports(project: Project) -> dict[str, ParityReport]:
    """Parity of every exported network by arch key."""
    path = project.search_path("export", "parity.json")
    rows = read_json(path)["parity"]
    return {key: load(ParityReport, row, where=path, versioned=False) for key, row in rows.items()}


def _worst(report: ParityReport) -> float:
    return max(batch.relative for batch in report.batches)
