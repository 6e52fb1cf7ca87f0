"""Seconds of stages, counted in passes: one second each, whatever the networks and images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hwnas.core.progress import silent
from hwnas.core.rundir import RunDir
from hwnas.core.speed import Speed
from hwnas.interfaces import DataPlan
from hwnas.pipeline import duration, format_time, network_time
from hwnas.pipeline.config import load_config
from hwnas.pipeline.duration import Durations
from hwnas.pipeline.project import Project
from hwnas.training.averaging import SHARES

N_NETWORKS = 5  # winner, largest, smallest, random search, random subnet
IMAGES = {"train": 1280, "val": 256, "test": 512}  # 10, 2 and 4 passes of 128 images
CALIBRATED = 1  # passes, of 128 images
STEPS = 40  # of 2 epochs in batches of 64


@pytest.fixture
def seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(duration, "_speed", lambda of: Speed((0.0, 0.0), (1.0, 0.0)))
    monkeypatch.setattr(duration, "known_data", lambda of: DataPlan(IMAGES, 12))
    monkeypatch.setattr(network_time, "EXTRACT_S", 0.0)

    def of(stage: str, **sections: Any) -> float:
        data = {
            "schema_version": 1,
            "name": "counted",
            "space": {"name": "mobilenet_tiny", "resolutions": [8, 12]},
            "data": {"name": "digits", "base_px": 12},
            "search": {"constraints": [{"metric": "macs", "max_fraction_of_largest": 0.5}]},
        }
        config = load_config(data | sections, where="a test")
        found = Durations(Project(RunDir(tmp_path), config, lambda _: silent)).of(stage)()
        assert found is not None
        return found

    return of


def test_fine_tuning_counts_the_validation_of_every_average(seconds: Any) -> None:
    recipe = {"epochs": 0, "distillation": 0.0}
    assert seconds("finetune/main", finetune=recipe) == N_NETWORKS * CALIBRATED
    averaged, one = recipe | {"average": True}, len(SHARES) * (CALIBRATED + 2)
    assert seconds("finetune/main", finetune=averaged) == N_NETWORKS * one
    rounded = averaged | {"precision": "int8"}
    assert seconds("finetune/main", finetune=rounded) == N_NETWORKS * CALIBRATED


def test_averages_with_pretrained_weights_come_before_fine_tuning_too(seconds: Any) -> None:
    recipe = {"epochs": 0, "distillation": 0.0, "average": True}
    one, start = len(SHARES) * (CALIBRATED + 2), {"supernet": {"init": "shipped"}}
    found = seconds("finetune/main", finetune=recipe, train={"head_epochs": 5}, **start)
    assert found == 2 * N_NETWORKS * one + 10  # and the features of a new classifier
    assert seconds("finetune/main", finetune=recipe, train={"steps": 0}, **start) < found / 1.5


def test_verifying_counts_the_files_of_the_winner_that_run_in_another_process(
    seconds: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(format_time, "slowness", lambda: 2.0)
    few = seconds("verify/main", export=["onnx", "timm"])
    many = seconds("verify/main", export=["onnx", "timm", "pt2", "coreml", "openvino"])
    known = [format_time.table_s([name]) for name in ("coreml", "openvino")]
    assert many - few == pytest.approx(sum(known)) and known[0] > known[1] > 0


def test_a_tuned_teacher_has_none_itself(seconds: Any) -> None:
    plain = {"epochs": 2, "distillation": 0.0}
    base = seconds("finetune/main", finetune=plain)
    for recipe in ({"distillation": 0.5}, {"feature_distillation": 2.0}):
        taught = seconds("finetune/main", finetune=plain | recipe)
        assert taught - base == N_NETWORKS * STEPS
        tuned = seconds("finetune/main", finetune=plain | recipe | {"teacher": "tuned"})
        assert tuned - base == (N_NETWORKS - 1) * STEPS


def test_networks_from_fresh_weights_are_scored_and_never_averaged(seconds: Any) -> None:
    recipe = {"epochs": 2, "distillation": 0.0, "average": True}
    alone = {"n": 3, "epochs": 2}
    more = seconds("finetune/main", finetune=recipe, alone=alone)
    assert more - seconds("finetune/main", finetune=recipe) == 3 * (CALIBRATED + 2)
    trained = {"n": 6, "recipe": recipe}
    found = seconds("label/trained", label={"n_archs": 6, "trained": trained})
    assert found == 6 * (CALIBRATED + 2)


def test_labels_are_also_compared_with_the_largest_network(seconds: Any) -> None:
    n, one = 10, CALIBRATED + 2
    assert seconds("label", label={"n_archs": n}) == n * one
    assert seconds("label", label={"n_archs": n, "agreement": 256}) == n * (one + 2)
    assert seconds("label", label={"n_archs": n, "agreement": 9999}) == n * (one + 10)
