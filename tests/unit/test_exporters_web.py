"""The folder `web/` of a bundle: what its page is given. A browser runs it in test_web_page.py."""

from __future__ import annotations

import html.parser
import json
from pathlib import Path

import pytest
from torch import nn

from hwnas.api.export import export
from hwnas.core.errors import UserError
from hwnas.exporters import web
from hwnas.exporters.every import every_format, not_installed
from hwnas.nets.subnet import build_subnet
from hwnas.spaces.space import SearchSpace

SPEC = {
    "shape": [3, 16, 16],
    "mean": [0.5, 0.4, 0.3],
    "std": [0.2, 0.3, 0.4],
    "resize_px": [24, 16],
}
HOSTILE = "</script><script>alert(1)</script><!--"


@pytest.fixture(scope="module")
def network(tiny_space: SearchSpace) -> nn.Module:
    return build_subnet(tiny_space, tiny_space.smallest()).eval()


class _Scripts(html.parser.HTMLParser):
    """Collects the attributes and the texts of all scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[dict[str, str | None], str]] = []
        self.is_inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.is_inside = tag == "script"
        if self.is_inside:
            self.found.append((dict(attrs), ""))

    def handle_data(self, data: str) -> None:
        if self.is_inside:
            attrs, text = self.found.pop()
            self.found.append((attrs, text + data))

    def handle_endtag(self, tag: str) -> None:
        self.is_inside = False


def settings_of(page: Path) -> dict[str, object]:
    """The settings in a page that has exactly its two scripts."""
    (first, text), (second, _) = _Scripts(page.read_text()).found
    assert first["id"] == "settings" and second["src"] == "run.js"
    found: dict[str, object] = json.loads(text)
    return found


def write(network: nn.Module, folder: Path, **metadata: str) -> list[str]:
    exporter = web.build(web.Config())
    files = exporter.export(network, input_shape=(3, 16, 16), folder=folder, metadata=metadata)
    assert exporter.describe(files).path == "web/web.tflite"
    return [path.name for path in files]


def test_the_page_knows_the_preprocessing_and_the_classes(
    network: nn.Module, tmp_path: Path
) -> None:
    names = ["cat", HOSTILE]
    written = write(
        network,
        tmp_path,
        preprocessing=json.dumps({**SPEC, "class_names": names}),
        class_names=json.dumps(names),
        model_card=f"a card {HOSTILE}",
    )
    assert written[0] == "web.tflite" and {"index.html", "run.js", "NOTICE.txt"} <= {*written}
    assert settings_of(tmp_path / "index.html") == {
        "file": "web.tflite",
        "card": f"a card {HOSTILE}",
        "input": {**SPEC, "class_names": names},
    }


def test_every_script_of_the_page_is_in_the_folder(network: nn.Module, tmp_path: Path) -> None:
    """And nothing is loaded from elsewhere."""
    import re

    written = {*write(network, tmp_path)}
    scripts = [tmp_path / name for name in ("run.js", "pixels.js", "runtime_litert.js")]
    imported = {
        name for path in scripts for name in re.findall(r'from "\./([^"]+)"', path.read_text())
    }
    assert imported and imported <= written
    for path in (*scripts, tmp_path / "index.html"):
        assert "http:" not in path.read_text() and "https:" not in path.read_text()
    assert "@litertjs/core 2.5.3, licence Apache-2.0" in (tmp_path / "NOTICE.txt").read_text()
    assert "Apache License" in (tmp_path / "LICENSE.txt").read_text()


def test_a_network_without_metadata_gets_a_page(network: nn.Module, tmp_path: Path) -> None:
    write(network, tmp_path)
    given = settings_of(tmp_path / "index.html")["input"]
    assert given == {
        "shape": [3, 16, 16],
        "mean": [0.0] * 3,
        "std": [1.0] * 3,
        "resize_px": [16],
        "class_names": [],
    }


def test_without_the_runtime_the_way_to_it_is_named(
    network: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HWNAS_CACHE", str(tmp_path / "empty"))
    with pytest.raises(UserError, match="not on this machine") as error:
        write(network, tmp_path / "out")
    assert "--fetch (in Python, `hwnas.export`" in str(error.value.fix) and error.value.where
    sections, absent = every_format(), not_installed()
    assert "web" not in {one["name"] for one in sections}
    for name in ("web:fp32", "web:int8"):
        assert absent[name].startswith("the files of @litertjs/core ")
        assert "; hwnas export RUN --formats all --fetch (in Python fetch=True)" in absent[name]


def test_a_network_without_a_run_fetches_the_runtime_too(
    network: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[str] = []
    monkeypatch.setattr(web, "fetch", lambda: fetched.append("web"))
    export(network, "web", tmp_path, fetch=True)
    assert fetched == ["web"] and (tmp_path / "index.html").is_file()
    with pytest.raises(UserError, match="--fetch does not apply to the formats onnx"):
        export(network, "onnx", tmp_path, fetch=True)


@pytest.mark.parametrize("formats", [None, ["onnx"], ["litert:int8", "onnx"]])
def test_formats_without_downloads_refuse_the_option(
    formats: list[str] | None, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="--fetch does not apply"):
        export(tmp_path, formats=formats, fetch=True)


def test_fetch_is_for_the_named_formats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[str] = []
    monkeypatch.setattr(web, "fetch", lambda: fetched.append("web"))
    with pytest.raises(UserError, match="run"):  # there is no run, but the runtime is there
        export(tmp_path / "none", formats=["onnx", "web:int8"], fetch=True)
    assert fetched == ["web"]
