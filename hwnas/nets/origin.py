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
    """Origin of published weights; everything derived from the weights keeps this record.

    licence: an SPDX identifier, or free text.
    file, sha256: the file that was read.
    mean, std: normalisation per channel of [0, 1] pixels during training; empty if unknown.
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
        """Whether the licence requires only attribution."""
        return self.licence in _FREE

    def __str__(self) -> str:
        return f"{self.network} ({self.home}), licence {self.licence}"


def spdx(licence: str) -> str:
    """The SPDX spelling of a known licence: `apache-2.0` becomes `Apache-2.0`."""
    return next((known for known in _FREE if known.lower() == licence.lower()), licence)


def metadata_of(path: Path) -> Mapping[str, str]:
    """Text metadata of a .safetensors file; empty for other files."""
    with (
        contextlib.suppress(OSError, SafetensorError),
        safe_open(regular(path), framework="np") as file,
    ):
        found: Mapping[str, str] = file.metadata() or {}
        return found
    return {}


def read_origin(path: Path) -> Origin | None:
    """Reads where the starting weights of a network come from, from its .safetensors file.

    Returns None if the file records no origin, or has another format.

    Raises:
        UserError: the record cannot be read.
    """
    metadata = metadata_of(path)
    if _KEY not in metadata:
        return None
    problem = "cannot read the recorded origin of the weights"
    found = parse_json(metadata[_KEY], where=path, problem=problem)
    return load(Origin, found, where=path, versioned=False)


def origin_of(network: object) -> Origin | None:
    """Origin of the weights that a network started from; None if trained here from scratch."""
    found = getattr(network, "origin", None)
    return found if isinstance(found, Origin) else None


def origin_metadata(network: object) -> dict[str, str]:
    """Metadata on the origin of a network, for its files; empty if it was trained from scratch."""
    origin = origin_of(network)
    if origin is None:
        return {}
    return {_KEY: json.dumps(dump(origin, versioned=False)), "licence_of_weights": origin.licence}


def warn_of_licence(origin: Origin | None) -> None:
    """Logs the origin and licence of the weights that an exported network started from."""
    if origin is None:
        return
    level = logging.INFO if origin.is_free else logging.WARNING
    log.log(
        level,
        "the weights derive from %s; this licence also applies to everything derived from them",
        origin,
    )
