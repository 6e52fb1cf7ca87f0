"""What is found in folders of photos, what is left out and why, and what is doubted."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import hwnas
from hwnas.core import photo_rule
from hwnas.interfaces import DatasetContext
from hwnas.training.datasets import REGISTRY as DATASETS
from hwnas.training.datasets import image_folder, npz_jpeg
from hwnas.training.identity import SPLITS
from hwnas.training.photo_doubts import flat_rows
from tests.bundles import kit_module
from tests.photos import class_folders, encoded, photo, small_config, without_heic, write_archive

N = 10
HEIC = b"\0\0\0\x18ftypheic" + bytes(40)
HEIC_NEEDED = pytest.mark.skipif(
    importlib.util.find_spec("pillow_heif") is None, reason="pip install 'hwnas[heic]'"
)


@pytest.fixture(autouse=True)
def _without_heic(request: pytest.FixtureRequest) -> Iterator[None]:
    with (
        contextlib.nullcontext() if HEIC_NEEDED.mark in request.node.own_markers else without_heic()
    ):
        yield


def shown(root: Path, **settings: Any) -> Any:
    given = {f"data.{key}": value for key, value in {"base_px": 16, **settings}.items()}
    return hwnas.data_show(root, settings={"space.resolutions": [16], "workers": 0, **given})


def splits(root: Path, n: tuple[int, int, int] = (8, 4, 4)) -> Path:
    first = 0
    for name, count in zip(("train", "val", "test"), n, strict=True):
        class_folders(root / name, ["ant", "bee"], count, first=first)
        first += count
    return root


def test_every_file_is_counted_once_by_class_and_split(tmp_path: Path) -> None:
    root = splits(tmp_path / "photos")
    (root / "train/ant/a.HEIC").write_bytes(b"x")
    (root / "train/ant/notes.txt").write_bytes(b"x")
    (root / "val/bee/b.jpg").write_bytes(b"x")
    (root / "test/bee/c.png").symlink_to("/nowhere")
    found = shown(root)
    counts = {(row["split"], row["class"]): row for row in found}
    assert {key: row["used"] for key, row in counts.items()} == {
        **{("train", name): 8 for name in ("ant", "bee")},
        **{(split, name): 4 for split in ("val", "test") for name in ("ant", "bee")},
    }
    assert counts["train", "ant"]["left_out"] == {".heic": 1, ".txt": 1}
    assert counts["val", "bee"]["left_out"] == {"that do not decode": 1}
    assert counts["test", "bee"]["left_out"] == {"that cannot be read": 1}
    assert sum(row["found"] for row in found) == 32 + 4
    first, *_, last = found.shown
    assert first == {
        **{"class": "ant", "found": 18, "train": 8, "val": 4, "test": 4},
        "left out": "1 .heic, 1 .txt",
    }
    assert last["class"] == "all 2 classes" and last["found"] == 36
    lost, broken = sorted(found.facts["refused"])
    assert "1 that cannot be read (bee/c.png)" in lost
    assert "1 that do not decode (bee/b.jpg: not an image" in broken
    assert any("convert them, e.g. `heif-convert" in text for text in found.facts["doubts"])
    assert shown(root, skip_broken=True).facts["refused"] == []


def test_photos_beside_the_classes_are_named(tmp_path: Path) -> None:
    root = splits(tmp_path / "photos")
    for name in ("1.jpg", "2.JPG", "a.zip", "labels.csv", "._1.jpg", ".DS_Store"):
        (root / name).write_bytes(b"x")
    (root / "val" / "3.heic").write_bytes(b"x")
    above, in_val = shown(root).facts["doubts"]
    assert above.startswith(f"{root}: 2 .jpg, 1 .zip beside the class folders are not used")
    assert in_val.startswith(f"{root / 'val'}: 1 .heic beside the class folders")


def test_photos_that_are_cut_from_train_are_counted_where_they_land(tmp_path: Path) -> None:
    root = class_folders(tmp_path, ["ant", "bee"], N)
    (root / "ant/a.HEIC").write_bytes(b"x")
    found = shown(root, repeat_to=0, val_fraction=0.2, test_fraction=0.3)
    assert [row["used"] for row in found] == [5, 5, 2, 2, 3, 3]
    assert found[0]["found"] == 6
    assert shown(root, repeat_to=500)[0]["used"] == 6  # repeated ones count once


def test_a_sound_folder_is_not_doubted(tmp_path: Path) -> None:
    found = shown(splits(tmp_path / "photos"))
    assert found.facts["doubts"] == found.facts["refused"] == []
    json.dumps(found.to_dict())


def only(texts: list[str]) -> str:
    (text,) = texts
    return text


def unbalanced(root: Path) -> None:
    class_folders(root / "train", ["ant"], 80, first=100)


def of_one_colour(root: Path) -> None:
    for i in range(3):
        Image.new("RGB", (40, 30), (90, 9, i)).save(root / f"val/ant/flat{i}.png")


def without_a_class(root: Path) -> None:
    for path in (root / "val/bee").iterdir():
        path.unlink()


def in_two_classes(root: Path) -> None:
    (root / "train/ant/x.png").write_bytes((root / "train/bee/000.png").read_bytes())


def in_two_splits(root: Path) -> None:
    (root / "test/ant/x.png").write_bytes((root / "train/ant/000.png").read_bytes())


def nearly_in_two_splits(root: Path) -> None:
    image = photo(5, 5, 6).resize((96, 96))
    image.save(root / "train/ant/x.png")
    (root / "test/ant/y.jpg").write_bytes(encoded(image))


def a_copy_of_exiftool(root: Path) -> None:
    (root / "train/ant/a.jpg_original").write_bytes(encoded(photo(0, 500)))


DOUBTS = {
    unbalanced: "80 training images of ant, 8 of bee; a network that always answers ant has a test"
    " accuracy of 50%",
    of_one_colour: "3 of 11 val images are of one colour (ant/flat0.png, ant/flat1.png,",
    without_a_class: "no val image of bee",
    in_two_classes: "1 photo is in two classes (ant/x.png = bee/000.png)",
    in_two_splits: "1 of 9 images in test is a train image",
    nearly_in_two_splits: "1 of 9 images in test looks like a train image",
    a_copy_of_exiftool: "though they contain images: 1 .jpg_original",
}


@pytest.mark.parametrize("make", DOUBTS, ids=lambda make: make.__name__)
def test_what_makes_results_doubtful_is_said_in_the_report_and_before_training(
    make: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = splits(tmp_path / "photos")
    make(root)
    found = shown(root).facts["doubts"]
    assert DOUBTS[make] in found[-1], found
    if "two_splits" not in make.__name__:  # those are said by the stage: `DataInput.warnings`
        caplog.clear()
        config = image_folder.Config(root=str(root), base_px=16)
        with caplog.at_level(logging.WARNING):
            image_folder.build(config, DatasetContext(0))
        assert [record.getMessage() for record in caplog.records] == found


def test_photos_with_one_pixel_of_another_colour_are_not_flat() -> None:
    pixels = np.full((3, 64, 64, 3), 128, np.uint8)
    pixels[1, 63, 1, 2] = 140
    pixels[2] += np.random.default_rng(0).integers(0, 2, (64, 64, 3), dtype=np.uint8)
    assert flat_rows(pixels, np.array([0, 1, 2])).tolist() == [0, 2]  # JPEG of one colour: +-1
    assert flat_rows(pixels, np.array([1])).tolist() == []


def test_a_run_folder_shows_its_own_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    splits(tmp_path / "photos")
    monkeypatch.delenv("HWNAS_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    Path("run").mkdir()
    config = hwnas.config_show(
        "photos", settings={"data.root": "photos", "data.base_px": 128, "workers": 0}
    )
    Path("run/config.yaml").write_text(json.dumps(config.facts["config"]))
    assert hwnas.data_show("run").facts["folder"] == str(tmp_path / "photos")


def test_other_kinds_of_data_have_no_report(tmp_path: Path) -> None:
    with pytest.raises(
        hwnas.UserError, match=r"(?s)no report.*image_folder.*found: data.name: digits"
    ):
        hwnas.data_show(tmp_path, config="digits")


def test_a_class_that_has_only_other_files_says_which(tmp_path: Path) -> None:
    root = class_folders(tmp_path, ["ant", "bee"], N)
    (root / "cat").mkdir()
    (root / "cat/IMG.HEIC").write_bytes(b"x")
    with pytest.raises(hwnas.UserError, match=r"found: cat \(1 \.heic\)"):
        shown(root)


# --- archives -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["image_folder", "npz_jpeg", "cifar10", "sign_digits", "digits"])
def test_the_report_counts_what_training_uses(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config, context = small_config(name, tmp_path), DatasetContext(3)
    module = DATASETS.load(name)
    report = module.report(config, context)
    with caplog.at_level(logging.INFO):
        data = module.build(config, context)
    for split in SPLITS:
        labels = torch.cat([y for _, y in data.eval_batches(split, 256)])
        used = [count.used for count in report.counts if count.split == split]
        assert used == np.bincount(labels, minlength=data.info.num_classes).tolist()
    assert not report.refused
    left_out = sum(sum(count.left_out.values()) for count in report.counts)
    assert left_out == (4 if name == "sign_digits" else 0)  # the person who is in the test photos
    rows = [line for line in caplog.messages if line.startswith("  ")]
    assert len(rows) == min(10, data.info.num_classes)
    first = report.counts[0]
    n = sum(count.found for count in report.counts if count.name == first.name)
    assert any(f"  {first.name}: {n} found: train {first.used}, val " in row for row in rows)


def test_many_classes_are_named_in_part_before_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = [f"c{i:02d}" for i in range(14)]
    for i, name in enumerate(names):
        class_folders(tmp_path, [name], 6 + 2 * i, px=16)
    config = image_folder.Config(root=str(tmp_path), base_px=16)
    with caplog.at_level(logging.INFO):
        image_folder.build(config, DatasetContext(0))
    rows = [line.split(":")[0].strip() for line in caplog.messages if line.startswith("  ")]
    assert [*rows[:5], *rows[5:10]] == [*names[:-6:-1], *names[4::-1]]
    assert rows[10] == "and 4 classes between these"


def broken_archive(folder: Path) -> Path:
    labels = [label for _ in range(12) for label in range(2)]
    files = [encoded(photo(label, i)) for i, label in enumerate(labels)]
    write_archive(folder / "train.npz", [*files[:-1], b"\xff\xd8\xff broken"], labels, 2)
    write_archive(folder / "val.npz", [files[0], encoded(photo(1, 90))], [0, 1], 2)
    return folder


def test_archives_have_the_same_report(tmp_path: Path) -> None:
    found = shown(broken_archive(tmp_path / "photos"))
    assert {row["split"]: row["left_out"] for row in found if row["class"] == "class 1"} == {
        **{"train": {"that do not decode": 1}, "val": {}, "test": {}},
    }
    assert sum(row["found"] for row in found) == 26
    assert "1 that do not decode (class 1/" in only(found.facts["refused"])
    assert "1 of 2 images in test is a train image as well" in found.facts["doubts"][-1]
    assert found.facts["folder"] == str(tmp_path / "photos")
    lenient = shown(tmp_path / "photos", skip_broken=True)
    assert not lenient.facts["refused"] and lenient.rows == found.rows


def test_archives_are_doubted_before_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = broken_archive(tmp_path / "photos")
    config = npz_jpeg.Config(root=str(root), base_px=16, skip_broken=True)
    labels = [0] * 60 + [1] * 6
    files = [encoded(photo(label, i)) for i, label in enumerate(labels)]
    write_archive(root / "train.npz", files, labels, 2)
    with caplog.at_level(logging.WARNING):
        npz_jpeg.build(config, DatasetContext(0))
    assert "a network that always answers class 0 has a test accuracy of 50%" in caplog.text


# --- photos of phones -----------------------------------------------------------------------------


def test_photos_of_phones_are_counted_with_the_line_that_installs_their_reader(
    tmp_path: Path,
) -> None:
    root = class_folders(tmp_path, ["ant", "bee"], N)
    (root / "ant/IMG_1.HEIC").write_bytes(HEIC)
    (root / "ant/IMG_2").write_bytes(HEIC)
    found = shown(root)
    assert found[0]["left_out"] == {".heic": 2}
    note = found.facts["doubts"][-1]
    assert "2 of these are HEIC photos" in note and "pip install 'hwnas[heic]'" in note


@HEIC_NEEDED
def test_photos_of_phones_are_photos_where_their_reader_is_installed(tmp_path: Path) -> None:
    assert photo_rule.reads_heic()  # registers it, for `save`, too
    root = class_folders(tmp_path, ["ant", "bee"], N)
    pixels = np.zeros((32, 64, 3), np.uint8)
    pixels[:, 32:] = 255
    sideways = Image.Exif()
    sideways[0x0112] = 6  # to be turned by 90 degrees, clockwise
    image = Image.fromarray(pixels)
    for path in (root / "ant/IMG_1.HEIC", root / "ant/IMG_2", root / "bee/IMG_3.jpg"):
        image.save(path, format="HEIF", exif=sideways.tobytes())
        with path.open("rb") as stream:
            turned = np.asarray(photo_rule.upright(stream)).astype(int)
        assert turned.shape == (64, 32, 3)
        assert turned[:24].max() < 20 and turned[40:].min() > 235
    found = shown(root)
    assert [row["left_out"] for row in found if row["left_out"]] == []
    assert sum(row["used"] for row in found) == 2 * N + 3
    read, labels = kit_module("bundle_images").labelled_images(root, ["ant", "bee"])
    assert np.bincount(labels).tolist() == [N + 2, N + 1]
    assert read(N).shape == (64, 32, 3)
