"""One search, many devices: whose limits hold for whom."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from hwnas.core.errors import UserError
from hwnas.core.progress import silent
from hwnas.core.records import dump
from hwnas.core.rundir import RunDir
from hwnas.interfaces import Constraint
from hwnas.pipeline.config import (
    EvaluatorConfig,
    load_config,
    read_config_data,
)
from hwnas.pipeline.project import Project
from hwnas.pipeline.winners import constraints_for, constraints_on, role_names

FRACTION = Constraint("latency_ms", "phone", max_fraction_of_largest=0.4)
PARAMS = Constraint("params", max=1e6)


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., Project]:
    """Projects for two devices with these constraints."""
    devices = [str(tmp_path / f"{name}.yaml") for name in ("phone", "board")]
    for path in devices:
        Path(path).write_text("schema_version: 1\n")

    def project(*constraints: Constraint, per_device: bool = True) -> Project:
        data, where = read_config_data("digits")
        limits = [dump(constraint, versioned=False) for constraint in constraints]
        changes = {"devices": devices, "search.constraints": limits}
        changes["search.per_device"] = per_device
        config = load_config(data, changes, where=where)
        return Project(RunDir(tmp_path / "run"), config, lambda stage: silent)

    return project


def test_every_device_has_its_own_limits_and_those_of_none(
    made: Callable[..., Project],
) -> None:
    board = Constraint("latency_p95_ms", "board", max=9.0)
    given = made(FRACTION, board, PARAMS)
    assert set(constraints_for(given, "phone")) == {FRACTION, PARAMS}
    assert set(constraints_for(given, "board")) == {board, PARAMS}
    assert constraints_for(given, None) == (FRACTION, board, PARAMS)
    assert constraints_on(made(FRACTION, board, per_device=False), "board") == (FRACTION, board)


def test_a_fraction_is_carried_over_and_milliseconds_are_not(
    made: Callable[..., Project],
) -> None:
    carried = constraints_for(made(FRACTION, PARAMS), "board")
    assert set(carried) == {Constraint("latency_ms", "board", max_fraction_of_largest=0.4), PARAMS}
    with pytest.raises(UserError, match=r"no latency limit for device 'board'[\s\S]*12"):
        constraints_for(made(Constraint("latency_ms", "phone", max=12.0)), "board")


def test_further_devices_winners_are_networks_of_their_own(
    made: Callable[..., Project],
) -> None:
    others = ("largest", "smallest", "random search", "random subnet")
    assert role_names(made(FRACTION)) == ("winner", "winner on board", *others)
    assert role_names(made(FRACTION, per_device=False)) == ("winner", *others)


@pytest.mark.parametrize("wrong", [{"target": "accuracy"}, {"reader": "hwnas"}])
def test_how_records_are_read_needs_records(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=f"found `{next(iter(wrong))}` without `records`"):
        EvaluatorConfig(**wrong)


@pytest.mark.parametrize(
    "key", ["label.source", "search.evaluator.name"], ids=["label.source", "evaluator.name"]
)
def test_a_removed_key_is_accepted_at_its_only_value(key: str) -> None:
    data, where = read_config_data("digits")
    assert load_config(data, {key: "supernet"}, where=where) == load_config(data, where=where)
    with pytest.raises(UserError, match=f"was removed[\\s\\S]*{key}"):
        load_config(data, {key: "tabular"}, where=where)
