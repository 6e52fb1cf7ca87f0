"""A slip costs nothing: what must fail is refused before anything runs, in the dry run as well."""

from __future__ import annotations

import errno
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import hwnas
from hwnas.core.errors import UserError
from hwnas.core.registry import Variant
from hwnas.interfaces import DatasetContext, PlannedDataset
from hwnas.pipeline import checks, data_checks, disk
from hwnas.training.datasets import REGISTRY as DATASETS
from tests.boards import fake_phone
from tests.photos import class_folders, small_config

CONFIG = {
    "schema_version": 1,
    "name": "slips",
    "space": {"name": "mobilenet_tiny", "resolutions": [16]},
    "data": {"name": "image_folder", "root": "photos", "base_px": 20},
    "train": {"steps": 2, "batch_size": 8, "calibration": {"batch_size": 8}},
    "label": {"n_archs": 16, "calibration": {"batch_size": 8}},
    "predictor": {"name": "ridge"},
    "search": {"constraints": [{"metric": "latency_ms", "max_fraction_of_largest": 0.5}]},
    "finetune": {"epochs": 1, "batch_size": 8, "calibration": {"batch_size": 8}},
}
N_TRAIN = 28  # of 2 x 20 photos, 15 % of each class go into val and test


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos, some with a broken one, weights of something else, and records."""
    folder = tmp_path_factory.mktemp("slips")
    class_folders(folder / "photos", ["ant", "bee"], 20, px=20)
    class_folders(folder / "broken", ["ant", "bee"], 20, px=20)
    (folder / "broken" / "ant" / "007.png").write_bytes(b"\x89PNG, but no more than that")
    class_folders(folder / "few", ["ant", "bee", "cat", "dog"], 2, px=20)
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    np.savez(folder / "other.npz", stem=np.zeros((3, 3), np.float32))
    (folder / "text.safetensors").write_text("no weights")
    (folder / "cells.csv").write_text("arch,accuracy\n|nor_conv_3x3~0|,12\n")
    (folder / "file").write_text("in the way")
    return folder


@pytest.fixture
def there(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(made)
    shutil.rmtree("run", ignore_errors=True)
    return made


def refused(settings: dict[str, Any], *words: str, folder: str = "run") -> UserError:
    """The one error of dry run and run, of which all parts are there; nothing ran."""
    with pytest.raises(UserError) as planned:
        hwnas.plan(folder, config="config.yaml", settings=settings)
    assert not Path(folder).exists() or not Path(folder).is_dir()
    with pytest.raises(UserError) as ran:
        hwnas.run("config.yaml", folder=folder, settings=settings)
    assert str(planned.value) == str(ran.value)
    for word in words:
        assert word in str(ran.value), str(ran.value)
    for stage in ("config.yaml", "tables", "checkpoints", "labels", "search", "superseded"):
        assert not Path(folder, stage).exists(), stage
    return ran.value


SLIPS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "a batch larger than the data": (
        {"train.batch_size": 4000},
        ("train.batch_size", f"at most {N_TRAIN}", "4,000", "lower train.batch_size"),
    ),
    "a batch of fine-tuning": ({"finetune.batch_size": 64}, ("finetune.batch_size", "64")),
    "images of the curves": (
        {"train.calibration.batch_size": 64},
        ("train.calibration.batch_size", "64"),
    ),
    "images of the labels": (
        {"label.calibration.n_batches": 5},
        ("label.calibration: n_batches * batch_size", "40"),
    ),
    "images of BN after fine-tuning": (
        {"finetune.calibration.batch_size": 64},
        ("finetune.calibration.batch_size", "64"),
    ),
    "a batch of stand-alone labels": (
        {"label.trained": {"n": 4, "recipe": {"batch_size": 33}}},
        ("label.trained.recipe.batch_size", "33"),
    ),
    "a resolution above that of the images": (
        {"space.resolutions": [16, 64]},
        ("up to 20 px", "64 px", "space.resolutions", "data.base_px=64"),
    ),
    "a limit on an unknown device": (
        {"search.constraints": [{"metric": "latency_ms", "device": "locale", "max": 3.0}]},
        ("search.constraints.0.device", "locale", "one of local", "did you mean 'local'?"),
    ),
    "a limit that no arch meets": (
        {"search.constraints": [{"metric": "macs", "max": 10.0}]},
        ("no arch of the space meets", "macs <= 10", "allow macs up to"),
    ),
    "fine-tuning in 8 bits, of which there is no file": (
        {"finetune.precision": "int8"},
        (
            "no exported format has a rounding that it can imitate",
            "expected: onnx:int8 or litert:int8 among the exported formats",
            "found: the formats onnx, timm",
            "finetune.precision",
            "fix: export: [onnx, onnx:int8], or finetune.precision: fp32",
        ),
    ),
    "a device without a limit of its own": (
        {
            "devices": ["local", "local_int8"],
            "search.per_device": True,
            "search.constraints": [{"metric": "latency_ms", "max": 3.0}],
        },
        ("no latency limit for device 'local_int8'", "search.constraints"),
    ),
    "a device twice": ({"devices": ["local", "local"]}, ("two devices are called 'local'", "fix")),
    "no photos": ({"data.root": "nowhere"}, ("no such folder", "nowhere", "data.root")),
    "a broken photo": ({"data.root": "broken"}, ("1 of 40 images", "ant/007.png", "skip_broken")),
    "an empty split": (
        {"data.val_fraction": 0.001},
        ("no val images", "0 val", "add images, or raise data.val_fraction"),
    ),
    "splits of two photos a class": (
        {"data.root": "few", "train.batch_size": 2},
        ("no val images", "fix: add images"),
    ),
    "no files of CIFAR": (
        {"data": {"name": "cifar10", "root": "nowhere", "download": False}},
        ("the files of cifar10 are missing", "nowhere", "data.root"),
    ),
    "no archives": (
        {"data": {"name": "npz_jpeg", "root": "nowhere"}},
        ("a file of the data set is missing", "nowhere", "data.root"),
    ),
    "an augmentation that timm lacks": (
        {"data.augment.auto_augment": "rend-m9"},
        ("augmentation policy", "rend-m9", "data.augment.auto_augment"),
    ),
    "an optimiser that timm lacks": (
        {"train.optimizer.name": "adamm"},
        ("optimiser", "adamm", "train.optimizer.name"),
    ),
    "an optimiser of fine-tuning": (
        {"finetune.optimizer.name": "adamm"},
        ("adamm", "finetune.optimizer.name"),
    ),
    "weights that are not there": ({"supernet.init": "none.npz"}, ("supernet.init", "none.npz")),
    "weights that are none": ({"supernet.init": "text.safetensors"}, ("read the weights",)),
    "weights of another space": ({"supernet.init": "other.npz"}, ("another space", "fix")),
    "a teacher that timm lacks": (
        {"train.teacher": {"model": "resnet19", "weights": "other.npz"}},
        ("train.teacher.model", "resnet19"),
    ),
    "a teacher's weights of another model": (
        {"train.teacher": {"model": "resnet18", "weights": "other.npz"}},
        ("not the weights of resnet18", "other.npz"),
    ),
    "a sampler's unknown device": (
        {"train.sampler": {"name": "balanced", "metric": "latency_ms", "device": "pixel"}},
        ("'pixel'", "train.sampler.device", "one of local"),
    ),
    "a prior's unknown device": (
        {"train.ranking": {"prior": {"name": "latency", "device": "pixel"}}},
        ("'pixel'", "train.ranking.prior.device", "one of local"),
    ),
    "records that are not there": (
        {"search.evaluator": {"records": "none.csv"}},
        ("search.evaluator.records", "none.csv"),
    ),
    "records of another space": (
        {"search.evaluator": {"records": "cells.csv", "reader": "nasbench201"}},
        ("cells.csv",),
    ),
    "too few labels": (
        {"label.n_archs": 6},
        ("label.n_archs", "at least 11", "fix: label.n_archs=11"),
    ),
    "two limits for a searcher of one": (
        {
            "search.searcher": "exact",
            "search.constraints": [
                {"metric": "macs", "max_fraction_of_largest": 0.5},
                {"metric": "params", "max_fraction_of_largest": 0.5},
            ],
        },
        ("exact", "at most 1", "search.constraints"),
    ),
    "a score that is no sum for a searcher of sums": (
        {
            "search.searcher": "exact",
            "search.constraints": [{"metric": "macs", "max_fraction_of_largest": 0.5}],
        },
        ("exact", "sum over blocks", "{name: ridge}", "predictor.has_costs=false"),
    ),
    "a predictor that is no sum": (
        {"search.searcher": "exact", "predictor": "forest"},
        ("exact", "sum over blocks", "{name: forest}", "predictor.name=ridge"),
    ),
    "a cost that is no sum": (
        {
            "search.searcher": "exact",
            "predictor.has_costs": False,
            "search.constraints": [{"metric": "peak_memory_bytes", "max_fraction_of_largest": 0.9}],
        },
        ("exact", "sums over blocks", "fix"),
    ),
    "a space too large to enumerate": (
        {
            "search.searcher": "exhaustive",
            "data.base_px": 32,
            "space": {"name": "mobilenet_v3", "resolutions": [32]},
        },
        ("too large to be enumerated",),
    ),
}


@pytest.mark.parametrize("slip", SLIPS)
def test_a_slip_is_refused_before_anything_runs(slip: str, there: Path) -> None:
    settings, words = SLIPS[slip]
    refused(settings, *words)


def test_a_score_and_a_cost_that_are_sums_are_fine(there: Path) -> None:
    settings = {
        "search.searcher": "exact",
        "predictor.has_costs": False,
        "search.constraints": [{"metric": "macs", "max_fraction_of_largest": 0.5}],
    }
    assert hwnas.plan("run", config="config.yaml", settings=settings).facts["unchecked"] == []


def test_the_configuration_without_a_slip_is_checked_and_fine(there: Path) -> None:
    found = hwnas.plan("run", config="config.yaml")
    assert found.facts["checked"] == [row["stage"] for row in found.rows]
    assert found.facts["unchecked"] == [] and not Path("run").exists()


def test_only_the_stages_of_the_verb_are_checked(there: Path) -> None:
    slip = {"finetune.batch_size": 4000}
    assert hwnas.plan("run", config="config.yaml", settings=slip, only="train").facts[
        "checked"
    ] == ["train"]
    with pytest.raises(UserError, match=r"finetune\.batch_size"):
        hwnas.plan("run", config="config.yaml", settings=slip, only="finetune")
    with pytest.raises(UserError, match="no stage 'profile/pixel'"):
        hwnas.plan("run", config="config.yaml", only="profile/pixel")


def test_quick_checks_come_before_images_are_decoded(
    there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "hwnas.training.decode.decode", lambda *a, **k: pytest.fail("decoded too early")
    )
    refused({"label.n_archs": 6}, "label.n_archs")


def test_a_run_folder_that_cannot_be_made_is_refused(there: Path) -> None:
    with pytest.raises(UserError, match=r"(?s)run folder.*not a folder.*another run folder"):
        hwnas.plan("file/run", config="config.yaml")
    with pytest.raises(UserError, match=r"(?s)run folder.*another run folder"):
        hwnas.run("config.yaml", folder="file/run")


def test_a_device_without_its_runtime_is_refused(
    there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lacks = Variant("onnxruntime", "", ("onnxruntime",), "pip install onnxruntime")
    monkeypatch.setattr(checks, "describe_runtime", lambda name: lacks)
    refused({}, "'local'", "onnxruntime", "devices", "fix: pip install onnxruntime")


def test_a_board_that_does_not_answer_is_missed_before_this_machine_is_profiled(
    there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Unplugged:
        def check(self) -> None:
            raise UserError("cannot reach the device", where="pi@board")

    monkeypatch.setattr("hwnas.pipeline.project.load_transport", lambda name, **_: Unplugged())
    board = "schema_version: 1\ntransport: {name: ssh, host: board}\n"
    (there / "board.yaml").write_text(board)
    settings = {"devices": ["local", "board.yaml"]}
    with pytest.raises(UserError, match="cannot reach the device"):
        hwnas.run("config.yaml", folder="run", settings=settings)
    assert not Path("run", "tables").exists()
    found = hwnas.plan("run", config="config.yaml", settings=settings)
    assert "whether device 'board' answers" in found.facts["unchecked"]


def test_packages_that_a_phone_lacks_are_missed_once_before_anything_runs(
    there: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Profile, search and verify need the phone: it is asked a single time."""
    phone = fake_phone(tmp_path, monkeypatch)
    bare = phone.settings | {"python": f"{sys.executable} -S"}
    (there / "phone.yaml").write_text(json.dumps({"schema_version": 1, "transport": bare}))
    settings = {"devices": ["local", "phone.yaml"]}
    with pytest.raises(UserError, match=r"(?s)lacks.*numpy.*-S -m pip install numpy"):
        hwnas.run("config.yaml", folder="run", settings=settings)
    assert not Path("run").exists()
    assert sum("--try" in call[-1] for call in phone.calls()) == 1


def test_a_provider_that_this_machine_lacks_is_refused(there: Path) -> None:
    (there / "gpu.yaml").write_text("schema_version: 1\nprovider: TpuExecutionProvider\n")
    refused({"devices": ["local", "gpu.yaml"]}, "'gpu'", "no TpuExecutionProvider", "fix")


def test_a_space_of_too_few_networks_is_refused_before_they_are_timed(there: Path) -> None:
    space = hwnas.space("mobilenet_tiny", resolutions=[16], num_classes=2)
    only = {choice.name: [choice.values[0]] for choice in space.choices[1:]}
    refused({"restrict": only}, "too few networks", "1 in a sample of the 1 archs", "`restrict`")


def test_a_disk_without_room_is_refused(there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written already is not asked for again."""
    monkeypatch.setattr(disk, "free_bytes", lambda path: 30_000_000)
    refused({}, "too little disk space", "about", "30 MB free", "--run", str(there / "run"))
    monkeypatch.setattr(disk, "free_bytes", lambda path: 300_000_000)
    assert hwnas.plan("run", config="config.yaml").facts["checked"]
    monkeypatch.setattr(disk, "free_bytes", lambda path: None)  # no system that tells
    assert hwnas.plan("run", config="config.yaml").facts["checked"]


def test_one_validation_image_is_too_few(there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_checks, "MIN_VALIDATION", 7)  # of 6
    refused({}, "too few validation images", "at least 7", "found: 6")


def test_cuda_is_asked_for_before_the_device_is_profiled(there: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is CUDA")
    refused({"accelerator": "cuda"}, "no CUDA device", "accelerator")


def test_shared_memory_that_cannot_be_used_is_missed_at_once(
    there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Sealed:
        def Lock(self) -> None:
            raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(data_checks.multiprocessing, "get_context", lambda how: Sealed())
    assert hwnas.plan("run", config="config.yaml").facts["checked"]  # without processes
    refused({"workers": 1}, "prepare images", "/dev/shm", "Read-only", "fix: workers=0")


def test_an_optional_package_is_missed_at_once(
    there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def require(module: str, *, extra: str) -> None:
        raise UserError(f"cannot import the optional package {module!r}", fix=f"hwnas[{extra}]")

    monkeypatch.setattr(checks, "require", require)
    refused({"train.tensorboard": True}, "tensorboard", "fix: hwnas[tensorboard]")


# --- dry runs of data that are not here, or are large --------------------------------------------


def test_a_dry_run_goes_on_without_images_that_are_promised(there: Path) -> None:
    promised = {"data.root": "nowhere", "data.num_classes": 7}
    found = hwnas.plan("run", config="config.yaml", settings=promised)
    assert "nowhere" in found.facts["unchecked"][0]
    with pytest.raises(UserError, match="no such folder"):
        hwnas.run("config.yaml", folder="run", settings=promised)
    assert not Path("run", "tables").exists()


def test_a_dry_run_downloads_nothing(there: Path) -> None:
    settings = {"data": {"name": "cifar10", "root": "nowhere"}}
    found = hwnas.plan("run", config="config.yaml", settings=settings)
    assert "downloaded into" in found.facts["unchecked"][0] and not Path("nowhere").exists()


def test_a_dry_run_decodes_no_large_data_set(there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_checks, "MOST_DECODED", 39)
    found = hwnas.plan("run", config="config.yaml", settings={"data.root": "broken"})
    assert found.facts["unchecked"] == ["whether all of 40 images decode"]
    with pytest.raises(UserError, match=r"train\.batch_size"):
        hwnas.plan("run", config="config.yaml", settings={"train.batch_size": N_TRAIN + 1})


@pytest.mark.parametrize("name", DATASETS.names)
def test_a_data_set_is_planned_as_it_is_built(name: str, tmp_path: Path) -> None:
    module, config = DATASETS.load(name), small_config(name, tmp_path)
    planned = module.plan(config) if isinstance(module, PlannedDataset) else None
    if planned is not None:
        info = module.build(config, DatasetContext(0)).info
        assert (dict(planned.n_images), planned.base_px) == (info.n_images, info.base_px)


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_split_with_a_folder_of_its_own_is_planned_as_it_is_built(
    split: str, tmp_path: Path
) -> None:
    module = DATASETS.load("image_folder")
    assert isinstance(module, PlannedDataset)
    class_folders(tmp_path / "photos" / "train", ["ant", "bee"], 21, px=8)
    class_folders(tmp_path / "photos" / split, ["ant", "bee"], 3, px=8)
    config = module.Config(root=str(tmp_path / "photos"), base_px=8)
    planned = module.plan(config)
    assert planned is not None
    assert planned.n_images == module.build(config, DatasetContext(0)).info.n_images
