"""Archives of JPEG files in one .npz: concatenated `jpeg`, `offset`, `label`, `class_names`.

Arrays `name` and `group` with one value per image are optional; see `read_groups`.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwnas.core.arrays import read_npz
from hwnas.core.errors import DataAbsent, UserError, parts_of
from hwnas.core.store import file_hash
from hwnas.interfaces import DataIdentity
from hwnas.training.decode import Encoded
from hwnas.training.file_hashes import bytes_hash
from hwnas.training.identity import CUT_FROM_TRAIN, check_class_names

__all__ = [
    "JpegArchive",
    "identity_of_archives",
    "read_archive",
    "read_class_names",
    "read_groups",
]

FORMAT = (
    "arrays jpeg uint8 [bytes], offset int64 [n + 1], label int [n], class_names str [classes],"
    " name str [n] (optional)"
)


@dataclass(frozen=True)
class JpegArchive:
    """n encoded images with labels [n], indices of `class_names`."""

    images: Encoded
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    has_names: bool

    @property
    def contents(self) -> tuple[list[str], list[str]]:
        """Names (`CLASS/NAME`, all different) and content hashes of the images.

        An image without a name is named after its content hash.
        """
        hashes = [bytes_hash(self.images.open(i).read()) for i in range(len(self.labels))]
        stems = self.images.names if self.has_names else [digest[:12] for digest in hashes]
        names: dict[str, None] = {}
        for stem, label in zip(stems, self.labels.tolist(), strict=True):
            name = f"{self.class_names[label]}/{stem}"
            while name in names:
                name += "'"
            names[name] = None
        return [*names], hashes


def read_class_names(path: Path) -> tuple[str, ...]:
    """Reads only the names of the classes, which is fast.

    Raises:
        UserError: the file is missing or has another format.
    """
    with _opened(path, ("class_names",)) as arrays:
        return _class_names(arrays["class_names"], path)


def read_groups(path: Path) -> NDArray[np.int64] | None:
    """Group numbers [n] from the array `group` of an archive; None without this array.

    Images of one group, e.g. of one person or scene, must all be in the same split.

    Raises:
        UserError: the file is missing, or the array is not one number or text per image.
    """
    with _opened(path, ("group", "label")) as arrays:
        group, n = arrays.get("group"), len(arrays["label"])
    if group is None:
        return None
    if group.dtype.kind not in "iuU" or group.shape != (n,):
        raise UserError(
            "the array `group` does not have one entry per image",
            expected=f"one number or text for each of the {n} images",
            found=f"an array of {group.dtype} with shape {list(group.shape)}",
            where=path,
        )
    return np.unique(group, return_inverse=True)[1].astype(np.int64)


def read_archive(path: Path) -> JpegArchive:
    """Reads the whole archive without unpickling or decoding.

    Raises:
        UserError: the file is missing, damaged, has another format, or has a label without class.
    """
    with _opened(path, ("jpeg", "offset", "label", "class_names", "name")) as arrays:
        jpeg, offset, label = arrays["jpeg"], arrays["offset"], arrays["label"]
        class_names = _class_names(arrays["class_names"], path)
        names = arrays["name"] if "name" in arrays else np.arange(len(label)).astype(str)
    n = len(label)
    fits = (
        jpeg.dtype == np.uint8
        and jpeg.ndim == offset.ndim == label.ndim == names.ndim == 1
        and offset.dtype.kind in "iu"
        and label.dtype.kind in "iu"
        and names.dtype.kind == "U"
        and len(offset) == n + 1 == len(names) + 1
    )
    if not fits:
        found = {"jpeg": jpeg, "offset": offset, "label": label, "name": names}
        shapes = ", ".join(
            f"`{key}` of {value.dtype} with shape {list(value.shape)}"
            for key, value in found.items()
        )
        raise UserError("not an archive of JPEG files", expected=FORMAT, found=shapes, where=path)
    _check_offsets(offset.astype(np.int64), len(jpeg), path)
    if n and not (label.min() >= 0 and label.max() < len(class_names)):
        raise UserError(
            "a label is not the number of a class",
            expected=f"labels from 0 to {len(class_names) - 1} for {len(class_names)} class_names",
            found=f"labels from {label.min()} to {label.max()}",
            where=path,
        )
    view = memoryview(jpeg.data)

    def open_image(i: int) -> io.BytesIO:
        return io.BytesIO(view[int(offset[i]) : int(offset[i + 1])])

    images = Encoded(names.tolist(), open_image, key=file_hash(path))
    return JpegArchive(images, label.astype(np.int64), class_names, "name" in arrays)


def identity_of_archives(paths: Mapping[str, Path]) -> DataIdentity:
    """Identity of a data set in archives: its classes, and the content hash of every image.

    paths: maps the parts of the data set (`DataIdentity`) to archives.

    Raises:
        UserError: as in `read_archive`.
    """
    archives = {part: read_archive(path) for part, path in paths.items()}
    files = {part: dict(zip(*archive.contents)) for part, archive in archives.items()}
    return DataIdentity(archives["train"].class_names, files, CUT_FROM_TRAIN)


@contextmanager
def _opened(path: Path, names: tuple[str, ...]) -> Iterator[dict[str, NDArray[Any]]]:
    if not path.is_file():
        raise DataAbsent(
            "a file of the data set is missing",
            expected=FORMAT,
            where=path,
            fix="copy the file there, or set data.root or the environment variable HWNAS_DATA",
        )
    try:
        yield read_npz(path, names=names)
    except (OSError, ValueError, KeyError) as error:
        found = parts_of(error)["found"]
        raise UserError(
            "not an archive of JPEG files", expected=FORMAT, found=found, where=path
        ) from error


def _check_offsets(offset: NDArray[np.int64], n_bytes: int, path: Path) -> None:
    """Checks that `offset` cuts the array `jpeg` of `n_bytes` into images."""
    falls = np.flatnonzero(np.diff(offset) < 0)
    if len(falls):
        i = int(falls[0])
        found = f"offset[{i}] = {offset[i]}, offset[{i + 1}] = {offset[i + 1]}"
    elif offset[0] < 0 or offset[-1] > n_bytes:
        found = f"offsets from {offset[0]} to {offset[-1]}"
    else:
        return
    raise UserError(
        "the array `offset` does not cut the array `jpeg` into images",
        expected=f"offsets that never decrease, from 0 to at most {n_bytes}, the size of `jpeg`",
        found=found,
        where=path,
    )


def _class_names(names: NDArray[Any], path: Path) -> tuple[str, ...]:
    if names.dtype.kind != "U" or names.ndim != 1 or len(set(names.tolist())) != len(names):
        raise UserError(
            "the array `class_names` does not have a different name for each class",
            expected="an array of different texts [classes]",
            found=f"an array of {names.dtype} with shape {list(names.shape)}"
            + ", with a text twice" * (names.dtype.kind == "U" and names.ndim == 1),
            where=path,
        )
    check_class_names(names.tolist(), where=path)
    return tuple(names.tolist())
