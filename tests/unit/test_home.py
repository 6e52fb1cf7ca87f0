"""`~` in paths that a user gives: on the command line (quoted, after `=`), in Python, settings."""

from __future__ import annotations

from pathlib import Path

import pytest

import hwnas
from hwnas.cli.main import main
from hwnas.core.errors import UserError
from hwnas.core.home import home_expanded


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home folder, which is not the working directory."""
    there, here = tmp_path / "home", tmp_path / "here"
    there.mkdir()
    here.mkdir()
    monkeypatch.setenv("HOME", str(there))
    monkeypatch.chdir(here)
    return there


def test_paths_begin_at_home_and_other_values_stay(home: Path) -> None:
    given = {"a": 1}
    assert home_expanded(given, where="x") is given
    for same in ("a~/b", "./~", "0,1", 7, None, Path("b")):
        assert home_expanded(same, where="x") == same
    assert home_expanded("~", where="x") == str(home)
    assert home_expanded(Path("~/b"), where="x") == home / "b"
    assert home_expanded(["~/b", 1, ("~/c",)], where="x") == [f"{home}/b", 1, (f"{home}/c",)]


@pytest.mark.parametrize("out", [["--out", "~/s.yaml"], ["--out=~/s.yaml"]])
def test_the_command_line_expands_what_the_shell_did_not(
    out: list[str], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ending:
        main(["space", "from-timm", "tinynet_e", *out])
    assert not ending.value.code
    with pytest.raises(SystemExit) as ending:
        main(["space", "count", "~/s.yaml"])
    assert not ending.value.code and (home / "s.yaml").is_file()
    assert not any(Path.cwd().iterdir())


def test_public_functions_expand_paths(home: Path) -> None:
    hwnas.space_from_timm("tinynet_e", out="~/s.yaml")
    assert (home / "s.yaml").is_file() and not any(Path.cwd().iterdir())
    assert hwnas.space("~/s.yaml").size() == hwnas.space(home / "s.yaml").size()


def test_settings_expand_paths_of_spaces_devices_and_weights(home: Path) -> None:
    hwnas.space_from_timm("tinynet_e", out="~/s.yaml")
    (home / "slow.yaml").write_text("schema_version: 1\n")
    (home / "w.safetensors").write_bytes(b"x")
    (home / "c.yaml").write_text(
        "schema_version: 1\nname: c\nspace: ~/s.yaml\ndata: {name: digits}\n"
        "devices: [~/slow.yaml]\nsupernet: {init: ~/w.safetensors}\n"
        "search: {constraints: [{metric: macs, max_fraction_of_largest: 0.5}]}\n"
    )
    with pytest.raises(UserError, match=r"w\.safetensors") as refusal:
        hwnas.plan("run", config="~/c.yaml")
    assert "does not exist" not in str(refusal.value)  # found, and no weights


def test_an_unknown_home_is_an_error_that_names_the_option(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ending:
        main(["space", "from-timm", "tinynet_e", "--out=~nobody.here/s.yaml"])
    assert ending.value.code == 1
    said = capsys.readouterr().err
    assert "the home folder of a path is unknown" in said and "where: --out" in said
    with pytest.raises(UserError, match=r"home folder of a path is unknown[\s\S]*hwnas\.status"):
        hwnas.status("~nobody.here/run")
