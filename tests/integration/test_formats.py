"""`--formats all`: one table; a format that is missing, unsayable, or crashes stops no other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import hwnas
from hwnas.builders.onnx import context
from hwnas.core.errors import CheckFailed, UserError
from hwnas.exporters import REGISTRY
from hwnas.exporters.apart import Crashed, Runner, opened_safely
from hwnas.exporters.every import every_format, not_installed
from hwnas.exporters.formats import open_model
from hwnas.pipeline import config
from hwnas.studies import format_table

PLUGIN = '''"""{summary}"""
import os
from typing import Literal

from hwnas.core.errors import UserError
from hwnas.exporters.base import Format, FormatConfig
from hwnas.interfaces import ModelFile, OpenModel


class Config(FormatConfig):
    name: Literal["{name}"] = "{name}"


def build(config):
    return _Format()


class _Format(Format):
    def contents(self, source):
        {contents}

    def describe(self, files):
        return ModelFile("{name}", "{name}", "fp32")

    def open_model(self, path, *, threads=1):
        {opened}
'''
FORMATS = {
    "crashing": ('return {"crashing": b"x"}', "os.write(2, b'no such instruction'); os.abort()"),
    "unsayable": ('raise UserError("no such operator", found="HardSwish")', "pass"),
}


@pytest.fixture(scope="module")
def formats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Two formats of an installed package."""
    site = tmp_path_factory.mktemp("site")
    about = site / "broken-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    lines = [f"{name} = broken_{name}" for name in FORMATS]
    (about / "entry_points.txt").write_text("\n".join(["[hwnas.exporters]", *lines]))
    for name, (contents, opened) in FORMATS.items():
        text = PLUGIN.format(summary=name, name=name, contents=contents, opened=opened)
        (site / f"broken_{name}.py").write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site))
        _forget()
        yield
    _forget()


def _forget() -> None:
    """The registry looks for installed packages again."""
    for name in ("_places", "_outside"):
        REGISTRY.__dict__.pop(name, None)


@pytest.mark.usefixtures("formats")
def test_a_crash_ends_only_the_process_of_the_runtime(tmp_path: Path) -> None:
    model, bad = tmp_path / "m.onnx", tmp_path / "crashing"
    model.write_bytes(context(8, 4).SerializeToString())
    bad.write_bytes(b"x")
    x = np.random.default_rng(0).standard_normal((1, 8, 4, 4)).astype(np.float32)
    with Runner() as runner:
        opened = runner.open("onnx", model)
        expected = open_model("onnx", model).run(x)
        np.testing.assert_array_equal(opened.model.run(x), expected)
        with pytest.raises(Crashed, match=r"(?s)crashing crashed.*SIGABRT; .*no such instruction"):
            runner.open("crashing", bad)
        np.testing.assert_array_equal(opened.model.run(x), expected)  # in a new process
        assert len(opened.times(x, 3)) == 3 and min(opened.times(x, 3)) > 0
        with pytest.raises(UserError, match="ONNX Runtime rejects the file"):
            runner.open("onnx", bad)
    with pytest.raises(Crashed), opened_safely("crashing", bad):
        pass


@pytest.mark.usefixtures("formats")
def test_one_table_of_all_formats(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    every = [{"name": "onnx"}, {"name": "int8"}, {"name": "crashing"}, {"name": "unsayable"}]
    absent = {"coreml:fp16": "coremltools is not installed; pip install 'hwnas[coreml]'"}
    monkeypatch.setattr(config, "every_format", lambda: every)
    monkeypatch.setattr(format_table, "not_installed", lambda: absent)
    found = hwnas.export(folder, formats=["all"])
    rows = {row["format"]: row for row in found}
    assert list(rows) == ["onnx", "int8", "crashing", "unsayable", "coreml:fp16"]
    onnx = rows["onnx"]
    file = next(folder.rglob(f"export/{onnx['arch']}/model.onnx"))
    assert onnx["mb"] == round(file.stat().st_size / 1e6, 3)
    assert onnx["ok"] and 0 < onnx["parity"] < 1e-4 and onnx["agreement"] == 1
    assert onnx["ms"] > 0 and onnx["n_images"] == found.facts["n_images"] > 0
    assert rows["int8"]["parity"] > 0 and rows["int8"]["top1"] is not None
    assert rows["crashing"]["ok"] is False and "SIGABRT" in rows["crashing"]["notes"][0]
    assert rows["unsayable"]["ok"] is False and "HardSwish" in rows["unsayable"]["notes"][0]
    assert rows["unsayable"]["file"] is None and rows["crashing"]["ms"] is None
    assert rows["coreml:fp16"]["ok"] is None and "hwnas[coreml]" in rows["coreml:fp16"]["notes"][0]
    columns = ["format", "ok", "MB", "top-1", "parity", "ms here", "share delegated", "note"]
    assert all(list(row) == columns for row in found.shown)
    with pytest.raises(CheckFailed, match=r"(?s)formats are missing.*SIGABRT.*HardSwish"):
        hwnas.export(folder)  # asked for by name, as the configuration does now


def test_every_format_is_installed_or_says_how() -> None:
    sections, absent = every_format(), not_installed()
    names = {f"{one['name']}:{one.get('precision', '')}".rstrip(":") for one in sections}
    assert {"onnx", "int8", "ort", "timm"} <= names and not names & absent.keys()
    for name in ("coreml:fp16", "executorch:int8", "tensorrt:fp16", "openvino:int8", "ncnn"):
        assert name in names or "pip install 'hwnas[" in absent[name]
    with pytest.raises(UserError, match="pip install 'hwnas"):
        REGISTRY.load(next(iter(absent)).split(":")[0])
