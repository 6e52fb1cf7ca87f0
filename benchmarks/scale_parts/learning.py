"""Spaces, predictors and latency tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import hwnas
from hwnas.interfaces import DeviceSpec, PredictorContext
from hwnas.latency.samples import Timing
from hwnas.latency.table import LatencyTable, Protocol
from hwnas.latency.validation import fit_correction
from hwnas.predictors import gcn
from hwnas.spaces.cost import cost, op_macs
from hwnas.spaces.index import enumerate_ops, op_sum
from hwnas.spaces.load import build_space
from hwnas.spaces.lowering import lower

SPACE = build_space("mobilenet_v3", num_classes=10)
N_ASKED = 10_000
PER_STAGE = 4  # blocks


def nothing(n: int, folder: Path) -> None:
    """The data are made in memory."""


def imports() -> None:
    """What predictors need."""
    import torch  # noqa: F401

    from hwnas.nets import graph_conv  # noqa: F401


def use_space(n: int, folder: Path) -> dict[str, Any]:
    """n blocks: operators listed, 10,000 archs priced, archs lowered, a search under a limit."""
    stage = {"depths": [2, 3, PER_STAGE], "kernels": [3, 5, 7], "expands": [3, 4, 6]}
    settings = {
        "resolutions": [128, 160, 192],
        "stem": {"widths": [16]},
        "stages": [{**stage, "widths": [16 + 8 * s]} for s in range(max(1, n // PER_STAGE))],
        "head": {"width": 512},
    }
    space = build_space("mobile", settings, num_classes=1000)
    codes = space.sample(N_ASKED, seed=0)
    macs = cost(space, codes, "macs")
    for row in codes[:100]:
        lower(space, space.arch(row))
    found = hwnas.search(
        space,
        score=lambda given: np.log(cost(space, given, "params")),
        limits={"macs": float(np.median(macs))},
        budget=N_ASKED,
    )
    return {
        "archs": f"{space.size():.1e}",
        "operators": len(enumerate_ops(space)),
        "winner_meets_limit": bool(found.winner.costs["macs"] <= np.median(macs)),
    }


def fit_gcn(n: int, folder: Path) -> dict[str, Any]:
    """The default predictor on n labels (log MACs with noise)."""
    codes = SPACE.sample(n, seed=0)
    noise = 0.1 * np.random.default_rng(0).standard_normal(n)
    predictor = gcn.build(gcn.Config(), PredictorContext(SPACE, 0))
    predictor.fit(codes, np.log(cost(SPACE, codes, "macs")) + noise)
    others = SPACE.sample(N_ASKED, seed=1)
    mean, _ = predictor.predict(others)
    return {"correlation": round(float(np.corrcoef(mean, cost(SPACE, others, "macs"))[0, 1]), 3)}


def fit_table(n: int, folder: Path) -> dict[str, Any]:
    """A correction from n networks (times follow MACs, with noise), saved, loaded, asked."""

    def timing(ms: float) -> Timing:
        return Timing(ms, ms, ms, 1.2 * ms, 5)

    stream = np.random.default_rng(0)
    ops = enumerate_ops(SPACE)
    ms = np.array([op_macs(op) / 1e7 + 0.01 for op in ops])
    rows = {op: timing(value) for op, value in zip(ops, ms, strict=True)}
    codes = SPACE.sample(n, seed=0)
    measured = 1.1 * op_sum(SPACE, codes, ms) * (1 + 0.01 * stream.standard_normal(n))
    halves = (measured, measured * (1 + 0.01 * stream.standard_normal(n)))
    correction = fit_correction(rows, SPACE, codes, [timing(value) for value in measured], halves)
    table = LatencyTable(
        DeviceSpec("simulated-scale"),
        Protocol("scale", "median", 5),
        "simulated",
        {},
        rows,
        {SPACE.id: correction},
    )
    table.save(folder / "table.json")
    loaded = LatencyTable.load(folder / "table.json")
    estimate = loaded.estimate(SPACE, SPACE.sample(N_ASKED, seed=1))
    return {
        "mape": round(correction.validation.forecast.mape, 4),
        "estimates": len(estimate.ms),
        "file_mb": round((folder / "table.json").stat().st_size / 1e6, 1),
    }
