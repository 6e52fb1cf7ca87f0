"""Photos of every kind to pixels: orientation, colour, shape; broken ones named; the cache."""

from __future__ import annotations

import io
import logging
import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hwnas.core.errors import UserError
from hwnas.training.decode import Encoded, decode, good_rows, square_rgb
from tests.photos import encoded, photo

PX = 16


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HWNAS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "decoded"


def of(*files: bytes, key: str = "k") -> Encoded:
    names = [f"{i}.img" for i in range(len(files))]
    return Encoded(names, lambda i: io.BytesIO(files[i]), key)


def pixels_of(image: Image.Image, format: str = "PNG", **options) -> np.ndarray:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    stream.seek(0)
    return square_rgb(stream, PX)


def quarters(px: int = 2 * PX) -> Image.Image:
    """Four colours: red, green above blue, white."""
    array = np.zeros((px, px, 3), np.uint8)
    half = px // 2
    array[:half, :half, 0] = array[:half, half:, 1] = array[half:, :half, 2] = 255
    array[half:, half:] = 255
    return Image.fromarray(array)


def corners(pixels: np.ndarray) -> list[tuple[int, ...]]:
    return [tuple(pixels[y, x].tolist()) for y in (2, -3) for x in (2, -3)]


RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def test_pixels_are_those_of_pillow_at_the_same_size():
    image = photo(0, 0, PX)
    np.testing.assert_array_equal(pixels_of(image), np.asarray(image))


@pytest.mark.parametrize("size", [(48, 32), (32, 48)])
def test_of_an_oblong_photo_the_centre_square_is_taken(size: tuple[int, int]):
    canvas = Image.new("RGB", size, "black")
    canvas.paste(quarters(32), ((size[0] - 32) // 2, (size[1] - 32) // 2))
    assert corners(pixels_of(canvas)) == [RED, GREEN, BLUE, WHITE]


@pytest.mark.parametrize(
    ("orientation", "transposed"),
    [
        (1, None),
        (2, Image.Transpose.FLIP_LEFT_RIGHT),
        (3, Image.Transpose.ROTATE_180),
        (6, Image.Transpose.ROTATE_90),
        (8, Image.Transpose.ROTATE_270),
    ],
)
def test_exif_rotation_is_undone(orientation: int, transposed: Image.Transpose | None):
    """The camera stored the scene transposed and says so."""
    stored = quarters() if transposed is None else quarters().transpose(transposed)
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert corners(pixels_of(stored, exif=exif)) == [RED, GREEN, BLUE, WHITE]


def test_grey_palette_and_one_bit_photos_become_rgb():
    grey = quarters().convert("L")
    for mode in ("L", "P", "1"):
        found = pixels_of(quarters().convert(mode, dither=Image.Dither.NONE))
        assert found.shape == (PX, PX, 3)
    assert corners(pixels_of(grey)) == [(v, v, v) for v in (76, 150, 29, 255)]
    assert corners(pixels_of(quarters().convert("P"))) == [RED, GREEN, BLUE, WHITE]
    cmyk = corners(pixels_of(quarters().convert("CMYK"), "TIFF"))
    assert cmyk == [RED, GREEN, BLUE, WHITE]


def test_sixteen_bits_are_scaled_not_clipped():
    ramp = np.linspace(0, 65535, PX * PX).reshape(PX, PX).astype(np.uint16)
    found = pixels_of(Image.fromarray(ramp))
    np.testing.assert_array_equal(found[..., 0], ramp >> 8)


def test_transparency_is_laid_over_white():
    clear = quarters().convert("RGBA")
    clear.putalpha(0)
    assert pixels_of(clear).min() == 255
    solid = quarters().convert("RGBA")
    assert corners(pixels_of(solid)) == [RED, GREEN, BLUE, WHITE]
    palette = quarters().convert("P")
    index = palette.getpixel((0, 0))
    assert corners(pixels_of(palette, transparency=index))[0] == WHITE


def test_broken_images_are_named_and_counted_and_skipped_only_if_asked(caplog):
    whole = encoded(photo(0, 0))
    images = of(whole, whole[: len(whole) // 2], b"", b"no image", whole)
    pixels, broken = decode(images, PX)
    assert [i for i, _ in broken] == [1, 2, 3]
    with pytest.raises(UserError) as caught:
        good_rows(images, broken, skip=False, where="here")
    text = str(caught.value)
    assert "3 of 5 images cannot be decoded" in text and "1.img: " in text and "3.img: " in text
    assert "data.skip_broken=true" in text
    assert "2.img: the file is empty" in text and "3.img: not an image" in text
    assert "Error" not in text, "names of exceptions say nothing to the owner of the photos"
    with caplog.at_level(logging.WARNING):
        assert good_rows(images, broken, skip=True, where="here").tolist() == [0, 4]
    wanted = "left out 3 of 5 images of here, which cannot be decoded:"
    assert wanted in caplog.text and "2.img" in caplog.text
    assert pixels[0].any() and not pixels[1].any()


def test_long_lists_of_broken_images_are_cut():
    images = of(*[b"x"] * 40)
    with pytest.raises(UserError, match="and 35 more"):
        good_rows(images, decode(images, PX)[1], skip=False, where="here")


def mutated(data: bytes, random: np.random.Generator) -> bytes:
    changed = bytearray(data)
    for position in random.integers(0, len(changed), size=random.integers(1, 9)):
        changed[position] = random.integers(0, 256)
    return bytes(changed[: random.integers(len(changed) // 2, len(changed) + 1)])


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"])
def test_no_damaged_file_ends_in_a_traceback(format: str):
    random = np.random.default_rng(0)
    original = encoded(quarters(), format)
    files = [mutated(original, random) for _ in range(60)]
    pixels, broken = decode(of(*files), PX)
    assert len(pixels) == 60 and len(broken) > 0


def test_threads_change_nothing():
    files = [encoded(photo(0, i)) for i in range(20)]
    one, _ = decode(of(*files, key="a"), PX)
    four, _ = decode(of(*files, key="b"), PX, n_threads=4)
    np.testing.assert_array_equal(one, four)


def test_the_second_time_nothing_is_decoded(cache: Path):
    first, broken = decode(of(encoded(photo(0, 0)), b"broken"), PX)

    def refuse(i: int) -> io.BytesIO:
        raise AssertionError("decoded again")

    again, still_broken = decode(Encoded(["0.img", "1.img"], refuse, "k"), PX)
    np.testing.assert_array_equal(first, again)
    assert still_broken == broken and isinstance(again, np.memmap)
    other, _ = decode(of(encoded(photo(0, 1)), b"", key="other"), PX)
    assert not np.array_equal(first, other)
    assert sorted(path.suffix for path in cache.iterdir()) == [".json", ".json", ".npy", ".npy"]


def test_another_process_may_remove_the_empty_file_first(cache: Path, monkeypatch, caplog):
    file = encoded(photo(0, 0))
    decode(of(file), PX)
    caplog.clear()
    size, removed = os.path.getsize, []

    def size_of_removed(path: str) -> int:
        os.unlink(path)
        removed.append(path)
        return size(path)

    with monkeypatch.context() as patched:
        patched.setattr(os.path, "getsize", size_of_removed)
        again, _ = decode(of(file), PX)
    assert isinstance(again, np.memmap) and len(removed) == 1 and not caplog.text


@pytest.mark.parametrize("end", ["npy", "json"])
def test_a_damaged_cache_is_made_again(cache: Path, end: str):
    files = encoded(photo(0, 0)), encoded(photo(1, 0))
    first = np.array(decode(of(*files), PX)[0])
    (damaged,) = cache.glob(f"*.{end}")
    damaged.write_bytes(damaged.read_bytes()[:-40])
    again, broken = decode(of(*files), PX)
    np.testing.assert_array_equal(first, again)
    assert not broken


def test_without_a_writable_cache_pixels_are_in_memory(monkeypatch, tmp_path: Path, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HWNAS_CACHE", str(tmp_path / "file"))
    pixels, broken = decode(of(encoded(photo(0, 0, PX), "PNG")), PX)
    np.testing.assert_array_equal(pixels[0], np.asarray(photo(0, 0, PX)))
    assert "cannot cache" in caplog.text and not broken
    assert "Errno" not in caplog.text and "set HWNAS_CACHE to use another" in caplog.text


def test_a_full_disk_is_noticed_before_it_is_mapped(caplog):
    """RLIMIT_FSIZE stands for the disk: writing to the map would kill the process."""
    import resource

    def attempt(answer: multiprocessing.Queue) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))
        answer.put(decode(of(*[encoded(photo(0, i)) for i in range(20)]), PX)[0].any())

    context = multiprocessing.get_context("fork")
    answer = context.Queue()
    child = context.Process(target=attempt, args=(answer,))
    child.start()
    assert answer.get(timeout=30)
    child.join()
    assert child.exitcode == 0
