"""Exports a network in a format that is given by name, and opens exported files."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hwnas.core.errors import CheckFailed, HwnasError, UserError
from hwnas.core.rng import rng
from hwnas.exporters.apart import Runner, export_safely, opened_safely
from hwnas.exporters.artifact import planned_formats
from hwnas.exporters.base import OTHER_FORMATS
from hwnas.exporters.by_name import exporter, open_model, planned
from hwnas.exporters.opened import CannotRunHere
from hwnas.exporters.own_images import as_floats, check_images
from hwnas.exporters.own_network import input_shape, unwrapped
from hwnas.exporters.parity import (
    compare_batches,
    promised,
    tolerance_text,
    torch_logits,
    torch_rounding,
)
from hwnas.interfaces import Images, ModelFile
from hwnas.nets.origin import origin_metadata, origin_of, warn_of_licence

if TYPE_CHECKING:
    import torch

__all__ = ["export", "exporter", "open_model"]

log = logging.getLogger(__name__)

N_CHECKED = 16  # images on which file and network are compared
BATCHES = (1, 2, 8)
WRONG = {"fp16": 0.1, "int8": 1.0}  # of the largest logit: more than rounding explains
LEAST_AGREEMENT = 0.5  # rounding changes the top-1 of fewer images
WAY_OUT = (
    f"{OTHER_FORMATS}; if it is none of these, report the network and the versions of packages"
)
WAY_OUT_OF_ROUNDING = (
    "train the network first (without clear classes, rounding changes them), give more `images`, or"
    " export another precision"
)


def export(
    network: torch.nn.Module,
    format: str,
    folder: Path | str,
    *,
    images: Images | torch.Tensor | None = None,
    held_out: Images | torch.Tensor | None = None,
    metadata: Mapping[str, str] | None = None,
    **settings: Any,
) -> tuple[Path, ...]:
    """Writes a trained network in one format, and compares the outputs of the file with torch.

    Args:
        network: a subnet in eval mode with recalibrated BN; any other network requires `images`. A
            network in torch.compile or DataParallel is taken out of it.
        format: a name from `hwnas list exporters`, with a precision as in `litert:int8`.
        folder: destination; created if it does not exist.
        images: normalised training images [n, C, H, W], an array or a tensor of floats, which
            are converted to float32. `int8` determines the ranges of activations on them. `fp16`
            and `int8` round the weights such that the outputs of the layers for these images change
            least (GPTQ; without images, `fp16` rounds to the nearest values). The file is checked
            on 16 (without: on noise).
        held_out: normalised images that are not training images. The top-1 agreement of 8-bit
            files is measured on them; by default, too optimistically, on other ones of `images`.
        metadata: stored in the file if the format supports it.
        settings: of the format, such as `dynamic_batch=False`.

    Returns:
        Paths of the files, the model first.

    Raises:
        UserError: a setting is invalid, the network is in training mode, has no known input shape
            or returns no logits, `images` do not fit, or the format cannot express the network.
        Crashed: a converter or a runtime crashed in another process (`export_safely`).
        CheckFailed: the outputs of an fp32 file differ from those of the network, or those of a
            file of lower precision by more than rounding explains (`WRONG`, `LEAST_AGREEMENT`). If
            such a file only exceeds the tolerance of its format, a warning is logged.
    """
    chosen, folder, network = planned(format, settings), _path(folder), unwrapped(network)
    images, held_out = as_floats(images), as_floats(held_out)
    shape = input_shape(network, images)
    if held_out is not None:
        check_images(held_out, shape, where="held_out")
    warn_of_licence(origin_of(network))
    facts = _facts(metadata)
    given = {"images": images, "held_out": held_out if chosen.precision == "int8" else None}
    with _staged(folder) as staging, Runner() as runner:
        for one in planned_formats([chosen.config], devices=()):  # `chosen` is the last one
            files = export_safely(
                one,
                network,
                runner=runner,
                input_shape=shape,
                folder=staging,
                metadata=origin_metadata(network) | facts,
                images={name: array for name, array in given.items() if array is not None},
            )
        described = chosen.exporter().describe(files)
        _check(described, files, network, _checked_on(images, shape), runner, where=folder)
        return _moved(files, folder)


def _checked_on(images: Images | None, shape: tuple[int, ...]) -> Images:
    if images is not None:
        return images[:N_CHECKED]
    return rng(0, "exporters/parity").standard_normal((N_CHECKED, *shape), np.float32)


def _path(folder: object) -> Path:
    """The path of the destination.

    Raises:
        UserError: `folder` is not a path.
    """
    if not isinstance(folder, (str, os.PathLike)) or not str(folder) or "\0" in str(folder):
        raise UserError(
            "the folder of the exported files is not a path",
            expected="the path of a folder, which is created if it does not exist",
            found=repr(folder)[:80],
            where="the argument `folder`",
            fix="give a folder: hwnas.export(network, format, 'exported')",
        )
    return Path(folder)


@contextlib.contextmanager
def _staged(folder: Path) -> Iterator[Path]:
    """A temporary folder inside `folder`.

    A file is moved to `folder` once it is checked, so a failed export replaces no older file. No
    older file of `folder` is read: it can be of another network.

    Raises:
        UserError: `folder` is a file, or cannot be created or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary = tempfile.TemporaryDirectory(prefix=".export-", dir=folder)
    except OSError as error:
        raise UserError(
            "cannot create or write to the folder of the exported files",
            expected="a folder that can be written to, or a path at which one can be created",
            found="a file" if os.path.isfile(folder) else str(error.strerror),
            where=folder,
            fix="give another folder",
        ) from error
    with temporary as name:
        try:
            yield Path(name)
        except HwnasError as error:
            if error.where is not None and name in str(error.where):
                error.say_where(str(error.where).replace(name, str(folder)))
            raise


def _moved(files: tuple[Path, ...], folder: Path) -> tuple[Path, ...]:
    """Moves checked files to the folder; returns their paths there. All are moved, or none.

    Raises:
        UserError: a file cannot be replaced, or hwnas did not write it (`model.py`).
    """
    targets = tuple(folder / path.name for path in files)
    for target in targets:
        if target.is_dir() or (target.suffix == ".py" and not _is_ours(target)):
            raise UserError(
                "the export would replace a file that hwnas did not write",
                expected="no file, or one of an earlier export",
                found="a folder" if target.is_dir() else "other code",
                where=target,
                fix="give another folder, or remove it",
            )
    older = {target: files[0].parent / f"{target.name}.older" for target in targets}
    moved: list[Path] = []
    try:
        for path, target in reversed([*zip(files, targets, strict=True)]):  # the model last
            if target.exists():
                os.replace(target, older[target])
            moved.append(target)
            os.replace(path, target)
    except OSError as error:
        for target in moved:
            target.unlink(missing_ok=True)
            if older[target].exists():
                os.replace(older[target], target)
        raise UserError(
            "cannot replace a file",
            found=str(error.strerror),
            where=error.filename2 or error.filename,
            fix="give another folder, or change the permissions of the file",
        ) from error
    return targets


def _is_ours(code: Path) -> bool:
    """Whether a path is free, or has the code of an earlier export in the format `timm`."""
    return not code.exists() or b'with_name("arch.json")' in code.read_bytes()


def _facts(metadata: object) -> dict[str, str]:
    """Metadata as texts.

    Raises:
        UserError: it is no mapping, or a text cannot be encoded.
    """
    if metadata is None:
        return {}
    if isinstance(metadata, Mapping):
        facts = {str(key): str(fact) for key, fact in metadata.items()}
        with contextlib.suppress(UnicodeEncodeError):
            "".join((*facts, *facts.values())).encode()
            return facts
    raise UserError(
        "the metadata are no mapping of texts",
        expected="a dict of texts in Unicode",
        found=ascii(metadata)[:80],
        where="metadata",
        fix="give a dict, for example {'author': 'me'}",
    )


def _check(
    described: ModelFile,
    files: tuple[Path, ...],
    network: torch.nn.Module,
    images: Images,
    runner: Runner,
    *,
    where: Path,
) -> None:
    """Compares file and network on images; see `export`. `where`: the folder of the files."""
    expected = torch_logits(network, images)
    if described.precision == "fp32":  # others have a tolerance for their own rounding
        described = promised(described, torch_rounding(network, images, expected))
    try:
        with opened_safely(described.format, files[0], runner=runner) as opened:
            report = compare_batches(
                expected,
                opened,
                images,
                file=files[0].name,
                batches=BATCHES,
                tolerance=described.parity_tolerance,
                min_agreement=described.min_agreement,
                rounding=described.torch_rounding,
            )
    except CannotRunHere as error:
        log.warning("%s is not checked: %s", files[0].name, str(error).splitlines()[0])
        return
    except CheckFailed as error:  # another shape, or outputs that are not finite
        error.say_where(where / files[0].name)
        error.add_way_out(WAY_OUT)
        raise
    if report.passed:
        return
    agreement = f"equal top-1 on {report.agreement:.1%} of the images"
    found = f"{report.worst:.1e} of the largest logit, {agreement}"
    is_rounding = report.worst <= WRONG.get(described.precision, 0.0)
    if is_rounding and report.agreement >= LEAST_AGREEMENT:
        log.warning("%s differs from the torch network by %s", files[0].name, found)
        return
    raise CheckFailed(
        "the outputs of the exported file differ from those of the torch network",
        expected="a difference, relative to the largest logit, of at most"
        f" {tolerance_text(report.tolerance, report.torch_rounding)}; and equal top-1 on at least"
        f" {report.min_agreement:.1%} of the images",
        found=f"a difference of {found}",
        where=where / files[0].name,
        fix=WAY_OUT if described.precision == "fp32" else WAY_OUT_OF_ROUNDING,
    )
