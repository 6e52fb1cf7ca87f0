"""Data sets of photos, with seeded augmentation per image in several processes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from timm.data.random_erasing import RandomErasing

from hwnas.core.errors import UserError, no_workers
from hwnas.core.rng import rng, stable_seed
from hwnas.interfaces import DataInfo, Split
from hwnas.training.augment import photo_transform
from hwnas.training.data import Batch, part_of_batch, require_train_images
from hwnas.training.decode import decode, good_rows
from hwnas.training.images import normalise
from hwnas.training.npz import read_archive
from hwnas.training.photo_config import NORMALISATIONS, AugmentConfig, MeanStd, Normalise
from hwnas.training.workers import ignore_interrupts, own_global_state, seed_globals

__all__ = ["PhotoData", "Photos", "photo_data", "photos_of_archives"]

Arrays = tuple[NDArray[np.float32], NDArray[np.int64]]
"""Images [B, px, px, 3] and labels [B]."""

N_STATISTICS = 10_000  # maximum number of training images for mean and std


@dataclass(frozen=True)
class Photos:
    """One split: `rows` [n] of `pixels` (uint8 [N, px, px, 3], shared) and their `labels` [n].

    names, hashes: [N]; names of the images and hashes of their contents.
    broken: maps rows of images that cannot be decoded to their label and the reason.
    """

    pixels: NDArray[np.uint8]
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    names: Sequence[str]
    hashes: Sequence[str]
    broken: Mapping[int, tuple[int, str]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, rows: NDArray[np.int64]) -> Photos:
        """The given rows of this split."""
        return replace(self, rows=self.rows[rows], labels=self.labels[rows])

    def unit(self, index: NDArray[np.int64] | slice) -> torch.Tensor:
        """Images `index` of the split: float32 [B, 3, px, px] in [0, 1], channels_last."""
        return _unit(self.pixels[self.rows[index]])


def photos_of_archives(
    paths: Sequence[Path], px: int, *, skip_broken: bool, n_threads: int
) -> tuple[tuple[str, ...], list[Photos]]:
    """Class names and photos of archives of JPEG files (`npz`), as centre squares of px x px.

    Raises:
        UserError: archives are missing, damaged or have different classes; or broken images.
    """
    archives = [read_archive(path) for path in paths]
    names = archives[0].class_names
    found = []
    for path, archive in zip(paths, archives, strict=True):
        if archive.class_names != names:
            problem = "the two archives have different classes"
            raise UserError(
                problem,
                expected=f"the classes {', '.join(names)}, as in {paths[0].name}",
                found=f"the classes {', '.join(archive.class_names)}",
                where=path,
                fix="write both archives with the same `class_names`, in the same order",
            )
    for path, archive in zip(paths, archives, strict=True):
        pixels, broken = decode(archive.images, px, n_threads=n_threads)
        rows = good_rows(archive.images, broken, skip=skip_broken, where=path)
        labels, contents = archive.labels, archive.contents
        flaws = {row: (int(labels[row]), why) for row, why in broken}
        found.append(Photos(pixels, rows, labels[rows], *contents, flaws))
    return names, found


def photo_data(
    name: str,
    class_names: Sequence[str],
    parts: Mapping[Split, Photos],
    augment: AugmentConfig,
    *,
    seed: int,
    n_workers: int = 0,
    digests: Mapping[str, str],
    normalise: Normalise = "data",
    all_classes: bool = True,
    drawn: Collection[Split] = (),
) -> PhotoData:
    """A data set of photos.

    digests: see `DataInfo`.
    normalise: mean and std of (at most 10,000) training images, or fixed values.
    all_classes: whether every class needs training images.
    drawn: splits that are drawn from the training images, with the share data.SPLIT_fraction.

    Raises:
        UserError: fewer than two classes, a class without training images, an empty split, or an
            unknown augmentation policy.
    """
    counts = np.bincount(parts["train"].labels, minlength=len(class_names))
    empty = [n for n, count in zip(class_names, counts) if count == 0 and all_classes]
    if len(class_names) < 2 or empty:
        raise UserError(
            f"the data set {name!r} has too few classes, or a class without training images",
            expected="at least two classes, each with training images",
            found=f"no training image of {', '.join(empty)}"
            if empty
            else f"{len(class_names)} classes: {', '.join(class_names)}",
            fix="add images of these classes, or remove the classes",
        )
    for split in parts:
        if not len(parts[split]):
            raise UserError(
                f"data set {name!r} has no {split} images",
                expected="at least one image in each of train, val and test",
                found=", ".join(f"{len(part)} {other}" for other, part in parts.items()),
                where="data",
                fix="add images to every class" + _or_change(split, drawn),
            )
    mean, std = NORMALISATIONS.get(normalise) or _mean_std(parts["train"])
    info = DataInfo(
        name=name,
        class_names=tuple(class_names),
        mean=mean,
        std=std,
        base_px=parts["train"].pixels.shape[1],
        n_images={split: len(part) for split, part in parts.items()},
        digests=dict(digests),
    )
    photo_transform(augment, info)  # refuses policies that timm does not have
    return PhotoData(info, parts, augment, seed, n_workers)


def _or_change(split: Split, drawn: Collection[Split]) -> str:
    """The settings by which an empty split gets images; "" if there are none."""
    if split == "train" and drawn:
        return f", or lower {' or '.join(f'data.{one}_fraction' for one in drawn)}"
    return f", or raise data.{split}_fraction" if split in drawn else ""


@dataclass(frozen=True)
class PhotoData:
    """An `interfaces.DataModule` of decoded photos.

    Every image of every epoch is augmented from its own seed. So batches do not depend on
    `n_workers` (processes that prepare them; 0 = this process) or on the batch size.
    """

    info: DataInfo
    parts: Mapping[Split, Photos]
    augment: AugmentConfig
    seed: int
    n_workers: int = 0

    def train_batches(
        self, epoch: int, batch_size: int, *, rank: int = 0, n_ranks: int = 1
    ) -> Iterator[Batch]:
        """Augmented training batches in an order fixed by (seed, epoch); drops a partial last one.

        Each batch is split into `n_ranks` equal parts, and part `rank` is returned.

        Raises:
            UserError: there are fewer training images than one batch.
        """
        require_train_images(self.info, batch_size, key="batch_size")
        order = rng(self.seed, "data/order", epoch).permutation(len(self.parts["train"]))
        full = len(order) - len(order) % batch_size
        index = order[:full].reshape(-1, batch_size)[:, part_of_batch(batch_size, rank, n_ranks)]
        batches = _TrainBatches(self, index, epoch)
        prepared: Iterable[Arrays] = (batches[i] for i in range(len(batches)))
        if self.n_workers:
            prepared = torch.utils.data.DataLoader(
                batches,
                batch_size=None,
                num_workers=self.n_workers,
                collate_fn=lambda arrays: arrays,  # not the default: keep numpy
                worker_init_fn=ignore_interrupts,
                generator=torch.Generator(),  # the default draws from the global generator
                multiprocessing_context="fork",  # shares the pixels
            )
        try:
            started = iter(prepared)
        except OSError as error:
            raise no_workers(error) from error
        return ((torch.from_numpy(x).permute(0, 3, 1, 2), torch.from_numpy(y)) for x, y in started)

    def eval_batches(self, split: Split, batch_size: int) -> Iterator[Batch]:
        """All images of a split in fixed order, without augmentation."""
        part = self.parts[split]
        for start in range(0, len(part), batch_size):
            index = slice(start, start + batch_size)
            yield self.normalise(part.unit(index)), torch.from_numpy(part.labels[index])

    def calibration_batches(self, n_batches: int, batch_size: int) -> list[torch.Tensor]:
        """A fixed, seeded sample of TRAINING images, not augmented, for BN and INT8 calibration.

        Raises:
            UserError: there are too few training images.
        """
        n = n_batches * batch_size
        require_train_images(self.info, n, key="calibration: n_batches * batch_size")
        rows = rng(self.seed, "data/calibration").permutation(len(self.parts["train"]))[:n]
        return [
            self.normalise(self.parts["train"].unit(index))
            for index in rows.reshape(n_batches, batch_size)
        ]

    def contents(self, split: Split) -> dict[str, str]:
        """Maps the name of every image of a split to its content hash."""
        part = self.parts[split]
        return {part.names[row]: part.hashes[row] for row in part.rows.tolist()}

    def normalise(self, x: torch.Tensor) -> torch.Tensor:
        """Images [B, 3, px, px] in [0, 1], normalised by mean and std of the data set."""
        return normalise(x, self.info.mean, self.info.std)

    @cached_property
    def transform(self) -> Any:
        """The augmentation: a Pillow image with a border -> a Pillow image without border."""
        return photo_transform(self.augment, self.info)

    @cached_property
    def eraser(self) -> Any:
        """Random erasing of timm for one normalised image [3, px, px], in place; None: off."""
        return RandomErasing(self.augment.erase, device="cpu") if self.augment.erase else None


class _TrainBatches(torch.utils.data.Dataset[Arrays]):
    """Batch i of an epoch: the augmented images `index[i]`, as arrays.

    Tensors would be passed between processes by file descriptors. A killed process leaves these
    behind, and an interrupted one raises errors for them.
    """

    def __init__(self, data: PhotoData, index: NDArray[np.int64], epoch: int) -> None:
        self._data, self._index, self._epoch = data, index, epoch

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, i: int) -> Arrays:
        data, index = self._data, self._index[i]
        part, stream = data.parts["train"], (data.seed, "data/augment", self._epoch)
        border = data.augment.border(data.info.base_px)
        padding = ((0, 0), (border, border), (border, border), (0, 0))
        pixels = np.pad(part.pixels[part.rows[index]], padding, "reflect")
        images = []
        with own_global_state():
            for image, row in zip(pixels, index.tolist()):
                seed_globals(stable_seed(*stream, row))
                images.append(np.asarray(data.transform(Image.fromarray(image))))
            x = data.normalise(_unit(np.stack(images)))
            if data.eraser is not None:
                for tensor, row in zip(x, index.tolist()):
                    seed_globals(stable_seed(*stream, row, "erase"))
                    data.eraser(tensor)
        return x.permute(0, 2, 3, 1).contiguous().numpy(), part.labels[index]


def _mean_std(part: Photos) -> MeanStd:
    """Mean and std per channel, [3], of the first images, a random sample of the shuffled split."""
    n, total, squares = min(len(part), N_STATISTICS), torch.zeros(3), torch.zeros(3)
    for start in range(0, n, 500):
        x = part.unit(slice(start, min(start + 500, n))).double()
        total, squares = total + x.mean((2, 3)).sum(0), squares + x.square().mean((2, 3)).sum(0)
    mean = total / n
    std = (squares / n - mean.square()).clamp_min(1e-6).sqrt()
    return tuple(mean.tolist()), tuple(std.tolist())


def _unit(pixels: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
