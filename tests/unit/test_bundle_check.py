"""`hwnas verify BUNDLE`: sound bundles pass, and whatever falls short is named."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from hwnas import __version__
from hwnas.cli.main import app
from hwnas.core.env import host_facts
from hwnas.core.errors import CheckFailed, NotJudged, UserError
from hwnas.core.progress import silent
from hwnas.exporters import apart, formats
from hwnas.exporters.apart import Runner
from hwnas.exporters.base import ModelFile
from hwnas.exporters.bundle import read_manifest, write_bundle
from hwnas.exporters.manifest import AccuracyFact, ConstraintFact, InputSpec, LatencyFact, Manifest
from hwnas.exporters.opened import CannotRunHere
from hwnas.exporters.parity import torch_logits
from hwnas.interfaces import DataModule, DatasetContext, DeviceSpec
from hwnas.latency.sections import ProfileConfig
from hwnas.measure import bundle_check
from hwnas.measure import bundle_latency as retiming
from hwnas.measure.bundle_check import drops, verify_bundle
from hwnas.measure.limits import CheckSettings, VerifyConfig
from hwnas.measure.profile import Timings
from hwnas.nets.subnet import build_subnet
from hwnas.pipeline.config import ExperimentConfig, load_config, read_config_data, with_formats
from hwnas.spaces.mobilenet_tiny import Config, build
from hwnas.training.datasets import digits
from hwnas.training.images import resize
from tests.broken_formats import installed

PX = 16
FORMATS = ("onnx", "timm", "fp16", "int8")
MINI = Path(__file__).parent.parent / "integration" / "mini.yaml"


@pytest.fixture(scope="module")
def data() -> DataModule:
    return digits.build(digits.Config(base_px=PX), DatasetContext(0))


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
        exporter = formats.exporter(name)
        files = exporter.export(
            model, input_shape=(info.in_channels, PX, PX), folder=folder, images=calibration
        )
        entry = exporter.describe(files)
        described.append(entry)
        models[entry.path] = files[0]
        for path in files[1:]:
            companions[str(Path(entry.path).with_name(path.name))] = path
        top1 = float((exporter.open_model(files[0]).logits(test).argmax(1) == labels).mean())
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
    return verify_bundle(folder, data=data, settings=None, progress=silent)


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


def test_the_reference_runs_on_few_images_at_small_batches(
    parts: dict[str, Any], data: DataModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is compared with itself, and torch is slow at batch 1."""
    write_bundle(tmp_path / "b", **parts)
    compare = bundle_check.compare_batches
    seen: dict[str, list[int]] = {}

    def compared(*arguments: Any, **options: Any) -> Any:
        report = compare(*arguments, **options)
        seen[options["file"]] = [batch.n_images for batch in report.batches]
        return report

    monkeypatch.setattr(bundle_check, "compare_batches", compared)
    assert not verify(tmp_path / "b", data).failed
    n = bundle_check.N_OF_REFERENCE
    reference = seen.pop("timm/weights.safetensors")
    assert reference[:2] == [n, n] and reference[2] > 300
    assert len(seen) == 3 and all(min(of) > 300 for of in seen.values())


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


def test_a_runtime_that_crashes_fails_only_its_own_file(
    parts: dict[str, Any], data: DataModule, tmp_path: Path
) -> None:
    """It may crash when it opens a file, or later, when it runs one."""
    site, file, names = tmp_path / "site", tmp_path / "x", ("crashing", "sudden")
    site.mkdir()
    file.write_bytes(b"x")
    models = (*(ModelFile(name, name, "fp32") for name in names), *parts["manifest"].models)
    changed = parts | {
        "manifest": dataclasses.replace(parts["manifest"], models=models),
        "models": parts["models"] | dict.fromkeys(names, file),
    }
    with installed(site):
        write_bundle(tmp_path / "b", **changed)
        report = verify(tmp_path / "b", data)
    assert [row["passed"] for row in report.models] == [False] * 2 + [True] * len(FORMATS)
    for name, problem in zip(names, report.failed, strict=True):
        assert problem.startswith(f"{name}: the runtime of the format {name} crashed (SIGABRT")


def test_another_data_set_and_an_altered_file_are_refused(
    parts: dict[str, Any], tmp_path: Path
) -> None:
    write_bundle(tmp_path / "b", **parts)
    with pytest.raises(UserError, match=r"(?s)another data set.*resize_px \(16,\).*\(20, 16\)"):
        verify(tmp_path / "b", digits.build(digits.Config(base_px=20), DatasetContext(0)))
    (tmp_path / "b" / "model.onnx").write_bytes(b"other")
    with pytest.raises(UserError, match="altered"):
        verify(tmp_path / "b", None)


RENAMED = {
    "one": (("zero", *map(str, range(1, 10))), r"class '0' is now 'zero' \(data set digits\)"),
    "many": ([f"d{i}" for i in range(10)], r"class '4' is now 'd4'; 5 more changes of classes"),
    "order": (list("9876543210"), "the order of the classes changed"),
    "shifted": (list("123456789x"), "class 'x' is new; class '0' is gone"),
}


@pytest.mark.parametrize("case", RENAMED)
def test_other_names_of_classes_are_named(
    case: str, parts: dict[str, Any], data: DataModule, tmp_path: Path
) -> None:
    names, message = RENAMED[case]
    write_bundle(tmp_path / "b", **parts)
    info = dataclasses.replace(data.info, class_names=tuple(names))
    other: Any = SimpleNamespace(info=info, eval_batches=data.eval_batches)
    with pytest.raises(UserError, match=f"(?s)another data set.*found.*{message}") as refused:
        verify(tmp_path / "b", other)
    assert refused.value.fix is not None and "restore the names" in refused.value.fix


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
    row = printed["table"][0]
    assert f"{row['test top1']:.2%} \u00b1 " in accepted.stdout and row["n test"] == 359
    assert not (folder / "config.yaml").exists()
    read_manifest(folder)


def test_onnx_cannot_be_left_out() -> None:
    data, where = read_config_data(str(MINI))
    with pytest.raises(UserError, match=r"expected a list with onnx.*, found a list of timm\n"):
        load_config(data, {"export": [{"name": "timm"}]}, where=where)
    config: ExperimentConfig = load_config(data, where=where)
    assert [section.name for section in config.export] == ["onnx", "timm"]


def timings_of(**median_ms: float) -> Timings:
    quick = {name: SimpleNamespace(median_ms=ms, p95_ms=1.5 * ms) for name, ms in median_ms.items()}
    return Timings(quick, {}, repeat_mape=0.01, pace=None, facts={})  # type: ignore[arg-type]


def check_timed(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch, **median_ms: float
) -> retiming.LatencyReport:
    """The report on models that take so long on this host."""
    data, where = read_config_data(str(MINI))
    config = load_config(data, {"verify": {"max_forecast_error": 0.05}}, where=where)
    settings = CheckSettings(config.profile, config.verify, config.seed)
    monkeypatch.setattr(retiming, "time_models", lambda *_, **__: timings_of(**median_ms))
    return retiming.check_latency(Path("bundle"), manifest, settings, silent)


def test_latency_is_held_to_the_estimate_and_to_the_limit(
    parts: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = host_facts()["cpu"]
    device = DeviceSpec("local")
    manifest = dataclasses.replace(
        parts["manifest"],
        latency=(
            LatencyFact(device, "model.onnx", here, 1.0, (0.95, 1.05), 1.0),
            LatencyFact(device, "model.int8.onnx", here, measured_ms=0.8),
            LatencyFact(device, "model.fp16.onnx", "another machine", measured_ms=2.0),
        ),
        constraints=(
            ConstraintFact("latency_ms", "local", 1.1, True),
            ConstraintFact("latency_p95_ms", "local", 1.7, True),
            ConstraintFact("macs", "local", 1.0, True),
        ),
    )

    def check(onnx_ms: float, int8_ms: float) -> retiming.LatencyReport:
        known = {"model.onnx": onnx_ms, "model.int8.onnx": int8_ms}
        return check_timed(manifest, monkeypatch, **known)

    report = check(1.04, 0.8)
    assert not report.failed and [row["holds"] for row in report.rows] == [True, True, None]
    assert len(report.notes) == 1 and "another machine" in report.notes[0]
    assert [row["limit_ms"] for row in report.rows] == [1.1, None, None]
    # each model is judged at the pace of the other one
    report = check(1.1, 0.8)
    assert [row["holds"] for row in report.rows] == [False, True, None]
    assert [row["pace"] for row in report.rows] == [1.0, 1.1, None]
    (failed,) = report.failed
    assert "promise of at most 1.0500 ms" in failed and "limit" not in failed
    (failed,) = check(1.0, 0.9).failed
    assert failed.startswith("model.int8.onnx") and "promise of at most 0.8400 ms" in failed
    (failed,) = check(1.18, 0.8).failed
    assert "latency 1.1800 ms exceeds the limit of 1.1000 ms" in failed and "p95" not in failed
    assert "p95 latency 1.8000 ms exceeds the limit of 1.7000 ms" in check(1.2, 0.8).failed[0]


def test_a_bundle_is_judged_at_the_pace_of_its_own_models(
    parts: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, device = host_facts()["cpu"], DeviceSpec("local")
    names = ("model.onnx", "model.fp16.onnx", "model.int8.onnx")
    facts = tuple(LatencyFact(device, name, here, measured_ms=1.0) for name in names)
    manifest = dataclasses.replace(parts["manifest"], latency=facts, constraints=())

    def check(*ms: float) -> retiming.LatencyReport:
        return check_timed(manifest, monkeypatch, **dict(zip(names, ms, strict=True)))

    slower = check(1.2, 1.2, 1.2)  # a machine 20 % slower than it was: divided out
    assert [row["holds"] for row in slower.rows] == [True] * 3 and not slower.not_judged
    assert [row["here_ms"] for row in slower.rows] == pytest.approx([1.2] * 3)
    assert [row["at_pace_1_ms"] for row in slower.rows] == pytest.approx([1.0] * 3)
    jumped = check(1.65, 1.65, 1.65)  # too far from it: neither passed nor failed
    assert [row["holds"] for row in jumped.rows] == [None] * 3 and not jumped.failed
    assert len(jumped.not_judged) == 3 and "1.65 times as long" in jumped.not_judged[0]
    one = check(1.65, 1.0, 1.0)  # one model does not excuse itself, nor is it excused
    assert one.rows[0]["holds"] is False and len(one.failed) == 1
    alone = dataclasses.replace(manifest, latency=facts[:1])
    report = check_timed(alone, monkeypatch, **{"model.onnx": 1.65})
    assert report.failed and "the machine's pace is unknown" in report.notes[0]


def test_what_cannot_be_judged_exits_4_and_report_only_accepts_it(
    parts: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    here, device = host_facts()["cpu"], DeviceSpec("local")
    names = ("model.onnx", "model.fp16.onnx")
    facts = tuple(LatencyFact(device, name, here, measured_ms=1.0) for name in names)
    folder = tmp_path / "b"
    manifest = dataclasses.replace(parts["manifest"], latency=facts)
    write_bundle(folder, **(parts | {"manifest": manifest}))
    config = ["--config", str(MINI), "--set", f"data.base_px={PX}"]
    slow = dict.fromkeys(names, 1.65)
    monkeypatch.setattr(retiming, "time_models", lambda *_, **__: timings_of(**slow))
    run = CliRunner().invoke(app, ["verify", str(folder), *config, "--format", "json"])
    assert isinstance(run.exception, NotJudged) and run.exception.exit_code == 4
    printed = json.loads(run.stdout)
    assert len(printed["not_judged"]) == 2 and not printed["failed"]
    accepted = CliRunner().invoke(app, ["verify", str(folder), *config, "--report-only"])
    assert accepted.exit_code == 0
    slow["model.onnx"] = 3.0  # what fails outweighs what cannot be judged
    slow["model.fp16.onnx"] = 1.0
    run = CliRunner().invoke(app, ["verify", str(folder), *config])
    assert isinstance(run.exception, CheckFailed) and run.exception.exit_code == 3


def test_limits_are_judged_outside_of_a_run_folder(
    parts: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    here, folder = host_facts()["cpu"], tmp_path / "b"
    fact = LatencyFact(DeviceSpec("local"), "model.onnx", here, 1.0, (0.95, 1.05), 1.0)
    limit = ConstraintFact("latency_ms", "local", 0.001, True)
    manifest = dataclasses.replace(parts["manifest"], latency=(fact,), constraints=(limit,))
    write_bundle(folder, **(parts | {"manifest": manifest}))
    timings = timings_of(**{"model.onnx": 1.0})
    monkeypatch.setattr(retiming, "time_models", lambda *_, **__: timings)
    for options in ([], ["--latency"]):
        run = CliRunner().invoke(app, ["verify", str(folder), *options])
        assert isinstance(run.exception, CheckFailed) and run.exception.exit_code == 3
        assert "exceeds the limit of 0.0010 ms" in str(run.exception)
        assert "estimate_ms" in run.stdout and "forecast" not in run.stdout
    assert CliRunner().invoke(app, ["verify", str(folder), "--no-latency"]).exit_code == 0


@pytest.mark.parametrize("config", [[], ["--config", str(MINI), "--set", f"data.base_px={PX}"]])
def test_latency_that_cannot_be_timed_is_noted_or_an_error(
    config: list[str], parts: dict[str, Any], tmp_path: Path
) -> None:
    folder = tmp_path / "b"
    fact = LatencyFact(DeviceSpec("local"), "model.onnx", "another machine", measured_ms=1.0)
    manifest = dataclasses.replace(parts["manifest"], latency=(fact,))
    write_bundle(folder, **(parts | {"manifest": manifest}))
    run = CliRunner().invoke(app, ["verify", str(folder), *config, "--format", "json"])
    assert run.exit_code == 0
    notes = json.loads(run.stdout)["notes"]
    assert any("neither latency nor limits" in n and "device_run.py --check ." in n for n in notes)
    run = CliRunner().invoke(app, ["verify", str(folder), *config, "--latency"])
    assert isinstance(run.exception, UserError) and run.exception.exit_code == 1
    assert "model.onnx on local" in str(run.exception)
    assert "device_run.py --check ." in str(run.exception.fix)


def test_the_configured_batch_sizes_are_compared(
    parts: dict[str, Any], data: DataModule, tmp_path: Path
) -> None:
    write_bundle(tmp_path / "b", **parts)
    n_test = data.info.n_images["test"]
    verify_config = VerifyConfig(parity_batches=(1, 5, n_test + 3))
    report = verify_bundle(
        tmp_path / "b",
        data=data,
        settings=CheckSettings(ProfileConfig(), verify_config, 0),
        with_latency=False,
        progress=silent,
    )
    assert {row["batches"] for row in report.models} == {f"1, 5, {n_test + 3}"}
    assert {row["n"] for row in report.models} == {n_test}, "repeated images count once"
    assert not report.notes


def test_a_batch_larger_than_the_images_there_are_is_verified(
    parts: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that errs at one batch size alone is found, however few images there are."""
    write_bundle(tmp_path / "b", **parts)
    opened, batch = apart.open_model, len(parts["golden_input"]) + 1

    def open_model(*arguments: Any, **options: Any) -> Any:
        sound = opened(*arguments, **options)

        def logits(x: np.ndarray, n: int = 32) -> np.ndarray:
            return -sound.logits(x, n) if n == batch else sound.logits(x, n)

        return SimpleNamespace(batch=sound.batch, runtime=sound.runtime, logits=logits)

    monkeypatch.setattr(apart, "open_model", open_model)
    settings = CheckSettings(ProfileConfig(), VerifyConfig(parity_batches=(1, batch)), 0)
    report = verify_bundle(
        tmp_path / "b", data=None, settings=settings, with_latency=False, progress=silent
    )
    assert len(report.failed) == len(FORMATS)


def test_a_damaged_8_bit_model_is_found_on_few_images(
    parts: dict[str, Any], tmp_path: Path
) -> None:
    """Every other class is favoured: logits stay within the tolerance, the classes do not."""
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(parts["models"]["model.int8.onnx"])
    shift = np.zeros(len(parts["golden_output"][0]), dtype=np.float32)
    shift[::2] = 0.22 * np.abs(parts["golden_output"]).max()
    shift[1::2] = -shift[0]
    (output,) = model.graph.output
    for node in model.graph.node:
        node.output[:] = ["sound" if name == output.name else name for name in node.output]
    model.graph.initializer.append(numpy_helper.from_array(shift, "shift"))
    model.graph.node.append(helper.make_node("Add", ["sound", "shift"], [output.name]))
    damaged = tmp_path / "damaged.onnx"
    onnx.save(model, damaged)
    changed = parts | {"models": parts["models"] | {"model.int8.onnx": damaged}}
    write_bundle(tmp_path / "b", **changed)
    report = verify(tmp_path / "b", None)
    (row,) = [row for row in report.models if row["model"] == "model.int8.onnx"]
    assert row["relative"] < 0.3 and row["n"] == 16
    (failed,) = report.failed
    assert failed.startswith("model.int8.onnx: differs from torch")


def test_lost_accuracy_is_counted_against_fp32() -> None:
    rows: list[dict[str, Any]] = [
        {"model": "a", "precision": "fp32", "test top1": 0.9, "passed": True},
        {"model": "b", "precision": "int8", "test top1": 0.892, "passed": True},
        {"model": "c", "precision": "int8", "test top1": 0.888, "passed": True},
        {"model": "d", "precision": "fp16", "passed": None},
    ]
    assert drops(rows) == ["c: lost 1.20% of test top-1; at most 1.0% is accepted"]
    assert [row["passed"] for row in rows] == [True, True, False, None]
    assert rows[1]["lost"] == 0.008


def test_formats_of_the_command_line_keep_their_settings() -> None:
    data, where = read_config_data(str(MINI))
    sections = [{"name": "onnx", "opset": 20}, {"name": "int8", "seed": 3}, "timm"]
    configured = load_config(data, {"export": sections}, where=where).export
    wanted = with_formats(["int8", " ort"], configured)
    chosen = load_config(data, {"export": wanted}, where=where)
    assert [section.name for section in chosen.export] == ["onnx", "int8", "ort"]
    assert (chosen.export[0].opset, chosen.export[1].seed) == (20, 3)
    with pytest.raises(UserError, match=r"unknown exporter 'onyx'"):
        load_config(data, {"export": with_formats(["onyx"], configured)}, where=where)


@pytest.mark.parametrize(
    ("answer", "passed", "problems", "notes"),
    [
        ((True, "fine"), True, [], []),
        ((False, "x" * 600 + "differs"), False, ["x" * 493 + "differs"], []),
        (CannotRunHere("no GPU\nat all"), None, [], ["model.engine: no GPU"]),
        (UserError("of another model"), False, ["of another model"], []),
        (OSError("unreadable"), False, ["unreadable"], []),
    ],
)
def test_an_engine_is_run_by_the_kit(
    answer: Any,
    passed: bool | None,
    problems: list[str],
    notes: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    facts = {
        "model": "model.onnx",
        "runtime": "tensorrt",
        "runtime_version": "10.8",
        "capability": "8.9",
    }
    (tmp_path / "model.onnx").write_bytes(b"")
    checked: list[Any] = []

    def check(path: Path, source: Path | None = None) -> dict[str, str]:
        checked.append((path.name, source and source.name))
        return facts

    def run(folder: Path, path: str, *, trust: bool) -> tuple[bool, str]:
        assert (folder, path, trust) == (tmp_path, "model.engine", True)
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[no-any-return]

    monkeypatch.setattr(bundle_check, "check_engine", check)
    monkeypatch.setattr(bundle_check, "run_engine", run)
    said: list[str] = []
    row, found = bundle_check._check_engine(
        tmp_path,
        ModelFile("model.engine", "tensorrt", "fp16"),
        bundle_check._Host(Runner(), 1, True),
        {"model": "model.engine"},
        said,
    )
    assert checked == [("model.engine", None), ("model.engine", "model.onnx")]
    assert row == {"model": "model.engine", "runtime": "tensorrt 10.8, 8.9", "passed": passed}
    assert (found, said) == (problems, notes)


@pytest.mark.parametrize(
    ("error", "passed", "problems", "notes"),
    [
        (UserError("damaged"), False, ["damaged"], []),
        (CheckFailed("outputs are not finite"), False, ["outputs are not finite"], []),
        (CannotRunHere("no runtime\nhere"), None, [], ["model.onnx: not run here: no runtime"]),
    ],
)
def test_a_model_that_does_not_open_fails_and_one_that_cannot_run_here_has_no_result(
    error: Exception, passed: bool | None, problems: list[str], notes: list[str]
) -> None:
    class Host:
        def open(self, folder: Path, model: ModelFile) -> None:
            raise error

    images, said = SimpleNamespace(expected=None, x=None, test=None), []
    row, found = bundle_check._check_model(
        Path("bundle"), None, ModelFile("model.onnx", "onnx", "fp16"), images, (1,), Host(), said,
    )  # fmt: skip
    assert row == {"model": "model.onnx", "precision": "fp16", "passed": passed}
    assert (found, said) == (problems, notes)
