"""Labels of archs trained alone, what learns from them, and the second round in a pruned space."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file
from typer.testing import CliRunner

from hwnas.cli.main import app
from hwnas.core.errors import UserError
from hwnas.predictors.readers.hwnas import read_labels

CONFIG = Path(__file__).parent / "labels.yaml"
N_TRAINED = 14
N_IMAGES = 450  # a quarter of the 1,797 digits, to train on


def hwnas(*arguments: str) -> Any:
    outcome = CliRunner().invoke(app, [*arguments, "--format", "json"], catch_exceptions=False)
    assert outcome.exit_code == 0, outcome.output
    return json.loads(outcome.stdout)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained and labelled supernet, and archs trained alone."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    hwnas("train", str(folder), "--config", str(CONFIG))
    hwnas("label", str(folder))
    hwnas("label", str(folder), "--source", "trained", "--n", str(N_TRAINED))
    return folder


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    shutil.copytree(run, tmp_path / "run")
    return tmp_path / "run"


def test_trained_labels_are_of_archs_that_the_supernet_labelled_too(run: Path):
    trained = read_labels(run / "labels/trained.json")
    inherited = read_labels(run / "labels/supernet.json")
    assert len(trained) == N_TRAINED and len(inherited) == 40
    assert [e.arch for e in trained] == [e.arch for e in inherited][2 : 2 + N_TRAINED]
    n_train = N_IMAGES // 64 * 64  # whole batches
    for evaluation in trained:
        assert (evaluation.source, evaluation.split) == ("trained", "val")
        assert evaluation.n_train_images_seen == n_train
    assert not (run / "labels/steps").exists()


def test_more_labels_later_train_only_the_new_archs(copy: Path, monkeypatch):
    from hwnas.training import standalone

    trained = []

    def counted(*arguments: Any, **settings: Any) -> Any:
        trained.append(settings["checkpoints"].name)
        return finetune(*arguments, **settings)

    finetune = standalone.finetune
    monkeypatch.setattr(standalone, "finetune", counted)
    before = read_labels(copy / "labels/trained.json")
    inherited = (copy / "labels/supernet.json").read_bytes()
    hwnas("label", str(copy), "--source", "trained", "--n", str(N_TRAINED + 2))
    after = read_labels(copy / "labels/trained.json")
    assert after[:N_TRAINED] == before
    assert trained == [e.arch.key for e in after[N_TRAINED:]]
    assert (copy / "labels/supernet.json").read_bytes() == inherited
    plan = hwnas("status", str(copy))["table"]
    assert {row["stage"]: row["status"] for row in plan}["label"] == "done"


def test_an_interrupted_arch_goes_on_from_its_checkpoint(tmp_path: Path, monkeypatch):
    from hwnas.training import standalone

    class Killed(Exception):
        pass

    started: list[int] = []

    def watched(*arguments: Any, progress: Any, **settings: Any) -> Any:
        def show(done: int, total: int, note: str = "") -> None:
            if not note:
                started.append(done)
            if kill and len(started) == 2 and done > total // 2:
                raise Killed
            progress(done, total, note)

        return finetune(*arguments, progress=show, **settings)

    finetune = standalone.finetune
    monkeypatch.setattr(standalone, "finetune", watched)
    settings = ("--config", str(CONFIG), "--set", "label.trained.recipe.epochs=2")
    command = (*settings, "--source", "trained", "--n", "2")
    kill = True
    with pytest.raises(Killed):
        hwnas("label", str(tmp_path / "run"), *command)
    kill = False
    hwnas("label", str(tmp_path / "run"), *command)
    steps = N_IMAGES // 64
    assert started == [0, 0, steps]  # the first arch is known, the second continues after epoch 1
    hwnas("label", str(tmp_path / "other"), *command)
    one, two = (tmp_path / name / "labels/trained.json" for name in ("run", "other"))
    assert one.read_bytes() == two.read_bytes()


def test_the_cost_is_told_first(copy: Path, caplog):
    with caplog.at_level(logging.INFO, logger="hwnas"):
        plan = hwnas("label", str(copy), "--source", "trained", "--n", "20", "--dry-run")
    rows = {row["stage"]: row for row in plan["table"]}
    assert rows["label/trained"]["cost"] == "20 archs trained stand-alone x 1 epochs"
    assert rows["label/trained"]["status"] == "stale"
    told = "6 archs to train stand-alone x 448 images (1 epochs) = 2,688 images; about"
    assert told in caplog.text
    with pytest.raises(UserError, match="archs to train stand-alone is missing"):
        hwnas("label", str(copy), "--source", "trained", "--set", "label.trained.n=0")


def test_the_predictor_forecasts_the_truth_with_the_help_of_the_supernet(copy: Path):
    hwnas("predictor", "fit", str(copy))
    report = json.loads((copy / "predictor/report.json").read_text())
    assert report["sources"] == {"trained": N_TRAINED, "supernet": 40}
    assert report["n_held_out"] == N_TRAINED and report["n_folds"] == 5
    blend = json.loads((copy / "predictor/blend.json").read_text())
    assert 0 <= blend["weight"] <= 1 and blend["n_held_back"] == N_TRAINED
    asked = hwnas("predictor", "predict", str(copy), "largest", "smallest")["table"]
    assert len(asked) == 2
    found = hwnas("analyze", str(copy), "--ranking", "predictor")
    assert found["truth"] == "trained labels" and found["ranks"]["n"] == N_TRAINED
    truth = ("--truth", str(copy / "labels/trained.json"))
    found = hwnas("analyze", str(copy), "--ranking", "supernet", *truth)
    assert found["ranks"]["n"] == N_TRAINED


def test_a_second_round_in_the_pruned_space_beside_an_equal_one(copy: Path):
    macs = ("--ranking", "macs", "--fraction", "0.6")
    dropped = hwnas("prune", str(copy), *macs, "--dry-run")
    longer = hwnas("prune", str(copy), *macs, "--dry-run", "--steps", "4000")
    assert longer["left_s"] > 10 * dropped["left_s"] > 0
    assert dropped["table"] and not (copy / "rounds").exists()
    found = hwnas("prune", str(copy), *macs, "--steps", "4")
    pruned, unpruned = found["table"]
    restrict = found["pruning"]["restrict"]
    assert pruned["n_archs_in_space"] == found["pruning"]["size_after"]
    assert unpruned["n_archs_in_space"] == found["pruning"]["size_before"]
    assert pruned["steps"] == unpruned["steps"] == 4
    configs = [
        yaml.safe_load((copy / "rounds" / name / "config.yaml").read_text())
        for name in ("pruned", "unpruned")
    ]
    assert configs[0].pop("restrict") == {name: list(v) for name, v in restrict.items()}
    assert configs[1].pop("restrict") == {}
    for config in configs:
        config.pop("name")
    assert configs[0] == configs[1]  # equal cost: all else is the same
    assert configs[0]["supernet"]["init"] == str(copy / "checkpoints/supernet.safetensors")
    assert found["gain"] == pytest.approx(pruned["common_top1"] - unpruned["common_top1"])
    low, high = found["gain_interval"]
    assert low <= found["gain"] <= high
    labels = read_labels(copy / "rounds/pruned/labels/supernet.json")
    for name, kept in restrict.items():
        assert name and kept
    assert pruned["common_top1"] == pytest.approx(sum(e.top1 for e in labels) / len(labels))
    before = {p: p.stat().st_mtime_ns for p in (copy / "rounds").rglob("*.safetensors")}
    assert hwnas("prune", str(copy), *macs, "--steps", "4") == found  # done already
    assert all(p.stat().st_mtime_ns == before[p] for p in before)


def test_rounds_can_start_afresh(copy: Path):
    (copy / "checkpoints/supernet.safetensors").unlink()
    macs = ("--ranking", "macs", "--fraction", "0.6", "--steps", "1")
    with pytest.raises(UserError, match="no supernet to start the second round from"):
        hwnas("prune", str(copy), *macs)
    hwnas("prune", str(copy), *macs, "--fresh")
    one, two = (
        load_file(copy / f"rounds/{name}/checkpoints/supernet.safetensors")
        for name in ("pruned", "unpruned")
    )
    assert {k: v.shape for k, v in one.items()} == {k: v.shape for k, v in two.items()}
