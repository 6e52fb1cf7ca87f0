"""Small files of formats that do not belong to a finished run: records, latencies, texts, tables.

Each function returns, by name: the file, its reader, and its kind in `test_mutated_files.Format`.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from hwnas.interfaces import DatasetContext
from hwnas.measure.published.convert import convert
from hwnas.predictors.lookup import ScoreTable, load_table, save_table
from hwnas.predictors.open_records import open_records
from hwnas.spaces.space import SearchSpace
from hwnas.training.datasets import text
from hwnas.training.text_data import TextData

__all__ = ["of_published", "of_records", "of_score_table", "of_texts"]

Found = dict[str, tuple[Path, Callable[[Path], Any], str]]

CELL = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|none~1|nor_conv_1x1~2|"
EDGES = [["sep_conv_3x3", 0], ["skip_connect", 1]] * 4
OTHER_EDGES = [["max_pool_3x3", 0], ["skip_connect", 1]] * 4
RECORDS: dict[str, tuple[str, str]] = {
    "nas_bench_macro": (
        "records",
        json.dumps(
            {
                key: {"test_acc": [top1, 91.0], "mean_acc": 90.75, "flops": 7713280}
                for key, top1 in (("00000012", 90.5), ("00000000", 50.5))
            }
        ),
    ),
    "nasbench201": (
        "csv",
        "index,arch,cifar10_test_200ep,cifar10_val_12ep\n"
        f"7,{CELL},93.5,80\n8,{CELL.replace('avg_pool_3x3', 'none')},90,70\n",
    ),
    "accel_nasbench": (
        "csv",
        "index,e,k,l,se,top1,params\n3,1611141,5355355,2213243,0010000,55,1.5\n"
        "4,6611141,5355355,2213233,0010000,61,\n",
    ),
    "transnas_micro": (
        "csv",
        "arch,acc,params_M\n64-41414-2_32_323,53.75,22.5\n64-41414-1_00_013,50.5,\n",
    ),
    "ofa_imagenet": (
        "records",
        json.dumps(
            [
                {"ks": [3] * 20, "e": [4] * 20, "d": [depth] * 5, "r": 224, "top1": [70.5 + depth]}
                for depth in (2, 3)
            ]
        ),
    ),
    "darts_cells": (
        "records",
        json.dumps(
            [
                {"index": 0, "normal": EDGES, "reduce": EDGES, "top1": 93.5},
                {"index": 1, "normal": EDGES, "reduce": OTHER_EDGES, "top1": 92.5},
            ]
        ),
    ),
}
LATENCIES: dict[str, tuple[str, str, str]] = {
    "pixel1": (
        "pixel.yaml",
        "yaml",
        "Conv-input:224x224x3-output:112x112x32:\n  count: 3\n  mean: 4.4\n  var: 0.2\n",
    ),
    "tfnas": (
        "tfnas.json",
        "records",
        json.dumps({"base": 9.0, "MBInvertedResBlock_56_1_0_40_k5_s2_swish": [1.5, 1.75]}),
    ),
    "ofa_i7": (
        "lut.csv",
        "csv",
        "op,in_hw,in_c,out_hw,out_c,expand,kernel,stride,skip,se,ms,var\n"
        "MBConv,100,16,50,24,3,5,2,0,0,0.73631,7.436e-08\n",
    ),
}


def of_records(folder: Path) -> Found:
    """Published accuracies, by the name of their reader."""
    found: Found = {}

    def read(path: Path, name: str) -> Any:
        records = open_records(path, reader=name).records()
        return [{"top1": float(score)} for score in records.scores]

    for name, (kind, content) in RECORDS.items():
        path = folder / f"records-{name}"
        path.write_text(content)
        found[f"records of {name}"] = path, partial(read, name=name), kind
    return found


def of_published(folder: Path) -> Found:
    """Published latencies, by the name of their converter."""
    found: Found = {}

    def read(path: Path, name: str) -> Any:
        table = convert(name, path if name != "ofa_i7" else path.parent)
        return [{"median_ms": row.median_ms} for row in table.rows.values()]

    for name, (file, kind, content) in LATENCIES.items():
        path = folder / name / file
        path.parent.mkdir()
        path.write_text(content)
        found[f"latencies of {name}"] = path, partial(read, name=name), kind
    return found


def of_texts(folder: Path) -> Found:
    """A text in one file, plain and compressed."""
    content = b"the cat sat on the mat\nand \xc3\xa9t\xc3\xa9 came\n" * 60

    def read(path: Path) -> None:
        config = text.Config(root=str(path.parent), files=(path.name,), steps=5)
        data = text.build(config, DatasetContext(seed=0))
        assert isinstance(data, TextData)
        x, _ = next(data.eval_batches("test", 4))
        assert int(x.min()) >= 0 and int(x.max()) < len(data.info.class_names)

    found: Found = {}
    for name, data in (("text.txt", content), ("text.txt.gz", gzip.compress(content, mtime=0))):
        path = folder / name
        path.write_bytes(data)
        found[name] = path, read, "bytes"
    return found


def of_score_table(folder: Path, space: SearchSpace) -> Found:
    """A lookup table of scores."""
    path = folder / "scores.safetensors"
    scores = np.arange(space.size(), dtype=np.float32)
    save_table(path, ScoreTable(space, scores, scores, "test"))

    def read(path: Path) -> None:
        table = load_table(path, space)
        assert len(table.means) == len(table.stds) == table.space.size()

    return {"lookup table of scores": (path, read, "bytes")}
