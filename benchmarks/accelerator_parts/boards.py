"""NAS-Bench-201 on an edge GPU and a phone, edge accelerators, and microcontrollers."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import hwnas
from accelerator_parts.ranking import swaps, tau_of, tau_row
from accelerator_parts.reading import edgemark, hailo, mlperf_tiny, paired
from hwnas.core.arrays import read_npz
from hwnas.core.resources import resource
from hwnas.latency.estimator import TableEstimator
from hwnas.latency.table import LatencyTable
from hwnas.measure.published.networks import read_measurements
from hwnas.spaces import mobilenet_v3
from hwnas.spaces.cost import cost

DATA_SET = "cifar10"


def cells(cells_folder: Path, hardware: Path) -> list[dict[str, Any]]:
    """MACs and one phone's latency against a Jetson TX2, a Xeon and GPUs, on NAS-Bench-201.

    Cells without a convolution on a path are left out: they all have the same MACs.
    """
    known = read_measurements(cells_folder)
    arrays = read_npz(hardware / "hardware.npz")
    columns = {str(name): i for i, name in enumerate(arrays["columns"])}
    jetson = {
        name: arrays[DATA_SET][:, columns[f"edgegpu_{name}"]].astype(np.float64)
        for name in ("latency", "energy")
    }
    macs = cost(known.space, known.live_codes, "macs").astype(np.float64)
    keep = macs > macs.min()
    phone, xeon = known.column("pixel3"), known.column("gold_6240")
    by = {"MACs": macs, "Pixel 3 CPU": phone, "Xeon Gold 6240": xeon}
    targets = {
        "Pixel 3 CPU": phone,
        "Jetson TX2 GPU": jetson["latency"],
        "Jetson TX2, energy": jetson["energy"],
        "Xeon Gold 6240": xeon,
        "GTX 1080 Ti, batch 1": known.column("1080ti_1"),
        "GTX 1080 Ti, batch 256": known.column("1080ti_256"),
    }
    return [
        tau_of("NAS-Bench-201", name, on, values[keep], target[keep])
        for on, target in targets.items()
        for name, values in by.items()
        if name != on
    ]


def our_cells(cells_folder: Path, hardware: Path) -> list[dict[str, Any]]:
    """MACs and a table that this machine measures now, against all published devices.

    The space is profiled with one thread in fp32 at the settings of `hwnas profile`: two minutes.
    """
    known = read_measurements(cells_folder)
    with tempfile.TemporaryDirectory() as folder:
        table = hwnas.profile("local", known.space, out=Path(folder, "local.json"))
    ours = TableEstimator(table, known.space).latency_ms(known.live_codes)
    macs = cost(known.space, known.live_codes, "macs").astype(np.float64)
    arrays = read_npz(hardware / "hardware.npz")
    columns = [*map(str, arrays["columns"])]
    edge = arrays[DATA_SET][:, columns.index("edgegpu_latency")].astype(np.float64)
    targets = {name: known.column(column) for name, column in CELL_DEVICES.items()}
    keep = macs > macs.min()
    return [
        tau_of("NAS-Bench-201", name, on, values[keep], target[keep])
        for on, target in (targets | {"Jetson TX2 GPU": edge}).items()
        for name, values in {"MACs": macs, "our CPU table": ours}.items()
    ]


CELL_DEVICES = {
    "Pixel 3 CPU": "pixel3",
    "Xeon Gold 6240": "gold_6240",
    "GTX 1080 Ti, batch 1": "1080ti_1",
    "GTX 1080 Ti, batch 256": "1080ti_256",
}


def our_tables(folder: Path) -> list[dict[str, Any]]:
    """MACs and our shipped CPU tables against GPUs, on the networks of OFA that they cover."""
    known = read_measurements(folder)
    tables = {
        "our CPU table, fp32": LatencyTable.load(resource("latency_tables", OURS)),
        "our CPU table, int8": LatencyTable.load(resource("latency_tables", OURS_INT8)),
    }
    (px_column,) = (i for i, c in enumerate(known.space.choices) if c.name == "resolution")
    values = np.array(known.space.choices[px_column].values)[known.codes[:, px_column]]
    keep = np.isin(values, OUR_RESOLUTIONS)
    space = mobilenet_v3.build(
        mobilenet_v3.Config(resolutions=OUR_RESOLUTIONS), num_classes=known.space.macro.num_classes
    )
    codes = known.codes[keep].copy()
    codes[:, px_column] = np.searchsorted(OUR_RESOLUTIONS, values[keep])
    by = {"MACs": cost(space, codes, "macs").astype(np.float64)}
    by |= {name: TableEstimator(table, space).latency_ms(codes) for name, table in tables.items()}
    return [
        tau_of("mobilenet_v3", name, column, ms, known.column(column)[keep])
        for column in ("2080ti_1", "2080ti_64", "v100_1", "v100_64")
        for name, ms in by.items()
    ]


OURS, OURS_INT8 = "amd-epyc-2vcpu-mobilenet_v3.json", "amd-epyc-2vcpu-int8-mobilenet_v3.json"
OUR_RESOLUTIONS = (128, 160, 192, 224)


def edge_accelerators(folder: Path) -> list[dict[str, Any]]:
    """Operations, and one Hailo chip, against others (time per frame, pipelined)."""
    table, rows = hailo(folder), []
    cnns = {n: ops for n, ops in table["gops"].items() if not n.startswith(ATTENTION)}
    for kind, ops in (("all classifiers", table["gops"]), ("without attention", cnns)):
        rows += [
            tau_row(kind, "MACs", device, ops, table[device]) for device in ("HAILO8", "HAILO10H")
        ]
        first = {n: ms for n, ms in table["HAILO8"].items() if n in ops}
        rows.append(tau_row(kind, "HAILO8", "HAILO10H", first, table["HAILO10H"]))
    return rows


ATTENTION = ("cas_vit", "deit", "efficientformer", "fastvit", "swin", "vit", "resmlp")


def hailo_rate(folder: Path) -> list[dict[str, Any]]:
    """Operations per second of MobileNets on one chip: the cliff at the limit of its memory."""
    table = hailo(folder)
    names = ["mobilenet_v2_1.0", "mobilenet_v2_1.4", "mobilenet_v3", "resnet_v1_18", "resnet_v1_50"]
    return [
        {
            "network": name,
            "GOP": table["gops"][name],
            **{
                f"{device}, frames/s": round(1000 / table[device][name], 1)
                for device in ("HAILO8", "HAILO10H")
                if name in table[device]
            },
        }
        for name in names
        if name in table["gops"]
    ]


def microcontrollers(folder: Path) -> list[dict[str, Any]]:
    """MACs against an STM32, in float32 and int8."""
    rows = []
    for setup in ("TFLM + STM", "EI + STM"):
        table = edgemark(folder, setup)
        for variant, name in (("basic", "float32"), ("q_full_int_only", "int8")):
            if variant in table:
                on = f"STM32L4, {setup.split(' ')[0]}, {name}"
                rows.append(tau_row("CNNs", "MACs", on, table["macs"], table[variant]))
        if {"basic", "q_full_int_only"} <= table.keys():
            a, b = paired(table["basic"], table["q_full_int_only"])
            row = tau_of("CNNs", "float32", f"STM32L4, {setup.split(' ')[0]}, int8", a, b)
            share, _ = swaps(a, b, 1.1)
            low, high = (a / b).min(), (a / b).max()
            rows.append(row | {"speed-up": f"{low:.2f} to {high:.2f}", "swapped": round(share, 3)})
    return rows


def tiny_systems(folder: Path) -> list[dict[str, Any]]:
    """MLPerf Tiny: on how many systems pairs of benchmarks are in the order of their MACs."""
    systems = mlperf_tiny(folder)
    rows = []
    for less, more in (("kws", "vww"), ("vww", "ic"), ("kws", "ic")):
        ratios = [s[less] / s[more] for s in systems.values() if less in s and more in s]
        low, high = np.quantile(ratios, [0.05, 0.95])
        rows.append(
            {
                "fewer MACs": f"{less} ({MACS[less]} M)",
                "more MACs": f"{more} ({MACS[more]} M)",
                "systems": len(ratios),
                "in the order of MACs": round(float(np.mean([r > 1 for r in ratios])), 3),
                "speed ratio, median": round(float(np.median(ratios)), 2),
                "p5 to p95": f"{low:.2f} to {high:.2f}",
                "MACs ratio": round(MACS[more] / MACS[less], 2),
            }
        )
    return rows


MACS = {"vww": 7.5, "ic": 12.5, "kws": 2.7}
"""Millions, of the reference networks of MLPerf Tiny."""
