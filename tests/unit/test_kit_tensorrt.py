"""`trt_build.py` and `trt_run.py`: on an imitated GPU, and on the real TensorRT for RTX without."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import onnx
import pytest

from hwnas.core.resources import resource
from hwnas.exporters.manifest import LatencyFact
from hwnas.interfaces import DeviceSpec
from tests.bundles import LOGITS, colour_bundle, colour_manifest, colour_net, run_kit
from tests.gpu import EVENT_GAP_NS, imitated_tensorrt

FACTS = "engines/fp32.tensorrt.engine.json"
ENGINE = "engines/fp32.tensorrt.engine"
Environment = dict[str, str]


def gpu_fact(measured_ms: float, model: str = "models/fp32.onnx") -> LatencyFact:
    device = DeviceSpec("board", "tensorrt", "cuda:0")
    return LatencyFact(device, model, "Imaginary 9000", measured_ms=measured_ms)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return imitated_tensorrt(tmp_path_factory.mktemp("gpu"))


@pytest.fixture
def environment(machine: Environment, tmp_path: Path) -> Environment:
    return {**machine, "CALLS": str(tmp_path / "calls")}


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trt") / "winner"
    made = colour_manifest(precisions=("fp32", "fp16", "int8"))
    colour_bundle(folder, dataclasses.replace(made, latency=(*made.latency, gpu_fact(0.25))))
    return folder


@pytest.fixture
def folder(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "winner"))


@pytest.fixture(scope="module")
def pristine_built(pristine: Path, machine: Environment) -> Path:
    """With an engine of the fp32 model."""
    folder = Path(shutil.copytree(pristine, pristine.with_name("built")))
    build(folder, machine)
    return folder


@pytest.fixture
def built(pristine_built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine_built, tmp_path / "winner"))


def build(folder: Path, environment: Environment, *arguments: str) -> dict[str, Any]:
    """Facts of the engine of the fp32 model, after building one."""
    done = run_kit(folder, "trt_build.py", *arguments, env=environment)
    assert done.returncode == 0, done.stderr
    facts: dict[str, Any] = json.loads((folder / FACTS).read_text())
    return facts


def calls(environment: Environment) -> list[Any]:
    return [json.loads(line) for line in Path(environment["CALLS"]).read_text().splitlines()]


# --- building -------------------------------------------------------------------------------------


def test_an_engine_is_built_with_its_profile_and_says_what_it_is_of(folder, environment):
    facts = build(folder, environment, "--batch", "1,4,16")
    schema = json.loads(resource("export", "engine.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(facts, schema)
    shape = [3, 4, 4]
    assert calls(environment) == [
        ["clear_flag", "TF32"],
        ["timing_cache", 0],
        ["profile", "input", [1, *shape], [4, *shape], [16, *shape]],
        ["build", ""],
    ]
    assert facts["batches"] == [1, 4, 16] and facts["precision"] == "fp32"
    assert (facts["runtime"], facts["runtime_version"]) == ("tensorrt", "10.0")
    assert (facts["capability"], facts["gpu"]) == ("8.9", "Imaginary 9000")
    assert facts["inputs"][0]["shape"] == [-1, *shape]
    manifest = json.loads((folder / "manifest.json").read_text())
    digests = {file["path"]: file["sha256"] for file in manifest["files"]}
    assert facts["model_sha256"] == digests[facts["model"]]
    assert facts["size_bytes"] == (folder / ENGINE).stat().st_size


def test_timings_of_earlier_builds_are_used_again_unless_of_another_version(folder, environment):
    build(folder, environment)
    cache = folder / "engines" / "timing.tensorrt.cache"
    assert cache.read_bytes() == b"+timings"
    build(folder, environment, "--tf32")
    assert cache.read_bytes() == b"+timings+timings"
    assert ["timing_cache", len(b"+timings")] in calls(environment)
    assert calls(environment).count(["clear_flag", "TF32"]) == 1
    cache.write_bytes(b"other version")
    build(folder, environment)
    assert cache.read_bytes() == b"+timings"


def test_a_model_of_a_fixed_batch_gets_engines_of_that_batch(tmp_path, environment):
    made = colour_manifest()
    model = dataclasses.replace(made.models[0], batch=2)
    colour_bundle(tmp_path / "winner", dataclasses.replace(made, models=(model,)))
    assert build(tmp_path / "winner", environment)["batches"] == [2, 2, 2]
    done = run_kit(tmp_path / "winner", "trt_run.py", "--check", env=environment)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "changes", "words"),
    [
        ([], {"NO_GPU": "1"}, ["no usable CUDA GPU", "no driver"]),
        (["--capability", "8.9"], {}, ["cannot build for another GPU", "on the GPU itself"]),
        (["--model", "models/other.onnx"], {}, ["no ONNX model models/other.onnx", "int8.onnx"]),
        (["--batch", "8,1,2"], {}, ["least,usual,most"]),
        (["--batch", "many"], {}, ["least,usual,most"]),
        ([], {"BUILD_FAILS": "1"}, ["could not be built"]),
        (["--out", "/proc/hwnas/x.engine"], {}, ["/proc/hwnas"]),
        (["--runtime", "tensorrt_rtx"], {}, ["pip install tensorrt-rtx-cu13"]),
    ],
)
def test_what_cannot_be_built_is_explained(arguments, changes, words, folder, environment):
    environment = {**environment, **changes}
    if "tensorrt_rtx" in arguments:
        (Path(environment["PYTHONPATH"]) / "tensorrt_rtx.py").write_text("raise ImportError('no')")
    done = run_kit(folder, "trt_build.py", *arguments, env=environment)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert all(word in done.stderr for word in words), done.stderr
    assert not (folder / ENGINE).exists() and not (folder / FACTS).exists()


def test_a_broken_model_is_refused_by_the_parser_in_its_words(tmp_path, environment):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    colour_bundle(tmp_path / "winner", models={"models/fp32.onnx": broken})
    done = run_kit(tmp_path / "winner", "trt_build.py", env=environment)
    assert done.returncode == 1 and "cannot be parsed: it is broken" in done.stderr
    int8 = colour_manifest(precisions=("int8",))
    colour_bundle(tmp_path / "winner", int8, models={"models/int8.onnx": broken})
    done = run_kit(tmp_path / "winner", "trt_build.py", "--precision", "int8", env=environment)
    assert done.returncode == 1 and "symmetric: true" in done.stderr


# --- running --------------------------------------------------------------------------------------


def test_engines_are_checked_timed_and_used(folder, environment):
    for precision in ("fp32", "fp16", "int8"):
        done = run_kit(folder, "trt_build.py", "--precision", precision, env=environment)
        assert done.returncode == 0, done.stderr
    out = folder / "found.json"
    done = run_kit(folder, "trt_run.py", "--check", ".", "--json", out, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    found = {(f["model"], f["check"]): f for f in json.loads(out.read_text())}
    for precision in ("fp32", "fp16", "int8"):
        name = f"engines/{precision}.tensorrt.engine"
        assert found[name, "golden outputs"]["passed"] is found[name, "samples"]["passed"] is True
        assert f"{EVENT_GAP_NS / 1e6:.3f} ms here" in found[name, "latency"]["detail"]
    assert found[ENGINE, "latency"]["passed"] is True  # 0.25 ms were promised
    assert found["engines/int8.tensorrt.engine", "latency"]["passed"] is None  # nothing was
    done = run_kit(folder, "trt_run.py", "samples/02-blue.ppm", "--engine", ENGINE, env=environment)
    assert done.stdout.startswith("samples/02-blue.ppm: blue "), done.stderr


def test_wrong_outputs_and_a_broken_promise_are_told(tmp_path, environment):
    made = colour_manifest()
    facts = (gpu_fact(0.2),)
    colour_bundle(
        tmp_path / "winner", dataclasses.replace(made, latency=facts), golden_output=LOGITS + 0.01
    )
    build(tmp_path / "winner", environment)
    done = run_kit(tmp_path / "winner", "trt_run.py", "--check", env=environment)
    assert done.returncode == 3
    assert "golden outputs: FALLS SHORT" in done.stdout and "latency: FALLS SHORT" in done.stdout


def rebuild_model(folder: Path) -> None:
    """The bundle is exported again with other weights: the engine is of the old ones."""
    net = colour_net()
    net.producer_name = "another export"
    onnx.save(net, folder.parent / "new.onnx")
    colour_bundle(folder.parent / "new", models={"models/fp32.onnx": folder.parent / "new.onnx"})
    shutil.copytree(folder / "engines", folder.parent / "new" / "engines")
    shutil.rmtree(folder)
    (folder.parent / "new").rename(folder)


def set_fact(**facts: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        data = json.loads((folder / FACTS).read_text())
        (folder / FACTS).write_text(json.dumps({**data, **facts}))

    return change


STALE: dict[str, tuple[Callable[[Path], object], dict[str, str], str]] = {
    "another GPU": (lambda f: None, {"GPU_NAME": "Other"}, "GPU Imaginary 9000, here it is Other"),
    "another capability": (lambda f: None, {"CAPABILITY": "7.5"}, "capability 8.9, here it is 7.5"),
    "another version": (lambda f: None, {"TENSORRT_VERSION": "10.1"}, "10.0, here it is 10.1"),
    "another model": (rebuild_model, {}, "not this bundle's"),
    "altered": (lambda f: (f / ENGINE).write_bytes(b"x"), {}, "altered"),
    "no facts": (lambda f: (f / FACTS).unlink(), {}, "cannot read"),
    "torn facts": (lambda f: (f / FACTS).write_text("{"), {}, "cannot read"),
    "wrong facts": (set_fact(capability=8.9), {}, "facts.capability"),
    "newer facts": (set_fact(schema_version=2), {}, "newer trt_build.py"),
    "outside": (set_fact(model="../x.onnx"), {}, "not this bundle's"),
    "no GPU": (lambda f: None, {"NO_GPU": "1"}, "no usable CUDA GPU"),
    "no engines": (lambda f: shutil.rmtree(f / "engines"), {}, "trt_build.py"),
}


@pytest.mark.parametrize("case", STALE)
def test_a_stale_engine_is_refused(case: str, built: Path, environment: Environment):
    change, variables, message = STALE[case]
    change(built)
    done = run_kit(built, "trt_run.py", "--check", env={**environment, **variables})
    assert done.returncode == 1 and message in done.stderr, done.stderr
    assert "fix: " in done.stderr or case == "no GPU"
    assert "Traceback" not in done.stderr


def test_engines_for_other_gpus_beside_one_for_this_are_only_named(built: Path, environment):
    other = "engines/elsewhere.engine"
    shutil.copyfile(built / ENGINE, built / other)
    facts = {**json.loads((built / FACTS).read_text()), "capability": "7.5", "gpu": None}
    (built / f"{other}.json").write_text(json.dumps(facts))
    done = run_kit(built, "trt_run.py", "--check", "--no-latency", env=environment)
    assert done.returncode == 0, done.stderr
    assert f"{other}: all: --: not for this machine" in done.stdout
    assert f"{ENGINE}: golden outputs: ok" in done.stdout
    done = run_kit(built, "trt_run.py", "samples/01-green.ppm", env=environment)
    assert done.stdout.startswith("samples/01-green.ppm: green "), done.stderr
    done = run_kit(built, "trt_run.py", "--check", "--engine", other, env=environment)
    assert done.returncode == 1 and "capability 7.5, here it is 8.9" in done.stderr


def test_an_engine_that_does_not_load_is_told(built: Path, environment: Environment):
    (built / ENGINE).write_bytes(b"damaged")
    set_fact(sha256=hashlib.sha256(b"damaged").hexdigest())(built)
    done = run_kit(built, "trt_run.py", "samples/00-red.ppm", env=environment)
    assert done.returncode == 1 and "cannot be loaded" in done.stderr


# --- the real thing -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real_python() -> str:
    """A python with tensorrt_rtx, named in HWNAS_TEST_TENSORRT_RTX; else the test skips."""
    python = os.environ.get("HWNAS_TEST_TENSORRT_RTX", sys.executable)
    found = subprocess.run([python, "-c", "import numpy, tensorrt_rtx"], capture_output=True)
    if found.returncode:
        pytest.skip(f"{python} has no tensorrt_rtx: name one in HWNAS_TEST_TENSORRT_RTX")
    return python


@pytest.mark.parametrize(
    ("precision", "capability"),
    [
        ("fp32", "8.9"),
        *(
            pytest.param(precision, capability, marks=pytest.mark.full)
            for precision in ("fp32", "fp16", "int8")
            for capability in ("7.5", "8.0", "8.6", "8.9", "12.0")
            if (precision, capability) != ("fp32", "8.9")
        ),
    ],
)
def test_engines_are_built_ahead_of_time(precision, capability, real_python, folder, tmp_path):
    arguments = ["--precision", precision, "--capability", capability, "--batch", "1,2,8"]
    out = tmp_path / "x.engine"
    done = run_kit(folder, "trt_build.py", *arguments, "--out", out, python=real_python)
    if done.returncode != 0 and capability == "7.5" and precision != "fp16":
        # 1.7 says so of Turing; a network that ends in a float32 product is refused in its words
        assert "FP32 GEMM is not supported" in done.stdout + done.stderr and not out.exists()
        return
    assert done.returncode == 0, done.stderr
    facts = json.loads((tmp_path / "x.engine.json").read_text())
    schema = json.loads(resource("export", "engine.schema.json").read_text())
    jsonschema.validate(facts, schema)
    assert facts["capability"] == capability and facts["gpu"] is None
    assert facts["inputs"] == [
        {"name": "input", "shape": [-1, 3, 4, 4], "dtype": {"fp16": "HALF"}.get(precision, "FLOAT")}
    ]
    assert facts["outputs"] == [{"name": "logits", "shape": [-1, 3], "dtype": "FLOAT"}]
    assert out.stat().st_size == facts["size_bytes"] > 10_000
    assert not list(tmp_path.glob("timing*")), "nothing was timed"


def test_the_real_runtime_explains_what_it_cannot_do(real_python, tmp_path):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(colour_net().SerializeToString()[:-40])
    made = colour_manifest(precisions=("fp32", "fp16"))
    good = tmp_path / "good.onnx"
    onnx.save(colour_net("fp16"), good)
    models = {"models/fp32.onnx": broken, "models/fp16.onnx": good}
    folder = tmp_path / "winner"
    colour_bundle(folder, made, models=models)
    cases = (["--capability", "8.9"], "cannot be parsed"), (["--capability", "9.0"], "8.9, 12.0")
    for arguments, word in cases:
        done = run_kit(folder, "trt_build.py", *arguments, python=real_python)
        assert done.returncode == 1 and word in done.stderr.splitlines()[-1], done.stderr
        assert "Traceback" not in done.stderr
    arguments = ["--precision", "fp16", "--capability", "8.9"]
    assert run_kit(folder, "trt_build.py", *arguments, python=real_python).returncode == 0
    done = run_kit(folder, "trt_run.py", "--check", python=real_python)
    if (
        "no usable CUDA GPU" not in done.stderr
    ):  # there is one: the engine is right for it, or stale
        assert done.returncode in (0, 1) and "Traceback" not in done.stderr
