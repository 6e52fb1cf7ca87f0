"""What a data set is made of: cheap to look at, never mistaken; changes are described in words."""

from __future__ import annotations

import dataclasses
import os
import shutil
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from hwnas.core.errors import DataAbsent, UserError
from hwnas.core.records import dump, load
from hwnas.interfaces import DataIdentity, DatasetContext, NamedImages
from hwnas.training import file_hashes as hashing
from hwnas.training import photo_store
from hwnas.training.datasets import REGISTRY, image_folder
from hwnas.training.duplicates import shared_images, shared_of, shared_parts
from hwnas.training.file_hashes import ChangedMeanwhile, bytes_hash, file_hashes
from hwnas.training.identity import SPLITS, describe_change, identity_of_arrays
from hwnas.training.looks import alike, looks_of
from hwnas.training.photo_store import read_photos
from hwnas.training.photos import PhotoData
from tests.photos import class_folders, encoded, photo, small_config, write_archive

CAFE, CAFE_OF_A_MAC = "caf\u00e9", unicodedata.normalize("NFD", "caf\u00e9")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HWNAS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def config(root: Path, **more: Any) -> image_folder.Config:
    return image_folder.Config(root=str(root), base_px=16, **more)


def identity(root: Path) -> DataIdentity:
    return image_folder.identity(config(root))


def built(root: Path) -> PhotoData:
    data = image_folder.build(config(root), DatasetContext(0))
    assert isinstance(data, PhotoData)
    return data


def pixels(data: PhotoData, split: str) -> np.ndarray:
    part = data.parts[split]  # type: ignore[index]
    return np.asarray(part.pixels[part.rows])


# --- hashes of files ------------------------------------------------------------------------------


def refuse(*_: object) -> str:
    raise AssertionError("hashed again")


def test_the_second_look_reads_no_file(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(hashing, "SETTLED_NS", -(10**12))  # as if the files were old
    (tmp_path / "a").write_bytes(b"one")
    first = file_hashes(tmp_path, ["a"])
    assert first == {"a": bytes_hash(b"one")}
    monkeypatch.setattr(hashing, "_hash", refuse)
    assert file_hashes(tmp_path, ["a"]) == first
    assert file_hashes(tmp_path / ".." / tmp_path.name, ["a"]) == first


def test_hashes_of_files_that_changed_just_now_are_not_remembered(tmp_path: Path, monkeypatch):
    """Within one tick of the clock a second change leaves size and times as they are."""
    (tmp_path / "a").write_bytes(b"one")
    file_hashes(tmp_path, ["a"])
    monkeypatch.setattr(hashing, "_hash", refuse)
    with pytest.raises(AssertionError, match="again"):
        file_hashes(tmp_path, ["a"])


@pytest.mark.parametrize("how", ["in place", "another file"])
def test_other_content_of_equal_size_and_time_is_noticed(tmp_path: Path, how: str, monkeypatch):
    monkeypatch.setattr(hashing, "SETTLED_NS", -(10**12))
    file = tmp_path / "a"
    file.write_bytes(b"one")
    os.utime(file, ns=(10**18, 10**18))
    file_hashes(tmp_path, ["a"])
    target = file if how == "in place" else tmp_path / "b"
    target.write_bytes(b"two")
    os.utime(target, ns=(10**18, 10**18))
    os.replace(target, file)
    assert file_hashes(tmp_path, ["a"]) == {"a": bytes_hash(b"two")}


@pytest.mark.parametrize("content", [b"", b"{", b'{"files": {"a": [1]}}', b'{"files": 3}', b"\0"])
def test_a_damaged_cache_of_hashes_is_made_again(
    tmp_path: Path, cache: Path, content: bytes, monkeypatch
):
    monkeypatch.setattr(hashing, "SETTLED_NS", -(10**12))
    (tmp_path / "a").write_bytes(b"one")
    first = file_hashes(tmp_path, ["a"])
    (kept,) = (cache / "hashes").iterdir()
    kept.write_bytes(content)
    assert file_hashes(tmp_path, ["a"]) == first


def test_a_file_that_changes_while_it_is_read_is_an_error(tmp_path: Path):
    root = class_folders(tmp_path / "photos", ["ant", "bee"], 8)
    stored = image_folder._stored(config(root))["train"]
    photo(3, 3, 40).save(root / "ant" / "000.png")
    with pytest.raises(ChangedMeanwhile, match="changed while it was read"):
        read_photos(stored, config(root).base_px, skip_broken=False, n_threads=1)
    data = built(root)  # nothing wrong was cached
    np.testing.assert_array_equal(
        data.parts["train"].pixels[0], image_folder_pixels(root / "ant" / "000.png")
    )


def image_folder_pixels(file: Path) -> np.ndarray:
    from hwnas.training.decode import square_rgb

    with file.open("rb") as stream:
        return square_rgb(stream, 16)


def test_a_photo_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch):
    """Tests may run as root, who may read everything."""
    root = class_folders(tmp_path / "photos", ["ant", "bee"], 8)
    bad = root / "ant" / "003.png"

    def refused(real: Any) -> Any:
        def read(path: Path, **more: int) -> Any:
            if path == bad:
                raise PermissionError(13, "Permission denied", str(path))
            return real(path, **more)

        return read

    monkeypatch.setattr(hashing, "open_regular", refused(hashing.open_regular))
    monkeypatch.setattr(photo_store, "read_regular", refused(photo_store.read_regular))
    with pytest.raises(UserError, match=r"ant/003\.png: Permission denied"):
        built(root)
    skipping = image_folder.build(config(root, skip_broken=True), DatasetContext(0))
    assert sum(skipping.info.n_images.values()) == 15
    monkeypatch.undo()
    assert describe_change(identity(root), identity(root)) == []


# --- pixels ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["bmp", "ppm", "tif", "png"])
def test_pixels_of_equal_names_sizes_and_times_are_not_mistaken(tmp_path: Path, suffix: str):
    """Case 06: splits of one data set, and two data sets whose classes are exchanged."""
    for split, first in (("train", 0), ("val", 100), ("test", 200)):
        for label, name in enumerate(["ant", "bee"]):
            folder = tmp_path / "whole" / split / name
            folder.mkdir(parents=True)
            for i in range(8):
                photo(label, first + i).save(folder / f"x{i}.{suffix}")
    for name, source in (("ant", "bee"), ("bee", "ant")):
        shutil.copytree(tmp_path / "whole/train" / source, tmp_path / "other" / name)
    for file in tmp_path.rglob(f"*.{suffix}"):
        os.utime(file, ns=(10**18, 10**18))
    data = built(tmp_path / "whole")
    found = {split: pixels(data, split) for split in ("val", "test")}
    assert not np.array_equal(found["val"], found["test"])
    whole, other = data.parts["train"].pixels, built(tmp_path / "other").parts["train"].pixels
    np.testing.assert_array_equal(whole[:8], other[8:])
    np.testing.assert_array_equal(whole[8:], other[:8])


# --- what is the same data ------------------------------------------------------------------------


@pytest.mark.parametrize("name", REGISTRY.names)
def test_every_data_set_has_an_identity_that_its_facts_hold(name: str, tmp_path: Path):
    settings = small_config(name, tmp_path)
    module: Any = REGISTRY.load(name)
    found = module.identity(settings)
    assert found == module.identity(settings)
    data = module.build(settings, DatasetContext(0))
    assert data.info.digests == found.digests and set(found.digests) == {"train", "val", "test"}
    assert len(found.class_names) == data.info.num_classes


@pytest.mark.parametrize("name", ["npz_jpeg", "cifar10", "image_folder"])
def test_without_files_the_data_are_absent(name: str, tmp_path: Path):
    module: Any = REGISTRY.load(name)
    with pytest.raises(DataAbsent) as caught:
        module.identity(module.Config(root=str(tmp_path / "nowhere")))
    assert Path(str(caught.value.where)).is_absolute()


def test_a_copy_elsewhere_is_the_same_data(tmp_path: Path):
    root = class_folders(tmp_path / "photos", ["ant", "bee"], 4)
    before = identity(root)
    shutil.copytree(root, tmp_path / "copy")
    os.utime(root / "ant/000.png")
    os.rename(root, tmp_path / "renamed")
    assert identity(tmp_path / "copy") == identity(tmp_path / "renamed") == before


def test_arrays_of_data_sets_that_do_not_know_their_files_are_hashed(tmp_path: Path):
    data = built(class_folders(tmp_path / "a", ["ant", "bee"], 12))
    found = identity_of_arrays(data)
    assert found == identity_of_arrays(built(tmp_path / "a"))
    assert {split: len(files) for split, files in found.files.items()} == data.info.n_images
    photo(5, 5, 40).save(tmp_path / "a" / "ant" / "000.png")
    changed = describe_change(found, identity_of_arrays(built(tmp_path / "a")))
    assert changed  # mean and std of all images move with one


# --- changes --------------------------------------------------------------------------------------


def told(before: DataIdentity, root: Path) -> list[str]:
    found = describe_change(before, identity(root))
    assert bool(found) == (before.digests != identity(root).digests)
    return found


def test_changes_of_photos_are_told(tmp_path: Path):
    root = class_folders(tmp_path / "p", ["ant", "bee", "cat"], 5)
    before = identity(root)
    assert told(before, root) == []
    class_folders(root, ["ant", "bee"], 10, first=100)
    for name in ("ant", "bee"):
        for i in range(5):  # as they were; 005 .. 009 are new
            photo(["ant", "bee"].index(name), i, 40).save(root / name / f"{i:03d}.png")
    (root / "cat/000.png").unlink()
    photo(9, 9, 40).save(root / "cat/001.png")
    assert told(before, root) == [
        "10 files added (first: train/ant/005.png)",
        "1 file removed (first: train/cat/000.png)",
        "1 file changed (first: train/cat/001.png)",
    ]


def test_moves_and_new_names_are_told(tmp_path: Path):
    root = tmp_path / "p"
    for split, first in (("train", 0), ("val", 50), ("test", 80)):
        class_folders(root / split, ["ant", "bee"], 4, first=first)
    before = identity(root)
    os.rename(root / "val/ant/000.png", root / "train/ant/900.png")
    os.rename(root / "train/bee/000.png", root / "train/ant/901.png")
    os.rename(root / "test/bee/000.png", root / "test/bee/zzz.png")
    assert told(before, root) == [
        "1 file moved from class 'bee' to 'ant'",
        "1 file moved from val to train",
        "1 file renamed",
    ]


def test_changes_of_classes_are_told(tmp_path: Path):
    root = class_folders(tmp_path / "p", ["ant", "bee", "cat"], 3)
    before = identity(root)
    os.rename(root / "ant", root / "wasp")
    assert told(before, root) == ["class 'ant' is now 'wasp'"]
    class_folders(root, ["dog", "eel"], 3, px=41)
    shutil.rmtree(root / "cat")
    assert told(before, root) == [
        "4 classes, were 3",
        "class 'ant' is now 'wasp'",
        "class 'dog' is new",
        "class 'eel' is new",
        "class 'cat' is gone",
        "6 files added (first: train/dog/000.png)",
        "3 files removed (first: train/cat/000.png)",
    ]


def test_names_of_a_strangers_files_do_not_steer_the_terminal():
    one = DataIdentity(("a", "b"), {"train": {"a/\x1b[2J.png": "1"}}, {"train": "train"})
    two = DataIdentity(("a", "b"), {"train": {}}, {"train": "train"})
    assert describe_change(one, two) == [r"1 file removed (first: train/a/\x1b[2J.png)"]


def test_classes_whose_names_are_exchanged_are_told(tmp_path: Path):
    root = class_folders(tmp_path / "p", ["ant", "bee"], 3)
    before = identity(root)
    os.rename(root / "ant", root / "x")
    os.rename(root / "bee", root / "ant")
    os.rename(root / "x", root / "bee")
    assert told(before, root) == ["6 files changed (first: train/ant/000.png)"]


def test_photos_that_come_change_every_split_that_is_drawn_anew(tmp_path: Path):
    root = class_folders(tmp_path / "p", ["ant", "bee"], 20)
    before, old = identity(root), built(root)
    class_folders(root, ["ant", "bee"], 30)
    learned = {image.tobytes() for image in pixels(old, "train")}
    assert learned & {image.tobytes() for image in pixels(built(root), "test")}  # they leak
    now = identity(root)
    assert all(now.digests[split] != before.digests[split] for split in now.digests)


def test_splits_with_folders_of_their_own_change_one_by_one(tmp_path: Path):
    root = tmp_path / "p"
    for split, first in (("train", 0), ("val", 50), ("test", 80)):
        class_folders(root / split, ["ant", "bee"], 4, first=first)
    before = identity(root)
    photo(0, 300, 40).save(root / "test/ant/004.png")
    now = identity(root)
    assert {s for s in now.digests if now.digests[s] != before.digests[s]} == {"test"}


# --- archives -------------------------------------------------------------------------------------


def archive(path: Path, images: dict[str, bytes], names: tuple[str, ...], *, named: bool) -> None:
    """An archive of JPEG files by `CLASS/NAME`."""
    labels = [names.index(name.partition("/")[0]) for name in images]
    write_archive(path, [*images.values()], labels, len(names))
    arrays = dict(np.load(path)) | {"class_names": np.array(names)}
    arrays["name"] = np.array([name.partition("/")[2] for name in images])
    if not named:
        del arrays["name"]
    np.savez(path, **arrays)


class Archives:
    """Two archives on disk, as data set npz_jpeg or cifar10 sees them, which tests change."""

    def __init__(self, root: Path, module: Any, *, named: bool = True) -> None:
        self.root, self.module, self.named = root, module, named
        self.names: tuple[str, ...] = tuple("abcdefghij")
        self.train = {f"{c}/{i}": encoded(photo(i, i)) for i, c in enumerate(self.names)}
        self.test = {f"{c}/{i}": encoded(photo(i, 50 + i)) for i, c in enumerate(self.names)}

    def identity(self) -> DataIdentity:
        archive(self.root / "train.npz", self.train, self.names, named=self.named)
        archive(self.root / "val.npz", self.test, self.names, named=self.named)
        section = self.module.Config(root=str(self.root))
        inside = self.module.inside(section)
        return dataclasses.replace(self.module.identity(section), inside=inside)


@pytest.fixture(params=["npz_jpeg", "cifar10"])
def stored(request: pytest.FixtureRequest, tmp_path: Path) -> Archives:
    return Archives(tmp_path, REGISTRY.load(request.param))


def test_changes_inside_archives_are_told_image_by_image(stored: Archives):
    before = stored.identity()
    stored.train |= {"a/new": encoded(photo(1, 99)), "b/1": encoded(photo(1, 98))}
    del stored.train["c/2"]
    stored.test["d/moved"] = stored.train.pop("d/3")
    assert describe_change(before, stored.identity()) == [
        "1 image moved from train to test",
        "1 image added (first: train/a/new)",
        "1 image removed (first: train/c/2)",
        "1 image changed (first: train/b/1)",
    ]


def test_new_names_of_classes_of_archives_are_told(stored: Archives):
    before = stored.identity()
    stored.names = ("x", *stored.names[1:])
    for part in (stored.train, stored.test):
        part["x/0"] = part.pop("a/0")
    assert describe_change(before, stored.identity()) == ["class 'a' is now 'x'"]


def test_an_archive_that_is_packed_anew_holds_the_same_images(stored: Archives):
    before = stored.identity()
    stored.train = dict(reversed(stored.train.items()))
    assert describe_change(before, stored.identity()) == [
        "1 file changed (first: train/train.npz); the images in them are the same"
    ]


def test_images_without_names_are_told_apart_by_their_content(stored: Archives):
    stored.named = False
    before = stored.identity()
    stored.train = {"a/new": encoded(photo(1, 99)), **stored.train}
    (line,) = describe_change(before, stored.identity())
    assert line.startswith("1 image added (first: train/a/")


def test_what_is_inside_is_in_no_digest_and_may_be_unknown(stored: Archives):
    """Run folders of earlier versions know the archives only."""
    known = stored.identity()
    before = dataclasses.replace(known, inside=None)
    assert before.digests == known.digests
    stored.train["a/new"] = encoded(photo(1, 99))
    told = describe_change(before, stored.identity())
    assert told == ["1 file changed (first: train/train.npz)"]
    assert load(DataIdentity, dump(known), where="here") == known


# --- images in two splits -------------------------------------------------------------------------


def shared(root: Path) -> list[str]:
    return [str(one) for one in shared_of(built(root), identity(root))]


def test_images_in_two_splits_are_named_with_what_they_mean(tmp_path: Path):
    root = tmp_path / "p"
    for split, first in (("train", 0), ("val", 50), ("test", 80)):
        class_folders(root / split, ["ant", "bee"], 4, first=first)
    assert shared(root) == []
    for i in range(4):
        shutil.copy(root / f"train/ant/00{i}.png", root / f"test/bee/copy{i}.png")
    shutil.copy(root / "train/ant/000.png", root / "val/ant/v.png")
    learned, ranked, chosen = shared(root)
    assert learned == (
        "4 of 12 images in test are train images as well (bee/copy0.png = ant/000.png,"
        " bee/copy1.png = ant/001.png, bee/copy2.png = ant/002.png, ...): the test accuracy counts"
        " images that the networks have learned; keep one copy of each"
    )
    assert ranked.startswith("1 of 9 images in val is a train image as well (ant/v.png = ")
    assert chosen.startswith("1 of 12 images in test is a val image as well")
    assert [str(one) for one in shared_parts(identity(root))] == [learned, ranked, chosen]


def test_copies_that_our_own_cut_parts_are_found(tmp_path: Path):
    """Half of them: which side a copy falls on is drawn."""
    root = class_folders(tmp_path / "p", ["ant", "bee"], 40)
    assert shared(root) == []
    for i in range(40):
        shutil.copy(root / f"ant/{i:03d}.png", root / f"ant/copy{i:03d}.png")
    data, found = built(root), shared_of(built(root), identity(root))
    for one in found:
        here, there = data.contents(one.split), data.contents(one.other)
        assert one.of == data.info.n_images[one.split]
        assert one.n == sum(digest in there.values() for digest in here.values()) > 0
    assert {(one.split, one.other) for one in found} == {
        ("test", "train"), ("val", "train"), ("test", "val"),
    }  # fmt: skip
    assert shared_parts(identity(root)) == (), "it takes the cut to tell"
    known = image_folder.contents(config(root), DatasetContext(0))
    assert known == {split: data.contents(split) for split in SPLITS}, "known before decoding"
    assert shared_images(known) == found


@pytest.mark.parametrize("splits", [(), ("test",), ("val", "test")])
@pytest.mark.parametrize("seed", [0, 7])
def test_the_cut_is_known_before_photos_are_decoded(
    splits: tuple[str, ...], seed: int, tmp_path: Path
):
    root = tmp_path / "p"
    for first, split in enumerate(("train", *splits)):
        class_folders(root / split, ["ant", "bee"], 20, first=40 * first)
    settings = config(root, repeat_to=90)
    data = image_folder.build(settings, DatasetContext(seed))
    known = image_folder.contents(settings, DatasetContext(seed))
    assert known == {split: data.contents(split) for split in SPLITS}
    assert all(list(known[split]) == list(data.contents(split)) for split in SPLITS)
    assert image_folder.contents(config(root, skip_broken=True), DatasetContext(seed)) is None


def recompressed(path: Path, to: Path, *, scale: float = 1.0, **options: object) -> None:
    image = Image.open(path)
    size = (round(image.width * scale), round(image.height * scale))
    image.resize(size, Image.Resampling.LANCZOS).save(to, **options)


def test_photos_that_were_compressed_or_scaled_again_are_found_by_their_looks(tmp_path: Path):
    root = tmp_path / "p"
    for split, first in (("train", 0), ("val", 50), ("test", 80)):
        class_folders(root / split, ["ant", "bee"], 4, first=first)
        for path in (root / split).rglob("*.png"):
            with Image.open(path) as image:  # not of noise alone, which JPEG does not keep
                image.crop((0, 0, 7, 7)).resize((64, 64), Image.Resampling.BICUBIC).save(path)
    for i, options in enumerate(({"quality": 60}, {"quality": 90, "scale": 2.0})):
        recompressed(root / f"train/ant/00{i}.png", root / f"test/bee/again{i}.jpg", **options)
    shutil.copy(root / "train/ant/003.png", root / "test/bee/copy.png")
    recompressed(root / "test/ant/000.png", root / "val/bee/v.jpg", quality=75)
    same, alike, chosen = shared(root)
    assert same.startswith("1 of 11 images in test is a train image as well")
    assert alike == (
        "2 of 11 images in test look like train images, stored in another form"
        " (bee/again0.jpg ~ ant/000.png, bee/again1.jpg ~ ant/001.png): the test accuracy counts"
        " images that the networks have learned; keep one copy of each"
    )
    assert chosen.startswith(
        "1 of 11 images in test looks like a val image, stored in another form"
        " (ant/000.png ~ bee/v.jpg)"
    )


def test_different_photos_do_not_look_alike(test_data: Path):
    """Hands before one wall, and drawn digits, whose strokes may be very much alike."""
    hands = REGISTRY.load("sign_digits")
    data = hands.build(hands.Config(base_px=32), DatasetContext(0))  # type: ignore[attr-defined]
    assert shared_of(data, hands.identity(hands.Config())) == ()  # type: ignore[attr-defined]
    drawn = REGISTRY.load("digits")
    data = drawn.build(drawn.Config(base_px=24), DatasetContext(0))  # type: ignore[attr-defined]
    test, train = (looks_of(x for x, _ in data.eval_batches(s, 256)) for s in ("test", "train"))
    assert alike(test, train) == []


def test_photos_of_one_colour_look_like_no_other():
    looks = looks_of([torch.ones(3, 3, 20, 20)])
    assert alike(looks, looks) == []


@pytest.mark.parametrize("name", ["npz_jpeg", "cifar10", "image_folder"])
def test_images_of_every_data_set_of_photos_have_names_and_contents(name: str, tmp_path: Path):
    settings = small_config(name, tmp_path)
    data = REGISTRY.load(name).build(settings, DatasetContext(0))
    assert isinstance(data, NamedImages)
    for split, n in data.info.n_images.items():
        assert len(data.contents(split)) == n  # type: ignore[arg-type]
    assert shared_of(data, REGISTRY.load(name).identity(settings)) == ()  # type: ignore[attr-defined]


# --- names of classes -----------------------------------------------------------------------------


def test_a_class_that_is_not_utf8_is_refused_before_anything_is_read(tmp_path: Path):
    root = class_folders(tmp_path / "p", ["ant", "bee"], 2)
    os.rename(os.fsencode(root / "ant"), os.fsencode(root) + b"/fourmi\xe9")
    with pytest.raises(UserError) as caught:
        image_folder.ends(config(root))
    text = str(caught.value)
    assert r"fourmi\xe9" in text and "convmv -f latin1 -t utf8" in text and str(root) in text
    text.encode()  # can be printed


def test_names_are_compared_in_one_unicode_form(tmp_path: Path):
    class_folders(tmp_path / "mac/train", [CAFE_OF_A_MAC, "bee"], 20)
    class_folders(tmp_path / "mac/test", [CAFE, "bee"], 4, first=90)
    class_folders(tmp_path / "linux/train", [CAFE, "bee"], 20)
    class_folders(tmp_path / "linux/test", [CAFE_OF_A_MAC, "bee"], 4, first=90)
    data = built(tmp_path / "mac")
    assert data.info.class_names == ("bee", CAFE)
    assert identity(tmp_path / "mac") == identity(tmp_path / "linux")


def test_two_folders_of_one_name_in_two_unicode_forms_are_refused(tmp_path: Path):
    root = class_folders(tmp_path / "p", [CAFE, CAFE_OF_A_MAC, "bee"], 2)
    if len(list(root.iterdir())) < 3:
        pytest.skip("this file system knows one form only")
    with pytest.raises(UserError, match="differ only in their Unicode form"):
        image_folder.ends(config(root))


def test_names_of_photos_may_be_anything(tmp_path: Path):
    root = class_folders(tmp_path / "p", ["ant", "bee"], 8)
    for i, name in enumerate([b"caf\xe9.png", CAFE.encode(), CAFE_OF_A_MAC.encode()]):
        image = root / "ant" / f"new{i}.png"
        photo(0, 200 + i, 40).save(image)
        os.rename(image, os.fsencode(root / "ant") + b"/" + name.removesuffix(b".png") + b".png")
    found = identity(root)
    assert len(found.files["train"]) == 19
    assert "ant/caf\\xe9.png" in found.files["train"]
    assert sum(built(root).info.n_images.values()) == 19


def test_archives_with_names_that_cannot_be_stored_are_refused(tmp_path: Path):
    from hwnas.training.npz import read_class_names

    for names in (["\udce9", "b"], [CAFE, CAFE_OF_A_MAC]):
        np.savez(tmp_path / "a.npz", class_names=np.array(names))
        with pytest.raises(UserError, match=r"UTF-8|Unicode"):
            read_class_names(tmp_path / "a.npz")


def test_a_relative_root_says_what_it_is_relative_to(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HWNAS_DATA", raising=False)
    with pytest.raises(DataAbsent, match=f"where: {tmp_path}/pets\n.*relative to {tmp_path} .the"):
        image_folder.ends(image_folder.Config(root="pets"))
    monkeypatch.setenv("HWNAS_DATA", "sets")
    with pytest.raises(DataAbsent, match=f"relative to {tmp_path}/sets .set by HWNAS_DATA"):
        image_folder.ends(image_folder.Config(root="pets"))
