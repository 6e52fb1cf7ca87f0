"""Published supernets: what they are, whose licence they have, where their authors publish them.

Nothing is downloaded. Facts are as of 2026; sizes are those of the tensors in 32 bits.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from safetensors import SafetensorError, safe_open

from hwnas.core.confined import regular
from hwnas.core.errors import UserError
from hwnas.core.records import STRICT, dump, load

__all__ = [
    "NETWORKS",
    "Network",
    "Origin",
    "Published",
    "origin_metadata",
    "origin_of",
    "read_origin",
    "warn_of_licence",
]

log = logging.getLogger(__name__)

_KEY = "origin"  # in the metadata of files
_OFA = "https://github.com/mit-han-lab/once-for-all"
_OFA_FILES = "https://raw.githubusercontent.com/han-cai/files/master/ofa"
_ATTENTIVE = "https://github.com/facebookresearch/AttentiveNAS"
_ALPHA = "https://github.com/facebookresearch/AlphaNet"
_FREE = ("MIT", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause")


@dataclass(frozen=True)
class Published:
    """One file of weights, by the name its authors gave it. `url`: the file, or the page it is on.

    n_params: learned values. size_mb: 10^6 bytes.
    """

    file: str
    url: str
    n_params: int
    size_mb: float


@dataclass(frozen=True)
class Network:
    """A supernet that weights are published of, all files in one layout.

    space, settings: which of our spaces it is. home: page of its authors.
    """

    name: str
    space: str
    settings: Mapping[str, Any]
    licence: str
    home: str
    files: tuple[Published, ...]


@dataclass(frozen=True)
class Origin:
    """Where weights that others trained come from; travels with all that is made of them.

    licence: an SPDX identifier, or free text. file, sha256: what was read.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    network: str
    licence: str
    home: str
    file: str
    sha256: str

    @property
    def is_free(self) -> bool:
        """Whether the licence asks for nothing but attribution."""
        return self.licence in _FREE

    def __str__(self) -> str:
        return f"{self.network} ({self.home}), licence {self.licence}"


_STAGES = ("D4_E6_K7", "D4_E6_K357", "D34_E6_K357", "D234_E6_K357", "D234_E46_K357")


def _ofa(
    name: str, space: str, width: float, file: str, n_params: int, size_mb: float, *more: Published
) -> Network:
    """A supernet of Once-for-All: the file that its training ended with, and `more`."""
    last = Published(file, f"{_OFA_FILES}/ofa_nets/{file}", n_params, size_mb)
    return Network(name, space, {"width_mult": width}, "MIT", _OFA, (last, *more))


NETWORKS = (
    _ofa(
        "OFA MobileNetV3 w1.0",
        "mobilenet_v3",
        1.0,
        "ofa_mbv3_d234_e346_k357_w1.0",
        7_678_880,
        30.9,
        *(
            Published(
                f"ofa_{stage}",
                f"{_OFA_FILES}/ofa_checkpoints/ofa_{stage}",
                7_664_760 if stage.endswith("K7") else 7_678_880,
                30.9,
            )
            for stage in _STAGES
        ),
    ),
    _ofa(
        "OFA MobileNetV3 w1.2",
        "mobilenet_v3",
        1.2,
        "ofa_mbv3_d234_e346_k357_w1.2",
        10_715_752,
        43.1,
    ),
    _ofa(
        "OFA ProxylessNAS w1.3",
        "ofa_proxyless",
        1.3,
        "ofa_proxyless_d234_e346_k357_w1.3",
        7_956_882,
        32.1,
    ),
    Network(
        name="AttentiveNAS or AlphaNet",
        space="attentive_nas",
        settings={},
        licence="CC-BY-NC-4.0",
        home=f"{_ATTENTIVE}, {_ALPHA}",
        files=(
            Published("attentive_nas_pretrained.pth.tar", _ATTENTIVE, 23_934_704, 96.2),
            Published("alphanet_pretrained.pth.tar", _ALPHA, 23_934_704, 96.2),
        ),
    ),
)


def read_origin(path: Path) -> Origin | None:
    """What a .safetensors file of hwnas says of the weights that it started from.

    None: nothing, or it is another kind of file.

    Raises:
        UserError: it says it in a form that cannot be read.
    """
    metadata: Mapping[str, str] = {}
    with (
        contextlib.suppress(OSError, SafetensorError),
        safe_open(regular(path), framework="np") as file,
    ):
        metadata = file.metadata() or {}
    if _KEY not in metadata:
        return None
    try:
        found = json.loads(metadata[_KEY])
    except (ValueError, RecursionError) as error:
        raise UserError("cannot read where weights come from", where=path) from error
    return load(Origin, found, where=path, versioned=False)


def origin_of(network: object) -> Origin | None:
    """Where the weights come from that a network started from; None: it was trained here."""
    found = getattr(network, "origin", None)
    return found if isinstance(found, Origin) else None


def origin_metadata(network: object) -> dict[str, str]:
    """What files of a network say of its origin; nothing if it was trained here."""
    origin = origin_of(network)
    if origin is None:
        return {}
    return {_KEY: json.dumps(dump(origin, versioned=False)), "licence_of_weights": origin.licence}


def warn_of_licence(origin: Origin | None) -> None:
    """Log whose weights an exported network started from, and their licence."""
    if origin is None:
        return
    level = logging.INFO if origin.is_free else logging.WARNING
    log.log(level, "the weights started from %s, which holds for what is made of them", origin)
