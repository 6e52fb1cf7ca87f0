"""Models for the runtimes of older boards: the IR version of every ONNX file, and old wheels.

The versions are those of the ONNX standard (docs/Versioning.md there): what each operator set came
with. Wheels of 2023 and 2024 then show that such files run.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest

from hwnas.builders.onnx import context, micro, network
from hwnas.core.rng import rng
from hwnas.exporters import float_graph, formats, ort
from hwnas.exporters.base import LEAST_ONNXRUNTIME
from hwnas.exporters.manifest import LatencyFact
from hwnas.exporters.opened import onnxruntime_model
from hwnas.interfaces import DeviceSpec
from hwnas.latency.plan import write_plan
from hwnas.latency.sections import ProfileConfig
from hwnas.measure.networks import serialized
from hwnas.nets.subnet import build_subnet
from hwnas.spaces.lowering import lower
from hwnas.spaces.ops import OpSpec
from hwnas.spaces.space import SearchSpace
from tests.bundles import colour_bundle, colour_manifest, run_kit

LEAST_IR = {18: 8, 19: 9, 20: 9, 21: 10, 22: 10, 23: 11}
SHAPE = (3, 16, 16)
IMAGES = rng(0, "images").standard_normal((24, *SHAPE)).astype(np.float32)
FORMATS = (
    ("onnx", {}),
    ("fp16", {}),
    ("int8", {"n_calibration": 8}),
    ("int8", {"n_calibration": 8, "symmetric": True}),
)
IDS = ("onnx", "fp16", "int8", "symmetric")


@pytest.fixture
def stub_of_torch(tiny_space: SearchSpace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Instead of torch's exporter, which takes seconds: a graph with the newest IR version."""

    def translated(
        model: object, shape: object, opset: int, dynamic_batch: bool, outputs: object
    ) -> onnx.ModelProto:
        net = lower(tiny_space, tiny_space.smallest())
        proto = network(net, batch=None if dynamic_batch else 1)
        proto.opset_import[0].version = opset
        proto.ir_version = onnx.IR_VERSION
        return proto

    monkeypatch.setattr(float_graph, "_translated", translated)


def files(space: SearchSpace, folder: Path, name: str, **settings: object) -> Path:
    model = build_subnet(space, space.smallest()).eval()
    exporter = formats.exporter(name, **settings)
    path, *_ = exporter.export(model, input_shape=SHAPE, folder=folder, images=IMAGES)
    return path


@pytest.mark.parametrize(("name", "settings"), FORMATS, ids=IDS)
@pytest.mark.parametrize("opset", LEAST_IR)
def test_exported_files_have_the_least_ir_version_of_their_opset(
    name: str,
    settings: dict[str, object],
    opset: int,
    tiny_space: SearchSpace,
    stub_of_torch: None,
    tmp_path: Path,
) -> None:
    assert max(LEAST_IR.values()) < onnx.IR_VERSION, "else the stub shows nothing"
    path = files(tiny_space, tmp_path, name, opset=opset, dynamic_batch=opset != 19, **settings)
    model = onnx.load(path)
    assert model.ir_version == LEAST_IR[opset]
    assert [o.version for o in model.opset_import if o.domain == ""] == [opset]
    again = files(tiny_space, tmp_path, name, opset=opset, dynamic_batch=opset != 19, **settings)
    assert onnx.load(again).ir_version == LEAST_IR[opset], "from the graph in the folder"


def test_a_stored_graph_of_an_earlier_version_is_not_a_way_around_it(
    tiny_space: SearchSpace, stub_of_torch: None, tmp_path: Path
) -> None:
    path = files(tiny_space, tmp_path, "onnx")
    model = onnx.load(path)
    model.ir_version = onnx.IR_VERSION
    onnx.save(model, path)
    assert onnx.load(files(tiny_space, tmp_path, "int8", n_calibration=8)).ir_version == 8


def test_the_graph_that_torch_exports_has_it_too(tiny_space: SearchSpace, tmp_path: Path) -> None:
    assert onnx.load(files(tiny_space, tmp_path, "onnx")).ir_version == 8


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("runtime", ["onnxruntime", "tensorrt"])
def test_models_that_are_timed_have_it_too(
    precision: str, runtime: str, tiny_space: SearchSpace
) -> None:
    device = DeviceSpec("board", runtime, precision=precision)  # type: ignore[arg-type]
    op = OpSpec("mbconv", 8, 8, 16, 16, kernel=3, mid_channels=24)
    net = lower(tiny_space, tiny_space.smallest())
    for model in (micro(op), context(8, 16), network(net), network(net, batch=4)):
        assert onnx.load_from_string(serialized(model, device)).ir_version == 8


@pytest.mark.parametrize(("name", "settings"), FORMATS, ids=IDS)
def test_the_manifest_names_the_least_runtime(name: str, settings: dict[str, object]) -> None:
    for opset in LEAST_IR:
        exporter = formats.exporter(name, opset=opset, **settings)
        assert exporter.describe([]).least_runtime == LEAST_ONNXRUNTIME[opset]
    assert formats.exporter("ort").describe([]).least_runtime == ort.LEAST_ONNXRUNTIME


def test_the_kit_names_the_runtime_that_a_model_needs(tmp_path: Path) -> None:
    made = colour_manifest()
    model = dataclasses.replace(made.models[0], least_runtime="999.1")
    (tmp_path / "broken.onnx").write_bytes(b"of a newer version")
    colour_bundle(
        tmp_path / "winner",
        dataclasses.replace(made, models=(model,)),
        models={model.path: tmp_path / "broken.onnx"},
    )
    done = run_kit(tmp_path / "winner", "ort_run.py", "--check", "--no-latency")
    assert done.returncode == 3
    assert (
        "fix: it needs onnxruntime 999.1: python -m pip install 'onnxruntime>=999.1'" in done.stdout
    )


# --- old wheels -----------------------------------------------------------------------------------

OLD_WHEELS = ("1.16.3", "1.17.3")  # of JetPack 5 and 6, and of distributions


@pytest.fixture(scope="module", params=OLD_WHEELS)
def old_python(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A python that has an old ONNX Runtime; where none can be made the test skips and says so."""
    version = request.param
    interpreters = [shutil.which(f"python3.{minor}") for minor in (11, 10, 9, 8)]
    usable = [
        path
        for path in filter(None, interpreters)
        if subprocess.run([path, "-c", "import venv"], capture_output=True).returncode == 0
    ]
    if not usable:
        pytest.skip(f"onnxruntime {version} has no wheel for a python newer than 3.11: none older")
    folder = tmp_path_factory.mktemp(f"onnxruntime-{version}")
    python = folder / "bin" / "python"
    subprocess.run([usable[0], "-m", "venv", str(folder)], check=True)
    install = [str(python), "-m", "pip", "install", "--quiet"]
    done = subprocess.run(
        [*install, f"onnxruntime=={version}", "numpy<2"], capture_output=True, text=True
    )
    if done.returncode != 0:
        pytest.skip(f"no onnxruntime {version} from the index: {done.stderr.strip()[-200:]}")
    return python


def run_here(python: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [str(part) for part in (python, *arguments)]
    return subprocess.run(command, capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"})


@pytest.mark.full
@pytest.mark.parametrize("batch", [None, 1], ids=["any batch", "batch 1"])
def test_a_bundle_holds_its_promises_on_an_old_runtime(
    batch: int | None, old_python: Path, tiny_space: SearchSpace, tmp_path: Path
) -> None:
    """fp32, fp16, int8 in both forms and .ort, as exported from torch, by the bundle's own kit."""
    model = build_subnet(tiny_space, tiny_space.smallest()).eval()
    described = []
    sources = {}
    for name, settings in (*FORMATS, ("ort", {})):
        exporter = formats.exporter(name, dynamic_batch=batch is None, **settings)
        folder = tmp_path / f"{len(sources)}"
        path, *_ = exporter.export(model, input_shape=SHAPE, folder=folder, images=IMAGES)
        entry = exporter.describe([path])
        entry = dataclasses.replace(entry, path=f"{len(sources)}/{entry.path}")
        described.append(entry)
        sources[entry.path] = path
        assert entry.least_runtime is not None and entry.least_runtime <= "1.16"
    made = colour_manifest(models=tuple(described), latency=(), accuracy=(), constraints=())
    spec = dataclasses.replace(
        made.input, shape=SHAPE, resize_px=(16,), class_names=tuple(map(str, range(10)))
    )
    logits = onnxruntime_model(next(iter(sources.values()))).logits(IMAGES)
    facts = [LatencyFact(DeviceSpec("board"), m.path, "cpu", measured_ms=1.0) for m in described]
    colour_bundle(
        tmp_path / "winner",
        dataclasses.replace(made, input=spec, latency=tuple(facts)),
        models=sources,
        golden_input=IMAGES,
        golden_output=logits,
        samples=(),
    )
    out = tmp_path / "found.json"
    done = run_here(
        old_python,
        tmp_path / "winner" / "ort_run.py",
        "--check",
        tmp_path / "winner",
        "--json",
        out,
    )
    found = [f for f in json.loads(out.read_text()) if f["check"] != "latency"]
    assert len(found) == len(sources) and all(f["check"] == "golden outputs" for f in found)
    assert all(f["passed"] for f in found), done.stdout + done.stderr
    timed = [f for f in json.loads(out.read_text()) if f["check"] == "latency"]
    assert len(timed) == len(sources) and all("ms here" in f["detail"] for f in timed)


@pytest.mark.full
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_board_with_an_old_runtime_can_be_profiled(
    precision: str, old_python: Path, tiny_space: SearchSpace, tmp_path: Path
) -> None:
    device = DeviceSpec("board", precision=precision)  # type: ignore[arg-type]
    op = OpSpec("mbconv", 8, 8, 16, 16, kernel=3, mid_channels=24)
    net = network(lower(tiny_space, tiny_space.smallest()))
    models = {"op": micro(op), "context": context(8, 16), "net": net}
    written = {name: serialized(model, device) for name, model in models.items()}
    config = ProfileConfig(rounds=2, min_rounds=2, time_budget_s=20)
    plan = write_plan(written, device, tmp_path, config, seed=0)
    bench = Path(__file__).resolve().parents[2] / "export" / "bench.py"
    done = run_here(old_python, bench, plan.path, "--out", plan.results)
    assert done.returncode == 0, done.stderr
    header, *lines = [json.loads(line) for line in plan.results.read_text().splitlines()]
    assert header["runtime_version"] in OLD_WHEELS
    assert {turn[1] for line in lines for turn in line.get("turns", ())} >= {0, 1, 2}
