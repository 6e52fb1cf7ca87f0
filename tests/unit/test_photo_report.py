"""What is found in folders of photos, what is left out and why, and what is doubted."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import hwnas
from hwnas.interfaces import DatasetContext
from hwnas.training.datasets import image_folder
from hwnas.training.photo_report import flat_rows
from tests.photos import class_folders, encoded, photo

N = 10


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
    assert "1 that do not decode (bee/b.jpg: ValueError: not an image" in broken
    assert any("convert them, e.g. `heif-convert" in text for text in found.facts["doubts"])
    assert shown(root, skip_broken=True).facts["refused"] == []


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
    a_copy_of_exiftool: "left out, though images by their content: 1 .jpg_original",
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
    monkeypatch.chdir(tmp_path)
    Path("run").mkdir()
    config = hwnas.config_show(
        "photos", settings={"data.root": "photos", "data.base_px": 128, "workers": 0}
    )
    Path("run/config.yaml").write_text(json.dumps(config.facts["config"]))
    assert hwnas.data_show("run").facts["folder"] == str(tmp_path / "photos")


def test_other_kinds_of_data_have_no_report(tmp_path: Path) -> None:
    with pytest.raises(hwnas.UserError, match=r"(?s)no report.*image_folder.*found: digits"):
        hwnas.data_show(tmp_path, config="digits")


def test_a_class_that_has_only_other_files_says_which(tmp_path: Path) -> None:
    root = class_folders(tmp_path, ["ant", "bee"], N)
    (root / "cat").mkdir()
    (root / "cat/IMG.HEIC").write_bytes(b"x")
    with pytest.raises(hwnas.UserError, match=r"found: cat \(1 \.heic\)"):
        shown(root)
