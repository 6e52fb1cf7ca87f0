"""Folders of photos as people have them: what counts, and that the kit reads them alike."""

from __future__ import annotations

import errno
import io
import json
import logging
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hwnas.core import photo_rule
from hwnas.core.errors import UserError
from hwnas.core.photo_rule import scan
from hwnas.exporters.bundle import KIT
from hwnas.interfaces import DatasetContext
from hwnas.training import photo_store
from hwnas.training.datasets import image_folder
from hwnas.training.decode import square_rgb
from tests.bundles import kit_module
from tests.photos import class_folders, encoded, photo, without_heic

TWO = ["ant", "bee"]
N = 8  # photos of a class, enough for three splits
PNG = encoded(photo(0, 99), "PNG")


@pytest.fixture(autouse=True, scope="module")
def _without_heic() -> Iterator[None]:
    with without_heic():
        yield


def config(root: Path, **options: object) -> image_folder.Config:
    return image_folder.Config(root=str(root), base_px=16, **options)


def counted(root: Path, **options: object) -> dict[str, int]:
    return dict(image_folder.build(config(root, **options), DatasetContext(0)).info.n_images)


def put(path: Path, content: bytes = PNG) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_a_pipe_with_the_name_of_an_image_is_called_a_pipe(tmp_path: Path) -> None:
    put(tmp_path / "ant" / "a.png")
    os.mkfifo(tmp_path / "ant" / "b.png")
    found = scan(tmp_path / "ant")
    assert found.images == ["ant/a.png"] and dict(found.left_out) == {"pipe or device": 1}


# --- which files ----------------------------------------------------------------------------------

NOT_DATA = {
    "of Jupyter": lambda c: put(c / ".ipynb_checkpoints" / "a-checkpoint.png"),
    "of Jupyter, deep": lambda c: put(c / "more" / ".ipynb_checkpoints" / "a.png"),
    "of a Synology": lambda c: put(c / "@eaDir" / "a.png" / "SYNOPHOTO_THUMB_S.png"),
    "of a Mac's zip": lambda c: put(c / "__MACOSX" / "._a.png"),
    "of a Mac's stick": lambda c: put(c / "._a.png", b"x"),
    "of fsck": lambda c: put(c / "lost+found" / "a.png"),
    "a folder called x.png": lambda c: (c / "x.png").mkdir(),
    "a link to where it is": lambda c: (c / "loop").symlink_to(c),
    "a link to the root": lambda c: (c / "up").symlink_to(c.parent),
    "text": lambda c: put(c / "notes.txt", b"x"),
    "a phone's": lambda c: put(c / "IMG_1.HEIC", b"x"),
    "a thumbnail database": lambda c: put(c / "Thumbs.db", b"\xff\xd8\xff"),
    "no image without an ending": lambda c: put(c / "README", b"read me"),
    "a renamed original": lambda c: put(c / "a.jpg_original", encoded(photo(0, 1))),
    "of Windows": lambda c: put(c / "desktop.ini", b"x"),
    "a camera's raw photo": lambda c: put(c / "a.dng", encoded(photo(0, 1), "TIFF")),
    "a run of hwnas": lambda c: put(c.parent / "run" / "stages.json", b"{}"),
    "a run that begins": lambda c: put(c.parent / "run" / ".lock", b""),
    "runs of hwnas": lambda c: put(c.parent / "runs" / "my" / ".lock", b""),
    "a finished run": lambda c: (
        put(c.parent / "runs" / "my" / "stages.json", b"{}"),
        put(c.parent / "runs" / "my" / "bundles" / "samples" / "a.png"),
    ),
    "a hidden class": lambda c: put(c.parent / ".ipynb_checkpoints" / "a.png"),
    "a system's class": lambda c: put(c.parent / "__MACOSX" / "a.png"),
}
DATA = {
    "jfif": lambda c: put(c / "a.jfif", encoded(photo(0, 1))),
    "avif": lambda c: put(c / "a.avif", encoded(photo(0, 1), "AVIF")),
    "jpeg 2000": lambda c: put(c / "a.jp2", encoded(photo(0, 1), "JPEG2000")),
    "jpeg 2000, bare": lambda c: put(c / "a.j2c", encoded(photo(0, 1), "JPEG2000")),
    "a date as ending": lambda c: put(c / "IMG 5.12.2024", encoded(photo(0, 1))),
    "a phrase as ending": lambda c: put(c / "in St. Mary", encoded(photo(0, 1))),
    "no ending, avif": lambda c: put(c / "a", encoded(photo(0, 1), "AVIF")),
    "no ending, tiff": lambda c: put(c / "a", encoded(photo(0, 1), "TIFF")),
    **{
        f"as Pillow writes {name}": lambda c, name=name, format=format: put(
            c / f"a.{name}", encoded(photo(0, 1), format)
        )
        for name, format in {
            **{"bmp": "BMP", "dib": "DIB", "ico": "ICO", "mpo": "MPO", "pcx": "PCX"},
            **{"ppm": "PPM", "sgi": "SGI", "tga": "TGA", "dds": "DDS", "icns": "ICNS"},
        }.items()
    },
    "capital letters": lambda c: put(c / "a.PNG"),
    "no ending": lambda c: put(c / "a"),
    "no ending, webp": lambda c: put(c / "a", encoded(photo(0, 1), "WEBP")),
    "a trailing dot": lambda c: put(c / "a."),
    "two trailing dots and a blank": lambda c: put(c / "a.. "),
    "a folder within": lambda c: put(c / "more" / "yet more" / "a.png"),
    "a link to a photo": lambda c: (c / "a.png").symlink_to(put(c.parent.parent / "b.png")),
    "a linked folder": lambda c: (c / "batch").symlink_to(
        put(c.parent.parent / "b" / "a.png").parent
    ),
}


@pytest.mark.parametrize("kind", [*NOT_DATA, *DATA])
def test_what_is_data_is_the_same_for_training_and_for_the_kit(kind: str, tmp_path: Path) -> None:
    root = class_folders(tmp_path / "photos", TWO, N)
    make: Callable[[Path], object] = (NOT_DATA | DATA)[kind]
    make(root / "ant")
    expected = N + (kind in DATA)
    assert len(scan(root / "ant").images) == expected
    read, labels = kit_module("bundle_images").labelled_images(root, TWO)
    assert np.bincount(labels).tolist() == [expected, N]
    for i in range(len(labels)):
        assert read(i).ndim == 3
    assert sum(counted(root).values()) == expected + N


def test_there_is_one_rule_and_a_bundle_holds_it_as_it_is() -> None:
    rule = kit_module("photo_rule")
    assert Path(str(rule.__file__)).read_bytes() == Path(photo_rule.__file__).read_bytes()
    assert "photo_rule.py" in KIT
    assert kit_module("bundle_images").scan is rule.scan
    assert kit_module("bundle_images").upright is rule.upright


def test_what_is_left_out_is_counted_by_ending(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = class_folders(tmp_path, TWO, N)
    for i in range(3):
        put(root / "ant" / f"{i}.HEIC", b"x")
    put(root / "bee" / "notes.txt", b"x")
    with caplog.at_level(logging.INFO):
        counted(root)
    assert "4 of 20 files cannot be read as images" in caplog.text
    assert "3 .heic, 1 .txt" in caplog.text
    assert "2 classes; images: train 12, val 2, test 2" in caplog.text


def test_links_that_lead_nowhere_are_told_or_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = class_folders(tmp_path, TWO, N)
    for i in range(3):
        (root / "bee" / f"annex{i}.png").symlink_to(f"/nowhere/{i}")
    with pytest.raises(UserError, match=r"(?s)3 files.*bee/annex0\.png.*skip_broken"):
        counted(root)
    assert sum(counted(root, skip_broken=True).values()) == 2 * N
    assert "3 of 19 files" in caplog.text and "3 that cannot be read" in caplog.text


def test_links_in_a_circle_are_told(tmp_path: Path) -> None:
    root = class_folders(tmp_path, TWO, N)
    (root / "bee" / "a.png").symlink_to("b.png")
    (root / "bee" / "b.png").symlink_to("a.png")
    with pytest.raises(UserError, match=r"(?s)2 files.*bee/a\.png, bee/b\.png"):
        counted(root)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the file is empty"),
        (b"\0\0\0\x18ftypheic" + bytes(40), "the content is a HEIC photo"),
        (b"<html>404</html>", "a web page or SVG drawing"),
        (b"version https://git-lfs.github.com/spec/v1", "a Git LFS pointer: git lfs pull"),
        (b"not at all", "not an image that Pillow reads"),
        (encoded(photo(0, 1))[:20], "damaged JPEG file"),
    ],
)
def test_why_a_file_is_no_image_is_told_in_words(
    content: bytes, words: str, tmp_path: Path
) -> None:
    root = class_folders(tmp_path, TWO, N)
    put(root / "ant" / "x.jpg", content)
    with pytest.raises(UserError, match=rf"(?s)ant/x\.jpg.*{words}") as caught:
        counted(root)
    assert "0x" not in str(caught.value)
    kit = kit_module("bundle_files")
    with pytest.raises(kit.BundleError, match=words):
        kit_module("bundle_images").read_image(root / "ant" / "x.jpg")


def test_the_kit_says_what_it_leaves_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = class_folders(tmp_path, TWO, N)
    put(root / "ant" / "a.HEIC")
    (root / "bee" / "annex.png").symlink_to("/nowhere")
    kit_module("bundle_images").labelled_images(root, TWO)
    assert "left out: 1 .heic, 1 that cannot be read" in capsys.readouterr().err


def test_a_folder_that_may_not_be_read_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = class_folders(tmp_path, TWO, N)
    (root / "bee" / "locked").mkdir()
    scandir = os.scandir

    def refuse(path: str):
        if str(path).endswith("locked"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match=r"(?s)1 files or folders.*bee/locked/"):
        counted(root)


@pytest.mark.parametrize("locked", ["photos", "photos/ant"])
def test_folders_that_may_not_be_read_are_named(
    locked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = class_folders(tmp_path / "photos", TWO, N)
    refuses = str(tmp_path / locked)
    scandir, listdir = os.scandir, os.listdir

    def refuse(read: Callable[[object], object]) -> Callable[[object], object]:
        def inner(path: object = ".") -> object:
            if str(path) == refuses:
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return read(path)

        return inner

    monkeypatch.setattr(os, "scandir", refuse(scandir))
    monkeypatch.setattr(os, "listdir", refuse(listdir))
    for skips in (False, True):
        with pytest.raises(UserError, match=r"cannot be read|Permission denied"):
            counted(root, skip_broken=skips)


def test_a_class_with_a_lock_is_a_class(tmp_path: Path) -> None:
    root = class_folders(tmp_path, TWO, N)
    put(root / "ant" / ".lock", b"")
    assert sum(counted(root).values()) == 2 * N


# --- splits and classes ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names",
    [
        ("train", "val", "test"),
        ("Train", "Val", "Test"),
        ("training", "validation", "testing"),
        ("train", "valid", "test"),
        ("TRAIN", "dev", "Test"),
    ],
)
def test_folders_of_splits_go_by_the_names_that_people_give(
    names: tuple[str, ...], tmp_path: Path
) -> None:
    for name, n in zip(names, (4, 2, 3), strict=True):
        class_folders(tmp_path / name, TWO, n)
    assert counted(tmp_path) == {"train": 8, "val": 4, "test": 6}
    assert image_folder.identity(config(tmp_path)).class_names == tuple(TWO)


@pytest.mark.parametrize(
    ("folders", "words"),
    [
        (("train", "bus", "car"), ("not empty, but belong to no split", "bus, car")),
        (("train", "Train"), ("two folders have names for the train", "Train, train")),
        (("train", "val", "validation"), ("two folders have names for the val", "val, validation")),
        (("val", "Test"), ("no folder of training images", "training images to train")),
        (("seg_train", "seg_test", "seg_pred"), ("named like splits", "seg_test, seg_train")),
        (("Training Set", "Test Set"), ("named like splits", "rename splits to train, val and")),
        (("images-train", "images-val"), ("named like splits", "images-train")),
        (("dataset",), ("at least two classes", "--set data.root=", "dataset")),
    ],
)
def test_folders_that_are_unclear_are_refused(
    folders: tuple[str, ...], words: tuple[str, ...], tmp_path: Path
) -> None:
    for name in folders:
        class_folders(tmp_path / name, TWO, 4)
    with pytest.raises(UserError) as caught:
        counted(tmp_path)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a_folder_without_classes_says_what_is_in_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="found: an empty folder"):
        counted(tmp_path)
    for name in ("1.jpg", "2.jpg", "labels.csv", ".hidden"):
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=r"found: 2 \.jpg, 1 \.csv[\s\S]*one folder per class"):
        counted(tmp_path)


def test_a_class_called_train_is_a_class(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "vehicles", ["bus", "car", "train"], 4)
    assert image_folder.ends(config(root)) == (3, 3)
    flat = class_folders(tmp_path / "flat", ["train", "test"], 4)
    with pytest.raises(UserError, match="has no class folders"):
        counted(flat)


def test_a_split_that_lacks_a_class_is_taken_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class_folders(tmp_path / "train", [*TWO, "rare"], 4)
    class_folders(tmp_path / "val", TWO, 2)
    class_folders(tmp_path / "test", ["ant"], 2)
    (tmp_path / "test" / "rare").mkdir()
    assert counted(tmp_path) == {"train": 12, "val": 4, "test": 2}
    assert "no val image of rare" in caplog.text
    assert "no test image of bee, rare" in caplog.text


@pytest.mark.parametrize("twin", ["Ant", "ANT", "ant ", "ant."])
def test_names_that_some_systems_take_for_one_are_refused(twin: str, tmp_path: Path) -> None:
    root = class_folders(tmp_path, [*TWO, twin], 2)
    with pytest.raises(UserError, match=r"(?s)can treat as equal.*'ant'"):
        counted(root)


# --- pixels ---------------------------------------------------------------------------------------


def ramp(kind: str) -> Image.Image:
    """From black to white, 8 x 8."""
    unit = np.linspace(0, 1, 64).reshape(8, 8)
    if kind == "float":
        return Image.fromarray(unit.astype(np.float32))
    return Image.fromarray((unit * {"16 bits": 65535, "12 bits": 4095}[kind]).astype(np.uint16))


@pytest.mark.parametrize("kind", ["float", "16 bits"])
def test_grey_photos_of_other_depths_keep_their_contrast(kind: str) -> None:
    content = encoded(ramp(kind), "TIFF")
    for found in (
        square_rgb(io.BytesIO(content), 8),
        kit_module("bundle_images").decode(content, "x"),
    ):
        assert found.min() == 0 and found.max() == 255


@pytest.mark.parametrize(
    "image",
    [
        ramp("12 bits"),
        Image.fromarray(np.array([[0, 255]], np.int32)),
        Image.fromarray(np.array([[0, 255]], np.float32)),
        Image.fromarray(np.array([[-1, 1]], np.float32)),
    ],
)
def test_grey_values_of_unknown_scale_are_refused_and_do_not_become_black(
    image: Image.Image, tmp_path: Path
) -> None:
    content = encoded(image, "TIFF")
    with pytest.raises(ValueError, match="of unknown scale"):
        square_rgb(io.BytesIO(content), 8)
    kit = kit_module("bundle_files")
    with pytest.raises(kit.BundleError, match="of unknown scale"):
        kit_module("bundle_images").decode(content, "x")
    root = class_folders(tmp_path, TWO, N)
    put(root / "ant" / "x.tif", content)
    with pytest.raises(UserError, match=r"(?s)1 of 17 images.*ant/x\.tif.*scale"):
        counted(root)


def stored(exif: bytes) -> bytes:
    """A photo of 6 x 8 px with this EXIF block."""
    stream = io.BytesIO()
    image = Image.fromarray(np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3))
    image.save(stream, "PNG", exif=exif)
    return stream.getvalue()


def sideways(*odd: tuple[int, int, int, bytes]) -> bytes:
    """An EXIF block of orientation 6 and odd tags: tag, type, count, value."""
    tags = sorted([(0x0112, 3, 1, b"\6\0\0\0"), *odd])
    entries = b"".join(struct.pack("<HHI4s", *tag) for tag in tags)
    return b"Exif\0\0II*\0\10\0\0\0" + struct.pack("<H", len(tags)) + entries + b"\0\0\0\0"


RESOLUTION, ASCII, BYTE, SIGNED, UNDEFINED = 0x011A, 2, 1, 10, 7


@pytest.mark.parametrize(
    "odd",
    [
        [],
        [(RESOLUTION, ASCII, 3, b"72\0\0")],
        [(RESOLUTION, BYTE, 1, b"\1\0\0\0")],
        [(RESOLUTION, SIGNED, 1, b"\xff\xff\0\0")],
        [(0x0101, UNDEFINED, 4, b"abcd")],
    ],
)
def test_odd_metadata_beside_the_orientation_do_not_matter(
    odd: list[tuple[int, int, int, bytes]],
) -> None:
    content = stored(sideways(*odd))
    upright = kit_module("bundle_images").decode(content, "x")
    assert upright.shape == (8, 6, 3)
    np.testing.assert_array_equal(square_rgb(io.BytesIO(content), 6), upright[1:7])


def test_metadata_that_are_none_leave_the_photo_as_it_is_stored() -> None:
    content = stored(b"Exif\0\0garbage that is no TIFF at all")
    assert kit_module("bundle_images").decode(content, "x").shape == (6, 8, 3)
    assert square_rgb(io.BytesIO(content), 6).shape == (6, 6, 3)


@pytest.mark.parametrize("turn", range(1, 9))
def test_every_orientation_is_upright_as_pillow_has_it(turn: int) -> None:
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = turn
    stream = io.BytesIO()
    image = Image.fromarray(np.arange(6 * 6 * 3, dtype=np.uint8).reshape(6, 6, 3))
    image.save(stream, "PNG", exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(stream.getvalue()))))
    np.testing.assert_array_equal(square_rgb(io.BytesIO(stream.getvalue()), 6), expected)
    found = kit_module("bundle_images").decode(stream.getvalue(), "x")
    np.testing.assert_array_equal(found, expected)


# --- names ----------------------------------------------------------------------------------------

CAFE, CAFE_OF_A_MAC = "caf\u00e9", "cafe\u0301"
READ_ELSEWHERE = """
import json, sys
sys.path[:0] = [sys.argv[2]]
import bundle_images
from pathlib import Path
from hwnas.training.datasets.image_folder import Config, identity
assert sys.getfilesystemencoding() != "utf-8"
root = Path(sys.argv[1])
_, labels = bundle_images.images_of_folder(root, ["bee", "caf\\u00e9"])
known = identity(Config(root=str(root)))
print(json.dumps([known.class_names, sorted(known.files["train"]), labels.tolist()]))
"""


@pytest.mark.parametrize("name", [CAFE, CAFE_OF_A_MAC])
def test_the_kit_knows_a_class_in_both_unicode_forms(name: str, tmp_path: Path):
    root = class_folders(tmp_path / "p", [name, "bee"], 2)
    read, labels = kit_module("bundle_images").images_of_folder(root, ["bee", CAFE])
    assert labels.tolist() == [0, 0, 1, 1] and read(3).shape == (40, 40, 3)


def test_names_are_utf8_whatever_the_locale_is(tmp_path: Path):
    """In another locale Python takes the bytes of names for other letters."""
    root = class_folders(tmp_path / "p", [CAFE, "bee"], 1)
    os.rename(root / CAFE / "000.png", root / CAFE / "\u00e4.png")
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    kit = Path(str(kit_module("bundle_images").__file__)).parent
    done = subprocess.run(
        [sys.executable, "-c", READ_ELSEWHERE, str(root), str(kit)],
        capture_output=True,
        text=True,
        env={**os.environ, **plain},
    )
    assert done.returncode == 0, done.stderr
    names, files, labels = json.loads(done.stdout)
    assert (names, labels) == (["bee", CAFE], [0, 1])
    assert files == ["bee/000.png", f"{CAFE}/\u00e4.png"]


def test_a_long_search_for_images_says_how_many_files_it_saw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(4):
        put(tmp_path / "cat" / f"{number}.png")
    times = iter(range(0, 100, 2))  # a file every two seconds
    monkeypatch.setattr(photo_store.time, "monotonic", lambda: next(times))
    with caplog.at_level("INFO"):
        photo_store.scans_by_class("train", tmp_path, ("cat",), is_listed=False, skip_broken=False)
    said = [text.rpartition(", ")[2] for text in caplog.messages]
    assert said == ["2 files so far", "4 files so far"]
