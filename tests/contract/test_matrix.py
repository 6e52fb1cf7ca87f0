"""Every space with every builder and every exporter; gaps are named, and are gaps."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

import pytest

import hwnas.builders
from hwnas.core.errors import UserError
from hwnas.exporters import REGISTRY as EXPORTERS
from hwnas.exporters.opened import CannotRunHere
from hwnas.testing.matrix import BUILDERS, GAPS, check_builder, check_exporter, gap
from tests.zoo import SPACES, space


@pytest.mark.parametrize("column", BUILDERS)
@pytest.mark.parametrize("name", SPACES)
def test_builders(name: str, column: str) -> None:
    if reason := gap(space(name, small=True), column):
        with pytest.raises(UserError):
            check_builder(space(name, small=True), column)
        pytest.skip(reason)
    check_builder(space(name, small=True), column)


@pytest.mark.full  # by default: every exporter on one space, and every space in ONNX (the suites)
@pytest.mark.parametrize("column", EXPORTERS.names)
@pytest.mark.parametrize("name", SPACES)
def test_exporters(name: str, column: str, tmp_path: Path) -> None:
    if missing := EXPORTERS.describe(column).missing:
        pytest.skip(f"{', '.join(missing)} is not installed")
    if reason := gap(space(name, small=True), column):
        with pytest.raises(UserError):
            check_exporter(space(name, small=True), column, tmp_path)
        pytest.skip(reason)
    try:
        check_exporter(space(name, small=True), column, tmp_path)
    except CannotRunHere as error:
        pytest.skip(str(error).splitlines()[0])


def test_the_matrix_has_a_column_for_every_builder_and_a_place_for_every_gap() -> None:
    modules = [name for _, name, _ in pkgutil.iter_modules(hwnas.builders.__path__)]
    builders = [
        name
        for name in modules
        if hasattr(importlib.import_module(f"hwnas.builders.{name}"), "network")
    ]
    assert builders
    assert set(builders) == {column.removeprefix("build ").split(":")[0] for column in BUILDERS}
    columns = {*BUILDERS, *EXPORTERS.names}
    names = {space(name).name for name in SPACES}
    assert all(row in names and column in columns for row, column in GAPS)
