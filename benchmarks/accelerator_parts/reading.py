"""Readers of published latencies of whole networks on phones, accelerators and boards.

Every reader returns `{column: {network: value}}`. Files are untrusted input, see `read_rows`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hwnas.core.csv_data import read_csv
from hwnas.measure.published.csv_files import read_rows

Columns = dict[str, dict[str, float]]


def shared(first: Mapping[str, float], second: Mapping[str, float]) -> list[str]:
    """The networks that both columns have, sorted."""
    return sorted(first.keys() & second.keys())


def paired(
    first: Mapping[str, float], second: Mapping[str, float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The values of both columns for the networks that both have."""
    names = shared(first, second)
    return np.array([first[n] for n in names]), np.array([second[n] for n in names])


def mobile_ml_bench(folder: Path, file: str = "tflite_real.csv") -> Columns:
    """`flops` (2 x MACs at 224 px), `bytes`, and ms per `device|cores|precision`, batch 1."""
    names = read_csv(folder / file, ["model", "flops"]).columns
    timed = [name for name in names if name.endswith("|ms")]
    found: Columns = defaultdict(dict)
    for row in read_rows(folder, file, ["model", "flops", *timed]):
        model = row.text("model")
        for name in ("flops", "bytes"):
            if name in names:
                found[name][model] = row.positive(name)
        for name in timed:
            if row.cells[name]:
                found[name.removesuffix("|ms")][model] = row.positive(name)
    return dict(found)


@dataclass(frozen=True)
class Layers:
    """Layers of a network by the unit that runs them."""

    npu: int
    gpu: int
    cpu: int

    @property
    def outside(self) -> float:
        """Share of layers that do not run on the NPU."""
        return (self.gpu + self.cpu) / max(self.npu + self.gpu + self.cpu, 1)


def qualcomm(folder: Path) -> tuple[Columns, dict[str, dict[str, Layers]], dict[str, str]]:
    """ms per `device|runtime|precision`; layers per unit; the use case of every model.

    Models of several components are left out, because their latency is not that of one network.
    """
    columns = ["model", "component", "precision", "device", "runtime", "ms"]
    units = ["layers_npu", "layers_gpu", "layers_cpu"]
    rows = list(read_rows(folder, "latency.csv", [*columns, *units]))
    parts: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        parts[row.text("model")].add(row.text("component"))
    found: Columns = defaultdict(dict)
    layers: dict[str, dict[str, Layers]] = defaultdict(dict)
    for row in rows:
        model = row.text("model")
        if len(parts[model]) > 1:
            continue
        key = "|".join(row.text(name) for name in ("device", "runtime", "precision"))
        found[key][model] = row.positive("ms")
        if any(row.cells[unit] for unit in units):
            counts = (int(float(row.cells[unit] or 0)) for unit in units)
            layers[key][model] = Layers(*counts)
    cases = {
        row.text("model"): row.text("use_case")
        for row in read_rows(folder, "models.csv", ["model", "use_case"])
    }
    return dict(found), dict(layers), cases


def hailo(folder: Path, task: str = "classification") -> Columns:
    """ms = 1000 / (frames per second at batch 1, pipelined) per device, and `gops`."""
    found: Columns = defaultdict(dict)
    wanted = ["device", "task", "network", "fps_b1", "gops"]
    for row in read_rows(folder, "hailo.csv", wanted):
        if row.text("task") == task and row.cells["fps_b1"] and row.cells["gops"]:
            name = row.text("network")
            found[row.text("device")][name] = 1000 / row.positive("fps_b1")
            found["gops"][name] = row.positive("gops")
    return dict(found)


def edgemark(folder: Path, setup: str = "TFLM + STM") -> Columns:
    """ms per variant (`basic`: float32, `q_full_int_only`: int8) on an STM32, and `macs`."""
    found: Columns = defaultdict(dict)
    for row in read_rows(folder, "edgemark.csv", ["setup", "model", "variant", "ms", "macs"]):
        if row.text("setup") == setup and row.cells["ms"] and row.cells["macs"]:
            found[row.text("variant")][row.text("model")] = row.positive("ms")
            found["macs"][row.text("model")] = row.positive("macs")
    return dict(found)


def mlperf_tiny(folder: Path) -> Columns:
    """Inferences per second per system, of the benchmarks vww, ic, kws and ad.

    The best submission of a system counts.
    """
    found: Columns = defaultdict(dict)
    wanted = ["version", "submitter", "system", "benchmark", "kind", "inf_per_s"]
    for row in read_rows(folder, "mlperf_tiny.csv", wanted):
        if row.text("kind") == "performance" and row.cells["inf_per_s"]:
            key = "|".join(row.cells[name] for name in ("version", "submitter", "system"))
            name, speed = row.text("benchmark"), row.positive("inf_per_s")
            found[key][name] = max(speed, found[key].get(name, 0.0))
    return dict(found)


def gpu_kernels(folder: Path, device: str) -> list[tuple[str, str, float, float]]:
    """(operator, kernel, microseconds, FLOPs) of every operator on a phone's GPU."""
    columns = ["op", "flops", f"{device}_us", f"{device}_kernel"]
    found = []
    for row in read_rows(folder, "tflite_real_ops_gpu.csv", columns):
        if row.cells[f"{device}_us"]:
            kernel = row.cells[f"{device}_kernel"].split("_linked")[0].rstrip("0123456789_")
            us, flops = row.positive(f"{device}_us"), float(row.cells["flops"] or 0)
            found.append((row.text("op"), kernel, us, flops))
    return found
