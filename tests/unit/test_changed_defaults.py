"""A run folder that is opened again with its configuration keeps the defaults it was made with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from hwnas.core.progress import silent
from hwnas.pipeline.opening import open_project

MINI = Path(__file__).parents[1] / "integration" / "mini.yaml"


def loss_of(root: Path, stored: dict[str, Any] | None, changes: dict[str, Any]) -> str:
    """Loss of the predictor when `MINI` is given for a run whose stored predictor is `stored`."""
    how: Any = {"progress_for": lambda _: silent, "command": "test", "read_only": True}
    if stored is not None:
        with open_project(root, config=str(MINI), changes={"predictor": stored}, **how) as made:
            plain = made.config.model_dump(mode="json")
        (root / "config.yaml").write_text(yaml.safe_dump(plain))
    with open_project(root, config=str(MINI), changes=changes, **how) as project:
        predictor: Any = project.config.predictor
    return str(getattr(predictor, "teacher", predictor).training.loss)


LOSS = "predictor.training.loss"
BOTH, PAIRWISE = {"training": {"loss": "both"}}, {"training": {"loss": "pairwise"}}


@pytest.mark.parametrize(
    ("stored", "changes", "expected"),
    [
        (None, {}, "listwise"),
        ({"name": "gcn"} | BOTH, {}, "both"),
        ({"name": "gcn"}, {}, "listwise"),
        ({"name": "gcn", "training": {"loss": "mse"}}, {}, "listwise"),  # was no default
        ({"name": "gcn"} | BOTH, {"predictor": {"name": "gcn"}, LOSS: "mse"}, "mse"),
        ({"name": "gcn"} | BOTH, {"predictor.training.members": 3}, "both"),
        ({"name": "gcn"} | BOTH, {"predictor": "gcn"}, "both"),
        ({"name": "gcn"} | BOTH, {"predictor": {"name": "gcn", "width": 8}}, "both"),
        ({"name": "gcn"} | BOTH, {"predictor": {"name": "gcn"} | PAIRWISE}, "pairwise"),
        ({"name": "gcn"} | BOTH, {"predictor.name": "distilled"}, "listwise"),
        ({"name": "gcn"} | BOTH, {"predictor.name": "mlp"}, "mse"),
        ({"name": "distilled", "teacher": BOTH}, {"predictor.name": "distilled"}, "both"),
        ({"name": "distilled", "teacher": BOTH}, {}, "listwise"),  # another predictor
    ],
)
def test_a_run_keeps_the_default_that_it_was_made_with(
    tmp_path: Path, stored: dict[str, Any] | None, changes: dict[str, Any], expected: str
) -> None:
    assert loss_of(tmp_path, stored, changes) == expected
