"""Origin and licence of published weights, recorded in everything derived from them."""

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
from hwnas.core.json_data import parse_json
from hwnas.core.records import STRICT, dump, load

__all__ = [
    "Origin",
    "metadata_of",
    "origin_metadata",
    "origin_of",
    "read_origin",
    "spdx",
    "warn_of_licence",
]

log = logging.getLogger(__name__)

_KEY = "origin"  # in the metadata of files
_FREE = ("MIT", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause")


@dataclass(frozen=True)
class Origin:
    """Where weights that others trained come from; travels with all that is made of them.

    licence: an SPDX identifier, or free text. file, sha256: what was read. mean, std: per channel
    of [0, 1] pixels, of the images that the weights were trained on; empty where they are unknown.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    network: str
    licence: str
    home: str
    file: str
    sha256: str
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    @property
    def is_free(self) -> bool:
        """Whether the licence asks for nothing but attribution."""
        return self.licence in _FREE

    def __str__(self) -> str:
        return f"{self.network} ({self.home}), licence {self.licence}"


def spdx(licence: str) -> str:
    """A licence as SPDX spells it, where it is a known one: `apache-2.0` is `Apache-2.0`."""
    return next((known for known in _FREE if known.lower() == licence.lower()), licence)


def metadata_of(path: Path) -> Mapping[str, str]:
    """Texts that a .safetensors file has beside its tensors; empty for files of other kinds."""
    with (
        contextlib.suppress(OSError, SafetensorError),
        safe_open(regular(path), framework="np") as file,
    ):
        found: Mapping[str, str] = file.metadata() or {}
        return found
    return {}


def read_origin(path: Path) -> Origin | None:
    """What a .safetensors file of hwnas says of the weights that it started from.

    None: nothing, or it is another kind of file.

    Raises:
        UserError: it says it in a form that cannot be read.
    """
    metadata = metadata_of(path)
    if _KEY not in metadata:
        return None
    problem = "cannot read where weights come from"
    found = parse_json(metadata[_KEY], where=path, problem=problem)
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
