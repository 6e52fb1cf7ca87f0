"""`hwnas clean`: it finds what can be made again, removes it on request, and nothing else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import hwnas
from hwnas.builders.onnx import context
from hwnas.core.errors import UserError
from hwnas.core.progress import silent
from hwnas.devices.spec import load_device, load_transport
from hwnas.exporters.own import remember, require_own
from hwnas.latency.plan import Plan, write_plan
from hwnas.latency.sections import ProfileConfig
from tests.boards import Phone, fake_phone
from tests.kill_points import tree
from tests.unit.test_undo import DONE, Folder

MODEL = {"c4": context(8, 4).SerializeToString()}
QUICK = ProfileConfig(rounds=2, min_rounds=1, hot_samples=2, target_error=0.0)


def plan_in(folder: Path, *, seed: int = 0) -> Plan:
    return write_plan(MODEL, load_device("local"), folder, QUICK, seed=seed)


def removable(found: hwnas.Listing) -> dict[str, float]:
    return {str(row["where"]): row["mb"] for row in found if row["mb"]}


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    folder = Folder(tmp_path / "run")
    folder.do()
    return folder


def test_superseded_files_go_but_for_those_that_the_next_undo_brings_back(folder: Folder):
    folder.do(train=2)
    folder.do(train=3)
    old = sorted(path.name for path in (folder.root / "superseded").iterdir())
    before = tree(folder.root)
    found = hwnas.clean(folder.root)
    assert tree(folder.root) == before, "without `yes` nothing changes"
    assert len(removable(found)) == 2 and sum(row["kept"] is not None for row in found) == 2
    gone = hwnas.clean(folder.root, yes=True)
    assert gone.facts["mb"] == found.facts["mb"] > 0
    left = sorted(path.name for path in (folder.root / "superseded").iterdir())
    assert len(old) == 4 and len(left) == 2 and set(left) < set(old)
    assert folder.status() == DONE and removable(hwnas.clean(folder.root)) == {}
    folder.undo()
    assert folder.text("train").startswith("train 2") and folder.status() == DONE


def test_with_undo_all_superseded_files_go_and_the_run_stays_done(folder: Folder):
    folder.do(train=2)
    hwnas.clean(folder.root, with_undo=True, yes=True)
    assert not any((folder.root / "superseded").iterdir())
    assert folder.status() == DONE and folder.do() == []
    folder.undo()  # restores the settings; the stages are made again
    assert folder.do() == ["train", "search/main"]


def test_models_that_were_timed_go_and_samples_stay(folder: Folder):
    plan = plan_in(folder.root / "tables" / "board")
    kits = [plan.results.with_name(f"{stem}-kit.zip") for stem in (plan.results.stem, "results-x")]
    plan.results.write_text("{}\n")
    for kit in kits:
        kit.write_bytes(b"zip" * 1000)
    (folder.root / "tables" / ".x.json.abc.tmp").write_bytes(b"half")
    models = plan.path.parent / "models"
    assert set(removable(hwnas.clean(folder.root))) == {str(models), str(kits[0])}
    outside = plan_in(folder.root.parent / "board.samples")
    assert [row["where"] for row in hwnas.clean(outside.path.parent)] == [
        str(outside.path.parent / "models")
    ]
    hwnas.clean(folder.root, yes=True)
    assert not models.exists() and not kits[0].exists() and kits[1].exists()
    assert plan.results.exists() and folder.status() == DONE
    assert plan_in(plan.path.parent).hash == plan.hash and models.is_dir()


def test_a_folder_in_use_and_one_of_others_are_refused(folder: Folder, tmp_path: Path):
    folder.do(train=2)
    lock = "from hwnas.core.rundir import RunDir; from pathlib import Path; import sys\n"
    lock += "with RunDir(Path(sys.argv[1])).locked('x'): print(flush=True), sys.stdin.read()"
    command = [sys.executable, "-c", lock, str(folder.root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(UserError, match="another process is working"):
            hwnas.clean(folder.root, with_undo=True, yes=True)
        assert hwnas.clean(folder.root, with_undo=True).facts["mb"] > 0
        holder.communicate(b"")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"photo")
    for place in (tmp_path / "photos", tmp_path / "none"):
        with pytest.raises(UserError, match="neither a run folder nor"):
            hwnas.clean(place, yes=True)
    assert (tmp_path / "photos" / "a.jpg").exists()
    os.symlink(tmp_path / "photos", folder.root / "superseded" / "train-link")
    with pytest.raises(UserError, match="links are not followed"):
        hwnas.clean(folder.root, with_undo=True, yes=True)


def test_caches_go_but_what_says_which_programs_are_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HWNAS_CACHE", str(tmp_path))
    for name in ("decoded/a.npy", "hashes/b.json", "photos/mine.jpg"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"x" * 1000)
    remember(b"program")
    assert removable(hwnas.clean()) == {
        str(tmp_path / "decoded"): 0.001,
        str(tmp_path / "hashes"): 0.001,
    }
    hwnas.clean(yes=True)
    assert {path.name for path in tmp_path.iterdir()} == {"photos", "exported"}
    require_own(b"program", Path("a.pt2"))


@pytest.fixture
def phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Phone:
    return fake_phone(tmp_path / "adb", monkeypatch)


def test_kits_on_a_board_go_and_samples_that_are_only_there_stay(
    folder: Folder, phone: Phone, tmp_path: Path
):
    board = tmp_path / "board.yaml"
    board.write_text(json.dumps({"schema_version": 1, "transport": phone.settings}))
    transport, there = load_transport(str(board)), phone.folder / "hwnas-kit"
    assert hwnas.clean(device=[str(board)]).rows == []
    known = plan_in(folder.root / "tables" / "board")
    other = plan_in(tmp_path / "elsewhere", seed=1)
    for plan in (known, other):
        transport.run_bench(plan.path, plan.results, progress=silent)
    transport.try_out(known.path)  # type: ignore[attr-defined]
    (there / "mine").mkdir()
    (there / "mine" / "notes.txt").write_text("not hwnas's")
    found = hwnas.clean(folder.root, device=[str(board)])
    on_board = [row for row in found if "adb" in row["where"]]
    assert [row["where"].rpartition("/")[2] for row in on_board] == [
        *sorted([known.results.stem, other.results.stem]),
        "try",
    ]
    (kept,) = [row for row in on_board if row["kept"]]
    assert other.results.stem in kept["where"] and all(row["mb"] > 0 for row in on_board)
    hwnas.clean(folder.root, device=[str(board)], yes=True)
    left = {str(path.relative_to(there)) for path in there.rglob("*") if path.is_file()}
    assert left == {f"{other.results.stem}/results.jsonl", "mine/notes.txt"}
    (row,) = hwnas.clean(device=[str(board)])
    assert row["mb"] == 0 and row["kept"], "nothing but samples is left"
    before = other.results.read_bytes()
    plan_in(known.path.parent)
    for plan in (known, other):  # what was removed travels again, and nothing is timed twice
        transport.run_bench(plan.path, plan.results, progress=silent)
    assert other.results.read_bytes() == before


def test_samples_set_aside_on_a_board_are_named_before_they_go(
    phone: Phone, tmp_path: Path
) -> None:
    board = tmp_path / "board.yaml"
    board.write_text(json.dumps({"schema_version": 1, "transport": phone.settings}))
    transport = load_transport(str(board))
    plans = [plan_in(tmp_path / name) for name in ("first", "second")]
    for plan in plans:  # of one plan, so the samples of the first are set aside
        transport.run_bench(plan.path, plan.results, progress=silent)
    (row,) = hwnas.clean(device=[str(board)])
    assert row["what"].endswith(", 1 file of samples set aside for other folders")
    hwnas.clean(device=[str(board)], yes=True)
    (row,) = hwnas.clean(device=[str(board)])
    assert "set aside" not in row["what"] and row["kept"]


def test_a_kit_that_runs_stays(phone: Phone, tmp_path: Path):
    board = tmp_path / "board.yaml"
    board.write_text(json.dumps({"schema_version": 1, "transport": phone.settings}))
    name = f"results-{'a' * 16}"
    there = phone.folder / "hwnas-kit" / name
    there.mkdir(parents=True)
    (there / "bench.py").write_text("import time; print(flush=True); time.sleep(60)")
    running = subprocess.Popen([sys.executable, "bench.py"], cwd=there, stdout=subprocess.PIPE)
    assert running.stdout is not None
    running.stdout.readline()
    (there / "pid").write_text(str(running.pid))
    (row,) = hwnas.clean(device=[str(board)], yes=True)
    assert row["kept"] == "its kit is running" and (there / "bench.py").exists()
    running.send_signal(signal.SIGKILL)
    running.wait()
    time.sleep(0.05)
    hwnas.clean(device=[str(board)], yes=True)
    assert not there.exists()


def test_rounds_of_a_run_are_looked_into(folder: Folder):
    (folder.root / "rounds").mkdir()
    inner = Folder(folder.root / "rounds" / "1")
    inner.do()
    inner.do(train=2)
    hwnas.clean(folder.root, with_undo=True, yes=True)
    assert not any((inner.root / "superseded").iterdir()) and inner.status() == DONE


@pytest.mark.parametrize(
    "text", ["{}", "[]", "x", '{"items": []}', '{"items": [{"id": "a", "file": "models/a.bin"}]}']
)
def test_models_beside_the_plan_of_another_program_are_not_removed(
    text: str, tmp_path: Path
) -> None:
    """A project with plan.json and models/ lost its models."""
    (tmp_path / "plan.json").write_text(text)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "mine.bin").write_bytes(bytes(1000))
    before = tree(tmp_path)
    with pytest.raises(
        UserError, match=r"nor a folder of timings(.|\n)*`hwnas profile` did not make"
    ):
        hwnas.clean(tmp_path, yes=True)
    assert tree(tmp_path) == before
    plan_in(tmp_path)
    assert str(tmp_path / "models") in removable(hwnas.clean(tmp_path))
