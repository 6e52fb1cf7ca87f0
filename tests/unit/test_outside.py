"""Files outside the run folder: where they are looked for, and what the run keeps of them."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import hwnas
from hwnas.core.errors import UserError
from hwnas.core.progress import silent
from hwnas.core.records import dump
from hwnas.core.store import file_hash, read_json, write_json
from hwnas.interfaces import Evaluation
from hwnas.pipeline import scoring
from hwnas.pipeline.engine import execute
from hwnas.pipeline.graph import stages_of
from hwnas.pipeline.opening import open_project
from hwnas.pipeline.project import Project
from hwnas.pipeline.stages import train
from hwnas.predictors.open_records import open_records
from hwnas.spaces.space import SearchSpace

MINI = Path(__file__).resolve().parents[1] / "integration" / "mini.yaml"
SETTINGS = {
    "supernet.init": "start.safetensors",
    "train.teacher": {"model": "resnet18", "weights": "teacher.npz"},
    "search.evaluator.records": "records.json",
}
FILES = {
    "supernet.init": "start.safetensors",
    "train.teacher.weights": "teacher.npz",
    "search.evaluator.records": "records.json",
}
DEVICE = "schema_version: 1\n"
OPEN_RECORDS = "hwnas.pipeline.project.open_records"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with files that a run in it names by relative paths; the test stands elsewhere."""
    home = tmp_path / "home"
    (home / "boards").mkdir(parents=True)
    (home / "boards/a.yaml").write_text(DEVICE)
    for name in FILES.values():
        (home / name).write_text(f"content of {name}")
    monkeypatch.chdir(home)
    changes = SETTINGS | {"devices": ["boards/a.yaml", "local"]}
    with project(home / "run", config=str(MINI), changes=changes, read_only=False) as p:
        execute(stages_of(p), p.run, only=())
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return home


def test_an_altered_copy_of_a_device_is_told_as_that(home: Path) -> None:
    copy = home / "run/outside/devices/a.yaml"
    assert copy not in [Path(row["file"]) for row in hwnas.check(home / "run")]
    copy.write_text(DEVICE + "threads: 3\n")
    with project(home / "run") as p:
        (note,) = p.outside.notes
        assert f"the run's copy {copy} was changed" in note and "stale" not in note
    for alter in (lambda: None, copy.unlink):
        alter()
        assert copy in [Path(row["file"]) for row in hwnas.check(home / "run")]
    (home / "boards/a.yaml").write_text(DEVICE + "threads: 2\n")
    with project(home / "run", read_only=False) as p:
        execute(stages_of(p), p.run, only=())
    assert copy not in [Path(row["file"]) for row in hwnas.check(home / "run")]
    (home / "boards/a.yaml").write_text(DEVICE)
    with project(home / "run") as p:
        assert "boards/a.yaml changed since the run last used it" in p.outside.notes[0]


def test_keys_of_a_board_lie_beside_its_file_also_for_the_copy(home: Path) -> None:
    transport = '{"name": "ssh", "host": "pi", "identity": "keys/id", "known_hosts": "~/hosts"}'
    (home / "boards/pi.yaml").write_text(f"{DEVICE}transport: {transport}\n")
    changes = {"devices": [str(home / "boards/pi.yaml")], "search.constraints": []}
    with project(home / "run", changes=changes, read_only=False) as p:
        execute(stages_of(p), p.run, only=())
    for is_gone in (False, True):
        if is_gone:
            (home / "boards/pi.yaml").unlink()
        with project(home / "run") as p:
            settings = p.transport("pi").reach.config  # type: ignore[attr-defined]
            assert settings.identity == str(home / "boards/keys/id")
            assert settings.known_hosts == str(Path.home() / "hosts")
            assert len(p.outside.notes) == is_gone, "a key elsewhere is no other device"


@contextmanager
def project(run: Path, *, read_only: bool = True, **options: Any) -> Iterator[Project]:
    with open_project(
        run, progress_for=lambda s: silent, command="test", read_only=read_only, **options
    ) as found:
        yield found


def settings_of(p: Project) -> dict[str, Any]:
    return {stage.name: stage.settings for stage in stages_of(p)}


def test_what_is_kept(home: Path) -> None:
    kept = read_json(home / "run/outside/files.json")["files"]
    files = {file.pop("setting"): file for file in kept}
    for setting, name in FILES.items():
        digest = file_hash(home / name)
        assert files[setting] == {"given": name, "path": str(home / name), "sha256": digest}
    assert files["devices/a"]["path"] == str(home / "boards/a.yaml")
    assert (home / "run/outside/devices/a.yaml").read_text() == DEVICE
    assert "devices/local" not in files, "ships with hwnas"
    assert (home / "run/outside/devices/local.yaml").is_file()


def test_files_are_found_from_elsewhere_by_all_that_read_them(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with project(home / "run") as p:
        by_name = {stage.name: stage for stage in stages_of(p)}
        reads = {**by_name["train"].reads, **by_name["search/main"].reads}
        assert reads == {setting: home / name for setting, name in FILES.items()}
        teacher = train._train_settings(p).teacher
        assert teacher is not None and teacher.weights == home / "teacher.npz"
        asked = []
        monkeypatch.setattr(OPEN_RECORDS, lambda path, **_: asked.append(path))
        with pytest.raises(AttributeError):
            scoring.scoring(p)
        assert asked == [home / "records.json"]


@pytest.mark.parametrize("name", FILES.values())
def test_settings_of_stages_stay_when_a_file_is_gone_and_change_with_its_content(
    name: str, home: Path
) -> None:
    with project(home / "run") as p:
        before = settings_of(p)
    content = (home / name).read_text()
    (home / name).unlink()
    with project(home / "run") as p:
        assert settings_of(p) == before
    (home / name).write_text("another")
    with project(home / "run") as p:
        assert settings_of(p) != before
    (home / name).write_text(content)
    with project(home / "run") as p:
        assert settings_of(p) == before


def test_a_file_of_this_name_here_counts_only_if_this_command_names_it(home: Path) -> None:
    here = Path("start.safetensors")
    here.write_text("another")
    run, init = home / "run", "supernet.init"
    with project(run) as p:
        assert p.outside.path(init) == home / here
    with project(run, changes={"train.steps": 3}) as p:
        assert p.outside.path(init) == home / here
    for changes in ({init: str(here)}, {"supernet": {"init": str(here)}}):
        with project(run, changes=changes) as p:
            assert p.outside.path(init) == here.absolute()
    here.unlink()
    with project(run, changes={init: str(here)}) as p:
        assert p.outside.path(init) == home / here, "where else"


def test_another_name_is_another_file(home: Path) -> None:
    with project(home / "run", changes={"supernet.init": "other.safetensors"}) as p:
        assert p.outside.sha256("supernet.init") is None
        assert p.outside.path("supernet.init") == Path("other.safetensors").absolute()
    with project(home / "run", changes={"supernet.init": None}) as p:
        assert p.outside.sha256("supernet.init") is None
        assert p.outside.paths("supernet.init") == {}


def test_a_run_that_moved_with_its_files_finds_them(home: Path) -> None:
    moved = home.with_name("moved")
    home.rename(moved)
    with project(moved / "run") as p:
        assert p.outside.path("supernet.init") == moved / "start.safetensors"
        assert p.outside.devices[0] == moved / "boards/a.yaml" and not p.outside.notes


@pytest.mark.parametrize("as_recorded", [False, True])
def test_a_shipped_device_of_another_version_is_kept(
    as_recorded: bool, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = home / "run/outside/devices/local.yaml"
    with project(home / "run", as_recorded=as_recorded) as p:
        shipped = p.devices["local"]
    copy.rename(copy.with_name("vanished.yaml"))
    config = home / "run/config.yaml"
    config.write_text(config.read_text().replace("- local", "- vanished"))
    with project(home / "run", as_recorded=as_recorded) as p:
        assert p.devices["vanished"].runtime == shipped.runtime
        assert p.transport("vanished")
        assert as_recorded or "the file vanished does not exist" in p.outside.notes[0]
    shutil.rmtree(home / "run/outside/devices")
    with (
        project(home / "run", as_recorded=as_recorded) as p,
        pytest.raises(UserError, match="no device 'vanished'"),
    ):
        _ = p.devices


def test_names_of_devices_lead_nowhere(home: Path) -> None:
    config = home / "run/config.yaml"
    config.write_text(config.read_text().replace("- local", "- ../../boards/a"))
    with project(home / "run") as p, pytest.raises(UserError, match="no device"):
        _ = p.devices


def test_a_second_training_round_finds_files_as_its_run_does(home: Path) -> None:
    """Not those of the same name where the command runs, and also when all moved together."""
    run = home / "run"
    Path("boards").mkdir()
    for name in ("start.safetensors", "boards/a.yaml"):
        Path(name).write_text("another")
    (home / "boards/a.yaml").write_text(f"{DEVICE}batch: 2\n")
    with project(run) as p:
        file, folder = p.files.training_round("pruned")
        file.parent.mkdir()
        shutil.copyfile(run / "config.yaml", file)
    with project(folder, config=str(file), read_only=False) as p:
        assert {setting: p.outside.path(setting) for setting in FILES} == {
            setting: home / name for setting, name in FILES.items()
        }
        assert p.devices["a"].batch == 2
        execute(stages_of(p), p.run, only=())
    shutil.rmtree("boards")
    Path("start.safetensors").unlink()
    shutil.rmtree(home / "boards")
    for round_folder in (folder, home.with_name("moved") / "run/rounds/pruned"):
        if not round_folder.exists():
            home.rename(home.with_name("moved"))
        with project(round_folder) as p:
            assert p.devices["a"].batch == 2
            start = round_folder.parents[2] / "start.safetensors"
            assert p.outside.path("supernet.init") == start


def test_a_new_round_takes_the_runs_copy_of_a_device_that_is_gone(home: Path) -> None:
    shutil.rmtree(home / "boards")
    with project(home / "run") as p:
        file, folder = p.files.training_round("pruned")
        file.parent.mkdir()
        shutil.copyfile(home / "run/config.yaml", file)
    with project(folder, config=str(file), read_only=False) as p:
        assert p.devices["a"].batch == 1 and p.outside.device_folders[0] == home / "boards"
        execute(stages_of(p), p.run, only=())
    with project(folder) as p:
        assert p.outside.device_folders[0] == home / "boards"


def recorded(space: SearchSpace, top1s: Iterable[float]) -> dict[str, Any]:
    """A file of labels, of random archs."""
    codes = space.sample(40, seed=0)
    rows = [
        Evaluation(space.arch(row), top1, "trained", "test", 100, 0)
        for row, top1 in zip(codes, top1s)
    ]
    return {"schema_version": 1, "labels": [dump(row, versioned=False) for row in rows]}


@pytest.mark.parametrize("changes", [False, True])
def test_records_are_read_once_by_check_and_stage_and_are_the_ones_that_were_hashed(
    changes: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, asked = tmp_path / "records.json", []
    settings = {"label": {"records": str(path), "n_archs": 20}}
    with project(tmp_path / "run", config=str(MINI), changes=settings, read_only=False) as p:
        write_json(path, recorded(p.space, (0.5 + i / 100 for i in range(30))))

        def read(given: Path, **rest: Any) -> Any:
            asked.append(given)
            found = open_records(given, **rest)
            if changes:
                write_json(path, recorded(p.space, (0.4 + i / 100 for i in range(30))))
            return found

        monkeypatch.setattr(OPEN_RECORDS, read)
        if changes:
            with pytest.raises(UserError, match="changed while the command was running"):
                execute(stages_of(p), p.run, only=["label"])
            assert not p.run.ledger()
        else:
            execute(stages_of(p), p.run, only=["label"])
            assert len(p.files.read_labels()) == 20
        assert asked == [path]


def test_splits_that_changed_while_a_command_runs_are_named(tmp_path: Path) -> None:
    with project(tmp_path / "run", config=str(MINI), read_only=False) as p:
        files = {**p.source._identity.files}
        part = p.source._identity.parts["val"]
        before = replace(p.source._identity, files=files | {part: {"other.npz": "0"}})
        p.source.__dict__["_identity"] = before
        with pytest.raises(UserError, match="changed while the command was running") as caught:
            p.source.remember()
    same = [split for split, of in before.parts.items() if of == part]
    assert caught.value.found == f"other images in {', '.join(same)}"
    assert caught.value.expected == "the images that were there when the command started"
