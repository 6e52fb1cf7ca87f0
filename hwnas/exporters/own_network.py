"""Networks that a caller gives to `export`: what they are, and checks before conversion."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hwnas.core.errors import UserError
from hwnas.exporters.own_images import check_images
from hwnas.exporters.own_outputs import require_logits
from hwnas.interfaces import Images

if TYPE_CHECKING:
    import torch

__all__ = ["input_shape", "unwrapped"]


def unwrapped(network: torch.nn.Module) -> torch.nn.Module:
    """The module inside of torch.compile, DataParallel and DistributedDataParallel.

    Raises:
        UserError: the network is a script or a trace of TorchScript, or no module.
    """
    import torch
    from torch import nn

    inside: object = network
    while True:
        if isinstance(inside, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            inside = inside.module
        elif isinstance(compiled := getattr(inside, "_orig_mod", None), nn.Module):
            inside = compiled
        else:
            break
    if not isinstance(inside, nn.Module) or isinstance(inside, torch.jit.ScriptModule):
        raise UserError(
            "the network is not a module of Python",
            expected="a torch.nn.Module",
            found=f"{type(inside).__module__}.{type(inside).__qualname__}",
            where="network",
            fix="give the module itself, in eval mode; for TorchScript, the module that was"
            " scripted or traced",
        )
    return inside


def input_shape(network: torch.nn.Module, images: Images | None) -> tuple[int, ...]:
    """Input shape [C, H, W] of the network; of the images if hwnas did not build the network.

    Raises:
        UserError: the network or a part of it is in training mode, a weight is missing or not
            finite, its shape is unknown, images have another, or it does not compute logits.
    """
    import numpy as np

    from hwnas.nets.subnet import input_shape_of

    _require_eval(network)
    _require_weights(network)
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
        is_array = isinstance(images, np.ndarray)
        shape = input_shape_of(network) if has_own else images.shape[1:] if is_array else ()
        check_images(images, shape)
    require_logits(network, shape, images)
    return shape


def _require_eval(network: torch.nn.Module) -> None:
    from torch import nn

    norms = nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm
    dropouts = nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d
    changing = *norms, *dropouts, nn.AlphaDropout, nn.FeatureAlphaDropout
    for name, module in network.named_modules():
        if module.training and (not name or isinstance(module, changing)):
            raise UserError(
                "the network is in training mode",
                expected="a network in eval mode with its own BN statistics",
                found=f"{type(module).__name__} in training mode",
                where=name or None,
                fix="call network.eval()",
            )


def _require_weights(network: torch.nn.Module) -> None:
    """Refuses weights without values, that cannot be copied, or that are not finite.

    Raises:
        UserError: names the first such weight.
    """
    for name, parameter in network.named_parameters():
        if parameter.is_meta:
            raise UserError(
                "the network has weights without values",
                expected="weights that are loaded",
                found="a parameter on the device meta",
                where=name,
                fix="network.to_empty(device='cpu'), then load_state_dict",
            )
        if parameter.is_inference():
            raise UserError(
                "the network was built under torch.inference_mode()",
                expected="parameters that torch can copy and trace",
                found="an inference tensor",
                where=name,
                fix="build and load the network outside of torch.inference_mode()",
            )
        if not bool(parameter.isfinite().all()):
            raise UserError(
                "the network has weights that are not finite",
                expected="finite numbers",
                found="NaN or infinity",
                where=name,
                fix="load weights from before the training diverged",
            )
