"""Encodes boolean arrays as text for JSON, e.g. which images a network classifies correctly."""

from __future__ import annotations

import base64
import binascii

import numpy as np
from numpy.typing import NDArray

from hwnas.core.errors import Invalid

__all__ = ["pack_bits", "unpack_bits"]


def pack_bits(bits: NDArray[np.bool_]) -> str:
    """Encodes bool [n] as base64 of ceil(n / 8) bytes; value 0 is the highest bit of byte 0."""
    return base64.b64encode(np.packbits(bits).tobytes()).decode()


def unpack_bits(text: str, n: int) -> NDArray[np.bool_]:
    """Decodes bool [n]; inverse of `pack_bits`.

    Raises:
        ValueError: the text is not base64, or has another number of bytes.
    """
    try:
        packed = base64.b64decode(text, validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise ValueError(f"not base64: {error}") from error
    if len(packed) != -(-n // 8):
        raise Invalid(f"{-(-n // 8)} bytes, for {n} bits", f"{len(packed)} bytes")
    return np.unpackbits(np.frombuffer(packed, dtype=np.uint8), count=n).astype(np.bool_)
