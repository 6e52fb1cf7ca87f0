"""A run folder stands alone: it can be looked at without anything that it was made from."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from typer.testing import CliRunner

import hwnas
from hwnas.cli.main import app
from hwnas.core.errors import UserError
from hwnas.core.progress import silent
from hwnas.core.store import sealed, unsealed, write_json
from hwnas.pipeline.opening import open_project
from hwnas.training.checkpoint import weights_bytes
from tests.photos import class_folders

CONFIG = Path(__file__).parent / "photos.yaml"
BOARD = "schema_version: 1\nruntime: onnxruntime\nprovider: CPUExecutionProvider\nthreads: 1\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos, a device, weights to start from, and the finished run of them."""
    home = tmp_path_factory.mktemp("made")
    class_folders(home / "photos/train", ["ant", "bee"], 30, px=16)
    class_folders(home / "photos/test", ["ant", "bee"], 6, first=50, px=16)
    (home / "boards").mkdir()
    (home / "boards/mine.yaml").write_text(BOARD)
    config = CONFIG.read_text().replace("base_px: 16", "base_px: 16, normalise: imagenet")
    (home / "ours.yaml").write_text(config)
    before = Path.cwd()
    os.chdir(home)
    try:
        with open_project(
            Path("run"),
            config="ours.yaml",
            progress_for=lambda s: silent,
            command="test",
            read_only=True,
        ) as project:
            start = weights_bytes(project.new_supernet(), project.metadata())
        Path("start.safetensors").write_bytes(start)
        settings: dict[str, Any] = {
            "devices": ["boards/mine.yaml"],
            "supernet.init": "start.safetensors",
        }
        settings |= {"label.n_archs": 16, "verify.max_forecast_error": 1.0}
        with pytest.MonkeyPatch.context() as patch:  # a busy machine leaves no stage open
            patch.setattr("hwnas.pipeline.device_checks.verdict", lambda *a, **k: True)
            hwnas.run("ours.yaml", folder="run", settings=settings, report_only=True)
    finally:
        os.chdir(before)
    return home


@pytest.fixture
def home(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Path:
    """A copy of all of it, made before the original is hidden; the test stands elsewhere."""
    monkeypatch.delenv("HWNAS_DATA", raising=False)
    home = tmp_path / "home"
    shutil.copytree(made, home)
    for name in ("outside/files.json", "data.json"):
        file = home / "run" / name
        text = json.dumps(unsealed(json.loads(file.read_text())))
        write_json(file, sealed(json.loads(text.replace(str(made), str(home)))))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    caplog.set_level(logging.WARNING)
    return home


@pytest.fixture
def alone(home: Path, tmp_path: Path) -> Iterator[Path]:
    """The run folder, renamed, write-protected, and nothing else of what it was made from."""
    alone = tmp_path / "another machine" / "renamed"
    alone.parent.mkdir()
    (home / "run").rename(alone)
    shutil.rmtree(home)
    folders = [alone, *(path for path in alone.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    yield alone
    for folder in folders:
        folder.chmod(0o755)


def content(folder: Path) -> dict[str, tuple[str, int]]:
    """Hash and time of change of every file, by name."""
    return {
        str(path.relative_to(folder)): (
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "",
            path.stat().st_mtime_ns,
        )
        for path in folder.rglob("*")
        if path.name != ".lock"
    }


def statuses(run: Path, **settings: Any) -> dict[str, str]:
    """By stage, but for `verify`, which a busy machine leaves open."""
    rows = hwnas.status(run, settings=settings or None).to_dict()["table"]
    return {r["stage"]: r["status"] for r in rows if not r["stage"].startswith("verify")}


def notes(run: Path, **settings: Any) -> list[str]:
    found: list[str] = hwnas.status(run, settings=settings or None).to_dict()["notes"]
    return found


VERBS: dict[str, Callable[[Path], list[str]]] = {
    "status": lambda run: ["status", str(run)],
    "report": lambda run: ["report", str(run), "--out", "report.html"],
    "predict": lambda run: ["predictor", "predict", str(run), "largest"],
    "eval": lambda run: (
        ["predictor", "eval", str(run), "--train-size", "4", "--seeds", "1"]
        + ["--predictor", "ridge", "--no-baselines"]
    ),
    "export-lut": lambda run: (
        ["predictor", "export-lut", str(run), "--out", "lut.safetensors"]
        + ["--base", "largest", "--free", "stage1.*"]
    ),
    "verify bundle": lambda run: ["verify", str(run / "bundles/main/mine"), "--no-latency"],
    "table show": lambda run: ["table", "show", str(run / "tables/mine.json")],
    "table list": lambda run: ["table", "list", "--run", str(run)],
    "run --dry-run": lambda run: ["run", "--dry-run", str(run / "config.yaml"), "--run", str(run)],
}


@pytest.mark.parametrize("verb", VERBS)
def test_verbs_that_look_at_a_run_need_nothing_else(verb: str, alone: Path) -> None:
    before = content(alone)
    done = CliRunner().invoke(app, VERBS[verb](alone))
    assert done.exit_code == 0, done.exception
    assert done.stdout
    assert content(alone) == before


@pytest.mark.parametrize(
    "verb", ["status", "report", "predict", "eval", "export-lut", "verify bundle"]
)
def test_verbs_that_look_at_a_run_do_not_refuse_it_because_of_its_data(
    verb: str, home: Path
) -> None:
    (home / "photos/train/dog").mkdir()
    done = CliRunner().invoke(app, VERBS[verb](home / "run"))
    assert done.exit_code == 0, done.exception
    if verb in ("status", "verify bundle"):
        found = hwnas.verify(home / "run/bundles/main/mine", latency=False).notes
        said = [*found] if verb == "verify bundle" else notes(home / "run")
        reason = "the data cannot be read: some class folders have no images: dog"
        assert any(note.startswith(reason) for note in said)


def test_a_search_to_finetune_has_to_exist(home: Path) -> None:
    verb = ["finetune", str(home / "run"), "--search", "nope"]
    for options in ([], ["--dry-run"]):
        refused = CliRunner().invoke(app, verb + options).exception
        assert isinstance(refused, UserError)
        assert "has no search" in str(refused) and "one of main" in str(refused)


def test_a_run_is_opened_as_it_was(alone: Path) -> None:
    before = content(alone)
    run = hwnas.open_run(alone)
    assert run.project.devices["mine"].threads == 1
    assert run.space.macro.num_classes == 2
    assert run.winner.arch and run.networks and run.table()
    assert {row["status"] for row in run.status()[:-1]} == {"done"}
    assert run.network("winner") and str(run).startswith(str(alone))
    assert content(alone) == before


def test_a_report_of_a_folder_that_cannot_be_written_goes_to_the_working_directory(
    alone: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # as root, nothing is protected
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    path = hwnas.report(alone)
    assert path == Path.cwd() / "renamed-report.html" and path.is_file()
    assert "cannot be written" in caplog.text


def test_relative_paths_keep_their_meaning_from_elsewhere(
    home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where files of the same name lie in the folder of the command."""
    run = home / "run"
    Path("boards").mkdir()
    Path("boards/mine.yaml").write_text(BOARD + "batch: 8\n")
    Path("start.safetensors").write_bytes(b"another")
    assert set(statuses(run).values()) == {"done"} and not notes(run)
    before = content(run)
    hwnas.label(run)
    assert content(run) == before and not caplog.text
    named = {"devices": ["boards/mine.yaml"]}  # named by this command: of this folder
    assert statuses(run, **named)["profile/mine"] == "stale"
    assert "batch from 1 to 8" in notes(run, **named)[0]


def test_a_device_that_changed_is_told_and_stale_for_verbs_that_write(home: Path) -> None:
    run = home / "run"
    (home / "boards/mine.yaml").write_text("# only a remark\n" + BOARD)
    assert statuses(run)["profile/mine"] == "done" and not notes(run)
    (home / "boards/mine.yaml").write_text(BOARD.replace("threads: 1", "threads: 2"))
    assert statuses(run)["profile/mine"] == "stale"
    (note,) = notes(run)
    assert "threads from 1 to 2" in note and str(home / "boards/mine.yaml") in note
    assert hwnas.open_run(run).project.devices["mine"].threads == 1, "as it was measured"
    (home / "boards/mine.yaml").write_text("threads: [")
    assert statuses(run)["profile/mine"] == "done" and "so the former is used" in notes(run)[0]
    with pytest.raises(UserError, match="YAML"):
        hwnas.label(run)


def test_a_device_that_is_gone_is_told_once_and_the_copy_is_used(
    home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = home / "run"
    (home / "boards").rename(home / "devices")
    hwnas.label(run)
    assert caplog.text.count("device mine: the file boards/mine.yaml does not exist") == 1
    assert "--set 'devices=[PATH]'" in caplog.text
    assert set(statuses(run).values()) == {"done"} and len(notes(run)) == 1
    moved = {"devices": [str(home / "devices/mine.yaml")]}
    assert statuses(run, **moved) == statuses(run)
    hwnas.label(run, settings=moved)
    assert set(statuses(run).values()) == {"done"} and not notes(run)


def test_weights_that_are_gone_are_missed_when_they_are_needed(home: Path) -> None:
    run = home / "run"
    (home / "start.safetensors").unlink()
    assert set(statuses(run).values()) == {"done"}
    hwnas.label(run)
    assert statuses(run, **{"train.steps": 3})["train"] == "stale"
    with pytest.raises(UserError, match="needs a file that does not exist") as error:
        hwnas.train(run, settings={"train.steps": 3})
    assert error.value.where == "supernet.init"
    assert error.value.expected == f"the file {home / 'start.safetensors'}"


def test_other_weights_at_the_same_place_are_noticed(home: Path) -> None:
    (home / "start.safetensors").write_bytes(b"others")
    assert statuses(home / "run")["train"] == "stale"


def test_a_run_without_copies_works_as_before(
    home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of earlier versions: paths count from the working directory; the next command keeps them."""
    run = home / "run"
    shutil.rmtree(run / "outside")
    monkeypatch.chdir(home)
    assert set(statuses(run).values()) == {"done"}
    hwnas.label(run)
    monkeypatch.chdir(tmp_path)
    (home / "boards").rename(home / "moved")
    assert set(statuses(run).values()) == {"done"}


def test_bundles_normalise_as_training_did(made: Path) -> None:
    (path,) = (made / "run/bundles").rglob("manifest.json")
    manifest = json.loads(path.read_text())
    assert manifest["input"]["mean"] == list(IMAGENET_DEFAULT_MEAN)
    assert manifest["input"]["std"] == list(IMAGENET_DEFAULT_STD)
    model = onnx.load(path.parent / manifest["models"][0]["path"])
    facts = {prop.key: json.loads(prop.value) for prop in model.metadata_props if "{" in prop.value}
    assert facts["preprocessing"] == manifest["input"]
    assert facts["hwnas"]["data"]["mean"] == list(IMAGENET_DEFAULT_MEAN)
    x = np.load(path.parent / "golden/input.npy").transpose(0, 2, 3, 1)
    levels = 255 * (x * np.array(IMAGENET_DEFAULT_STD) + np.array(IMAGENET_DEFAULT_MEAN))
    assert np.abs(levels - levels.round()).max() < 1e-3  # the photos' own pixels, all of them
