"""Presets of the four papers: each method end to end, in miniature."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from hwnas.cli.main import app
from hwnas.core.config import override
from hwnas.pipeline.config import ExperimentConfig, load_config, read_config_data
from hwnas.predictors.readers.hwnas import read_labels

TINY = (
    "data.base_px=8",
    "profile.rounds=4",
    "profile.min_rounds=2",
    "profile.time_budget_s=2",
    "profile.n_validation=6",
    "profile.hot_samples=4",
    "profile.retiming_budget_s=0.5",
    "train.steps=8",
    "train.curve_every=8",
    "train.curve_images=64",
    "train.calibration.n_batches=1",
    "label.n_archs=24",
    "label.calibration.n_batches=1",
    "search.n_predictions=256",
    "search.generation_size=64",
    "search.n_evaluations=4",
    "finetune.epochs=1",
)
RIDGE = "predictor={name: ridge}"  # where the graph network is not what is looked at


def preset(name: str) -> ExperimentConfig:
    data, where = read_config_data(name)
    return load_config(data, where=where)


def hwnas(*arguments: str) -> Any:
    outcome = CliRunner().invoke(app, [*arguments, "--format", "json"], catch_exceptions=False)
    assert outcome.exit_code == 0, outcome.output
    return json.loads(outcome.stdout)


@pytest.fixture
def finished(tmp_path: Path) -> Callable[..., tuple[Path, Any]]:
    """Run a preset in miniature: its folder, and what it printed."""

    def run(name: str, *settings: str) -> tuple[Path, Any]:
        chosen = [part for setting in (*TINY, *settings) for part in ("--set", setting)]
        folder = tmp_path / name
        return folder, hwnas("run", name, "--run", str(folder), "--report-only", *chosen)

    return run


def test_wpnas_joins_shared_weights_and_a_few_shot_predictor(finished):
    config = preset("wpnas")
    assert config.supernet.weak_sharing
    assert config.train.sampler.name == "policy"
    assert config.search.searcher.name == "policy_gradient"
    assert config.search.searcher.baseline == config.train.sampler.baseline == "self_critical"
    assert config.search.reward.form == "additive" and config.search.reward.weight > 0
    folder, printed = finished(
        "wpnas",
        RIDGE,
        "space.resolutions=[8]",
        "train.sampler.every=2",
        "label.trained.n=12",
        "label.trained.recipe.epochs=1",
    )
    assert {row["name"] for row in printed["table"]} >= {"winner", "random search"}
    assert {e.source for e in read_labels(folder / "labels/trained.json")} == {"trained"}
    report = json.loads((folder / "predictor/report.json").read_text())
    assert report["sources"] == {"trained": 12, "supernet": 24}
    blend = json.loads((folder / "predictor/blend.json").read_text())
    assert 0 <= blend["weight"] <= 1


def test_pgonas_ranks_pairs_of_a_balanced_sandwich(finished):
    config = preset("pgonas")
    assert config.train.sampler.name == "balanced" and config.train.sampler.ends
    assert config.train.ranking.schedule == "warmup"
    for stage in config.space.stages:
        assert (stage.act, stage.out_act) == ("relu", "swish")  # smooth behind the sum only
    assert config.search.searcher.name == "evolution"
    folder, printed = finished("pgonas", RIDGE, "space.resolutions=[8]")
    assert {row["name"] for row in printed["table"]} >= {"winner", "random search"}
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    (row,) = [row for row in rows if "ranking" in row]
    assert len(row["losses"]) == 4 and len(row["ranking"]) == 2  # n + 2m = 8 forward passes


def test_gcn_fit_forecasts_the_whole_space_as_a_table(finished):
    config = preset("gcn_fit")
    assert config.predictor.name == "gcn" and config.label.trained.n == 0
    assert config.search.searcher.name == "segments" and config.search.searcher.keep == 6
    folder, printed = finished("gcn_fit", "space.resolutions=[8]")
    assert {row["name"] for row in printed["table"]} >= {"winner", "random search"}
    report = json.loads((folder / "predictor/report.json").read_text())
    assert report["sources"] == {"supernet": 24}


def test_supernet_study_says_how_far_the_supernet_can_be_trusted(finished):
    config = preset("supernet_study")
    assert config.train.sampler.name == "uniform" and config.label.trained.n >= 30
    folder, _ = finished(
        "supernet_study",
        RIDGE,
        "space.resolutions=[8]",
        "train.batch_size=32",
        "label.trained.n=14",
        "label.trained.recipe.epochs=1",
    )
    truth = ("--truth", str(folder / "labels/trained.json"))
    found = hwnas("analyze", str(folder), "--ranking", "supernet", *truth)
    assert found["ranks"]["n"] == 14 and found["verdict"]


@pytest.mark.parametrize("name", ["wpnas", "pgonas", "gcn_fit", "supernet_study"])
def test_a_preset_is_of_digits_and_says_how_to_run_it(name: str):
    data, where = read_config_data(name)
    assert override(data, ())["data"]["name"] == "digits"
    assert f"# Run: hwnas run {name} " in where.read_text()
