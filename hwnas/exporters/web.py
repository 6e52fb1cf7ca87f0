"""A page that runs the network in any browser, offline: LiteRT.js, a photo or the camera."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from hwnas.core.resources import resource
from hwnas.core.web_runtimes import RUNTIMES, fetch_runtime, not_fetched, runtime_folder
from hwnas.exporters import litert
from hwnas.exporters.base import Format, FormatConfig, Source
from hwnas.interfaces import Exporter, ModelFile, OpenModel

__all__ = ["Config", "build", "fetch", "unfetched"]

REQUIRES = ("ai_edge_litert",)
EXTRA = "litert"
RUNTIME = "litert"
MODELS = {"fp32": "web.tflite", "int8": "web.int8.tflite"}
PAGES = {"fp32": "web/index.html", "int8": "web/int8.html"}
SCRIPTS = ("run.js", "pixels.js", "runtime_litert.js")
PLACE = '<script type="application/json" id="settings">{}</script>'


class Config(FormatConfig):
    """Precision of the network."""

    name: Literal["web"] = "web"
    precision: Literal["fp32", "int8"] = Field(
        "fp32",
        description="Precision of the file. `int8`: weights and activations, as in the format"
        " `litert`.",
    )

    @property
    def file(self) -> str:
        """Path of the model in a bundle, `web/web.tflite` or `web/web.int8.tflite`.

        If a bundle has the format with several settings, labels are added to the names
        (`exporters.labels`).
        """
        return f"web/{MODELS[self.precision]}"


def build(config: Config) -> Exporter:
    """An exporter to the folder `web/` of a bundle: a page, its model, and LiteRT.js.

    Serve the folder (`python3 -m http.server --directory web`) and open the page; it loads nothing
    from elsewhere and sends nothing. `fetch` downloads LiteRT.js.
    """
    return _Web(config)


def fetch() -> None:
    """Downloads LiteRT.js into the cache if it is missing; see `core.web_runtimes`."""
    fetch_runtime(RUNTIME)


def unfetched() -> str:
    """Why the format cannot be written before `fetch`; empty if it can."""
    return not_fetched(RUNTIME)


@dataclass(frozen=True)
class _Web(Format):
    config: Config

    def contents(self, source: Source) -> dict[str, bytes]:
        """The model, one image at a time, and everything that its page needs.

        Raises:
            UserError: LiteRT lacks an operator, or LiteRT.js is not in the cache.
        """
        precision, runtime = self.config.precision, runtime_folder(RUNTIME)
        section = litert.Config(precision=precision, dynamic_batch=False)
        made = litert.build(section)
        assert isinstance(made, Format)
        (model,) = made.contents(source).values()
        scripts = {name: resource("export", "web", name).read_bytes() for name in SCRIPTS}
        return {
            MODELS[precision]: model,
            PAGES[precision].removeprefix("web/"): _page(self.config, source),
            **scripts,
            **{name: (runtime / name).read_bytes() for name in RUNTIMES[RUNTIME].files},
            "NOTICE.txt": _notice().encode(),
            "LICENSE.txt": resource("datasets", "sign_digits", "LICENSE").read_bytes(),
        }

    def describe(self, files: Sequence[Path]) -> ModelFile:
        """The manifest entry of the model."""
        section = litert.Config(precision=self.config.precision, dynamic_batch=False)
        like = litert.build(section).describe(files)
        return replace(like, path=self.config.file, format="web")

    def open_model(self, path: Path, *, threads: int = 1) -> OpenModel:
        """Opens the model in LiteRT on this host; the page runs the same operators."""
        return litert.build(litert.Config()).open_model(path, threads=threads)


def _page(config: Config, source: Source) -> bytes:
    """The page with its settings: the input of the model, and its name."""
    channels, px = source.input_shape[0], source.input_shape[-1]
    plain: Mapping[str, Any] = {
        "shape": list(source.input_shape),
        "mean": [0.0] * channels,
        "std": [1.0] * channels,
        "resize_px": [px],
        "class_names": json.loads(source.metadata.get("class_names", "[]")),
    }
    given = json.loads(source.metadata.get("preprocessing", "{}"))
    settings = {
        "file": MODELS[config.precision],
        "card": source.metadata.get("model_card", ""),
        "input": {key: given.get(key, value) for key, value in plain.items()},
    }
    text = json.dumps(settings, sort_keys=True).replace("<", "\\u003c")  # never ends the element
    template = resource("export", "web", "run.html").read_text("utf-8")
    return template.replace(PLACE, PLACE.replace("{}", text)).encode()


def _notice() -> str:
    """Origin and licence of the files that are not part of hwnas; LICENSE.txt is Apache-2.0."""
    lines = [
        f"{', '.join(one.files.values())}: {one.name} {one.version}, licence {one.licence}"
        for one in RUNTIMES[RUNTIME].packages
    ]
    return "\n".join(["Third-party files in this folder, from npm:", *lines, ""])
