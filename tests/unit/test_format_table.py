"""Timing of the table of all formats: a runtime that fails is asked once."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from hwnas.core.errors import UserError
from hwnas.interfaces import ModelFile
from hwnas.spaces.arch import Arch
from hwnas.studies import format_table


class Opened:
    """A runtime that crashes at the given call."""

    def __init__(self, crashes_at: int | None) -> None:
        self.model, self.n_calls, self.crashes_at = SimpleNamespace(untimed=""), 0, crashes_at

    def times(self, x: Any, n: int) -> list[float]:
        self.n_calls += 1
        if self.n_calls == self.crashes_at:
            raise UserError("the runtime crashed")
        return [2.0] * n


def test_a_file_that_cannot_be_timed_is_left_out_of_the_other_rounds() -> None:
    arch = Arch("space", (0,))
    exported = SimpleNamespace(model=ModelFile("m", "onnx", "fp32", batch=1), files=())
    files = []
    for crashes_at in (None, 1, 3):
        one = format_table._File(arch, exported, "onnx")  # type: ignore[arg-type]
        one.opened = Opened(crashes_at)  # type: ignore[assignment]
        files.append(one)
    format_table._time(files, {arch: np.zeros((1, 3, 4, 4), np.float32)}, lambda *_: None)
    calls = [one.opened.n_calls for one in files]  # type: ignore[union-attr]
    assert calls == [format_table.ROUNDS + 1, 1, 3]
    assert files[0].facts == {"ms": 2.0, "spread": 0.0} and not files[0].notes
    for one in files[1:]:
        assert one.notes == ["not timed: the runtime crashed"] and not one.facts
