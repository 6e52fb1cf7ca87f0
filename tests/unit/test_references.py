"""Reference networks: the same network as timm's, one plan with the winner, published numbers."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from hwnas.core.config import build_model
from hwnas.core.errors import UserError
from hwnas.core.records import dump, load
from hwnas.devices.kit import KitFailed
from hwnas.exporters.float_graph import exported
from hwnas.interfaces import DeviceSpec
from hwnas.latency.sections import ProfileConfig
from hwnas.measure.references import timing
from hwnas.measure.references.graphs import reference_graph
from hwnas.measure.references.published import published
from hwnas.measure.references.settings import NAMES, ReferencesConfig
from hwnas.measure.references.timing import Reference, References, time_references
from hwnas.nets.from_timm import timm_network
from hwnas.spaces.published import published_networks
from tests.kit import SizeTransport

DEVICE = DeviceSpec("board")
QUICK = ProfileConfig(rounds=4, min_rounds=2, hot_samples=4, retiming_budget_s=0.0)
SMALL, OTHER = Reference("lcnet_035", 32, 10), Reference("mobilenetv3_small_050", 32, 10)


def operators(model: onnx.ModelProto) -> Counter[str]:
    """Every operator that takes time: kind, weights' shape, strides and groups."""
    shapes = {t.name: tuple(t.dims) for t in model.graph.initializer}
    found: Counter[str] = Counter()
    for node in model.graph.node:
        weights = [shapes[name] for name in node.input if len(shapes.get(name, ())) > 1]
        kept = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        facts = (kept.get("strides"), kept.get("group")) if node.op_type == "Conv" else ()
        if node.op_type not in ("Reshape", "Identity", "Flatten"):
            found[f"{node.op_type} {weights} {facts}"] += 1
    return found


def test_a_network_that_comes_as_data_has_the_operators_of_timms_export() -> None:
    name = "mobilenetv4_conv_small_050.e3000_r224_in1k"
    theirs = exported(
        timm_network(name, num_classes=10).eval(), (3, 64, 64), properties={}, dynamic_batch=False
    )
    ours = operators(reference_graph(name, 64, num_classes=10))
    assert ours == operators(theirs) and sum(ours.values()) > 60


def test_equal_arguments_give_equal_bytes_and_another_network_is_exported_by_torch() -> None:
    first, second = (
        reference_graph("test_resnet", 32, num_classes=3, batch=2).SerializeToString()
        for _ in range(2)
    )
    assert first == second
    ends = onnx.load_from_string(first).graph
    assert [d.dim_value for d in ends.input[0].type.tensor_type.shape.dim] == [2, 3, 32, 32]
    assert [d.dim_value for d in ends.output[0].type.tensor_type.shape.dim] == [2, 3]


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("lcnet_101", "lcnet_150"), ("mobilenetv2_100.ra_in2k", "mobilenetv2_100.ra_in1k")],
)
def test_an_unknown_network_is_refused_with_the_nearest_name(name: str, nearest: str) -> None:
    with pytest.raises(UserError, match=f"did you mean '{nearest}"):
        reference_graph(name, 32)


def test_a_resolution_that_a_network_does_not_take_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("Input height (32) doesn't match model (160).\nlong trace")

    monkeypatch.setattr("hwnas.exporters.float_graph.exported", fails)
    with pytest.raises(
        UserError, match=r"(?s)test_vit cannot be exported at 32 px.*match model.*fix: give"
    ):
        reference_graph("test_vit", 32)


# --- published numbers ----------------------------------------------------------------------------


def test_the_default_networks_have_their_published_accuracies() -> None:
    at_224 = {name: {one.px: one.top1 for one in published(name)}[224] for name in NAMES}
    assert list(at_224.values()) == [
        0.73756, 0.7792, 0.67636, 0.7213, 0.77362, 0.781, 0.78568, 0.7291
    ]  # fmt: skip
    architectures = {name.partition(".")[0] for name in NAMES}
    assert architectures - set(published_networks()) == {"hgnetv2_b0"}


def test_the_table_is_timms(test_data: Path) -> None:
    with open(test_data / "device_tables" / "timm_results-imagenet.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    millions = [float(row["param_count"].replace(",", "")) for row in rows]
    rows = [row for row, n in zip(rows, millions, strict=True) if n <= 12]
    for row in rows:
        ours = {one.px: one for one in published(row["model"])}[int(row["img_size"])]
        assert ours.top1 == pytest.approx(float(row["top1"]) / 100, abs=1e-9)
        assert ours.params_millions == float(row["param_count"])
    assert len(rows) > 300


# --- timing ---------------------------------------------------------------------------------------


class Recorded(SizeTransport):
    """A device where a model takes 1 ns per byte of its file, and some models do not run."""

    def __init__(self, *, refuses: str = "nothing") -> None:
        super().__init__()
        self.refuses, self.plans = refuses, []

    def _require(self, plan: Path) -> list[str]:
        ids = [item["id"] for item in json.loads(plan.read_text())["items"]]
        if any(name.startswith(self.refuses) for name in ids):
            raise KitFailed("the kit failed", found="\n    1/3\n    no kernel for Erf", where=plan)
        return ids

    def run_bench(self, plan: Path, results: Path, *, progress: Any) -> None:
        self.plans.append(self._require(plan))
        super().run_bench(plan, results, progress=progress)

    def try_out(self, plan: Path) -> None:
        self._require(plan)


def test_references_and_the_winner_are_timed_in_one_plan(tmp_path: Path) -> None:
    device, winner = Recorded(), tmp_path / "winner.onnx"
    winner.write_bytes(b"\0" * 500_000)
    found = time_references(
        [SMALL, OTHER], DEVICE, tmp_path / "t", QUICK, own={"winner": winner}, transport=device
    )
    assert device.plans == [[SMALL.id, OTHER.id, "winner"]]
    assert found.own_ms == {"winner": pytest.approx(0.5, rel=1e-3)}
    size = len(reference_graph("lcnet_035", 32, num_classes=10).SerializeToString())
    assert found.networks[0].measured_ms == pytest.approx(size * 1e-6, rel=1e-3)
    assert load(References, dump(found), where="test") == found


def test_an_interrupted_call_goes_on_and_a_finished_one_times_nothing(tmp_path: Path) -> None:
    device = Recorded()
    first = time_references([SMALL], DEVICE, tmp_path, QUICK, transport=device)
    n_runs = device.runs
    assert time_references([SMALL], DEVICE, tmp_path, QUICK, transport=device) == first
    assert device.runs == n_runs > 0


def test_a_network_that_the_device_does_not_run_is_said_and_the_others_are_timed(
    tmp_path: Path,
) -> None:
    device = Recorded(refuses="lcnet")
    found = time_references([SMALL, OTHER], DEVICE, tmp_path, QUICK, transport=device)
    refused, timed = found.networks
    assert (refused.measured_ms, refused.why) == (None, "no kernel for Erf")
    assert timed.measured_ms is not None and timed.why == ""
    assert device.plans == [[OTHER.id]]
    with pytest.raises(UserError, match=r"(?s)runs none of the reference networks.*no kernel"):
        time_references([SMALL], DEVICE, tmp_path / "b", QUICK, transport=device)


def test_a_failure_of_the_device_itself_is_no_failure_of_the_networks(tmp_path: Path) -> None:
    device = Recorded(refuses="winner")
    with pytest.raises(KitFailed):
        time_references(
            [SMALL], DEVICE, tmp_path, QUICK, own={"winner": b"\0" * 1000}, transport=device
        )


def test_an_operator_without_a_kernel_in_the_runtime_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = timing.reference_graph

    def with_erf(name: str, px: int, **ends: Any) -> onnx.ModelProto:
        graph = real("lcnet_035", px, **ends)
        if name == "lcnet_035":
            node = graph.graph.node[0]
            graph.graph.node.insert(1, helper.make_node("Erf", [node.output[0]], ["erf"]))
        return graph

    monkeypatch.setattr(timing, "reference_graph", with_erf)
    board = DeviceSpec("board", runtime="litert")
    found = time_references([SMALL, OTHER], board, tmp_path, QUICK, transport=Recorded())
    assert found.networks[0].measured_ms is None and "Erf" in found.networks[0].why
    assert found.networks[1].measured_ms is not None


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("runtime", ["onnxruntime", "litert"])
def test_files_are_in_the_format_and_precision_of_the_device(
    runtime: str, precision: Any, tmp_path: Path
) -> None:
    device = DeviceSpec("board", runtime=runtime, precision=precision)
    time_references([SMALL], device, tmp_path, QUICK, transport=Recorded())
    (model,) = (tmp_path / "models").iterdir()
    content = model.read_bytes()
    if runtime == "litert":
        assert model.suffix == ".tflite" and content[4:8] == b"TFL3"
    else:
        types = {numpy_helper.to_array(t).dtype for t in onnx.load(model).graph.initializer}
        assert (np.dtype(np.int8) in types) == (precision == "int8")


# --- settings -------------------------------------------------------------------------------------


def test_resolutions_are_those_of_the_run_and_224() -> None:
    assert ReferencesConfig().sizes((28, 32)) == (28, 32, 224)
    assert ReferencesConfig(resolutions=(96, 64)).sizes((28, 32)) == (64, 96)


def test_trained_networks_are_timed_too_and_names_are_distinct() -> None:
    config = ReferencesConfig(names=("lcnet_100",), train=("lcnet_050", "lcnet_100"))
    assert config.all_names == ("lcnet_100", "lcnet_050")
    for wrong in ({"names": ["a", "a"]}, {"names": []}, {"names": ["../a"]}, {"resolutions": [0]}):
        with pytest.raises(UserError, match=r"problems? in the config"):
            build_model(ReferencesConfig, wrong, where="test")
