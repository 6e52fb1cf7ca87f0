"""Which file a device runs: one for each, declared by the formats, with a name of its own."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hwnas.core.errors import UserError
from hwnas.devices.runtimes import runtime_names
from hwnas.devices.spec import device_names, load_device
from hwnas.exporters import REGISTRY, ncnn, openvino
from hwnas.exporters.artifact import PlannedFormat, artifact_of, planned_formats
from hwnas.exporters.base import PROMISES
from hwnas.exporters.formats import exporter
from hwnas.exporters.labels import Labelled
from hwnas.exporters.onnx_files import find_onnx
from hwnas.interfaces import DeviceSpec
from hwnas.nets.subnet import build_subnet
from hwnas.pipeline.config import ExperimentConfig, load_config, read_config_data, with_formats
from hwnas.spaces.space import SearchSpace
from tests.bundles import kit_module

MINI = Path(__file__).parent.parent / "integration" / "mini.yaml"
PRECISIONS = ("fp32", "fp16", "int8")


def config_of(export: list[Any]) -> ExperimentConfig:
    data, where = read_config_data(str(MINI))
    return load_config(data, {"export": export}, where=where)


def plan(export: list[Any], *devices: DeviceSpec) -> tuple[PlannedFormat, ...]:
    return planned_formats(config_of(export).export, devices)


def paths(formats: tuple[PlannedFormat, ...]) -> list[str]:
    return [one.path for one in formats if one.name != "timm"]


def device(runtime: str = "onnxruntime", precision: str = "fp32", **fields: Any) -> DeviceSpec:
    providers = {"onnxruntime": "CPUExecutionProvider", "openvino": "CPU", "torch": "cpu"}
    known = {"provider": providers.get(runtime, "cuda:0"), "precision": precision}
    return DeviceSpec("board", runtime, **{**known, **fields})


FILES = {
    ("onnxruntime", "fp32", "local"): "model.onnx",
    ("onnxruntime", "fp16", "local"): "model.fp16.onnx",
    ("onnxruntime", "int8", "local"): "model.int8.onnx",
    ("onnxruntime", "int8", "ssh"): "model.int8.onnx",
    ("torch", "fp32", "local"): "model.onnx",
    ("torch", "fp16", "local"): "model.fp16.onnx",
    ("openvino", "fp32", "local"): "openvino/model.xml",
    ("openvino", "fp16", "local"): "openvino/model.fp16.xml",
    ("openvino", "int8", "ssh"): "openvino/model.int8.xml",
    ("tensorrt", "fp32", "local"): "engines/model.fp32.tensorrt.engine",
    ("tensorrt", "fp16", "local"): "engines/model.fp16.tensorrt.engine",
    ("tensorrt", "int8", "local"): "engines/model.int8.tensorrt.engine",
    ("tensorrt", "fp16", "ssh"): "model.fp16.onnx",  # the engine is built on the board
    ("tensorrt_rtx", "int8", "local"): "engines/model.int8.tensorrt_rtx.engine",
}


@pytest.mark.parametrize("key", FILES, ids="-".join)
def test_a_device_gets_the_file_of_its_runtime_and_precision(key: tuple[str, str, str]) -> None:
    runtime, precision, transport = key
    spec = device(runtime, precision, transport=transport)
    formats = plan(["onnx", "timm"], spec)
    chosen = artifact_of(formats, spec)
    assert chosen.path == FILES[key]
    assert chosen.devices == {"board"} and chosen.configured == (chosen.name == "onnx")


@pytest.mark.parametrize("transport", ["local", "ssh", "offline"])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("runtime", runtime_names())
def test_one_format_or_none_is_declared_for_a_device(
    runtime: str, precision: str, transport: str
) -> None:
    """Two formats would be two answers; what none is for is refused with what there is."""
    spec = device(runtime, precision, transport=transport)
    declared = [
        name
        for name in REGISTRY.names
        if any(row.fits(spec) for row in getattr(REGISTRY.declaration(name), "RUNS_ON", ()))
    ]
    assert len(declared) <= 1
    if declared:
        found = artifact_of(plan(["onnx"], spec), spec)
        assert found.name == declared[0]
        assert getattr(found.config, "precision", precision) == precision
    else:
        with pytest.raises(UserError, match=f"runtime {runtime}.*{precision}") as caught:
            plan(["onnx"], spec)
        assert "'board'" in str(caught.value) and caught.value.fix


def test_every_shipped_device_has_a_file() -> None:
    for name in device_names():
        spec = load_device(name)
        assert artifact_of(plan(["onnx"], spec), spec).devices == {name}


def test_configured_settings_are_the_devices() -> None:
    spec = device(precision="int8")
    (_, chosen) = plan(["onnx", {"name": "int8", "n_calibration": 64}], spec)
    assert artifact_of([chosen], spec) is chosen
    assert chosen.path == "model.int8.onnx" and chosen.config.n_calibration == 64  # type: ignore[attr-defined]


def test_a_fixed_batch_serves_that_batch_alone() -> None:
    static = {"name": "onnx", "dynamic_batch": False}
    assert paths(plan([static], device())) == ["model.onnx"]
    formats = plan([static], device(batch=4))
    assert artifact_of(formats, device(batch=4)).path == "model.onnx"
    assert artifact_of(formats, device()).path in ("model.onnx", "model.batch1.onnx")
    core_ml = device(provider="CoreMLExecutionProvider")
    assert artifact_of(plan(["onnx"], core_ml), core_ml).path == "model.batch1.onnx"
    with pytest.raises(UserError, match="batch 4"):
        plan(["onnx"], device(provider="CoreMLExecutionProvider", batch=4))


def test_tensorrt_takes_symmetric_int8_and_cpus_the_other() -> None:
    cpu = DeviceSpec("cpu", precision="int8")
    board = DeviceSpec("board", "tensorrt", "cuda:0", "ssh", "int8")
    here = DeviceSpec("gpu", "tensorrt", "cuda:0", precision="int8")
    provider = DeviceSpec("ep", provider="TensorrtExecutionProvider", precision="int8")
    formats = plan(["onnx"], cpu, board, here, provider)
    symmetric = "model.int8.symmetric.onnx"
    assert paths(formats) == [
        "model.onnx", "model.int8.onnx", symmetric, "engines/model.int8.tensorrt.engine"
    ]  # fmt: skip
    chosen = {spec.name: artifact_of(formats, spec).path for spec in (cpu, board, here, provider)}
    assert chosen == {
        "cpu": "model.int8.onnx",
        "board": symmetric,
        "ep": symmetric,
        "gpu": "engines/model.int8.tensorrt.engine",
    }
    (source,) = [one for one in formats if one.path == symmetric]
    assert source.devices == {"board", "gpu", "ep"} and not source.belongs_to("cpu")


# --- names ----------------------------------------------------------------------------------------

NAMES: list[tuple[list[Any], list[str]]] = [
    (["onnx", "int8"], ["model.onnx", "model.int8.onnx"]),
    (["onnx", {"name": "int8", "symmetric": True}], ["model.onnx", "model.int8.onnx"]),
    (
        ["onnx", {"name": "int8", "symmetric": True}, "int8"],
        ["model.onnx", "model.int8.symmetric.onnx", "model.int8.onnx"],
    ),
    (["onnx", {"name": "onnx", "dynamic_batch": False}], ["model.onnx", "model.batch1.onnx"]),
    (
        ["onnx", {"name": "onnx", "opset": 20}, {"name": "onnx", "opset": 21}],
        ["model.onnx", "model.opset20.onnx", "model.opset21.onnx"],
    ),
    (
        ["onnx", {"name": "int8", "seed": 1}, {"name": "int8", "seed": 2, "method": "entropy"}],
        ["model.onnx", "model.int8.onnx", "model.int8.seed2.entropy.onnx"],
    ),
    (["onnx", "onnx:fp16"], ["model.onnx", "model.fp16.onnx"]),
]


@pytest.mark.parametrize(("export", "expected"), NAMES)
def test_variants_of_a_format_have_names_of_their_own(
    export: list[Any], expected: list[str]
) -> None:
    assert paths(plan(export)) == expected


@pytest.mark.parametrize(
    ("export", "words"),
    [
        (["onnx", "onnx"], ["lists onnx twice", "positions 0 and 1", "model.onnx"]),
        (
            ["onnx", "int8", "onnx:int8"],
            ["lists int8 twice", "positions 1 and 2", "model.int8.onnx"],
        ),
        (["onnx", "timm", "timm"], ["lists timm twice"]),
        (["int8"], ["expected a list with onnx", "found a list of int8"]),
        (["onnx", "onnx:int4"], ["unknown exporter 'onnx:int4'"]),
        (["onnx", "ort:int8"], ["precision", "unknown key"]),
    ],
)
def test_what_would_be_one_file_is_refused_with_the_configuration(
    export: list[Any], words: list[str]
) -> None:
    with pytest.raises(UserError) as caught:
        config_of(export)
    assert all(word in str(caught.value) for word in words), caught.value


def test_formats_of_the_command_line_may_name_a_precision() -> None:
    symmetric = {"name": "int8", "symmetric": True}
    configured = config_of(["onnx", symmetric]).export
    found = with_formats(["onnx", "onnx:fp16", "onnx:int8"], configured)
    assert [section["name"] for section in found] == ["onnx", "fp16", "int8"]
    assert found[2]["symmetric"] is True  # settings that are configured stay
    assert with_formats(["int8", "onnx:int8"], ()) == [{"name": "onnx"}, {"name": "int8"}]
    engines = [{"name": "openvino", "precision": "fp16"}]
    assert with_formats(["openvino:fp16"], ())[1:] == engines
    both = with_formats(["int8"], config_of(["onnx", "int8", symmetric]).export)
    assert [section.get("symmetric") for section in both] == [None, False, True]
    assert exporter("onnx:int8").describe([]).format == "int8"


# --- files ----------------------------------------------------------------------------------------


def test_variants_lie_side_by_side_and_are_found_by_what_they_hold(
    tiny_space: SearchSpace, tmp_path: Path
) -> None:
    net = build_subnet(tiny_space, tiny_space.smallest()).eval()
    images = np.random.default_rng(0).standard_normal((24, 3, 16, 16)).astype(np.float32)
    formats = plan(
        [
            "onnx",
            "int8",
            {"name": "int8", "symmetric": True},
            {"name": "onnx", "dynamic_batch": False},
        ]
    )
    for one in formats:
        built = one.exporter()
        files = built.export(net, input_shape=(3, 16, 16), folder=tmp_path, images=images)
        described = built.describe(files)
        assert [described.path] == [file.name for file in files] == [one.path]
        assert isinstance(built, Labelled) == bool(one.label)
        assert built.open_model(files[0]).logits(images[:2]).shape == (2, 10)
    assert find_onnx(tmp_path, "int8") == tmp_path / "model.int8.onnx"
    assert find_onnx(tmp_path, "int8", symmetric=True) == tmp_path / "model.int8.symmetric.onnx"
    assert find_onnx(tmp_path, "onnx", largest_batch=4) == tmp_path / "model.onnx"
    assert find_onnx(tmp_path, "fp16") is None
    precision_of = kit_module("bundle_precision").precision_of
    held = {path.name: precision_of(path) for path in tmp_path.glob("*.onnx")}
    assert held == {
        "model.onnx": "fp32",
        "model.batch1.onnx": "fp32",
        "model.int8.onnx": "int8",
        "model.int8.symmetric.onnx": "int8",
    }


@pytest.mark.parametrize("n", [0, 1, 7, 40, 400])
def test_a_damaged_file_has_no_precision(n: int, tmp_path: Path) -> None:
    from tests.bundles import colour_net

    whole = colour_net("int8").SerializeToString()
    precision_of = kit_module("bundle_precision").precision_of
    (tmp_path / "model.onnx").write_bytes(whole)
    assert precision_of(tmp_path / "model.onnx") == "int8"
    (tmp_path / "model.onnx").write_bytes(whole[: min(n, len(whole) - 1)])
    assert precision_of(tmp_path / "model.onnx") == "unreadable"
    (tmp_path / "model.xml").write_bytes(b"<net" + whole[:n])
    assert precision_of(tmp_path / "model.xml") == "unreadable"
    assert precision_of(tmp_path / "model.engine") == "unreadable"
    assert precision_of(tmp_path / "model.pt2") is None


def test_a_format_of_another_package_needs_no_name_for_its_file() -> None:
    from hwnas.exporters.artifact import duplicates
    from hwnas.exporters.base import BatchConfig

    whole, one = BatchConfig(name="theirs"), BatchConfig(name="theirs", dynamic_batch=False)
    assert not duplicates([whole, one]) and duplicates([whole, one, one])
    formats = planned_formats([config_of(["onnx"]).export[0], whole, one], [device()])
    assert [(p.name, p.label) for p in formats] == [
        ("onnx", ""), ("theirs", ""), ("theirs", "batch1")
    ]  # fmt: skip


def test_pairs_are_declared_once(tmp_path: Path) -> None:
    """Rows of one format that fit the same device: the first counts, and no row is dead."""
    for name in REGISTRY.names:
        rows = getattr(REGISTRY.declaration(name), "RUNS_ON", ())
        keys = [(r.runtime, r.precision, r.providers, r.transport) for r in rows]
        assert len(keys) == len(set(keys)), name
        for earlier, later in itertools.combinations(rows, 2):
            same = (earlier.runtime, earlier.precision) == (later.runtime, later.precision)
            assert not (same and not earlier.providers and earlier.transport == "any"), name


def test_the_file_of_a_precision_is_not_that_of_the_plain_format(tmp_path: Path) -> None:
    """model.int8.onnx is no variant of model.onnx; model.b4.onnx is one."""
    (tmp_path / "model.int8.onnx").write_bytes(b"")
    assert find_onnx(tmp_path, "onnx") is None
    (tmp_path / "model.b4.onnx").write_bytes(b"")
    found = find_onnx(tmp_path, "onnx")
    assert found is not None and found.name == "model.b4.onnx"


@pytest.mark.parametrize(
    ("precision", "path"),
    [("fp32", "model.xml"), ("fp16", "model.fp16.xml"), ("int8", "model.int8.xml")],
)
def test_openvino_promises_what_its_precision_can_keep(precision: Any, path: str) -> None:
    """As much as ONNX in the same precision."""
    found = openvino.build(openvino.Config(precision=precision)).describe([Path(path)])
    assert (found.path, found.format, found.precision) == (
        f"openvino/{path}",
        "openvino",
        precision,
    )
    assert (found.parity_tolerance, found.min_agreement) == PROMISES[precision][:2]


@pytest.mark.parametrize("broken", [None, "load_param", "load_model"])
def test_ncnn_loads_graph_and_weights(
    broken: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Net:
        opt = SimpleNamespace()

        def load_param(self, path: str) -> int:
            assert path == str(tmp_path / "model.ncnn.param")
            return int(broken == "load_param")

        def load_model(self, path: str) -> int:
            assert path == str(tmp_path / "model.ncnn.bin")
            return int(broken == "load_model")

    imitation = SimpleNamespace(Net=Net, __version__="1.0")
    monkeypatch.setattr(ncnn, "require", lambda name, extra: imitation)
    exporter = ncnn.build(ncnn.Config())
    if broken:
        with pytest.raises(UserError, match="ncnn rejects the files"):
            exporter.open_model(tmp_path / "model.ncnn.param", threads=3)
        return
    opened = exporter.open_model(tmp_path / "model.ncnn.param", threads=3)
    assert opened.runtime == "ncnn 1.0" and Net.opt.num_threads == 3
    assert not Net.opt.use_vulkan_compute and not Net.opt.use_fp16_arithmetic
