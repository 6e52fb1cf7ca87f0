"""What a part of `benchmarks/scale.py` is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Part:
    """sizes: small and large; prepare: writes the input; run: works on it, returns facts.

    imports: loads what every size needs, so that it counts as the baseline.
    """

    sizes: tuple[int, ...]
    prepare: Callable[[int, Path], None]
    run: Callable[[int, Path], dict[str, Any]]
    imports: Callable[[], None] = lambda: None

    def prepared(self, n: int, folder: Path) -> Path:
        """What `run` takes."""
        self.imports()
        return folder
