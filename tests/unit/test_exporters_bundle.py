"""Bundles: whole or absent, refused when altered, and usable by the kit alone."""

from __future__ import annotations

import ast
import dataclasses
import json
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from hwnas.core.errors import UserError
from hwnas.core.records import dump
from hwnas.core.resources import resource
from hwnas.core.rng import rng
from hwnas.exporters import bundle, manifest
from hwnas.exporters.bundle import read_manifest, write_bundle
from hwnas.exporters.manifest import (
    AccuracyFact,
    ConstraintFact,
    InputSpec,
    LatencyFact,
    Manifest,
    ModelFile,
)
from hwnas.interfaces import DataInfo, DeviceSpec
from hwnas.spaces.arch import Arch

INPUTS = rng(0, "bundle").standard_normal((8, 3, 4, 4)).astype(np.float32)
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


def colour_net(path: Path) -> Path:
    """Logits = mean of each channel: the brightest of red, green and blue wins."""
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["input", "axes"], ["mean"], keepdims=0),
            helper.make_node("Gemm", ["mean", "weight"], ["logits"]),
        ],
        "colours",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, 4, 4])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])],
        [
            numpy_helper.from_array(np.array([2, 3]), "axes"),
            numpy_helper.from_array(np.eye(3, dtype=np.float32), "weight"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, path)
    return path


def a_manifest(promised_ms: float = 1e6) -> Manifest:
    info = DataInfo("colours", ("red", "green", "blue"), MEAN, STD, 8, {"test": 8})
    device = DeviceSpec("local")
    return Manifest(
        name="winner",
        hwnas_version="0",
        arch=Arch("toy-1", (0, 1)),
        arch_view={"resolution": 4},
        input=InputSpec.of(info, 4),
        models=(ModelFile("models/model.onnx", "onnx", "fp32", opset=18),),
        runtimes={"onnxruntime": "1"},
        latency=(
            LatencyFact(
                device, "models/model.onnx", "cpu", promised_ms, (promised_ms, promised_ms)
            ),
        ),
        accuracy=(AccuracyFact("models/model.onnx", "colours", "test", 8, 0.5),),
        constraints=(ConstraintFact("latency_ms", "local", 2.0, True),),
    )


def write(folder: Path, made: Manifest | None = None) -> Manifest:
    folder.parent.mkdir(parents=True, exist_ok=True)
    model = colour_net(folder.parent / "source.onnx")
    return write_bundle(
        folder,
        made or a_manifest(),
        models={"models/model.onnx": model},
        golden_input=INPUTS,
        golden_output=INPUTS.mean(axis=(2, 3)),
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "winner")
    return tmp_path / "winner"


def edit(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = folder / "manifest.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def kit(folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, folder / "ort_run.py", *arguments],
        check=False,
        capture_output=True,
        text=True,
        cwd=folder,
    )


# --- writing --------------------------------------------------------------------------------------


def test_round_trip_lists_every_file_with_its_hash(folder: Path) -> None:
    made = read_manifest(folder)
    on_disk = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert {file.path for file in made.files} == on_disk - {"manifest.json"}
    assert {"ort_run.py", "bench.py", "models/model.onnx"} < on_disk
    assert dataclasses.replace(made, files=()) == a_manifest()
    np.testing.assert_array_equal(np.load(folder / made.golden.input), INPUTS)


def test_manifest_is_valid_by_the_schema_of_the_kit(folder: Path) -> None:
    schema = json.loads(resource("export", "bundle.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    data = json.loads((folder / "manifest.json").read_text())
    jsonschema.validate(data, schema)
    for name in ("../model.onnx", "/etc/passwd", "a/./b", "a//b", "a/..", "c:\\x", ""):
        data["files"][0]["path"] = name
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(data, schema)


def test_schema_and_records_have_the_same_fields() -> None:
    schema = json.loads(resource("export", "bundle.schema.json").read_text())

    def names(record: Any) -> list[str]:
        return [field.name for field in dataclasses.fields(record)]

    top = schema["properties"]
    pairs = [
        (["schema_version", *names(Manifest)], schema),
        (names(Arch), top["arch"]),
        (names(InputSpec), top["input"]),
        (names(ModelFile), top["models"]["items"]),
        (names(manifest.Golden), top["golden"]),
        (names(LatencyFact), top["latency"]["items"]),
        (names(DeviceSpec), top["latency"]["items"]["properties"]["device"]),
        (names(AccuracyFact), top["accuracy"]["items"]),
        (names(ConstraintFact), top["constraints"]["items"]),
        (names(manifest.BundleFile), top["files"]["items"]),
    ]
    for fields, part in pairs:
        assert fields == list(part["properties"]) and sorted(fields) == sorted(part["required"])


@pytest.mark.parametrize("stage", ["_npy", "_inventory", "write_json"])
def test_interrupted_export_leaves_nothing_or_the_old_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    def killed(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    final = tmp_path / "winner"
    with monkeypatch.context() as patch:
        patch.setattr(bundle, stage, killed)
        with pytest.raises(KeyboardInterrupt):
            write(final)
    assert not final.exists()
    write(final)
    with monkeypatch.context() as patch:
        patch.setattr(bundle, stage, killed)
        with pytest.raises(KeyboardInterrupt):
            write(final, dataclasses.replace(a_manifest(), name="newer"))
    assert read_manifest(final).name == "winner"
    assert {p.name for p in tmp_path.iterdir()} == {"winner", "source.onnx"}


def test_rest_of_a_killed_process_is_no_bundle_and_does_not_disturb(tmp_path: Path) -> None:
    """SIGKILL in the middle of the export: nothing of ours can clean up."""
    code = (
        "import os, sys; sys.path.insert(0, sys.argv[1]); import test_exporters_bundle as t; "
        "t.bundle.write_json = lambda *a: os.kill(os.getpid(), 9); "
        "t.write(t.Path(sys.argv[2]))"
    )
    here = str(Path(__file__).parent)
    final = tmp_path / "winner"
    done = subprocess.run([sys.executable, "-c", code, here, str(final)], check=False)
    assert done.returncode == -9 and not final.exists()
    assert (tmp_path / ".winner.building").is_dir(), "the kill came too early to prove anything"
    write(final)
    assert read_manifest(final).name == "winner"
    assert not (tmp_path / ".winner.building").exists()


def test_replaces_an_older_bundle(folder: Path) -> None:
    (folder / "stale").touch()
    write(folder, dataclasses.replace(a_manifest(), name="newer"))
    assert read_manifest(folder).name == "newer" and not (folder / "stale").exists()


def test_companions_of_models_are_shipped_and_guarded(tmp_path: Path) -> None:
    code = tmp_path / "model.py"
    code.write_text("print(1)")
    parts = {
        "models": {"models/model.onnx": colour_net(tmp_path / "m.onnx")},
        "golden_input": INPUTS,
        "golden_output": INPUTS.mean(axis=(2, 3)),
    }
    final = tmp_path / "winner"
    made = write_bundle(final, a_manifest(), **parts, companions={"timm/model.py": code})
    assert "timm/model.py" in [file.path for file in made.files]
    assert kit(final, "--check").returncode == 0
    (final / "timm" / "model.py").write_text("print(2)")
    with pytest.raises(UserError, match="altered"):
        read_manifest(final)
    with pytest.raises(UserError, match="unsafe"):
        write_bundle(tmp_path / "b", a_manifest(), **parts, companions={"../model.py": code})
    assert not (tmp_path / "b").exists()


def test_parts_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    unsafe = dataclasses.replace(a_manifest(), models=(ModelFile("../m.onnx", "onnx", "fp32"),))
    model = colour_net(tmp_path / "m.onnx")
    outputs = INPUTS.mean(axis=(2, 3))

    def attempt(made: Manifest, name: str, x: NDArray[np.float32], y: NDArray[np.float32]) -> None:
        write_bundle(tmp_path / "b", made, models={name: model}, golden_input=x, golden_output=y)

    for arguments, message in (
        ((unsafe, "../m.onnx", INPUTS, outputs), "unsafe"),
        ((a_manifest(), "other.onnx", INPUTS, outputs), "models do not fit"),
        ((a_manifest(), "models/model.onnx", INPUTS[:, :1], outputs), "golden inputs"),
        ((a_manifest(), "models/model.onnx", INPUTS, outputs[:3]), "golden outputs"),
    ):
        with pytest.raises(UserError, match=message):
            attempt(*arguments)
    assert not (tmp_path / "b").exists()


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write"):
        write_bundle(
            tmp_path / "file" / "winner",
            a_manifest(),
            models={"models/model.onnx": colour_net(tmp_path / "m.onnx")},
            golden_input=INPUTS,
            golden_output=INPUTS.mean(axis=(2, 3)),
        )


# --- reading --------------------------------------------------------------------------------------


def tamper_model(folder: Path) -> None:
    data = bytearray((folder / "models/model.onnx").read_bytes())
    data[-1] ^= 1
    (folder / "models/model.onnx").write_bytes(data)


def set_path(name: str) -> Callable[[Path], None]:
    def change(data: dict[str, Any]) -> None:
        data["files"][0]["path"] = name

    return lambda folder: edit(folder, change)


def link_model(folder: Path) -> None:
    shutil.move(folder / "models/model.onnx", folder.parent / "outside.onnx")
    (folder / "models/model.onnx").symlink_to(folder.parent / "outside.onnx")


def link_models(folder: Path) -> None:
    shutil.move(folder / "models", folder.parent / "outside")
    (folder / "models").symlink_to(folder.parent / "outside")


BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "altered": (tamper_model, "altered"),
    "missing golden": (lambda f: (f / "golden/input.npy").unlink(), "missing"),
    "parent": (set_path("../x"), "unsafe"),
    "absolute": (set_path("/etc/passwd"), "unsafe"),
    "windows": (set_path("..\\x"), "unsafe"),
    "hidden parent": (set_path("models/../../x"), "unsafe"),
    "link": (link_model, "link"),
    "linked folder": (link_models, "link"),
    "newer": (lambda f: edit(f, lambda d: d.update(schema_version=2)), "schema_version"),
    "no version": (lambda f: edit(f, lambda d: d.pop("schema_version")), "schema_version|not a b"),
    "unlisted": (lambda f: edit(f, lambda d: d["golden"].update(input="other")), "list"),
    "torn": (lambda f: (f / "manifest.json").write_text('{"schema_version": 1,'), "JSON|not a b"),
    "no manifest": (lambda f: (f / "manifest.json").unlink(), "not a bundle"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_bundle_is_refused_by_the_host_and_by_the_kit(folder: Path, case: str) -> None:
    change, message = BROKEN[case]
    change(folder)
    with pytest.raises(UserError, match=f"(?i){message}"):
        read_manifest(folder)
    reader = runpy.run_path(str(resource("export", "ort_run.py")))
    with pytest.raises(reader["BundleError"], match=f"(?i){message}"):
        reader["read_bundle"](folder)


def test_file_listed_twice_is_refused(folder: Path) -> None:
    edit(folder, lambda data: data["files"].append(data["files"][0]))
    with pytest.raises(UserError, match="twice"):
        read_manifest(folder)


# --- the kit --------------------------------------------------------------------------------------


def test_kit_check_passes_then_fails_when_altered(folder: Path) -> None:
    done = kit(folder, "--check", ".")
    assert done.returncode == 0, done.stderr
    assert "checksums ok" in done.stdout and "golden outputs ok" in done.stdout
    assert "holds" in done.stdout
    tamper_model(folder)
    done = kit(folder, "--check", ".")
    assert done.returncode == 1 and "altered" in done.stderr and "Traceback" not in done.stderr


def test_kit_check_reports_wrong_outputs_and_a_broken_promise(tmp_path: Path) -> None:
    final = tmp_path / "winner"
    write_bundle(
        final,
        a_manifest(promised_ms=1e-6),
        models={"models/model.onnx": colour_net(tmp_path / "m.onnx")},
        golden_input=INPUTS,
        golden_output=INPUTS.mean(axis=(2, 3)) + 0.01,
    )
    done = kit(final, "--check")
    assert done.returncode == 3
    assert "DIFFER" in done.stdout and "does NOT hold here" in done.stdout


@pytest.mark.parametrize("suffix", ["npy", "ppm"])
def test_kit_classifies_an_image_of_any_size(folder: Path, tmp_path: Path, suffix: str) -> None:
    pixels = np.full((9, 13, 3), 20, dtype=np.uint8)
    pixels[..., 1] = 200
    path = tmp_path / f"green.{suffix}"
    if suffix == "npy":
        np.save(path, pixels)
    else:
        path.write_bytes(b"P6\n# a comment\n13 9\n255\n" + pixels.tobytes())
    done = kit(folder, path, "--top", "1")
    assert done.returncode == 0, done.stderr
    # logits by hand: (20 / 255 - 0.5) / 0.25 twice, (200 / 255 - 0.5) / 0.25 once
    low, high = (20 / 255 - 0.5) / 0.25, (200 / 255 - 0.5) / 0.25
    share = np.exp(high) / (np.exp(high) + 2 * np.exp(low))
    assert f"green {share:.1%}" in done.stdout


def test_kit_says_what_is_wrong_with_an_image(folder: Path, tmp_path: Path) -> None:
    for name, content in (("cut.ppm", b"P6 9 9"), ("no.npy", b"x"), ("short.pgm", b"P5 9 9 255 x")):
        (tmp_path / name).write_bytes(content)
        done = kit(folder, tmp_path / name)
        assert done.returncode == 1 and name in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(("size", "px"), [(32, 24), (8, 32), (17, 5), (24, 24)])
def test_kit_resizes_as_training_does(size: int, px: int) -> None:
    weights = runpy.run_path(str(resource("export", "ort_run.py")))["resize_weights"](size, px)
    image = rng(0, "resize").random((size, size))
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(image)[None, None], size=(px, px), mode="bilinear", antialias=True
    )
    np.testing.assert_allclose(weights @ image @ weights.T, expected[0, 0].numpy(), atol=1e-6)


def test_manifest_survives_json(folder: Path) -> None:
    made = read_manifest(folder)
    assert dump(made)["schema_version"] == 1
    assert json.loads(json.dumps(dump(made))) == json.loads((folder / "manifest.json").read_text())


def test_kit_imports_only_what_it_may() -> None:
    tree = ast.parse(resource("export", "ort_run.py").read_text())
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(str(node.module).split(".")[0])
    assert found - sys.stdlib_module_names == {"numpy", "onnxruntime", "PIL"}
