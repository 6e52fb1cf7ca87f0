"""Queries the host: properties that affect measurements, optional packages, the cache folder."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path, PurePath
from types import ModuleType
from typing import Annotated, Any, ClassVar

from pydantic import Field

from hwnas.core.errors import UserError
from hwnas.core.records import STRICT

__all__ = [
    "Host",
    "cache_folder",
    "host_facts",
    "onnx_runtime",
    "require",
    "use_threads",
    "user_path",
]

_PACKAGES = ("hwnas", "torch", "torchvision", "timm", "numpy", "onnx", "onnxruntime")


def cache_folder() -> Path:
    """Cache folder of the user: $HWNAS_CACHE, by default ~/.cache/hwnas.

    Raises:
        UserError: there is no home folder. Callers must work without a cache.
    """
    return user_path(os.environ.get("HWNAS_CACHE", "~/.cache/hwnas"), where="HWNAS_CACHE")


def user_path(text: str | PurePath, *, where: str) -> Path:
    """Expands a path given by the user: `~` is the home folder, `~name` that of another user.

    Raises:
        UserError: the home folder is unknown; `where` is the setting with the path.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise UserError(
            "the home folder of a path is unknown",
            expected="`~` with HOME in the environment, or `~NAME` with a user of this machine",
            found=text,
            where=where,
            fix="give an absolute path, or set HOME",
        ) from error


def require(module: str, *, extra: str) -> ModuleType:
    """Imports an optional package.

    Raises:
        UserError: the package is not installed; names the extra of hwnas that installs it.
    """
    if module == "openvino":  # without this package, its converter reports nothing
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(
            f"cannot import the optional package {module!r}",
            found=str(error),
            fix=f"pip install 'hwnas[{extra}]'",
        ) from error


def onnx_runtime() -> ModuleType:
    """ONNX Runtime, with its telemetry off.

    `import hwnas` sets ORT_DISABLE_TELEMETRY, but older builds for Windows ignore this variable.
    """
    module = importlib.import_module("onnxruntime")
    getattr(module, "disable_telemetry_events", int)()
    return module


def host_facts() -> dict[str, Any]:
    """Properties of this machine and its software: CPU, cores, OS, versions of key packages."""
    return {
        "cpu": _cpu_model(),
        "n_cpus": os.cpu_count() or 1,
        "machine": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "packages": {name: version for name in _PACKAGES if (version := _version(name))},
    }


@dataclass(frozen=True)
class Host:
    """Result of `host_facts`, as stored in run folders."""

    __pydantic_config__: ClassVar[Any] = STRICT

    cpu: str
    n_cpus: Annotated[int, Field(ge=1)]
    machine: str
    system: str
    python: str
    packages: dict[str, str]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str:
    """The name of the board, or else the CPU model; the device kit uses the same rule."""
    with contextlib.suppress(OSError):
        if board := Path("/proc/device-tree/model").read_text().strip("\0 \n"):
            return board
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.lower().startswith(("model name", "hardware")):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine() or "unknown"


def use_threads(n: int) -> None:
    """Sets the number of torch threads, now or when torch is imported."""
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(n)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(n)
