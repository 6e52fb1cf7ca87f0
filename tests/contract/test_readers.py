"""Every registered reader passes the suite, on a small file of its format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hwnas.core.records import dump
from hwnas.interfaces import Evaluation
from hwnas.predictors.readers import REGISTRY
from hwnas.spaces.load import build_space
from hwnas.spaces.space import SearchSpace
from hwnas.testing import ReaderSuite, load_or_skip

OWN_SPACE = build_space("nasbench_macro", num_classes=10)
OFA = {"ks": [3] * 20, "e": [4] * 20, "d": [2] * 5, "r": 224, "top1": [75.0]}
CELL = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|{}~0|none~1|nor_conv_1x1~2|"
EDGES = [["dil_conv_5x5", 0], ["avg_pool_3x3", 1]] * 4
LINEAR = {"op": "linear", "input": ["x", "h_prev_0"]}
EXAMPLES = {
    "accel_nasbench": "index,e,k,l,se,top1,top5,throughput_tpuv2\n"
    "3,1611141,5355355,2213233,0010000,55.692,79.876,1098.09\n"
    "5,6116166,3535535,3322223,0000000,63.092,85.14,\n",
    "darts_cells": json.dumps(
        [
            {"index": i, "normal": [[[op, 1], ["skip_connect", 0]]] * 4, "reduce": EDGES, "top1": i}
            for i, op in enumerate(("sep_conv_3x3", "max_pool_3x3"), start=96)
        ]
    ),
    "hwnas": json.dumps(
        {
            "schema_version": 1,
            "labels": [
                dump(Evaluation(arch, top1, "trained", "val", n_images=9, seed=0), versioned=False)
                for arch, top1 in ((OWN_SPACE.smallest(), 0.5), (OWN_SPACE.largest(), 0.75))
            ],
        }
    ),
    "nas_bench_macro": json.dumps(
        {"00000012": {"test_acc": [90.0, 91.0]}, "00000000": {"test_acc": [45.0]}}
    ),
    "nasbench_nlp": json.dumps(
        [
            {"id": i, "recipe": {"f": LINEAR, "h_new_0": {"op": act, "input": ["f"]}}} | losses
            for i, (act, losses) in enumerate(
                (
                    (
                        "activation_tanh",
                        {"val_loss": [6.0, 5.5], "test_loss": [5.9, 5.4]},
                    ),
                    ("activation_sigm", {"val_loss": [6.1, 5.9], "params": 15066078}),
                )
            )
        ]
    ),
    "nasbench201": "index,arch,cifar10_test_200ep\n"
    + "".join(
        f"{i},{CELL.format(op)},{90 + i}.5\n" for i, op in enumerate(("none", "avg_pool_3x3"))
    ),
    "ofa_imagenet": json.dumps([OFA, OFA | {"d": [4] * 5, "top1": [77.0]}]),
    "transnas_micro": "arch,acc,params_M,mflops\n"
    "64-41414-2_32_323,53.8366,22.373,4662.8618\n64-41414-1_00_013,50.5,9.5,\n",
}


class TestReaders(ReaderSuite):
    @pytest.fixture(params=REGISTRY.names)
    def variant(self, request: pytest.FixtureRequest) -> Any:
        return load_or_skip(REGISTRY, request.param)

    @pytest.fixture
    def example(self, variant: Any, tmp_path: Path) -> Path:
        name = variant.__name__.rpartition(".")[2]
        assert name in EXAMPLES, f"give EXAMPLES a small file of the new format {name}"
        path = tmp_path / f"{name}.txt"
        path.write_text(EXAMPLES[name])
        return path

    @pytest.fixture
    def space(self, variant: Any) -> SearchSpace:
        name, num_classes = variant.READER.space or ("nasbench_macro", 10)
        return build_space(name, num_classes=num_classes)
