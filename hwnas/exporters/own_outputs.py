"""What a caller's network computes: logits in float32, equal in every run and in every batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from hwnas.core.errors import UserError
from hwnas.exporters.logit_scale import relative
from hwnas.interfaces import Images

if TYPE_CHECKING:
    import torch

__all__ = ["require_logits"]

MOST_DEPENDENCE = 1e-3  # of the largest logit; kernels for other batches round differently
N_REPEATED = 16  # images of which the logits are computed twice
FIX = "export a module whose `forward` takes one batch of images and returns only the logits"


def require_logits(network: torch.nn.Module, shape: tuple[int, ...], images: Images | None) -> None:
    """Refuses networks that do not compute logits [n, classes] from images [n, C, H, W].

    Raises:
        UserError: describes what the network returned for one image, or its error; or its outputs
            are random, or depend on the other images of a batch.
    """
    import torch

    if getattr(network, "reads_tokens", False):
        return  # recurrent networks, see `base.Format.export`
    device = next((parameter.device for parameter in network.parameters()), None)
    example = torch.zeros(1, *shape) if images is None else torch.from_numpy(images[:1])
    where = None if images is None else "images"
    try:
        with torch.no_grad():
            found = network(example.to(device))
    except Exception as error:  # a network can raise any exception
        _require_float32(network)
        raise _does_not_run(error, tuple(example.shape), shape, where) from error
    if not torch.is_tensor(found) or found.dim() < 2 or len(found) != 1:
        kind = type(found).__name__
        if torch.is_tensor(found):
            kind = f"a tensor {list(found.shape)} for one image"
        raise UserError(
            "the network does not return one tensor of logits",
            expected="a tensor [n, classes] for n images",
            found=kind,
            fix=FIX,
        )
    if found.dtype != torch.float32:
        raise _other_type(
            "logits", found.dtype, "forward() of the network", "convert nothing to this type"
        )
    if not bool(found.isfinite().all()):
        raise UserError(
            "the outputs of the network are not finite",
            expected="finite logits",
            found=f"NaN or infinity for {'an image of zeros' if images is None else 'image 0'}",
            where=where,
            fix="check the BN statistics, divisions, roots and logarithms of the network",
        )
    if images is not None:
        _require_function(network, torch.from_numpy(images[:N_REPEATED]).to(device))


def _does_not_run(
    error: Exception, given: tuple[int, ...], shape: tuple[int, ...], where: str | None
) -> UserError:
    text = str(error).strip().splitlines() or [type(error).__name__]
    takes, check = ", ".join(map(str, shape)), "the channels and the order [n, C, H, W]"
    if len(given) != 4:
        takes, check = "C, H, W", f"whether they have 4 axes (a single image: {where}[None])"
    is_call = isinstance(error, TypeError) and "argument" in text[0]  # of `forward`
    return UserError(
        "the network does not run on a batch of images",
        expected=f"a network that takes one tensor, float32 [n, {takes}]",
        found=f"float32 {list(given)}: {text[0][:300]}",
        where="forward() of the network" if is_call else where,
        fix=FIX if is_call else f"check {check} of the images; else {FIX}",
    )


def _require_float32(network: torch.nn.Module) -> None:
    """Refuses a network that does not run and has parameters of another type.

    Raises:
        UserError: names the first such parameter.
    """
    import torch

    for name, parameter in network.named_parameters():
        if parameter.is_floating_point() and parameter.dtype != torch.float32:
            raise _other_type("parameters", parameter.dtype, name, "call network.float()")


def _other_type(what: str, dtype: torch.dtype, where: str, fix: str) -> UserError:
    return UserError(
        "the network does not compute in float32",
        expected=f"{what} in float32; a format with a precision converts them itself",
        found=f"{what} in {str(dtype).removeprefix('torch.')}",
        where=where,
        fix=fix,
    )


def _require_function(network: torch.nn.Module, x: torch.Tensor) -> None:
    """Refuses a network whose logits of an image are random, or depend on its batch.

    Raises:
        UserError: states the difference.
    """
    import torch

    single = torch.split(x, 1)
    try:
        together = _logits(network, [x])
        again = _logits(network, [x])
    except Exception:  # it takes one image at a time; the format says whether it can
        together, again = _logits(network, single), _logits(network, single)
    first, last = single[0], single[-1]
    alone = _logits(network, [first, last])
    repeated = _logits(network, [first, last])
    if found := max(_difference(together, again), _difference(alone, repeated)):
        raise UserError(
            "the outputs of the network are random",
            expected="equal logits for an image in every run",
            found=f"logits of an image that differ by {found:.2g} of the largest logit",
            where="forward() of the network",
            fix="remove random numbers (for example dropout with training=True), and what changes"
            " from call to call",
        )
    if found := _difference(alone, together[[0, -1]]):
        raise UserError(
            "the outputs of the network for an image depend on the other images of its batch",
            expected="equal logits for an image in every batch",
            found=f"logits that differ by {found:.2g} of the largest logit in a batch of"
            f" {len(x)} images",
            where="forward() of the network",
            fix="remove sums, means, sorting and recurrence over the batch axis (axis 0), and"
            " branches on the values of a batch (torch.where selects for each image)",
        )


def _logits(network: torch.nn.Module, batches: Sequence[torch.Tensor]) -> Images:
    import torch

    with torch.no_grad():
        found: Images = torch.cat([network(batch) for batch in batches]).cpu().numpy()
    return found


def _difference(one: Images, other: Images) -> float:
    """The largest difference, relative to the logits; 0 if rounding explains it."""
    found = float(relative(np.abs(one - other), one).max())
    return 0.0 if found <= MOST_DEPENDENCE else found
