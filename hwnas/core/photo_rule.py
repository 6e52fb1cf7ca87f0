"""Determines which files of a folder are photos, and decodes photos to pixels.

Training and the device kit both use this module, and every bundle contains this file unchanged.
Therefore it does not import hwnas, and requires only Python 3.8 and numpy; decoding needs Pillow.
With the package pillow-heif, Pillow reads the HEIC photos of phones, which then count as images.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

__all__ = [
    *("ENDINGS", "HEIC_ENDINGS", "MAX_PIXELS", "Scan", "composed", "folders_of", "is_data"),
    *("one_form", "reads_heic", "scan", "text_of", "upright"),
]

_NAMES = """apng avif avifs bmp bw cur dcx dds dib gif icb icns ico j2c j2k jfif jp2 jpc jpe jpeg
jpf jpg jpx mpo pbm pcx pfm pgm png pnm ppm psd qoi ras rgb rgba sgi tga tif tiff vda vst webp xbm
xpm"""
ENDINGS = frozenset(f".{name}" for name in _NAMES.split())
"""Suffixes of the image formats of Pillow, without documents, films and data (.eps, .fli, .h5)."""

HEIC_ENDINGS = frozenset((".heic", ".heics", ".heif", ".heifs", ".hif"))  # read with pillow-heif
_SYSTEM = "@eadir __macosx lost+found $recycle.bin thumbs.db ehthumbs.db desktop.ini"
SYSTEM = frozenset(_SYSTEM.split())
_ENDING = re.compile(r"\.[\w~+-]*[a-z][\w~+-]*", re.ASCII | re.IGNORECASE)
KINDS = {b"\xff\xd8\xff": "JPEG", b"\x89PNG\r\n": "PNG", b"GIF8": "GIF", b"qoif": "QOI"}
KINDS[b"\0\0\0\x0cjP  "] = "JPEG 2000"  # image formats by their first bytes
BRANDS = dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1"), "HEIC")
BRANDS.update({b"avif": "AVIF", b"avis": "AVIF"})
NO_IMAGE = {b"version http": "a Git LFS pointer: git lfs pull", b"<": "a web page or SVG drawing"}
TIFF = (b"II*\0", b"MM\0*")  # raw photos of cameras start with these bytes, too
MAX_DEPTH, MAX_LINKED = 100, 200_000  # folders below each other; files and folders behind links
MAX_PIXELS = 100_000_000  # limit per image; reading takes up to 16 bytes per pixel
TURNS: dict[int, Any] = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}  # Transpose by orientation


def one_form(name: str) -> str:
    """A file name in composed Unicode form (NFC), because macOS decomposes accents."""
    return unicodedata.normalize("NFC", name)


def text_of(name: str) -> str:
    """A file name from the system as text: its bytes decoded as UTF-8 in any locale.

    Bytes that are not UTF-8 become surrogates, as in Python.
    """
    return os.fsencode(name).decode("utf-8", "surrogateescape")


def composed(name: str) -> str:
    """The name of a class from the name of its folder: decoded, in composed form."""
    return one_form(text_of(name))


def is_data(name: str) -> bool:
    """Whether a name can be data; hidden files and files of the operating system cannot."""
    return not name.startswith(".") and name.lower() not in SYSTEM


def folders_of(folder: Path) -> list[Path]:
    """Sorted folders in a folder of photos: classes or splits, without run folders of hwnas.

    Raises:
        OSError: the folder cannot be read.
    """
    inside = sorted(path for path in folder.iterdir() if is_data(path.name) and path.is_dir())
    return [path for path in inside if not (_is_run(path) or _holds_runs(path))]


def _is_run(folder: Path) -> bool:
    """Whether a folder is a run folder of hwnas; these contain `.lock`."""
    has = {name: os.path.isfile(folder / name) for name in ("stages.json", ".lock")}
    return has["stages.json"] or (has[".lock"] and not scan(folder).images)


def _holds_runs(folder: Path) -> bool:
    """Whether all entries of a folder are run folders, as in `runs/`."""
    try:
        shown = [name for name in os.listdir(folder) if is_data(name)]
    except OSError:
        return False
    return bool(shown) and all(_is_run(folder / name) for name in shown)


@dataclass
class Scan:
    """Files below a folder, relative to its parent: images, and files that are left out.

    lost: broken links, and folders that are unreadable, too deep, or behind too many links.
    left_out: number of other files, by suffix; or `pipe or device`.
    misnamed: number of left-out files that are images according to their first bytes, by suffix.
    linked: number of files and folders reached through links.
    """

    images: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    misnamed: Counter[str] = field(default_factory=Counter)
    linked: int = 0

    @property
    def n_heic(self) -> int:
        """Number of HEIC photos that are left out because pillow-heif is not installed."""
        return sum(self.left_out[ending] for ending in HEIC_ENDINGS)


def scan(folder: Path, also: tuple[str, ...] = (), seen: Callable[[], object] = object) -> Scan:
    """All files at any depth below a class folder; images are sorted by their composed names.

    Links to folders are followed. also: suffixes of other files that count as images. seen: runs
    at every file and folder.
    """
    found, endings = Scan(), ENDINGS.union(also, HEIC_ENDINGS if reads_heic() else ())

    def walk(folder: str, within: str, above: set[str], linked: bool) -> None:
        is_far = within.count("/") > MAX_DEPTH or found.linked > MAX_LINKED
        try:
            if is_far or not os.access(folder, os.X_OK):
                raise PermissionError
            entries = list(os.scandir(folder))
        except OSError:  # or the disc or server was disconnected
            found.lost.append(f"{within}/")
            return
        found.linked += linked * len(entries)
        for entry in entries:
            seen()
            name = f"{within}/{entry.name}"
            if is_data(entry.name) and _add(found, entry, name, endings):
                real = os.path.realpath(entry.path)
                if real not in above:  # else a link to one of its parent folders
                    walk(entry.path, name, above | {real}, linked or entry.is_symlink())

    above = {*map(str, (folder.resolve(), *folder.resolve().parents))}
    walk(str(folder), folder.name, above, False)
    found.images.sort(key=lambda name: (composed(name).split("/"), name))
    found.lost.sort()
    return found


def _add(found: Scan, entry: os.DirEntry[str], name: str, endings: frozenset[str]) -> bool:
    """Adds a file; returns whether it is a folder."""
    kind = _kind(entry)
    if kind == "lost":
        found.lost.append(name)
    elif kind == "file" and _is_image(entry, endings):
        found.images.append(name)
    elif kind != "folder":
        content = content_of(_head(entry.path)) if kind == "file" else ""
        ending = _ending(entry.name) or (".heic" if content == "HEIC" else "without an ending")
        found.left_out[ending if kind == "file" else "pipe or device"] += 1
        found.misnamed[ending] += bool(content)
    return kind == "folder"


def _kind(entry: os.DirEntry[str]) -> str:
    """folder, file, lost (a broken or circular link), or other (a pipe, a device file)."""
    try:
        if entry.is_dir():
            return "folder"
        if entry.is_file():
            return "file"
        os.stat(entry.path)
    except OSError:
        return "lost"
    return "other"


def _ending(name: str) -> str:
    """The suffix in lower case, if it contains a letter; `a.jpg.` and `5.12.2024` have none."""
    ending = os.path.splitext(name)[1].lower()
    return ending if _ENDING.fullmatch(ending) else ""


def _is_image(entry: os.DirEntry[str], endings: frozenset[str]) -> bool:
    if ending := _ending(entry.name):
        return ending in endings
    content = content_of(head := _head(entry.path))
    return reads_heic() if content == "HEIC" else bool(content) or head[:4] in TIFF


def _head(path: str) -> bytes:
    with contextlib.suppress(OSError), open(path, "rb") as stream:
        return stream.read(12)
    return b""


def content_of(head: bytes) -> str:
    """The image format by the first 12 bytes; empty if unknown."""
    if head[:4] == b"RIFF" and head[8:] == b"WEBP":
        return "WebP"
    if head[4:8] == b"ftyp":
        return BRANDS.get(head[8:], "")
    return next((name for first, name in KINDS.items() if head.startswith(first)), "")


@functools.lru_cache(maxsize=1)  # Python 3.8 has no functools.cache
def reads_heic() -> bool:
    """Whether Pillow reads HEIC photos: registers pillow-heif with Pillow if it is installed."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener()
    return True


def upright(stream: IO[bytes]) -> Image.Image:
    """Decodes an image file to 8-bit grey or RGB (mode L or RGB), upright by its EXIF orientation.

    Transparency is blended with white. 16-bit values and floats in [0, 1] are converted to 8 bits.
    For animations, the first frame is used. Other metadata are ignored, and may be damaged.

    Raises:
        ValueError: not an image for Pillow, too many pixels, or grey values of unknown scale.
        Exception: any exception of Pillow on damaged files.
    """
    from PIL import Image, UnidentifiedImageError

    reads_heic()
    try:
        opened = Image.open(stream, formats=_formats())
    except UnidentifiedImageError:
        raise ValueError(_no_image(stream)) from None
    with opened:
        if (n_pixels := opened.width * opened.height) > MAX_PIXELS:
            raise ValueError(f"{n_pixels:,} pixels, more than {MAX_PIXELS:,}")
        opened.load()
        turn = _orientation(opened)
        image = opened.transpose(TURNS[turn]) if turn in TURNS else opened.copy()
    if image.mode[0] in "IF":  # the conversion of Pillow would saturate
        image = Image.fromarray(eight_bits(np.asarray(image)))
    if _may_be_transparent(image):
        over = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", over.size, "white"), over)
    return image if image.mode == "L" else image.convert("RGB")


def _formats() -> list[str]:
    """Pillow's names of the formats in `ENDINGS`. EPS is excluded: Pillow runs a program for it."""
    from PIL import Image

    Image.preinit()
    Image.init()
    known = {Image.EXTENSION.get(ending) for ending in ENDINGS | HEIC_ENDINGS}
    return [name for name in Image.ID if name in known]


def _may_be_transparent(image: Image.Image) -> bool:
    if image.mode == "P" and image.palette and image.palette.mode.endswith("A"):
        return True
    return image.mode in ("LA", "PA", "RGBA", "RGBa", "La") or "transparency" in image.info


def _no_image(stream: IO[bytes]) -> str:
    stream.seek(0)
    if (content := content_of(head := stream.read(12))) == "HEIC" and not reads_heic():
        return "the content is a HEIC photo: install pillow-heif, or convert the file"
    if content:
        return f"a damaged {content} file, or a kind of {content} that this Pillow cannot read"
    words = (text for first, text in NO_IMAGE.items() if head.startswith(first))
    return next(words, "not an image that Pillow reads") if head else "the file is empty"


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 if the metadata are damaged."""
    try:
        return int(image.getexif().get(0x0112, 1))
    except Exception:  # Pillow can raise any exception
        return 1


def eight_bits(levels: NDArray[Any]) -> NDArray[np.uint8]:
    """Grey values of 16 bits, or floats in [0, 1], as 8 bits.

    Raises:
        ValueError: unknown scale: other numbers, or 16-bit values that fit into 12 bits.
    """
    low, high = float(levels.min()), float(levels.max())
    if levels.dtype.kind == "f" and low >= 0 and high <= 1:
        return np.asarray(np.rint(levels * 255), dtype=np.uint8)
    if levels.dtype.kind == "f" or low < 0 or high > 65535 or 0 < high < 4096:
        fix = "convert the image to 8 bits, to full 16 bits, or to floats in [0, 1]"
        raise ValueError(f"grey values from {low:g} to {high:g}, of unknown scale: {fix}")
    return np.asarray(levels.astype(np.int64) >> 8, dtype=np.uint8)
