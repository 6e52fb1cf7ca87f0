"""Reads the configurations of a run folder and its searches, and plans changes of them.

`config.yaml` is the whole configuration, as last used. `search/<name>/config.yaml` has the sections
that belong to one search, so each search keeps its own.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from hwnas.controller.sections import NAME
from hwnas.core.command import command_line
from hwnas.core.config import settled
from hwnas.core.env import host_facts
from hwnas.core.errors import UserError
from hwnas.core.history import text_of
from hwnas.core.rundir import NewSettings, RunDir
from hwnas.core.store import json_text, sealed
from hwnas.core.yaml_data import is_unaltered, read_yaml, sealed_yaml
from hwnas.pipeline.config import ExperimentConfig, load_config, read_config_data
from hwnas.pipeline.search_files import SettingsFiles

__all__ = [
    "config_data",
    "config_of_search",
    "earlier_config",
    "known_searches",
    "new_settings",
    "require_run",
    "require_same_space",
    "require_search",
    "search_names",
    "search_of_bundle",
    "stored_config",
    "warn_of_edits",
]

log = logging.getLogger(__name__)

OWN = ("devices", "search", "finetune", "alone", "export", "verify")
"""Sections that every search has separately; the others belong to the run folder."""


def stored_config(run: RunDir) -> Path:
    """The configuration with which a run folder was last used."""
    return SettingsFiles(run).config


def search_names(run: RunDir) -> tuple[str, ...]:
    """Names of the searches in the ledger."""
    stages = [stage.partition("/") for stage in run.ledger()]
    return tuple(name for kind, _, name in stages if kind == "search" and re.fullmatch(NAME, name))


def require_search(run: RunDir, name: str) -> None:
    """Refuses a search that is not in the run folder.

    Raises:
        UserError: names the existing searches.
    """
    if name not in (known := known_searches(run)):
        raise UserError(
            f"the run folder has no search {name!r}",
            expected=f"one of {', '.join(map(str, known))}",
            found=name,
            where=run.root,
            fix="give the name of an existing search; for a new search, "
            + command_line("search", run.root, "--name", name),
        )


def search_of_bundle(run: RunDir, bundle: Path, named: str | None) -> str | None:
    """The search that made a bundle of the run folder; None if unknown.

    named: search in the manifest of the bundle. Manifests of earlier versions name none; then the
        path of the bundle determines it.
    """
    names = (named, SettingsFiles(run).search_of_bundle(bundle))
    return next((name for name in names if name in known_searches(run)), None)


def known_searches(run: RunDir) -> tuple[str, ...]:
    """Names of the searches in the ledger, and of the last one."""
    last = str(_name(read_yaml(stored_config(run))))
    return tuple(dict.fromkeys([*search_names(run), last]))


def config_data(
    run: RunDir, config: str | None, changes: Mapping[str, Any] | None
) -> tuple[dict[str, Any], Path]:
    """The configuration, as plain data, to which a command applies `changes`; and its path.

    The data are those of `config`, or of the stored configuration. If `changes` name a search, they
    include the sections of this search.

    Raises:
        UserError: there is no configuration, or it cannot be read.
    """
    if config is not None:
        return read_config_data(config)
    path = require_run(run)
    data, name = read_yaml(path), (changes or {}).get("search.name")
    is_other = isinstance(name, str) and re.fullmatch(NAME, name) and name != _name(data)
    return (data | _own_sections(run, str(name)) if is_other else data), path


def require_run(run: RunDir) -> Path:
    """The stored configuration, which every run folder has.

    Raises:
        UserError: the folder has none.
    """
    path = stored_config(run)
    if not path.exists():
        fix = command_line("run", "quickstart", "--run", run.root) + ", or add --config NAME"
        found = None
        if (run.root / "manifest.json").is_file():
            around = run.root.resolve().parents[2:3]  # RUN/bundles/SEARCH/DEVICE
            known = [path for path in around if stored_config(RunDir(path)).exists()]
            found = "a bundle, the result of a run"
            fix = f"give the run folder {known[0]}" if known else "give the folder of the run"
        raise UserError(
            "this is not a run folder",
            expected="a folder with a config.yaml",
            found=found,
            where=run.root,
            fix=fix,
        )
    return path


def config_of_search(run: RunDir, config: ExperimentConfig, name: str) -> ExperimentConfig:
    """The configuration of another search of the run folder."""
    plain = config.model_dump(mode="json")
    where = SettingsFiles(run).of_search(name)
    return load_config(plain | _own_sections(run, name), {"search.name": name}, where=where)


def _name(data: Mapping[str, Any]) -> Any:
    section = data.get("search")
    return section.get("name", "main") if isinstance(section, dict) else None


def _own_sections(run: RunDir, name: str) -> dict[str, Any]:
    path = SettingsFiles(run).of_search(name)
    found = read_yaml(path) if path.is_file() else {}
    return {key: found[key] for key in OWN if key in found}


def earlier_config(run: RunDir) -> ExperimentConfig | None:
    """The stored configuration; None if there is none, or if it cannot be read."""
    path = stored_config(run)
    try:
        return load_config(read_yaml(path), where=path)
    except UserError:  # missing or broken, so it will be replaced
        return None


def warn_of_edits(path: Path) -> None:
    """Warns if a stored configuration was edited since hwnas wrote it; ignores unreadable ones."""
    with contextlib.suppress(UserError):
        if not is_unaltered(path):
            log.warning("%s: changed by hand, or damaged; its current settings are used", path)


def require_same_space(
    run: RunDir, earlier: ExperimentConfig | None, config: ExperimentConfig
) -> None:
    """Refuses a run folder with results of another space.

    earlier: its `earlier_config`.

    Raises:
        UserError: the stored configuration has another space.
    """
    if earlier is None or earlier.space == config.space or not run.ledger():
        return
    before, now = (c.space.model_dump(mode="json") for c in (earlier, config))
    changed = [key for key in before | now if before.get(key) != now.get(key)]
    raise UserError(
        "the run folder has results of another space",
        expected=", ".join(f"{key}: {before.get(key)}" for key in changed),
        found=", ".join(f"{key}: {now.get(key)}" for key in changed),
        where=run.root,
        fix="use another run folder, or restore the space",
    )


def new_settings(
    run: RunDir,
    earlier: ExperimentConfig | None,
    config: ExperimentConfig,
    *,
    command: str,
    given: tuple[str | None, Mapping[str, Any] | None],
    outside: Mapping[Path, str],
    stored: Callable[[], None],
) -> NewSettings:
    """The changes that a command stores after its checks have passed, and what an undo restores.

    earlier: see `earlier_config`.
    given: `config` and `changes` of the command.
    outside: maps records of outside files to their content, which an undo keeps.
    stored: see `NewSettings`.
    """
    files, name = SettingsFiles(run), config.search.name
    plain = config.model_dump(mode="json")
    texts = {files.config: sealed_yaml(plain), files.of_search(name): _own(plain)}
    texts[files.environment.path] = _host()
    before: dict[Path, str | None] | None = None
    if earlier is not None:
        last, plain = earlier.search.name, earlier.model_dump(mode="json")
        if last != name and last in search_names(run):
            texts[files.of_search(last)] = _own(plain)
        # a search was made with its own sections, even if the configuration was edited since
        made_with = plain | _own_sections(run, last)
        is_edited = made_with != plain
        made = load_config(made_with, where=files.of_search(last)) if is_edited else earlier
        if settled(made) != settled(config):
            before = {path: text_of(path) for path in (*texts, files.data_file)}
            del before[files.environment.path]
            if is_edited:
                before[files.config] = sealed_yaml(made_with)
    return NewSettings(
        _by_name(run, {**texts, **outside}),
        None if before is None else _by_name(run, before),
        command,
        _options(*given),
        stored,
    )


Text = TypeVar("Text", str, "str | None")


def _by_name(run: RunDir, texts: Mapping[Path, Text]) -> dict[str, Text]:
    return {str(path.relative_to(run.root)): text for path, text in texts.items()}


def _own(plain: Mapping[str, Any]) -> str:
    return sealed_yaml({key: plain[key] for key in OWN})


def _host() -> str:
    return json_text(sealed({"schema_version": 1, **host_facts()}))


def _options(config: str | None, changes: Mapping[str, Any] | None) -> str:
    words = [] if config is None else ["--config", config]
    for key, value in (changes or {}).items():
        text = value if isinstance(value, str) else json.dumps(value, default=str)
        words += ["--set", f"{key}={text}"]
    return shlex.join(words)
