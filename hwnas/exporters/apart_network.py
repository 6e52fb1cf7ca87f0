"""Saves networks for the other process of `apart.Runner`, and loads them there."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hwnas.core.store import explained

if TYPE_CHECKING:
    import torch

__all__ = ["DEFINITION", "PROGRAM", "WEIGHTS", "Uncaptured", "load", "saved"]

WEIGHTS, DEFINITION, PROGRAM = "network.safetensors", "arch.json", "network.pt2"


class Uncaptured(Exception):
    """A network that cannot be passed to another process."""


def saved(network: torch.nn.Module, folder: Path, input_shape: Sequence[int]) -> Path:
    """Saves a network for the other process, and returns the path for `load`.

    The files hold its weights and its `definition`. If the network has no definition or differs
    from it, the file is a program of torch.export.

    Raises:
        Uncaptured: such a program is needed, and torch.export cannot capture the network.
        UserError: the disk is full.
    """
    import torch
    from safetensors.torch import save_file

    from hwnas.nets.subnet import computes_as_defined

    definition = getattr(network, "definition", None)
    if isinstance(definition, dict) and computes_as_defined(network):
        state = {name: value.cpu().contiguous() for name, value in network.state_dict().items()}
        save_file(state, folder / WEIGHTS)
        (folder / DEFINITION).write_text(json.dumps(definition))
        return folder / WEIGHTS
    from hwnas.exporters.pt2 import captured

    stream = io.BytesIO()  # torch ends the process if a disk is full
    try:
        torch.export.save(captured(network, input_shape), stream)
    except Exception as error:  # torch can raise any exception here
        raise Uncaptured(f"{type(error).__name__}: {error}") from error
    with explained("write the network for the process of the converter", folder / PROGRAM):
        (folder / PROGRAM).write_bytes(stream.getvalue())
    return folder / PROGRAM


def load(path: Path) -> torch.nn.Module:
    """Loads a network from the path that `saved` returned."""
    from hwnas.exporters.pt2 import network_of
    from hwnas.exporters.timm import load_network

    return network_of(path) if path.name == PROGRAM else load_network(path)
