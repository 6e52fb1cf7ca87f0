"""Run folders of earlier versions, which `tests/golden/runs` keeps as archives."""

from __future__ import annotations

import tarfile
from pathlib import Path

RUNS = Path(__file__).resolve().parent / "golden" / "runs"


def unpack(archive: Path, into: Path) -> Path:
    """Unpacks an archive of this repository, or one that a test has built; returns `into`.

    Its members are checked by `tarfile` where the patch release of Python can do so (3.10.12,
    3.11.4 and later); earlier ones unpack the same files.
    """
    with tarfile.open(archive) as tar:
        tar.extraction_filter = getattr(tarfile, "data_filter", None)
        tar.extractall(into)
    return into


def unpacked_run(name: str, parent: Path) -> Path:
    """The run folder `name` (`finished`, `half_train`, `half_search`), unpacked into `parent`."""
    return unpack(RUNS / f"{name}.tar.xz", parent) / name
