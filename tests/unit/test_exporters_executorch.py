"""ExecuTorch: which operators XNNPACK runs, and files that are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from hwnas.core.errors import UserError
from hwnas.exporters.pte import Delegation


def test_the_share_of_operators() -> None:
    assert Delegation(3, ("aten::mean",)).share == 0.75
    assert Delegation(0, ()).share == 0
    assert Delegation(7, ()).share == 1


def test_a_file_that_is_no_program_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("executorch", reason="pip install 'hwnas[executorch]'")
    from hwnas.exporters.pte import delegation, executorch_model

    for content in (b"", b"no program", b"\xff" * 64):
        with pytest.raises(UserError, match=r"not a \.pte file"):
            delegation(content)
        (tmp_path / "m.pte").write_bytes(content)
        with pytest.raises(UserError, match=r"not a \.pte file"):
            executorch_model(tmp_path / "m.pte")
