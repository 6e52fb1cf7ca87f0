"""Pinned packages, with checksums, for the folders that bring Python and a runtime to a device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

__all__ = ["ARCHITECTURES", "PYTHON", "CarriedPart", "parts_of"]

PYTHON = "3.11"
ARCHITECTURES = ("arm64",)
"""Names of architectures in Debian, on the command line and in device files."""


@dataclass(frozen=True)
class CarriedPart:
    """A package of one version, identified by the sha256 of its file.

    kind: `deb` (Debian 12, section main, arm64) or `wheel` (PyPI).
    libraries: names of the shared libraries to take from a deb. From wheels and the debs of Python,
        all files are taken except those that `left_out` names.
    left_out: folders, such as `/tests/`, and suffixes, such as `.pyi`, of files that are not taken.
    """

    name: str
    version: str
    sha256: str
    n_bytes: int
    licence: str
    kind: Literal["deb", "wheel"]
    libraries: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


def _deb(
    name: str, version: str, n_bytes: int, sha256: str, licence: str, *libraries: str
) -> CarriedPart:
    return CarriedPart(name, version, sha256, n_bytes, licence, "deb", libraries)


def _wheel(
    name: str, version: str, n_bytes: int, sha256: str, licence: str, *left_out: str
) -> CarriedPart:
    never = ("/tests/", ".pyi", ".pxd", ".h", ".a", "/f2py/", "/distutils/")
    return CarriedPart(
        name, version, sha256, n_bytes, licence, "wheel", left_out=(*never, *left_out)
    )


# Versions of Debian 12's section main, which its mirrors keep, not those of security updates
_BASE = (
    _deb(
        *("libc6", "2.36-9+deb12u14", 2_324_660),
        "01f4330719fd4f65580e16ea5a0527f372fca750e8f588d26deaf09f2d3b1cf4",
        "LGPL-2.1-or-later",
        *("ld-linux-aarch64.so.1", "libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0"),
        *("librt.so.1", "libutil.so.1", "libresolv.so.2"),
    ),
    _deb(
        *("libgcc-s1", "12.2.0-14+deb12u1", 34_816),
        "576926b283613db80168ddf76380a3bd877602778cf0d226caa7bfbfa71eacf3",
        "GPL-3.0-or-later WITH GCC-exception-3.1",
        "libgcc_s.so.1",
    ),
    _deb(
        *("libstdc++6", "12.2.0-14+deb12u1", 556_608),
        "26e138c677a985775331373828a6c286c551ff397cb735d00e2383cb273d1cb2",
        "GPL-3.0-or-later WITH GCC-exception-3.1",
        "libstdc++.so.6",
    ),
    _deb(
        *("zlib1g", "1:1.2.13.dfsg-1", 82_744),
        "52b8b8a145bbe1956bba82034f77022cbef0c3d0885c9e32d9817a7932fe1913",
        "Zlib",
        "libz.so.1",
    ),
    _deb(
        *("libexpat1", "2.5.0-1+deb12u2", 86_280),
        "8dc1976735acf825e3a922d82f171e20feec7394da2b8c616091983e38706275",
        "MIT",
        "libexpat.so.1",
    ),
    _deb(
        *("libffi8", "3.4.4-1", 20_492),
        "80b5c36177dc0e29d531c7eddbed3cc7355cb490e49f8cfa5959572d161f27b3",
        "MIT",
        "libffi.so.8",
    ),
    _deb(
        *("liblzma5", "5.4.1-1+deb12u1", 199_508),
        "647ce9d81e41c30071ce6ac0d3324579216a33aaa1d28971d6952315f6a95a75",
        "0BSD",
        "liblzma.so.5",
    ),
    _deb(
        *("libbz2-1.0", "1.0.8-5+b1", 47_452),
        "d3a96ece03326498b39ff093a76800dfcbcb1d4049d6ae6e9f6fa1aa7a590ad6",
        "bzip2-1.0.6",
        "libbz2.so.1.0",
    ),
    _deb(
        *("python3.11-minimal", "3.11.2-6+deb12u8", 1_861_304),
        "6a07dd571f1a15af2f855d64571766fe44b73a57cc3b5ca79502bc89156a5e12",
        "PSF-2.0",
    ),
    _deb(
        *("libpython3.11-minimal", "3.11.2-6+deb12u8", 810_796),
        "c48bac178c0fc43a2bf8ace784c762b5ee83e2b981894a991dc3ccfd3ec7cd4b",
        "PSF-2.0",
    ),
    _deb(
        *("libpython3.11-stdlib", "3.11.2-6+deb12u8", 1_749_796),
        "e79876de55c6c2dca10d044b2fa69ccd863950ea01714220c1982d16008105f9",
        "PSF-2.0",
    ),
    _wheel(
        *("numpy", "2.4.6", 15_966_692),
        "0ab0a9c4ffb1a6d95ef519fe4247dba8eb6b18ad93999f76b7f657039acabd47",
        "BSD-3-Clause",
    ),
)
_OF_RUNTIME: Mapping[str, tuple[CarriedPart, ...]] = {
    "onnxruntime": (
        _wheel(
            *("onnxruntime", "1.32.0", 23_195_070),
            "2303372a85299b6757b0e11e1cbf13e410ddf7e10c37f4b37e99d1c90e7daf7c",
            "MIT",
            *("/transformers/", "/tools/", "/quantization/"),
        ),
    ),
    "litert": (
        _wheel(
            *("ai-edge-litert", "2.3.0", 14_379_387),
            "853fc608f96da87bd5f3458465dfb9abbf18d5ae6b94eceacead407146f175ae",
            "Apache-2.0",
            *("libLiteRtWebGpuAccelerator.so", "/aot/", "/tools/"),
        ),
        _wheel(
            *("flatbuffers", "25.12.19", 26_661),
            "7634f50c427838bb021c2d66a3d1168e9d199b0607e6329399f04846d42e20b4",
            "Apache-2.0",
        ),
        _wheel(
            *("ml_dtypes", "0.6.0", 356_864),
            "7728c0420ec1c338564fc8b01015ff2d58567e70f17fedce5a0a7c0308c0d5b9",
            "Apache-2.0",
        ),
    ),
}


def parts_of(runtime: str) -> tuple[CarriedPart, ...]:
    """The packages that the arm64 folder for a runtime is made from.

    Raises:
        KeyError: the runtime is in no folder.
    """
    return (*_BASE, *_OF_RUNTIME[runtime])
