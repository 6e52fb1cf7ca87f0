"""Runs that are killed, stopped, moved, or out of disk: the same command ends as if nothing was.

Run folders are compared file by file: nothing may differ but clocks.

Commands run in forks of a clean process that has imported torch and computed nothing (autograd does
not survive a fork), on a simulated device: its clock is told by the models, so that timings are as
reproducible as everything else.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

from hwnas.core.errors import UserError
from hwnas.core.progress import silent
from hwnas.core.rundir import RunDir
from hwnas.pipeline import foreign_tables as moving
from hwnas.pipeline.opening import open_project
from tests.jumping_clock import let_it_jump, scatter_times
from tests.kit import FakeMachine, SizeTransport
from tests.photos import class_folders
from tests.same_run import differences

CONFIG = Path(__file__).parent / "kills.yaml"
NOBODY = 65534
HANGS_S = 900  # seconds after which a command hangs; on a crowded machine an export takes minutes
FORK = multiprocessing.get_context("forkserver")
FORK.set_forkserver_preload(
    [
        "hwnas.pipeline.graph",
        "hwnas.studies.run_report",
        "hwnas.training.loop",
        "hwnas.training.photos",
        "onnxruntime",
        "plotly.graph_objects",
        "pytest",
        "sklearn.linear_model",
        "timm",
        "torch._dynamo",
        "torch.onnx._internal.exporter._core",
    ]
)
VERBS = {
    "profile/local": ("profile", "local", "--run"),
    "train": ("train",),
    "label": ("label",),
    "predictor": ("predictor", "fit"),
    "search/main": ("search",),
    "finetune/main": ("finetune",),
    "export/main": ("export",),
    "verify/main": ("verify", "--report-only"),
}
"""The command of every stage, to which the run folder is added."""
N_LABELS = 12  # of kills.yaml
UNTIL_FINETUNE = tuple(VERBS)[:6]  # an export takes seconds, all else tenths


class SlowMachine(FakeMachine):
    """Its clock is told by the models; loading one takes real time."""

    def load(self, item: dict[str, str]) -> Callable[[], None]:
        time.sleep(0.005)
        return super().load(item)


def child(
    arguments: list[str],
    environment: dict[str, str],
    log: Path,
    limit_bytes: int | None,
    uid: int | None,
    jumps: int | None,
) -> None:
    import torch

    from hwnas.cli.main import main
    from hwnas.core import env
    from hwnas.pipeline import project

    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(1)
    sys.stdout = sys.stderr = log.open("w", buffering=1)
    for number in (1, 2):
        os.dup2(sys.stderr.fileno(), number)
    project.load_transport = lambda name, **_: SizeTransport(SlowMachine)
    moving.host_facts = lambda: env.host_facts() | {"cpu": os.environ.get("FAKE_CPU", "Fake 1")}
    if limit_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, resource.RLIM_INFINITY))
    if uid is not None:
        os.setuid(uid)
    if jumps is not None:
        let_it_jump(jumps)
    main(arguments)


class Started:
    """A command in a fork; its output is in `log` afterwards.

    jumps: seed of a wall clock that jumps.
    """

    def __init__(
        self,
        *arguments: str,
        log: Path,
        limit_bytes: int | None = None,
        uid: int | None = None,
        jumps: int | None = None,
    ) -> None:
        self.log = log
        settings = ([*arguments], dict(os.environ), log, limit_bytes, uid, jumps)
        self.process = FORK.Process(target=child, args=settings)
        self.process.start()

    def kill(self, number: int) -> None:
        assert self.process.pid is not None
        with contextlib.suppress(ProcessLookupError):  # it ended a moment ago
            os.kill(self.process.pid, number)

    def finish(self) -> int:
        self.process.join(HANGS_S)
        assert self.process.exitcode is not None, "it hangs"
        return self.process.exitcode

    @property
    def text(self) -> str:
        return self.log.read_text()


@pytest.fixture(scope="module", autouse=True)
def pets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The data."""
    folder = tmp_path_factory.mktemp("data")
    class_folders(folder / "pets", ["ant", "bee", "cat"], 40, px=14)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HWNAS_DATA", str(folder))
        yield


def start(stage: str, run: Path, **limits: int | None) -> Started:
    config = ("--config", str(CONFIG)) if stage == "profile/local" else ()
    return Started(*VERBS[stage], str(run), *config, log=run.parent / f"{run.name}.log", **limits)


def do(stage: str, run: Path, jumps: int | None = None) -> str:
    """Run a stage's command to its end; returns what it printed."""
    started = start(stage, run, jumps=jumps)
    assert started.finish() == 0, started.text
    return started.text


def undisturbed(run: Path, stages: tuple[str, ...]) -> Path:
    for stage in stages:
        do(stage, run)
    return run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was left in peace until its networks were fine-tuned."""
    return undisturbed(tmp_path_factory.mktemp("runs") / "peace", UNTIL_FINETUNE)


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def seconds_of(run: Path) -> dict[str, float]:
    stages = json.loads((run / "stages.json").read_text())["stages"]
    return {name: record["seconds"] for name, record in stages.items()}


def kill_in(
    stage: str,
    run: Path,
    moment_s: float,
    number: int = signal.SIGKILL,
    jumps: int | None = None,
) -> Started:
    """Send a signal `moment_s` after the ledger says that the stage has started."""
    ledger = run / "stages.json"
    before = ledger.stat().st_mtime_ns if ledger.exists() else 0
    victim = start(stage, run, jumps=jumps)
    while victim.process.is_alive():
        if ledger.exists() and ledger.stat().st_mtime_ns != before:
            time.sleep(moment_s)
            break
        time.sleep(0.002)
    victim.kill(number)
    victim.finish()
    return victim


def without_times(run: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if not k.endswith(("_at", "_s"))} for row in rows]


def assert_same(run: Path, peaceful: Path, stages: tuple[str, ...]) -> None:
    """Equal journals and equal bytes of everything that the stages promise."""
    assert without_times(run) == without_times(peaceful)
    assert_same_outputs(run, peaceful, stages)


def assert_same_outputs(run: Path, peaceful: Path, stages: tuple[str, ...]) -> None:
    one, other = (
        json.loads((folder / "stages.json").read_text())["stages"] for folder in (run, peaceful)
    )
    for stage in stages:
        assert one[stage]["state"] == "done"
        assert one[stage]["outputs"] == other[stage]["outputs"], stage


def campaign(
    run: Path, peaceful: Path, stages: tuple[str, ...], seed: int, jumps: int | None = None
) -> None:
    """Kill the command of every stage at a random moment of it, and give it again.

    jumps: seed of a wall clock that jumps by years, also between the two commands.
    """
    random = np.random.default_rng(seed)
    spans = seconds_of(peaceful)
    for stage in stages:
        kill_in(stage, run, float(random.uniform(0, spans[stage])), jumps=jumps)
        if jumps is not None:
            scatter_times(run, jumps)
        do(stage, run, jumps)
    assert not differences(run, peaceful)
    assert all(0 <= seconds < HANGS_S for seconds in seconds_of(run).values())


def test_kills_in_every_stage_and_a_clock_that_jumps_change_nothing(finished: Path, tmp_path: Path):
    campaign(tmp_path / "run", finished, UNTIL_FINETUNE, seed=0, jumps=0)


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was left in peace to its very end."""
    return undisturbed(tmp_path_factory.mktemp("runs") / "peace", tuple(VERBS))


@pytest.mark.full
@pytest.mark.parametrize("seed", range(30))
def test_thirty_campaigns_change_nothing(complete: Path, tmp_path: Path, seed: int):
    campaign(tmp_path / "run", complete, tuple(VERBS), seed, jumps=seed if seed % 2 else None)


@pytest.mark.full
def test_a_run_repeated_is_the_same_in_every_file(complete: Path, tmp_path: Path):
    """Exports included."""
    assert not differences(undisturbed(tmp_path / "run", tuple(VERBS)), complete)


@pytest.mark.full
@pytest.mark.parametrize("seed", range(2))
def test_a_run_killed_a_dozen_times_is_the_same_in_every_file(
    complete: Path, tmp_path: Path, seed: int
):
    """One command for all stages, killed wherever it is, repeated until it ends."""
    random, run = np.random.default_rng(seed), tmp_path / "run"
    longest_s = sum(seconds_of(complete).values()) / 6
    arguments = ("run", str(CONFIG), "--run", str(run), "--report-only")
    endings = []
    for _ in range(12):
        victim = Started(*arguments, log=tmp_path / "log")
        victim.process.join(float(random.uniform(0, longest_s)))
        victim.kill(signal.SIGKILL)
        endings.append(victim.finish())
    assert endings.count(-signal.SIGKILL) >= 3, endings
    last = Started(*arguments, log=tmp_path / "log")
    assert last.finish() == 0, last.text
    assert not differences(run, complete)


@pytest.mark.parametrize(("stage", "folder"), [("train", "checkpoints"), ("search/main", "search")])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_cleanly_and_the_way_on_is_shown(
    copy: Path, finished: Path, number: int, code: int, stage: str, folder: str
):
    shutil.rmtree(copy / folder)
    if folder == "search":  # it evaluates anew, and takes as long as it did
        lines = (copy / "journal.jsonl").read_bytes().splitlines(keepends=True)
        (copy / "journal.jsonl").write_bytes(b"".join(lines[:N_LABELS]))
    stopped = kill_in(stage, copy, 0.3 * seconds_of(finished)[stage], number)
    assert stopped.process.exitcode == code, stopped.text
    verb = VERBS[stage][0]
    assert f"to resume: hwnas {verb} {copy}" in stopped.text and "Traceback" not in stopped.text
    do(stage, copy)
    stages = UNTIL_FINETUNE[: UNTIL_FINETUNE.index(stage) + 1]
    assert_same(copy, finished, UNTIL_FINETUNE if stage == "train" else stages)


def test_a_truncated_checkpoint_falls_back_to_the_one_before(copy: Path, finished: Path):
    (copy / "checkpoints" / "supernet.safetensors").unlink()
    newest = max((copy / "checkpoints" / "steps").glob("*.safetensors"))
    newest.write_bytes(newest.read_bytes()[:1000])
    said = do("train", copy)
    assert f"skipping the damaged checkpoint {newest.with_suffix('')}" in said
    assert_same(copy, finished, UNTIL_FINETUNE)


def test_torn_last_lines_are_made_whole(copy: Path, finished: Path):
    """As a kill within an append leaves them: the last evaluation was not written whole."""
    (copy / "labels" / "supernet.json").unlink()
    lines = (copy / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (copy / "journal.jsonl").write_bytes(b"".join(lines[:5]) + lines[5][:-40])
    do("label", copy)
    assert_same_outputs(copy, finished, ("label",))
    assert without_times(copy) == without_times(finished)[:N_LABELS]


def test_damaged_weights_are_noticed_and_made_again(copy: Path, finished: Path):
    damaged = next((copy / "search" / "main" / "finetuned").glob("*.safetensors"))
    damaged.write_bytes(damaged.read_bytes()[:-100])
    assert "altered outputs moved to" in do("finetune/main", copy)
    assert_same(copy, finished, UNTIL_FINETUNE)


def test_a_flipped_bit_in_a_network_is_noticed_while_the_others_are_missing(
    copy: Path, finished: Path
):
    """The ledger has no hashes of an unfinished stage, so the file has one of itself."""
    run = RunDir(copy)
    run.record("finetune/main", replace(run.ledger()["finetune/main"], state="started", outputs={}))
    damaged = next((copy / "search" / "main" / "finetuned").glob("*.safetensors"))
    content = bytearray(damaged.read_bytes())
    content[-10] ^= 1
    damaged.write_bytes(content)
    said = do("finetune/main", copy)
    assert "were changed after hwnas wrote them" in said and "fine-tuned again" in said
    assert_same(copy, finished, UNTIL_FINETUNE)


def test_a_full_disk_is_an_error_that_loses_nothing(copy: Path, finished: Path):
    """The limit on file sizes stands for the disk, in a checkpoint and within a journal line."""
    shutil.rmtree(copy / "checkpoints")
    full = start("train", copy, limit_bytes=20_000)
    assert full.finish() == 1 and "Traceback" not in full.text
    assert "cannot write a file" in full.text and "ulimit" in full.text
    do("train", copy)
    journal = copy / "journal.jsonl"
    size = journal.stat().st_size
    journal.unlink()
    RunDir(copy).journal("filler", {"text": "x" * 50_000})  # longer than the ledger
    filler = journal.stat().st_size
    (copy / "labels" / "supernet.json").unlink()
    full = start("label", copy, limit_bytes=filler + size // 3)
    assert full.finish() == 1 and "Traceback" not in full.text
    assert "cannot append to a file" in full.text and "journal.jsonl" in full.text
    assert filler < journal.stat().st_size <= filler + size // 3
    journal.write_bytes(journal.read_bytes()[filler:])
    do("label", copy)
    assert_same_outputs(copy, finished, UNTIL_FINETUNE)
    assert without_times(copy) == without_times(finished)[:N_LABELS]


# --- other machines, users and spaces -------------------------------------------------------------


def test_on_another_machine_old_tables_serve_but_retiming_asks_for_a_profile(
    copy: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("FAKE_CPU", "Other 2")
    second = ["--set", "search.name=second"]
    searched = Started("search", str(copy), *second, log=copy.parent / "log")
    assert searched.finish() == 0, searched.text
    checked = start("verify/main", copy)
    assert checked.finish() == 1
    assert f"hwnas export {copy}" in checked.text  # its turn comes first
    with open_project(copy, progress_for=lambda stage: silent, command="test") as project:
        monkeypatch.setattr(moving, "host_facts", lambda: {"cpu": "Other 2"})
        with pytest.raises(UserError) as caught:
            moving.require_own_table(project, "local")
    text = str(caught.value)
    assert "another machine" in text and "Fake 1" in text and "Other 2" in text
    assert f"hwnas profile local --run {copy}" in text
    old = (copy / "tables" / "local.json").read_bytes()
    assert "table of another machine (Fake 1) was moved" in do("profile/local", copy)
    (kept,) = (copy / "superseded").rglob("tables/local.json")
    assert kept.read_bytes() == old


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("denied", ["", "checkpoints", ".lock"])
def test_without_permission_the_error_says_where(
    finished: Path, denied: str, monkeypatch: pytest.MonkeyPatch
):
    with tempfile.TemporaryDirectory() as outside:  # pytest's own folders are closed to others
        os.chmod(outside, 0o755)
        run = Path(shutil.copytree(finished, Path(outside) / "run"))
        shutil.copytree(os.environ["HWNAS_DATA"], Path(outside) / "data")
        os.chmod(Path(outside) / "data", 0o755)
        monkeypatch.setenv("HWNAS_DATA", str(Path(outside) / "data"))
        (run / "labels" / "supernet.json").unlink()
        (run / "checkpoints" / "supernet.safetensors").unlink()
        for path in (run, *run.rglob("*")):
            if denied and path.name != denied and denied not in path.parts:
                os.chown(path, NOBODY, NOBODY)
        stopped = Started("train", str(run), log=Path(outside) / "log", uid=NOBODY)
        code, text = stopped.finish(), stopped.text
    assert code == 1 and "Traceback" not in text, text
    assert "cannot" in text and str(run / denied).rstrip("/") in text and "fix:" in text


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_a_closed_folder_is_an_error(finished: Path, tmp_path: Path):
    for folder in (finished, tmp_path):  # pytest's own folders are closed to others
        stopped = Started("status", str(folder), log=tmp_path / "log", uid=NOBODY)
        assert stopped.finish() == 1 and "Traceback" not in stopped.text
        assert "cannot look into the run folder" in stopped.text and str(folder) in stopped.text
        stopped = Started(
            "run", str(CONFIG), "--run", str(tmp_path / "new"), log=tmp_path / "log", uid=NOBODY
        )
        assert stopped.finish() == 1 and "Traceback" not in stopped.text


@pytest.mark.parametrize("change", ["resolutions=[12]", "head.width=48"])
def test_a_folder_of_another_space_is_refused_and_left_alone(copy: Path, change: str):
    before = {p: p.read_bytes() for p in copy.rglob("*") if p.is_file()}
    refused = Started(
        "run", str(CONFIG), "--run", str(copy), "--set", f"space.{change}", log=copy.parent / "log"
    )
    assert refused.finish() == 1
    assert "the run folder has results of another space" in refused.text
    assert "use another run folder" in refused.text
    assert before == {p: p.read_bytes() for p in copy.rglob("*") if p.is_file()}


def test_an_unreachable_constraint_is_answered_with_the_nearest_arch(copy: Path):
    def files() -> dict[Path, bytes]:
        return {p: p.read_bytes() for p in copy.rglob("*") if p.is_file() and p.name != ".lock"}

    before = files()
    limit = ["--set", "search.constraints.0={metric: latency_ms, max: 1.0e-6}"]
    refused = Started("search", str(copy), *limit, log=copy.parent / "log")
    assert refused.finish() == 1
    assert files() == before  # nothing was searched
    assert "no arch of the space meets the constraints" in refused.text
    assert "nearest reachable arch has latency_ms@local" in refused.text
    assert "resolution=8" in refused.text and "allow latency_ms@local up to" in refused.text


def test_an_unreachable_constraint_is_not_trained_for(copy: Path):
    shutil.rmtree(copy / "checkpoints")
    limit = ["--set", "search.constraints.0={metric: latency_ms, max: 1.0e-6}"]
    refused = Started("run", str(CONFIG), "--run", str(copy), *limit, log=copy.parent / "log")
    assert refused.finish() == 1 and "no arch of the space meets" in refused.text
    assert not (copy / "checkpoints").exists()


def test_class_names_and_normalisation_travel_with_all_weights(finished: Path):
    files = [
        finished / "checkpoints" / "supernet.safetensors",
        *(finished / "search" / "main" / "finetuned").glob("*.safetensors"),
    ]
    assert len(files) > 2
    for file in files:
        with safe_open(file, "np") as weights:
            facts = json.loads(weights.metadata()["hwnas"])
        assert facts["data"]["class_names"] == ["ant", "bee", "cat"]
        assert len(facts["data"]["mean"]) == len(facts["data"]["std"]) == 3
        assert ("arch" in facts) == (file.parent.name == "finetuned")
    (state,) = (finished / "checkpoints" / "steps").glob("*8.json")
    assert json.loads(state.read_text())["identity"]["data"]["class_names"] == ["ant", "bee", "cat"]
