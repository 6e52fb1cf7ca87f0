"""A bundle as a classifier: `hwnas.load_bundle("bundle").predict("photo.jpg")`."""

from __future__ import annotations

import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union, overload

import numpy as np
from numpy.typing import NDArray

from hwnas.api.bundle_images import check_array, check_channels, existing
from hwnas.api.result import Folder
from hwnas.core.confined import inside, read_regular
from hwnas.core.errors import UserError
from hwnas.core.records import dump
from hwnas.core.resources import kit_module
from hwnas.core.stats import accuracy_text
from hwnas.core.store import explained
from hwnas.exporters.bundle import read_manifest
from hwnas.exporters.formats import open_model
from hwnas.exporters.manifest import Manifest
from hwnas.exporters.opened import CannotRunHere
from hwnas.interfaces import OpenModel

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

__all__ = ["Bundle", "Prediction", "load_bundle"]

Image = Union[Path, str, "PillowImage", NDArray[Any]]
"""A file, an image of Pillow, or pixels [H, W] or [H, W, C]: uint8, or floats in [0, 1]."""

MAX_BYTES = 1 << 28  # maximum size of an image file
PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I", "I;16")  # of Pillow


@dataclass(frozen=True)
class Prediction:
    """The classes of one image, the most probable first.

    probabilities: maps each class name to its softmax probability. They add up to 1, but are not
        calibrated: 0.9 does not mean that nine of ten such answers are right.
    """

    probabilities: Mapping[str, float]

    @property
    def name(self) -> str:
        """The most probable class."""
        return next(iter(self.probabilities))

    @property
    def probability(self) -> float:
        """Probability of the most probable class, in (0, 1]."""
        return next(iter(self.probabilities.values()))

    def top(self, n: int) -> dict[str, float]:
        """Maps the n most probable classes to their probabilities."""
        return dict(list(self.probabilities.items())[:n])

    def __str__(self) -> str:
        return f"{self.name} ({self.probability:.1%})"


@dataclass(frozen=True, repr=False)
class Bundle:
    """A bundle, and one of its models, opened on this machine; returned by `load_bundle`.

    model: path in the bundle of the file that predicts.
    runtime: name and version of the runtime that runs it.
    """

    folder: Path
    manifest: Manifest
    model: str
    opened: OpenModel

    @property
    def runtime(self) -> str:
        """Name and version of the runtime that runs `model`."""
        return self.opened.runtime

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the logits."""
        return self.manifest.input.class_names

    @overload  # a str is a path, and a sequence of str is one of paths
    def predict(self, image: Image) -> Prediction: ...  # type: ignore[overload-overlap]

    @overload
    def predict(self, image: Sequence[Image]) -> list[Prediction]: ...

    def predict(self, image: Image | Sequence[Image]) -> Prediction | list[Prediction]:
        """Classifies an image, or a sequence of images in one batch.

        Images are decoded, cropped to the centre square, resized and normalised as in the tests of
        the bundle. An array with four axes is not a sequence of images; give a list.

        Raises:
            UserError: a file is not an image, or pixels do not fit the network.
        """
        if isinstance(image, Sequence) and not isinstance(image, str):
            return self._predictions(image)
        (found,) = self._predictions([image])
        return found

    def logits(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits [n, classes] of prepared inputs x: float32 [n, C, H, W]."""
        return self.opened.logits(np.ascontiguousarray(x, dtype=np.float32))

    def _predictions(self, images: Sequence[Image]) -> list[Prediction]:
        if not images:
            return []
        spec = dump(self.manifest.input, versioned=False)
        logits = self.logits(np.stack([_prepared(image, spec) for image in images]))
        weights = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
        found = []
        for row in weights / weights.sum(1, keepdims=True):
            order = np.argsort(-row, kind="stable")
            found.append(Prediction({self.class_names[i]: float(row[i]) for i in order}))
        return found

    def __repr__(self) -> str:
        return f"Bundle({str(self.folder)!r}, model={self.model!r})"

    def __str__(self) -> str:
        return "\n".join(f"{name}: {value}" for name, value in self._facts())

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
            f"<td style='text-align:left'>{html.escape(value)}</td></tr>"
            for name, value in self._facts()
        )
        return f"<table>{rows}</table>"

    def _facts(self) -> list[tuple[str, str]]:
        spec = self.manifest.input
        names = [*spec.class_names[:8], *(["..."] if len(spec.class_names) > 8 else [])]
        facts = [
            ("bundle", self.manifest.name),
            ("model", f"{self.model}, runs in {self.runtime}"),
            ("input", " x ".join(map(str, spec.shape))),
            ("classes", f"{len(spec.class_names)}: {', '.join(names)}"),
        ]
        for accuracy in self.manifest.accuracy:
            if accuracy.model == self.model:
                text = accuracy_text(accuracy.top1, accuracy.n_images)
                facts.append(("top-1", f"{text} of {accuracy.n_images:,} {accuracy.split} images"))
        for latency in self.manifest.latency:
            if latency.model == self.model and latency.measured_ms is not None:
                facts.append(("latency", f"{latency.measured_ms:.4g} ms on {latency.device.name}"))
        return facts


def load_bundle(
    folder: Folder, *, model: str | None = None, threads: int = 1, trust: bool = False
) -> Bundle:
    """Opens a bundle to classify images on this machine.

    Args:
        folder: a bundle, as in RUN/bundles/SEARCH/DEVICE.
        model: path of one of its models, such as `model.int8.onnx`. Default: the first model that
            runs here, beginning with that of the device; `bundle.model` names it.
        threads: number of threads of the runtime.
        trust: also open models that can contain code (`.pt2`, engines) and that this hwnas did not
            write. Use it only for bundles from a trusted source.

    Raises:
        UserError: the folder is not a bundle, a file is damaged, the model is unknown, or no model
            runs here.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    chosen = [one for one in manifest.models if model in (None, one.path)]
    if not chosen:
        raise UserError(
            "the bundle has no such model",
            expected=f"one of {', '.join(one.path for one in manifest.models)}",
            found=model,
            where=folder,
            fix="give one of these paths, or none: the first model that runs here is used",
        )
    reasons = []
    for one in chosen:
        try:
            path = inside(folder, one.path)
            opened = open_model(one.format, path, threads=threads, trust=trust)
            return Bundle(folder, manifest, one.path, opened)
        except CannotRunHere as error:
            reasons.append((one.path, error))
    raise UserError(
        "no model of the bundle runs on this machine"
        if model is None
        else f"{model} does not run here",
        found="; ".join(f"{path}: {str(error).splitlines()[0]}" for path, error in reasons),
        where=folder,
        fix="; ".join(dict.fromkeys(error.fix for _, error in reasons if error.fix)) or None,
    )


def _prepared(image: Image, spec: Mapping[str, Any]) -> NDArray[np.float32]:
    """Input of the network [C, H, W], by the code of the device kit.

    Raises:
        UserError: the object is not an image, or does not fit the network.
    """
    kit, files = kit_module("bundle_images"), kit_module("bundle_files")
    channels = spec["shape"][0]
    name = str(image) if isinstance(image, (str, Path)) else "image"
    try:
        if isinstance(image, (str, Path)):
            path = existing(Path(image).expanduser())
            with explained("read an image", path):
                pixels = kit.decode(read_regular(path, at_most=MAX_BYTES), path.name)
        elif isinstance(image, np.ndarray):
            check_array(image, channels)
            pixels = kit.checked_pixels(image, name)
        elif hasattr(image, "save") and hasattr(image, "getexif"):  # of Pillow, which is optional
            encoded = io.BytesIO()
            plain = image if image.mode in PNG_MODES else image.convert("RGB")
            plain.save(encoded, format="PNG", exif=image.getexif())
            pixels = kit.decode(encoded.getvalue(), name)
        else:
            raise UserError(
                "not an image",
                expected="a path, an image of Pillow, or an array [H, W] or [H, W, C]",
                found=type(image).__name__,
                fix="give one of these, or a list of them",
            )
        check_channels(pixels.shape, channels, name)
        found: NDArray[np.float32] = kit.preprocess(pixels, spec)
        return found
    except (files.BundleError, kit.BundleError) as error:
        raise UserError(
            "cannot read an image",
            expected="an image that Pillow reads, or a .npy, .ppm or .pgm file",
            found=str(error).removeprefix(f"{name}: "),
            where=name,
            fix="convert the image, for example to PNG",
        ) from error
