"""Reference networks as ONNX graphs with random weights, for timing.

hwnas builds the graphs of networks in its own data within milliseconds, as for candidates of a
search. torch exports all other networks of timm, which takes seconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hwnas.builders.onnx import network
from hwnas.core.errors import UserError
from hwnas.measure.references.published import published
from hwnas.spaces.cost import op_macs
from hwnas.spaces.published import published_networks
from hwnas.spaces.timm import published_at

if TYPE_CHECKING:
    import onnx

__all__ = ["architecture", "has_data", "reference_graph", "reference_macs", "require_reference"]

USUAL_MACS = 6e3
"""MACs of published networks per pixel of the image: 3e3 (LCNet) to 8e3 (EfficientNet-B0)."""


def architecture(name: str) -> str:
    """Name of the network without the name of the weights: `lcnet_100` of `lcnet_100.ra2_in1k`."""
    return name.partition(".")[0]


def has_data(name: str) -> bool:
    """Whether hwnas has the data of a network, so that torch need not export it."""
    return architecture(name) in published_networks()


def reference_macs(name: str, px: int) -> float:
    """Multiply-accumulates of a timm network; a typical number if hwnas has no data on it."""
    if not has_data(name):
        return USUAL_MACS * px**2
    return float(sum(map(op_macs, published_at(architecture(name), px, num_classes=1000).ops)))


def require_reference(name: str) -> None:
    """Checks that timm knows a network and its weights.

    Raises:
        UserError: timm does not know them; the error suggests similar names.
    """
    if not published(name) and name not in published_networks():
        from hwnas.nets.from_timm import require_timm_name

        require_timm_name(name)


def reference_graph(
    name: str,
    px: int,
    *,
    num_classes: int = 1000,
    in_channels: int = 3,
    batch: int = 1,
    seed: int = 0,
) -> onnx.ModelProto:
    """A network of timm in fp32: `input` [batch, C, px, px] -> `logits` [batch, classes].

    Weights are random, drawn from `seed`; BN is folded. Equal arguments give equal bytes.

    Raises:
        UserError: the network is unknown, or does not support this resolution.
    """
    require_reference(name)
    if not has_data(name):
        return _exported(name, px, num_classes, in_channels, batch, seed)
    net = published_at(architecture(name), px, num_classes=num_classes, in_channels=in_channels)
    return network(net, batch=batch, seed=seed)


def _exported(
    name: str, px: int, num_classes: int, in_channels: int, batch: int, seed: int
) -> onnx.ModelProto:
    """The graph exported by torch."""
    from hwnas.exporters.float_graph import exported
    from hwnas.nets.from_timm import timm_network

    model = timm_network(name, seed=seed, num_classes=num_classes, in_chans=in_channels).eval()
    try:
        graph = exported(
            model, (in_channels, px, px), properties={"network": name}, dynamic_batch=batch > 1
        )
    except Exception as error:  # from torch's exporter, or from a network with a fixed resolution
        raise UserError(
            f"timm's {name} cannot be exported at {px} px",
            found=(str(error).strip().splitlines() or [type(error).__name__])[0][:200],
            fix="give the resolution of its weights, or choose another network",
        ) from error
    if batch > 1:
        for value in (*graph.graph.input, *graph.graph.output):
            value.type.tensor_type.shape.dim[0].dim_value = batch
    return graph
