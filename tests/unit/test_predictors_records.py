"""Readers: files of every format, their unit and repeats, and every kind of bad file."""

from __future__ import annotations

import codecs
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwnas.core.errors import UserError
from hwnas.core.records import dump
from hwnas.core.stats import kendall_tau
from hwnas.interfaces import Evaluation
from hwnas.predictors.open_records import open_records
from hwnas.predictors.readers import REGISTRY
from hwnas.spaces.cost import AnalyticMetric, cost
from hwnas.spaces.load import build_space

CELL = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|none~1|nor_conv_1x1~2|"
OTHER_CELL = CELL.replace("avg_pool_3x3", "skip_connect")


def macro_entry(*accuracies: float) -> dict[str, Any]:
    return {"test_acc": list(accuracies), "mean_acc": float(np.mean(accuracies)), "flops": 7713280}


def write_macro(path: Path, **entries: dict[str, Any]) -> Path:
    path.write_text(json.dumps({key.removeprefix("_"): entry for key, entry in entries.items()}))
    return path


def write_cells(path: Path, *rows: str) -> Path:
    path.write_text("\n".join(["index,arch,cifar10_test_200ep,cifar10_val_12ep", *rows, ""]))
    return path


def ofa_entry(*top1: float, depth: int = 2, kernel: int = 3) -> dict[str, Any]:
    return {"ks": [kernel] * 20, "e": [4] * 20, "d": [depth] * 5, "r": 224, "top1": list(top1)}


def write_labels(path: Path, space, *labels: tuple[list[int], float, str]) -> Path:
    rows = [
        dump(
            Evaluation(space.arch(codes), top1, source, "val", n_images=10, seed=i),  # type: ignore[arg-type]
            versioned=False,
        )
        for i, (codes, top1, source) in enumerate(labels)
    ]
    path.write_text(json.dumps({"schema_version": 1, "labels": rows}))
    return path


@pytest.fixture(scope="module")
def own_space():
    return build_space("nasbench_macro", num_classes=10)


OWN = {"space": "nasbench_macro", "num_classes": 10}


# --- good files -----------------------------------------------------------------------------------


def test_macro_values_are_percent_and_repeats_are_averaged(tmp_path: Path):
    path = write_macro(
        tmp_path / "x.json", _00000012=macro_entry(90, 91, 95), _00000000=macro_entry(45, 46, 47)
    )
    source = open_records(path)
    records = source.records()
    assert (source.reader_name, records.target, records.n_averaged) == (
        "nas_bench_macro",
        "test_acc",
        2,
    )
    assert records.scores.tolist() == pytest.approx([0.92, 0.46])
    ops = [i for i, choice in enumerate(records.space.choices) if choice.role == "op"]
    assert records.codes[0][ops].tolist() == [0, 0, 0, 0, 0, 0, 1, 2]
    # listed twice: all values count, none is lost
    text = path.read_text()
    path.write_text(text[:-1] + ', "00000000": ' + json.dumps(macro_entry(50, 51, 52)) + "}")
    assert open_records(path).records().scores.tolist() == pytest.approx([0.92, 0.485])


def test_cells_are_read_by_column(tmp_path: Path):
    path = write_cells(tmp_path / "x.csv", f"7,{CELL},93.5,80", f"8,{OTHER_CELL},90,70")
    source = open_records(path)
    assert source.reader_name == "nasbench201"
    assert source.records().scores.tolist() == [0.935, 0.9]
    assert source.records("cifar10_val_12ep").scores.tolist() == [0.8, 0.7]
    view = source.table.space.view(source.table.space.arch(source.records().codes[0]))
    assert [view[f"edge{e}"] for e in ("01", "12", "03", "23")] == [
        "nor_conv_3x3",
        "skip_connect",
        "avg_pool_3x3",
        "nor_conv_1x1",
    ]


def test_digits_of_accel_nasbench_are_stages(tmp_path: Path):
    path = tmp_path / "x.csv"
    rows = ("3,1611141,5355355,2213243,0010000,55,1.5", "4,6611141,5355355,2213233,0010000,61,")
    path.write_text("\n".join(["index,e,k,l,se,top1,params", *rows, ""]))
    source = open_records(path)
    assert source.reader_name == "accel_nasbench"
    assert source.records().scores.tolist() == [0.55, 0.61]
    view = source.table.space.view(source.table.space.arch(source.records().codes[0]))
    assert [view[f"stage{s}.expand"] for s in range(7)] == [1, 6, 1, 1, 1, 4, 1]
    assert [view[f"stage{s}.depth"] for s in range(7)] == [2, 2, 1, 3, 2, 4, 3]
    assert [view[f"stage{s}.se"] for s in range(7)] == [0, 0, 0.25, 0, 0, 0, 0]
    assert source.table.columns["params"].rows.tolist() == [0]
    path.write_text("index,e,k,l,se,top1\n3,161114,5355355,2213243,0010000,55\n")
    with pytest.raises(UserError, match="7 digits in column e"):
        open_records(path)


def test_digits_of_transnas_are_the_operators_into_each_node(tmp_path: Path):
    path = tmp_path / "x.csv"
    rows = ("64-41414-2_31_023,53.5,22.5", "64-41414-1_00_013,50.5,")
    path.write_text("\n".join(["arch,acc,params_M", *rows, ""]))
    source = open_records(path)
    assert source.reader_name == "transnas_micro"
    assert source.records().scores.tolist() == [0.535, 0.505]
    assert source.table.columns["params_M"].rows.tolist() == [0]
    view = source.table.space.view(source.table.space.arch(source.records().codes[0]))
    assert {name: view[name] for name in view if name.startswith("edge")} == {
        "edge01": "nor_conv_1x1",
        "edge02": "nor_conv_3x3",
        "edge12": "skip_connect",
        "edge03": "none",
        "edge13": "nor_conv_1x1",
        "edge23": "nor_conv_3x3",
    }
    path.write_text("\n".join(["arch,acc", *("64-41414-2_31_023,53.5", "64-41414-2_31_024,5")]))
    with pytest.raises(UserError, match=r"digits from 0 to 3[\s\S]*2_31_024[\s\S]*x\.csv:3"):
        open_records(path)


def nlp_entry(act: str, *val_loss: float, **more: Any) -> dict[str, Any]:
    linear = {"op": "linear", "input": ["x", "h_prev_0"]}
    recipe = {"f": linear, "h_new_0": {"op": f"activation_{act}", "input": ["f"]}}
    return {"id": 7, "recipe": recipe, "val_loss": list(val_loss)} | more


def write_nlp(path: Path, *entries: Any) -> Path:
    path.write_text(json.dumps(entries))
    return path


def test_scores_of_recurrent_cells_are_minus_the_lowest_loss(tmp_path: Path):
    renamed = nlp_entry("tanh", 4.5)
    renamed["recipe"] = {
        "h_new_0": {"input": ["g"], "op": "activation_tanh"},
        "g": {"input": ["h_prev_0", "x"], "op": "linear"},
    }
    path = write_nlp(
        tmp_path / "x.json",
        nlp_entry("tanh", 6, 5.5, 5.75, test_loss=[6.5, 5.25, 5], params=9, s_per_epoch=1.5),
        renamed,
        nlp_entry("sigm", 5.25, 5.5),
    )
    source = open_records(path)
    records = source.records()
    assert (source.reader_name, records.target) == ("nasbench_nlp", "minus_val_loss")
    assert records.scores.tolist() == [-5, -5.25]  # the first two are one cell
    assert records.n_averaged == 1
    columns = {name: column.values.tolist() for name, column in source.table.columns.items()}
    assert columns == {
        "minus_val_loss": [-5.5, -4.5, -5.25],
        "minus_test_loss": [-5.25],  # of the epoch with the lowest validation loss
        "params": [9],
        "s_per_epoch": [1.5],
    }
    with pytest.raises(UserError, match=r"outside the range[\s\S]*\[-100, 0\][\s\S]*the first 9"):
        source.records("params")
    with pytest.raises(UserError, match=r"cannot be used in a run[\s\S]*predictor eval"):
        source.accuracies()


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (nlp_entry("relu", 5), r"unknown operator[\s\S]*activation_relu[\s\S]*entry 1 \(id 7\)"),
        (nlp_entry("tanh", 5) | {"recipe": None}, r"not a recipe[\s\S]*None[\s\S]*entry 1"),
        (
            nlp_entry("tanh", 5) | {"val_loss": [5, None]},
            r"not a finite number[\s\S]*entry 1 \(id 7\), val_loss",
        ),
        (nlp_entry("tanh"), r"no loss[\s\S]*entry 1"),
        (nlp_entry("tanh", 5) | {"val_loss": "5,1"}, r"not a finite number[\s\S]*write 5\.1"),
        (nlp_entry("tanh", 5, test_loss=[5, 6]), r"same epochs[\s\S]*1 numbers[\s\S]*2 numbers"),
        (nlp_entry("tanh", 5, params="many"), r"not a finite number[\s\S]*params"),
        (3, r"not a list of recipes[\s\S]*a list with other entries"),
    ],
)
def test_entries_of_recurrent_cells_that_are_malformed_are_refused(
    tmp_path: Path, entry: Any, message: str
):
    path = write_nlp(tmp_path / "x.json", nlp_entry("tanh", 5), entry)
    with pytest.raises(UserError, match=message) as caught:
        open_records(path)
    assert str(path) in str(caught.value.where)


def test_recurrent_cells_of_another_space_are_refused(tmp_path: Path):
    path = write_nlp(tmp_path / "x.json", nlp_entry("tanh", 5), nlp_entry("sigm", 6))
    with pytest.raises(UserError, match=r"the space nasbench_nlp[\s\S]*darts_ptb[\s\S]*--space"):
        open_records(path, space="darts_ptb", num_classes=10)


def test_published_losses_of_recurrent_cells(test_data: Path):
    """172 runs of 144 recipes; 12 of these are equal to another one up to names and order."""
    source = open_records(test_data / "nasbench_nlp_wikitext2" / "records.json")
    records = source.records()
    assert len(source.table.codes) == 172
    assert len(records) == 132
    validation = source.records("minus_val_loss").scores
    test = source.records("minus_test_loss").scores
    assert kendall_tau(validation, test) > 0.98  # 0.988 over all published runs


@pytest.mark.parametrize(("column", "metric"), [("params_M", "params"), ("mflops", "macs")])
def test_costs_of_transnas_cells_are_nearly_those_published(
    test_data: Path, column: str, metric: AnalyticMetric
):
    """The networks around the cells differ; a skip with stride has parameters there only."""
    source = open_records(test_data / "transnas_micro" / "records.csv")
    codes = source.records().codes
    ours = cost(source.table.space, codes, metric)
    assert np.corrcoef(ours, source.proxy(column)(codes))[0, 1] > 0.99


def test_ofa_subnets_that_differ_in_inactive_blocks_are_one(tmp_path: Path):
    other = ofa_entry(70.0, 72.0)
    other["ks"] = [3, 3, 7, 7] * 5  # blocks 2 and 3 of depth 2 do not exist
    path = tmp_path / "x.json"
    path.write_text(json.dumps([ofa_entry(74.0), other, ofa_entry(76.0, depth=3)]))
    records = open_records(path).records()
    assert records.scores.tolist() == pytest.approx([0.72, 0.76])
    assert records.n_averaged == 1


def test_own_labels_keep_their_sources_apart(tmp_path: Path, own_space):
    smallest, largest = list(own_space.smallest().codes), list(own_space.largest().codes)
    path = write_labels(
        tmp_path / "labels.json",
        own_space,
        (smallest, 0.5, "supernet"),
        (largest, 0.75, "supernet"),
        (largest, 0.9, "trained"),
        (smallest, 0.625, "supernet"),
        (smallest, 0.85, "trained"),
    )
    source = open_records(path, **OWN)
    assert source.reader_name == "hwnas"
    assert source.records().target == "supernet"
    assert source.records("supernet").scores.tolist() == [0.5625, 0.75]
    assert source.records("trained").scores.tolist() == [0.9, 0.85]


def test_a_column_is_a_proxy_in_standard_deviations(tmp_path: Path):
    path = write_cells(tmp_path / "x.csv", f"7,{CELL},93.5,80", f"8,{OTHER_CELL},90,70")
    source = open_records(path)
    proxy = source.proxy("cifar10_val_12ep")
    codes = source.records().codes
    assert proxy(codes[::-1]).tolist() == [-1.0, 1.0]
    stranger = codes[:1].copy()
    stranger[0, 1] = 0
    with pytest.raises(UserError, match="no value of cifar10_val_12ep"):
        proxy(stranger)


@pytest.mark.parametrize(
    ("file", "n", "most"),
    [
        ("nas_bench_macro/cifar10.json", 3281, 0.9313),
        ("nasbench201_accuracy/accuracy.csv", 7813, 0.9437),
        ("ofa_mbv3_imagenet/records.json", 1081, 0.7747),
        ("accel_nasbench/records.csv", 2562, 0.6666),
        ("darts_random214/records.json", 107, 0.9750),
        ("transnas_micro/records.csv", 1064, 0.5494),
    ],
)
def test_real_files_are_recognised_and_read(test_data: Path, file: str, n: int, most: float):
    records = open_records(test_data / file).records()
    assert len(records) == n
    assert records.space.validate(records.codes).all()
    assert 0.1 <= records.scores.min() < records.scores.max() <= most
    assert records.scores.max() > most - 1e-3


# --- bad files ------------------------------------------------------------------------------------


def test_a_cell_with_two_values_is_refused_and_an_exact_copy_is_not(tmp_path: Path):
    rows = [f"7,{CELL},93.5,80", f"8,{OTHER_CELL},90,70"]
    copy = open_records(write_cells(tmp_path / "x.csv", *rows, rows[0])).records()
    assert len(copy) == 2
    path = write_cells(tmp_path / "x.csv", *rows, f"9,{CELL},93.6,80")
    with pytest.raises(UserError, match=r"different values[\s\S]*93\.5, 93\.6"):
        open_records(path).records()


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "n/a"])
def test_what_is_no_number_is_refused_with_its_place(tmp_path: Path, text: str):
    path = write_cells(tmp_path / "x.csv", f"7,{CELL},93.5,80", f"8,{OTHER_CELL},{text},70")
    with pytest.raises(UserError, match=r"finite number[\s\S]*x\.csv:3, cifar10_test_200ep"):
        open_records(path)


def test_nan_in_json_is_refused(tmp_path: Path):
    path = tmp_path / "x.json"
    path.write_text(json.dumps([ofa_entry(float("nan"))]))
    with pytest.raises(UserError, match="NaN"):
        open_records(path)
    write_macro(path, _00000000=macro_entry(45, float("nan")))
    with pytest.raises(UserError, match=r"finite number[\s\S]*00000000"):
        open_records(path)


def test_a_constant_target_is_refused(tmp_path: Path):
    path = write_cells(tmp_path / "x.csv", f"7,{CELL},93.5,80", f"8,{OTHER_CELL},93.5,70")
    with pytest.raises(UserError, match="all values of the column cifar10_test_200ep are equal"):
        open_records(path).records()


def test_an_unknown_column_lists_the_known_ones(tmp_path: Path):
    path = write_cells(tmp_path / "x.csv", f"7,{CELL},93.5,80", f"8,{OTHER_CELL},90,70")
    with pytest.raises(UserError, match=r"no column 'top5'[\s\S]*cifar10_val_12ep"):
        open_records(path).records("top5")


def test_values_out_of_the_declared_unit_are_refused(tmp_path: Path, own_space):
    path = write_macro(tmp_path / "x.json", _00000000=macro_entry(45), _00000001=macro_entry(145))
    with pytest.raises(
        UserError, match=r"unit \(percent\)[\s\S]*1 of 2 values outside it, the first 145"
    ):
        open_records(path).records()
    with pytest.raises(
        UserError, match=r"column flops has values outside the range of its unit \(percent\)"
    ):
        open_records(path).records("flops")
    labels = write_labels(
        tmp_path / "labels.json", own_space, (list(own_space.smallest().codes), 0.5, "supernet")
    )
    for wrong in ("50.0", "-0.1", "NaN"):
        labels.write_text(labels.read_text().replace('"top1": 0.5', f'"top1": {wrong}'))
        with pytest.raises(UserError):
            open_records(labels, **OWN)
        labels.write_text(labels.read_text().replace(f'"top1": {wrong}', '"top1": 0.5'))


def test_archs_of_another_space_are_refused(tmp_path: Path, own_space):
    path = tmp_path / "x.json"
    for digits in ("0000000", "000000000", "00000003"):
        write_macro(path, **{f"_{digits}": macro_entry(45)})
        with pytest.raises(UserError, match="arch belongs to another space") as caught:
            open_records(path)
        assert str(caught.value.found).startswith(("the key", "the value 3"))
        assert "give the space of these archs" in str(caught.value.fix)
    cells = write_cells(tmp_path / "x.csv", f"7,{CELL.replace('none', 'dil_conv_5x5')},93.5,80")
    with pytest.raises(UserError, match=r"another space[\s\S]*dil_conv_5x5"):
        open_records(cells)
    path.write_text(json.dumps([ofa_entry(74.0, kernel=9)]))
    with pytest.raises(UserError, match=r"another space[\s\S]*kernel"):
        open_records(path)
    for kernel in ([3], {"a": 3}, None):
        path.write_text(json.dumps([ofa_entry(74.0, kernel=kernel)]))  # type: ignore[arg-type]
        with pytest.raises(UserError, match="another space"):
            open_records(path)
    path.write_text(json.dumps([ofa_entry(74.0) | {"d": [2, 2]}]))
    with pytest.raises(UserError, match="another space"):
        open_records(path)
    labels = write_labels(
        tmp_path / "labels.json", own_space, (list(own_space.smallest().codes), 0.5, "supernet")
    )
    with pytest.raises(UserError, match="arch belongs to another space"):
        open_records(labels, space="nasbench_macro", num_classes=100)


def test_a_file_that_no_reader_knows_lists_the_readers(tmp_path: Path):
    path = tmp_path / "x.txt"
    path.write_text("hello")
    with pytest.raises(UserError, match="cannot detect the format") as caught:
        open_records(path)
    assert all(name in str(caught.value) for name in REGISTRY.names)
    with pytest.raises(UserError, match="did you mean 'nasbench201'"):
        open_records(path, reader="nasbench20")
    with pytest.raises(UserError, match="cannot read the file"):
        open_records(tmp_path / "absent.json")


@pytest.mark.parametrize("reader", REGISTRY.names)
@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"[1]", b'{"1": 2}', b"\xff\xfe", b"[[["])
def test_a_file_of_another_kind_is_an_error_and_never_a_crash(
    tmp_path: Path, reader: str, content: bytes
):
    path = tmp_path / "x"
    path.write_bytes(content)
    with pytest.raises(UserError):
        open_records(path, reader=reader, **({} if reader != "hwnas" else OWN)).records()


def test_own_labels_need_a_space(tmp_path: Path, own_space):
    path = write_labels(
        tmp_path / "labels.json", own_space, (list(own_space.smallest().codes), 0.5, "supernet")
    )
    with pytest.raises(UserError, match="--space"):
        open_records(path)


# --- tables that went through Excel ---------------------------------------------------------------

OPS = ["none", "skip_connect", "nor_conv_3x3"]
CELLS = {
    f"|{a}~0|+|{b}~0|none~1|+|none~0|none~1|{c}~2|": 50 + i
    for i, (a, b, c) in enumerate(itertools.product(OPS, repeat=3))
}


def excel(
    path: Path,
    sep: str = ",",
    decimal: str = ".",
    first: str | None = None,
    mark: bytes = b"",
    encoding: str = "utf-8",
    arch: str = "arch",
    last: str = "",
    end: str = "\r\n",
) -> Path:
    rows = [f"{cell}{sep}{value:.2f}".replace(".", decimal) for cell, value in CELLS.items()]
    lines = [first] * (first is not None) + [f"{arch}{sep}cifar10_test_200ep", *rows, last]
    path.write_bytes(mark + (end.join(lines) + end).encode(encoding))
    return path


@pytest.mark.parametrize(
    "dialect",
    [
        {},
        {"mark": codecs.BOM_UTF8},
        {"sep": ";", "decimal": ","},
        {"sep": ";", "decimal": ",", "mark": codecs.BOM_UTF8},
        {"sep": "\t"},
        {"first": "sep=,"},
        {"sep": ";", "first": "sep=;", "decimal": ","},
        {"sep": ";", "first": "sep=;", "decimal": ",", "mark": codecs.BOM_UTF8},
        {"sep": "\t", "first": "sep=\t"},
        {"sep": "\t", "encoding": "utf-16"},
        {"sep": "\t", "encoding": "utf-16-be", "mark": codecs.BOM_UTF16_BE},
        {"end": "\r"},
        {"last": ","},
        {"sep": ";", "last": ";;;", "decimal": ","},
        {"sep": ", "},
        {"arch": '"arch"'},
        {"arch": "Arch"},
        {"first": ""},
    ],
)
def test_a_table_of_excel_is_the_plain_one(dialect: dict[str, Any], tmp_path: Path) -> None:
    path = excel(tmp_path / "x.csv", **dialect)
    for reader in (None, "nasbench201"):
        found = open_records(path, reader=reader).records()
        assert sorted(found.scores.tolist()) == pytest.approx(
            sorted(value / 100 for value in CELLS.values())
        )


def test_other_dialects_are_named(tmp_path: Path) -> None:
    path = excel(tmp_path / "x.csv", sep=":")
    with pytest.raises(UserError, match=r"(?s)no column 'arch'.*arch:cifar10.*commas"):
        open_records(path, reader="nasbench201")
    path.write_text('arch,a\n|none~0|+|none~0|none~1|+|none~0|none~1|none~2|,"76,40"\n')
    with pytest.raises(UserError, match=r"(?s)not a finite number.*write 76\.40"):
        open_records(path, reader="nasbench201")
    path.write_text(path.read_text().replace('"76,40"', "76.40%"))
    with pytest.raises(UserError, match=r"(?s)not a finite number.*:2, a\n.*write 76\.40"):
        open_records(path, reader="nasbench201")


def test_lines_of_a_table_are_those_of_its_file(tmp_path: Path) -> None:
    path = excel(tmp_path / "x.csv", first="sep=,", last="\r\n,\r\nno cell,1")
    n = len(CELLS)
    with pytest.raises(UserError, match=rf"(?s)not a NAS-Bench-201 cell.*~2\|\n.*:{n + 5}\n"):
        open_records(path)
