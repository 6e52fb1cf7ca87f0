"""Phones and NPUs: 102 real CNNs (Mobile ML Bench) and the networks of Qualcomm's AI Hub."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from accelerator_parts.ranking import swaps, tau_of, tau_row
from accelerator_parts.reading import gpu_kernels, mobile_ml_bench, paired, qualcomm

MOBILE = ("mobilenet", "fdmobilenet", "mnasnet", "proxylessnas", "fbnet", "spnasnet", "ghostnet")
CPU = "pixel4|1large|float"
TARGETS = {
    "pixel4|1small|float": "Pixel 4, small core",
    "pixel4|gpu|float": "Pixel 4 GPU",
    "pixel4|1large|quant": "Pixel 4, int8",
    "s10|1large|float": "Galaxy S10 CPU",
    "s10|gpu|float": "Galaxy S10 GPU",
    "iphonexs|1large|float": "iPhone XS CPU",
    "iphonexs|gpu|float": "iPhone XS GPU",
}
S24, S25, X_ELITE = "Samsung Galaxy S24", "Samsung Galaxy S25", "Snapdragon X Elite CRD"
QCS = "QCS8275 (Proxy)"
SA = "SA8775P ADP"


def real_networks(folder: Path) -> list[dict[str, Any]]:
    """FLOPs, and the Pixel 4's CPU, against all other units: all networks and mobile ones."""
    table, rows = mobile_ml_bench(folder), []
    for kind in ("102 CNNs", "mobile CNNs"):
        keep = {name for name in table["flops"] if kind == "102 CNNs" or name.startswith(MOBILE)}
        chosen = {
            column: {name: value for name, value in values.items() if name in keep}
            for column, values in table.items()
        }
        for column, name in {CPU: "Pixel 4 CPU", **TARGETS}.items():
            rows.append(tau_row(kind, "MACs", name, chosen["flops"], chosen[column]))
            if column != CPU:
                rows.append(tau_row(kind, "Pixel 4 CPU", name, chosen[CPU], chosen[column]))
    return rows


def random_networks(folder: Path) -> list[dict[str, Any]]:
    """The same for 1,000 random networks, and for another runtime on the same core."""
    rows = []
    table = mobile_ml_bench(folder, "tflite_nas1000.csv")
    for column, name in {CPU: "Pixel 4 CPU", **TARGETS}.items():
        if column in table:
            question = "1,000 random networks"
            rows.append(tau_row(question, "MACs", name, table["flops"], table[column]))
            if column != CPU:
                rows.append(tau_row(question, "Pixel 4 CPU", name, table[CPU], table[column]))
    tflite, torch = mobile_ml_bench(folder), mobile_ml_bench(folder, "torch_real.csv")
    rows.append(tau_row("runtimes", "TFLite", "PyTorch Mobile", tflite[CPU], torch[CPU]))
    return rows


def gpu_operators(folder: Path) -> list[dict[str, Any]]:
    """Arithmetic rate of the operators on phone GPUs, relative to plain convolutions."""
    rows = []
    for device in ("pixel4", "s10", "iphonexs"):
        rates: dict[str, list[float]] = {}
        for op, kernel, us, flops in gpu_kernels(folder, device):
            if flops > 0:
                name = "CONV_2D, Winograd" if "winograd" in kernel else op
                rates.setdefault(name, []).append(flops / us / 1e3)
        plain = median(rates["CONV_2D"])
        rows += [
            {
                "gpu": device,
                "operator": op,
                "n": len(found),
                "GFLOP/s": round(median(found), 1),
                "of CONV_2D": round(median(found) / plain, 3),
            }
            for op, found in sorted(rates.items())
        ]
    return rows


def qualcomm_ranks(folder: Path) -> list[dict[str, Any]]:
    """One phone's NPU against other devices, runtimes and precisions, image classifiers only."""
    table, _, cases = qualcomm(folder)
    keep = {name for name, case in cases.items() if case == "Image Classification"}
    table = {
        column: {name: ms for name, ms in values.items() if name in keep}
        for column, values in table.items()
    }
    first = table[f"{S24}|tflite|float"]
    targets = {
        f"{S25}|tflite|float": "Galaxy S25 NPU",
        f"{X_ELITE}|qnn_dlc|float": "X Elite NPU, QNN",
        f"{QCS}|tflite|float": "QCS8275 NPU",
        f"{SA}|tflite|float": "SA8775P NPU",
        f"{S24}|qnn_dlc|float": "Galaxy S24 NPU, QNN",
        f"{S24}|onnx|float": "Galaxy S24 NPU, ONNX Runtime",
        f"{S24}|tflite|w8a8": "Galaxy S24 NPU, int8",
        f"{QCS}|tflite|w8a8": "QCS8275 NPU, int8",
    }
    return [
        tau_row("classifiers", "Galaxy S24 NPU", name, first, table[column])
        for column, name in targets.items()
    ]


def phone_cpu_on_npu(phones: Path, hub: Path) -> list[dict[str, Any]]:
    """MACs and a phone's CPU against NPUs, on the networks of the same name in both sources."""
    table, _, _ = qualcomm(hub)
    bench = mobile_ml_bench(phones)
    rows = []
    for column, name in {
        f"{S24}|tflite|float": "Galaxy S24 NPU",
        f"{S24}|tflite|w8a8": "Galaxy S24 NPU, int8",
        f"{QCS}|tflite|float": "QCS8275 NPU",
    }.items():
        npu = {SAME[one]: ms for one, ms in table[column].items() if one in SAME}
        rows.append(tau_row("same networks", "MACs", name, bench["flops"], npu))
        rows.append(tau_row("same networks", "Pixel 4 CPU", name, bench[CPU], npu))
        rows.append(tau_row("same networks", "Pixel 4 GPU", name, bench["pixel4|gpu|float"], npu))
    return rows


SAME = {
    "mobilenet_v2": "mobilenetv2b_w1",
    "mobilenet_v3_large": "mobilenetv3_large_w1",
    "mobilenet_v3_small": "mobilenetv3_small_w1",
    "resnet18": "resnet18",
    "squeezenet1_1": "squeezenet_v1_1",
    "densenet121": "densenet121",
    "regnet_y_800mf": "regnety008",
}
"""Networks of the AI Hub by their name in Mobile ML Bench: the same architecture at 224 px."""


def int8_order(phones: Path, hub: Path) -> list[dict[str, Any]]:
    """Where 8 bits change the order: tau, speed-ups, and swaps of clearly different pairs."""
    bench, (table, _, _) = mobile_ml_bench(phones), qualcomm(hub)
    pairs = {"Pixel 4 CPU": (bench[CPU], bench["pixel4|1large|quant"])}
    for device in (S24, S25, QCS, X_ELITE):
        runtime = "qnn_dlc" if device == X_ELITE else "tflite"
        columns = (table[f"{device}|{runtime}|float"], table[f"{device}|{runtime}|w8a8"])
        pairs[f"{device} NPU"] = columns
    rows = []
    for name, (whole, eight) in pairs.items():
        a, b = paired(whole, eight)
        share, n_pairs = swaps(a, b, 1.1)
        row = tau_of("int8", "float", "int8", a, b)
        rows.append(
            {
                "device": name,
                **{key: row[key] for key in ("n", "tau", "95 %")},
                "speed-up, median": round(float(np.median(a / b)), 2),
                "p5 to p95": "{:.2f} to {:.2f}".format(*np.quantile(a / b, [0.05, 0.95])),
                "slower": round(float((b > a).mean()), 3),
                "swapped pairs": round(share, 3),
                "of pairs": n_pairs,
            }
        )
    return rows


def int8_families(phones: Path) -> list[dict[str, Any]]:
    """Speed-up of int8 on the Pixel 4's large core by family of networks."""
    bench, by_family = mobile_ml_bench(phones), {}
    families = {
        "resnet": ("resnet", "preresnet", "diracnet"),
        "SE": ("seresnet", "sepreresnet", "regnety"),
        "regnetx, resnext (grouped)": ("regnetx", "resnext"),
        "mobilenet v1": ("mobilenet_", "mobilenetb_", "fdmobilenet"),
        "mobilenet v2, mnasnet, proxyless": ("mobilenetv2", "mnasnet_b1", "proxylessnas"),
        "mobilenet v3 (hard-swish)": ("mobilenetv3",),
    }
    for family, starts in families.items():
        a, b = paired(
            {k: v for k, v in bench[CPU].items() if k.startswith(starts)},
            bench["pixel4|1large|quant"],
        )
        by_family[family] = a / b
    return [
        {
            "family": family,
            "n": len(found),
            "speed-up, median": round(float(np.median(found)), 2),
            "range": f"{found.min():.2f} to {found.max():.2f}",
        }
        for family, found in by_family.items()
    ]


def outside_the_npu(folder: Path) -> list[dict[str, Any]]:
    """By runtime and precision: share of results with layers outside of the NPU."""
    _, layers, _ = qualcomm(folder)
    found: dict[str, list[tuple[str, float, bool]]] = {}
    for column, by_model in layers.items():
        _, runtime, precision = column.split("|")
        for model, one in by_model.items():
            parts = found.setdefault(f"{runtime}, {precision}", [])
            parts.append((model, one.outside, one.npu == 0))
    rows = []
    for kind, parts in sorted(found.items()):
        mixed = [p for p in parts if 0 < p[1] < 1]
        if len(parts) >= 50:
            rows.append(
                {
                    "runtime, precision": kind,
                    "results": len(parts),
                    "all on the NPU": round(sum(p[1] == 0 for p in parts) / len(parts), 3),
                    "some layers outside": round(len(mixed) / len(parts), 3),
                    "nothing on the NPU": round(sum(p[2] for p in parts) / len(parts), 3),
                }
            )
    return rows
