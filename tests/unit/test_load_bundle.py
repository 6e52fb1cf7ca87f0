"""`hwnas.load_bundle`: classes of photos, arrays and images of Pillow, and errors in words."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import hwnas
from hwnas.core.errors import UserError
from hwnas.core.records import dump
from hwnas.interfaces import ModelFile
from tests.bundles import CLASSES, INPUTS, LOGITS, colour_bundle, colour_images, colour_manifest
from tests.bundles import kit_module as module_of_kit

PIXELS, LABELS = colour_images()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> hwnas.Bundle:
    folder = tmp_path_factory.mktemp("bundles") / "colours"
    colour_bundle(folder)
    return hwnas.load_bundle(folder)


def softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits)
    return weights / weights.sum()


def test_its_logits_are_those_of_the_network(bundle: hwnas.Bundle) -> None:
    assert np.allclose(bundle.logits(INPUTS), LOGITS, atol=1e-6)
    assert bundle.class_names == CLASSES and bundle.model == "models/fp32.onnx"
    assert bundle.runtime.startswith("onnxruntime ")


@pytest.mark.parametrize("n", range(3))
def test_the_brightest_channel_wins_in_every_form_of_the_image(
    n: int, bundle: hwnas.Bundle, tmp_path: Path
) -> None:
    """The expected probabilities are computed by hand: of one colour, every resize is equal."""
    pixels = np.full((8, 8, 3), (90, 70, 50), np.uint8)
    pixels[..., n] = 200
    expected = softmax((pixels[0, 0] / 255 - 0.5) / 0.25)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    forms = [
        tmp_path / "a.png",
        str(tmp_path / "a.png"),
        pixels,
        pixels / 255,
        Image.fromarray(pixels),
    ]
    for form in forms:
        found = bundle.predict(form)
        assert found.name == CLASSES[n]
        assert found.probability == pytest.approx(expected.max(), abs=1e-5)
        by_class = [found.probabilities[name] for name in CLASSES]
        assert by_class == pytest.approx(expected.tolist(), abs=1e-5)
    assert list(found.probabilities.values()) == sorted(found.probabilities.values())[::-1]
    assert list(found.top(2)) == list(found.probabilities)[:2]
    assert str(found) == f"{found.name} ({found.probability:.1%})"


def test_many_images_are_one_batch_and_equal_each_alone(bundle: hwnas.Bundle) -> None:
    together = bundle.predict(list(PIXELS))
    assert [one.name for one in together] == [CLASSES[label] for label in LABELS]
    alone = [bundle.predict(pixels) for pixels in PIXELS]
    for one, other in zip(together, alone, strict=True):
        assert one.probabilities == pytest.approx(other.probabilities)
    assert bundle.predict([]) == []


def test_grey_and_palette_and_cmyk_images_are_read_as_the_kit_reads_them(
    bundle: hwnas.Bundle,
) -> None:
    colour = Image.fromarray(PIXELS[0])
    for mode in ("P", "CMYK", "RGBA"):
        assert bundle.predict(colour.convert(mode)).name == CLASSES[LABELS[0]], mode
    grey = bundle.predict(colour.convert("L"))
    assert list(grey.probabilities.values()) == pytest.approx([1 / 3] * 3)


def test_photos_on_their_side_are_turned(bundle: hwnas.Bundle, tmp_path: Path) -> None:
    """The centre square is all that counts, so a turn is seen by which half is cut off."""
    wide = np.zeros((8, 24, 3), np.uint8)
    wide[:, :8, 0], wide[:, 8:16, 1], wide[:, 16:, 2] = 200, 200, 200
    image = Image.fromarray(wide)
    exif = image.getexif()
    exif[274] = 6
    image.save(tmp_path / "turned.jpg", exif=exif, quality=100, subsampling=0)
    assert bundle.predict(tmp_path / "turned.jpg").name == "green"
    assert bundle.predict(Image.open(tmp_path / "turned.jpg")).name == "green"


@pytest.mark.parametrize(
    ("image", "text"),
    [
        (np.zeros((3, 8, 8, 3), np.uint8), r"uint8 \[3, 8, 8, 3\].*predict\(list\(images\)\)"),
        (np.full((8, 8, 3), 1.5), r"floats in \[0, 1\].*of 1.5 to 1.5.*divide pixels"),
        (np.zeros((8, 8, 3), np.int64), r"uint8, or floats.*int64.*image.astype\('uint8'\)"),
        (np.zeros((8, 8, 4), np.uint8), r"\[H, W, 3\].*4 channels.*transparency: image\[..., :3\]"),
        (np.zeros((3, 8, 8), np.uint8), r"which are 8 channels.*image.transpose\(1, 2, 0\)"),
        (np.zeros((8, 8, 5), np.uint8), "5 channels.*3 channels of the training images"),
        (None, "not an image.*give one of these"),
        (5, "not an image"),
        ("/no/such/photo.jpg", "no such image.*photo.jpg.*relative paths start in"),
        (__file__, "cannot read.*Pillow reads.*convert the image"),
        ("/dev/null", "/dev/null"),
    ],
)
def test_what_is_no_image_is_refused_in_words(
    image: object, text: str, bundle: hwnas.Bundle
) -> None:
    with pytest.raises(UserError, match=f"(?s){text}"):
        bundle.predict(image)  # type: ignore[call-overload]


def test_another_model_is_chosen_by_its_path(tmp_path: Path) -> None:
    colour_bundle(tmp_path / "b", colour_manifest(precisions=("fp32", "int8")))
    assert hwnas.load_bundle(tmp_path / "b", model="models/int8.onnx").model == "models/int8.onnx"
    with pytest.raises(UserError, match=r"one of models/fp32\.onnx, models/int8\.onnx"):
        hwnas.load_bundle(tmp_path / "b", model="models/fp16.onnx")


def test_without_the_runtime_of_the_device_the_next_model_answers(tmp_path: Path) -> None:
    known = colour_manifest()
    engine = ModelFile("models/x.engine", "no_such_format", "fp16")
    manifest = replace(known, models=(engine, *known.models))
    sources = tmp_path / "sources"
    colour_bundle(tmp_path / "other")
    (sources / "x.engine").write_bytes(b"engine")
    colour_bundle(tmp_path / "b", manifest)
    assert hwnas.load_bundle(tmp_path / "b").model == "models/fp32.onnx"
    with pytest.raises(UserError, match=r"models/x\.engine does not run here"):
        hwnas.load_bundle(tmp_path / "b", model="models/x.engine")


def test_a_damaged_bundle_and_other_folders_are_refused(tmp_path: Path) -> None:
    colour_bundle(tmp_path / "b")
    (tmp_path / "b" / "models" / "fp32.onnx").write_bytes(b"other")
    gone = tmp_path / "gone"
    colour_bundle(gone)
    (gone / "golden" / "input.npy").unlink()
    with pytest.raises(UserError, match="is missing") as error:
        hwnas.load_bundle(gone)
    assert "bytes, which manifest.json lists" in str(error.value.expected)
    with pytest.raises(UserError, match="altered"):
        hwnas.load_bundle(tmp_path / "b")
    shutil.rmtree(tmp_path / "b")
    with pytest.raises(UserError, match="not a bundle"):
        hwnas.load_bundle(tmp_path / "b")
    inner = tmp_path / "run" / "bundles" / "main" / "local"
    colour_bundle(inner)
    with pytest.raises(UserError, match=f"(?s)not a bundle.*fix: .* such as {inner}$"):
        hwnas.load_bundle(tmp_path / "run")


def test_it_says_what_it_is_also_in_a_notebook(tmp_path: Path) -> None:
    spec = replace(colour_manifest().input, class_names=("<b>", "green", "blue"))
    colour_bundle(tmp_path / "b", colour_manifest(input=spec))
    bundle = hwnas.load_bundle(tmp_path / "b")
    text, page = str(bundle), bundle._repr_html_()
    assert "90.00% ± 2.12% of 200 test images" in text and "3 x 4 x 4" in text
    assert "&lt;b&gt;" in page and "<b>" not in page
    assert repr(bundle) == f"Bundle({str(tmp_path / 'b')!r}, model='models/fp32.onnx')"


def test_it_prepares_images_as_the_kit_does(bundle: hwnas.Bundle) -> None:
    spec = dump(bundle.manifest.input, versioned=False)
    prepared = module_of_kit("bundle_images").preprocess(PIXELS[0], spec)
    (logits,) = bundle.logits(prepared[None])
    found = bundle.predict(PIXELS[0]).probabilities
    assert [found[name] for name in CLASSES] == pytest.approx(softmax(logits).tolist())
