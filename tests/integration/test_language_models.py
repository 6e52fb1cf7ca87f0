"""A tiny run on a text: from the latency table to the report, with perplexities everywhere."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

import hwnas
from hwnas.core.errors import UserError
from tests.photos import write_text

TINY = {
    "space.width": 8,
    "data.files": ["text.txt"],
    "data.steps": 5,
    "data.min_count": 1,
    "data.val_fraction": 0.1,
    "profile.n_validation": 5,
    "profile.rounds": 8,
    "profile.retiming_budget_s": 0.5,
    "train.steps": 8,
    "train.curve_every": 8,
    "train.checkpoint_every": 8,
    "label.n_archs": 16,
    "predictor": "ridge",
    "search.searcher.population": 8,
    "search.n_predictions": 64,
    "search.generation_size": 16,
    "search.n_evaluations": 3,
    "export": ["onnx"],
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("text")
    settings = TINY | {"data.root": str(write_text(folder / "data", 3000))}
    return hwnas.run("darts_ptb", folder=folder / "run", settings=settings, report_only=True)


def test_results_and_report_show_perplexities(run: Any):
    rows = {row.name: row for row in run.networks}
    assert {"winner", "random search"} <= rows.keys()
    for row in rows.values():
        assert row.test_perplexity == math.exp(row.test_loss)
        assert 1 < row.test_perplexity < 60  # the vocabulary has 22 words
        assert row.summary()["test_perplexity"] == round(row.test_perplexity, 2)
    page = (run.folder / "report.html").read_text()
    assert "test perplexity of the winner" in page and "validation perplexity" in page
    (labels,) = hwnas.label(run.folder)
    assert 1 < labels["lowest perplexity"] <= labels["highest perplexity"]
    found = list(hwnas.search(run.folder))
    assert all(row["perplexity"] > 1 and "top1" not in row for row in found)


def test_weights_of_another_vocabulary_are_refused(run: Any, tmp_path: Path):
    folder = write_text(tmp_path / "data", 3000)
    path = folder / "text.txt"
    path.write_text(path.read_text().replace("w7", "other"))
    weights = run.folder / "checkpoints" / "supernet.safetensors"
    settings = TINY | {"data.root": str(folder), "supernet.init": str(weights)}
    with pytest.raises(UserError, match=r"(?s)another vocabulary.*supernet\.init"):
        hwnas.run("darts_ptb", folder=tmp_path / "run", settings=settings)


@pytest.mark.parametrize(
    ("space", "data", "expected"),
    [("darts_ptb", "digits", "data.name: text"), ("mobilenet_tiny", "text", "darts_ptb")],
)
def test_texts_and_images_are_not_confused(space: str, data: str, expected: str, tmp_path: Path):
    root = {"data.root": str(write_text(tmp_path, 3000)), "data.files": ["text.txt"]}
    settings = {"space": space, "data": data} | (root if data == "text" else {})
    with pytest.raises(UserError, match=f"(?s)cannot read the data set.*{expected}"):
        hwnas.run("digits", folder=tmp_path / "run", settings=settings)
