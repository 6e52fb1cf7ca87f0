"""One device, one precision, one file: from the search to the kit, on every kind of device.

One run has a device of each kind; their timings are simulated, their files are real. OpenVINO and
TensorRT are imitated on ONNX Runtime. A wrong file is noticed by stage `verify`, by `hwnas verify
BUNDLE` and by the bundle's own kit, although every checksum fits.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hwnas.core.env import host_facts
from hwnas.core.progress import silent
from hwnas.core.resources import resource
from hwnas.exporters import REGISTRY as EXPORTERS
from hwnas.exporters.bundle import read_manifest
from hwnas.exporters.manifest import Manifest
from hwnas.measure.bundle_check import verify_bundle
from hwnas.pipeline import foreign_tables, opening, project, winners
from hwnas.pipeline.engine import execute
from hwnas.pipeline.graph import stages_of
from hwnas.pipeline.outcomes import Results
from tests.gpu import imitated_tensorrt
from tests.intel import forget_modules, imitated_openvino
from tests.kit import SizeTransport
from tests.machine import has_8_bit_products
from tests.photos import class_folders

CONFIG = Path(__file__).parent / "kills.yaml"
DEVICES = {  # name: (settings, the file that it runs, a file in another precision)
    "local": ({}, "model.onnx", "model.int8.onnx"),
    "int8": ({"precision": "int8"}, "model.int8.onnx", "model.onnx"),
    "half": ({"precision": "fp16", "batch": 2}, "model.fp16.onnx", "model.int8.onnx"),
    "torch": ({"runtime": "torch", "provider": "cpu"}, "model.onnx", "model.int8.onnx"),
    "ov": (
        {"runtime": "openvino", "provider": "CPU", "precision": "int8"},
        "openvino/model.int8.xml",
        "openvino/model.fp16.xml",
    ),
    "trt": (
        {"runtime": "tensorrt", "provider": "cuda:0", "precision": "int8"},
        "engines/model.int8.tensorrt.engine",
        "engines/model.fp32.tensorrt.engine",
    ),
}
if not EXPORTERS.describe("litert").missing:
    LITERT = {"runtime": "litert", "provider": "cpu"}
    DEVICES["lite"] = (LITERT, "model.tflite", "model.int8.tflite")
    DEVICES["lite8"] = ({**LITERT, "precision": "int8"}, "model.int8.tflite", "model.tflite")
EXPORT = ["onnx", "timm", {"name": "tensorrt", "precision": "fp32", "batches": [1, 1, 1]},
          {"name": "openvino", "precision": "fp16"}]  # fmt: skip


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pytest.MonkeyPatch]:
    """A machine with OpenVINO and TensorRT whose timings are simulated; two networks are enough."""
    folder = tmp_path_factory.mktemp("machine")
    with pytest.MonkeyPatch.context() as patch:
        environment = imitated_tensorrt(folder)
        paths = [str(imitated_openvino(folder)), os.environ.get("PYTHONPATH", "")]
        for key in ("LD_LIBRARY_PATH", "CALLS"):
            patch.setenv(key, environment[key])
        patch.setenv("PYTHONPATH", os.pathsep.join(path for path in paths if path))
        patch.syspath_prepend(str(folder))
        patch.setattr(project, "load_transport", lambda name, **_: SizeTransport())
        facts = host_facts() | {"cpu": "Fake 1"}
        patch.setattr(foreign_tables, "host_facts", lambda: facts)
        roles = lambda project: (*winners.winner_roles(project), "smallest")  # noqa: E731
        patch.setattr(winners, "role_names", roles)
        yield patch
    forget_modules(folder)


def opened(run: Path, config: str | None = None, **changes: Any) -> Any:
    return opening.open_project(
        run,
        config=config,
        changes=changes,
        progress_for=lambda stage: silent,
        command="test",
    )


@pytest.fixture(scope="module")
def run(machine: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with every device."""
    folder = tmp_path_factory.mktemp("runs")
    class_folders(folder / "pets", ["ant", "bee", "cat"], 40, px=14)
    for name, (settings, _, _) in DEVICES.items():
        (folder / f"{name}.yaml").write_text(json.dumps({"schema_version": 1, **settings}))
    devices = [str(folder / f"{name}.yaml") for name in DEVICES]
    changes = {"workers": 0, "data.root": str(folder / "pets"), "devices": devices}
    with opened(folder / "run", str(CONFIG), **changes, export=EXPORT) as it:
        execute(stages_of(it), it.run)
    return folder / "run"


def results(run: Path) -> Results:
    with opened(run) as it:
        found: Results = it.files.results.read()
    return found


def bundle(run: Path, device: str, to: Path) -> Path:
    """A copy that may be changed."""
    return Path(shutil.copytree(run / "bundles" / "main" / device, to / device))


def check(folder: Path, *arguments: str) -> tuple[int, dict[tuple[str, str], dict[str, Any]], str]:
    """Exit status of the kit's check, what it found by file and check, and what it printed."""
    command = [sys.executable, "device_run.py", "--check", ".", "--json", "../found.json"]
    done = subprocess.run([*command, *arguments], cwd=folder, capture_output=True, text=True)
    found = folder.parent / "found.json"
    rows = json.loads(found.read_text()) if found.exists() else []
    found.unlink(missing_ok=True)
    by_name = {(row["model"], row["check"]): row for row in rows}
    return done.returncode, by_name, done.stdout + done.stderr


def swap(folder: Path, files: dict[str, bytes]) -> None:
    """Put other contents into a bundle, whose manifest then lists their checksums."""
    manifest = json.loads((folder / "manifest.json").read_text())
    for name, content in files.items():
        (folder / name).write_bytes(content)
        (entry,) = [file for file in manifest["files"] if file["path"] == name]
        entry |= {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def with_companions(path: str) -> list[str]:
    """A model and what lies beside it."""
    beside = {".xml": path.replace(".xml", ".bin"), ".engine": f"{path}.json"}
    return [path, *(name for ending, name in beside.items() if path.endswith(ending))]


@pytest.mark.parametrize("device", DEVICES)
def test_the_bundle_promises_what_its_device_runs(run: Path, device: str) -> None:
    settings, path, _ = DEVICES[device]
    manifest: Manifest = read_manifest(run / "bundles" / "main" / device)
    artifact, fact = manifest.models[0], manifest.latency[0]
    precision = settings.get("precision", "fp32")
    assert (artifact.path, artifact.precision) == (path, precision)
    assert (fact.model, fact.device.name, fact.device.precision) == (path, device, precision)
    assert fact.forecast_ms and fact.interval_ms and fact.measured_ms
    assert [f.model for f in manifest.latency if f.forecast_ms] == [path]
    row = next(row for row in results(run).networks if row.device == device)
    assert (row.name, row.file, row.precision) == ("winner", path, precision)
    assert row.measured_ms == pytest.approx(fact.measured_ms)
    assert manifest.accuracy[0].model == path and manifest.accuracy[0].top1 == row.test_top1
    floats = {f.model: f.top1 for f in manifest.accuracy}
    assert row.fp32_top1 == floats["model.onnx"]


def test_bundles_hold_what_is_configured_and_what_their_device_needs(run: Path) -> None:
    names = {
        device: [model.path for model in read_manifest(run / "bundles" / "main" / device).models]
        for device in DEVICES
    }
    always = ["timm/weights.safetensors", "openvino/model.fp16.xml",
              "engines/model.fp32.tensorrt.engine"]  # fmt: skip
    assert names["local"] == names["torch"] == ["model.onnx", *always]
    assert names["int8"] == ["model.int8.onnx", "model.onnx", *always]
    assert names["half"] == ["model.fp16.onnx", "model.onnx", *always]
    assert set(names["ov"]) == {"openvino/model.int8.xml", "model.int8.onnx", "model.onnx", *always}
    symmetric = "model.int8.symmetric.onnx"
    assert names["trt"][0] == "engines/model.int8.tensorrt.engine"
    assert symmetric in names["trt"] and "model.int8.onnx" not in names["trt"]
    facts = run / "bundles" / "main" / "trt" / f"{names['trt'][0]}.json"
    built = json.loads(facts.read_text())
    assert (built["model"], built["batches"], built["with_tf32"]) == (symmetric, [1, 1, 1], True)


def test_every_network_is_timed_and_tested_in_the_file_of_the_device(run: Path) -> None:
    found = results(run)
    for device, (_, path, _) in DEVICES.items():
        rows = [row for row in found.networks if row.device == device]
        assert [row.name for row in rows] == ["winner", "smallest"]
        assert {row.file for row in rows} == {path}
        with opened(run) as it:
            for row in rows:
                (file,) = [
                    it.files.exported_network(row.arch) / one.files[0]
                    for one in it.files.read_exports()[row.arch.key]
                    if one.model.path == path
                ]
                size = file.stat().st_size
                if path.endswith(".xml"):
                    size += file.with_suffix(".bin").stat().st_size
                assert row.measured_ms * (row.pace or 1) == pytest.approx(size / 1e6, rel=0.2)
    states = {check.name: check.passed for check in found.checks}
    assert {f"file of {device}" for device in DEVICES} - {"file of local"} <= set(states)
    assert all(ok for name, ok in states.items() if name.startswith(("file", "parity")))


def skip_if_it_saturates(device: str) -> None:
    """TensorRT is imitated by ONNX Runtime here, with activations and weights of 8 bits."""
    if device == "trt" and not has_8_bit_products():
        pytest.skip("sums of 8-bit products saturate on this processor")


@pytest.mark.parametrize("device", DEVICES)
def test_the_kit_checks_what_the_device_runs(run: Path, device: str, tmp_path: Path) -> None:
    skip_if_it_saturates(device)
    folder = bundle(run, device, tmp_path)
    status, found, text = check(folder, "--no-latency")
    path = DEVICES[device][1]
    assert status == 0, text
    assert {name for name, _ in found} == {path}
    assert all(found[path, name]["passed"] for name in ("precision", "golden outputs", "samples"))


@pytest.mark.parametrize("device", ["int8", "torch", "ov", "trt"])
def test_the_kit_times_what_the_device_runs(run: Path, device: str, tmp_path: Path) -> None:
    skip_if_it_saturates(device)
    folder = bundle(run, device, tmp_path)
    manifest = json.loads((folder / "manifest.json").read_text())
    path = manifest["models"][0]["path"]
    for slack, status in ((1e3, 0), (1e-3, 3)):
        for fact in manifest["latency"]:
            ms = 0.25 * slack if device == "trt" else 1.0 * slack
            fact |= {"forecast_ms": ms, "interval_ms": [ms, ms], "measured_ms": ms}
        manifest["constraints"] = []
        (folder / "manifest.json").write_text(json.dumps(manifest))
        ended, found, text = check(folder)
        assert ended == status, text
        assert "ms here" in found[path, "latency"]["detail"]


@pytest.mark.parametrize("device", DEVICES)
def test_a_file_in_another_precision_is_noticed(run: Path, device: str, tmp_path: Path) -> None:
    """Its checksum fits: it was the wrong file when the bundle was written."""
    folder = bundle(run, device, tmp_path)
    _, path, other = DEVICES[device]
    sources = [run / "bundles" / "main" / name for name in DEVICES]
    (source,) = [s for s in sources if (s / other).exists()][:1]
    pairs = zip(with_companions(path), with_companions(other), strict=True)
    swap(folder, {name: (source / wrong).read_bytes() for name, wrong in pairs})
    status, found, text = check(folder, "--no-latency")
    assert status == 3, text
    assert found[path, "precision"]["passed"] is False
    report = verify_bundle(folder, data=None, settings=None, progress=silent)
    assert any(problem.startswith(f"{path}: the file holds") for problem in report.failed)
    (row,) = [row for row in report.models if row["model"] == path]
    assert row["passed"] is False


@pytest.mark.parametrize("device", DEVICES)
def test_a_file_of_another_network_is_noticed(run: Path, device: str, tmp_path: Path) -> None:
    folder = bundle(run, device, tmp_path)
    path = DEVICES[device][1]
    with opened(run) as it:
        other = it.files.exported_network(winners.networks(it)["smallest"])
        wrong = {name: (other / Path(name).name).read_bytes() for name in with_companions(path)}
    swap(folder, wrong)
    status, found, text = check(folder, "--no-latency")
    assert status == 3 and "Traceback" not in text, text
    failed = {name for (_, name), row in found.items() if row["passed"] is False}
    assert failed & {"run", "golden outputs"}  # of another resolution, or of other weights
    report = verify_bundle(folder, data=None, settings=None, progress=silent)
    assert any(problem.startswith(path) for problem in report.failed) or path.endswith(".engine")


def without_last_stages(run: Path, to: Path) -> Path:
    """The run, ready to be exported with one device."""
    return Path(shutil.copytree(run, to / "again", ignore=shutil.ignore_patterns("bundles")))


def test_a_wrong_export_is_noticed_before_it_ships(
    run: Path, machine: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An exporter that writes float32 under the name of int8: nothing of it ends in a clean run."""
    again = without_last_stages(run, tmp_path)
    module: Any = EXPORTERS.load("int8")
    contents = lambda self, source: {module.FILE_NAME: source.graph().SerializeToString()}  # noqa: E731
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module._Int8, "contents", contents)
        device = str(run.parent / "int8.yaml")
        changes = {"devices": [str(run.parent / "local.yaml"), device], "export": ["onnx"]}
        with opened(again, **changes) as it:
            execute(stages_of(it), it.run)
            found = {check.name: check for check in it.files.results.read().checks}
    for name in ("int8 of the winner", "file of int8"):
        assert found[name].passed is False, name
        assert "precision fp32 instead of int8" in found[name].detail
    assert found["parity of the winner"].passed is True


def test_a_device_that_comes_later_gets_its_file(run: Path, tmp_path: Path) -> None:
    again = without_last_stages(run, tmp_path)
    one, two = (str(run.parent / f"{name}.yaml") for name in ("local", "int8"))
    with opened(again, devices=[one], export=["onnx"]) as it:
        execute(stages_of(it), it.run)
        assert {row.file for row in it.files.results.read().networks} == {"model.onnx"}
    with opened(again, devices=[one, two], export=["onnx"]) as it:
        execute(stages_of(it), it.run)
        rows = it.files.results.read().networks
    assert {(row.device, row.file) for row in rows} == {
        ("local", "model.onnx"), ("int8", "model.int8.onnx")
    }  # fmt: skip


def test_a_package_that_a_device_needs_is_asked_for_before_anything_runs(
    run: Path, machine: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from hwnas.core import plugins
    from hwnas.core.errors import UserError

    present = plugins.locate
    missing = lambda name: None if name == "openvino" else present(name)  # noqa: E731
    device = str(run.parent / "ov.yaml")
    limit = {"metric": "latency_ms", "device": "ov", "max_fraction_of_largest": 0.5}
    changes = {
        "devices": [device],
        "search.constraints": [limit],
        "workers": 0,
        "data.root": str(run.parent / "pets"),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plugins, "locate", missing)
        with (
            opened(tmp_path / "run", str(CONFIG), **changes) as it,
            pytest.raises(UserError, match="device ov on this machine") as caught,
        ):
            execute(stages_of(it), it.run)
    assert caught.value.fix == "pip install 'hwnas[openvino]'"
    assert not (tmp_path / "run" / "tables").exists()


def test_the_kit_in_a_bundle_is_this_kit(run: Path) -> None:
    for name in ("device_run.py", "bundle_precision.py", "run_openvino.py", "run_torch.py"):
        assert (run / "bundles" / "main" / "int8" / name).read_bytes() == resource(
            "export", name
        ).read_bytes()
