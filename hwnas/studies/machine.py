"""Examines the machine: processors, accelerators, memory, caches, and what is slow on it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hwnas.core.env import cache_folder
from hwnas.core.errors import UserError, out_of_memory
from hwnas.core.leftover import size_bytes
from hwnas.core.resources import kit_module
from hwnas.core.store import free_bytes, why_unwritable
from hwnas.studies.installation import Finding

__all__ = ["caches", "devices", "memory", "processors"]

GB = 1e9
LOW_MEMORY, LOW_DISK, LOW_SHARED = 4 * GB, 5 * GB, 0.5 * GB
"""Warning thresholds in bytes: peak memory of `hwnas run photos`, its decoded images, and memory
that workers share; rounded.
"""

PROBE_S = 120
SLOW_IMPORT_S = 15.0

TORCH = """
import json, time
start = time.monotonic()
import torch
cuda = [
    [torch.cuda.get_device_name(i), torch.cuda.get_device_properties(i).total_memory]
    for i in range(torch.cuda.device_count())
]
print(json.dumps({
    "seconds": time.monotonic() - start, "threads": torch.get_num_threads(), "cuda": cuda,
    "mps": torch.backends.mps.is_available(),
}))
"""
ONNX_RUNTIME = """
import json, onnxruntime
print(json.dumps({"providers": onnxruntime.get_available_providers()}))
"""
TOOLS = {
    "adb": ("phones over USB", "apt-get install adb"),
    "ssh": ("boards in the network", "apt-get install openssh-client"),
    "chromium": ("runtimes of browsers", "apt-get install chromium"),
}
"""Programs that devices need: purpose, and the command for Debian and Ubuntu."""


def devices() -> Iterator[Finding]:
    """Accelerators, the providers of ONNX Runtime, and programs that reach other devices."""
    torch, onnx_runtime = _probe(TORCH), _probe(ONNX_RUNTIME)
    if "error" in torch:
        memory = out_of_memory(ImportError(torch["error"]))
        fix = "pip install --upgrade torch" if memory is None else "raise the limit (ulimit -v)"
        yield Finding("devices", "torch", torch["error"], "problem", fix)
    else:
        gpus = [f"{name}, {n_bytes / GB:.0f} GB" for name, n_bytes in torch["cuda"]]
        gpus += ["Apple GPU (mps)"] if torch["mps"] else []
        slow = f"none: networks train on the processor (threads: {torch['threads']})"
        fix = "see the time of a run: `hwnas run quickstart --dry-run`; large supernets need a GPU"
        yield Finding(
            "devices",
            "GPUs",
            "; ".join(gpus) or slow,
            "ok" if gpus else "slow",
            "" if gpus else fix,
        )
        yield from _of_torch(torch)
    if "error" in onnx_runtime:
        fix = "pip install --force-reinstall onnxruntime"
        yield Finding("devices", "onnxruntime", onnx_runtime["error"], "problem", fix)
    else:
        yield Finding("devices", "onnxruntime", ", ".join(onnx_runtime["providers"]))
    for name, (purpose, install) in TOOLS.items():
        place = shutil.which(name)
        yield Finding(
            "devices",
            name,
            place or f"not found; it reaches {purpose}",
            "ok" if place else "absent",
            "" if place else install,
        )


def _of_torch(torch: dict[str, Any]) -> Iterator[Finding]:
    usable = _usable()
    if torch["threads"] > usable:
        found = f"{torch['threads']}, but this process may use {usable} processors"
        fix = f"export OMP_NUM_THREADS={usable}"
        yield Finding("processors", "threads of torch", found, "slow", fix)
    if torch["seconds"] > SLOW_IMPORT_S:
        found = f"import takes {torch['seconds']:.0f} s: a slow disk, or a busy machine"
        yield Finding(
            "devices", "torch", found, "slow", "keep the virtual environment on a local disk"
        )


def processors() -> Iterator[Finding]:
    """The processors: how many this process may use, their load, and their instructions."""
    facts = kit_module("bench_host").host_facts()
    n_cpus, usable = int(facts["n_cpus"]), _usable()
    yield Finding("processors", "model", f"{facts['cpu']}, {facts['machine']}")
    if usable < n_cpus:
        found = f"{usable} of {n_cpus} (by affinity or by the quota of a container)"
        yield Finding(
            "processors", "usable", found, "slow", "raise the quota, or expect this speed"
        )
    else:
        yield Finding("processors", "usable", str(usable))
    given = os.environ.get("OMP_NUM_THREADS")
    yield Finding("processors", "OMP_NUM_THREADS", given or "not set")
    load = float(facts["load_average"])
    is_busy = load > usable / 2
    yield Finding(
        "processors",
        "load",
        f"{load:.1f} in the last minute"
        + (": timings of this machine are noisy" if is_busy else ""),
        "slow" if is_busy else "ok",
        "stop other programs before `hwnas profile` and `hwnas verify`" if is_busy else "",
    )
    if (governor := facts["governor"]) is not None:
        is_fast = governor == "performance"
        fix = "" if is_fast else "cpupower frequency-set -g performance"
        yield Finding("processors", "governor", governor, "ok" if is_fast else "slow", fix)
    yield from _instructions()


def _instructions() -> Iterator[Finding]:
    """Vector and 8-bit instructions, on which the speed of networks depends (x86, Arm; Linux)."""
    text = kit_module("bench_host").read_text("/proc/cpuinfo")
    lines = [line for line in text.splitlines() if line.startswith(("flags", "Features"))]
    if not lines:
        return
    flags = set(lines[0].split(":", 1)[-1].split())
    is_x86 = lines[0].startswith("flags")
    dot = flags & ({"avx512_vnni", "avx_vnni"} if is_x86 else {"asimddp"})
    if is_x86 and "avx2" not in flags:
        yield Finding("processors", "vectors", "no AVX2: all networks are slow", "slow")
    found = ", ".join(sorted(dot)) or "none: int8 networks gain little here"
    yield Finding("processors", "8-bit instructions", found, "ok" if dot else "slow")


def memory() -> Iterator[Finding]:
    """Main memory that may be used, and shared memory for processes that prepare images."""
    total, available = _memory()
    if total:
        is_low = available < LOW_MEMORY
        found = f"{available / GB:.1f} GB available of {total / GB:.1f} GB"
        fix = "`--set train.accumulation=4`: a step of training needs less memory"
        yield Finding("memory", "main", found, "slow" if is_low else "ok", fix if is_low else "")
    shared = Path("/dev/shm")
    if (free := free_bytes(shared) if shared.is_dir() else None) is not None:
        is_low = free < LOW_SHARED
        fix = "containers: `docker run --shm-size=2g`; or `--set workers=0`"
        found = f"{free / GB:.1f} GB free"
        yield Finding(
            "memory", str(shared), found, "slow" if is_low else "ok", fix if is_low else ""
        )


def caches() -> Iterator[Finding]:
    """Folders that hwnas reads or fills: their sizes, and whether they can be written."""
    try:
        folder = cache_folder()
    except UserError as error:
        yield Finding("caches", "HWNAS_CACHE", str(error).split("\n")[0], "slow", str(error.fix))
    else:
        reason = why_unwritable(_existing(folder))
        found = f"{folder}, {_size(folder)}" + (f": {reason}" if reason else "")
        fix = "export HWNAS_CACHE=FOLDER" if reason else "to free space: `hwnas clean`"
        yield Finding("caches", "hwnas", found, "slow" if reason else "ok", fix)
    hub = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
    yield Finding("caches", "weights of timm", f"{hub}, {_size(hub)}")
    data = os.environ.get("HWNAS_DATA")
    if data is not None and not Path(data).expanduser().is_dir():
        found = f"{data} is not a folder"
        yield Finding("caches", "HWNAS_DATA", found, "problem", "export HWNAS_DATA=FOLDER")
    else:
        yield Finding(
            "caches", "HWNAS_DATA", data or "not set; `data.root` is relative to the working folder"
        )
    for what, place in (
        ("working folder", Path.cwd()),
        ("temporary files", Path(tempfile.gettempdir())),
    ):
        free = free_bytes(place)
        is_low = free is not None and free < LOW_DISK
        found = f"{place}, {'unknown' if free is None else f'{free / GB:.1f} GB'} free"
        fix = "free disk space, or `--run FOLDER` on another disk" if is_low else ""
        yield Finding("caches", what, found, "slow" if is_low else "ok", fix)


def _usable() -> int:
    return int(kit_module("bench_host").usable_processors())


def _existing(folder: Path) -> Path:
    """The folder, or the closest parent that exists."""
    return next(place for place in (folder, *folder.parents) if place.exists())


def _size(folder: Path) -> str:
    return f"{size_bytes(folder) / 1e6:,.1f} MB" if folder.is_dir() else "not there yet"


def _memory() -> tuple[int, int]:
    """Bytes that this process may use in all, and now; 0 if unknown (macOS)."""
    read = kit_module("bench_host").read_text
    facts = {
        line.split(":")[0]: int(line.split()[1]) * 1024
        for line in read("/proc/meminfo").splitlines()
        if line.endswith(" kB")
    }
    total, available = facts.get("MemTotal", 0), facts.get("MemAvailable", 0)
    limit, used = (read(f"/sys/fs/cgroup/memory.{name}").strip() for name in ("max", "current"))
    if limit.isdigit() and used.isdigit() and 0 < int(limit) < total:
        total, available = int(limit), min(available, max(0, int(limit) - int(used)))
    return total, available


def _probe(code: str) -> dict[str, Any]:
    """Runs a Python program in a process of its own, and returns the JSON that it prints.

    An import of the program can crash its process; then the result has the key `error`.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            timeout=PROBE_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"error": f"no answer within {PROBE_S} s"}
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        return {"error": last}
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found
