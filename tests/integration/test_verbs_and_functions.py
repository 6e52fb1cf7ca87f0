"""The command line and Python do not drift: names, arguments, defaults, results, errors."""

from __future__ import annotations

import inspect
import json
import sys
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from click import Command
from typer.core import TyperGroup

import hwnas
from hwnas.api import export as api_export
from hwnas.api import search as api_search
from hwnas.api.list import Kind
from hwnas.cli.main import app
from tests.photos import class_folders

ROOT = Path(__file__).resolve().parents[2]
EPYC = "amd-epyc-2vcpu-mobilenet_v3"
INT8 = "amd-epyc-2vcpu-int8-mobilenet_v3"


CLI_ONLY = {"format", "dry_run"}
PYTHON_ONLY = {"progress"}
EXCEPTIONS = {
    "train": {"processes"},  # of a dry run
    "space": {"in_channels"},
}
FUNCTIONS = {"search": api_search.search_run, "export": api_export.export_run}
OPTIONAL_IN_PYTHON = {
    ("table_convert", "out"),
    ("table_merge", "out"),
    ("pretrained_import", "out"),
}


def commands() -> Iterator[tuple[str, Command]]:
    """(name of the public function, command) of every verb."""

    def walk(words: list[str], command: Command) -> Iterator[tuple[str, Command]]:
        if isinstance(command, TyperGroup):
            for name, inner in command.commands.items():
                yield from walk([*words, name], inner)
        else:
            name = "_".join(words).replace("-", "_")
            yield ("profile" if name == "profile_device" else name), command

    yield from walk([], typer.main.get_command(app))


COMMANDS = dict(commands())


def function(name: str) -> Callable[..., Any]:
    return FUNCTIONS.get(name) or getattr(hwnas, name)


def test_every_verb_has_its_function_and_every_function_its_verb() -> None:
    verbs = set(COMMANDS)
    public = {n for n in (*hwnas.__all__, "list") if inspect.isfunction(getattr(hwnas, n))}
    assert verbs - public == set()
    assert public - verbs == {
        "latency_table",
        "load_bundle",
        "open_run",
        "plan",
        "progress_bars",
        "space",
    }
    assert len(verbs) > 30


@pytest.mark.parametrize(
    ("name", "command"), list(commands()), ids=[name for name, _ in commands()]
)
def test_arguments_and_defaults_are_those_of_the_command(name: str, command: Command) -> None:
    ours = inspect.signature(function(name)).parameters
    theirs = {p.name: p for p in command.params if p.name not in ("help", *CLI_ONLY)}
    exceptions = EXCEPTIONS.get(name, set())
    assert set(theirs) - exceptions == set(ours) - PYTHON_ONLY
    first = [p.name for p in command.params if p.param_type_name == "argument"]
    assert first == list(ours)[: len(first)]
    for option, parameter in ours.items():
        if option in PYTHON_ONLY:
            continue
        is_required = parameter.default is inspect.Parameter.empty
        if (name, option) not in OPTIONAL_IN_PYTHON:
            assert theirs[option].required == is_required, option
        if not is_required:
            assert (theirs[option].default or None) == (parameter.default or None), option
        if option not in first and name != "profile":
            assert parameter.kind is inspect.Parameter.KEYWORD_ONLY, option


@pytest.mark.skipif(sys.version_info < (3, 11), reason="no typing.get_overloads")
@pytest.mark.parametrize(
    ("public", "forms"),
    [
        (
            hwnas.search,
            {
                api_search.search_run: {},
                api_search.search_space: {"per_device": False},
                api_search.search_devices: {"per_device": inspect.Parameter.empty},
            },
        ),
        (hwnas.export, {api_export.export_run: {}, api_export.export_network: {"fetch": False}}),
    ],
)
def test_overloads_are_the_functions_behind_them(public: Any, forms: Any) -> None:
    """`forms`: the functions, and the arguments that `public` itself uses."""

    def facts(form: Callable[..., Any]) -> dict[str, Any]:
        parameters = list(inspect.signature(form).parameters.values())
        return {p.name: p.default for p in parameters[1:]}

    overloads = typing.get_overloads(public)  # type: ignore[attr-defined,unused-ignore]
    expected = [facts(form) | used for form, used in forms.items()]
    assert [facts(form) for form in overloads] == expected


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What the command line writes to stdout; errors pass."""
    capsys.readouterr()
    app(args=list(arguments), standalone_mode=False)
    return capsys.readouterr().out


KINDS = typing.get_args(Kind)
SAME: list[tuple[list[str], Callable[[], Any]]] = [
    *((["list", kind], lambda kind=kind: hwnas.list(kind)) for kind in KINDS),  # type: ignore[misc]
    (["space", "list"], hwnas.space_list),
    (["space", "show", "nasbench201"], lambda: hwnas.space_show("nasbench201")),
    (
        ["space", "show", "mobilenet_tiny", "--set", "resolutions=[16, 24]", "--num-classes", "7"],
        lambda: hwnas.space_show(
            hwnas.space("mobilenet_tiny", resolutions=(16, 24), num_classes=7)
        ),
    ),
    (["space", "models"], hwnas.space_models),
    (["space", "from-timm", "tinynet_e"], lambda: hwnas.space_from_timm("tinynet_e")),
    (["pretrained", "list"], hwnas.pretrained_list),
    (["config", "explain", "search.searcher"], lambda: hwnas.config_explain("search.searcher")),
    (
        ["config", "show", "digits", "--set", "train.steps=7"],
        lambda: hwnas.config_show("digits", settings={"train.steps": 7}),
    ),
    (["space", "count", "mobilenet_tiny"], lambda: hwnas.space_count("mobilenet_tiny")),
    (
        ["space", "sample", "mobilenet_tiny", "-n", "4", "--seed", "3"],
        lambda: hwnas.space_sample("mobilenet_tiny", n=4, seed=3),
    ),
    (
        ["space", "validate", "mobilenet_tiny", "smallest"],
        lambda: hwnas.space_validate("mobilenet_tiny", "smallest"),
    ),
    (["table", "list"], hwnas.table_list),
    (["table", "show", EPYC], lambda: hwnas.table_show(EPYC)),
    (["table", "validate", EPYC], lambda: hwnas.table_validate(EPYC)),
    (["table", "diff", EPYC, INT8], lambda: hwnas.table_diff(EPYC, INT8)),
    (
        ["table", "estimate", EPYC, "--space", "mobilenet_v3", "--resolutions", "160"],
        lambda: hwnas.table_estimate(EPYC, space="mobilenet_v3", resolutions=[160]),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "call"), SAME, ids=[" ".join(a) for a, _ in SAME])
def test_json_is_to_dict(
    arguments: list[str], call: Callable[[], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    shown = json.loads(printed(capsys, *arguments, "--format", "json"))
    found = call()
    assert shown["table"]
    assert shown == json.loads(json.dumps(found.to_dict()))


@pytest.mark.parametrize(
    "verb", ["train", "label", "predictor fit", "search", "finetune", "export", "status"]
)
def test_json_of_a_verb_of_a_run_is_to_dict(
    verb: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = json.loads(printed(capsys, *verb.split(), str(folder), "--format", "json"))
    found = getattr(hwnas, verb.replace(" ", "_"))(folder)
    assert shown["table"] and shown == json.loads(json.dumps(found.to_dict()))


def test_reports_on_photos_are_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = class_folders(tmp_path / "photos", ["ant", "bee"], 8)
    shown = json.loads(printed(capsys, "data", "show", str(root), "--format", "json"))
    assert shown["table"] and shown == hwnas.data_show(root).to_dict()


def test_run_and_predictions_are_the_same(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = str(folder / "config.yaml")
    shown = printed(
        capsys, "run", config, "--run", str(folder), "--report-only", "--format", "json"
    )
    found = hwnas.run(config, folder=folder, report_only=True)
    assert json.loads(shown) == json.loads(json.dumps(found.to_dict()))
    asked = ["analyze", str(folder), "--ranking", "macs", "--format", "json"]
    ranked = hwnas.analyze(folder, ranking="macs").to_dict()
    assert json.loads(printed(capsys, *asked)) == json.loads(json.dumps(ranked))
    assert printed(capsys, "report", str(folder)) == f"{hwnas.report(folder)}\n"
    shown = printed(capsys, "predictor", "predict", str(folder), "largest", "--format", "json")
    assert json.loads(shown) == hwnas.predictor_predict(folder, ["largest"]).to_dict()


def test_a_plan_is_the_dry_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    there = str(tmp_path / "none")
    shown = printed(
        capsys, "run", "digits", "--run", there, "--set", "train.steps=7", "--dry-run",
        "--format", "json",
    )  # fmt: skip
    planned = hwnas.plan(there, config="digits", settings={"train.steps": 7})
    assert json.loads(shown) == planned.to_dict()


OF_A_RUN = ["train", "label", "search", "finetune", "export", "verify", "report", "status", "prune"]
WRONG: list[tuple[list[str], Callable[[], Any]]] = [
    *(([verb, "/none"], lambda verb=verb: getattr(hwnas, verb)("/none")) for verb in OF_A_RUN),  # type: ignore[misc]
    (["space", "show", "mobilenet_tny"], lambda: hwnas.space_show("mobilenet_tny")),
    (
        ["space", "show", "mobilenet_tiny", "--set", "resolution=16"],
        lambda: hwnas.space("mobilenet_tiny", resolution=16),
    ),
    (
        ["space", "validate", "mobilenet_tiny", "1,2"],
        lambda: hwnas.space_validate("mobilenet_tiny", "1,2"),
    ),
    (
        ["pretrained", "import", "/none", "--out", "/none.safetensors"],
        lambda: hwnas.pretrained_import("/none", out="/none.safetensors"),
    ),
    (["table", "show", "no-such-table"], lambda: hwnas.latency_table("no-such-table")),
    (
        ["table", "estimate", EPYC, "--space", "mobilenet_tiny"],
        lambda: hwnas.latency_table(EPYC).estimate(hwnas.space("mobilenet_tiny"), []),
    ),
    (
        ["table", "validate", EPYC, "--max-mape", "0.0001"],
        lambda: hwnas.table_validate(EPYC, max_mape=0.0001),
    ),
    (["profile", "local"], lambda: hwnas.profile("local")),
    (
        ["profile", "no-such-device", "--space", "mobilenet_tiny"],
        lambda: hwnas.profile("no-such-device", "mobilenet_tiny"),
    ),
    (
        ["profile", "local", "--space", "mobilenet_tiny", "--profile", "round=3"],
        lambda: hwnas.profile("local", "mobilenet_tiny", profile_settings={"round": 3}),
    ),
    (["analyze"], hwnas.analyze),
    (["predictor", "eval"], hwnas.predictor_eval),
    (
        ["run", "digits", "--run", "/none", "--set", "train.stpes=3"],
        lambda: hwnas.run("digits", folder="/none", settings={"train.stpes": 3}),
    ),
    (["run", "quickstrat"], lambda: hwnas.run("quickstrat")),
    (["data", "show", "/none"], lambda: hwnas.data_show("/none")),
    (["config", "explain", "search.sercher"], lambda: hwnas.config_explain("search.sercher")),
    (["config", "show", "quickstrat"], lambda: hwnas.config_show("quickstrat")),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "call"), WRONG, ids=[" ".join(a) for a, _ in WRONG])
def test_errors_are_of_one_class_and_text(
    arguments: list[str], call: Callable[[], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(hwnas.HwnasError) as there:
        printed(capsys, *arguments)
    with pytest.raises(hwnas.HwnasError) as here:
        call()
    assert type(here.value) is type(there.value)
    assert str(here.value) == str(there.value)
