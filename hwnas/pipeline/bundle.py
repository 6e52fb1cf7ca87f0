"""Writes the bundle of one device: models, expected logits, sample images, manifest and kit.

Stage `verify` calls it with its measurements.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hwnas import __version__
from hwnas.controller.constraints import metric_key
from hwnas.core.env import host_facts
from hwnas.core.store import content_hash, file_hash
from hwnas.exporters.bundle import MANIFEST_NAME, write_bundle
from hwnas.exporters.manifest import (
    AccuracyFact,
    ConstraintFact,
    InputSpec,
    LatencyFact,
    Manifest,
)
from hwnas.exporters.samples import SampleImage, denormalise
from hwnas.interfaces import DeviceSpec, Metric, Split
from hwnas.nets.origin import origin_of
from hwnas.pipeline.costs import cost_metrics
from hwnas.pipeline.data_checks import doubts_known
from hwnas.pipeline.exports import in_bundle
from hwnas.pipeline.foreign_tables import table_file
from hwnas.pipeline.outcomes import Exported
from hwnas.pipeline.project import Project
from hwnas.pipeline.winners import constraints_on, load_network, result_on
from hwnas.spaces.arch import Arch
from hwnas.spaces.lowering import resolution

if TYPE_CHECKING:
    import torch

__all__ = ["Winner", "bundle_winner", "remove_other_bundles"]

N_GOLDEN, N_SAMPLES = 16, 8
BATCH = 256  # images per batch


@dataclass(frozen=True)
class Winner:
    """Facts about a winner on a device.

    met: maps each limited latency metric to whether the re-timed winner meets the limit; empty if
        this cannot be judged.
    top1: maps the path of a file in a bundle to its test top-1 in [0, 1].
    by_class: maps this path to pairs (correct answers, test images), one per class.
    measured_ms: maps this path to the measured latency, divided by the pace; empty on a device of
        which only the table is known.
    """

    arch: Arch
    forecast_ms: float
    interval_ms: tuple[float, float] | None
    met: Mapping[Metric, bool]
    n_test_images: int
    top1: Mapping[str, float]
    by_class: Mapping[str, tuple[tuple[int, int], ...]]
    measured_ms: Mapping[str, float]


def bundle_winner(project: Project, device: DeviceSpec, winner: Winner) -> None:
    """Writes or replaces the bundle of one device."""
    import torch

    arch, px = winner.arch, resolution(project.space, winner.arch)
    x = _golden_inputs(project, px)
    model = load_network(project, arch)
    origin = origin_of(model)
    with torch.inference_mode():
        logits = model(torch.from_numpy(x)).numpy()
    exported, folder = in_bundle(project, arch, device), project.files.exported_network(arch)
    host = host_facts()
    manifest = Manifest(
        name=f"{project.config.name}-{project.config.search.name}",
        hwnas_version=__version__,
        arch=arch,
        arch_view=project.space.view(arch),
        input=InputSpec.of(project.source.info, px),
        models=tuple(one.model for one in exported),
        runtimes=dict(host["packages"]),
        latency=tuple(_latency(device, _machine(project, device), winner, exported)),
        accuracy=tuple(
            AccuracyFact(
                one.model.path,
                project.source.info.name,
                "test",
                winner.n_test_images,
                winner.top1[one.model.path],
                winner.by_class[one.model.path],
            )
            for one in exported
            if one.model.path in winner.top1
        ),
        constraints=tuple(_constraints(project, device.name, winner)),
        provenance={
            "search": project.config.search.name,
            "seed": str(project.config.seed),
            "data": project.source.digest,
            "config": content_hash(project.config.model_dump(mode="json")),
            "table": file_hash(project.files.table(device.name)),
            **_notes(folder, exported),
            **({"doubts": "; ".join(doubts)} if (doubts := doubts_known(project)) else {}),
            **({"weights": f"started from {origin}"} if origin else {}),
        },
    )
    write_bundle(
        project.files.bundle(device.name),
        manifest,
        models={one.model.path: folder / one.files[0] for one in exported},
        golden_input=x,
        golden_output=logits,
        companions={
            str(Path(one.model.path).with_name(name)): folder / name
            for one in exported
            for name in one.files[1:]
        },
        samples=_samples(project, model, px),
        is_ours=True,
    )


def remove_other_bundles(project: Project) -> None:
    """Removes earlier bundles of devices that the search no longer has.

    They stayed while the stage ran; superseded/ has a copy.
    """
    for path in project.files.bundles.glob(f"*/{MANIFEST_NAME}"):
        if path.parent.name not in project.devices:
            shutil.rmtree(path.parent, ignore_errors=True)


def _golden_inputs(project: Project, px: int) -> NDArray[np.float32]:
    """Validation images of all classes as input of the model: [n, C, px, px]."""
    from hwnas.training.images import resize

    x, _ = _of_all_classes(project, "val", N_GOLDEN)
    found: NDArray[np.float32] = resize(x, px).contiguous().numpy()
    return found


def _constraints(project: Project, device: str, winner: Winner) -> Iterator[ConstraintFact]:
    """Limits of the search on this device, and device-independent limits: MACs, bytes, ..."""
    limits, analytic = result_on(project, device).limits, cost_metrics(project.space, {})
    codes = project.space.codes([winner.arch])
    for constraint in constraints_on(project, device):
        key, metric = metric_key(constraint), constraint.metric
        if key in analytic:
            is_met: bool | None = bool(analytic[key](codes)[0] <= limits[key])
        elif constraint.device == device:
            is_met = winner.met.get(metric)
        else:
            continue
        yield ConstraintFact(metric, constraint.device, limits[key], is_met)


def _machine(project: Project, device: DeviceSpec) -> str:
    """The machine of the latencies: this one, or that of the table if nothing was timed."""
    if table_file(project, device.name) is None:
        return str(host_facts()["cpu"])
    cpu = project.files.read_table(device.name).facts.get("cpu")
    return str(cpu or "only its table is known")


def _latency(
    device: DeviceSpec, host: str, winner: Winner, exported: Sequence[Exported]
) -> list[LatencyFact]:
    """Estimate and timing of the file that the device runs, then timings of the other files.

    host: the machine that is named.
    """
    facts = []
    for position, one in enumerate(exported):
        measured_ms = winner.measured_ms.get(one.model.path)
        if measured_ms is None and position:
            continue
        fact = LatencyFact(
            replace(device, precision=one.model.precision),
            one.model.path,
            host,
            measured_ms=measured_ms,
        )
        if position == 0:
            fact = replace(
                fact,
                device=device,
                forecast_ms=winner.forecast_ms,
                interval_ms=winner.interval_ms,
            )
        facts.append(fact)
    return facts


def _notes(folder: Path, exported: Sequence[Exported]) -> dict[str, str]:
    """How the 8-bit files were calibrated, and which layers stayed in float."""
    import onnx

    found: dict[str, str] = {}
    for one in exported:
        if one.model.format == "int8":
            properties = onnx.load(folder / one.files[0]).metadata_props
            variant = one.files[0].removeprefix("model.").removesuffix(".onnx")
            for item in properties:
                if item.key == "int8":
                    found[variant] = item.value
    return found


def _samples(project: Project, model: object, px: int) -> list[SampleImage]:
    """Test images, with the class that torch predicts for the stored pixels."""
    import torch

    from hwnas.training.images import normalise, resize

    info = project.source.info
    x, labels = _of_all_classes(project, "test", N_SAMPLES)
    pixels = denormalise(x.contiguous().numpy(), info.mean, info.std)
    stored = torch.from_numpy(pixels.astype(np.float32) / 255).movedim(3, 1)
    with torch.inference_mode():
        logits = model(resize(normalise(stored, info.mean, info.std), px))  # type: ignore[operator]
    return [
        SampleImage(image, int(label), int(predicted))
        for image, label, predicted in zip(pixels, labels, logits.argmax(1), strict=True)
    ]


def _of_all_classes(project: Project, split: Split, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """n images of a split and their labels, with as equal numbers per class as possible.

    The first images of a folder of photos are all of one class.
    """
    import torch

    n_classes = len(project.source.info.class_names)
    quota = -(-n // n_classes)
    chosen: dict[int, list[torch.Tensor]] = {}
    spare: list[tuple[torch.Tensor, int]] = []
    for batch, labels in project.data.eval_batches(split, BATCH):
        for image, label in zip(batch, labels.tolist(), strict=True):
            of_class = chosen.setdefault(label, [])
            if len(of_class) < quota:
                of_class.append(image)
            elif len(spare) < n:
                spare.append((image, label))
        if sum(map(len, chosen.values())) >= min(n, n_classes) * quota:
            break
    ranked = [(rank, label) for label, images in chosen.items() for rank in range(len(images))]
    found = [(chosen[label][rank], label) for rank, label in sorted(ranked)]
    images, of = zip(*[*found, *spare][:n], strict=True)
    return torch.stack(images), torch.tensor(of)
