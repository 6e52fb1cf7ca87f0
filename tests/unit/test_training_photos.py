"""Loaders of photo data sets: what they read, how they split, and what they refuse."""

from __future__ import annotations

import hashlib
import io
import pickle
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.data import constants

from hwnas.core.config import build_model, settled
from hwnas.core.errors import UserError
from hwnas.core.resources import resource
from hwnas.interfaces import DataInfo, DatasetContext
from hwnas.training.augment import photo_transform
from hwnas.training.class_list import listed_classes
from hwnas.training.datasets import REGISTRY, cifar10, cifar100, image_folder, npz_jpeg, sign_digits
from hwnas.training.datasets.sign_digits import TEST, TRAIN
from hwnas.training.npz import read_archive
from hwnas.training.photo_config import AugmentConfig, data_root
from tests.photos import archives, class_folders, encoded, photo, small_config, write_archive

CLASSES = ["ant", "bee", "cat"]


def folder_of(root: Path, **options) -> image_folder.Config:
    return image_folder.Config(root=str(root), base_px=16, **options)


def labels(data, split: str) -> np.ndarray:
    return torch.cat([y for _, y in data.eval_batches(split, 64)]).numpy()


# --- a folder of one's own ------------------------------------------------------------------------


def test_a_folder_of_classes_is_split_class_by_class(tmp_path: Path):
    data = image_folder.build(
        folder_of(class_folders(tmp_path / "pets", CLASSES, 20)), DatasetContext(0)
    )
    assert data.info.name == "pets" and data.info.class_names == tuple(CLASSES)
    assert data.info.n_images == {"train": 42, "val": 9, "test": 9}
    for split, n in (("train", 14), ("val", 3), ("test", 3)):
        assert np.bincount(labels(data, split)).tolist() == [n] * 3


@pytest.mark.parametrize(("repeat_to", "n"), [(0, 6), (6, 6), (7, 12), (30, 30), (31, 36)])
def test_few_training_photos_are_repeated_each_time_augmented_anew(tmp_path, repeat_to, n):
    config = folder_of(class_folders(tmp_path / "pets", ["a", "b"], 5), repeat_to=repeat_to)
    data = image_folder.build(config, DatasetContext(0))
    assert data.info.n_images == image_folder.plan(config).n_images
    assert data.info.n_images == {"train": n, "val": 2, "test": 2}
    ((x, y),) = data.train_batches(0, n)
    assert np.bincount(y).tolist() == [n // 2, n // 2]
    assert len({image.numpy().tobytes() for image in x}) == n
    clean = torch.cat([x for x, _ in data.eval_batches("train", 64)])
    assert len({image.numpy().tobytes() for image in clean}) == 6


def test_folders_of_splits_are_used_and_only_what_is_missing_is_cut(tmp_path: Path):
    for split, n, first in (("train", 20, 0), ("val", 4, 20), ("test", 2, 24)):
        class_folders(tmp_path / "all" / split, CLASSES, n, first)
        if split != "test":
            class_folders(tmp_path / "some" / split, CLASSES, n, first)
    data = image_folder.build(folder_of(tmp_path / "all"), DatasetContext(0))
    assert data.info.n_images == {"train": 60, "val": 12, "test": 6}
    data = image_folder.build(folder_of(tmp_path / "some"), DatasetContext(0))
    assert data.info.n_images == {"train": 51, "val": 12, "test": 9}


def test_photos_of_all_sizes_and_kinds_lie_side_by_side(tmp_path: Path):
    root = class_folders(tmp_path / "mixed", CLASSES, 10)
    photo(0, 50, 70).resize((70, 30)).save(root / "ant" / "wide.JPG")
    photo(0, 51).convert("L").save(root / "ant" / "grey.png")
    photo(0, 52).convert("RGBA").save(root / "ant" / "clear.webp")
    (root / "ant" / "more").mkdir()
    photo(0, 53, 9).save(root / "ant" / "more" / "small.gif")
    (root / "ant" / "notes.txt").write_text("not an image")
    (root / ".hidden").mkdir()
    data = image_folder.build(folder_of(root), DatasetContext(0))
    assert sum(data.info.n_images.values()) == 34
    assert data.info.class_names == tuple(CLASSES)


def test_a_changed_photo_is_seen_in_spite_of_the_cache(tmp_path: Path):
    root = class_folders(tmp_path / "pets", CLASSES, 10)
    before = image_folder.build(folder_of(root), DatasetContext(0)).info.mean
    for file in (root / "ant").iterdir():
        photo(9, 0, 48).save(file)
    assert image_folder.build(folder_of(root), DatasetContext(0)).info.mean != before


@pytest.mark.parametrize("ends_only", [True, False])
def test_one_class_only_is_refused(tmp_path: Path, ends_only: bool):
    config = folder_of(class_folders(tmp_path / "pets", ["ant"], 5))
    with pytest.raises(UserError, match=r"at least two classes[\s\S]*1 folder: ant"):
        image_folder.ends(config) if ends_only else image_folder.build(config, DatasetContext(0))


def test_empty_class_folders_are_named(tmp_path: Path):
    root = class_folders(tmp_path / "pets", CLASSES, 5)
    for name in ("dog", "eel"):
        (root / name).mkdir()
    with pytest.raises(UserError, match=r"some class folders have no images[\s\S]*dog, eel"):
        image_folder.build(folder_of(root), DatasetContext(0))


def test_classes_that_training_images_lack_are_named(tmp_path: Path):
    class_folders(tmp_path / "train", CLASSES, 5)
    class_folders(tmp_path / "val", [*CLASSES, "dog"], 5)
    with pytest.raises(UserError, match=r"more classes[\s\S]*also dog"):
        image_folder.build(folder_of(tmp_path), DatasetContext(0))


def test_a_missing_folder_says_what_is_expected_where(tmp_path: Path):
    with pytest.raises(UserError, match=r"no such folder[\s\S]*CLASS/\*\.jpg[\s\S]*nowhere"):
        image_folder.ends(folder_of(tmp_path / "nowhere"))


def test_a_number_of_classes_serves_plans_and_is_held_to(tmp_path: Path):
    planned = folder_of(tmp_path / "nowhere", num_classes=1000)
    assert image_folder.ends(planned) == (3, 1000)
    root = class_folders(tmp_path / "pets", CLASSES, 10)
    assert image_folder.build(folder_of(root, num_classes=len(CLASSES)), DatasetContext(0))
    with pytest.raises(UserError, match="the number of class folders differs"):
        image_folder.build(folder_of(root, num_classes=1000), DatasetContext(0))


def test_broken_photos_are_refused_or_left_out(tmp_path: Path):
    root = class_folders(tmp_path / "pets", CLASSES, 10)
    (root / "bee" / "torn.jpg").write_bytes(encoded(photo(0, 0))[:300])
    with pytest.raises(UserError, match=r"1 of 31 images[\s\S]*bee/torn\.jpg"):
        image_folder.build(folder_of(root), DatasetContext(0))
    data = image_folder.build(folder_of(root, skip_broken=True), DatasetContext(0))
    assert sum(data.info.n_images.values()) == 30


def test_a_class_whose_every_photo_is_broken_is_named(tmp_path: Path):
    root = class_folders(tmp_path / "pets", CLASSES, 4)
    for file in (root / "cat").iterdir():
        file.write_bytes(b"?")
    with pytest.raises(UserError, match="no training image of cat"):
        image_folder.build(folder_of(root, skip_broken=True), DatasetContext(0))


def test_fewer_images_than_a_batch_say_so(tmp_path: Path):
    data = image_folder.build(
        folder_of(class_folders(tmp_path / "pets", CLASSES, 10)), DatasetContext(0)
    )
    with pytest.raises(UserError, match=r"batch_size = 64[\s\S]*at least 64[\s\S]*found: 21"):
        data.train_batches(0, 64)


def test_relative_roots_are_below_the_data_folder(tmp_path: Path, monkeypatch):
    monkeypatch.delenv("HWNAS_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    assert data_root("pets") == tmp_path / "pets" and data_root("/x/pets") == Path("/x/pets")
    monkeypatch.setenv("HWNAS_DATA", str(tmp_path / "data"))
    assert data_root("pets") == tmp_path / "data/pets" and data_root("/x/pets") == Path("/x/pets")


# --- archives -------------------------------------------------------------------------------------


def test_archives_hold_what_was_put_in(tmp_path: Path):
    data = npz_jpeg.build(
        npz_jpeg.Config(root=str(archives(tmp_path)), base_px=32), DatasetContext(0)
    )
    assert data.info.n_images == {"train": 144, "val": 16, "test": 40}
    from PIL import Image

    stored = np.asarray(Image.open(io.BytesIO(encoded(photo(1, 40)))))
    x, y = next(data.eval_batches("test", 4))
    mean, std = (torch.tensor(v)[:, None, None] for v in (data.info.mean, data.info.std))
    pixels = ((x[1] * std + mean) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(pixels, stored)
    assert y.tolist() == [0, 1, 2, 3]


def arrays_of(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as arrays:
        return {name: arrays[name] for name in arrays}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label": np.full(8, 4)}, "a label is not the number of a class"),
        ({"label": np.full(8, -1)}, "a label is not the number of a class"),
        ({"label": np.zeros(7, int)}, "not an archive"),
        ({"label": np.zeros(8)}, "not an archive"),
        ({"offset": np.arange(8)}, "not an archive"),
        ({"offset": np.arange(9)[::-1]}, r"never decrease[\s\S]*offset\[0\] = 8, offset\[1\] = 7"),
        ({"offset": np.arange(9) - 1}, r"found: offsets from -1 to 7"),
        ({"offset": np.arange(9) * 10**9}, r"found: offsets from 0 to 8000000000"),
        ({"jpeg": np.zeros((2, 2), np.uint8)}, "not an archive"),
        ({"jpeg": None}, "not an archive"),
        ({"class_names": np.array(["a", "a"])}, "class_names"),
        ({"class_names": np.array([{"a": 1}], dtype=object)}, "not an archive"),
    ],
)
def test_archives_that_do_not_fit_together_are_refused(tmp_path: Path, changes, message: str):
    path = write_archive(
        tmp_path / "a.npz", [encoded(photo(0, i, 8)) for i in range(8)], [0] * 8, 4
    )
    changed = {k: v for k, v in (arrays_of(path) | changes).items() if v is not None}
    np.savez(path, **changed)
    with pytest.raises(UserError, match=message) as caught:
        read_archive(path)
    assert str(path) in str(caught.value)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), max_size=6), st.data())
def test_no_mutated_archive_ends_in_a_traceback(tmp_path: Path, changes, data):
    path = tmp_path / "a.npz"
    if not path.exists():
        write_archive(path, [encoded(photo(0, i, 8)) for i in range(8)], [0] * 8, 4)
    content = bytearray(path.read_bytes())
    for position, value in changes:
        content[position % len(content)] = value
    other = tmp_path / "b.npz"
    other.write_bytes(content[: data.draw(st.integers(0, len(content)))] if changes else content)
    try:
        archive = read_archive(other)
    except UserError:
        return
    assert archive.labels.max() < len(archive.class_names)


def test_a_missing_archive_says_where_to_put_it(tmp_path: Path):
    with pytest.raises(UserError, match=r"a file of the data set is missing[\s\S]*HWNAS_DATA"):
        npz_jpeg.ends(npz_jpeg.Config(root=str(tmp_path)))


def test_the_stored_tiny_imagenet_is_read(test_data: Path, monkeypatch):
    """Only its 1,250 test images, taken for both parts: decoding 25,000 takes seconds."""
    monkeypatch.setenv("HWNAS_DATA", str(test_data))
    config = npz_jpeg.Config(root="tiny_imagenet50", train_file="val.npz", base_px=32)
    data = npz_jpeg.build(config, DatasetContext(0))
    assert npz_jpeg.ends(config) == (3, 50) == (data.info.in_channels, data.info.num_classes)
    assert data.info.n_images == {"train": 1100, "val": 150, "test": 1250}


# --- CIFAR ----------------------------------------------------------------------------------------


def test_cifar_archives_keep_the_official_test_images_for_the_end(tmp_path: Path):
    root = str(archives(tmp_path, 10, n_train=8, n_test=3))
    data = cifar10.build(cifar10.Config(root=root, n_val=20), DatasetContext(0))
    assert data.info.n_images == {"train": 60, "val": 20, "test": 30}
    assert np.bincount(labels(data, "val")).tolist() == [2] * 10
    assert labels(data, "test").tolist() == list(range(10)) * 3


def test_other_classes_are_not_cifar(tmp_path: Path):
    root = str(archives(tmp_path, 4, n_train=8, n_test=3))
    with pytest.raises(UserError, match=r"(?s)other classes than cifar10.*fix: .*image_folder"):
        cifar10.build(cifar10.Config(root=root, n_val=4), DatasetContext(0))


def python_batches(folder: Path, monkeypatch, *, evil: bool = False) -> np.ndarray:
    """The official layout with 5 x 20 training and 20 test images, vouched for by its md5 sums."""
    from torchvision.datasets import CIFAR10

    base = folder / CIFAR10.base_folder
    base.mkdir(parents=True)
    random = np.random.default_rng(0)
    sums, pixels = {}, []
    for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
        data = random.integers(0, 256, size=(20, 3072), dtype=np.uint8)
        pixels.append(data)
        content = pickle.dumps({"data": data, "labels": [i % 10 for i in range(20)]})
        (base / name).write_bytes(content)
        sums[name] = hashlib.md5(content).hexdigest()
    content = pickle.dumps({"label_names": [f"class {i}" for i in range(10)]})
    (base / "batches.meta").write_bytes(content)
    train = [[name, sums[name]] for name in sums if name != "test_batch"]
    monkeypatch.setattr(CIFAR10, "train_list", train)
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", sums["test_batch"]]])
    meta = {**CIFAR10.meta, "md5": hashlib.md5(content).hexdigest()}
    monkeypatch.setattr(CIFAR10, "meta", meta)
    return np.concatenate(pixels).reshape(-1, 3, 32, 32)


def test_the_official_python_batches_are_read(tmp_path: Path, monkeypatch):
    pixels = python_batches(tmp_path, monkeypatch)
    data = cifar10.build(cifar10.Config(root=str(tmp_path), n_val=20), DatasetContext(0))
    assert data.info.n_images == {"train": 80, "val": 20, "test": 20}
    assert data.info.class_names[3] == "class 3"
    x, y = next(data.eval_batches("test", 20))
    mean, std = (torch.tensor(v)[:, None, None] for v in (data.info.mean, data.info.std))
    found = ((x * std + mean) * 255).round().to(torch.uint8).numpy()
    np.testing.assert_array_equal(found, pixels[-20:])
    assert y.tolist() == [i % 10 for i in range(20)]


class Evil:
    def __reduce__(self):
        return Path.touch, (Path(self.__dict__["marker"]),)


def test_batches_of_another_content_are_never_unpickled(tmp_path: Path, monkeypatch):
    python_batches(tmp_path, monkeypatch)
    evil = Evil()
    evil.marker = str(tmp_path / "executed")
    (tmp_path / "cifar-10-batches-py" / "data_batch_1").write_bytes(pickle.dumps(evil))
    with pytest.raises(UserError, match="the files of cifar10 are damaged"):
        cifar10.build(cifar10.Config(root=str(tmp_path), n_val=20), DatasetContext(0))
    assert not (tmp_path / "executed").exists()


def test_without_files_or_network_the_way_is_shown(tmp_path: Path, monkeypatch):
    import urllib.error
    import urllib.request

    def offline(*arguments: object, **options: object) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", offline)
    for module, download in ((cifar10, True), (cifar100, False)):
        name = module.__name__.rpartition(".")[2]
        with pytest.raises(
            UserError, match=rf"the files of {name} are missing[\s\S]*unpack https://"
        ):
            module.build(module.Config(root=str(tmp_path), download=download), DatasetContext(0))


# --- listed classes -------------------------------------------------------------------------------


def listing(root: Path, names: str) -> image_folder.Config:
    (root / "classes.txt").write_text(names)
    return folder_of(root, classes="classes.txt")


def test_listed_classes_keep_their_order_and_need_no_images(tmp_path: Path):
    root = class_folders(tmp_path / "pets", ["cat", "ant"], 10)
    config = listing(root, "wasp\ncat\tFelis\n\nbee\nant\n")
    data = image_folder.build(config, DatasetContext(0))
    assert data.info.class_names == ("wasp", "cat", "bee", "ant") == image_folder._names(config)
    assert image_folder.ends(config) == (3, 4)
    assert {*np.concatenate([labels(data, s) for s in ("train", "val", "test")])} == {1, 3}
    assert image_folder.plan(config).n_images == data.info.n_images
    assert data.info.n_images == {"train": 14, "val": 3, "test": 3}
    before = image_folder.identity(config)
    (root / "classes.txt").write_text("ant\ncat\nbee\nwasp\n")
    assert image_folder.identity(config).digests != before.digests


def test_one_photo_of_each_listed_class_can_be_split(tmp_path: Path):
    root = class_folders(tmp_path / "pets", ["ant", "bee", "cat", "dog"] + CLASSES, 1)
    for label in range(20):
        class_folders(root, [f"class{label}"], 1)
    names = "\n".join(path.name for path in root.iterdir())
    config = listing(root, names)
    data = image_folder.build(config, DatasetContext(0))
    assert sum(data.info.n_images.values()) == 24 and min(data.info.n_images.values()) >= 3
    assert image_folder.plan(config).n_images == data.info.n_images


def test_imagenet_lists_its_folders_in_the_order_of_classifiers(tmp_path: Path):
    names = listed_classes("imagenet", tmp_path)
    assert len(names) == 1000 and names[0] == "n01440764" and list(names) == sorted(names)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ant\n", r"too short[\s\S]*found: 1 line\n[\s\S]*fix: add"),
        ("ant\nbee\nant\n", r"has a duplicate[\s\S]*found: 2 lines begin with ant[\s\S]*fix: "),
        ("bee\ncat\n", "lists"),
    ],
)
def test_lists_that_do_not_fit_are_refused(tmp_path: Path, text: str, message: str):
    root = class_folders(tmp_path / "pets", CLASSES, 4)
    with pytest.raises(UserError, match=message):
        image_folder.build(listing(root, text), DatasetContext(0))
    with pytest.raises(UserError, match="the list of classes is missing"):
        image_folder.ends(folder_of(root, classes="none.txt"))
    with pytest.raises(UserError, match=r"home folder of a path is unknown[\s\S]*data\.classes"):
        image_folder.ends(folder_of(root, classes="~nobody-of-this-name/x.txt"))


# --- people, scenes: groups that no split divides -------------------------------------------------


def test_groups_of_an_archive_are_never_divided(tmp_path: Path):
    root = archives(tmp_path / "pets")
    arrays = arrays_of(root / "train.npz")
    group = np.arange(len(arrays["label"])) // 8
    np.savez(root / "train.npz", **arrays, group=np.array([f"person {g}" for g in group]))
    config = npz_jpeg.Config(root=str(root), base_px=16, val_fraction=0.3)
    seen = set()
    for seed in range(4):
        data = npz_jpeg.build(config, DatasetContext(seed))
        train, val = (group[data.parts[split].rows] for split in ("train", "val"))
        assert not {*train} & {*val} and {*train} | {*val} == {*group}
        assert abs(len(val) - 0.3 * len(group)) <= 4
        seen.add(tuple(sorted({*val})))
    assert len(seen) > 1


@pytest.mark.parametrize(
    ("group", "message"),
    [
        (np.zeros(160, int), "two groups"),
        (np.arange(3), "one entry per image"),
        (np.ones(160), "one entry per image"),
    ],
)
def test_groups_that_cannot_be_split_are_refused(tmp_path: Path, group, message: str):
    root = archives(tmp_path / "pets")
    np.savez(root / "train.npz", **arrays_of(root / "train.npz"), group=group)
    with pytest.raises(UserError, match=message):
        npz_jpeg.build(npz_jpeg.Config(root=str(root), base_px=16), DatasetContext(0))


def test_nobody_shows_digits_on_two_sides():
    data = sign_digits.build(sign_digits.Config(base_px=16), DatasetContext(0))
    assert data.info.n_images == {"train": 989, "val": 244, "test": 412}
    stored = [read_archive(resource("datasets", "sign_digits", f)) for f in (TRAIN, TEST)]
    number, digit = {}, {}
    for split, archive in zip(("train", "val", "test"), [stored[0], *stored]):
        numbers = [int(name.partition("_")[2][:4]) for name in archive.images.names]
        number[split] = {numbers[row] for row in data.parts[split].rows}
        digit |= zip(numbers, archive.labels.tolist(), strict=True)
    assert max(number["train"] | number["val"]) < 5132 <= 5136 == min(number["test"])
    # where photos of training and of validation meet, somebody else began with a 0
    both = sorted(number["train"] | number["val"])
    borders = [
        later
        for earlier, later in pairwise(both)
        if (earlier in number["val"]) != (later in number["val"])
    ]
    assert len(borders) > 20 and all(digit[number] == 0 for number in borders)


# --- normalisation --------------------------------------------------------------------------------

TIMM = {
    "imagenet": (constants.IMAGENET_DEFAULT_MEAN, constants.IMAGENET_DEFAULT_STD),
    "inception": (constants.IMAGENET_INCEPTION_MEAN, constants.IMAGENET_INCEPTION_STD),
}


@pytest.mark.parametrize("name", ["image_folder", "npz_jpeg", "cifar10", "cifar100"])
def test_images_are_normalised_as_the_setting_says(tmp_path: Path, name: str):
    plain = {"augment": AugmentConfig(pad=0, flip=0)}
    config, module = small_config(name, tmp_path).model_copy(update=plain), REGISTRY.load(name)

    def images(how: str) -> tuple[DataInfo, list[torch.Tensor]]:
        data = module.build(config.model_copy(update={"normalise": how}), DatasetContext(0))
        return data.info, [
            next(iter(data.train_batches(0, 4)))[0],
            next(iter(data.eval_batches("test", 4)))[0],
            data.calibration_batches(1, 4)[0],
        ]

    def pixels(info: DataInfo, x: torch.Tensor) -> torch.Tensor:
        return x * torch.tensor(info.std)[:, None, None] + torch.tensor(info.mean)[:, None, None]

    own, as_before = images("data")
    assert torch.cat(as_before).abs().mean() > 0.1
    for how, (mean, std) in TIMM.items():
        info, found = images(how)
        assert (info.mean, info.std) == (mean, std)
        assert info.mean != own.mean
        for x, before in zip(found, as_before, strict=True):
            torch.testing.assert_close(pixels(info, x), pixels(own, before))


def test_only_known_normalisations_are_taken_and_earlier_hashes_hold():
    with pytest.raises(UserError, match="normalise"):
        build_model(npz_jpeg.Config, {"normalise": "caffe"}, where="test")
    assert "normalise" not in settled(npz_jpeg.Config())
    assert settled(npz_jpeg.Config(normalise="imagenet"))["normalise"] == "imagenet"


# --- augmentation ---------------------------------------------------------------------------------


def augmented(tmp_path: Path, **options) -> torch.Tensor:
    """The first batch of 32 px images under an augmentation."""
    root = class_folders(tmp_path / "pets", CLASSES, 20, px=32)
    config = image_folder.Config(root=str(root), base_px=32, augment=AugmentConfig(**options))
    return next(image_folder.build(config, DatasetContext(0)).train_batches(0, 16))[0]


def test_each_augmentation_changes_the_images_and_none_does_not(tmp_path: Path):
    still = {"pad": 0.0, "flip": 0.0}
    plain = augmented(tmp_path, **still)
    for options in (
        {"pad": 0.125},
        {"flip": 1.0},
        {"crop_scale": (0.3, 0.6)},
        {"color_jitter": 0.4},
        {"auto_augment": "rand-m9-mstd0.5"},
        {"auto_augment": "original"},
        {"auto_augment": "augmix-m3-w3"},
        {"erase": 1.0},
    ):
        changed = augmented(tmp_path, **(still | options))
        assert changed.shape == plain.shape and not torch.equal(changed, plain), options
    torch.testing.assert_close(augmented(tmp_path, **(still | {"flip": 1.0})), plain.flip(3))
    erased = augmented(tmp_path, **(still | {"erase": 1.0}))
    assert (erased == plain).flatten(1).any(1).all() and (erased == 0).flatten(1).any(1).all()


def test_padding_mirrors_the_border(tmp_path: Path):
    """Every crop is a window of the mirrored image."""
    plain, moved = (augmented(tmp_path, pad=pad, flip=0.0) for pad in (0.0, 0.125))
    wide = torch.nn.functional.pad(plain, (4, 4, 4, 4), mode="reflect")
    windows = wide.unfold(2, 32, 1).unfold(3, 32, 1)
    for image, choices in zip(moved, windows, strict=True):
        distance = (choices.permute(1, 2, 0, 3, 4) - image).abs().amax((2, 3, 4))
        assert distance.min() < 1e-5


@pytest.mark.parametrize("bad", ["rand-x9", "nonsense", ""])
def test_an_unknown_policy_is_a_user_error(tmp_path: Path, bad: str):
    data = image_folder.build(
        folder_of(class_folders(tmp_path / "p", CLASSES, 9)), DatasetContext(0)
    )
    with pytest.raises(UserError, match="unknown augmentation policy"):
        photo_transform(AugmentConfig(auto_augment=bad), data.info)


@pytest.mark.parametrize("scale", [[0.0, 1.0], [0.8, 0.5], [0.5, 1.5]])
def test_crop_scales_are_shares(scale: list[float]):
    with pytest.raises(UserError, match="crop_scale"):
        build_model(AugmentConfig, {"crop_scale": scale}, where="test")
