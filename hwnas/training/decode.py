"""Decodes images to square RGB pixels and caches them; reports broken files."""

from __future__ import annotations

import errno
import logging
import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hwnas.core.confined import open_unlinked
from hwnas.core.env import cache_folder
from hwnas.core.errors import UserError
from hwnas.core.locks import wait_for_lock
from hwnas.core.photo_rule import reads_heic, upright
from hwnas.core.store import content_hash, read_json, write_json
from hwnas.training.file_hashes import ChangedMeanwhile

__all__ = ["Encoded", "decode", "good_rows", "square_rgb"]

log = logging.getLogger(__name__)

VERSION = 2  # version of `square_rgb`; part of the cache key
ZEROS = 1 << 20  # bytes per write
SHOWN = 5  # maximum number of broken images named in an error

Pixels = NDArray[np.uint8]
Broken = list[tuple[int, str]]
"""Rows that could not be decoded (their pixels are 0), with the reason."""


@dataclass(frozen=True)
class Encoded:
    """n image files. `open(i)` opens one for reading; `key` is a hash of their contents in order.

    `open` raises `ChangedMeanwhile` if the file has changed since `key` was computed.
    """

    names: Sequence[str]
    open: Callable[[int], IO[bytes]]
    key: str


def square_rgb(stream: IO[bytes], px: int) -> Pixels:
    """The upright centre square of an image file as RGB: uint8 [px, px, 3].

    Decoded by `upright`. Grey becomes RGB. The image is resized once, bilinear with antialiasing,
    as in `exporters.manifest.InputSpec`.

    Raises:
        Exception: as `upright`.
    """
    image = upright(stream).convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    if image.size != (px, px):
        box = (left, top, left + side, top + side)
        image = image.resize((px, px), Image.Resampling.BILINEAR, box=box)
    return np.asarray(image)


def decode(images: Encoded, px: int, *, n_threads: int = 1) -> tuple[Pixels, Broken]:
    """Pixels uint8 [n, px, px, 3] of all images (memory-mapped if possible), and the broken ones.

    The result is stored in $HWNAS_CACHE (default ~/.cache/hwnas) for later stages and runs. If the
    cache is not writable, pixels are decoded into memory.
    """
    name = content_hash([VERSION, px, images.key, *["heic"] * reads_heic()])
    shape = (len(images.names), px, px, 3)
    try:
        base = cache_folder() / "decoded" / name
        base.parent.mkdir(parents=True, exist_ok=True)
        with open_unlinked(base.with_suffix(".part")) as part:
            wait_for_lock(part)  # another process may decode the same images
            cached = _cached(base, shape)
            if cached is None:
                log.info("decoding %d images at %d px into %s", shape[0], px, base.parent)
                broken = _decode_into(part, images, shape, n_threads)
                write_json(base.with_suffix(".json"), {"schema_version": 1, "broken": broken})
                os.replace(part.name, base.with_suffix(".npy"))
                cached = _cached(base, shape)
            else:
                _remove_empty(part.name)
        if cached is not None:
            return cached
    except (OSError, UserError) as error:
        log.warning("cannot cache decoded images: %s", _place(error))
    pixels = np.zeros(shape, np.uint8)
    return pixels, _fill(pixels, images, n_threads)


def _place(error: OSError | UserError) -> str:
    """What was refused, where, and what to do."""
    if isinstance(error, UserError) or not error.strerror:
        return str(error)
    named = f"{error.filename}: " if error.filename else ""
    return f"{named}{error.strerror}; set HWNAS_CACHE to use another folder"


def _words(error: Exception) -> str:
    """Why an image does not decode; the name of the exception only if it says nothing else."""
    text = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return text if " " in text else f"{type(error).__name__}: {text}".removesuffix(": ")


def good_rows(images: Encoded, broken: Broken, *, skip: bool, where: object) -> NDArray[np.int64]:
    """Rows [n] of the images that were decoded.

    skip: whether to log and leave out broken images. If not, they are an error.
    where: path of the images, for the error.

    Raises:
        UserError: some images are broken, and `skip` is False.
    """
    if broken:
        named = "".join(f"\n    {images.names[i]}: {why}" for i, why in broken[:SHOWN])
        more = f"\n    and {len(broken) - SHOWN} more" if len(broken) > SHOWN else ""
        n = len(images.names)
        if not skip:
            raise UserError(
                f"{len(broken)} of {n} images cannot be decoded",
                found=named + more,
                where=where,
                fix="repair or remove them, or leave them out with --set data.skip_broken=true",
            )
        left_out = f"left out {len(broken)} of {n} images of {where}, which cannot be decoded"
        log.warning("%s:%s", left_out, named + more)
    rows = np.ones(len(images.names), dtype=bool)
    rows[[i for i, _ in broken]] = False
    return np.flatnonzero(rows)


def _cached(base: Path, shape: tuple[int, ...]) -> tuple[Pixels, Broken] | None:
    try:
        pixels = np.load(base.with_suffix(".npy"), mmap_mode="r", allow_pickle=False)
        broken = [(int(i), str(why)) for i, why in read_json(base.with_suffix(".json"))["broken"]]
    except (OSError, ValueError, TypeError, KeyError, UserError):
        return None  # missing or damaged, so it is rebuilt
    return (pixels, broken) if pixels.shape == shape and pixels.dtype == np.uint8 else None


def _remove_empty(path: str) -> None:
    """Removes an empty file; another process may be faster."""
    with suppress(FileNotFoundError):
        if os.path.getsize(path) == 0:
            os.unlink(path)


def _decode_into(
    part: IO[bytes], images: Encoded, shape: tuple[int, ...], n_threads: int
) -> Broken:
    """Writes a .npy file of `shape` into `part`."""
    part.truncate(0)
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(part, header)
    part.flush()
    offset = os.path.getsize(part.name)
    _reserve(part, offset, int(np.prod(shape)))
    pixels = np.memmap(part.name, np.uint8, "r+", offset, shape)
    broken = _fill(pixels, images, n_threads)
    pixels.flush()
    return broken


def _reserve(part: IO[bytes], offset: int, n_bytes: int) -> None:
    """Reserves disk space before a file is mapped, so that a full disk is no SIGBUS later.

    macOS has no `posix_fallocate`, and some file systems refuse it; then zeros are written.
    """
    try:
        os.posix_fallocate(part.fileno(), offset, n_bytes)
        return
    except AttributeError:
        pass
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            raise
    part.seek(offset)
    for start in range(0, n_bytes, ZEROS):
        part.write(bytes(min(ZEROS, n_bytes - start)))
    part.flush()


def _fill(pixels: Pixels, images: Encoded, n_threads: int) -> Broken:
    px = pixels.shape[1]

    def fill(i: int) -> tuple[int, str] | None:
        try:
            with images.open(i) as stream:
                pixels[i] = square_rgb(stream, px)
        except ChangedMeanwhile:
            raise
        except Exception as error:  # decoders of Pillow can raise any exception
            return i, _words(error)
        return None

    pool = ThreadPoolExecutor(n_threads)  # Pillow releases the interpreter lock while it decodes
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, about metadata
            return [result for result in pool.map(fill, range(len(pixels))) if result is not None]
    finally:
        pool.shutdown(cancel_futures=True)
