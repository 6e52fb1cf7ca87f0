"""Selects the whole networks that validate a table, and makes their models."""

from __future__ import annotations

import numpy as np
import onnx

from hwnas.builders import tflite
from hwnas.builders.onnx import network
from hwnas.builders.onnx_recurrent import STATE
from hwnas.builders.precision import to_precision
from hwnas.core.errors import UserError
from hwnas.core.rng import rng
from hwnas.interfaces import DeviceSpec
from hwnas.spaces.cost import cost
from hwnas.spaces.graphs import is_connected, smallest_connected
from hwnas.spaces.lowering import lower
from hwnas.spaces.space import Codes, SearchSpace

__all__ = ["network_id", "network_models", "serialized", "validation_nets"]


def validation_nets(space: SearchSpace, n: int, *, seed: int) -> Codes:
    """Up to n networks [<= n, d]: largest, smallest, and others spread evenly over log MACs.

    The result has fewer than n only if the space has fewer networks.
    """
    generator = rng(seed, "profile/validation")
    ends = space.codes([smallest_connected(space), space.largest()])
    pool = np.concatenate(
        [
            ends,
            space.sample(50 * n, rng=generator),
            # uniform samples are hardly ever near the ends
            *(space.mutate(np.repeat(end[None], 25 * n, axis=0), generator, 0.3) for end in ends),
        ]
    )
    pool = pool[is_connected(space, pool)]  # nobody deploys others, which take no time
    pool = pool[np.sort(np.unique(pool, axis=0, return_index=True)[1])]
    log_macs = np.log(cost(space, pool, "macs"))
    chosen: dict[str, int] = {}
    unused = np.ones(len(pool), dtype=bool)
    targets = np.linspace(log_macs[0], log_macs[min(1, len(pool) - 1)], n)
    for target in (targets[0], targets[-1], *targets[1:-1]):
        while unused.any():
            nearest = int(np.argmin(np.where(unused, np.abs(log_macs - target), np.inf)))
            unused[nearest] = False
            key = lower(space, space.arch(pool[nearest])).key
            if key not in chosen:
                chosen[key] = nearest
                break
    return pool[list(chosen.values())]


def network_models(
    space: SearchSpace, nets: Codes, device: DeviceSpec, *, seed: int
) -> dict[str, bytes]:
    """Maps the `network_id` of every network [n, d] to its model, as file content.

    The models have the runtime format, batch size and precision of the device. Weights are random,
    drawn from `seed`. Archs that lower to the same network share one model.
    """
    return {
        network_id(space, row): serialized(
            network(lower(space, space.arch(row)), batch=device.batch, seed=seed), device
        )
        for row in nets
    }


def serialized(model: onnx.ModelProto, device: DeviceSpec) -> bytes:
    """The model in the runtime format and precision of the device, as file content.

    Raises:
        UserError: a recurrent cell for a runtime other than ONNX Runtime, or in 8 bits.
    """
    if device.runtime != "onnxruntime" and any(v.name == STATE for v in model.graph.input):
        raise UserError(
            "recurrent cells are timed with ONNX Runtime only",
            expected="a device with the runtime onnxruntime",
            found=f"{device.name}: {device.runtime}",
            where="devices",
            fix="`hwnas list devices` shows the runtime of every device",
        )
    if device.runtime == "litert":
        return tflite.timed(model, device.precision)
    for_tensorrt = device.runtime.startswith("tensorrt")
    converted = to_precision(model, device.precision, for_tensorrt=for_tensorrt)
    content: bytes = converted.SerializeToString()
    return content


def network_id(space: SearchSpace, codes: Codes) -> str:
    """Name of the network of one arch [d] in a timing plan."""
    return f"net-{lower(space, space.arch(codes)).key}"
