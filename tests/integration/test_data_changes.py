"""The data are part of every result: changes are reported, and old and new data are never mixed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from safetensors import safe_open

import hwnas
from hwnas.core.errors import DataAbsent, UserError
from hwnas.core.progress import Progress, silent
from hwnas.core.store import unsealed
from hwnas.pipeline.engine import execute
from hwnas.pipeline.evaluators import evaluator
from hwnas.pipeline.graph import stages_of
from hwnas.pipeline.opening import open_project
from hwnas.pipeline.plan import plan_stages
from hwnas.pipeline.project import Project
from hwnas.studies.pruned_training import Comparison, train_rounds
from hwnas.training.checkpoint import weights_bytes
from tests.photos import class_folders, photo

CONFIG = Path(__file__).parent / "photos.yaml"
STAGES = ("train", "label")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `photos` (its test images in a folder of their own) and the run `run`."""
    home = tmp_path_factory.mktemp("home")
    class_folders(home / "photos/train", ["ant", "bee"], 30, px=16)
    class_folders(home / "photos/test", ["ant", "bee"], 6, first=50, px=16)
    with _in(home):
        hwnas.train("run", config=str(CONFIG))
        hwnas.label("run")
    return home


@pytest.fixture
def home(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, where the test stands."""
    shutil.copytree(trained, tmp_path / "home")
    monkeypatch.chdir(tmp_path / "home")
    monkeypatch.delenv("HWNAS_DATA", raising=False)
    record = unsealed(json.loads(Path("run/data.json").read_text()))
    record["seen"][0]["folder"] = str(tmp_path / "home/photos")
    Path("run/data.json").write_text(json.dumps(record))
    return tmp_path / "home"


@contextmanager
def _in(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@contextmanager
def project(**more: object) -> Iterator[Project]:
    with open_project(
        Path("run"), progress_for=lambda s: silent, command="test", read_only=True, **more
    ) as found:  # type: ignore[arg-type]
        yield found


def statuses(**changes: object) -> dict[str, str]:
    """Of the stages that the fixture ran."""
    with project(changes={key.replace("__", "."): v for key, v in changes.items()}) as p:
        plans = {plan.stage.name: plan.status for plan in plan_stages(stages_of(p), p.run)}
    return {name: plans[name] for name in STAGES}


DONE, STALE = dict.fromkeys(STAGES, "done"), dict.fromkeys(STAGES, "stale")


def notes(run: str | Path = "run") -> list[str]:
    found: list[str] = hwnas.status(run).to_dict()["notes"]
    return found


def test_what_is_read_is_remembered_everywhere(home: Path):
    assert statuses() == DONE and notes() == []
    ledger = json.loads(Path("run/stages.json").read_text())["stages"]
    assert ledger["train"]["data"] == ledger["label"]["data"] != ""
    with project() as p:
        digests, whole = p.source.info.digests, p.source.digest
    assert json.loads(Path("run/labels/supernet.json").read_text())["data"] == whole
    with safe_open("run/checkpoints/supernet.safetensors", framework="numpy") as weights:
        facts = json.loads(weights.metadata()["hwnas"])
    assert facts["data"]["digests"] == digests
    (checkpoint, *_) = sorted(Path("run/checkpoints/steps").glob("*.json"))
    assert json.loads(checkpoint.read_text())["identity"]["data"]["digests"] == digests


def add() -> None:
    class_folders(Path("photos/train"), ["ant", "bee"], 32, px=16)


def delete() -> None:
    Path("photos/train/bee/004.png").unlink()


def move() -> None:
    os.rename("photos/train/ant/001.png", "photos/train/bee/xyz.png")


def rename() -> None:
    for split in ("train", "test"):
        os.rename(f"photos/{split}/ant", f"photos/{split}/wasp")


def replace() -> None:
    """Equal size and times, looked at just before: only content and change time tell."""
    file = Path("photos/train/ant/001.png")
    before, content = file.stat(), bytearray(file.read_bytes())
    hwnas.status("run")
    content[-1] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size


CHANGES: dict[str, Callable[[], None]] = {
    "4 files added (first: train/ant/030.png)": add,
    "1 file removed (first: train/bee/004.png)": delete,
    "1 file moved from class 'ant' to 'bee'": move,
    "class 'ant' is now 'wasp'": rename,
    "1 file changed (first: train/ant/001.png)": replace,
}


@pytest.mark.parametrize("text", CHANGES)
def test_a_change_makes_finished_stages_stale_and_is_told(home: Path, text: str):
    shutil.copytree("photos", "before")
    CHANGES[text]()
    assert statuses() == STALE
    assert notes() == [f"the data changed since `train`, `label`: {text}"]
    with pytest.raises(UserError) as caught:
        hwnas.label("run")
    assert "train (stale)" in str(caught.value) and text in str(caught.value)
    assert not Path("run/superseded").exists()
    shutil.rmtree("photos")
    os.rename("before", "photos")
    assert statuses() == DONE and notes() == []


def test_training_again_keeps_the_old_results_and_remembers_both(home: Path, caplog):
    old = Path("run/checkpoints/supernet.safetensors").read_bytes()
    add()
    with caplog.at_level("WARNING"):
        hwnas.train("run")
    assert "the data changed since `train`, `label`: 4 files added" in caplog.text
    (kept,) = Path("run/superseded").rglob("supernet.safetensors")
    assert kept.read_bytes() == old
    assert statuses() == {"train": "done", "label": "stale"}
    assert len(json.loads(Path("run/data.json").read_text())["seen"]) == 2
    delete()
    assert notes() == [
        "the data changed since `train`: 1 file removed (first: train/bee/004.png)",
        "the data changed since `label`: 4 files added (first: train/ant/030.png);"
        " 1 file removed (first: train/bee/004.png)",
    ]


def nothing_runs(stage: str) -> Progress:
    raise AssertionError(f"{stage} runs")


def test_photos_that_are_put_back_bring_their_results_back(home: Path):
    with project() as p:
        first = p.source.info.digests
    kept = Path("photos/train/bee/004.png").read_bytes()
    delete()
    hwnas.train("run")
    with project(as_recorded=True) as p:
        assert p.source.info.digests != first
    Path("photos/train/bee/004.png").write_bytes(kept)
    assert statuses() == {"train": "returns", "label": "done"}
    hwnas.train("run", progress=nothing_runs)
    assert statuses() == DONE and notes() == []
    with project(as_recorded=True) as p:  # the run knows which data its results are of
        assert p.source.info.digests == first
        assert p.data.info.n_images == p.source.info.n_images


def test_undo_of_another_folder_of_photos_restores_what_the_run_knows(home: Path):
    class_folders(home / "other/train", ["ant", "bee", "cat"], 30, px=16)
    class_folders(home / "other/test", ["ant", "bee", "cat"], 6, first=50, px=16)
    hwnas.train("run", settings={"data.root": "other"})
    with project(as_recorded=True) as p:
        assert p.space.macro.num_classes == 3
    hwnas.undo("run")
    with project(as_recorded=True) as p:
        assert p.space.macro.num_classes == 2
    assert statuses() == DONE and notes() == []
    hwnas.train("run", settings={"data.root": "other"}, progress=nothing_runs)
    assert statuses() == {"train": "done", "label": "stale"}


def test_an_interrupted_training_never_goes_on_with_other_data(home: Path):
    ledger = json.loads(Path("run/stages.json").read_text())
    del ledger["check"]
    ledger["stages"]["train"] |= {"state": "started", "outputs": {}}
    Path("run/stages.json").write_text(json.dumps(ledger))
    assert statuses()["train"] == "continues"
    add()
    assert statuses()["train"] == "stale"
    with project() as p:  # the checkpoint itself refuses as well
        from hwnas.pipeline.stages.train import train

        with pytest.raises(UserError, match=r"data\.digests\.train"):
            train(p, silent)
    hwnas.train("run")
    assert list(Path("run/superseded").rglob("step-*.safetensors"))
    assert statuses()["train"] == "done"


def test_test_images_concern_only_what_looks_at_them(home: Path):
    photo(0, 99, 16).save("photos/test/ant/new.png")
    assert statuses() == DONE and notes() == []
    with project() as p:
        stages = {stage.name: stage for stage in stages_of(p)}
        before = json.loads(Path("run/stages.json").read_text())["stages"]["train"]["data"]
        verify = stages["verify/main"].data
        assert verify is not None and verify().digest != before


def test_evaluations_of_other_images_are_not_taken_from_the_journal(home: Path):
    """Weights may be the same to the byte when a validation image changes."""

    def known() -> bool:
        with project() as p:
            return evaluator(p).is_known(p.space.largest())

    assert known()
    replace()
    assert not known()


@pytest.mark.parametrize("how", ["data.root", "HWNAS_DATA", "elsewhere", "moved together"])
def test_the_same_data_in_another_place_change_nothing(home: Path, how: str, monkeypatch):
    if how == "data.root":
        os.rename("photos", "pictures")
        assert statuses(data__root="pictures") == DONE
        assert statuses(data__root=str(home / "pictures")) == DONE
        execute_all(data__root="pictures")
    elif how == "HWNAS_DATA":
        os.makedirs("sets")
        os.rename("photos", "sets/photos")
        monkeypatch.setenv("HWNAS_DATA", "sets")
        assert statuses() == DONE
    elif how == "elsewhere":
        monkeypatch.chdir("/")
        assert hwnas.status(home / "run").to_dict()["notes"] == []
    else:
        os.rename(home, home.with_name("moved"))
        monkeypatch.chdir("/")
        assert notes(home.with_name("moved") / "run") == []


def execute_all(**changes: object) -> None:
    """Nothing runs: a stage that did would move files aside."""
    with project(changes={key.replace("__", "."): v for key, v in changes.items()}) as p:
        execute(stages_of(p), p.run, only=STAGES)
    assert not Path("run/superseded").exists()


def test_other_data_in_another_place_are_other_data(home: Path):
    shutil.copytree("photos", "pictures")
    Path("pictures/train/bee/004.png").unlink()
    assert statuses(data__root="pictures") == STALE
    assert statuses() == DONE


def test_a_root_that_is_not_there_is_not_taken_for_the_one_of_before(home: Path):
    """A typing error: the photos that the run read last are others than those that are meant."""
    before = Path("run/config.yaml").read_bytes()
    settings = {"data.root": "photoz"}
    with pytest.raises(UserError, match=r"no such folder of images[\s\S]*photoz"):
        hwnas.train("run", settings=settings)
    with pytest.raises(UserError, match=r"no such folder of images[\s\S]*photoz"):
        hwnas.plan("run", settings=settings, only="train")
    assert Path("run/config.yaml").read_bytes() == before
    os.chdir("/")
    assert {row["status"] for row in hwnas.status(home / "run")} >= {"done"}
    assert hwnas.train(home / "run", settings={"data.root": "photos"}), "found where it was"


def test_without_the_data_a_run_is_looked_at(home: Path):
    os.rename("photos", "away")
    assert statuses() == DONE
    (note,) = notes()
    assert note.startswith("the data are not on this machine: ") and note.endswith(
        "; changes of the data are not detected"
    )
    assert str(home / "photos") in note
    execute_all()
    assert hwnas.report("run").is_file()
    run = hwnas.open_run("run")
    assert run.space.macro.num_classes == 2 and len(run.labels()) == 8
    assert run.supernet() is not None
    with pytest.raises(DataAbsent, match="no such folder of images"):
        hwnas.label("run", settings={"label.n_archs": 9})
    assert not Path("run/superseded").exists()


def test_a_disc_that_is_not_mounted_leaves_an_empty_folder(home: Path):
    os.rename("photos", "away")
    os.mkdir("photos")
    assert statuses() == DONE
    assert "no class folders" in notes()[0]
    with pytest.raises(DataAbsent):
        hwnas.label("run", settings={"label.n_archs": 9})


def test_a_run_writes_the_record_of_its_data_again(home: Path):
    path = Path("run/data.json")
    content = json.loads(path.read_text())
    path.unlink()
    (row,) = hwnas.check("run")
    assert Path(row["file"]) == path and "`hwnas run` writes it again" in row["problem"]
    execute_all()
    again = json.loads(path.read_text())
    assert again["seen"][0]["digest"] == content["seen"][0]["digest"] and not hwnas.check("run")
    assert statuses() == DONE
    shutil.rmtree("run/identities")
    assert {row["problem"] for row in hwnas.check("run")} == {
        "missing; hwnas detects changes of these data, but cannot name the changed files"
    }


def empty_class() -> None:
    Path("photos/train/dog").mkdir()


def one_class() -> None:
    shutil.rmtree("photos/train/bee")
    shutil.rmtree("photos/test/bee")


def strange_class() -> None:
    class_folders(Path("photos/test"), ["cat"], 2, px=16)


@pytest.mark.parametrize("spoil", [empty_class, one_class, strange_class])
def test_unreadable_data_refuse_training_and_not_looking_at_the_run(
    home: Path, spoil: Callable[[], None]
):
    spoil()
    assert statuses() == DONE
    (note,) = notes()
    assert note.startswith("the data cannot be read: ")
    assert str(home / "photos") in note and note.endswith("; changes of the data are not detected")
    assert hwnas.report("run").is_file()
    assert hwnas.open_run("run").space.macro.num_classes == 2
    with pytest.raises(UserError, match="class"):
        hwnas.label("run", settings={"label.n_archs": 9})
    with pytest.raises(UserError, match="class"):
        hwnas.plan("run", settings={"label.n_archs": 9}, only="label")
    assert not Path("run/superseded").exists()


@pytest.mark.parametrize(
    "damage", [{"seen": []}, {"last": 3}, {"seen": [{"digest": "../../x"}]}, {"extra": 1}]
)
def test_a_damaged_memory_of_the_data_is_an_error_that_names_the_file(home: Path, damage: dict):
    record = json.loads(Path("run/data.json").read_text())
    Path("run/data.json").write_text(json.dumps(record | damage))
    with pytest.raises(UserError, match=r"run/data\.json"):
        statuses()


def test_without_the_list_of_old_files_a_change_is_still_noticed(home: Path):
    shutil.rmtree("run/identities")
    delete()
    assert statuses() == STALE
    assert notes() == ["the data changed since `train`, `label`: the content differs"]


def test_more_classes_are_told_and_a_run_is_still_looked_at_with_its_own(home: Path):
    for split in ("train", "test"):
        class_folders(Path("photos", split), ["ant", "bee", "cat"], 30, px=16)
    note, learned, chosen = notes()
    assert note.startswith("the data changed since `train`, `label`: 3 classes, were 2")
    assert learned.startswith("78 of 90 images in test are train images as well")
    assert chosen.startswith("12 of 90 images in test are val images as well"), "4 of 30"
    assert hwnas.open_run("run").space.macro.num_classes == 2
    with project() as p:
        assert p.space.macro.num_classes == 3
    with project(as_recorded=True) as p, pytest.raises(UserError, match="not those of this run"):
        _ = p.data


def forget_data() -> None:
    """As earlier versions left a run folder."""
    ledger = json.loads(Path("run/stages.json").read_text())
    for record in ledger["stages"].values():
        record.pop("data")
    ledger["stages"]["train"]["inputs_hash"] = "?"
    del ledger["check"]
    shutil.rmtree("run/identities")
    Path("run/data.json").unlink()
    with project() as p:
        from hwnas.pipeline.inputs import inputs_hash

        for stage in stages_of(p):
            if stage.name in STAGES:
                outputs = {need: ledger["stages"][need]["outputs"] for need in stage.needs}
                hashed = inputs_hash(stage.settings, outputs, None)
                ledger["stages"][stage.name]["inputs_hash"] = hashed
    Path("run/stages.json").write_text(json.dumps(ledger))


def test_run_folders_of_earlier_versions_stay_done_and_are_watched_from_then_on(home: Path):
    forget_data()
    assert statuses() == DONE and notes() == []
    hwnas.label("run", settings={"label.n_archs": 9})
    delete()
    assert statuses(label__n_archs=9) == STALE
    assert notes() == [
        "the data changed since `train`, `label`: 1 file removed (first: train/bee/004.png)"
    ]
    os.rename("photos", "away")
    assert hwnas.open_run("run").space.macro.num_classes == 2


def test_a_run_folder_of_earlier_versions_is_looked_at_without_data(home: Path):
    forget_data()
    os.rename("photos", "away")
    assert statuses() == DONE
    assert hwnas.open_run("run").space.macro.num_classes == 2  # as the weights say


def test_a_class_that_is_not_utf8_is_refused_before_anything_runs(home: Path):
    for split in ("train", "test"):
        os.rename(os.fsencode(f"photos/{split}/ant"), os.fsencode(f"photos/{split}/") + b"f\xe9")
    with pytest.raises(UserError, match=r"not UTF-8[\s\S]*f\\xe9[\s\S]*convmv"):
        hwnas.train("other", config=str(CONFIG))
    assert not Path("other").exists()


def test_photos_that_lie_in_two_splits_are_told_wherever_accuracy_is(home: Path, caplog):
    """At reading, in a dry run, in `status`, in the report, and also without the photos."""
    for i in range(2):
        shutil.copy(f"photos/train/ant/00{i}.png", f"photos/test/bee/copy{i}.png")
    said = "2 of 14 images in test are train images as well (bee/copy0.png = ant/000.png"
    (note,) = notes()
    assert note.startswith(said)
    planned = hwnas.plan("run", settings={"train.steps": 3}, only="train").to_dict()
    assert any(said in note for note in planned["notes"])
    caplog.clear()
    with caplog.at_level("WARNING"):
        hwnas.train("run", settings={"train.steps": 3})
    assert caplog.text.count(said) == 1
    assert "the test accuracy counts images that the networks have learned" in caplog.text
    assert said in hwnas.report("run").read_text()
    assert any(said in note for note in hwnas.open_run("run").notes)
    os.rename("photos", "away")
    assert any(said in note for note in notes())
    assert any(said in note for note in hwnas.open_run("run").notes)


def test_copies_that_the_cut_parts_are_known_before_the_photos_are_read(
    home: Path, caplog, monkeypatch: pytest.MonkeyPatch
):
    """A photo that was stored again in another form is found when they are, and remembered."""
    for i in range(30):
        shutil.copy(f"photos/train/ant/{i:03d}.png", f"photos/train/ant/copy{i:03d}.png")
    photo(0, 5, 64).crop((0, 0, 7, 7)).resize((64, 64)).save("photos/train/ant/large.png")
    photo(0, 5, 64).crop((0, 0, 7, 7)).resize((64, 64)).save("photos/test/bee/small.jpg")
    said = "images in val are train images as well"
    again = "1 of 13 images in test looks like a "
    assert [said in note for note in notes()] == [False, True], "and that the data changed"
    planned = hwnas.plan("run", only="train").to_dict()
    assert any(said in note for note in planned["notes"])
    assert any(again in note for note in planned["notes"])
    with caplog.at_level("WARNING"):
        hwnas.train("run")
    assert caplog.text.count(said) == caplog.text.count(again) == 1
    with monkeypatch.context() as patch:
        patch.setattr("hwnas.pipeline.data_source.shared_of", lambda *_: pytest.fail("anew"))
        caplog.clear()
        with caplog.at_level("WARNING"):
            hwnas.label("run")
    assert caplog.text.count(said) == caplog.text.count(again) == 1
    assert [any(text in note for note in notes()) for text in (said, again)] == [True, True]
    other = hwnas.status("run", settings={"seed": 3}).to_dict()["notes"]
    assert any(said in note for note in other) and other != notes(), "another seed, another cut"


def test_a_second_training_round_finds_the_photos_as_its_run_does(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def train(run: Path, steps: int) -> Comparison:
        with open_project(run, command="test", read_only=True, progress_for=lambda _: silent) as p:
            choice = p.space.choices[-1]
            restrict = {choice.name: choice.values[:1]}
            return train_rounds(
                p, restrict, steps=steps, is_fresh=False, progress_for=lambda _: silent
            )

    monkeypatch.chdir(tmp_path)
    round_folder = Path(train(home / "run", 1).pruned.folder)
    config = yaml.safe_load((round_folder / "config.yaml").read_text())
    assert config["data"]["root"] == "photos", "as the run names it"
    moved = tmp_path / "moved"
    home.rename(moved)
    (moved / "run/rounds/pruned/data.json").unlink()  # as before the round read any data
    with open_project(
        moved / "run/rounds/pruned", progress_for=lambda s: silent, command="test", read_only=True
    ) as p:
        assert p.source.absent == "" and p.source.folder == moved / "photos"
    (moved / "photos").rename(tmp_path / "kept")
    record = json.loads((moved / "run/data.json").read_text())
    record.pop("check", None)
    record["seen"][0]["folder"] = str(tmp_path / "kept")  # where the run found them last
    (moved / "run/data.json").write_text(json.dumps(record))
    assert train(moved / "run", 2).unpruned.steps == 2


@pytest.mark.full
def test_a_whole_run_whose_photos_change(home: Path, monkeypatch: pytest.MonkeyPatch):
    """Case 08 and 24, on every stage."""
    hwnas.run(str(CONFIG), folder="run", settings={"label.n_archs": 16}, report_only=True)

    def all_statuses() -> set[str]:
        """But that of `verify`, which a busy machine leaves open."""
        return {r["status"] for r in hwnas.status("run") if r["stage"] != "verify/main"}

    assert all_statuses() == {"done"}
    bundle = Path("run/bundles/main/local")
    with project() as p:
        assert json.loads((bundle / "manifest.json").read_text())["provenance"]["data"] == (
            p.source.digest
        )
    manifest = (bundle / "manifest.json").read_text()
    with project() as p:
        of_other_data = manifest.replace(p.source.digest, 32 * "0")
    (bundle / "manifest.json").write_text(of_other_data)
    with pytest.raises(UserError, match="the bundle was made with different data"):
        hwnas.verify(bundle, latency=False)
    (bundle / "manifest.json").write_text(manifest)
    rename()
    assert {r["stage"] for r in hwnas.status("run") if r["status"] == "done"} == {"profile/local"}
    (note,) = notes()
    assert note.endswith("`export/main`, `verify/main`: class 'ant' is now 'wasp'")
    with pytest.raises(UserError, match="class 'ant' is now 'wasp'"):
        hwnas.verify("run")
    with pytest.raises(UserError, match="class 'ant' is now 'wasp'"):
        hwnas.verify(bundle)
    os.rename("photos", "away")
    assert all_statuses() == {"done"}
    assert hwnas.predictor_predict("run", ["largest"])[0]["score"]
    if {row["status"] for row in hwnas.status("run")} == {"done"}:
        assert hwnas.verify("run", report_only=True)
    checked = hwnas.verify(bundle, report_only=True, latency=False)
    assert any("the data are not on this machine" in note for note in checked.notes)
    monkeypatch.chdir("/")
    assert hwnas.report(home / "run").is_file()


# --- normalisation --------------------------------------------------------------------------------

INCEPTION = {"data.normalise": "inception"}


def test_another_normalisation_trains_anew_and_is_what_the_run_knows(home: Path):
    assert statuses(data__normalise="data") == DONE
    assert statuses(data__normalise="inception") == STALE
    hwnas.train("run", settings=INCEPTION)
    record = json.loads(Path("run/data.json").read_text())
    assert record["seen"][record["last"]]["info"]["mean"] == [0.5] * 3
    with safe_open("run/checkpoints/supernet.safetensors", framework="numpy") as weights:
        facts = json.loads(weights.metadata()["hwnas"])["data"]
    assert facts["mean"] == facts["std"] == [0.5] * 3
    shutil.rmtree("photos")
    with project(as_recorded=True) as p:
        assert p.source.info.mean == (0.5,) * 3


def test_journals_of_earlier_versions_stay_valid(home: Path):
    with project() as p:
        assert "normalise" not in p.source.context
    with project(changes=INCEPTION) as p:
        assert p.source.context["normalise"] == "inception"


@pytest.mark.parametrize(
    ("weights", "setting", "said"),
    [
        ("imagenet", "data", "Set data.normalise: imagenet"),
        ("imagenet", "inception", "Set data.normalise: imagenet"),
        ("imagenet", "imagenet", ""),
        ("inception", "data", "Set data.normalise: inception"),
        ("inception", "inception", ""),
        ("data", "data", ""),
        ("data", "inception", "which lowers the accuracy, especially with little training"),
        ("unknown", "inception", ""),
    ],
)
def test_weights_of_another_normalisation_are_warned_of(
    home: Path, caplog: pytest.LogCaptureFixture, weights: str, setting: str, said: str
):
    with project(changes={"data.normalise": "data" if weights == "unknown" else weights}) as p:
        metadata = {} if weights == "unknown" else p.metadata()
        Path("start.safetensors").write_bytes(weights_bytes(p.new_supernet(), metadata))
    settings = {"supernet.init": "start.safetensors", "data.normalise": setting}
    with project(changes=settings) as p:
        next(stage for stage in stages_of(p) if stage.name == "train").check_data()
    warned = [r.getMessage() for r in caplog.records if "normalised with" in r.getMessage()]
    assert [said in message for message in warned] == [True] * bool(said)
