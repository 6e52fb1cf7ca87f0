"""`hwnas predictor eval`: what it measures, prints and refuses, on records made up here."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from hwnas.cli.main import app
from hwnas.core.errors import UserError
from hwnas.core.progress import silent
from hwnas.core.rng import rng
from hwnas.predictors import REGISTRY
from hwnas.spaces.cost import cost
from hwnas.spaces.load import build_space
from hwnas.studies.compare_predictors import (
    Labels,
    compare,
    labels_of_file,
    measure,
    measure_cost,
    measure_values,
)


@pytest.fixture(scope="module")
def records(tmp_path_factory) -> Path:
    """80 cells whose accuracy is a line in their edges' operators, and a poor look at it."""
    space = build_space("nasbench201", num_classes=10)
    stream = rng(0, "test/comparing")
    codes = np.unique(space.sample(120, rng=stream), axis=0)
    codes = codes[stream.permutation(len(codes))[:80]]
    quality = codes[:, 1:].sum(axis=1) + 0.01 * stream.normal(size=80)
    lines = ["index,arch,cifar10_test_200ep,early"]
    for i, row in enumerate(codes):
        view = space.view(space.arch(row))
        nodes = [[f"{view[f'edge{a}{b}']}~{a}" for a in range(b)] for b in (1, 2, 3)]
        cell = "+".join("|" + "|".join(node) + "|" for node in nodes)
        lines.append(f"{i},{cell},{50 + quality[i]},{40 + quality[i] + stream.normal()}")
    path = tmp_path_factory.mktemp("records") / "cells.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def evaluate(*arguments: object) -> dict:
    done = CliRunner().invoke(
        app, ["predictor", "eval", "--format", "json", *map(str, arguments)], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_eval_prints_tau_and_every_baseline(records: Path):
    found = evaluate(
        "--records", records, "--train-size", 40, "--seeds", 1, "--predictor", "ridge",
        "--reader", "nasbench201",
    )  # fmt: skip
    assert found["kendall_tau_mean"] > 0.8
    assert 0 <= found["kendall_tau_std"] < 0.2
    for row in (found, *found["baselines"].values()):
        assert 1 <= row["n_at_10"] <= row["n_at_1"] and row["regret"] >= 0
        assert 0 <= row["precision_at_10"] <= 1
    others = {name for name in REGISTRY.names if name not in ("ridge", "distilled")}
    assert set(found["baselines"]) == others | {"macs", "params"}
    assert all(-1 <= row["kendall_tau_mean"] <= 1 for row in found["baselines"].values())
    assert (found["predictor"], found["n_fit"], found["n_test"]) == ("ridge", 40, 40)
    assert found["sources"] == {"cifar10_test_200ep": 40}


def test_other_columns_are_learned_from_or_used_as_features(records: Path):
    common = ("--records", records, "--train-size", 8, "--seeds", 3, "--predictor", "ridge")
    alone = evaluate(*common, "--no-baselines")
    assert alone["baselines"] == {}
    also = evaluate(*common, "--no-baselines", "--also", "early")
    assert also["kendall_tau_mean"] > alone["kendall_tau_mean"] + 0.1
    assert also["sources"] == {"cifar10_test_200ep": 8, "early": 80}
    proxy = evaluate(*common, "--no-baselines", "--proxy", "early")
    assert proxy["kendall_tau_mean"] > alone["kendall_tau_mean"]


def test_more_labels_than_there_are_and_no_labels_are_errors(records: Path):
    with pytest.raises(UserError, match=r"fewer labelled archs than requested[\s\S]*80"):
        evaluate("--records", records, "--train-size", 79)
    with pytest.raises(UserError, match=r"fix: lower --train-size to at most 78, or label more"):
        evaluate("--records", records, "--train-size", 79)
    sources = r"expected: RUN \(in Python `folder`\), or --records FILE .*`records`\)\n"
    with pytest.raises(UserError, match=rf"{sources}  found: neither"):
        evaluate("--train-size", 10)
    with pytest.raises(UserError, match="no column 'late'"):
        evaluate("--records", records, "--target", "late")
    with pytest.raises(UserError, match="unknown predictor"):
        evaluate("--records", records, "--train-size", 10, "--predictor", "gnc")


def test_every_arch_is_either_learned_or_ranked_and_splits_are_shared(records: Path, monkeypatch):
    labels = labels_of_file(records)
    seen: list[tuple[set, set]] = []

    class Spy:
        def fit(self, codes, scores):
            self.learned = {tuple(row) for row in codes.tolist()}

        def predict(self, codes):
            seen.append((self.learned, {tuple(row) for row in codes.tolist()}))
            return cost(labels.space, codes, "macs").astype(float), np.ones(len(codes))

    monkeypatch.setattr("hwnas.predictors.ridge.build", lambda *_, **__: Spy())
    outcome = measure("ridge", labels, n_fit=30, n_seeds=2, progress=silent)
    assert [(len(learned), len(ranked)) for learned, ranked in seen] == [(30, 50), (30, 50)]
    assert not any(learned & ranked for learned, ranked in seen)
    assert seen[0] != seen[1]
    # a predictor that says MACs is exactly as good as MACs
    assert outcome.kendall_tau == measure_cost("macs", labels, n_fit=30, n_seeds=2).kendall_tau
    assert outcome.coverage == [0.0, 0.0]  # accuracies are not MACs


def test_given_values_are_ranked_on_the_archs_outside_the_fit(records: Path):
    labels = labels_of_file(records)
    outcome = measure_values(-labels.scores, labels, n_fit=30, n_seeds=2)
    assert outcome.kendall_tau == [-1.0, -1.0]
    assert [one.n_at_1 for one in outcome.top] == [50, 50]  # of 80 archs, 30 are for fitting


def test_progress_runs_from_nothing_to_everything(records: Path):
    labels = labels_of_file(records)
    few = Labels(labels.space, labels.codes[:20], labels.scores[:20], "x")
    steps = []
    compare(
        few, "ridge", n_fit=10, n_seeds=3, has_baselines=False,
        progress=lambda done, total, note="": steps.append((done, total)),
    )  # fmt: skip
    assert steps == [(1, 3), (2, 3), (3, 3)]
