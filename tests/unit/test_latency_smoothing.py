"""Additive smoothing of known devices, and the benchmark's tasks on a made folder."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from hwnas.core.errors import UserError
from hwnas.core.rng import rng
from hwnas.latency.smoothing import smooth_additively

ROOT = Path(__file__).parents[2]
FBNET_OPS = (
    "k3_e1", "k3_e1_g2", "k3_e3", "k3_e6", "k5_e1", "k5_e1_g2", "k5_e3", "k5_e6", "skip",
)  # fmt: skip


def one_hot(codes: np.ndarray, n_values: int) -> np.ndarray:
    return np.eye(n_values)[codes].reshape(len(codes), -1)


def test_an_additive_device_stays_as_it_is_also_where_it_was_not_timed():
    stream = rng(0, "smoothing")
    codes = stream.integers(0, 4, (200, 5))
    prices = stream.uniform(0.1, 1.0, (5, 4))
    truth = 2.0 + prices[np.arange(5), codes].sum(axis=1)
    known = np.stack([truth, 3 * truth], axis=1)
    timed = np.arange(60)
    hidden = known.copy()
    hidden[60:] = np.nan  # nobody may read what was not timed
    smooth = smooth_additively(one_hot(codes, 4), hidden, timed)
    np.testing.assert_allclose(smooth, known, rtol=1e-3)


def test_noise_is_averaged_out():
    stream = rng(1, "smoothing")
    codes = stream.integers(0, 4, (2000, 5))
    truth = 2.0 + stream.uniform(0.1, 1.0, (5, 4))[np.arange(5), codes].sum(axis=1)
    noisy = truth * (1 + 0.1 * stream.standard_normal(2000))
    smooth = smooth_additively(one_hot(codes, 4), noisy[:, None])[:, 0]
    assert np.abs(smooth / truth - 1).mean() < 0.2 * np.abs(noisy / truth - 1).mean()


def test_nothing_becomes_free():
    """A model that extrapolates below zero keeps a hundredth of the median."""
    choices = np.array([[0.0], [1.0], [2.0], [9.0]])
    known = np.array([[4.0], [2.0], [1.0], [np.nan]])
    smooth = smooth_additively(choices, known, np.arange(3))
    assert smooth[3, 0] == pytest.approx(0.02)


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf])
def test_latencies_that_cannot_be_are_refused(bad: float):
    choices = np.eye(3)
    with pytest.raises(UserError, match="positive and finite"):
        smooth_additively(choices, np.array([[1.0], [bad], [2.0]]))
    with pytest.raises(UserError, match="too few"):
        smooth_additively(choices, np.ones((3, 1)), np.arange(1))


# --- benchmarks/latency_transfer.py ---------------------------------------------------------------


@pytest.fixture(scope="module")
def benchmark() -> Any:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import latency_transfer

        yield latency_transfer
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))


def made_folder(folder: Path, columns: tuple[str, ...], n: int = 150) -> Path:
    """FBNet networks on devices between two extremes; every latency is a sum of prices."""
    stream = rng(0, "made")
    arch = stream.integers(0, len(FBNET_OPS), (n, 22)).astype(np.int8)
    first, second = (stream.uniform(0.1, 1.0, (22, len(FBNET_OPS))) for _ in range(2))
    shares = np.linspace(0, 1, len(columns))
    at = np.arange(22)
    sums = [(w * first + (1 - w) * second)[at, arch].sum(axis=1) for w in shares]
    path = folder / "latency_fbnet"
    path.mkdir()
    np.savez(
        path / "latency.npz",
        arch=arch,
        op_names=np.array(FBNET_OPS),
        devices=np.array(columns),
        latency_ms=np.stack(sums, axis=1).astype(np.float32),
    )
    return folder


def test_tasks_of_nasflat_run_where_their_columns_are(
    benchmark: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """FD has all of its columns here, F1 lacks some, and there is no NAS-Bench-201 at all."""
    (fd,) = (task for task in benchmark.NASFLAT if task.name == "FD")
    made_folder(tmp_path, (*fd.sources, *fd.targets))
    arguments = ["--tasks", "nasflat", "--data", str(tmp_path), "--seeds", "1", "--format", "json"]
    assert benchmark.main(arguments) == 0
    found = json.loads(capsys.readouterr().out)
    (row,) = found["rows"]
    assert row["task"] == "FD" and row["published_nasflat_20"] == 0.961
    assert row["smoothed_20"] > 0.9 and set(row["per_target"]) == set(fd.targets)
    lost = {task["task"]: task["missing"] for task in found["not_run"]}
    assert set(lost) == {"F1", "F2", "F3", "F4", "FA", "ND"}
    assert lost["F1"] == ["2080ti_1", "titan_rtx_1", "titan_rtx_32"]
    assert lost["ND"] == ["the data set"]


def test_sources_are_read_on_the_networks_timed_on_them_alone(
    benchmark: ModuleType, tmp_path: Path
):
    """Other latencies of the sources do not matter: the protocol of the published rows."""
    from transfer_parts.estimating import Columns
    from transfer_parts.fixed import run_task
    from transfer_parts.tasks import Task

    made_folder(tmp_path, ("a_1", "b_1", "c_1"))
    data = benchmark.read_measurements(tmp_path / "latency_fbnet")
    task = Task("made", "fbnet", ("a_1", "b_1"), ("c_1",), n_source=120)
    known = rng(0, "transfer/sources", "made").choice(150, 120, replace=False)
    poisoned = data.latency_ms.copy()
    poisoned[np.setdiff1d(np.arange(150), known), :2] *= 1000
    changed = type(data)(data.space, data.codes, data.live_codes, poisoned, data.columns)
    kept, other = (run_task(task, Columns(d), (10,), 1) for d in (data, changed))
    assert (kept["smoothed_10"], kept["raw_10"]) == (other["smoothed_10"], other["raw_10"])


def test_gaps_between_sources_are_paired_by_seed(benchmark: ModuleType, tmp_path: Path):
    from transfer_parts.estimating import Columns
    from transfer_parts.fixed import run_task
    from transfer_parts.tasks import Task

    made_folder(tmp_path, ("a_1", "b_1", "c_1"))
    columns = Columns(benchmark.read_measurements(tmp_path / "latency_fbnet"))
    task = Task("made", "fbnet", ("a_1", "b_1"), ("c_1",), n_source=120)
    found = run_task(task, columns, (10,), 3)
    for other in ("raw", "best_source"):
        gap = found["smoothed_10"] - found[f"{other}_10"]
        assert found[f"above_{other}_10"] == pytest.approx(gap, abs=1e-12)
    assert found["above_best_source_10"] > 3 * found["se_above_best_source_10"] > 0
    alone = run_task(task, columns, (10,), 1)
    assert "se_above_raw_10" not in alone and "above_raw_10" in alone


def test_a_folder_without_the_columns_of_any_task_is_refused(
    benchmark: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    made_folder(tmp_path, ("a_1", "b_1"), n=60)
    assert benchmark.main(["--tasks", "nasflat", "--data", str(tmp_path)]) == 2
    assert "FD: 1080ti_1" in capsys.readouterr().err
    assert benchmark.main(["--tasks", "shared", "--data", str(tmp_path), "--n", "x"]) == 2
    assert "whole numbers" in capsys.readouterr().err


PHONES = [
    f"{phone}|{unit}"
    for phone in ("pixel4", "s10", "iphonexs")
    for unit in ("1large|float", "1small|float", "gpu|float", "1large|quant")
]


def made_phones(folder: Path, n: int = 40) -> Path:
    """Networks whose latency is a sum of a constant, a rate of MACs and a rate of bytes."""
    stream = rng(0, "phones")
    flops, size = stream.uniform(1e8, 4e9, n), stream.uniform(1e6, 1e8, n)
    (folder / "mobile_ml_bench").mkdir(parents=True)
    for file in ("tflite_real.csv", "torch_real.csv"):
        prices = stream.uniform(0.5, 2.0, (len(PHONES), 3)) * [1.0, 1e-8, 1e-7]
        columns = [a + b * flops + c * size for a, b, c in prices]
        head = ",".join(["model", "flops", "bytes", *(f"{name}|ms" for name in PHONES)])
        rows = [
            ",".join([f"net{i}", *(f"{value:.8g}" for value in values)])
            for i, values in enumerate(zip(flops, size, *columns, strict=True))
        ]
        (folder / "mobile_ml_bench" / file).write_text("\n".join([head, *rows]))
    return folder


def test_ten_timings_carry_over_between_runtimes_and_precisions(
    benchmark: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    made_phones(tmp_path)
    arguments = ["--tasks", "runtimes", "--data", str(tmp_path), "--seeds", "2", "--format", "json"]
    assert benchmark.main(arguments) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    kinds = {row["task"].partition(":")[0] for row in rows}
    assert kinds == {"runtime", "precision", "unit", "phone", "core"}
    for row in rows:
        assert row["n_networks"] == 40
        assert row["ours_error_20"] < 0.03 and row["ours_error_10"] < 0.06
        assert row["full_error"] < 0.03 and row["ours_spearman_10"] > 0.97
        assert row["ours_error_10"] < row["macs_error_10"]
        assert row["ours_error_10"] < row["source_error_10"]


def test_tasks_of_phones_name_the_columns_that_are_missing(
    benchmark: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = made_phones(tmp_path) / "mobile_ml_bench"
    text = (folder / "tflite_real.csv").read_text()
    (folder / "tflite_real.csv").write_text(text.replace("iphonexs|1large|float|ms", "x|ms"))
    assert benchmark.main(["--tasks", "runtimes", "--data", str(tmp_path), "--seeds", "1"]) == 2
    said = capsys.readouterr().err
    assert "columns of a task are missing" in said and "tflite|iphonexs|1large|float" in said
