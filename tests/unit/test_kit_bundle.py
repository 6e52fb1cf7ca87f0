"""The kit on a device: what `ort_run.py` needs, checks and says. The host's half: test_exporters_*.

Statistics against scipy, resizing against torch and Pillow, outputs against closed forms.
"""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import math
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from hwnas.core.errors import UserError
from hwnas.core.progress import silent
from hwnas.core.records import dump
from hwnas.core.rng import rng
from hwnas.exporters import parity
from hwnas.exporters.bundle import read_manifest
from hwnas.exporters.manifest import AccuracyFact
from hwnas.exporters.samples import SampleImage
from hwnas.interfaces import MOST_TOLERANCE, DeviceSpec, ModelFile
from hwnas.latency.plan import write_plan
from hwnas.latency.sections import ProfileConfig
from hwnas.measure.bundle_check import verify_bundle
from tests.bundles import (
    CLASSES,
    INPUTS,
    LOGITS,
    colour_bundle,
    colour_images,
    colour_manifest,
    colour_net,
    failing_net,
    kit_module,
    run_kit,
)
from tests.limits import bounded

PRECISIONS = ("fp32", "fp16", "int8")
OLD_BUNDLE = Path(__file__).resolve().parents[1] / "assets" / "bundle_v1"
ALONE = """
import importlib.abc, runpy, sys

class OnlyWhatTheKitNeeds(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in sys.stdlib_module_names or top in ("numpy", "onnxruntime") or top in OWN:
            return None
        raise ModuleNotFoundError(f"blocked: {name}", name=name)

OWN = sys.argv[1].split(",")
sys.argv = sys.argv[2:]
sys.path.insert(0, sys.argv[0].rpartition("/")[0])
sys.meta_path.insert(0, OnlyWhatTheKitNeeds())
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of four models that ONNX Runtime runs, and one that it does not; never changed."""
    base = tmp_path_factory.mktemp("kit")
    (base / "sources").mkdir()
    made = colour_manifest(precisions=PRECISIONS)
    more = (
        ModelFile("models/fp32.ort", "ort", "fp32"),
        ModelFile("timm/weights.safetensors", "timm", "fp32"),
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(base / "sources" / "fp32.ort")
    options.add_session_config_entry("session.save_model_format", "ORT")
    onnxruntime.InferenceSession(colour_net().SerializeToString(), options)
    (base / "sources" / "weights.safetensors").write_bytes(b"weights")
    colour_bundle(base / "winner", dataclasses.replace(made, models=(*made.models, *more)))
    return base / "winner"


def kit_names(folder: Path) -> str:
    return ",".join(path.stem for path in folder.glob("*.py"))


def findings(folder: Path, *arguments: str | Path) -> dict[tuple[str, str], dict[str, Any]]:
    """What `--check --json` writes, by model and check."""
    out = folder.parent / "found.json"
    done = run_kit(folder, "ort_run.py", "--check", ".", "--json", out, *arguments)
    assert done.returncode in (0, 3), done.stderr
    found = json.loads(out.read_text())
    assert (done.returncode == 3) == any(line["passed"] is False for line in found)
    return {(line["model"], line["check"]): line for line in found}


# --- what it needs --------------------------------------------------------------------------------


def test_the_kit_runs_with_nothing_but_the_standard_library_numpy_and_onnxruntime(folder: Path):
    images = sorted(str(path) for path in (folder / "samples").iterdir())
    for arguments in (["--check", str(folder), "--no-latency"], images):
        script = str(folder / "ort_run.py")
        command = [sys.executable, "-I", "-c", ALONE, kit_names(folder), script, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd="/")
        assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(images) == 6
    jpeg = folder.parent / "photo.jpg"
    jpeg.write_bytes(b"\xff\xd8\xff\xe0")
    done = subprocess.run([*command[:6], str(jpeg)], capture_output=True, text=True, cwd="/")
    assert done.returncode == 1 and "needs Pillow" in done.stderr, done.stderr


@pytest.mark.full
def test_the_kit_runs_in_an_environment_of_its_own(folder: Path, tmp_path: Path):
    """numpy and onnxruntime from the registry, into a fresh virtual environment; timing too."""
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    install = [python, "-m", "pip", "install", "--quiet", "numpy", "onnxruntime"]
    done = subprocess.run([str(part) for part in install], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"the package registry cannot be used: {done.stderr.strip()[-200:]}")
    for absent in ("torch", "hwnas", "PIL", "onnx"):
        command = [str(python), "-I", "-c", f"import {absent}"]
        found = subprocess.run(command, capture_output=True)
        assert found.returncode != 0, f"{absent} is there: this proves nothing"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = run_kit(folder, "ort_run.py", "--check", ".", python=python, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "golden outputs: ok" in done.stdout and "ms here" in done.stdout
    done = run_kit(folder, "ort_run.py", "samples/01-green.ppm", python=python, env=environment)
    assert done.stdout.startswith("samples/01-green.ppm: green ")


SCRIPTS = {
    "ort_run.py": ("--check", "."),
    "device_run.py": ("--check", "."),
    "trt_run.py": ("--check", "."),
    "trt_build.py": (),
    "bench.py": ("plan.json", "--out", "results.jsonl"),
}


@pytest.mark.parametrize(
    ("absent", "script"),
    [("onnxruntime", "ort_run.py"), *(("numpy", script) for script in SCRIPTS)],
)
def test_without_what_it_needs_the_kit_names_the_line_that_installs_it(
    absent: str, script: str, folder: Path, tmp_path: Path
):
    config = ProfileConfig(time_budget_s=1)
    write_plan({"a": b"model"}, DeviceSpec("local"), tmp_path, config, seed=0)
    code = (
        f"import runpy, sys; sys.modules[{absent!r}] = None; sys.path.insert(0, {str(folder)!r});"
        f"sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    command = [sys.executable, "-c", code, str(folder / script), *SCRIPTS[script]]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    needed = "numpy onnxruntime" if script in ("ort_run.py", "bench.py") else "numpy"
    assert f"fix: python -m pip install {needed}\n" in done.stderr


def test_every_script_that_can_be_started_is_among_those(folder: Path):
    started = {path.name for path in folder.glob("*.py") if path.read_text().startswith("#!")}
    assert started == set(SCRIPTS)


# --- checks ---------------------------------------------------------------------------------------


def test_check_holds_for_every_format_and_precision_and_names_what_it_cannot_check(folder: Path):
    found = findings(folder)
    names = [*(f"models/{precision}.onnx" for precision in PRECISIONS), "models/fp32.ort"]
    for name in names:
        assert found[name, "golden outputs"]["passed"] is True
        assert "6 of 6 in the same class as in torch, 6 correct" in found[name, "samples"]["detail"]
    for name in names[:3]:  # nothing was promised of the .ort file
        assert (
            found[name, "latency"]["passed"] is True
            and "ms here" in found[name, "latency"]["detail"]
        )
    assert (names[3], "latency") not in found
    skipped = found["timm/weights.safetensors", "all"]
    assert skipped["passed"] is None and "not checked by onnxruntime" in skipped["detail"]


def test_a_broken_bundle_is_told_without_a_traceback(folder: Path, tmp_path: Path):
    colour_bundle(tmp_path / "winner")
    (tmp_path / "winner" / "golden" / "logits.npy").unlink()
    for place in (tmp_path / "winner", tmp_path):
        done = run_kit(folder, "ort_run.py", "--check", place)
        assert done.returncode == 1 and done.stderr.startswith("error: "), done.stderr
        assert "Traceback" not in done.stderr


def test_check_tells_wrong_outputs_wrong_classes_and_a_broken_promise(tmp_path: Path):
    pixels, labels = colour_images()
    colour_bundle(
        tmp_path / "winner",
        colour_manifest(promised_ms=1e-6),
        golden_output=LOGITS + 0.01,
        samples=[SampleImage(p, 0, (int(y) + 1) % 3) for p, y in zip(pixels, labels, strict=True)],
    )
    found = findings(tmp_path / "winner")
    assert {check: line["passed"] for (_, check), line in found.items()} == dict.fromkeys(
        ("golden outputs", "samples", "latency"), False
    ) | {"latency limit": True}
    assert (
        "0 of 6 in the same class as in torch, 2 correct (torch: 2)"
        in found["models/fp32.onnx", "samples"]["detail"]
    )


def test_a_model_that_does_not_load_falls_short_and_the_others_are_still_checked(tmp_path: Path):
    made = colour_manifest(precisions=("fp32", "int8"))
    sources = tmp_path / "broken"
    sources.mkdir()
    onnx.save(colour_net("int8"), sources / "int8.onnx")
    (sources / "fp32.onnx").write_bytes(b"no model")
    models = {model.path: sources / Path(model.path).name for model in made.models}
    colour_bundle(tmp_path / "winner", made, models=models)
    found = findings(tmp_path / "winner", "--no-latency")
    assert found["models/fp32.onnx", "load"]["passed"] is False
    assert found["models/int8.onnx", "golden outputs"]["passed"] is True


def test_a_model_that_fails_when_it_runs_falls_short_and_the_others_are_still_checked(
    tmp_path: Path,
):
    """By whatever name its node has: the runtime's own log would write it as it stands."""
    made = colour_manifest(precisions=("fp32", "int8"))
    sources = tmp_path / "broken"
    sources.mkdir()
    onnx.save(colour_net("int8"), sources / "int8.onnx")
    onnx.save(failing_net("\x1b[31mnode"), sources / "fp32.onnx")
    models = {model.path: sources / Path(model.path).name for model in made.models}
    colour_bundle(tmp_path / "winner", made, models=models)
    found = findings(tmp_path / "winner", "--no-latency")
    assert found["models/fp32.onnx", "run"]["passed"] is False
    assert found["models/int8.onnx", "golden outputs"]["passed"] is True
    photo = next((tmp_path / "winner" / "samples").glob("*.ppm"))
    done = run_kit(tmp_path / "winner", "ort_run.py", photo)
    assert done.returncode == 1 and "\x1b" not in done.stderr
    assert done.stderr.startswith("error: models/fp32.onnx: onnxruntime cannot run it")


@pytest.mark.parametrize("script", ["ort_run.py", "device_run.py"])
def test_closed_streams_are_no_traceback(script: str, folder: Path):
    command = f'"{sys.executable}" {script} --check . --no-latency'
    for closed in (">&-", "2>&-", ">&- 2>&-"):
        line = ["/bin/sh", "-c", f"{command} {closed}"]
        done = subprocess.run(line, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0 and "Traceback" not in done.stdout + done.stderr, closed


def test_a_tolerance_of_fp16_is_not_lent_to_fp32(tmp_path: Path):
    """The golden logits moved by 1e-3 of the largest: between the two tolerances."""
    moved = LOGITS + 1e-3 * np.abs(LOGITS).max().astype(np.float32)
    made = colour_manifest(precisions=("fp32", "fp16"))
    colour_bundle(tmp_path / "winner", made, golden_output=moved)
    found = findings(tmp_path / "winner", "--no-latency")
    assert found["models/fp32.onnx", "golden outputs"]["passed"] is False
    assert found["models/fp16.onnx", "golden outputs"]["passed"] is True


@pytest.mark.parametrize("batch", [1, 3])
def test_a_fixed_batch_is_filled_up(batch: int, tmp_path: Path):
    made = colour_manifest()
    model = dataclasses.replace(made.models[0], batch=batch)
    colour_bundle(tmp_path / "winner", dataclasses.replace(made, models=(model,)))
    found = findings(tmp_path / "winner", "--no-latency")
    assert "8 of 8" in found["models/fp32.onnx", "golden outputs"]["detail"]


def test_an_old_bundle_is_checked_by_the_kit_of_today(folder: Path):
    done = run_kit(folder, "ort_run.py", "--check", OLD_BUNDLE, "--no-latency")
    assert done.returncode == 0, done.stderr
    assert "golden outputs: ok" in done.stdout and "8 of 8" in done.stdout


# --- accuracy on the user's images ----------------------------------------------------------------


def accuracy(folder: Path, data: Path) -> dict[str, Any]:
    model = "models/fp32.onnx"
    return findings(folder, "--no-latency", "--model", model, "--data", data)[model, "accuracy"]


def test_accuracy_on_a_folder_per_class_and_on_an_archive(folder: Path, tmp_path: Path):
    pixels, labels = colour_images(30)
    given = np.where(np.arange(30) < 3, (labels + 1) % 3, labels)  # 90 % as promised
    for index, (image, label) in enumerate(zip(pixels, given, strict=True)):
        place = tmp_path / "photos" / CLASSES[label] / "more"
        place.mkdir(parents=True, exist_ok=True)
        np.save(place / f"{index}.npy", image)
    (tmp_path / "photos" / "red" / "notes.txt").touch()
    np.savez(tmp_path / "set.npz", images=pixels, labels=given)
    for data in (tmp_path / "photos", tmp_path / "set.npz"):
        line = accuracy(folder, data)
        assert line["passed"] is True and "90.00% ± 5.48% of 30 images here" in line["detail"]
    np.savez(tmp_path / "set.npz", images=pixels, labels=(labels + 1) % 3)
    line = accuracy(folder, tmp_path / "set.npz")
    assert line["passed"] is False and line["detail"].startswith("0.00% ± 2.34% of 30")


def test_an_image_that_cannot_be_read_does_not_stop_the_classification(folder: Path):
    (folder / "ant").mkdir()
    (folder / "ant" / "broken.png").write_bytes(b"x")
    images = ("samples/01-green.ppm", "ant/broken.png", "nothing.png", "samples/01-green.ppm")
    done = run_kit(folder, "ort_run.py", *images)
    assert done.returncode == 1
    assert done.stdout.count("samples/01-green.ppm: ") == 2, "those before and after it"
    assert "error: ant/broken.png: cannot read" in done.stderr, "with its folder"
    assert "error: nothing.png: cannot read" in done.stderr


def test_jpeg_archives_of_hwnas_are_read_with_pillow(folder: Path, tmp_path: Path):
    from PIL import Image

    pixels, labels = colour_images(6)
    files = []
    for image in pixels:
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "JPEG", quality=95)
        files.append(np.frombuffer(stream.getvalue(), np.uint8))
    offset = np.cumsum([0, *map(len, files)])
    arrays = {"jpeg": np.concatenate(files), "offset": offset, "label": labels}
    np.savez(tmp_path / "set.npz", **arrays, class_names=np.array(CLASSES))
    assert accuracy(folder, tmp_path / "set.npz")["detail"].startswith("100.00% ± 11.28% of 6")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": np.zeros((2, 8, 8, 3), np.uint8)}, "expected images and labels"),
        ({"images": np.zeros((2, 8, 8, 3), np.uint8), "labels": [0, 3]}, "must lie in"),
        ({"images": np.zeros((2, 8, 8, 3), np.uint8), "labels": [0, -1]}, "must lie in"),
        ({"images": np.zeros((2, 8, 8, 3), np.uint8), "labels": [0]}, "whole numbers"),
        ({"images": np.zeros((2, 8, 8, 3), np.uint8), "labels": [0.5, 1]}, "whole numbers"),
        ({"images": np.zeros((0, 8, 8, 3), np.uint8), "labels": np.zeros(0, int)}, "no images"),
        ({"images": np.zeros((2, 8, 8, 2), np.uint8), "labels": [0, 1]}, "3 channels"),
        ({"images": np.array([{}, {}]), "labels": [0, 1]}, "cannot read"),
    ],
)
def test_data_that_cannot_be_used_are_explained(arrays, message, folder: Path, tmp_path: Path):
    np.savez(tmp_path / "set.npz", **arrays)
    manifest = kit_module("bundle_files").read_bundle(folder)
    checks = kit_module("bundle_checks")
    with pytest.raises(kit_module("bundle_files").BundleError, match=message):
        checks.check_accuracy(manifest, manifest["models"][0], lambda x: x, tmp_path / "set.npz")


def test_the_tolerances_of_the_kit_are_those_of_hwnas() -> None:
    assert kit_module("bundle_files").MOST_TOLERANCE == MOST_TOLERANCE
    assert kit_module("bundle_checks").TIE == parity.TIE


def counted(n_right: list[int], n: list[int]) -> dict[str, Any]:
    """A manifest that promises right answers of every class."""
    model = "models/fp32.onnx"
    pairs = tuple(zip(n_right, n, strict=True))
    fact = AccuracyFact(model, "c", "test", sum(n), sum(n_right) / sum(n), pairs)
    return dump(colour_manifest(accuracy=(fact,)))


def judged(manifest: dict[str, Any], data: Path) -> dict[str, Any]:
    def brightest(x: np.ndarray) -> np.ndarray:
        return x.mean(axis=(2, 3))  # what the network of the tests computes

    return kit_module("bundle_checks").check_accuracy(
        manifest, manifest["models"][0], brightest, data
    )


def photos(folder: Path, n_right: list[int], n: list[int]) -> Path:
    """A folder per class that has images; of n of a class, n_right look like it."""
    pixels, labels = colour_images(300)
    for own, (right, of) in enumerate(zip(n_right, n, strict=True)):
        for index in range(of):
            looks = own if index < right else (own + 1) % 3
            place = folder / CLASSES[own] / f"{index}.npy"
            place.parent.mkdir(parents=True, exist_ok=True)
            np.save(place, pixels[labels == looks][index])
    return folder


def test_classes_that_are_given_are_compared_with_what_is_promised_of_them(tmp_path: Path):
    """Red is promised always, blue half the time: blue alone is as good as promised."""
    manifest = counted([100, 100, 50], [100, 100, 100])
    blue = judged(manifest, photos(tmp_path / "blue", [0, 0, 20], [0, 0, 40]))
    assert blue["passed"] is True and blue["judged"]
    assert "50.00% ± 7.91% of 40 images here; promised 50.00% for these classes" in blue["detail"]
    assert "2 of 3 classes are absent here" in blue["detail"]
    red = judged(manifest, photos(tmp_path / "red", [33, 0, 0], [40, 0, 0]))
    assert red["passed"] is False and "82.50% ± 6.01% of 40" in red["detail"], (
        "above the promise of all"
    )
    mixed = judged(manifest, photos(tmp_path / "mixed", [2, 2, 30], [2, 2, 60]))
    assert mixed["passed"] is True, "another mix of classes is no shortfall"
    unseen = counted([100, 100, 0], [100, 100, 0])
    line = judged(unseen, tmp_path / "blue")
    assert line["passed"] is None and not line["judged"]
    line = judged(unseen, tmp_path / "mixed")
    assert line["passed"] is True and "60 images are of classes without" in line["detail"]


def test_some_classes_cannot_be_judged_by_a_promise_of_all_together(tmp_path: Path):
    manifest = dump(colour_manifest())
    manifest["accuracy"][0]["classes"] = []  # as of earlier versions
    line = judged(manifest, photos(tmp_path, [0, 0, 20], [0, 0, 40]))
    assert line["passed"] is None and not line["judged"]
    assert "not class by class, and 2 of 3 classes are absent" in line["detail"]


def test_files_that_cannot_be_read_are_left_out_and_named(tmp_path: Path):
    manifest = counted([100, 100, 100], [100, 100, 100])
    photos(tmp_path, [5, 5, 5], [5, 5, 5])
    (tmp_path / "red" / "0.npy").write_bytes(b"\x93NUMPY broken")
    np.save(tmp_path / "green" / "1.npy", np.zeros((8, 8, 2), np.uint8))
    line = judged(manifest, tmp_path)
    assert line["passed"] is True and "100.00% ± 5.33% of 13 images here" in line["detail"]
    assert "2 left out that cannot be read" in line["detail"] and "0.npy" in line["detail"]


def test_a_sample_is_taken_evenly_from_all_classes(folder: Path, tmp_path: Path):
    balanced = kit_module("bundle_checks").balanced
    labels = np.array([0] * 50 + [1] * 5 + [2] * 50)
    chosen = balanced(labels, 24)
    assert np.bincount(labels[chosen]).tolist() == [10, 5, 9]
    assert (np.diff(chosen) > 0).all() and chosen.tolist() == balanced(labels, 24).tolist()
    assert balanced(labels, 500).tolist() == list(range(105))
    photos(tmp_path, [20, 20, 20], [20, 20, 20])
    model = "models/fp32.onnx"
    asked = ("--no-latency", "--model", model, "--data", tmp_path, "--limit", "9")
    assert "100.00% ± 7.64% of 9 images" in findings(folder, *asked)[model, "accuracy"]["detail"]
    done = run_kit(folder, "ort_run.py", "--check", ".", "--limit", "9")
    assert done.returncode == 2 and "beside --data" in done.stderr


def test_a_long_check_says_how_far_it_is(capsys: pytest.CaptureFixture[str], monkeypatch):
    checks = kit_module("bundle_checks")
    now = iter([0.0, 0.5, 2.0, 2.5, 9.0])
    monkeypatch.setattr(checks.time, "monotonic", lambda: next(now))
    progress = checks.Progress("accuracy", 100)
    for done in (10, 20, 30, 90):
        progress(done)
    said = capsys.readouterr().err.splitlines()
    assert said == [
        "accuracy: 20 of 100 images, 8 s left",
        "accuracy: 90 of 100 images, 1 s left",
    ]


def test_folders_that_are_no_classes_are_named(tmp_path: Path):
    (tmp_path / "purple").mkdir()
    images, files = kit_module("bundle_images"), kit_module("bundle_files")
    with pytest.raises(files.BundleError, match=r"no class is called purple.*red, green, blue"):
        images.labelled_images(tmp_path, CLASSES)
    with pytest.raises(files.BundleError, match="folder per class"):
        images.labelled_images(tmp_path / "nowhere", CLASSES)


# --- statistics -----------------------------------------------------------------------------------


def test_chances_are_those_of_scipy():
    from scipy import stats

    checks = kit_module("bundle_checks")
    for k, n, p in ((1, 16, 0.02), (3, 16, 0.02), (0, 5, 0.3), (40, 10_000, 0.005)):
        assert checks.binomial_tail(k, n, p) == pytest.approx(stats.binom.sf(k - 1, n, p), rel=1e-6)
    for right, n, promised, of in ((20, 30, 180, 200), (0, 4, 1, 7), (9900, 10_000, 950, 1000)):
        table = [[right, n - right], [promised, of - promised]]
        expected = stats.fisher_exact(table, alternative="less").pvalue
        found = checks.chance_of_fewer(right, n, promised, of)
        assert found == pytest.approx(expected, rel=1e-6)


def test_chances_of_several_classes_are_those_of_all_that_could_have_happened():
    """Every way to deal right answers to both sets, class by class."""
    shortfall = kit_module("bundle_checks").chance_of_fewer
    right, n, promised, of = [1, 0, 3], [3, 2, 4], [2, 2, 5], [2, 3, 5]
    ways = []
    for r, m, p, o in zip(right, n, promised, of, strict=True):
        deals = itertools.combinations(range(m + o), r + p)
        ways.append(Counter(sum(i < m for i in deal) for deal in deals))
    total = fewer = 0
    for picks in itertools.product(*(way.items() for way in ways)):
        weight = math.prod(count for _, count in picks)
        total += weight
        fewer += weight * (sum(k for k, _ in picks) <= sum(right))
    assert shortfall(right, n, promised, of) == pytest.approx(fewer / total, rel=1e-9)


def test_agreement_is_judged_as_what_it_says_of_the_long_run():
    agrees = kit_module("bundle_checks").agrees
    assert agrees(16, 16, 1.0) and not agrees(15, 16, 1.0)
    assert agrees(15, 16, 0.98) and agrees(14, 16, 0.98) and not agrees(13, 16, 0.98)
    assert agrees(15, 16, 0.995) and not agrees(14, 16, 0.995)
    assert agrees(0, 16, 0.0)


def test_the_promise_of_the_test_split_comes_first(tmp_path: Path):
    checks, model = kit_module("bundle_checks"), "models/fp32.onnx"
    val, test = (
        AccuracyFact(model, "c", "val", 10, 0.1),
        AccuracyFact(model, "c", "test", 20, 0.9),
    )
    pixels, labels = colour_images(6)
    np.savez(tmp_path / "set.npz", images=pixels, labels=labels)
    for facts, word in (((val, test), "90.00%"), ((val,), "10.00%"), ((), "no accuracy")):
        manifest = dump(colour_manifest(accuracy=facts), version=2)
        line = checks.check_accuracy(
            manifest, manifest["models"][0], lambda x: x.mean(axis=(2, 3)), tmp_path / "set.npz"
        )
        assert word in line["detail"] and line["passed"] is (True if facts else None)


# --- images ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["npy", "ppm", "png"])
def test_classifies_an_image_of_any_size(folder: Path, tmp_path: Path, suffix: str):
    pixels = np.full((9, 13, 3), 20, dtype=np.uint8)
    pixels[..., 1] = 200
    path = tmp_path / f"green.{suffix}"
    if suffix == "npy":
        np.save(path, pixels)
    elif suffix == "ppm":
        path.write_bytes(b"P6\n# a comment\n13 9\n255\n" + pixels.tobytes())
    else:
        from PIL import Image

        Image.fromarray(pixels).save(path)
    done = run_kit(folder, "ort_run.py", path, "--top", "1", "--model", "models/fp32.onnx")
    assert done.returncode == 0, done.stderr
    # logits by hand: (20 / 255 - 0.5) / 0.25 twice, (200 / 255 - 0.5) / 0.25 once
    low, high = (20 / 255 - 0.5) / 0.25, (200 / 255 - 0.5) / 0.25
    share = np.exp(high) / (np.exp(high) + 2 * np.exp(low))
    assert f"green {share:.1%}" in done.stdout


BAD_IMAGES = {
    "cut.ppm": b"P6 9 9",
    "no.npy": b"x",
    "short.pgm": b"P5 9 9 255 x",
    "deep.ppm": b"P6 1 1 65536 xxxxxx",
    "huge.ppm": b"P6 99999999 99999999 255 x",
    "gaps.ppm": b"P6" + b" \n" * 200_000 + b"x",
    "digits.ppm": b"P6 " + b"9" * 100_000_000,
    "pickle.npy": b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False, 'shape': (1,), }",
}


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_an_image_that_is_none_is_told(name: str):
    images, files = kit_module("bundle_images"), kit_module("bundle_files")
    with pytest.raises(files.BundleError, match=name), bounded(seconds=5, memory=1 << 30):
        images.decode(BAD_IMAGES[name], name)


@pytest.mark.parametrize(
    ("array", "word"),
    [
        (np.zeros((2, 2, 2, 3), np.uint8), "expected"),
        (np.zeros((0, 4), np.uint8), "expected"),
        (np.zeros((4, 4), np.int64), "expected uint8"),
        (np.full((4, 4), 2.0), "in \\[0, 1\\]"),
        (np.full((4, 4), np.nan), "in \\[0, 1\\]"),
    ],
)
def test_an_array_that_is_no_image_is_told(array, word: str):
    images, files = kit_module("bundle_images"), kit_module("bundle_files")
    with pytest.raises(files.BundleError, match=word):
        images.checked_pixels(array, "x.npy")


@pytest.mark.parametrize(("size", "px"), [(32, 24), (8, 32), (17, 5), (24, 24)])
def test_resizes_as_training_does(size: int, px: int):
    import torch

    weights = kit_module("bundle_images").resize_weights(size, px)
    image = rng(0, "resize").random((size, size))
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(image)[None, None], size=(px, px), mode="bilinear", antialias=True
    )
    np.testing.assert_allclose(weights @ image @ weights.T, expected[0, 0].numpy(), atol=1e-6)


@pytest.mark.parametrize("shape", [(40, 61, 3), (61, 40, 3), (17, 16, 3), (9, 33, 4), (30, 20, 1)])
def test_a_photo_becomes_the_pixels_that_the_data_set_keeps(shape: tuple[int, ...]):
    """Centre square, transparency, grey: within a level of `square_rgb`, which rounds twice."""
    from PIL import Image

    from hwnas.training.decode import square_rgb

    pixels = rng(0, "photo", *shape).integers(0, 256, shape, dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels[..., 0] if shape[2] == 1 else pixels).save(stream, "PNG")
    expected = square_rgb(io.BytesIO(stream.getvalue()), 16).astype(int)
    images = kit_module("bundle_images")
    spec = {"shape": [3, 16, 16], "mean": [0.0] * 3, "std": [1.0] * 3, "resize_px": [16]}
    found = images.preprocess(images.decode(stream.getvalue(), "photo"), spec)
    levels = np.rint(found.transpose(1, 2, 0) * 255).astype(int)
    assert np.abs(levels - expected).max() <= 1


def test_a_photo_is_turned_upright():
    from PIL import Image

    image = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3))
    exif = image.getexif()
    exif[0x0112] = 3  # turned by 180 degrees
    stream = io.BytesIO()
    image.save(stream, "PNG", exif=exif)
    found = kit_module("bundle_images").decode(stream.getvalue(), "photo")
    np.testing.assert_array_equal(found, np.asarray(image)[::-1, ::-1])


def test_golden_data_of_another_shape_or_kind_are_told(folder: Path, tmp_path: Path):
    files = kit_module("bundle_files")
    manifest = json.loads(json.dumps(files.read_bundle(folder)))
    (tmp_path / "golden").mkdir()
    cases = [
        (INPUTS, LOGITS[:3], "expected"),
        (INPUTS[:, :1], LOGITS, "expected"),
        (INPUTS.astype(np.float64), LOGITS, "float32"),
        (INPUTS * np.float32("nan"), LOGITS, "not finite"),
    ]
    for inputs, logits, word in cases:
        np.save(tmp_path / "golden" / "input.npy", inputs)
        np.save(tmp_path / "golden" / "logits.npy", logits)
        with pytest.raises(files.BundleError, match=word):
            files.read_golden(tmp_path, manifest)


# --- docs/deploy.md -------------------------------------------------------------------------------

DEPLOY = (Path(__file__).resolve().parents[2] / "docs" / "deploy.md").read_text()


def test_the_how_tos_name_the_files_of_a_bundle(folder: Path):
    from hwnas.exporters import (
        coreml,
        executorch,
        features,
        fp16,
        int8,
        litert,
        ncnn,
        openvino,
        ort,
        pt2,
        timm,
        web,
    )
    from hwnas.exporters import onnx as onnx_exporter

    formats = (onnx_exporter, features, fp16, int8, ort, pt2)
    known = {module.FILE_NAME for module in formats}
    known |= {f"timm/{name}" for name in (timm.WEIGHTS, *timm.COMPANIONS)}
    known |= {f"openvino/{name}" for name in openvino.FILES}
    known |= {f"ncnn/{name}" for name in ncnn.FILES} | set(litert.FILES.values())
    known |= {*coreml.FILES.values(), *executorch.FILES.values(), *web.PAGES.values()}
    known |= {"model.int8.symmetric.onnx", "model.batch1.onnx"}  # beside another variant
    known |= {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    table = DEPLOY.partition("| file | what it is |")[2].partition("\n\n")[0]
    rows = [line.split("|")[1] for line in table.splitlines()[2:]]
    cells = {name for row in rows for name in re.findall(r"`([^`]+)`", row)}
    named = {name for name in cells if "*" not in name}
    assert named <= known and len(named) > 15
    others = re.findall(r"`((?:model|ncnn|openvino|timm|golden|manifest)[\w./]*\.\w+)`", DEPLOY)
    assert set(others) <= known | {ort.OPERATORS} and len(others) > 20


def test_settings_in_the_how_tos_are_valid():
    import yaml

    from hwnas.exporters import REGISTRY
    from hwnas.exporters.sections import format_section

    found = re.findall(r"`export: (\[.*?\{.*?\}\])`", DEPLOY)
    assert len(found) >= 5
    for text in found:
        for settings in map(format_section, yaml.safe_load(text)):
            REGISTRY.declaration(settings["name"]).Config.model_validate(settings)


def test_the_program_in_the_how_to_runs_in_a_bundle(folder: Path, tmp_path: Path):
    code = re.findall(r"^```python\n(.*?)^```", DEPLOY, re.MULTILINE | re.DOTALL)[0]
    code = code.replace("model.onnx", "models/fp32.onnx").replace(
        "photo.ppm", "samples/02-blue.ppm"
    )
    command = [sys.executable, "-c", code + "print(name)"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0 and done.stdout == "blue\n", done.stderr


@pytest.mark.parametrize("script", ["ort_run.py", "trt_build.py", "trt_run.py"])
def test_options_in_the_documents_exist(folder: Path, script: str):
    text = DEPLOY + (folder / "README.md").read_text()
    named = {
        o for line in re.findall(rf"{script}([^`#\n]*)", text) for o in re.findall(r"--\w+", line)
    }
    done = run_kit(folder, script, "--help")
    assert named and named <= set(re.findall(r"--[\w]+", done.stdout)), done.stderr


# --- a tolerance for torch's own rounding ---------------------------------------------------------


@pytest.mark.parametrize(("error", "passes"), [(0.01, True), (0.025, False)])
def test_a_tolerance_for_the_rounding_of_torch_counts_without_torch(
    error: float, passes: bool, tmp_path: Path
):
    made = colour_manifest()
    models = tuple(parity.promised(model, 0.005) for model in made.models)
    wrong = LOGITS + np.float32(error * np.abs(LOGITS).max())
    colour_bundle(
        tmp_path / "winner", dataclasses.replace(made, models=models), golden_output=wrong
    )
    found = findings(tmp_path / "winner", "--no-latency")["models/fp32.onnx", "golden outputs"]
    assert found["passed"] is passes
    assert "(allowed 2e-02, because torch's own rounding is 5e-03)" in found["detail"]
    report = verify_bundle(tmp_path / "winner", data=None, settings=None, progress=silent)
    assert (not report.failed) is passes
    assert any("2e-02, because torch's own rounding is 5e-03" in note for note in report.notes)


@pytest.mark.parametrize(("precision", "most"), [("fp32", 0.03), ("fp16", 0.03), ("int8", 0.3)])
def test_a_manifest_cannot_promise_less_than_the_least(precision: str, most: float, tmp_path: Path):
    folder = tmp_path / "winner"
    colour_bundle(folder, colour_manifest(precisions=[precision]))
    path, reader = folder / "manifest.json", kit_module("bundle_files")
    manifest = json.loads(path.read_text())
    model = manifest["models"][0]
    model |= {"parity_tolerance": most, "torch_rounding": 1.0}
    path.write_text(json.dumps(manifest))
    assert reader.read_bundle(folder)["models"] == [model]
    assert read_manifest(folder).models[0].parity_tolerance == most
    model["parity_tolerance"] = most * 1.01
    path.write_text(json.dumps(manifest))
    with pytest.raises(reader.BundleError, match="parity_tolerance"):
        reader.read_bundle(folder)
    with pytest.raises(UserError, match=f"at most {most} for {precision}"):
        read_manifest(folder)
