"""`--formats all`: one table; a format that is missing, unsayable, or crashes stops no other."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn
from typer.testing import CliRunner

import hwnas
from hwnas.api.export import export_plan
from hwnas.builders.onnx import context
from hwnas.cli.main import app
from hwnas.core import plugins
from hwnas.core.errors import CheckFailed, UserError
from hwnas.core.progress import silent
from hwnas.exporters import REGISTRY, apart, every, fp16, time_limits, timm
from hwnas.exporters.apart import Crashed, Runner, TimedOut, export_safely, opened_safely
from hwnas.exporters.artifact import PlannedFormat
from hwnas.exporters.by_name import planned
from hwnas.exporters.every import every_format, not_installed
from hwnas.exporters.formats import export, open_model
from hwnas.nets.subnet import build_subnet, input_shape_of
from hwnas.pipeline import accuracy, config
from hwnas.pipeline.exports import exports_of, winning_archs
from hwnas.pipeline.format_time import measured_weight, table_s, weight
from hwnas.pipeline.opening import open_project
from hwnas.studies import format_table
from hwnas.testing.suite import tiny_space
from tests.broken_formats import installed
from tests.old_runs import unpacked_run


@pytest.fixture(scope="module")
def formats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Formats of an installed package that fail."""
    with installed(tmp_path_factory.mktemp("site")):
        yield


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
def test_what_hangs_is_ended_after_its_time_limit(
    network: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, other = tmp_path / "m.onnx", tmp_path / "waiting"
    model.write_bytes(context(8, 4).SerializeToString())
    other.write_bytes(b"x")
    x = np.random.default_rng(0).standard_normal((1, 8, 4, 4)).astype(np.float32)
    waited = r"takes too long.*answer within 2 s.*no answer after 2 s, so it was ended"
    with Runner() as runner:
        opened = runner.open("onnx", model)
        group = runner._process.pid
        with monkeypatch.context() as patch:
            patch.setattr(apart, "export_limit_s", lambda network, shape: 2.0)
            patch.setattr(apart, "run_limit_s", lambda n_images=0: 2.0)
            with pytest.raises(TimedOut, match=f"(?s)the converter of the format hanging {waited}"):
                export_safely(
                    planned("hanging", {}),
                    network,
                    runner=runner,
                    folder=tmp_path,
                    images={},
                    input_shape=input_shape_of(network),
                    metadata={},
                )
            with pytest.raises(Crashed, match=f"(?s)the runtime of the format waiting {waited}"):
                runner.open("waiting", other)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                os.killpg(group, 0)
            except ProcessLookupError:
                break
            time.sleep(0.1)
        else:
            pytest.fail("what the converter has started still runs")
        assert opened.model.run(x).shape[0] == 1  # in a new process


def test_time_limits_follow_the_cost_of_the_network() -> None:
    class Slow(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            time.sleep(0.05)
            return x.mean((2, 3))

    least = time_limits.LEAST_S
    assert time_limits.export_limit_s(Slow(), (3, 4, 4)) >= least + 5000
    assert time_limits.run_limit_s() == least < time_limits.run_limit_s(8)


@pytest.mark.usefixtures("formats")
def test_one_table_of_all_formats(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["onnx", "int8", "crashing", "unsayable", "falling"]
    every = [{"name": name} for name in names]
    absent = {"coreml:fp16": "coremltools is not installed; pip install 'hwnas[coreml]'"}
    monkeypatch.setattr(config, "every_format", lambda: every)
    monkeypatch.setattr(format_table, "not_installed", lambda: absent)
    found = hwnas.export(folder, formats=["all"])
    rows = {row["format"]: row for row in found}
    assert list(rows) == [*names, "coreml:fp16"]
    onnx = rows["onnx"]
    file = next(folder.rglob(f"export/{onnx['arch']}/model.onnx"))
    assert onnx["mb"] == round(file.stat().st_size / 1e6, 3)
    assert onnx["ok"] and 0 < onnx["parity"] < 1e-4 and onnx["agreement"] == 1
    assert onnx["ms"] > 0 and onnx["n_images"] == found.facts["n_images"] > 0
    assert rows["int8"]["parity"] > 0 and rows["int8"]["top1"] is not None
    assert rows["crashing"]["ok"] is False and "SIGABRT" in rows["crashing"]["notes"][0]
    assert rows["unsayable"]["ok"] is False and "HardSwish" in rows["unsayable"]["notes"][0]
    assert rows["unsayable"]["file"] is None and rows["crashing"]["ms"] is None
    (note,) = rows["falling"]["notes"]
    assert "the converter of the format falling crashed: SIGABRT; no such instruction" in note
    assert rows["falling"]["ok"] is False and rows["falling"]["file"] is None
    assert rows["coreml:fp16"]["ok"] is None and "hwnas[coreml]" in rows["coreml:fp16"]["notes"][0]
    columns = ["format", "ok", "MB", "top-1", "parity", "accepted", "ms here", "share delegated"]
    assert all(list(row) == [*columns, "note"] for row in found.shown)
    accepted = {row["format"]: row["accepted"] for row in found.shown}
    assert accepted["onnx"] == "1e-04, 100.0%" and accepted["int8"] == "3e-01, 98.0%"
    assert found.title.startswith("files of the winner: ") and onnx["arch"] not in found.title
    assert f"vary by {found.facts['spread']:.1%}" in found.title and onnx["spread"] >= 0
    with pytest.raises(CheckFailed, match=r"(?s)formats are missing.*SIGABRT.*HardSwish"):
        hwnas.export(folder)  # asked for by name, as the configuration does now


def test_files_of_a_format_are_neighbours_and_noise_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(config, "every_format", lambda: [{"name": "onnx"}, {"name": "int8"}])
    monkeypatch.setattr(format_table, "not_installed", dict)
    known = format_table.exports_of
    twice = MagicMock(side_effect=lambda *of: (*known(*of), known(*of)[0]))
    monkeypatch.setattr(format_table, "exports_of", twice)
    monkeypatch.setattr("hwnas.api.export.QUIET", -1.0)
    found = hwnas.export(folder, formats=["all"])
    assert [row["format"] for row in found] == ["onnx", "onnx", "int8"]
    assert "the times in the table are noisy" in caplog.text and "close other" in caplog.text


def test_progress_counts_expected_seconds_and_files(folder: Path) -> None:
    """So the time left does not jump at formats and networks that take long."""
    seen: list[tuple[int, int, str]] = []
    slow = PlannedFormat(REGISTRY.declaration("executorch").Config(precision="int8"))
    assert weight(slow) >= 10 * weight(planned("onnx", {}))
    assert measured_weight("coreml") > measured_weight("onnx")
    assert table_s(["coreml"]) > table_s(["onnx"])
    with open_project(
        folder, progress_for=lambda _: silent, command="test", read_only=True
    ) as project:
        (arch, *_) = winning_archs(project)
        accuracies = accuracy.test_accuracies(project, arch, lambda *now: seen.append(now))
        n = len(exports_of(project, arch))
    assert [done for done, *_ in seen] == [*range(n), n] and n > 1
    assert seen[0] == (0, n, "model.onnx") and accuracies.here


def test_the_plan_of_all_formats_has_the_table(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(config, "every_format", lambda: [{"name": "onnx"}, {"name": "timm"}])
    absent = {"a:fp32": "x is not installed; do y", "a:int8": "x is not installed; do y"}
    monkeypatch.setattr(every, "not_installed", lambda: absent)
    before = hwnas.plan(folder, only="export", settings={"export": ["onnx", "timm"]})
    *stages, table = export_plan(folder, formats=["all"])
    assert [row["stage"] for row in stages] == [row["stage"] for row in before]
    assert table["cost"].startswith("2 files of each winner on up to 500 images, 15 rounds")
    assert table["left_s"] > 0 and table["now"] and table["why"] == "measured by every call"
    assert len(export_plan(folder, formats=["onnx", "timm"])) == len(stages)
    hwnas.export(folder, formats=["onnx", "timm"])
    caplog.set_level("INFO")
    for formats, text in (("onnx,timm", "nothing is left"), ("all", "the stages, which are up")):
        shown = CliRunner().invoke(app, ["export", str(folder), "--formats", formats, "--dry-run"])
        assert ("table of" in shown.stdout) == (formats == "all") and text in caplog.text
        assert ("about" in caplog.text) == (formats == "all")
    assert "note: left out: a:fp32, a:int8: x is not installed; do y" in caplog.text


def test_a_format_that_was_not_downloaded_is_refused_before_the_first_stage(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timm, "unfetched", lambda: "no files", raising=False)
    for verb in (export_plan, hwnas.export):
        with pytest.raises(UserError, match="format timm needs files that were not") as error:
            verb(folder, formats=["onnx", "timm"], settings={"verify.parity_batches": [3]})
        assert error.value.found == "no files" and "--formats timm --fetch" in error.value.fix


@pytest.mark.parametrize("text", ["onnx,,int8", "onnx,", ""])
def test_an_empty_name_of_a_format_is_refused(text: str, folder: Path) -> None:
    shown = CliRunner().invoke(app, ["export", str(folder), "--formats", text, "--dry-run"])
    assert shown.exit_code and repr(text) in str(shown.exception or shown.output)


def _without(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a package is not installed."""
    find = plugins.locate
    monkeypatch.setattr(plugins, "locate", lambda name: None if name == package else find(name))


def test_a_run_opens_where_the_package_of_a_format_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished = unpacked_run("finished", tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(config, "every_format", lambda: [{"name": "litert", "precision": "fp32"}])
        hwnas.export(finished, formats=["all"])
    _without("ai_edge_litert", monkeypatch)
    state = {row["stage"]: row["status"] for row in hwnas.status(finished)}
    assert state["export/main"] == "done"
    assert "model.tflite" in {row["file"] for row in hwnas.export(finished)}
    assert len(hwnas.open_run(finished).networks) > 1
    assert hwnas.report(finished).is_file()
    with pytest.raises(UserError, match=r"(?s)'litert' needs a package.*hwnas\[litert\]"):
        hwnas.export(finished, formats=["litert:int8"])  # converts
    with pytest.raises(UserError, match=r"export.1.n_calibratoin: unknown key"):
        hwnas.status(finished, settings={"export.1.n_calibratoin": 3})


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return build_subnet(tiny_space(), tiny_space().smallest()).eval()


@pytest.mark.usefixtures("formats")
def test_a_network_is_converted_in_a_process_that_may_crash(
    network: nn.Module, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(Crashed, match=r"(?s)the converter of the format falling crashed.*SIGABRT"):
        hwnas.export(network, "falling", tmp_path)
    with pytest.raises(UserError, match=r"(?s)no such operator.*HardSwish"):
        hwnas.export(network, "unsayable", tmp_path)
    with pytest.raises(CheckFailed, match="differ in shape"):
        hwnas.export(network, "talking", tmp_path, metadata={"card": "x"})
    with pytest.raises(Crashed, match=r"(?s)the runtime of the format crashing crashed"):
        hwnas.export(network, "crashing", tmp_path)
    assert "one layer stays in float: ['card']" in caplog.text, "what a converter logs is passed on"
    assert not list(tmp_path.iterdir()), "files that are not checked are removed"


class Foreign(nn.Module):
    """A network that hwnas did not build."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.Hardswish()
        )
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[1] != 3:
            raise ValueError("not an RGB image")
        return self.head(self.body(x).mean((2, 3)))


class Dynamic(Foreign):
    """What it computes depends on values, so that torch.export cannot capture it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) if x.sum() > 1e9 else super().forward(2 * x)


@pytest.mark.usefixtures("formats")
@pytest.mark.parametrize("kind", [Foreign, Dynamic])
def test_a_foreign_network_is_converted_in_a_process_that_may_crash(
    kind: type[Foreign], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = np.random.default_rng(0).standard_normal((16, 3, 8, 8)).astype(np.float32)
    if kind is Dynamic:  # it would end this process
        monkeypatch.setattr(apart, "saved", saved := MagicMock(wraps=apart.saved))
        with pytest.raises(UserError, match="no such operator"):
            hwnas.export(Dynamic().eval(), "unsayable", tmp_path, images=images)
        assert saved.call_count == 1
        return
    with pytest.raises(Crashed, match=r"(?s)the converter of the format falling crashed.*SIGABRT"):
        hwnas.export(kind().eval(), "falling", tmp_path, images=images)


def test_a_foreign_network_is_exported_from_its_program(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert", reason="pip install 'hwnas[litert]'")
    torch.manual_seed(0)
    images = np.random.default_rng(0).standard_normal((16, 3, 8, 8)).astype(np.float32)
    for precision in ("fp32", "int8"):
        hwnas.export(Foreign().eval(), f"litert:{precision}", tmp_path, images=images)
    assert len([*tmp_path.glob("*.tflite")]) == 2


def test_the_other_process_builds_the_same_network(network: nn.Module, tmp_path: Path) -> None:
    """It takes the float graph from the folder, which it does only for equal networks."""
    export(network, "onnx", tmp_path)
    graph = onnx.load(tmp_path / "model.onnx")
    (tmp_path / "model.onnx").unlink()
    for tensor in graph.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(0 * numpy_helper.to_array(tensor), tensor.name))
    onnx.save(graph, tmp_path / "model.onnx")
    with Runner() as runner:
        (path,) = runner.export(
            PlannedFormat(fp16.Config()),
            network,
            folder=tmp_path,
            input_shape=input_shape_of(network),
            metadata={},
            images={},
        )
    weights = [numpy_helper.to_array(one) for one in onnx.load(path).graph.initializer]
    assert weights and not any(one.any() for one in weights if one.dtype == np.float16)


def test_every_format_is_installed_or_says_how() -> None:
    sections, absent = every_format(), not_installed()
    names = {f"{one['name']}:{one.get('precision', '')}".rstrip(":") for one in sections}
    assert {"onnx", "int8", "ort", "timm"} <= names and not names & absent.keys()
    for name in ("coreml:fp16", "executorch:int8", "tensorrt:fp16", "openvino:int8", "ncnn"):
        assert name in names or "pip install 'hwnas[" in absent[name]
    with pytest.raises(UserError, match="pip install 'hwnas"):
        REGISTRY.load(next(name for name in absent if "pip" in absent[name]).split(":")[0])
