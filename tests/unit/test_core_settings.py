"""Settings are described where they are declared; what tells of them cannot drift from that."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated, Any, Literal

import jsonschema
import pytest
from pydantic import Field

import hwnas
from hwnas.core.config import RETIRED, StrictModel, build_model, settled
from hwnas.core.resources import resource_files
from hwnas.core.settings import Setting, retired_keys, settings_of
from hwnas.core.yaml_data import read_yaml
from hwnas.pipeline.config import ExperimentConfig, load_config

ROOT = Path(__file__).resolve().parents[2]
Size = Annotated[int, Field(ge=1, le=9)]


class Inner(StrictModel):
    rate: Annotated[float, Field(gt=0, lt=1, description="of learning")] = 0.5
    """Not this."""


class Outer(StrictModel):
    kind: Literal["a", "b"]
    """Which."""
    sizes: Annotated[tuple[Size, ...], Field(min_length=2)] = (1, 2)
    name: Annotated[str | None, Field(pattern="^x")] = None
    one: Inner = Inner()
    many: tuple[Inner, ...] = ()
    table: dict[str, int] = Field(default={})


def test_a_setting_is_what_its_field_says() -> None:
    sizes = "length at least 2, each >= 1, <= 9"
    rate = ("number", "0.5", "> 0, < 1", "of learning")
    assert list(settings_of(Outer)) == [
        Setting("kind", (), "a | b", None, "", "Which."),
        Setting("sizes", (), "list of whole number", "[1, 2]", sizes, ""),
        Setting("name", (), "text or null", "null", "matches ^x", ""),
        Setting("one.rate", (), *rate),
        Setting("many.N.rate", (), *rate),
        Setting("table", (), "whole number by text", "{}", "", ""),
    ]


def test_settings_of_variants_say_whose_they_are() -> None:
    found = {(s.key, s.variants) for s in settings_of(ExperimentConfig)}
    assert ("search.searcher.tournament", ("evolution",)) in found
    assert ("export.N.opset", ("onnx",)) in found
    assert ("predictor.teacher.width", ("distilled",)) in found
    assert ("space.stages.N.ops.N.kernel", ("mobile",)) in found
    assert ("search.searcher", ()) in found


def test_every_setting_says_what_it_means() -> None:
    silent = [
        s.key
        for s in settings_of(ExperimentConfig)
        if not s.meaning and not s.key.endswith((".name", ".N.name"))
    ]
    assert silent == []


def test_the_page_is_what_the_settings_say() -> None:
    path = ROOT / "docs" / "make_configuration.py"
    spec = importlib.util.spec_from_file_location("make_configuration", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PAGE.read_text(encoding="utf-8") == module.text(), "run `make docs`"


CONFIGS = resource_files("configs", ".yaml")


@pytest.mark.parametrize("name", CONFIGS)
def test_shipped_configurations_fit_the_schema(name: str) -> None:
    data = read_yaml(CONFIGS[name])
    jsonschema.validate(data, hwnas.config_schema())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train.stpes", 3),
        ("train.steps", -1),
        ("search.searcher", {"name": "evolution", "population": 1}),
        ("devices", []),
        ("schema_version", 2),
    ],
)
def test_the_schema_refuses_what_a_run_refuses(key: str, value: Any) -> None:
    *path, last = key.split(".")
    data = read_yaml(CONFIGS["digits"])
    section = data
    for part in path:
        section = section.setdefault(part, {})
    section[last] = value
    with pytest.raises(hwnas.UserError):
        load_config(data, where="here")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, hwnas.config_schema())


def test_show_tells_the_file_from_defaults_and_changes(tmp_path: Path) -> None:
    found = hwnas.config_show(
        "digits", settings={"train.batch_size": 7, "search.reward.form": "hard"}
    )
    rows = {row["key"]: (row["value"], row["from"]) for row in found}
    assert rows["train.steps"] == (200, "file")
    assert rows["train.batch_size"] == (7, "settings")
    assert rows["search.reward.form"] == ("hard", "settings")
    assert rows["search.reward.weight"] == (0.1, "default")
    assert rows["search.constraints.0.device"] == ("local", "file")
    assert found.facts["config"]["train"]["batch_size"] == 7
    with pytest.raises(hwnas.UserError, match="not a run folder"):
        hwnas.config_show(tmp_path)


def test_explain_takes_sections_items_and_misspellings() -> None:
    assert {row["of"] for row in hwnas.config_explain("search.searcher.population")} == {
        "evolution",
        "optuna",
        "pymoo",
    }
    (opset,) = (row for row in hwnas.config_explain("export.0.opset") if row["of"] == "onnx")
    assert opset["range"] == ">= 18, <= 23" and opset["default"] == "18"
    assert len(hwnas.config_explain("train")) > 20
    with pytest.raises(hwnas.UserError, match=r"train\.steps"):
        hwnas.config_explain("train.stps")


def test_a_retired_setting_stays_in_files_and_hashes_and_is_not_listed() -> None:
    class Section(StrictModel):
        steps: int = 1
        unused: Annotated[float, RETIRED] = 0.5

    class Whole(StrictModel):
        section: Section = Section()

    assert [setting.key for setting in settings_of(Whole)] == ["section.steps"]
    assert list(retired_keys(Whole)) == ["section.unused"]
    built = build_model(Whole, {"section": {"unused": 0.25}}, where="test")
    assert settled(built) == {"section": {"steps": 1, "unused": 0.25}}
    described = Whole.model_json_schema()["$defs"]["Section"]["properties"]
    assert described["unused"]["deprecated"] and "deprecated" not in described["steps"]
