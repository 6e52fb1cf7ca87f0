"""Stage `export`: deployable files of every fine-tuned network, compared with torch.

The winners get every format. The baselines get the ONNX file, from which other formats are made,
and the files that devices run, so that they can be timed and tested.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hwnas.core.command import command_line
from hwnas.core.errors import CheckFailed, UserError, first_line
from hwnas.core.progress import Parts, Progress
from hwnas.exporters import REGISTRY as EXPORTERS
from hwnas.exporters.apart import Crashed, Runner, export_safely, opened_safely
from hwnas.exporters.artifact import PlannedFormat
from hwnas.exporters.every import require_fetched
from hwnas.exporters.opened import CannotRunHere
from hwnas.exporters.parity import compare_batches, promised, torch_logits, torch_rounding
from hwnas.interfaces import Images, ModelFile
from hwnas.nets.origin import read_origin, warn_of_licence
from hwnas.pipeline.data_checks import enough_images
from hwnas.pipeline.data_source import LEARNING
from hwnas.pipeline.disk import weights_bytes
from hwnas.pipeline.exports import artifacts_are_there, formats_for, winning_archs
from hwnas.pipeline.format_time import weight
from hwnas.pipeline.model_card import model_card
from hwnas.pipeline.outcomes import Exported
from hwnas.pipeline.plan import Stage
from hwnas.pipeline.project import Project
from hwnas.pipeline.task import task
from hwnas.pipeline.winners import load_network, network_names, role_names
from hwnas.spaces.arch import Arch
from hwnas.spaces.lowering import resolution

if TYPE_CHECKING:
    import torch

__all__ = ["export", "stage"]

log = logging.getLogger(__name__)

N_PARITY_IMAGES = 256
N_PARITY_TEXTS = 16  # windows, each of many steps
N_TRAIN_IMAGES, CALIBRATION_BATCH = 512, 32
N_HELD_OUT = 512  # images on which 8-bit files must agree with torch


def stage(project: Project) -> Stage:
    """Exports every fine-tuned network."""
    files, search = project.files, project.config.search.name
    name, plain = f"export/{search}", project.settled
    return Stage(
        name=name,
        command=command_line("export", project.run.root),
        needs=(f"finetune/{search}",),
        names=("seed", "data", "export", "verify.parity_batches"),
        settings=[
            project.config.seed,
            project.source.settings,
            plain["export"],
            plain["verify"]["parity_batches"],
        ],
        owns=(files.pattern(files.exported),),
        outputs=(files.pattern(files.exports), files.pattern(files.exported / "*" / "*")),
        run=task(project, name, export),
        cost=f"{len(role_names(project))} networks",
        check=lambda: _require_packages(project),
        settled=lambda: _is_complete(project),
        data=project.source.input(LEARNING),
        check_data=lambda: enough_images(project, {}),
        writes=lambda: _bytes(project),
    )


def _bytes(project: Project) -> int:
    """Estimated size of the files.

    Winners have every format. An 8-bit file has a quarter of the size of an fp32 file.
    """
    smallest, largest = weights_bytes(project)
    n_others = len(role_names(project)) - 2
    return largest + n_others * smallest + len(project.formats) * smallest // 4


def _require_packages(project: Project) -> None:
    """Refuses formats that cannot be exported on this machine.

    Raises:
        UserError: names the devices, the format and the missing package or download.
    """
    for one in project.formats:
        try:
            EXPORTERS.require(one.name)
            require_fetched(one.name)
        except UserError as error:
            if not one.devices:
                raise
            devices = ", ".join(sorted(one.devices))
            raise UserError(
                f"nothing can be exported for the device {devices} on this machine",
                expected=f"the packages of the format {one.name}, which the device runs",
                found=error.found,
                where="devices",
                fix=error.fix,
            ) from error


def _is_complete(project: Project) -> bool:
    """Whether the files of all devices exist.

    Networks verified by earlier versions need no further files, unless a check failed, because
    these versions exported and timed the ONNX file for every device.
    """
    if artifacts_are_there(project):
        return True
    record = project.run.ledger().get(f"verify/{project.config.search.name}")
    if record is None or record.state != "done":
        return False
    results = project.files.results.read_if_there()
    if results is None or results.of(False):
        return False
    return {row.device for row in results.networks} >= set(project.devices)


def export(project: Project, progress: Progress) -> None:
    """Exports every network; each file must compute the same as its torch network.

    Raises:
        CheckFailed: an fp32 file computes something else.
    """
    winners = winning_archs(project)
    names = network_names(project)
    warn_of_licence(read_origin(project.files.network(next(iter(names)))))
    found: dict[str, list[Exported]] = {}
    with Runner(threads=project.config.threads) as runner:
        formats = {arch: formats_for(project, is_winner=arch in winners) for arch in names}
        parts = Parts(progress, [sum(map(weight, chosen)) for chosen in formats.values()])
        for n, (arch, name) in enumerate(names.items()):
            part = parts.part(n, f"{name} ({n + 1} of {len(names)} networks)")
            found[arch.key] = _export_arch(project, arch, formats[arch], runner, part)
            worst = max(e.parity.worst for e in found[arch.key][:1] if e.parity is not None)
            part(1, 1, f"parity {worst:.1e}")
    project.files.write_exports(found, data=project.source.digest)
    failed = {
        f"{key}/{one.files[0]}": str(one.parity)
        for key, rows in found.items()
        for one in rows
        if one.model.precision == "fp32" and one.parity is not None and not one.parity.passed
    }
    if failed:
        raise CheckFailed(
            "the outputs of an exported file differ from those of the torch network",
            expected="a relative difference of the logits within the tolerance, and equal top-1",
            found=failed,
            where=project.files.exported,
        )


@dataclass(frozen=True)
class _Network:
    """A network, and what its formats need.

    images: [n, C, H, W] for the comparison of every file with torch; `expected` are torch's logits,
        `rounding` is their error (`torch_rounding`).
    calibration: the arguments `images` and `held_out` of `Exporter.export`.
    """

    model: torch.nn.Module
    folder: Path
    metadata: dict[str, str]
    images: Images
    expected: Images
    rounding: float
    calibration: Mapping[str, Images]


def _export_arch(
    project: Project,
    arch: Arch,
    formats: Sequence[PlannedFormat],
    runner: Runner,
    progress: Progress,
) -> list[Exported]:
    """Writes and checks the formats of a network; only those that devices need must succeed."""
    network, found = _network(project, arch, formats), []
    parts = Parts(progress, [weight(one) for one in formats])
    for n, one in enumerate(formats):
        parts.part(n)(0, 1, one.shown)
        try:
            files = export_safely(
                one,
                network.model,
                runner=runner,
                input_shape=network.images.shape[1:],
                folder=network.folder,
                metadata=network.metadata,
                images=_calibration_of(one, network),
            )
        except UserError as error:
            if one.name == formats[0].name or one.devices:
                raise
            found.append(_not_written(one, error))
            continue
        found.append(_checked(project, one, files, network, runner))
    return found


def _network(project: Project, arch: Arch, formats: Sequence[PlannedFormat]) -> _Network:
    model, px = load_network(project, arch), resolution(project.space, arch)
    is_text = project.space.macro.reads_tokens
    held_out, _ = project.images("val", px, N_PARITY_TEXTS if is_text else N_HELD_OUT)
    images = held_out[:N_PARITY_IMAGES]
    expected = torch_logits(model, images)
    is_calibrated = any(one.name not in ("onnx", "timm", "features") for one in formats)
    calibration = (
        {"images": _training_images(project, px), "held_out": held_out} if is_calibrated else {}
    )
    return _Network(
        model,
        project.files.exported_network(arch),
        model_card(project, arch, model),
        images,
        expected,
        torch_rounding(model, images, expected),
        calibration,
    )


def _calibration_of(one: PlannedFormat, network: _Network) -> dict[str, Images]:
    """The images for calibration; only 8-bit formats get held-out images."""
    is_8_bit = one.precision == "int8"
    return {k: x for k, x in network.calibration.items() if is_8_bit or k != "held_out"}


def _checked(
    project: Project,
    one: PlannedFormat,
    files: tuple[Path, ...],
    network: _Network,
    runner: Runner,
) -> Exported:
    """The record of written files, compared with torch in their runtime."""
    described = promised(one.exporter().describe(files), network.rounding)
    report, not_run, failure = None, "", ""
    threads = project.config.threads
    try:
        with opened_safely(described.format, files[0], threads=threads, runner=runner) as opened:
            report = compare_batches(
                network.expected,
                opened,
                network.images,
                file=files[0].name,
                batches=project.config.verify.parity_batches,
                tolerance=described.parity_tolerance,
                min_agreement=described.min_agreement,
                rounding=described.torch_rounding,
            )
    except CannotRunHere as error:
        not_run = first_line(error)
    except Crashed as error:
        log.warning("%s: %s", files[0].name, error)
        not_run = failure = f"{first_line(error)} ({error.found})"
    return Exported(described, tuple(file.name for file in files), report, not_run, failure)


def _not_written(one: PlannedFormat, error: UserError) -> Exported:
    """The record of a format that cannot express the network; the export of others goes on."""
    log.warning("the format %s is not written: %s", one.shown, error)
    reason = first_line(error)
    if error.found is not None:
        reason += f": {str(error.found).strip().splitlines()[0][:200]}"
    model = ModelFile(one.path, one.name, one.precision)
    return Exported(model, (), None, reason, reason)


def _training_images(project: Project, px: int) -> NDArray[np.float32]:
    """Training images [n, C, px, px] without augmentation, a seeded sample."""
    import torch

    from hwnas.training.images import resize

    n = min(N_TRAIN_IMAGES, project.source.info.n_images["train"])
    size = min(CALIBRATION_BATCH, n)
    batches = project.data.calibration_batches(n // size, size)
    x: NDArray[np.float32] = torch.cat([resize(b, px) for b in batches]).contiguous().numpy()
    return x
