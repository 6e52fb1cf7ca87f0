"""The README of a bundle is a model card whose Python runs, format by format."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import ModelCard

import hwnas
from hwnas.exporters import REGISTRY
from hwnas.exporters.bundle import write_bundle
from hwnas.exporters.formats import exporter
from hwnas.exporters.manifest import AccuracyFact, InputSpec, LatencyFact, Manifest
from hwnas.exporters.samples import SampleImage
from hwnas.interfaces import DataInfo, DeviceSpec, ModelFile
from hwnas.nets.subnet import build_subnet
from tests.bundles import BASE_PX, CLASSES, MEAN, STD, colour_images

PX = 16
INFO = DataInfo("colours", CLASSES, MEAN, STD, BASE_PX, {"test": 200})
FORMATS = ("onnx", "fp16", "int8", "ort", "litert", "timm", "pt2", "features")
OPTIONAL = ("openvino", "ncnn", "executorch", "coreml")
RUNS_ELSEWHERE = {"coreml"}  # Core ML predicts on macOS only


def installed(names: tuple[str, ...]) -> list[str]:
    return [name for name in names if not REGISTRY.describe(name).missing]


def bundle_of(folder: Path, formats: list[str], **fields: object) -> Manifest:
    """A bundle of an untrained network in these formats."""
    import torch

    space = hwnas.space("mobilenet_tiny", resolutions=[PX], num_classes=len(CLASSES))
    arch = space.smallest()
    torch.manual_seed(0)
    network = build_subnet(space, arch).eval()
    pixels, labels = colour_images(16)
    spec = InputSpec.of(INFO, PX)
    level = torch.from_numpy(pixels.astype(np.float32) / 255).movedim(3, 1)
    from hwnas.training.images import normalise, resize

    x = resize(normalise(level, MEAN, STD), PX).contiguous()
    with torch.inference_mode():
        logits = network(x).numpy()
    made = folder.parent / "exports"
    models: dict[str, Path] = {}
    companions: dict[str, Path] = {}
    entries: list[ModelFile] = []
    for name in ["onnx", *(one for one in formats if one != "onnx")]:
        place = made / "timm" if name == "timm" else made
        one = exporter(name)
        files = one.export(network, input_shape=spec.shape, folder=place, images=x.numpy())
        entry = one.describe(files)
        if name not in formats:
            continue
        entries.append(entry)
        models[entry.path] = files[0]
        for file in files[1:]:
            companions[str(Path(entry.path).with_name(file.name))] = file
    first = entries[0].path
    device = DeviceSpec("board", threads=4)
    manifest = Manifest(
        name="colours-main",
        hwnas_version="0",
        arch=arch,
        arch_view=space.view(arch),
        input=spec,
        models=tuple(entries),
        runtimes={"torch": "2"},
        latency=(LatencyFact(device, first, "A55", 2.0, (1.5, 2.5), 2.1),),
        accuracy=(AccuracyFact(first, "colours", "test", 200, 0.9),),
        provenance={"table": "ab" * 32, "weights": "started from n (h), licence MIT"},
    )
    samples = [
        SampleImage(p, int(y), int(t))
        for p, y, t in zip(pixels, labels, logits.argmax(1), strict=True)
    ]
    return write_bundle(
        folder,
        replace(manifest, **fields),  # type: ignore[arg-type]
        models=models,
        companions=companions,
        golden_input=x.numpy(),
        golden_output=logits,
        samples=samples[:4],
    )


def blocks(folder: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (folder / "README.md").read_text(), re.M | re.S)


RUNNER = """
import contextlib, io, json, sys
for code in json.load(sys.stdin):
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(code, {"__name__": "__main__"})
    print(said.getvalue().strip().splitlines()[-1])
"""


def run(folder: Path, codes: list[str]) -> list[str]:
    """The last line that each program prints. One process, because imports of torch are slow."""
    done = subprocess.run(
        [sys.executable, "-c", RUNNER],
        input=json.dumps(codes),
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def check_snippets(folder: Path, formats: list[str]) -> None:
    """Every block names the class that torch found for the first sample."""
    manifest = bundle_of(folder, formats)
    expected = CLASSES[manifest.samples[0].predicted]
    with_hwnas, start, *by_format = blocks(folder)
    assert len(by_format) == len(formats)
    runs = [
        f"{start}\n{code}"
        for name, code in zip(formats, by_format, strict=True)
        if name not in RUNS_ELSEWHERE or sys.platform == "darwin"
    ]
    for code in by_format:
        compile(code, "README.md", "exec")
    first, *found = run(folder, [with_hwnas, *runs])
    assert first.startswith(f"{expected} (")
    assert found == [expected] * len(runs)


def test_the_python_of_a_card_runs_in_every_format(tmp_path: Path) -> None:
    check_snippets(tmp_path / "bundle", installed(FORMATS))


@pytest.mark.full
@pytest.mark.parametrize("name", OPTIONAL)
def test_the_python_of_optional_formats_runs(name: str, tmp_path: Path) -> None:
    if missing := REGISTRY.describe(name).missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    check_snippets(tmp_path / "bundle", [name])


def test_every_format_that_python_runs_has_its_lines() -> None:
    """Engines are run by scripts of the kit, and `web` by a browser."""
    without = {"tensorrt", "tensorrt_rtx", "web"}
    for name in REGISTRY.names:
        has_lines = "{file}" in getattr(REGISTRY.declaration(name), "USAGE", "")
        assert has_lines != (name in without), name


def test_a_card_is_metadata_of_huggingface_and_the_facts_of_the_bundle(tmp_path: Path) -> None:
    bundle_of(tmp_path / "bundle", ["onnx"], name='colours: "#1"')
    text = (tmp_path / "bundle" / "README.md").read_text()
    data = ModelCard(text).data
    assert (data.library_name, data.pipeline_tag) == ("hwnas", "image-classification")
    assert data.tags == ["hwnas", "neural-architecture-search", "onnx"]
    assert data.model_name == 'colours: "#1"'
    assert data.license == "mit"
    (result,) = data.eval_results
    assert (result.metric_type, result.metric_value, result.dataset_split) == (
        "accuracy", 0.9, "test",
    )  # fmt: skip
    for fact in (
        "90.00% ± 2.12% of 200 test images",
        "2.1 ms measured, 2 ms estimated (90 % interval: 1.5 to 2.5) on board (A55, 4 threads)",
        "Device board: A55; runtime onnxruntime, provider CPUExecutionProvider, batch size 1",
        "90 % interval",
        f"Latency table: sha256 `{'ab' * 32}`",
        "Trained on: colours.",
        "- The weights started from n \\(h\\), licence MIT.",
    ):
        assert fact in text, fact


def test_a_bundle_that_is_written_again_has_the_same_bytes(tmp_path: Path) -> None:
    contents = []
    for _ in range(2):
        bundle_of(tmp_path / "bundle", ["onnx", "timm", "pt2"])
        files = sorted(path for path in (tmp_path / "bundle").rglob("*") if path.is_file())
        contents.append({path.name: path.read_bytes() for path in files})
    assert contents[0] == contents[1]


def test_a_card_without_measurements_says_so(tmp_path: Path) -> None:
    bundle_of(tmp_path / "bundle", ["onnx"], latency=(), accuracy=(), provenance={})
    text = (tmp_path / "bundle" / "README.md").read_text()
    assert "- Nothing was measured." in text and "Latency table" not in text
    assert ModelCard(text).data.eval_results is None
