"""Small made-up photo data sets in every stored form, for the loaders to read."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from unittest import mock

import numpy as np
from PIL import Image

from hwnas.core import photo_rule
from hwnas.core.config import StrictModel
from tests.bundles import kit_module


def photo(label: int, index: int, px: int = 32) -> Image.Image:
    """A noisy patch whose hue tells its class; no two are equal."""
    noise = np.random.default_rng([label, index]).integers(0, 90, size=(px, px, 3))
    hue = np.random.default_rng(label).integers(0, 160, size=3)
    return Image.fromarray((noise + hue).astype(np.uint8))


def encoded(image: Image.Image, format: str = "JPEG") -> bytes:
    stream = io.BytesIO()
    image.save(stream, format)
    return stream.getvalue()


def write_archive(
    path: Path, files: Sequence[bytes], labels: Sequence[int], n_classes: int
) -> Path:
    """An archive of `training.npz`'s format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(
        path,
        jpeg=np.frombuffer(b"".join(files), dtype=np.uint8),
        offset=np.cumsum([0, *map(len, files)]),
        label=np.array(labels, dtype=np.int16),
        name=np.array([f"{i:05d}.jpg" for i in range(len(files))]),
        class_names=np.array([f"class {i}" for i in range(n_classes)]),
    )
    return path


def archives(folder: Path, n_classes: int = 4, n_train: int = 40, n_test: int = 10) -> Path:
    """`train.npz` and `val.npz` with so many images per class."""
    for name, first, n in (("train.npz", 0, n_train), ("val.npz", n_train, n_test)):
        labels = [label for _ in range(n) for label in range(n_classes)]
        files = [encoded(photo(label, first + i // n_classes)) for i, label in enumerate(labels)]
        write_archive(folder / name, files, labels, n_classes)
    return folder


def class_folders(folder: Path, names: Sequence[str], n: int, first: int = 0, px: int = 40) -> Path:
    """`folder/NAME/*.png`, n per class."""
    for label, name in enumerate(names):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(n):
            photo(label, first + i, px).save(folder / name / f"{i:03d}.png")
    return folder


def write_text(folder: Path, n_words: int = 12_000, name: str = "text.txt") -> Path:
    """A folder with a text of random words; each word makes another one more probable."""
    random, word = np.random.default_rng(0), 0
    words = []
    for _ in range(n_words):
        word = (3 * word + 1) % 20 if random.random() < 0.7 else int(random.integers(20))
        words.append(f"w{word}" + "\n" * (random.random() < 0.1))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(" ".join(words))
    return folder


def small_config(name: str, folder: Path) -> StrictModel:
    """A config of data set `name` and a small made-up instance of it below `folder`."""
    from hwnas.training.datasets import REGISTRY

    module = REGISTRY.load(name)
    root = str(folder / name)
    if name in ("digits", "sign_digits"):
        return module.Config(base_px=24)
    if name in ("cifar10", "cifar100"):
        n_classes = module.Config.N_CLASSES
        archives(folder / name, n_classes, n_train=200 // n_classes + 6, n_test=4)
        return module.Config(root=root, n_val=2 * n_classes)
    if name == "npz_jpeg":
        archives(folder / name)
        return module.Config(root=root, base_px=24)
    if name == "image_folder":
        class_folders(folder / name, ["ant", "bee", "cat"], 60)
        return module.Config(root=root, base_px=24)
    if name == "text":
        return module.Config(root=str(write_text(folder / name)), files=("text.txt",), steps=5)
    raise NotImplementedError(f"give tests/photos.py a small instance of the new data set {name}")


@contextlib.contextmanager
def without_heic() -> Iterator[None]:
    """As where pillow-heif is not installed, for hwnas and for the kit."""
    rules = photo_rule, kit_module("photo_rule")
    with mock.patch.dict(sys.modules, {"pillow_heif": None}):
        for rule in rules:
            rule.reads_heic.cache_clear()
        yield
    for rule in rules:
        rule.reads_heic.cache_clear()
