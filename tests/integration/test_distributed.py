"""Real processes under torchrun on loopback: equal to one process, and survivors of a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from safetensors.torch import load_file

from hwnas.training.distributed import ALONE
from tests.command import hwnas
from tests.integration import two_halves
from tests.photos import class_folders

CONFIG = Path(__file__).parent / "distributed.yaml"
ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = "checkpoints/supernet.safetensors"


def torchrun(
    *arguments: str, restarts: int = 0, paths: Sequence[str] = ()
) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += [f"--max-restarts={restarts}", "--monitor-interval=0.1", "-m", *arguments]
    environment = os.environ | {
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": os.pathsep.join([*paths, str(ROOT)]),
    }
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment)


def finish(process: subprocess.Popen[str]) -> tuple[str, str]:
    out, err = process.communicate(timeout=900)
    assert process.returncode == 0, err
    return out, err


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that two processes trained."""
    run = tmp_path_factory.mktemp("together") / "run"
    command = ("train", str(run), "--config", str(CONFIG), "--format", "json")
    out, _ = finish(torchrun("hwnas", *command))
    assert json.loads(out)["table"][0]["step"] == 12  # rank 0 alone prints
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [6, 12]  # and writes
    return run


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of two gloo processes, each with its half of every batch."""
    folder = tmp_path_factory.mktemp("halves")
    finish(torchrun("tests.integration.two_halves", str(folder)))
    return folder


@pytest.mark.parametrize("case", two_halves.CASES)
def test_two_processes_equal_one_that_runs_the_same_two_halves(
    halves: Path, case: str, tmp_path: Path
):
    """Issue 6: to 1e-6, with BN statistics per half and dropout off."""

    def difference(accumulation: int) -> float:
        folder = tmp_path / str(accumulation)
        folder.mkdir()
        two_halves.train(folder, case, accumulation=accumulation, ranks=ALONE)
        one, two = (load_file(path / "weights.safetensors") for path in (folder, halves / case))
        assert one.keys() == two.keys()
        return max(float((one[name] - two[name]).abs().max()) for name in one)

    assert difference(accumulation=2) < 1e-6
    assert difference(accumulation=1) > 1e-5  # undivided BN statistics are another training


def test_labels_of_two_processes_are_those_of_one(together: Path, tmp_path: Path):
    finish(torchrun("hwnas", "label", str(together)))
    labels = (together / "labels/supernet.json").read_bytes()
    journal = (together / "journal.jsonl").read_text().splitlines()
    assert len(set(journal)) == len(journal) == 8
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    for name in ("config.yaml", "stages.json", WEIGHTS):
        (run / name).write_bytes((together / name).read_bytes())
    ledger = json.loads((run / "stages.json").read_text())
    del ledger["stages"]["label"], ledger["check"]
    (run / "stages.json").write_text(json.dumps(ledger))
    alone = hwnas("label", run)
    assert alone.returncode == 0, alone.stderr
    assert (run / "labels/supernet.json").read_bytes() == labels
    assert sorted((run / "journal.jsonl").read_text().splitlines()) == sorted(journal)


def test_a_killed_rank_is_restarted_and_training_continues(together: Path, tmp_path: Path):
    run = tmp_path / "run"
    process = torchrun("hwnas", "train", str(run), "--config", str(CONFIG), restarts=1)
    steps, deadline = run / "checkpoints/steps", time.monotonic() + 300
    while not list(steps.glob("step-*4.json")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(pid_of_rank(1, process.pid), signal.SIGKILL)
    _, err = finish(process)
    assert "train: continues" in err  # the second attempt
    assert not (run / "superseded").exists()
    assert (run / WEIGHTS).read_bytes() == (together / WEIGHTS).read_bytes()


def test_ranks_whose_photos_differ_stop_before_the_first_step(tmp_path: Path):
    """Case 22: the second machine has an incomplete copy."""
    for machine, n in (("0", 20), ("1", 18)):
        class_folders(tmp_path / machine / "photos", ["ant", "bee"], n, px=16)
    (tmp_path / "sitecustomize.py").write_text(
        "import os\nif 'RANK' in os.environ:\n"
        f"    os.environ['HWNAS_DATA'] = {str(tmp_path)!r} + '/' + os.environ['RANK']\n"
    )
    config = Path(__file__).parent / "photos.yaml"
    process = torchrun(
        "hwnas", "train", str(tmp_path / "run"), "--config", str(config), paths=[str(tmp_path)]
    )
    _, err = process.communicate(timeout=300)
    assert process.returncode != 0
    assert "different data on rank 1 (" in err and "): n_images train" in err
    assert err.count("error: the processes do not see the same data") == 2  # both say so
    assert not list((tmp_path / "run").rglob("*.safetensors"))


def pid_of_rank(rank: int, agent: int) -> int:
    children = Path(f"/proc/{agent}/task/{agent}/children").read_text().split()
    for pid in children:
        if f"RANK={rank}" in Path(f"/proc/{pid}/environ").read_text().split("\0"):
            return int(pid)
    raise AssertionError(f"no rank {rank} among {children}")


def test_what_one_process_gets_wrong_ends_all(tmp_path: Path):
    process = torchrun(
        "hwnas",
        "train",
        str(tmp_path / "run"),
        "--config",
        str(CONFIG),
        "--set",
        "train.batch_size=33",
    )
    _, err = process.communicate(timeout=900)
    assert process.returncode == 1
    assert "a batch does not divide evenly among the processes" in err
    assert "batch_size=32" in err
