"""What the processor of this machine can do."""

from __future__ import annotations

from pathlib import Path


def has_8_bit_products() -> bool:
    """Whether sums of 8-bit products do not saturate; True where this is not known."""
    file = Path("/proc/cpuinfo")
    words = set(file.read_text().split()) if file.exists() else set()
    return "avx2" not in words or bool(words & {"avx512_vnni", "avx_vnni"})
