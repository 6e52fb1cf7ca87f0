"""benchmarks/gpu.sh with an imitated `python`: which pieces run, what stays, what goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PIECES = ["throughput", "latency-cuda", "latency-tensorrt", "tensorrt", "cifar10", "macro"]
FAKE = f"""#!/usr/bin/env bash
[ "$1" = -c ] && exit $HAS
[ "$1 $2" = "-m json.tool" ] && exec {sys.executable} "$@"
echo "$@" >> $CALLS
echo '{{"ran": true}}'
exit $STATUS
"""


@pytest.fixture
def gpu(tmp_path: Path):
    """Run the script: exit status, stdout, stderr."""
    (tmp_path / "python").write_text(FAKE)
    (tmp_path / "python").chmod(0o755)
    for file in ("cifar10/train.npz", "nas_bench_macro/cifar10.json"):
        (tmp_path / "data" / file).parent.mkdir(parents=True)
        (tmp_path / "data" / file).touch()

    def run(*arguments: str, status: int = 0, has: int = 0) -> tuple[int, str, str]:
        done = subprocess.run(
            ["bash", str(ROOT / "benchmarks/gpu.sh"), *arguments],
            capture_output=True,
            text=True,
            env=os.environ
            | {
                "PYTHON": str(tmp_path / "python"),
                "OUT": str(tmp_path / "out"),
                "CARRY": "no/such/folder",
                "HWNAS_DATA": str(tmp_path / "data"),
                "CALLS": str(tmp_path / "calls"),
                "STATUS": str(status),
                "HAS": str(has),
            },
        )
        return done.returncode, done.stdout, done.stderr

    return run


def test_every_piece_leaves_json_and_is_then_skipped(gpu, tmp_path: Path):
    assert gpu()[0] == 0
    for piece in PIECES:
        assert json.loads((tmp_path / "out" / f"{piece}.json").read_text()) == {"ran": True}
    calls = (tmp_path / "calls").read_text()
    assert "supernet_throughput.py --device cuda" in calls and "nasbench_macro.py" in calls
    assert "export=[{name: onnx}, {name: timm}, {name: fp16}, {name: tensorrt}" in calls
    status, _, err = gpu()
    assert status == 0 and err.count("done already") == len(PIECES)
    assert (tmp_path / "calls").read_text() == calls


def test_the_list_runs_nothing(gpu, tmp_path: Path):
    status, out, _ = gpu("--list", has=1)
    assert status == 0 and [line.split()[:2] for line in out.splitlines()] == [
        [piece, "todo"] for piece in PIECES
    ]
    assert not (tmp_path / "calls").exists() and not (tmp_path / "out").exists()


def test_without_a_gpu_it_says_so(gpu, tmp_path: Path):
    status, _, err = gpu(has=1)
    assert status == 1 and "no CUDA GPU" in err
    assert not (tmp_path / "calls").exists()


@pytest.mark.parametrize(("status", "said"), [(75, "goes on"), (1, "failed with status 1")])
def test_what_is_not_done_leaves_no_json(gpu, tmp_path: Path, status: int, said: str):
    code, _, err = gpu("macro", status=status)
    assert code == 1 and said in err
    assert not (tmp_path / "out/macro.json").exists()
    assert gpu("macro")[0] == 0 and (tmp_path / "out/macro.json").exists()


def test_a_check_that_fell_short_is_a_result(gpu, tmp_path: Path):
    assert gpu("throughput", status=3)[0] == 0
    assert (tmp_path / "out/throughput.json").exists()


def test_an_unknown_piece_is_refused(gpu):
    status, _, err = gpu("nonsense")
    assert status == 2 and "throughput" in err
