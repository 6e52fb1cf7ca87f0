"""`hwnas verify BUNDLE` reads the settings of the search that made the bundle."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

import hwnas
from hwnas.api.verify import BundleCheck
from hwnas.core.errors import UserError
from tests.machine import has_8_bit_products


@pytest.fixture
def run(folder: Path, tmp_path: Path) -> Path:
    """A run whose last search is `other`; the bundle is of `main`, which verifies at batch 3."""
    run = tmp_path / "run"
    shutil.copytree(folder, run)
    file, own = run / "config.yaml", run / "search/main/config.yaml"
    plain: dict[str, Any] = yaml.safe_load(file.read_text())
    own.write_text(yaml.safe_dump({"verify": {"parity_batches": [3]}, "search": plain["search"]}))
    plain["search"] = {**plain["search"], "name": "other"}
    plain["verify"] = {"parity_batches": [1]}
    file.write_text(yaml.safe_dump(plain))
    return run


def batches(bundle: Path, **options: Any) -> set[str]:
    saturates = not has_8_bit_products()  # then the 8 bits of this old bundle are wrong
    found = hwnas.verify(bundle, latency=False, report_only=saturates, **options)
    assert isinstance(found, BundleCheck)
    return {row["batches"] for row in found.models} | {
        note for note in found.notes if "last search" in note
    }


def test_settings_are_those_of_the_search_that_made_the_bundle(run: Path) -> None:
    bundle = run / "bundles/main/local"
    assert batches(bundle) == {"3"}
    assert batches(bundle, settings={"verify.parity_batches": [2]}) == {"2"}
    (run / "search/main/config.yaml").write_text("verify: {parity_batches: [-1]}")
    for check in (hwnas.verify, hwnas.api.verify.bundle_plan):
        with pytest.raises(UserError, match="parity_batches"):
            check(bundle)


def test_a_bundle_that_was_moved_says_its_search_itself(run: Path) -> None:
    bundle = run / "bundles" / "kept"
    (run / "bundles/main/local").rename(bundle)
    found = batches(bundle)  # of an earlier version, which did not note its search
    assert "1" in found and len(found) == 2
    file = bundle / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest["provenance"]["search"] = "main"
    file.write_text(json.dumps(manifest))
    assert batches(bundle) == {"3"}
    manifest["provenance"]["search"] = "../other"
    file.write_text(json.dumps(manifest))
    assert "1" in batches(bundle)
