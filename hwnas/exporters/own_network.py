"""Networks that a caller gives to `export`: their input shape, and checks before conversion."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hwnas.core.errors import UserError
from hwnas.exporters.own_images import check_images
from hwnas.interfaces import Images

if TYPE_CHECKING:
    import torch

__all__ = ["input_shape"]

MOST_DEPENDENCE = 1e-3  # of the largest logit; kernels for other batches round differently


def input_shape(network: torch.nn.Module, images: Images | None) -> tuple[int, ...]:
    """Input shape [C, H, W] of the network; of the images if hwnas did not build the network.

    Raises:
        UserError: the network or a part of it is in training mode, a weight is not finite, its
            shape is unknown, images have another, or it does not compute logits.
    """
    from torch import nn

    from hwnas.nets.subnet import input_shape_of

    changing = nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, nn.Dropout
    for name, module in network.named_modules():
        if module.training and (not name or isinstance(module, changing)):
            raise UserError(
                "the network is in training mode",
                expected="a network in eval mode with its own BN statistics",
                found=f"{type(module).__name__} in training mode",
                where=name or None,
                fix="call network.eval()",
            )
    for name, parameter in network.named_parameters():
        if not bool(parameter.isfinite().all()):
            raise UserError(
                "the network has weights that are not finite",
                expected="finite numbers",
                found="NaN or infinity",
                where=name,
                fix="load weights from before the training diverged",
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
        check_images(images, shape)
    _require_logits(network, shape, images)
    return shape


def _require_logits(
    network: torch.nn.Module, shape: tuple[int, ...], images: Images | None
) -> None:
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
        _require_float32(network)
        text = str(error).strip().splitlines() or [type(error).__name__]
        takes, check = ", ".join(map(str, shape)), "the channels and the order [n, C, H, W]"
        if example.dim() != 4:
            takes, check = "C, H, W", f"whether they have 4 axes (a single image: {where}[None])"
        raise UserError(
            "the network does not run on a batch of images",
            expected=f"a network that takes one tensor, float32 [n, {takes}]",
            found=f"float32 {list(example.shape)}: {text[0][:300]}",
            where=where,
            fix=f"check {check} of the images; else {fix}",
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
    if not bool(found.isfinite().all()):
        raise UserError(
            "the outputs of the network are not finite",
            expected="finite logits",
            found=f"NaN or infinity for {'an image of zeros' if images is None else 'image 0'}",
            where=where,
            fix="check the BN statistics, divisions, roots and logarithms of the network",
        )
    if images is not None and len(images) > 1:
        _require_function(network, torch.from_numpy(images[:2]).to(device), found[0])


def _require_float32(network: torch.nn.Module) -> None:
    """Refuses a network that does not run and has parameters of another type.

    Raises:
        UserError: names the first such parameter.
    """
    import torch

    for name, parameter in network.named_parameters():
        if parameter.is_floating_point() and parameter.dtype != torch.float32:
            raise UserError(
                "the network does not compute in float32",
                expected="parameters in float32; a format with a precision converts them itself",
                found=f"parameters in {str(parameter.dtype).removeprefix('torch.')}",
                where=name,
                fix="call network.float()",
            )


def _require_function(network: torch.nn.Module, two: torch.Tensor, alone: torch.Tensor) -> None:
    """Refuses a network whose logits of an image are random, or depend on its batch.

    alone: the logits of the first of two images.

    Raises:
        UserError: states the difference.
    """
    import torch

    scale = float(alone.abs().max())

    def difference(batch: torch.Tensor) -> float:
        with torch.no_grad():
            return float((network(batch)[0] - alone).abs().max())

    if not (found := difference(two[:1])) <= MOST_DEPENDENCE * scale:
        raise UserError(
            "the outputs of the network are random",
            expected="equal logits for an image in every run",
            found=f"logits of image 0 that differ by {found:.2g}, of at most {scale:.2g}",
            where="forward() of the network",
            fix="remove random numbers (for example dropout with training=True)",
        )
    try:
        found = difference(two)
    except Exception:  # it takes one image at a time; the format says whether it can
        return
    if not found <= MOST_DEPENDENCE * scale:
        raise UserError(
            "the outputs of the network for an image depend on the other images of its batch",
            expected="equal logits for an image in every batch",
            found=f"logits of image 0 that differ by {found:.2g}, of at most {scale:.2g}, if"
            " image 1 is in the batch",
            where="forward() of the network",
            fix="remove sums, means and sorting over the batch axis (axis 0)",
        )
