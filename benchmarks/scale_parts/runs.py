"""Files of runs: archives, journals, reports, disk use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from hwnas.controller.archive import Archive
from hwnas.core.records import dump
from hwnas.core.rundir import RunDir
from hwnas.core.store import sealed
from hwnas.interfaces import Evaluation
from hwnas.pipeline.disk import disk_text, disk_use
from hwnas.pipeline.evaluators import JournaledEvaluator
from hwnas.reporting.data import Curve, Front, LatencyFit, Point, ReportData, Training
from hwnas.reporting.html import write_report as write
from hwnas.spaces.load import build_space
from hwnas.spaces.space import Codes

KEY = "latency_ms@local"
STEP = 50_000
CONTEXT = "0" * 16
SPACE = build_space("mobilenet_v3", num_classes=10)


def _described(codes: Codes) -> dict[str, Any]:
    value = codes.sum(axis=1) / 7
    return {"predicted": value, "predicted_std": value, "feasible": value > 9, KEY: value}


def make_archive(n: int, folder: Path) -> None:
    """Distinct archs of mobilenet_v3 (57 choices), in several saves."""
    archive, stream = Archive(SPACE, (KEY,)), np.random.default_rng(0)
    for file in folder.glob("*.bin"):
        file.unlink()
    while len(archive) < n:
        archive.record(SPACE.sample(min(STEP, n - len(archive)), rng=stream), _described)
        archive.append_to(folder)


def resume_archive(n: int, folder: Path) -> dict[str, Any]:
    """As a search that goes on."""
    archive = Archive.load(folder, SPACE, n_rows=n, n_evaluated=0)
    return {"archs": len(archive), "file_mb": (folder / "archive.bin").stat().st_size // 10**6}


def make_journal(n: int, folder: Path) -> None:
    """Evaluations of distinct archs."""
    with (folder / "journal.jsonl").open("w") as stream:
        for begin in range(0, n, STEP):
            codes = SPACE.sample(min(STEP, n - begin), seed=begin)
            for row in codes:
                made = Evaluation(SPACE.arch(row), 0.5, "supernet", "val", 360, 0, val_loss=1.25)
                line = {"kind": "evaluation", "context": CONTEXT, "evaluation": dump(made)}
                stream.write(json.dumps(sealed(line)) + "\n")


def read_journal(n: int, folder: Path) -> dict[str, Any]:
    """As every stage that evaluates begins: all lines checked, all evaluations known."""
    known = JournaledEvaluator(RunDir(folder), CONTEXT, lambda: None)._known
    return {
        "evaluations": len(known),
        "file_mb": (folder / "journal.jsonl").stat().st_size // 10**6,
    }


def make_report(n: int, folder: Path) -> None:
    """The data are made in memory."""


def write_report(n: int, folder: Path) -> dict[str, Any]:
    """Ten devices with n evaluated archs each, 1,000 whole networks, n / 10 training steps."""
    cloud = tuple(Point(1 + i / 7, (i % 997) / 997, f"{i:016x}") for i in range(n))
    ms = tuple(1 + i / 7 for i in range(1000))
    curve = Curve("largest", tuple(range(n // 10)), tuple(i / n for i in range(n // 10)))
    names = [f"device{i}" for i in range(10)]
    pairs = tuple((x, x + 1) for x in ms)
    report = ReportData(
        title="scale",
        fronts=tuple(Front(name, "top-1", cloud, cloud, cloud[0], 2.0, cloud) for name in names),
        latency_fits=tuple(LatencyFit(name, ms, ms, pairs, 0.02, 1.0, 0.01) for name in names),
        training=Training((curve,) * 4, (curve,) * 4),
    )
    write(report, folder / "report.html")
    return {"report_bytes": (folder / "report.html").stat().st_size}


def make_files(n: int, folder: Path) -> None:
    """A run folder with n small files, half of them superseded."""
    for i in range(n):
        top = "superseded/label-1/labels" if i % 2 else "labels"
        path = folder / "run" / top / f"{i // 1000}" / f"{i}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")


def measure_disk(n: int, folder: Path) -> dict[str, Any]:
    """What `hwnas status` shows."""
    return {"text": disk_text(disk_use(RunDir(folder / "run")), "hwnas clean")}
