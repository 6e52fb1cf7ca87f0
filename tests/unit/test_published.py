"""Published latencies become tables that serve what they cover, and say what they are."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import hwnas
from hwnas.core.errors import UserError
from hwnas.core.resources import resource_names
from hwnas.core.rng import rng
from hwnas.core.stats import spearman
from hwnas.latency.estimator import TableEstimator
from hwnas.latency.shipped import latency_table
from hwnas.latency.table import LatencyTable
from hwnas.measure.published.convert import convert
from hwnas.measure.published.networks import batch_of, group_of, read_measurements
from hwnas.predictors.readers.accel_nasbench import READER
from hwnas.spaces import proxyless
from hwnas.spaces.index import enumerate_ops, op_counts
from hwnas.spaces.load import build_space
from hwnas.spaces.lowering import lower
from hwnas.spaces.ops import OpSpec
from hwnas.spaces.space import SearchSpace


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    return proxyless.build(proxyless.Config(), num_classes=1000)


# --- Pixel 1 --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pixel1(test_data: Path) -> LatencyTable:
    return convert("pixel1", test_data / "lut_pixel1" / "proxyless_pixel1.yaml")


def test_pixel1_serves_every_arch_of_proxyless(pixel1: LatencyTable, space: SearchSpace):
    estimator = TableEstimator(pixel1, space)
    codes = space.sample(100, rng=rng(0, "pixel1"))
    sums = [sum(pixel1.rows[op].median_ms for op in lower(space, space.arch(row))) for row in codes]
    assert estimator.latency_ms(codes) == pytest.approx(np.array(sums))
    assert estimator.latency_ms(codes).min() > 20
    with pytest.raises(UserError, match="no correction"):
        estimator.interval_ms(codes)


def test_pixel1_gives_proxylessnas_mobile_its_known_sum(pixel1: LatencyTable, space: SearchSpace):
    """86.4 ms, as computed from the source's keys in the data's README."""
    blocks = {
        0: "k5_e3 k3_e3 skip skip",
        1: "k7_e3 k3_e3 k5_e3 k5_e3",
        2: "k7_e6 k5_e3 k5_e3 k5_e3",
        3: "k5_e6 k5_e3 k5_e3 k5_e3",
        4: "k7_e6 k7_e6 k7_e3 k7_e3",
        5: "k7_e6",
    }
    codes = np.zeros((1, len(space.choices)), dtype=np.int16)
    for stage, names in blocks.items():
        for block, name in enumerate(names.split()):
            column = [c.name for c in space.choices].index(f"stage{stage + 1}.block{block}.op")
            codes[0, column] = space.choices[column].values.index(name)
    assert TableEstimator(pixel1, space).latency_ms(codes)[0] == pytest.approx(86.4, abs=0.05)


def test_pooling_and_classifier_add_up_to_the_source(pixel1: LatencyTable):
    parts = OpSpec("pool", 1280, 1280, 7, 1), OpSpec("linear", 1280, 1000, 1, 1)
    assert sum(pixel1.rows[op].median_ms for op in parts) == pytest.approx(0.93483, abs=1e-4)
    assert any("timed together" in warning for warning in pixel1.warnings)


def test_another_classifier_is_priced_but_nothing_else(pixel1: LatencyTable, space: SearchSpace):
    ten_classes = proxyless.build(proxyless.Config(), num_classes=10)
    codes = space.sample(20, rng=rng(0, "heads"))
    lost = TableEstimator(pixel1, space).latency_ms(codes)
    lost -= TableEstimator(pixel1, ten_classes).latency_ms(codes)
    classifier = pixel1.rows[OpSpec("linear", 1280, 1000, 1, 1)].median_ms
    assert ((lost > 0.9 * classifier) & (lost < classifier)).all()
    wider = proxyless.build(proxyless.Config(width_mult=1.3), num_classes=10)
    with pytest.raises(UserError, match=r"width_mult=1\.0"):
        TableEstimator(pixel1, wider)


ENTRY = "Conv-input:224x224x3-output:112x112x32:\n  count: 3\n  mean: 4.4\n  var: 0.2\n"


@pytest.mark.parametrize(
    "text",
    [
        ENTRY.replace("4.4", "-4.4"),
        ENTRY.replace("4.4", ".nan"),
        ENTRY.replace("4.4", ".inf"),
        ENTRY.replace("4.4", "0"),
        ENTRY.replace("0.2", "-0.2"),
        ENTRY.replace("count: 3", "count: 0"),
        ENTRY.replace("  mean: 4.4\n", ""),
        ENTRY.replace("  mean: 4.4", "  mean: [1, 2]"),
        ENTRY.replace("Conv-", "Deconv-"),
        ENTRY.replace("112x112", "112x113"),
        ENTRY + "1: 2\n",
        ENTRY.replace("224x224", "0x0"),
        ENTRY.replace("224x224", f"{5000 * '9'}x{5000 * '9'}"),
        ENTRY.replace("Conv-input:224x224x3-output:112x112x32", "Logits-input:0x0x0-output:0"),
        "- a list\n",
        "!!python/object/apply:os.system ['true']\n",
        "",
    ],
)
def test_a_malformed_source_is_refused(text: str, tmp_path: Path):
    path = tmp_path / "t.yaml"
    path.write_text(ENTRY)
    assert len(convert("pixel1", path).rows) == 1
    path.write_text(text)
    with pytest.raises(UserError, match=r"\n  (expected|found): "):
        convert("pixel1", path)
    if "Deconv" in text:
        with pytest.raises(UserError, match="expected: keys of ProxylessNAS, such as `Logits"):
            convert("pixel1", path)


# --- Xeon 6130 ------------------------------------------------------------------------------------

TFNAS_SPACE = """
name: mobile
resolutions: [224]
stem: {widths: [32], kernel: 3, stride: 2, act: relu}
stages:
  - {widths: [16], kernels: [3], expands: [1], stride: 1, act: relu}
  - {widths: [24], depths: [1, 2], kernels: [3, 5], expands: [3, 6], stride: 2, act: relu}
  - {widths: [40], depths: [1, 2], kernels: [3, 5], expands: [3, 6], stride: 2, act: swish}
  - {widths: [80], depths: [1, 2], kernels: [3, 5], expands: [3, 6], stride: 2, act: swish}
  - {widths: [112], depths: [1, 2], kernels: [3, 5], expands: [3, 6], stride: 1, act: swish}
  - {widths: [192], depths: [1, 2], kernels: [3, 5], expands: [3, 6], stride: 2, act: swish}
  - {widths: [320], kernels: [3, 5], expands: [3, 6], stride: 1, act: swish}
head: {width: 1280, act: swish}
"""


def test_xeon_6130_covers_all_blocks_and_nothing_else(test_data: Path, tmp_path: Path):
    """Stem, first block, head, pooling and classifier are one number in the source."""
    table = convert("tfnas", test_data / "lut_tfnas" / "cpu.json")
    (tmp_path / "space.yaml").write_text(TFNAS_SPACE)
    space = build_space(str(tmp_path / "space.yaml"), num_classes=1000)
    missing = [op.kind for op in enumerate_ops(space) if op not in table.rows]
    assert missing == ["conv", "dsconv", "conv", "pool", "linear"]
    with pytest.raises(UserError, match="5 operators missing"):
        TableEstimator(table, space)
    assert table.facts["base_ms"] == pytest.approx(9.35647, abs=1e-5)
    assert any("estimates no whole network" in warning for warning in table.warnings)


def test_xeon_6130_keeps_the_sources_numbers(test_data: Path):
    path = test_data / "lut_tfnas" / "cpu.json"
    table = convert("tfnas", path)
    block = OpSpec(
        "mbconv", 24, 40, 56, 28, mid_channels=144, kernel=5, stride=2, padding=2, act="swish"
    )
    source = json.loads(path.read_text())["MBInvertedResBlock_56_24_0_40_k5_s2_swish"]
    assert table.rows[block].median_ms == source[143]
    assert min(row.median_ms for row in table.rows.values()) > 0


def test_a_latency_that_is_not_positive_is_named_with_its_entry(tmp_path: Path):
    key = "MBInvertedResBlock_56_1_0_40_k5_s2_swish"
    (tmp_path / "t.json").write_text(json.dumps({"base": 9.0, key: [1.0, -1.0]}))
    with pytest.raises(UserError, match="not a positive number") as caught:
        convert("tfnas", tmp_path / "t.json")
    assert caught.value.found == "-1.0 at entry 2, counted from 1"
    assert str(caught.value.where).endswith(f"t.json: {key}")


@pytest.mark.parametrize(
    "data",
    [
        {},
        [],
        {"base": -1.0},
        {"base": 9.0, "Conv_1": [1.0]},
        {"base": 9.0, "MBInvertedResBlock_56_24_0_40_k5_s2_swish": 3.0},
        {"base": 9.0, "MBInvertedResBlock_56_1_0_40_k5_s2_swish": [1.0, -1.0]},
        {"base": 9.0, "MBInvertedResBlock_56_1_0_40_k5_s2_swish": [1.0, "2"]},
        {"base": 9.0, "MBInvertedResBlock_56_1_0_40_k5_s0_swish": [1.0, 2.0]},
        {"base": 9.0, "MBInvertedResBlock_56_1_0_40_k5_s2_swish": [1.0, 1e308]},
        {"base": 9.0, "MBInvertedResBlock_56_24_0_40_k5_s2_swish": [1.0]},
        {"base": 9.0, f"MBInvertedResBlock_{5000 * '9'}_1_0_40_k5_s2_swish": [1.0, 2.0]},
    ],
)
def test_a_malformed_block_table_is_refused(data: object, tmp_path: Path):
    (tmp_path / "t.json").write_text(json.dumps(data))
    with pytest.raises(UserError):
        convert("tfnas", tmp_path / "t.json")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"base": -1.0}, "expected: `base`: a decimal number.*\n  found: `base`: -1.0\n"),
        ([], "found: a list"),
        ({"base": 9.0, "Conv_1": [1.0]}, "TF-NAS\n  expected: keys MBInv.*\n  found: Conv_1"),
    ],
)
def test_a_table_of_another_source_is_said(data: object, message: str, tmp_path: Path):
    (tmp_path / "t.json").write_text(json.dumps(data))
    with pytest.raises(UserError, match=message):
        convert("tfnas", tmp_path / "t.json")


# --- HELP's networks ------------------------------------------------------------------------------


def test_codes_of_fbnet_are_those_of_the_source(test_data: Path):
    data = read_measurements(test_data / "latency_fbnet")
    with np.load(test_data / "latency_fbnet" / "latency.npz") as stored:
        names, chosen = stored["op_names"], stored["arch"][17]
    arch = data.space.arch(data.codes[17])
    blocks = [
        choice.values[code]
        for choice, code in zip(data.space.choices, arch.codes, strict=True)
        if choice.role == "op"
    ]
    assert blocks == [str(names[op]) for op in chosen]
    assert data.space.validate(data.codes).all()


def test_codes_of_once_for_all_are_valid_and_order_latency(test_data: Path):
    data = read_measurements(test_data / "latency_ofa")
    assert data.space.validate(data.codes).all()
    depth = op_counts(data.space, data.codes[:50]).sum(axis=1)
    with np.load(test_data / "latency_ofa" / "latency.npz") as stored:
        assert (depth - depth[0] == (stored["d"].sum(1) - stored["d"][0].sum())[:50]).all()


def test_dead_edges_of_a_cell_are_absent(test_data: Path):
    """A conv3x3 into node 1, from which nothing leads on, is not executed."""
    data = read_measurements(test_data / "latency_nasbench201")
    with np.load(test_data / "latency_nasbench201" / "latency.npz") as stored:
        archs = [str(text) for text in stored["arch"]]
    dead = archs.index("|nor_conv_3x3~0|+|skip_connect~0|none~1|+|none~0|none~1|skip_connect~2|")
    none = archs.index("|none~0|+|skip_connect~0|none~1|+|none~0|none~1|skip_connect~2|")
    assert (data.live_codes[dead] == data.live_codes[none]).all()
    assert (data.codes[dead] != data.codes[none]).any()


def test_columns_know_machine_and_batch():
    assert (group_of("titanx_256"), batch_of("titanx_256")) == ("titanx", 256)
    assert (group_of("silver_4114"), batch_of("silver_4114")) == ("silver_4114", 1)
    assert (group_of("pixel3"), batch_of("pixel3")) == ("pixel3", 1)


def test_a_damaged_archive_is_refused(tmp_path: Path):
    good = {"arch": np.zeros((2, 22), dtype=np.int8), "devices": np.array(["a"])}
    names = np.array(
        ["k3_e1", "k3_e1_g2", "k3_e3", "k3_e6", "k5_e1", "k5_e1_g2", "k5_e3", "k5_e6", "skip"]
    )
    for bad in (
        {**good, "latency_ms": np.ones((2, 1)), "op_names": names[:0]},
        {**good, "latency_ms": np.ones((3, 1)), "op_names": names},
        {**good, "latency_ms": -np.ones((2, 1)), "op_names": names},
        {**good, "latency_ms": np.full((2, 1), np.nan), "op_names": names},
        {**good, "latency_ms": np.ones((2, 1)), "op_names": np.array([object()])},
        {"devices": np.array(["a"]), "latency_ms": np.ones((2, 1))},
        {"arch": good["arch"]},
    ):
        np.savez(tmp_path / "latency.npz", **bad)
        with pytest.raises(UserError):
            read_measurements(tmp_path)
    (tmp_path / "latency.npz").write_bytes(b"PK\x03\x04 not a zip")
    with pytest.raises(UserError, match="malformed"):
        read_measurements(tmp_path)
    with pytest.raises(UserError, match="not found"):
        read_measurements(tmp_path / "none")


def test_a_noisy_phone_says_so(test_data: Path):
    table = convert("help", test_data / "latency_fbnet", "samsung_s7")
    assert table.source == "fitted" and any("noisy" in warning for warning in table.warnings)
    assert table.corrections[next(iter(table.corrections))].validation.forecast.mape > 0.05
    with pytest.raises(UserError, match=r"(?s)no column 'pixel9'.*samsung_s7.*--device"):
        convert("help", test_data / "latency_fbnet", "pixel9")
    with pytest.raises(UserError, match=r"(?s)no column 'pixel9'.*edgegpu_cifar10.*--device"):
        convert("hw_nasbench201", test_data / "hw_nasbench201", "pixel9")


@pytest.mark.parametrize(
    ("format", "column", "message"),
    [
        ("x", None, "expected: one of accel_nasbench, .*, tfnas\n  fix: name the source"),
        ("Help", None, "fix: did you mean 'help'"),
        ("help", None, "needs a column.*found: no column\n  fix: choose one with --device"),
        ("pixel1", "a", "only one device.*found: the column 'a'\n  fix: leave --device out"),
    ],
)
def test_a_conversion_that_makes_no_sense_is_refused(format: str, column: str | None, message: str):
    with pytest.raises(UserError, match=f"(?s){message}"):
        convert(format, Path("none"), column)


# --- what ships -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", resource_names("latency_tables", ".json"))
def test_a_shipped_table_names_source_and_licence_and_serves_its_space(name: str):
    table = latency_table(name)
    assert table.rows
    assert "licence" in table.facts and "source" in table.facts
    if table.source == "measured":
        assert {"cpu", "runtime_version", "date", "rounds", "n_cpus"} <= set(table.facts)
        assert table.corrections
    else:
        assert table.warnings
    for space_id, correction in table.corrections.items():
        name = space_id.rpartition("-")[0]
        known = [build_space(name, num_classes=n) for n in (1000, 100)]
        if name == "mobilenet_v3":
            bar = {"resolutions": [128, 160, 192, 224]}
            known.append(build_space(name, bar, num_classes=1000))
        (space,) = (space for space in known if space.id == space_id)
        codes = np.array([net.codes for net in correction.validation.nets], dtype=np.int16)
        low, high = TableEstimator(table, space).interval_ms(codes).T
        measured = np.array([net.measured_ms for net in correction.validation.nets])
        assert ((low <= measured) & (measured <= high)).mean() > 0.8


# --- NSGANetV2's i7, HW-NAS-Bench -----------------------------------------------------------------


def test_the_i7_serves_all_of_mobilenet_v3_and_sums_the_sources_numbers(test_data: Path):
    table = convert("ofa_i7", test_data / "lut_ofa_i7" / "lut.csv")
    assert len(table.rows) == 4050 + 12  # and the pooling of every size of the last map
    for width in (1.0, 1.2):
        space = build_space("mobilenet_v3", {"width_mult": width}, num_classes=1000)
        TableEstimator(table, space)
    block = OpSpec(
        "mbconv", 40, 80, 20, 10, mid_channels=160, kernel=7, stride=2, padding=3, act="hard_swish"
    )
    lines = (test_data / "lut_ofa_i7" / "lut.csv").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("MBConv,20,40,10,80,4,7,2,0,0,"))
    assert table.rows[block].median_ms == float(line.split(",")[10])
    pools = [row.median_ms for op, row in table.rows.items() if op.kind == "pool"]
    assert 0 < max(pools) < 0.002 and any("no pooling" in text for text in table.warnings)
    assert table.facts["licence"].startswith("Apache-2.0")  # type: ignore[union-attr]


I7 = "op,in_hw,in_c,out_hw,out_c,expand,kernel,stride,skip,se,ms,var\n"
I7_LINE = "MBConv,100,16,50,24,3,5,2,0,0,0.73631,7.436e-08\n"


@pytest.mark.parametrize(
    "text",
    [
        "",
        I7,
        I7_LINE,
        I7 + I7_LINE.replace("0.73631", "-1"),
        I7 + I7_LINE.replace("0.73631", "nan"),
        I7 + I7_LINE.replace("0.73631", "inf"),
        I7 + I7_LINE.replace("7.436e-08", "-1"),
        I7 + I7_LINE.replace("MBConv", "Deconv"),
        I7 + I7_LINE.replace("100,16", "100,0"),
        I7 + I7_LINE.replace("100,16", "1e300,16"),
        I7 + I7_LINE.replace("2,0,0,", "2,0,2,"),
        I7 + I7_LINE.replace(",7.436e-08", ""),
        I7 + I7_LINE.replace("\n", ",9\n"),
    ],
)
def test_a_malformed_table_of_the_i7_is_refused(text: str, tmp_path: Path):
    (tmp_path / "lut.csv").write_text(I7 + I7_LINE)
    assert len(convert("ofa_i7", tmp_path).rows) == 1
    (tmp_path / "lut.csv").write_text(text)
    with pytest.raises(UserError):
        convert("ofa_i7", tmp_path)


@pytest.mark.parametrize(
    ("given", "other", "message"),
    [
        ("0.73631", "-1", "expected: a number above 0\n  found: '-1'"),
        ("0.73631", "x", "expected: a number\n  found: 'x'"),
        ("0.73631", "inf", "expected: a finite number"),
        ("100,16", "100,0", "expected: a whole number from 1 to 16,777,216\n  found: '0'"),
        ("2,0,0,", "2,0,2,", "expected: 0 or 1\n  found: '2'"),
        ("7.436e-08", "-1", "expected: a number of at least 0\n  found: '-1'"),
        ("MBConv", "Deconv", "expected: MBConv, or a layer .*\n  found: 'Deconv'"),
    ],
)
def test_a_refused_cell_says_what_it_can_be(given: str, other: str, message: str, tmp_path: Path):
    (tmp_path / "lut.csv").write_text(I7 + I7_LINE.replace(given, other))
    with pytest.raises(UserError, match=message):
        convert("ofa_i7", tmp_path)
    columns = I7.strip().split(",")
    (tmp_path / "lut.csv").write_text(",".join(columns[:-1]) + "\n")
    with pytest.raises(UserError, match=f"(?s)the columns .*found: no column {columns[-1]}"):
        convert("ofa_i7", tmp_path)


@pytest.fixture(scope="module")
def jetson(test_data: Path) -> LatencyTable:
    return convert("hw_nasbench201", test_data / "hw_nasbench201", "edgegpu_cifar10")


def test_energies_of_the_edge_gpu_order_cells_as_measured(jetson: LatencyTable, test_data: Path):
    cells = read_measurements(test_data / "latency_nasbench201")
    with np.load(test_data / "hw_nasbench201" / "hardware.npz") as stored:
        energy = stored["cifar10"][:, list(stored["columns"]).index("edgegpu_energy")]
    estimator = TableEstimator(jetson, cells.space)
    estimated = estimator.energy_mj(cells.live_codes)
    error = np.abs(estimated / energy - 1).mean()
    assert error == pytest.approx(jetson.facts["energy_mape"], abs=0.005)
    assert spearman(estimated, energy.astype(float)) > 0.8
    assert jetson.has_energy


def test_energy_is_a_metric_of_limits_and_fronts(jetson: LatencyTable, tmp_path: Path):
    """Only where the table has it; the table keeps it on disk."""
    jetson.save(tmp_path / "t.json")
    table = LatencyTable.load(tmp_path / "t.json")
    assert table == jetson
    space = build_space("nasbench201", num_classes=10)
    codes = space.sample(300, rng=rng(0, "energy"))
    limit = float(np.median(TableEstimator(table, space).energy_mj(codes)))

    def asked(table: LatencyTable) -> hwnas.Found:
        return hwnas.search(
            space,
            score=lambda codes: codes.sum(axis=1).astype(float),
            limits={"energy_mj@jetson-tx2": limit},
            tables=[table],
            budget=200,
        )

    found = asked(table)
    assert found.winner.costs["energy_mj@jetson-tx2"] <= limit
    assert found.front == found.fronts["energy_mj@jetson-tx2"]
    lost = {op: replace(row, energy_mj=None) for op, row in table.rows.items()}
    without = replace(table, rows=lost)
    with pytest.raises(UserError, match="no estimate of this metric") as refused:
        asked(without)
    assert "hw_nasbench201" in str(refused.value)
    with pytest.raises(UserError, match="has no energies"):
        TableEstimator(without, space).energy_mj(codes)


def test_files_of_hw_nas_bench_that_cannot_be_are_refused(tmp_path: Path, test_data: Path):
    with pytest.raises(UserError, match="edgegpu_imagenet16"):
        convert("hw_nasbench201", test_data / "hw_nasbench201", "fpga_cifar10")
    with pytest.raises(UserError, match="not found"):
        convert("hw_nasbench201", tmp_path, "edgegpu_cifar10")


# --- Accel-NASBench -------------------------------------------------------------------------------


def few_records(test_data: Path, folder: Path, n: int = 120) -> list[str]:
    """Writes the first records to `folder`; returns their lines."""
    lines = (test_data / "accel_nasbench" / "records.csv").read_text().splitlines()[: n + 1]
    (folder / "records.csv").write_text("\n".join(lines))
    return lines


@pytest.mark.parametrize(
    ("column", "device", "worst"), [("zcu102", "zcu102", 0.02), ("3090", "rtx-3090", 0.03)]
)
def test_accelerators_are_fitted_to_networks_of_mnasnet(
    column: str, device: str, worst: float, test_data: Path, tmp_path: Path
):
    """Networks that were not fitted are estimated, far better than by a line on MACs."""
    few_records(test_data, tmp_path)
    table = convert("accel_nasbench", tmp_path, column)
    assert table.device.name == device and table.source == "fitted"
    assert table.facts["licence"].startswith("Apache-2.0")  # type: ignore[union-attr]
    (correction,) = table.corrections.values()
    error = correction.validation
    assert error.forecast.mape < worst < error.macs_line.mape / 3
    space = build_space("mnasnet", num_classes=1000)
    records = READER.read(test_data / "accel_nasbench" / "records.csv", space)
    is_rate = column != "zcu102"
    values = records.columns["throughput_3090" if is_rate else "latency_zcu102_ms"]
    true = np.asarray(values.values, dtype=float)[200:500]
    true = 1000 / true if is_rate else true
    estimated = TableEstimator(table, space).latency_ms(records.codes[values.rows[200:500]])
    assert np.abs(estimated / true - 1).mean() < worst
    assert any("the share of one image" in text for text in table.warnings) is is_rate
    assert table.device.precision == ("fp32" if is_rate else "int8")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"throughput_3090": "throughput_4090"}, "(?s)the column throughput_3090.*found: .*4090"),
        ({"10017.1": "-1"}, "(?s)positive.*column throughput_3090"),
        ({"10017.1": "0"}, "(?s)positive.*column throughput_3090"),
        ({"10017.1": "much"}, "records.csv"),
        ({"1611141": "1911141"}, "records.csv"),
        ({"index,e,": "index,f,"}, "no column e"),
    ],
)
def test_records_of_accelerators_that_cannot_be_are_refused(
    change: dict[str, str], message: str, test_data: Path, tmp_path: Path
):
    text = "\n".join(few_records(test_data, tmp_path))
    for old, new in change.items():
        assert old in text
        text = text.replace(old, new, 1)
    (tmp_path / "records.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        convert("accel_nasbench", tmp_path, "3090")


def test_a_device_of_accel_nasbench_is_chosen_by_name(test_data: Path, tmp_path: Path):
    with pytest.raises(UserError, match=r"no device 'tpuv4'.*\n.*zcu102, a100, 3090, tpuv2, tpuv3"):
        convert("accel_nasbench", test_data / "accel_nasbench", "tpuv4")
    with pytest.raises(UserError, match="needs a column"):
        convert("accel_nasbench", test_data / "accel_nasbench")
    few_records(test_data, tmp_path, n=20)
    with pytest.raises(UserError, match=r"(?s)at least 50 networks.*latency_zcu102_ms"):
        convert("accel_nasbench", tmp_path / "records.csv", "zcu102")
