"""The folder with Python and a runtime for arm64 runs the kit in an empty root, under qemu.

It shows that the folder needs no file of the system, and that results are correct. It shows nothing
about timings, nor about the kernel and the rules of a phone. Skipped without qemu or packages.
"""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import hwnas
from hwnas.core.env import cache_folder
from hwnas.core.resources import resource
from hwnas.core.store import read_jsonl
from hwnas.interfaces import DeviceSpec
from hwnas.measure.networks import network_models
from hwnas.spaces.mobilenet_tiny import Config, build
from hwnas.spaces.space import SearchSpace
from tests.arm64 import EmptyRoot, carried_or_skip, empty_root_or_skip
from tests.bundles import colour_bundle, colour_manifest, kit_module

PROVIDERS = {"litert": "cpu", "onnxruntime": "CPUExecutionProvider"}
SUFFIXES = {"litert": ".tflite", "onnxruntime": ".onnx"}
PX = 8
QUICK = {"rounds": 3, "min_rounds": 2, "hot_samples": 3, "n_validation": 6, "warmup_runs": 1}

pytestmark = pytest.mark.full


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One cache for all tests of this file, as the packages are downloaded once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HWNAS_CACHE", str(tmp_path_factory.mktemp("packages")))
        yield


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    """Few operators, because every model takes a second under the emulator."""
    whole = build(Config(resolutions=(PX,)), num_classes=4)
    largest = {choice.name: (choice.values[-1],) for choice in whole.choices}
    free = {"stage0.width": (16, 32), "stage1.depth": (1, 3), "stage2.depth": (1, 2)}
    return whole.restrict(largest | free)


@pytest.fixture(params=sorted(PROVIDERS))
def runtime(request: pytest.FixtureRequest) -> str:
    carried_or_skip(request.param)
    return str(request.param)


@pytest.fixture
def root(tmp_path: Path) -> EmptyRoot:
    return empty_root_or_skip(tmp_path)


def test_a_packed_kit_needs_nothing_of_the_system(
    runtime: str, root: EmptyRoot, space: SearchSpace, tmp_path: Path
) -> None:
    """From the plan to results that become a table."""
    device = tmp_path / "phone.yaml"
    device.write_text(
        f"schema_version: 1\nruntime: {runtime}\nprovider: {PROVIDERS[runtime]}\n"
        "transport: offline\n"
    )
    same = {"space": space, "profile_settings": QUICK}
    archive = hwnas.profile_pack(
        str(device), out=tmp_path / "kit.zip", with_runtime="arm64", **same
    )
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(root.folder / "kit")
    paths = ("/kit/bench.py", "/kit/plan.json", "--out", "/kit/results.jsonl")
    done = root.python("kit/runtime", *paths)
    assert done.returncode == 0, done.stderr
    header = read_jsonl(root.folder / "kit" / "results.jsonl")[0]
    assert header["host"]["machine"] == "aarch64" and header["host"]["python"].startswith("3.11")
    table = hwnas.profile_import(
        str(device), root.folder / "kit" / "results.jsonl", out=tmp_path / "phone.json", **same
    )
    assert table.device.name == "phone" and len(table.rows) > 10
    n_before = len(read_jsonl(root.folder / "kit" / "results.jsonl"))
    assert root.python("kit/runtime", *paths).returncode == 0  # nothing is timed again
    assert len(read_jsonl(root.folder / "kit" / "results.jsonl")) == n_before


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_networks_compute_what_they_compute_here(
    runtime: str, precision: str, root: EmptyRoot, space: SearchSpace
) -> None:
    carried = carried_or_skip(runtime)
    root.unpack(carried, "kit/runtime")
    for path in resource("export").glob("*.py"):
        shutil.copy(path, root.folder / "kit")
    device = DeviceSpec("phone", runtime, PROVIDERS[runtime], precision=precision)
    codes = space.codes([space.smallest(), space.largest()])
    models = network_models(space, codes, device, seed=0)
    x = np.random.default_rng(0).standard_normal((4, 3, PX, PX)).astype(np.float32)
    np.save(root.folder / "kit" / "x.npy", x)
    spec = {"runtime": runtime, "provider": PROVIDERS[runtime], "precision": precision}
    spec |= {"threads": 1, "batch": 1}
    for name, content in models.items():
        model = root.folder / "kit" / f"{name}{SUFFIXES[runtime]}"
        model.write_bytes(content)
        options = ("--logits", json.dumps(spec), f"/kit/{model.name}", "/kit/x.npy", "/kit/y.npy")
        done = root.python("kit/runtime", "/kit/device_run.py", *options)
        assert done.returncode == 0, done.stderr
        there = np.load(root.folder / "kit" / "y.npy")
        here = kit_module("device_run").Predictor(model, spec)(x)
        assert np.isfinite(there).all() and there.std() > 0
        error = np.sqrt(np.mean((there - here) ** 2) / np.mean(here**2))
        # int8: processors round sums differently, and outputs have few steps
        assert error <= {"fp32": 1e-5, "int8": 0.05}[precision], error


def test_a_bundle_is_checked(root: EmptyRoot, tmp_path: Path) -> None:
    """`ort_run.py --check`, without timings; and a wrong file is found."""
    carried = carried_or_skip("onnxruntime")
    root.unpack(carried, "runtime")
    colour_bundle(root.folder / "bundle", colour_manifest())
    check = ("/bundle/ort_run.py", "--check", "/bundle", "--no-latency")
    done = root.python("runtime", *check)
    assert done.returncode == 0 and "golden" in done.stdout, done.stdout + done.stderr
    golden = next((root.folder / "bundle" / "golden").glob("*logits*"))
    golden.write_bytes(golden.read_bytes()[:-4] + b"\0\0\x80?")
    assert root.python("runtime", *check).returncode in (1, 3)


def test_a_bundle_is_checked_with_its_latency(root: EmptyRoot) -> None:
    """As on a phone: in its shell, which starts the Python of the folder, which starts bench.py."""
    root.add_shell_or_skip()
    root.unpack(carried_or_skip("onnxruntime"), "data/local/tmp/runtime")
    manifest = colour_manifest(constraints=())  # no limit: timings of an emulator mean nothing
    colour_bundle(root.folder / "data" / "local" / "tmp" / "bundle", manifest)
    done = root.shell(
        "cd /data/local/tmp/bundle && sh ../runtime/python3 ort_run.py --check . --json found.json"
    )
    # 4: the emulator is so noisy that no timing can be judged
    assert done.returncode in (0, 4), done.stdout + done.stderr
    written = root.folder / "data" / "local" / "tmp" / "bundle" / "found.json"
    found = {line["check"]: line for line in json.loads(written.read_text())}
    assert found["golden outputs"]["passed"] and found["samples"]["passed"]
    assert " ms here; estimate" in found["latency"]["detail"], found["latency"]["detail"]


def test_a_phone_on_a_cable_is_profiled(
    runtime: str,
    root: EmptyRoot,
    space: SearchSpace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The documented device file, over an adb whose phone is the root: copied, timed, cleaned."""
    root.add_shell_or_skip()
    root.as_phone(tmp_path / "adb", monkeypatch)
    device = tmp_path / "my_phone.yaml"
    device.write_text(
        f"schema_version: 1\nruntime: {runtime}\nprovider: {PROVIDERS[runtime]}\n"
        "transport:\n  name: adb\n"
    )
    table = hwnas.profile(
        str(device), space, out=tmp_path / "my_phone.json", profile_settings=QUICK
    )
    assert table.device.name == "my_phone" and len(table.rows) > 10
    place = root.folder / "data" / "local" / "tmp" / "hwnas-kit"
    assert any(path.name.startswith("runtime-") for path in place.iterdir())
    found = hwnas.clean(tmp_path / "my_phone.samples", device=[str(device)], yes=True)
    assert len(found.rows) >= 2 and not list(place.iterdir())  # a plan and the runtime


def test_the_packages_are_downloaded_once(runtime: str, caplog: pytest.LogCaptureFixture) -> None:
    carried = carried_or_skip(runtime)
    before = carried.archive.stat()
    carried.fetch()
    assert not caplog.records and carried.archive.stat().st_mtime_ns == before.st_mtime_ns
    assert cache_folder() in carried.archive.parents
