"""`hwnas pretrained ...`: published supernets and networks as starting weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwnas.api.options import require_place
from hwnas.api.result import Folder, Listing, Row
from hwnas.core.records import SCHEMA_VERSION, dump
from hwnas.core.store import write_bytes
from hwnas.nets.origin import Origin
from hwnas.nets.pretrained_list import NETWORKS, SHIPPED
from hwnas.spaces.published import published_network, published_networks
from hwnas.spaces.space import SearchSpace

if TYPE_CHECKING:
    import torch

    from hwnas.nets.supernet import Supernet

__all__ = ["Imported", "pretrained_import", "pretrained_list"]

MAX_IMAGES, BATCH = 256, 32


@dataclass(frozen=True)
class Imported:
    """Published weights as a supernet; `origin` records their source.

    settings: the section `space:` of a configuration for these weights; empty if the space was
        given as an object.
    network: in eval mode, with its published BN statistics; None if the weights are those of a
        supernet.
    """

    supernet: Supernet
    settings: Row
    network: torch.nn.Module | None = None

    @property
    def origin(self) -> Origin | None:
        """Origin of the weights; None for weights from memory or from a file that hwnas wrote."""
        return self.supernet.origin

    @property
    def title(self) -> str:
        """Title of the table in `to_dict`: name of the network, and licence of its weights."""
        if self.origin is None:
            return self._name
        return f"{self.origin.network}, licence {self.origin.licence}"

    @property
    def _name(self) -> str:
        return self.origin.network if self.origin is not None else "weights without an origin"

    def to_dict(self) -> dict[str, Any]:
        """JSON values: `table`, with one row that describes the network, and `origin` or None."""
        space, weights = self.supernet.space, self.network or self.supernet
        row: Row = {
            "network": self._name,
            "space": space.name,
            "classes": space.macro.num_classes,
            "parameters": sum(p.numel() for p in weights.parameters()),
            "licence": "unknown" if self.origin is None else self.origin.licence,
        }
        origin = None if self.origin is None else dump(self.origin, versioned=False)
        return {"table": [row], "origin": origin}


def pretrained_list() -> Listing:
    """Starting weights: shipped weights, published supernets, and networks of timm.

    Nothing is downloaded. `size_mb` (10^6 bytes) is the size of the tensors in 32 bits, or of
    shipped files. `file` is the value for `supernet.init` after the file is on this machine.
    """
    rows: list[dict[str, Any]] = [
        {
            "file": "shipped",
            "network": one.name,
            "space": "timm",
            "settings": {"model": one.model, "pad_mode": one.pad_mode},
            "parameters": one.n_params,
            "size_mb": one.size_mb,
            "licence": one.licence,
            "from": f"ships with hwnas; {one.home}",
        }
        for one in SHIPPED
    ]
    rows += [
        {
            "file": file.file,
            "network": network.name,
            "space": network.space,
            "settings": dict(network.settings),
            "parameters": file.n_params,
            "size_mb": file.size_mb,
            "licence": network.licence,
            "from": file.url,
        }
        for network in NETWORKS
        for file in network.files
    ]
    rows += [row for name in published_networks() if (row := _row_of_timm(name))["from"]]
    shown = [{k: row[k] for k in ("file", "space", "size_mb", "licence", "from")} for row in rows]
    return Listing(rows, title="weights to start from; nothing is downloaded", shown=shown)


def _row_of_timm(model: str) -> dict[str, Any]:
    """A row for a network whose weights timm publishes."""
    from hwnas.nets.pretrained_networks import n_params

    weights = published_network(model).weights
    count = n_params(model)
    return {
        "file": f"timm:{model}",
        "network": model,
        "space": "timm",
        "settings": {"model": model},
        "parameters": count,
        "size_mb": round(4 * count / 1e6, 1),
        "licence": weights.licence,
        "from": weights.home,
    }


def pretrained_import(
    file: Folder | Mapping[str, torch.Tensor],
    *,
    out: Folder | None = None,
    num_classes: int | None = None,
    licence: str | None = None,
    space: SearchSpace | str | None = None,
    images: Folder | Iterable[torch.Tensor] | None = None,
) -> Imported:
    """Reads published weights, of any kind in `pretrained_list`.

    Args:
        file: a file as published, or converted to safetensors with the same names; `shipped`; or
            `timm:NAME`, which is downloaded if it is not in the cache. In Python also tensors by
            name.
        out: a .safetensors file to write, for the setting `supernet.init`.
        num_classes: if it differs from the file, the classifier starts from random weights.
        licence: licence of the weights, if it is not the published one.
        space: the space whose largest arch the weights belong to, or a model of timm. Default:
            determined from the tensors, if only one fits.
        images: a folder of photos, for weights whose BN is folded into their convolutions. In
            Python also batches [B, C, H, H] of [0, 1] pixels.

    Raises:
        UserError: the weights cannot be read or downloaded, could run code, fit no known network,
            or fit several; or images are needed to restore BN.
    """
    from hwnas.nets.pretrained_import import import_any
    from hwnas.training.checkpoint import weights_bytes

    require_place(out)
    batches = _photos(images) if isinstance(images, (str, Path)) else images
    found = import_any(
        file,
        num_classes=num_classes,
        licence=licence,
        space=space,
        images=batches,
    )
    if out is not None:
        written = found.network or found.supernet
        facts = f'{{"schema_version": {SCHEMA_VERSION}, "space": "{found.supernet.space.id}"}}'
        write_bytes(Path(out), weights_bytes(written, {"hwnas": facts}))
    return Imported(found.supernet, found.settings, found.network)


def _photos(folder: Folder) -> Iterable[torch.Tensor]:
    from hwnas.training.loose_photos import loose_photos

    return loose_photos(Path(folder), 256, batch_size=BATCH, at_most=MAX_IMAGES)
