"""Every option of every verb changes something, or is refused where it does not apply."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hwnas
from hwnas.api.result import Listing
from hwnas.cli.main import app
from hwnas.core.errors import UserError
from tests.integration.test_verbs_and_functions import COMMANDS

# --- what is given arrives -----------------------------------------------------------------------

NO_ARGUMENT = {"format", "help", "dry_run"}  # how the result is printed; what is done at all
SAMPLES: dict[str, list[str]] = {
    "config": ["--config", "wpnas"],
    "settings": ["--set", "x.y=3"],
    "folder": ["--run", "elsewhere"],
    "run": ["--run", "elsewhere"],
    "report_only": ["--report-only"],
    "with_undo": ["--with-undo"],
    "yes": ["--yes"],
    "space": ["--space", "mobilenet_v2"],
    "resolutions": ["--resolutions", "16,24"],
    "num_classes": ["--num-classes", "7"],
    "profile_settings": ["--profile", "rounds=7"],
    "out": ["--out", "elsewhere.json"],
    "seed": ["--seed", "7"],
    "processes": ["--processes", "2"],
    "source": ["--source", "trained"],
    "formats": ["--formats", "int8"],
    "devices": ["--devices", "local_int8"],
    "search": ["--search", "other"],
    "name": ["--name", "other"],
    "latency": ["--no-latency"],
    "trust": ["--trust"],
    "records": ["--records", "file.csv"],
    "reader": ["--reader", "nasbench201"],
    "target": ["--target", "top1"],
    "ranking": ["--ranking", "params"],
    "truth": ["--truth", "file.json"],
    "table": ["--table", "file.json"],
    "prune": ["--prune", "file.yaml"],
    "prune_fraction": ["--prune-fraction", "0.3"],
    "fraction": ["--fraction", "0.3"],
    "steps": ["--steps", "7"],
    "fresh": ["--fresh"],
    "also": ["--also", "column"],
    "proxy": ["--proxy", "column"],
    "predictor": ["--predictor", "ridge"],
    "train_size": ["--train-size", "70"],
    "seeds": ["--seeds", "7"],
    "baselines": ["--no-baselines"],
    "restrict": ["--restrict", "a=[1]"],
    "base": ["--base", "largest"],
    "free": ["--free", "stage2.*"],
    "limits": ["--max", "macs=3"],
    "top": ["--top", "7"],
    "max_mape": ["--max-mape", "0.3"],
    "max_p95": ["--max-p95", "0.3"],
    "min_tau": ["--min-tau", "0.3"],
    "device": ["--device", "pixel"],
    "arch": ["--arch", "largest"],
    "known": ["--from", "another"],
    "n": ["--n", "7"],
    "licence": ["--licence", "MIT"],
    "images": ["--images", "photos"],
    "names": ["--names", "lcnet_050"],
    "train": ["--train", "lcnet_050"],
    "fetch": ["--fetch"],
    "with_runtime": ["--with-runtime", "arm64"],
}
SPECIAL = {("space_sample", "n"): ["--number", "7"]}
REQUIRED: dict[str, list[str]] = {
    "profile_pack": ["--out", "a.zip"],
    "pretrained_import": ["--out", "a.safetensors"],
    "table_convert": ["--out", "a.json"],
    "table_merge": ["--out", "a.json"],
    "table_transfer": ["--from", "known", "--out", "a.json"],
    "table_estimate": ["--space", "mobilenet_v3"],
}
OF_THE_EXIT_STATUS = {("run", "report_only"), ("verify", "report_only")}
"""The command line itself heeds them, after the function has returned."""

NOT_PLANNED = OF_THE_EXIT_STATUS | {
    ("clean", "yes"),  # nothing is asked, nothing is removed
    ("profile", "out"),
    ("profile", "seed"),
    ("table_transfer", "out"),
    ("prune", "steps"),
    ("prune", "fresh"),
    ("references", "out"),
    ("references", "seed"),
}
"""Of the command that a dry run is of; they change nothing that it shows."""

ELSEWHERE = {
    ("references", "run"),
    ("profile", "run"),
    ("profile", "config"),
    ("verify", "latency"),
    ("verify", "trust"),
}
"""Of one of two modes; below."""

NOT_DRY = {("export", "fetch"), ("profile", "fetch")}
"""Refused with `--dry-run`: a dry run downloads nothing."""


class Done(Exception):
    """The function behind a verb was called."""


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """What a command line calls with which arguments; nothing is done."""
    seen: list[str] = []

    def record(name: str, result: Any = None) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            kwargs.pop("progress", None)
            seen.append(f"{name} {args} {sorted(kwargs.items(), key=str)}")
            if result is None:
                raise Done
            return result

        return call

    nothing = Listing([], facts={"notes": [], "checked": [], "unchecked": []})
    for name in COMMANDS:
        monkeypatch.setattr(hwnas, name, record(name))
    monkeypatch.setattr(hwnas, "latency_table", lambda table: None)
    monkeypatch.setattr("hwnas.cli.table.show_table", lambda *a, **k: None)
    monkeypatch.setattr(hwnas, "plan", record("plan", nothing))
    for name in (
        "profile.profile_plan",
        "table.transfer_plan",
        "prune.prune_plan",
        "verify.bundle_plan",
        "references.references_plan",
        "export.export_plan",
    ):
        monkeypatch.setattr(f"hwnas.api.{name}", record(name, nothing))
    for name in ("train.log_training_cost", "label.log_trained_cost"):
        monkeypatch.setattr(f"hwnas.api.{name}", record(name, True))

    def run(*arguments: str) -> list[str]:
        seen.clear()
        with contextlib.suppress(Done):
            app(args=list(arguments), standalone_mode=False)
        return [*seen]

    return run


def words(name: str) -> list[str]:
    """A verb with the arguments and options that it cannot do without."""
    verb = "profile_device" if name == "profile" else name
    arguments = [
        {"kind": "spaces", "tables": "one two"}.get(str(p.name), "digits").split()
        for p in COMMANDS[name].params
        if p.param_type_name == "argument"
    ]
    given = [part.replace("_", "-") for part in verb.split("_", 1)]  # group and verb
    return [*given, *(word for some in arguments for word in some), *REQUIRED.get(name, [])]


def options(*, dry: bool) -> list[tuple[str, str]]:
    """Every verb with every option of its own; `dry`: of the verbs that have dry runs."""
    return [
        (name, str(option.name))
        for name, command in COMMANDS.items()
        if not dry or any(p.name == "dry_run" for p in command.params)
        for option in command.params
        if option.param_type_name == "option" and option.name not in NO_ARGUMENT
    ]


def sample(name: str, option: str) -> list[str]:
    return SPECIAL.get((name, option)) or SAMPLES[option]


@pytest.mark.parametrize(("name", "option"), options(dry=False), ids=str)
def test_an_option_reaches_the_function(name: str, option: str, calls: Any) -> None:
    if (name, option) in OF_THE_EXIT_STATUS:
        return
    if (name, option) == ("train", "processes"):
        with pytest.raises(UserError, match=r"(?s)--processes.*without --dry-run.*fix.*torchrun"):
            calls(*words(name), *sample(name, option))
        return
    plain, changed = calls(*words(name)), calls(*words(name), *sample(name, option))
    assert len(changed) == 1 and changed != plain


@pytest.mark.parametrize(("name", "option"), options(dry=True), ids=str)
def test_an_option_reaches_the_dry_run(name: str, option: str, calls: Any) -> None:
    if (name, option) in NOT_PLANNED | ELSEWHERE:
        return
    if (name, option) in NOT_DRY:
        with pytest.raises(UserError, match=rf"(?s)--{option} does not apply to a dry run.*fix"):
            calls(*words(name), *sample(name, option), "--dry-run")
        return
    plain = calls(*words(name), "--dry-run")
    changed = calls(*words(name), *sample(name, option), "--dry-run")
    assert plain and changed != plain


# --- what does not apply is refused --------------------------------------------------------------

SPACE = "mobilenet_tiny"
REFUSED: dict[str, tuple[str, Callable[[Path, Path], Any]]] = {
    **{
        f"profile --run {option}": (
            option,
            lambda run, bundle, given=given: hwnas.profile("local", run=run, **given),
        )
        for option, given in {
            "--space": {"space": SPACE},
            "--resolutions": {"resolutions": [16]},
            "--num-classes": {"num_classes": 1000},
            "--out": {"out": "table.json"},
            "--seed": {"seed": 0},
        }.items()
    },
    **{
        f"references --run {option}": (
            option,
            lambda run, bundle, given=given: hwnas.references(run=run, **given),
        )
        for option, given in {
            "--device": {"device": "local"},
            "--num-classes": {"num_classes": 10},
            "--profile": {"profile_settings": {"min_rounds": 3}},
            "--out": {"out": "r.json"},
            "--seed": {"seed": 0},
        }.items()
    },
    **{
        f"references --device {option}": (
            option,
            lambda run, bundle, given=given: hwnas.references(device="local", **given),
        )
        for option, given in {
            "--train": {"train": ["lcnet_050"]},
            "--search": {"search": "main"},
            "--set": {"settings": {"seed": 1}},
        }.items()
    },
    "references --names twice": (
        "--names",
        lambda run, bundle: hwnas.references(
            run=run, names=["lcnet_050"], settings={"search.references.names": ["lcnet_075"]}
        ),
    ),
    "profile --run --profile twice": (
        "--profile rounds",
        lambda run, bundle: hwnas.profile(
            "local", run=run, settings={"profile.rounds": 7}, profile_settings={"rounds": 8}
        ),
    ),
    "profile --config without --run": (
        "--config",
        lambda run, bundle: hwnas.profile("local", SPACE, config="digits"),
    ),
    "profile --fetch of a device without downloads": (
        "--fetch",
        lambda run, bundle: hwnas.profile("local", SPACE, fetch=True),
    ),
    "export --fetch of formats without downloads": (
        "--fetch",
        lambda run, bundle: hwnas.export(run, formats=["onnx"], fetch=True),
    ),
    "--resolutions twice": (
        "--resolutions",
        lambda run, bundle: hwnas.profile(
            "local", SPACE, resolutions=[16], settings={"resolutions": [24]}
        ),
    ),
    "label --n twice": (
        "--n",
        lambda run, bundle: hwnas.label(run, n=9, settings={"label.n_archs": 8}),
    ),
    "label --source trained --n twice": (
        "--n",
        lambda run, bundle: hwnas.label(
            run, source="trained", n=9, settings={"label.trained": {"n": 8}}
        ),
    ),
    "search --devices twice": (
        "--devices",
        lambda run, bundle: hwnas.search(run, devices=["local"], settings={"devices": ["local"]}),
    ),
    "search --devices against per_device": (
        "--devices",
        lambda run, bundle: hwnas.search(
            run, devices=["local"], settings={"search.per_device": False}
        ),
    ),
    "search --name twice": (
        "search.name",
        lambda run, bundle: hwnas.search(run, name="a", settings={"search.name": "b"}),
    ),
    "finetune --search twice": (
        "the name of a search",
        lambda run, bundle: hwnas.finetune(run, search="a", settings={"search": {"name": "b"}}),
    ),
    "verify BUNDLE --search": (
        "--search",
        lambda run, bundle: hwnas.verify(bundle, search="main"),
    ),
    "export --formats twice": (
        "--formats",
        lambda run, bundle: hwnas.export(run, formats=["int8"], settings={"export": ["onnx"]}),
    ),
    "verify RUN --no-latency": (
        "--no-latency",
        lambda run, bundle: hwnas.verify(run, latency=False),
    ),
    "verify RUN --trust": ("--trust", lambda run, bundle: hwnas.verify(run, trust=True)),
    "verify BUNDLE --set of no check": (
        "--set",
        lambda run, bundle: hwnas.verify(bundle, settings={"train.steps": 3}),
    ),
    **{
        f"predictor eval RUN {option}": (
            option,
            lambda run, bundle, given=given: hwnas.predictor_eval(run, **given),
        )
        for option, given in {
            "--reader": {"reader": "hwnas"},
            "--target": {"target": "top1"},
            "--also": {"also": ["top1"]},
            "--proxy": {"proxy": ["macs"]},
            "--space": {"space": SPACE},
            "--num-classes": {"num_classes": 10},
            "--set": {"settings": {"resolutions": [16]}},
        }.items()
    },
    **{
        f"analyze RUN {option}": (
            option,
            lambda run, bundle, given=given: hwnas.analyze(run, **given),
        )
        for option, given in {
            "--reader": {"reader": "hwnas"},
            "--target": {"target": "top1"},
            "--table": {"table": ["amd-epyc-2vcpu-mobilenet_v3"]},
        }.items()
    },
    "analyze --records --truth": (
        "--truth",
        lambda run, bundle: hwnas.analyze(records="file.csv", truth=["file.json"]),
    ),
    "a space that is built --num-classes": (
        "num_classes",
        lambda run, bundle: hwnas.space_show(hwnas.space(SPACE), num_classes=7),
    ),
    "report --search of none": ("other", lambda run, bundle: hwnas.report(run, search="other")),
    "open_run of no search": ("mian", lambda run, bundle: hwnas.open_run(run, search="mian")),
}


@pytest.mark.parametrize("mode", REFUSED)
def test_what_does_not_apply_is_refused(mode: str, folder: Path) -> None:
    option, call = REFUSED[mode]
    before = (folder / "config.yaml").read_bytes()
    bundle = folder / "bundles" / "main" / "local"
    with pytest.raises(UserError) as refused:
        call(folder, bundle)
    assert option in str(refused.value)
    assert refused.value.fix and (refused.value.found or refused.value.expected)
    assert (folder / "config.yaml").read_bytes() == before


def test_a_bundle_by_itself_takes_no_settings(folder: Path, tmp_path: Path) -> None:
    bundle = folder / "bundles" / "main" / "local"
    alone = shutil.copytree(bundle, tmp_path / "bundle")
    for planned in (False, True):
        with pytest.raises(UserError, match=r"(?s)--set does not apply to a bundle.*--config"):
            verify(alone, {"verify.max_forecast_error": 0.3}, planned)


def verify(bundle: Path, settings: dict[str, Any], planned: bool) -> None:
    if planned:
        from hwnas.api.verify import bundle_plan

        bundle_plan(bundle, settings=settings)
    else:
        hwnas.verify(bundle, settings=settings)


@pytest.mark.parametrize("out", ["file/table.json", "."])
def test_a_path_where_nothing_can_be_written_is_refused_at_once(
    out: str, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    there, epyc = tmp_path / out, "amd-epyc-2vcpu-mobilenet_v3"
    asked: dict[str, Any] = {"space": SPACE, "out": there}
    for call in (
        lambda: hwnas.profile("local", **asked),
        lambda: hwnas.references(device="local", out=there),
        lambda: hwnas.profile_pack("local", **asked),
        lambda: hwnas.profile_import("local", tmp_path / "file", **asked),
        lambda: hwnas.table_transfer("local", known=[epyc], **asked),
        lambda: hwnas.table_convert("pixel1", tmp_path / "file", out=there),
        lambda: hwnas.predictor_export_lut(folder, out=there),
        lambda: hwnas.analyze(folder, ranking="macs", prune=there),
    ):
        with pytest.raises(UserError, match=r"(?s)cannot write the file.*expected.*found.*fix"):
            call()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


def test_a_table_gets_a_name_by_which_it_is_recognised(tmp_path: Path) -> None:
    """`hwnas.latency_table` reads names without `.json` as those of shipped tables."""
    there, epyc = tmp_path / "table.parquet", "amd-epyc-2vcpu-mobilenet_v3"
    asked: dict[str, Any] = {"space": SPACE, "out": there}
    for call in (
        lambda: hwnas.profile("local", **asked),
        lambda: hwnas.references(device="local", out=there),
        lambda: hwnas.profile_import("local", tmp_path / "file", **asked),
        lambda: hwnas.table_transfer("local", known=[epyc], **asked),
        lambda: hwnas.table_convert("pixel1", tmp_path / "file", out=there),
        lambda: hwnas.table_merge([epyc, epyc], out=there),
    ):
        with pytest.raises(UserError, match=r"(?s)ends with \.json.*parquet.*table\.json"):
            call()
    assert not any(tmp_path.iterdir())


# --- profile --run --------------------------------------------------------------------------------


@pytest.mark.parametrize("is_dry", [False, True])
def test_profiling_for_a_run_takes_its_settings(
    folder: Path, is_dry: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--set` and `--profile` reach the configuration, wrong ones are refused."""
    dry = ["--dry-run"] * is_dry
    asked = ["profile", "local", "--run", str(folder)]
    for wrong, message in (
        (["--set", "foo.bar=3"], "foo: unknown key"),
        (["--profile", "round=3"], "profile.round: unknown key"),
        (["--resolutions", "16"], "--resolutions does not apply to a run folder"),
        (["--out", "t.json"], "--out does not apply"),
    ):
        with pytest.raises(UserError, match=message.replace(".", r"\.")):
            app(args=[*asked, *wrong, *dry], standalone_mode=False)
    with pytest.raises(UserError, match=r"(?s)'local_fp16' is not a device of this run.*devices="):
        app(args=["profile", "local_fp16", "--run", str(folder), *dry], standalone_mode=False)
    if is_dry:
        changed = ["--profile", "rounds=7", "--set", "profile.n_validation=9"]
        app(args=[*asked, *changed, *dry, "--format", "json"], standalone_mode=False)
        planned = capsys.readouterr().out
        assert "9 whole networks" in planned and "x 7 rounds" in planned


def test_another_device_of_the_same_name_is_not_taken_for_the_runs(
    folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "local.yaml").write_text("schema_version: 1\nbatch: 4\n")
    with pytest.raises(
        UserError, match=r"(?s)called 'local'.*expected: batch: 1\n  found: batch: 4\n"
    ):
        hwnas.profile(str(tmp_path / "local.yaml"), run=folder)


def test_a_check_of_a_bundle_reads_the_sections_that_it_says() -> None:
    from hwnas.api.bundle_source import READ_OF_SETTINGS
    from hwnas.pipeline.config import ExperimentConfig

    assert set(READ_OF_SETTINGS) < set(ExperimentConfig.model_fields)
