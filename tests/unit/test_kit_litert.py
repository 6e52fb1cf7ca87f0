"""A bundle whose device runs LiteRT: checked by its own kit, served, and with a wrong file."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import urllib.request
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hwnas.exporters.manifest import LatencyFact
from hwnas.interfaces import DeviceSpec, ModelFile
from hwnas.measure.bundle_check import verify_bundle
from tests.bundles import CLASSES, PX, colour_bundle, colour_manifest, colour_net, run_kit

pytest.importorskip("ai_edge_litert", reason="pip install 'hwnas[litert]'")
from hwnas.builders.tflite import timed

MODEL = "models/fp32.tflite"
SERVE = Path(__file__).resolve().parents[2] / "examples" / "serve" / "serve.py"


def colours(px: int = PX, weight: float = 1.0) -> bytes:
    """Logits = mean of each channel, as `tests.bundles.colour_net`."""
    constants: Mapping[str, np.ndarray] = {
        "axes": np.array([2, 3]),
        "weight": weight * np.eye(3, dtype=np.float32),
    }
    nodes = [
        helper.make_node("ReduceMean", ["input", "axes"], ["mean"], keepdims=0),
        helper.make_node("Gemm", ["mean", "weight"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, px, px])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model: onnx.ModelProto = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10
    )
    return timed(model)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sources").mkdir()
    (tmp_path / "sources" / "fp32.tflite").write_bytes(colours())
    device = DeviceSpec("phone", "litert", "cpu")
    manifest = colour_manifest(
        models=(ModelFile(MODEL, "litert", "fp32", layout="NHWC"),),
        latency=(LatencyFact(device, MODEL, "cpu", measured_ms=1e6),),
        accuracy=(),
    )
    colour_bundle(tmp_path / "winner", manifest)
    return tmp_path / "winner"


def replace_model(folder: Path, content: bytes) -> None:
    """Another file under the model's name, with fitting size and checksum."""
    (folder / MODEL).write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_text())
    for file in manifest["files"]:
        if file["path"] == MODEL:
            digest = hashlib.sha256(content).hexdigest()
            file |= {"sha256": digest, "size_bytes": len(content)}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_the_kit_checks_what_the_device_runs(folder: Path) -> None:
    for _ in range(3):  # a busy machine is too noisy to judge the latency (exit 4)
        done = run_kit(folder, "device_run.py", "--check", ".", "--json", "found.json")
        if done.returncode != 4:
            break
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((folder / "found.json").read_text())
    checks = {line["check"]: line["passed"] for line in found}
    assert checks == dict.fromkeys(["precision", "golden outputs", "samples", "latency"], True)


def mixed(tmp_path: Path, runtime: str, model: str) -> Path:
    """A bundle of a LiteRT and an ONNX model, one of which has a limit on a device."""
    sources = tmp_path / "files"
    sources.mkdir()
    (sources / "fp32.tflite").write_bytes(colours())
    onnx.save(colour_net(), sources / "fp32.onnx")
    models = (
        ModelFile(MODEL, "litert", "fp32", layout="NHWC"),
        ModelFile("models/fp32.onnx", "onnx", "fp32"),
    )
    fact = LatencyFact(DeviceSpec("phone", runtime, "cpu"), model, "cpu", measured_ms=1e-6)
    made = colour_manifest(models=models, latency=(fact,), accuracy=())
    files = {m.path: sources / Path(m.path).name for m in models}
    colour_bundle(tmp_path / "mixed", made, models=files)
    return tmp_path / "mixed"


@pytest.mark.parametrize(
    ("runtime", "model", "option"),
    [("litert", MODEL, ""), ("openvino", "models/fp32.onnx", " --model models/fp32.onnx")],
)
def test_onnxruntime_does_not_judge_what_another_runtime_runs(
    tmp_path: Path, runtime: str, model: str, option: str
) -> None:
    folder = mixed(tmp_path, runtime, model)
    done = run_kit(folder, "ort_run.py", "--check", ".")
    assert done.returncode == 4, done.stdout + done.stderr
    (line,) = [line for line in done.stdout.splitlines() if "NOT JUDGED" in line]
    assert line.startswith(f"{model}: ")
    assert line.endswith(f"; fix: python3 device_run.py --check .{option}")


def test_onnxruntime_names_the_script_that_runs_a_model(tmp_path: Path) -> None:
    folder = mixed(tmp_path, "litert", MODEL)
    done = run_kit(folder, "ort_run.py", "--check", ".", "--model", MODEL)
    assert done.returncode == 1 and "no model" not in done.stderr
    assert f"{MODEL}: onnxruntime does not run it; fix: python3 device_run.py" in done.stderr
    done = run_kit(folder, "ort_run.py", "--check", ".", "--model", "other")
    assert done.returncode == 1 and "no model other in the bundle" in done.stderr


@pytest.mark.parametrize("content", [colours(weight=-1.0), colours(px=PX + 1), b"no model at all"])
def test_a_file_of_another_network_falls_short(folder: Path, content: bytes) -> None:
    """It computes something else, takes images of another size, or is none."""
    replace_model(folder, content)
    done = run_kit(folder, "device_run.py", "--check", ".", "--no-latency")
    assert done.returncode in (1, 3) and "Traceback" not in done.stderr, done.stderr
    report = verify_bundle(folder, data=None, settings=None, progress=lambda *_: None)
    assert report.failed and MODEL in report.failed[0]


def test_an_altered_file_is_refused(folder: Path) -> None:
    (folder / MODEL).write_bytes(colours(weight=2.0))
    done = run_kit(folder, "device_run.py", "--check", ".")
    assert done.returncode == 1 and "altered" in done.stderr


def test_it_is_served(folder: Path) -> None:
    command = [sys.executable, str(SERVE), "--bundle", str(folder), "--model", MODEL, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            port = process.stdout.readline().rpartition(":")[2].strip()
            image = (folder / "samples" / "02-blue.ppm").read_bytes()
            url = f"http://127.0.0.1:{port}/classify"
            head = (
                b'--cut\r\nContent-Disposition: form-data; name="image"; filename="image"\r\n\r\n'
            )
            form = {"Content-Type": "multipart/form-data; boundary=cut"}
            request = urllib.request.Request(url, head + image + b"\r\n--cut--\r\n", form)
            with urllib.request.urlopen(request, timeout=60) as answer:
                best = json.loads(answer.read())["classes"][0]["name"]
            assert best == CLASSES[2]
        finally:
            process.terminate()
            process.wait(timeout=60)
