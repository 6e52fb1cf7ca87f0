"""Bundles inside run folders: named instead of a run folder, and removed with their device."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import hwnas
from hwnas.core.errors import UserError
from hwnas.pipeline.bundle import remove_other_bundles


def bundle_of(run: Path, device: str) -> Path:
    folder = run / "bundles" / "main" / device
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")
    return folder


@pytest.mark.parametrize("verb", [hwnas.export, hwnas.finetune, hwnas.search])
def test_verbs_of_runs_name_the_run_folder_of_a_bundle(verb: Any, tmp_path: Path) -> None:
    bundle = bundle_of(tmp_path / "run", "phone")
    with pytest.raises(UserError, match="this is not a run folder") as error:
        verb(bundle)
    assert error.value.found == "a bundle, the result of a run"
    assert error.value.fix == "give the folder of the run"
    (tmp_path / "run" / "config.yaml").write_text("")
    with pytest.raises(UserError, match="this is not a run folder") as error:
        verb(bundle)
    assert error.value.fix == f"give the run folder {tmp_path / 'run'}"


def test_only_bundles_of_devices_that_the_search_has_stay(tmp_path: Path) -> None:
    kept, removed = (bundle_of(tmp_path, device) for device in ("phone", "board"))
    other = tmp_path / "bundles" / "main" / "notes"
    other.mkdir()
    files = SimpleNamespace(bundles=tmp_path / "bundles" / "main")
    project: Any = SimpleNamespace(files=files, devices={"phone": None})
    remove_other_bundles(project)
    assert kept.is_dir() and other.is_dir() and not removed.exists()
