"""Exports a network in a format that is given by name, and opens exported files."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hwnas.core.errors import CheckFailed, UserError
from hwnas.core.rng import rng
from hwnas.exporters.apart import Runner, export_safely, opened_safely
from hwnas.exporters.by_name import exporter, open_model, planned
from hwnas.exporters.opened import CannotRunHere
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
        network: a subnet in eval mode with recalibrated BN; any other network requires `images`.
        format: a name from `hwnas list exporters`, with a precision as in `litert:int8`.
        folder: destination; formats that start from ONNX use the `model.onnx` in it.
        images: normalised training images [n, C, H, W], an array or a tensor of floats, which
            are converted to float32. `int8` determines the ranges of activations on them. `fp16`
            and `int8` round the weights such that the outputs of the layers for these images change
            least (GPTQ; without images, `fp16` rounds to the nearest values). The file is checked
            on 16 (without: on noise).
        held_out: normalised images that are not training images, of the same form. The top-1
            agreement of 8-bit files is measured on them. By default it is measured on those of
            `images` that do not determine the ranges; the result is then too optimistic.
        metadata: stored in the file if the format supports it.
        settings: settings of the format, such as `dynamic_batch=False`.

    Returns:
        Paths of the files, the model first.

    Raises:
        UserError: a setting is invalid, the network is in training mode, has no known input shape
            or returns no logits, `images` do not fit, or the format cannot express the network.
        Crashed: a converter or a runtime crashed, in another process (`apart.export_safely`).
        CheckFailed: the outputs of an fp32 file differ from those of the network, or those of a
            file of lower precision by more than rounding explains (`WRONG`). If such a file exceeds
            the tolerance of its format, a warning is logged.
    """
    chosen, images, held_out = planned(format, settings), _floats(images), _floats(held_out)
    shape = _input_shape(network, images)
    if held_out is not None:
        _check_images(held_out, shape, where="held_out")
    warn_of_licence(origin_of(network))
    given = {"images": images, "held_out": held_out if chosen.precision == "int8" else None}
    facts = {key: str(fact) for key, fact in (metadata or {}).items()}
    with Runner() as runner:
        files = export_safely(
            chosen,
            network,
            runner=runner,
            input_shape=shape,
            folder=Path(folder),
            metadata=origin_metadata(network) | facts,
            images={name: array for name, array in given.items() if array is not None},
        )
        if images is None:
            noise = rng(0, "exporters/parity").standard_normal((N_CHECKED, *shape))
            images = noise.astype(np.float32)
        described = chosen.exporter().describe(files)
        _check(described, files, network, images[:N_CHECKED], runner)
    return files


def _floats(images: Any) -> Images | None:
    """An array or a tensor of floats as a float32 array; anything else is left to the checks."""
    import torch

    found: Images | None = images
    if isinstance(images, torch.Tensor):
        is_float = images.is_floating_point()
        found = (images.detach().float() if is_float else images.detach()).cpu().numpy()
    elif isinstance(images, np.ndarray) and np.issubdtype(images.dtype, np.floating):
        found = images.astype(np.float32, copy=False)
    return found


def _input_shape(network: torch.nn.Module, images: Images | None) -> tuple[int, ...]:
    """Input shape [C, H, W] of the network; of the images if hwnas did not build the network.

    Raises:
        UserError: the network is in training mode, its shape is unknown, images have another, or it
            does not compute logits.
    """
    from hwnas.nets.subnet import input_shape_of

    if network.training:
        raise UserError(
            "the network is in training mode",
            expected="a network in eval mode with its own BN statistics",
            found=type(network).__name__,
            fix="call network.eval()",
        )
    has_own = hasattr(network, "definition")
    if images is None and not has_own:
        raise UserError(
            "the input shape of the network is not known",
            expected="images, from which it is read, or a network that hwnas built",
            found=type(network).__name__,
            fix="give `images`: normalised training images, float32 [n, C, H, W]",
        )
    shape: tuple[int, ...]
    if images is None:
        shape = input_shape_of(network)
    else:
        shape = input_shape_of(network) if has_own else np.shape(images)[1:]
        _check_images(images, shape)
    _check_output(network, shape, images)
    return shape


def _check_output(network: torch.nn.Module, shape: tuple[int, ...], images: Images | None) -> None:
    """Refuses networks that do not compute logits [n, classes] from images [n, C, H, W].

    Raises:
        UserError: describes what the network returned for one image, or its error.
    """
    import torch

    if getattr(network, "reads_tokens", False):
        return  # recurrent networks, see `base.Format.export`
    device = next((parameter.device for parameter in network.parameters()), None)
    example = torch.zeros(1, *shape) if images is None else torch.from_numpy(images[:1])
    fix = "export a module whose `forward` takes one batch of images and returns only the logits"
    where = None if images is None else "images"
    try:
        with torch.no_grad():
            found = network(example.to(device))
    except Exception as error:  # a network can raise any exception
        text = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(
            "the network does not run on a batch of images",
            expected=f"a network that takes one tensor, float32 [n, {', '.join(map(str, shape))}]",
            found=f"float32 {list(example.shape)}: {text[0][:300]}",
            where=where,
            fix=f"check the channels and the order [n, C, H, W] of the images; else {fix}",
        ) from error
    if not torch.is_tensor(found) or found.dim() < 2 or len(found) != 1:
        kind = type(found).__name__
        if torch.is_tensor(found):
            kind = f"a tensor {list(found.shape)} for one image"
        raise UserError(
            "the network does not return one tensor of logits",
            expected="a tensor [n, classes] for n images",
            found=kind,
            fix=fix,
        )


def _check_images(images: object, shape: tuple[int, ...], where: str = "images") -> None:
    """Refuses images that are not floats, do not have `shape`, or have values not finite.

    Raises:
        UserError: describes what was given.
    """
    kind = repr(images)[:80]
    if isinstance(images, np.ndarray):
        kind = f"{images.dtype} {list(images.shape)}"
        if images.dtype == np.float32 and images.shape[1:] == shape and len(images):
            bad = np.flatnonzero(~np.isfinite(images.reshape(len(images), -1)).all(1))
            if not len(bad):
                return
            raise UserError(
                "images have values that are not finite",
                expected="finite numbers",
                found=f"NaN or infinity in {len(bad)} of {len(images)} images, first in image"
                f" {bad[0]}",
                where=where,
            )
    if not isinstance(images, np.ndarray) or images.dtype != np.float32:
        raise UserError(
            "the images are not floating-point numbers in an array or a tensor",
            expected="normalised images [n, C, H, W], float32 (other float types are converted)",
            found=kind,
            where=where,
            fix="convert pixels of 0 to 255 as in training: (images / 255 - mean) / std of every"
            " channel, then images.astype('float32'), or images.float() of a tensor",
        )
    raise UserError(
        "the images do not have the input shape of the network",
        expected=f"float32 [n, {', '.join(map(str, shape))}], n > 0, an array or a tensor",
        found=kind,
        where=where,
        fix="give images that are resized, normalised and stacked as in training, [n, C, H, W]",
    )


def _check(
    described: ModelFile,
    files: tuple[Path, ...],
    network: torch.nn.Module,
    images: Images,
    runner: Runner,
) -> None:
    """Compares file and network on images; see `export`."""
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
    if report.passed:
        return
    agreement = f"equal top-1 on {report.agreement:.1%} of the images"
    found = f"{report.worst:.1e} of the largest logit, {agreement}"
    if report.worst <= WRONG.get(described.precision, 0.0):
        log.warning("%s differs from the torch network by %s", files[0].name, found)
        return
    raise CheckFailed(
        "the outputs of the exported file differ from those of the torch network",
        expected="a difference, relative to the largest logit, of at most"
        f" {tolerance_text(report.tolerance, report.torch_rounding)}; and equal top-1 on at least"
        f" {report.min_agreement:.1%} of the images",
        found=f"a difference of {found}",
        where=files[0],
    )
