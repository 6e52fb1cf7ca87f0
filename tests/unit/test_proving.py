"""`hwnas verify BUNDLE`: sound bundles pass, and whatever falls short is named."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from hwnas import __version__
from hwnas.cli.main import app
from hwnas.core.errors import CheckFailed, UserError
from hwnas.core.progress import silent
from hwnas.exporters import REGISTRY
from hwnas.exporters.bundle import read_manifest, write_bundle
from hwnas.exporters.manifest import AccuracyFact, InputSpec, Manifest
from hwnas.exporters.parity import torch_logits
from hwnas.interfaces import DataModule
from hwnas.nets.subnet import build_subnet
from hwnas.pipeline.config import ExperimentConfig, load_config, read_config_data
from hwnas.pipeline.proving import verify_bundle
from hwnas.spaces.mobilenet_tiny import Config, build
from hwnas.training.datasets import digits
from hwnas.training.images import resize

PX = 16
FORMATS = ("onnx", "timm", "fp16", "int8")
MINI = Path(__file__).parent.parent / "integration" / "mini.yaml"


@pytest.fixture(scope="module")
def data() -> DataModule:
    return digits.build(digits.Config(base_px=PX), seed=0, n_workers=0)


@pytest.fixture(scope="module")
def parts(data: DataModule, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A network that learnt a little, in four formats, and the arguments of `write_bundle`."""
    info = data.info
    space = build(
        Config(resolutions=(PX,)), num_classes=info.num_classes, in_channels=info.in_channels
    )
    arch = space.smallest()
    model = build_subnet(space, arch)
    optimizer = torch.optim.AdamW(model.parameters(), 5e-3)
    for epoch in range(2):
        for x, y in data.train_batches(epoch, 64):
            loss = torch.nn.functional.cross_entropy(model(resize(x, PX)), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model.eval()
    folder = tmp_path_factory.mktemp("exported")
    calibration = torch.cat(data.calibration_batches(8, 32)).contiguous().numpy()
    batches = list(data.eval_batches("test", 512))
    test = torch.cat([x for x, _ in batches]).contiguous().numpy()
    labels = torch.cat([y for _, y in batches]).numpy()
    models, companions, described, facts = {}, {}, [], []
    for name in FORMATS:
        module = REGISTRY.load(name)
        files = module.build(module.Config()).export(
            model, input_shape=(info.in_channels, PX, PX), folder=folder, images=calibration
        )
        entry = module.describe(module.Config(), files)
        described.append(entry)
        models[entry.path] = files[0]
        for path in files[1:]:
            companions[str(Path(entry.path).with_name(path.name))] = path
        top1 = float((module.open_model(files[0]).logits(test).argmax(1) == labels).mean())
        facts.append(AccuracyFact(entry.path, info.name, "test", len(labels), top1))
    manifest = Manifest(
        name="test",
        hwnas_version=__version__,
        arch=arch,
        arch_view=space.view(arch),
        input=InputSpec.of(info, PX),
        models=tuple(described),
        runtimes={},
        accuracy=tuple(facts),
    )
    golden = test[:16]
    return {
        "manifest": manifest,
        "models": models,
        "companions": companions,
        "golden_input": golden,
        "golden_output": torch_logits(model, golden),
    }


def verify(folder: Path, data: DataModule | None) -> Any:
    return verify_bundle(folder, data=data, config=None, progress=silent)


def test_a_sound_bundle_passes_in_every_format(
    parts: dict[str, Any], data: DataModule, tmp_path: Path
) -> None:
    write_bundle(tmp_path / "b", **parts)
    report = verify(tmp_path / "b", data)
    assert not report.failed and not report.notes
    rows = {row["model"]: row for row in report.models}
    assert list(rows) == [model.path for model in parts["manifest"].models]
    for row in rows.values():
        assert row["passed"] and row["batches"] == "1, 2, 8"
        assert row["n"] > 300 and row["test top1"] == row["promised top1"] > 0.5
    assert rows["model.onnx"]["agreement"] == 1 and rows["model.onnx"]["relative"] <= 1e-4
    assert rows["model.onnx"]["mean diff"] < rows["model.int8.onnx"]["mean diff"]
    assert rows["model.int8.onnx"]["agreement"] >= 0.98


def test_without_a_data_set_the_golden_inputs_are_compared(
    parts: dict[str, Any], tmp_path: Path
) -> None:
    write_bundle(tmp_path / "b", **parts)
    report = verify(tmp_path / "b", None)
    assert not report.failed
    assert any("16 golden inputs, accuracy not checked" in note for note in report.notes)
    assert all("test top1" not in row for row in report.models)


def test_a_model_of_another_network_and_a_broken_promise_are_named(
    parts: dict[str, Any], data: DataModule, tmp_path: Path
) -> None:
    import onnx
    from onnx import numpy_helper

    model = onnx.load(parts["models"]["model.onnx"])
    for tensor in model.graph.initializer:
        if len(tensor.dims) == 4:
            array = numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array(array + np.float32(0.05), tensor.name))
    other = tmp_path / "other.onnx"
    onnx.save(model, other)
    manifest = parts["manifest"]
    better = tuple(
        dataclasses.replace(fact, top1=1.0) if fact.model == "model.fp16.onnx" else fact
        for fact in manifest.accuracy
    )
    changed = parts | {
        "manifest": dataclasses.replace(manifest, accuracy=better),
        "models": parts["models"] | {"model.onnx": other},
    }
    write_bundle(tmp_path / "b", **changed)
    report = verify(tmp_path / "b", data)
    text = "\n".join(report.failed)
    assert "model.onnx: differs from torch" in text
    assert "model.fp16.onnx: test top-1" in text and "promised 100.00%" in text
    assert "model.int8.onnx" not in text
    assert [row["passed"] for row in report.models] == [False, True, False, True]


def test_another_data_set_and_an_altered_file_are_refused(
    parts: dict[str, Any], tmp_path: Path
) -> None:
    write_bundle(tmp_path / "b", **parts)
    with pytest.raises(UserError, match="another data set"):
        verify(tmp_path / "b", digits.build(digits.Config(base_px=20), seed=0, n_workers=0))
    (tmp_path / "b" / "model.onnx").write_bytes(b"other")
    with pytest.raises(UserError, match="altered"):
        verify(tmp_path / "b", None)


def test_the_verb_prints_a_table_and_exits_3_when_something_falls_short(
    parts: dict[str, Any], tmp_path: Path
) -> None:
    manifest = parts["manifest"]
    promised = tuple(dataclasses.replace(fact, top1=1.0) for fact in manifest.accuracy)
    changed = dataclasses.replace(manifest, accuracy=promised)
    folder = tmp_path / "b"
    write_bundle(folder, **(parts | {"manifest": changed}))
    config = ["--config", str(MINI), "--set", f"data.base_px={PX}"]
    run = CliRunner().invoke(app, ["verify", str(folder), *config, "--format", "json"])
    assert isinstance(run.exception, CheckFailed) and run.exception.exit_code == 3
    printed = json.loads(run.stdout)
    assert len(printed["table"]) == len(FORMATS) and len(printed["failed"]) == len(FORMATS)
    accepted = CliRunner().invoke(app, ["verify", str(folder), *config, "--report-only"])
    assert accepted.exit_code == 0 and "promised top1" in accepted.stdout
    assert not (folder / "config.yaml").exists()
    read_manifest(folder)


def test_onnx_cannot_be_left_out() -> None:
    data, where = read_config_data(str(MINI))
    with pytest.raises(UserError, match="has no onnx"):
        load_config(data, ["export=[{name: timm}]"], where=where)
    config: ExperimentConfig = load_config(data, where=where)
    assert [section.name for section in config.export] == ["onnx", "timm"]
