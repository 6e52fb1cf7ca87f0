"""Images to the input of a bundle's model, as its manifest says. Numpy only; Pillow if present."""

import io
import zipfile
from pathlib import Path

import numpy as np
from bundle_files import BundleError, inside, read_npy

PLAIN = (".npy", ".ppm", ".pgm")  # read without Pillow
SUFFIXES = (*PLAIN, ".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")


# --- files ----------------------------------------------------------------------------------------


def read_image(path):
    """Pixels of an image file, [H, W, C]: uint8, or floats in [0, 1] (of a .npy)."""
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            raise BundleError(f"{path}: not a file")
        return decode(path.read_bytes(), path.name)
    except OSError as error:
        raise BundleError(f"{path}: cannot read: {error}") from error


def decode(data, name):
    """Pixels of an encoded image; what it is shows in its first bytes."""
    try:
        if data[:6] == b"\x93NUMPY":
            pixels = read_npy(io.BytesIO(data), len(data))
        elif data[:2] in (b"P5", b"P6"):
            pixels = decode_netpbm(data)
        else:
            pixels = decode_with_pillow(data)
    except ImportError as error:
        raise BundleError(f"{name}: needs Pillow; or give .npy, .ppm or .pgm") from error
    except Exception as error:  # damaged files make decoders raise a dozen unrelated classes
        raise BundleError(f"{name}: cannot read: {error}") from error
    return checked_pixels(pixels, name)


def checked_pixels(pixels, name):
    """[H, W, C] of [H, W] or [H, W, C]; refuses what is no image."""
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    if pixels.ndim != 3 or 0 in pixels.shape:
        raise BundleError(f"{name}: expected [H, W] or [H, W, C], found {list(pixels.shape)}")
    if pixels.dtype != np.uint8 and pixels.dtype.kind != "f":
        raise BundleError(f"{name}: expected uint8, or floats in [0, 1], found {pixels.dtype}")
    if pixels.dtype != np.uint8 and not (pixels.min() >= 0 and pixels.max() <= 1):
        raise BundleError(f"{name}: floats must lie in [0, 1]")
    return pixels


def decode_netpbm(data):
    """uint8 [H, W, C] of a binary .ppm (P6) or .pgm (P5) with 8-bit samples."""
    fields, at = [], 0
    while len(fields) < 4:
        while data[at : at + 1].isspace():
            at += 1
        if data[at : at + 1] == b"#":
            at = data.index(b"\n", at)
            continue
        end = at
        while not data[end : end + 1].isspace():
            end += 1
            if end > len(data):
                raise ValueError("header is cut off")
        fields.append(data[at:end])
        at = end
    magic, (width, height, depth) = fields[0], map(int, fields[1:])
    if magic not in (b"P5", b"P6") or depth != 255:
        raise ValueError("expected P5 or P6 with 255 levels")
    shape = (height, width, 3 if magic == b"P6" else 1)
    return np.frombuffer(data, np.uint8, int(np.prod(shape)), at + 1).reshape(shape)


def decode_with_pillow(data):
    """uint8 of any image that Pillow reads: upright, transparency over white, 16 bits as 8."""
    from PIL import Image, ImageOps

    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    if image.mode.startswith("I"):  # Pillow's own conversion would saturate
        image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
    if image.mode in ("LA", "PA", "RGBA", "RGBa", "La") or "transparency" in image.info:
        over = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", over.size, "white"), over)
    return np.asarray(image if image.mode == "L" else image.convert("RGB"))


# --- preprocessing --------------------------------------------------------------------------------


def preprocess(pixels, spec):
    """Pixels [H, W, C] to the model's input [C, px, px], as the manifest's `input` says.

    The centre square is resized to every size in turn. The first of them is the size that the
    data set was kept at, in 8 bits: so it is rounded here too.
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
    """[px, size]: bilinear, widened to an antialiasing triangle when the image shrinks.

    side: length of the centre part that is resized (default: all).
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
    """The bundle's own images: inputs [n, C, H, W], classes [n], classes that torch names [n]."""
    samples = manifest["samples"]
    images = [read_image(inside(folder, sample["path"])) for sample in samples]
    x = np.stack([preprocess(pixels, manifest["input"]) for pixels in images])
    return x, *(np.array([sample[key] for sample in samples]) for key in ("label", "predicted"))


def labelled_images(path, names):
    """`read` and `labels` of a user's images: `read(i)` gives pixels [H, W, C].

    path: a folder with one folder per class, or a .npz of `images` (uint8 [n, H, W] or
    [n, H, W, C]) and `labels`, or of JPEG files as hwnas keeps them (`jpeg`, `offset`, `label`).
    """
    path = Path(path)
    if path.is_dir():
        read, labels = images_of_folder(path, names)
    elif path.suffix == ".npz" and path.is_file():
        read, labels = images_of_archive(path, names)
    else:
        raise BundleError(f"{path}: expected a folder with one folder per class, or a .npz")
    if len(labels) == 0:
        raise BundleError(f"{path}: no images ({', '.join(SUFFIXES)})")
    return read, labels


def images_of_folder(path, names):
    """See `labelled_images`."""
    folders = sorted(sub for sub in path.iterdir() if sub.is_dir())
    unknown = [sub.name for sub in folders if sub.name not in names]
    if unknown:
        raise BundleError(
            f"{path}: no class is called {', '.join(unknown[:5])}; the classes are "
            f"{', '.join(names[:8])}{', ...' if len(names) > 8 else ''}"
        )
    files = [file for sub in folders for file in sorted(sub.rglob("*"))]
    files = [file for file in files if file.suffix.lower() in SUFFIXES and file.is_file()]
    labels = [names.index(file.relative_to(path).parts[0]) for file in files]
    return lambda index: read_image(files[index]), np.array(labels, dtype=int)


def images_of_archive(path, names):
    """See `labelled_images`."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise BundleError(f"{path}: cannot read: {error}") from error
    if {"images", "labels"} <= set(arrays):
        images, labels = arrays["images"], arrays["labels"]
        n_images = len(images)
    elif {"jpeg", "offset", "label"} <= set(arrays):
        images, labels, offset = arrays["jpeg"], arrays["label"], arrays["offset"]
        n_images = len(offset) - 1
        if list(arrays.get("class_names", names)) != list(names):
            raise BundleError(f"{path}: its class_names are not the bundle's")
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
