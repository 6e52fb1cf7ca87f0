"""`hwnas pretrained ...`: published supernets as a start."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwnas.api.result import Folder, Listing, Row
from hwnas.core.records import SCHEMA_VERSION, dump
from hwnas.core.store import write_bytes
from hwnas.nets.origin import Origin
from hwnas.nets.pretrained_list import NETWORKS

if TYPE_CHECKING:
    from hwnas.nets.supernet import Supernet

__all__ = ["Imported", "pretrained_import", "pretrained_list"]


@dataclass(frozen=True)
class Imported:
    """A published supernet; `supernet.origin` says whose weights they are."""

    supernet: Supernet

    @property
    def title(self) -> str:
        """Headline of the table."""
        return f"{self._origin.network}, licence {self._origin.licence}"

    @property
    def settings(self) -> Row:
        """The section `space:` of the configuration that the weights are for."""
        network = next(n for n in NETWORKS if n.name == self._origin.network)
        return {"name": network.space, **network.settings}

    @property
    def _origin(self) -> Origin:
        assert self.supernet.origin is not None
        return self.supernet.origin

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; the one row is under `"table"`."""
        space = self.supernet.space
        row: Row = {
            "network": self._origin.network,
            "space": space.name,
            "classes": space.macro.num_classes,
            "parameters": sum(p.numel() for p in self.supernet.parameters()),
            "licence": self._origin.licence,
        }
        return {"table": [row], "origin": dump(self._origin, versioned=False)}


def pretrained_list() -> Listing:
    """Published supernets that can be imported, and where their authors have the files.

    Nothing is downloaded; `size_mb` (10^6 bytes) is that of the tensors in 32 bits.
    """
    rows: list[dict[str, Any]] = [
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
    shown = [{k: row[k] for k in ("file", "space", "size_mb", "licence", "from")} for row in rows]
    return Listing(rows, title="published supernets; nothing is downloaded", shown=shown)


def pretrained_import(
    file: Folder,
    *,
    out: Folder | None = None,
    num_classes: int | None = None,
    licence: str | None = None,
) -> Imported:
    """Read a published supernet, whichever of `pretrained_list` it is.

    Args:
        file: as its authors publish it, or converted to safetensors with the same names.
        out: a .safetensors file to write, for the setting `supernet.init`.
        num_classes: where it is another than the file's, the classifier starts from random weights.
        licence: of the weights, where it is not that of the published ones.

    Raises:
        UserError: the file cannot be read, could run code, or is of no known network.
    """
    from hwnas.nets.pretrained import import_weights
    from hwnas.training.checkpoint import weights_bytes

    supernet = import_weights(Path(file), num_classes=num_classes, licence=licence)
    if out is not None:
        facts = f'{{"schema_version": {SCHEMA_VERSION}, "space": "{supernet.space.id}"}}'
        write_bytes(Path(out), weights_bytes(supernet, {"hwnas": facts}))
    return Imported(supernet)
