"""Networks of Mobile ML Bench, timed as whole networks on the CPU of this machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from accelerator_parts.phones import CPU, TARGETS
from accelerator_parts.ranking import tau_row
from accelerator_parts.reading import mobile_ml_bench
from hwnas.builders import tflite
from hwnas.core.env import onnx_runtime
from hwnas.exporters.interpreter import Interpreted
from hwnas.measure.references.graphs import reference_graph

PX, ROUNDS, RUNS = 224, 10, 4
SAME = {
    "mobilenet_w1": "mobilenetv1_100",
    "mobilenetv2b_w1": "mobilenetv2_100",
    "mobilenetv2b_w3d4": "mobilenetv2_075",
    "mobilenetv2b_wd2": "mobilenetv2_050",
    "mobilenetv3_large_w1": "mobilenetv3_large_100",
    "mobilenetv3_large_w3d4": "mobilenetv3_large_075",
    "mobilenetv3_small_w1": "mobilenetv3_small_100",
    "mobilenetv3_small_w3d4": "mobilenetv3_small_075",
    "mobilenetv3_small_wd2": "mobilenetv3_small_050",
    "mnasnet_b1": "mnasnet_100",
    "mnasnet_a1": "semnasnet_100",
    "spnasnet": "spnasnet_100",
    "fbnet_cb": "fbnetc_100",
    "efficientnet_edge_small_b": "efficientnet_es",
}
"""The same architecture in timm, by the name in the source."""


def here_on_phones(folder: Path) -> list[dict[str, Any]]:
    """How our CPU ranks the networks of phones, in ONNX Runtime and LiteRT."""
    bench, ours = mobile_ml_bench(folder), _timed()
    rows = []
    for column, name in {CPU: "Pixel 4 CPU", **TARGETS}.items():
        known = {network: bench[column][network] for network in SAME}
        by = {"MACs": bench["flops"], **ours}
        if column != CPU:
            by["Pixel 4 CPU"] = bench[CPU]
        rows += [tau_row("14 mobile CNNs", one, name, values, known) for one, values in by.items()]
    return rows


def _timed() -> dict[str, dict[str, float]]:
    """ms per runtime and network: median over rounds of the fastest run, all by turns."""
    runs: dict[tuple[str, str], Callable[[], object]] = {}
    x = np.zeros((1, 3, PX, PX), np.float32)
    for name, in_timm in SAME.items():
        graph = reference_graph(in_timm, PX)
        runs["our CPU, ONNX Runtime", name] = _onnx(graph.SerializeToString(), x)
        for precision in ("fp32", "int8"):
            model = Interpreted(tflite.timed(graph, precision), where=in_timm)
            runs[f"our CPU, LiteRT {precision}", name] = lambda model=model: model(x)
    fastest: dict[tuple[str, str], list[float]] = {key: [] for key in runs}
    for number in range(ROUNDS + 1):
        for key, run in runs.items():
            times = []
            for _ in range(RUNS):
                start = time.perf_counter()
                run()
                times.append(1e3 * (time.perf_counter() - start))
            if number:  # the first round warms up
                fastest[key].append(min(times))
    found: dict[str, dict[str, float]] = {}
    for (runtime, name), times in fastest.items():
        found.setdefault(runtime, {})[name] = median(times)
    return found


def _onnx(content: bytes, x: Any) -> Callable[[], object]:
    runtime = onnx_runtime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"input": x})
