"""One search, many devices: whose limits hold for whom."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from pydantic import ValidationError

from hwnas.core.errors import UserError
from hwnas.interfaces import Constraint
from hwnas.pipeline.config import EvaluatorConfig, SearchSection
from hwnas.pipeline.project import Project
from hwnas.pipeline.stages.finetune import role_names
from hwnas.pipeline.stages.search import constraints_for, constraints_on

FRACTION = Constraint("latency_ms", "phone", max_fraction_of_largest=0.4)
PARAMS = Constraint("params", max=1e6)


def project(*constraints: Constraint, per_device: bool = True) -> Project:
    search = SearchSection(constraints=constraints, per_device=per_device)
    devices = {"phone": None, "board": None}
    return cast(Project, SimpleNamespace(config=SimpleNamespace(search=search), devices=devices))


def test_every_device_has_its_own_limits_and_those_of_none() -> None:
    board = Constraint("latency_p95_ms", "board", max=9.0)
    given = project(FRACTION, board, PARAMS)
    assert set(constraints_for(given, "phone")) == {FRACTION, PARAMS}
    assert set(constraints_for(given, "board")) == {board, PARAMS}
    assert constraints_for(given, None) == (FRACTION, board, PARAMS)
    assert constraints_on(project(FRACTION, board, per_device=False), "board") == (FRACTION, board)


def test_a_fraction_is_carried_over_and_milliseconds_are_not() -> None:
    carried = constraints_for(project(FRACTION, PARAMS), "board")
    assert set(carried) == {Constraint("latency_ms", "board", max_fraction_of_largest=0.4), PARAMS}
    with pytest.raises(UserError, match=r"no latency limit for device 'board'[\s\S]*12"):
        constraints_for(project(Constraint("latency_ms", "phone", max=12.0)), "board")


def test_further_devices_winners_are_networks_of_their_own() -> None:
    others = ("largest", "smallest", "random search", "random subnet")
    assert role_names(project(FRACTION)) == ("winner", "winner on board", *others)
    assert role_names(project(FRACTION, per_device=False)) == ("winner", *others)


@pytest.mark.parametrize("wrong", [{"name": "tabular"}, {"records": Path("labels.json")}])
def test_records_and_the_tabular_evaluator_go_together(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="records belong to the tabular evaluator"):
        EvaluatorConfig(**wrong)
