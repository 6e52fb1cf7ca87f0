"""Converts images to inputs of a bundle's model. Needs only numpy; uses Pillow if installed.

`photo_rule.py` determines which files are images and decodes them, as in training.
"""

import io
import math
import re
import sys
import warnings
import zipfile
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
from bundle_files import BundleError, inside, read_npy
from photo_rule import ENDINGS, composed, folders_of, scan, upright

MAX_UNPACKED, MAX_RATIO = 1 << 30, 200
MAX_HEADER = 1 << 16  # bytes of a netpbm header with comments
_GAP, _NUMBER = rb"(?:\s|#[^\n]*\n)+", rb"([0-9]{1,9})"
NETPBM = re.compile(b"(P[56])" + 3 * (_GAP + _NUMBER) + rb"\s")

# --- files ----------------------------------------------------------------------------------------


def read_image(path):
    """Pixels of an image file, [H, W, C]: uint8, or floats in [0, 1] (in a .npy)."""
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            raise BundleError(f"{path}: not a file")
        return decode(path.read_bytes(), path)
    except OSError as error:
        raise BundleError(f"{path}: cannot read: {error}") from error


def decode(data, name):
    """Pixels of an encoded image; its first bytes determine the format."""
    try:
        if data[:6] == b"\x93NUMPY":
            pixels = read_npy(io.BytesIO(data), len(data))
        elif data[:2] in (b"P5", b"P6"):
            pixels = decode_netpbm(data) if is_plain_netpbm(data) else decode_with_pillow(data)
        else:
            pixels = decode_with_pillow(data)
    except ImportError as error:
        raise BundleError(f"{name}: needs Pillow; or give .npy, .ppm or .pgm") from error
    except Exception as error:  # damaged files raise a dozen unrelated classes in decoders
        raise BundleError(f"{name}: cannot read: {error}") from error
    return checked_pixels(pixels, name)


def checked_pixels(pixels, name):
    """Converts [H, W] or [H, W, C] to [H, W, C]; refuses arrays that are not images."""
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    if pixels.ndim != 3 or 0 in pixels.shape:
        raise BundleError(f"{name}: expected [H, W] or [H, W, C], found {list(pixels.shape)}")
    if pixels.dtype != np.uint8 and pixels.dtype.kind != "f":
        raise BundleError(f"{name}: expected uint8, or floats in [0, 1], found {pixels.dtype}")
    if pixels.dtype != np.uint8 and not (pixels.min() >= 0 and pixels.max() <= 1):
        raise BundleError(f"{name}: floats must lie in [0, 1]")
    return pixels


def is_plain_netpbm(data):
    """Whether `decode_netpbm` supports the file; Pillow reads other bit depths."""
    header = NETPBM.match(data[:MAX_HEADER])
    return header is None or int(header.group(4)) == 255


def decode_netpbm(data):
    """uint8 [H, W, C] of a binary .ppm (P6) or .pgm (P5) with 8-bit samples."""
    header = NETPBM.match(data[:MAX_HEADER])
    if header is None or int(header.group(4)) != 255:
        raise ValueError("expected P5 or P6 with 255 levels")
    shape = (int(header.group(3)), int(header.group(2)), 3 if header.group(1) == b"P6" else 1)
    return np.frombuffer(data, np.uint8, math.prod(shape), header.end()).reshape(shape)


def decode_with_pillow(data):
    """uint8 [H, W] or [H, W, 3] of any image that Pillow reads."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, about metadata
        return np.asarray(upright(io.BytesIO(data)))


# --- preprocessing --------------------------------------------------------------------------------


def preprocess(pixels, spec):
    """Converts pixels [H, W, C] to the model input [C, px, px], by `input` of the manifest.

    The centre square is resized to every size in turn. The first size is that of the stored data
    set, in 8 bits, so the result is rounded there.
    """
    n_channels = spec["shape"][0]
    if pixels.shape[2] == 1 and n_channels == 3:
        pixels = np.repeat(pixels, 3, axis=2)
    if pixels.shape[2] != n_channels:
        raise BundleError(f"expected {n_channels} channels, found {pixels.shape[2]}")
    was_8_bit = pixels.dtype == np.uint8
    levels = pixels.astype(np.float64) * (1 if was_8_bit else 255)
    for index, px in enumerate(spec["resize_px"]):
        if levels.shape[:2] != (px, px):
            rows, columns = (resize_weights(n, px, min(levels.shape[:2])) for n in levels.shape[:2])
            levels = np.einsum("ph,hwc,qw->pqc", rows, levels, columns, optimize=True)
            if index == 0 and was_8_bit:
                levels = np.rint(levels)
    x = (levels / 255 - np.asarray(spec["mean"])) / np.asarray(spec["std"])
    return np.ascontiguousarray(x.transpose(2, 0, 1), dtype=np.float32)


def resize_weights(size, px, side=None):
    """Weights [px, size] of a bilinear resize; when the image shrinks, with antialiasing.

    side: size of the centre square that is resized (default: all).
    """
    side = side or size
    scale = side / px
    reach = max(scale, 1.0)
    centres = (size - side) / 2 + (np.arange(px) + 0.5) * scale
    distance = np.abs(np.arange(size) + 0.5 - centres[:, None]) / reach
    weights = np.maximum(1 - distance, 0)
    return weights / weights.sum(1, keepdims=True)


# --- sets of images -------------------------------------------------------------------------------


def read_samples(folder, manifest):
    """Images of the bundle: inputs [n, C, H, W], their classes [n], predictions of torch [n]."""
    samples = manifest["samples"]
    images = [read_image(inside(folder, sample["path"])) for sample in samples]
    x = np.stack([preprocess(pixels, manifest["input"]) for pixels in images])
    return x, *(np.array([sample[key] for sample in samples]) for key in ("label", "predicted"))


def labelled_images(path, names):
    """`read` and `labels` of images of the user; `read(i)` returns pixels [H, W, C].

    path: a folder with one folder per class, or a .npz file. The .npz has `images` (uint8 [n, H, W]
        or [n, H, W, C]) and `labels`, or JPEG files in the format of hwnas (`jpeg`, `offset`,
        `label`).
    """
    path = Path(path)
    if path.is_dir():
        read, labels = images_of_folder(path, names)
    elif path.suffix == ".npz" and path.is_file():
        read, labels = images_of_archive(path, names)
    else:
        raise BundleError(f"{path}: expected a folder with one folder per class, or a .npz")
    if len(labels) == 0:
        raise BundleError(f"{path}: no images ({', '.join(sorted(ENDINGS))})")
    return read, labels


def images_of_folder(path, names):
    """See `labelled_images`; says what is left out."""
    folders = folders_of(path)
    classes = [composed(sub.name) for sub in folders]
    unknown = [name for name in classes if name not in names]
    if unknown:
        raise BundleError(
            f"{path}: no class is called {', '.join(unknown[:5])}; the classes are "
            f"{', '.join(names[:8])}{', ...' if len(names) > 8 else ''}"
        )
    scans = [scan(sub, (".npy",)) for sub in folders]
    say_what_is_left_out(path, scans)
    found = [
        (sub.parent / file, names.index(name))
        for sub, name, below in zip(folders, classes, scans)
        for file in below.images
    ]
    files, labels = [file for file, _ in found], [label for _, label in found]
    return lambda index: read_image(files[index]), np.array(labels, dtype=int)


def say_what_is_left_out(path, scans):
    """Prints the files that are not read as images, by suffix, and the broken links."""
    counts = sum((found.left_out for found in scans), Counter())
    listed = [f"{n} {ending}" for ending, n in counts.most_common()]
    n_lost = sum(len(found.lost) for found in scans)
    listed += [f"{n_lost} that cannot be read"] if n_lost else []
    if listed:
        print(f"note: {path}: left out: {', '.join(listed)}", file=sys.stderr)
    if any(found.n_heic for found in scans):
        print("note: HEIC photos need: python -m pip install pillow pillow-heif", file=sys.stderr)


def read_arrays(path):
    """The arrays of a .npz by name; refuses files that unpack to too many bytes."""
    with zipfile.ZipFile(path) as archive:
        members = [info for info in archive.infolist() if info.filename.endswith(".npy")]
        size = sum(info.file_size for info in members)
        if size > max(MAX_UNPACKED, MAX_RATIO * path.stat().st_size):
            raise ValueError(f"unpacks to {size:,} bytes")
        found = {}
        for info in members:
            with archive.open(info) as stream:
                found[info.filename[:-4]] = read_npy(stream, info.file_size)
        return found


def images_of_archive(path, names):
    """See `labelled_images`."""
    try:
        arrays = read_arrays(path)
    except (
        *(OSError, ValueError, EOFError, NotImplementedError, RuntimeError),
        *(zipfile.BadZipFile, zlib.error),
    ) as error:
        raise BundleError(f"{path}: cannot read: {error}") from error
    if {"images", "labels"} <= set(arrays):
        images, labels = arrays["images"], arrays["labels"]
        n_images = len(images)
    elif {"jpeg", "offset", "label"} <= set(arrays):
        images, labels, offset = arrays["jpeg"], arrays["label"], arrays["offset"]
        n_images = len(offset) - 1
        if list(arrays.get("class_names", names)) != list(names):
            raise BundleError(f"{path}: its class_names differ from those of the bundle")
    else:
        raise BundleError(f"{path}: expected images and labels, found {', '.join(arrays)}")
    if labels.shape != (n_images,) or labels.dtype.kind not in "iu":
        raise BundleError(f"{path}: expected {n_images} whole numbers as labels")
    if n_images and not 0 <= labels.min() <= labels.max() < len(names):
        raise BundleError(f"{path}: labels must lie in [0, {len(names)})")

    def read(index):
        where = f"{path}: image {index}"
        if "images" in arrays:
            return checked_pixels(images[index], where)
        return decode(images[offset[index] : offset[index + 1]].tobytes(), where)

    return read, labels
