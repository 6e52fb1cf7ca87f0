"""Folders of photos made by others: what they hold is an image, or is left out; nothing is run."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

import hwnas
from hwnas.core import photo_rule
from hwnas.core.photo_rule import ENDINGS, scan, upright
from tests.photos import class_folders, photo

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"


def test_a_document_that_is_called_a_photo_runs_no_interpreter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow opens by content, and has Ghostscript run the program in an EPS file."""
    run = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *given: run.append(given))
    class_folders(tmp_path, ["ant", "bee"], 4, px=8)
    (tmp_path / "ant" / "photo.jpg").write_bytes(EPS)
    with pytest.raises(ValueError, match="not an image that Pillow reads"):
        upright(io.BytesIO(EPS))
    (refused,) = hwnas.data_show(tmp_path).facts["refused"]
    assert "photo.jpg: not an image that Pillow reads" in refused
    assert not run


@pytest.mark.parametrize("name", ["PNG", "JPEG", "MPO", "GIF", "BMP", "TIFF", "WEBP", "PPM", "TGA"])
def test_formats_of_photos_are_read_whatever_their_name(name: str) -> None:
    assert {".mpo", ".tga", ".webp"} <= ENDINGS
    stream = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), 7, np.uint8)).save(stream, name)
    assert upright(stream).size == (8, 8)


def test_folders_below_each_other_without_end(tmp_path: Path) -> None:
    """A thousand of them ended in a RecursionError."""
    (tmp_path / "/".join("d" * 300)).mkdir(parents=True)
    photo(0, 0, 8).save(tmp_path / "d" / "d" / "a.png")
    found = scan(tmp_path / "d")
    assert found.images == ["d/d/a.png"]
    (lost,) = found.lost
    assert lost.count("/") == photo_rule.MAX_DEPTH + 2


def test_links_that_multiply_are_followed_so_far(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forty folders, each with two links to the next one: a trillion paths."""
    monkeypatch.setattr(photo_rule, "MAX_LINKED", 300)
    folders = [tmp_path / "class" / f"{i:02}" for i in range(40)]
    for folder, other in zip(folders, [*folders[1:], None], strict=True):
        folder.mkdir(parents=True)
        for link in ("a", "b"):
            if other is not None:
                (folder / link).symlink_to(f"../{other.name}")
    photo(0, 0, 8).save(folders[-1] / "a.png")
    found = scan(tmp_path / "class")
    assert found.lost and found.linked <= 310 and "class/39/a.png" in found.images
    few = scan(folders[-4])
    assert len(few.images) == 8 and not few.lost
