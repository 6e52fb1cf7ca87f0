"""CIFAR-10 and CIFAR-100 from the official Python batches, or from archives of JPEG files."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hwnas.core.errors import UserError
from hwnas.core.rng import rng
from hwnas.interfaces import DataModule, Split
from hwnas.training.data import stratified_split
from hwnas.training.decode import decode, good_rows
from hwnas.training.npz import read_archive
from hwnas.training.photo_config import AugmentConfig, data_root
from hwnas.training.photos import Photos, photo_data

__all__ = ["cifar"]

log = logging.getLogger(__name__)

PX = 32

Labelled = tuple[NDArray[np.uint8], NDArray[np.int64]]
"""Pixels [n, 32, 32, 3] and labels [n]."""


def cifar(
    name: Literal["cifar10", "cifar100"],
    n_classes: int,
    *,
    root: str,
    n_val: int,
    download: bool,
    augment: AugmentConfig,
    seed: int,
    n_workers: int,
) -> DataModule:
    """The data set in `root`: official test images as test, a stratified `n_val` of train as val.

    `root` holds `train.npz` and `val.npz` (the latter are official TEST images; see `npz`), or the
    folder of the Python batches, which torchvision checks before it unpickles, and downloads.

    Raises:
        UserError: the files are missing, damaged or of other classes.
    """
    folder = data_root(root)
    if (folder / "train.npz").exists():
        names, train, test = _from_archives(folder, n_threads=max(1, n_workers))
    else:
        names, train, test = _from_batches(name, folder, download=download)
    if len(names) != n_classes:
        raise UserError(
            f"these are not the classes of {name}", expected=n_classes, found=names, where=folder
        )
    n = len(train[1])
    if n_val >= n:
        raise UserError("data.n_val leaves no training images", expected=f"< {n}", found=n_val)
    official, held_out = (Photos(x, np.arange(len(y)), y) for x, y in (train, test))
    rows = stratified_split(train[1], (1 - n_val / n,), rng(seed, "data/split"))
    parts: dict[Split, Photos] = {
        "train": official.take(rows[0]),
        "val": official.take(rows[1]),
        "test": held_out,
    }
    return photo_data(name, names, parts, augment, seed=seed, n_workers=n_workers)


def _from_archives(folder: Path, *, n_threads: int) -> tuple[Sequence[str], Labelled, Labelled]:
    found = []
    for path in (folder / "train.npz", folder / "val.npz"):
        archive = read_archive(path)
        pixels, broken = decode(archive.images, PX, n_threads=n_threads)
        good_rows(archive.images, broken, skip=False, where=path)
        found.append((archive.class_names, (pixels, archive.labels)))
    (names, train), (test_names, test) = found
    if names != test_names:
        raise UserError("train and test have other classes", found=test_names, where=folder)
    return names, train, test


def _from_batches(
    name: Literal["cifar10", "cifar100"], folder: Path, *, download: bool
) -> tuple[Sequence[str], Labelled, Labelled]:
    from torchvision import datasets

    kind = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    absent = not (folder / kind.base_folder).is_dir()
    if absent and download:
        log.info("downloading %s into %s", name, folder)
    try:
        splits = [kind(str(folder), train=train, download=download and absent) for train in (1, 0)]
    except (RuntimeError, OSError, ValueError) as error:
        raise UserError(
            f"{name} is not there" if absent else f"{name} is damaged",
            expected=f"{kind.base_folder}/ with the official Python batches, or train.npz, val.npz",
            found=f"{type(error).__name__}: {error}",
            where=folder,
            fix=f"unpack {kind.url} there, or set data.root or the environment variable HWNAS_DATA",
        ) from error
    train, test = [(s.data, np.asarray(s.targets, dtype=np.int64)) for s in splits]
    return splits[0].classes, train, test
