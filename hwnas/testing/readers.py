"""Contract tests of readers of labelled archs: `interfaces.Reader`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwnas.core.errors import UserError
from hwnas.core.plugins import faults
from hwnas.interfaces import Reader, ReaderModule
from hwnas.predictors.open_records import HEAD_CHARS
from hwnas.predictors.readers import REGISTRY
from hwnas.predictors.records import record_set
from hwnas.spaces.load import build_space
from hwnas.spaces.space import SearchSpace
from hwnas.testing.suite import Suite, run_python

__all__ = ["ReaderSuite"]


class ReaderSuite(Suite):
    """Contract of a reader.

    A subclass defines the fixtures `variant` and `example` (a small file of the format). It also
    defines `space` if the reader does not define the space of the archs.
    """

    CONTRACT = ReaderModule

    @pytest.fixture
    def example(self) -> Path:
        """A file with at least two archs."""
        pytest.fail("give the suite's subclass a fixture `example`: a small file of the format")

    @pytest.fixture
    def space(self, variant: Any) -> SearchSpace:
        """The space of the archs."""
        assert variant.READER.space is not None, "override the fixture `space`"
        name, num_classes = variant.READER.space
        return build_space(name, num_classes=num_classes)

    def test_the_module_is_what_its_kind_asks_for(self, variant: Any) -> None:
        """The module has a summary and a `READER`; a reader has no settings."""
        assert (variant.__doc__ or "").strip()
        assert faults(variant, self.CONTRACT, "") == []
        assert isinstance(variant.READER, Reader)

    def test_importing_it_and_its_settings_needs_no_torch(self, variant: Any) -> None:
        """Files can be read on machines without torch."""
        run_python(
            f"import sys, {variant.__name__}\nsys.exit('torch' in sys.modules)",
        )

    def test_the_format_is_recognised_by_this_reader_alone(
        self, variant: Any, example: Path
    ) -> None:
        """No other reader claims the format, so files can be read without `--reader`."""
        head = example.read_text(encoding="utf-8")[:HEAD_CHARS]
        assert variant.READER.matches(head)
        readers = {name: REGISTRY.load(name).READER for name in REGISTRY.names}
        others = {name: reader for name, reader in readers.items() if reader != variant.READER}
        assert [name for name, reader in others.items() if reader.matches(head)] == []
        assert not any(variant.READER.matches(text) for text in ("", "{}", "[]", "a,b\n1,2\n"))

    def test_a_table_holds_archs_of_the_space_and_finite_numbers(
        self, variant: Any, example: Path, space: SearchSpace
    ) -> None:
        """A column maps rows of the table, in ascending order, to finite values."""
        table = variant.READER.read(example, space)
        assert table.space == space
        assert len(table.codes) >= 2 and table.codes.dtype == np.int16
        assert space.validate(table.codes).all()
        assert table.columns
        for column in table.columns.values():
            assert column.rows.shape == column.values.shape
            assert (np.diff(column.rows) >= 0).all()
            assert np.isin(column.rows, np.arange(len(table.codes))).all()
            assert np.isfinite(column.values).all()
        again = variant.READER.read(example, space)
        np.testing.assert_array_equal(again.codes, table.codes)

    def test_scores_are_fractions(self, variant: Any, example: Path, space: SearchSpace) -> None:
        """The target column, in the unit of the reader, becomes one score per arch in [0, 1].

        If the unit is "minus_loss", the scores are the values.
        """
        table = variant.READER.read(example, space)
        scores = record_set(table, variant.READER, None, where=example).scores
        if variant.READER.unit == "minus_loss":
            assert len(scores) >= 2 and ((scores >= -100) & (scores <= 0)).all()
            return
        assert len(scores) >= 2 and ((scores >= 0) & (scores <= 1)).all()
        assert scores.max() > 0.01, "all scores are at most 0.01: are they divided by 100 twice?"

    @pytest.mark.parametrize("damage", ["empty", "half", "binary"])
    def test_a_damaged_file_is_refused(
        self, variant: Any, example: Path, space: SearchSpace, tmp_path: Path, damage: str
    ) -> None:
        """The error is a `UserError`, not an exception of a parser."""
        content = example.read_bytes()
        broken = {"empty": b"", "half": content[: len(content) // 2], "binary": b"\xff\xfe\x00\x01"}
        path = tmp_path / example.name
        path.write_bytes(broken[damage])
        with pytest.raises(UserError):
            record_set(variant.READER.read(path, space), variant.READER, None, where=path)
