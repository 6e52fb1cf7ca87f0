"""The section on usage in the README of a bundle: Python code that tests run, and web pages."""

from __future__ import annotations

from collections.abc import Iterator

from hwnas.exporters import REGISTRY
from hwnas.exporters.manifest import Manifest

__all__ = ["pages", "usage"]

START = """\
import json

import numpy as np
from bundle_images import preprocess, read_image  # in this folder

spec = json.load(open("manifest.json"))["input"]
x = preprocess(read_image("{sample}"), spec)[None]  # float32 [1, C, H, W]"""
END = """\
print(spec["class_names"][int(np.asarray(logits).argmax())])"""


def usage(manifest: Manifest) -> Iterator[str]:
    """Markdown: a block of Python that uses hwnas, and a block per model file that does not.

    The module of an exporter defines the lines of the second kind as `USAGE`. They compute `logits`
    from `x`, and `{file}` stands for the path of the model. Formats without `USAGE` are not listed.
    """
    if not manifest.samples:
        return
    sample = manifest.samples[0].path
    yield "## Use it in Python"
    yield ""
    yield "Start Python in this folder. With hwnas installed, every format is used in the same way:"
    yield from _block(
        f'import hwnas\n\nbundle = hwnas.load_bundle(".")\nprint(bundle.predict("{sample}"))'
    )
    yield "Without hwnas, first run these lines, which prepare an image, then those of a format:"
    yield from _block(START.replace("{sample}", sample))
    for model in manifest.models:
        if model.format not in REGISTRY.names:
            continue
        lines = getattr(REGISTRY.declaration(model.format), "USAGE", "")
        if lines:
            yield f"`{model.path}`"
            yield from _block(f"{lines.strip().replace('{file}', model.path)}\n{END}")


def pages(manifest: Manifest) -> Iterator[str]:
    """Markdown: how to open the web pages of a bundle in a browser; empty if it has none.

    The module of an exporter can define `PAGES`, which maps a precision to the path of its page in
    the bundle.
    """
    found = []
    for model in manifest.models:
        if model.format in REGISTRY.names:
            declared = getattr(REGISTRY.declaration(model.format), "PAGES", {})
            found += [declared[model.precision]] if model.precision in declared else []
    if found:
        yield "## Use it in a browser"
        yield ""
        yield "    python3 -m http.server --bind 127.0.0.1 8000"
        yield from (f"    # then open http://127.0.0.1:8000/{page}" for page in found)
        yield ""
        yield (
            "The page classifies a photo or the camera, needs no network, and sends nothing. It"
            " shows the latency in this browser beside the measured latency of the bundle. On other"
            " machines, browsers allow the camera only if you serve the page by https."
        )
        yield ""


def _block(code: str) -> Iterator[str]:
    yield ""
    yield "```python"
    yield from code.splitlines()
    yield "```"
    yield ""
