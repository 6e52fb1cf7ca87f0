"""Lists files that can be removed, because hwnas makes them again when it needs them.

Files that a run needs are not listed: those of finished and half-finished stages, samples, the
journal, and the files that the next `hwnas undo` restores.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from hwnas.core.beside import PARTIAL
from hwnas.core.env import cache_folder
from hwnas.core.errors import UserError
from hwnas.core.history import undone_by
from hwnas.core.leftover import Leftover, left_behind
from hwnas.core.rundir import OWNED, REBUILT, RunDir
from hwnas.core.store import read_json
from hwnas.core.versions import FACTS, set_aside_folders
from hwnas.interfaces import CleaningTransport, Transport
from hwnas.latency.plan import PLAN, plan_in
from hwnas.pipeline.search_files import ROUNDS

__all__ = ["caches", "kits", "of_run", "of_timings", "samples_of"]

CACHES = {
    "decoded": "decoded images",
    "hashes": "hashes of image files",
}
"""Folders of the cache, with their contents. `exported/` is not listed: `hwnas verify` runs
exported programs only if they are recorded there.
"""


def caches() -> list[Leftover]:
    """Caches of the user; none without a home folder."""
    try:
        folder = cache_folder()
    except UserError:
        return []
    places = {folder / name: f"cache: {what}" for name, what in CACHES.items()}
    return [left_behind(what, place) for place, what in places.items() if place.is_dir()]


def of_run(run: RunDir, *, with_undo: bool = False) -> list[Leftover]:
    """Superseded files, timed models, and partial files of a run folder.

    with_undo: also the superseded files that the next undo would restore.
    """
    rounds = [RunDir(path) for path in sorted(run.root.glob(f"{ROUNDS}/*")) if path.is_dir()]
    found = []
    for one in (run, *rounds):
        needed = set() if with_undo else undone_by(one)
        for path in set_aside_folders(one):
            gone = left_behind("superseded files", path, first=FACTS)
            is_needed = str(path.relative_to(one.root)) in needed
            found.append(_kept(gone, "`hwnas undo` restores it") if is_needed else gone)
    owned = [path for pattern in OWNED for path in sorted(run.root.glob(pattern)) if path.is_dir()]
    plans = [plan for path in owned for plan in sorted(path.rglob(PLAN))]
    set_aside = {path for one in (run, *rounds) for path in set_aside_folders(one)}
    found += [
        left
        for plan in plans
        if not set_aside & set(plan.parents) and _is_timed(plan)
        for left in of_timings(plan.parent)
    ]
    partial = [file for path in owned for file in sorted(path.rglob(f".*{PARTIAL}"))]
    found += [
        left_behind("file of a process that was killed", path)
        for path in partial
        if path.is_file() and not set_aside & set(path.parents)
    ]
    return found


def of_timings(folder: Path) -> Iterator[Leftover]:
    """Models of a folder of timings, and packed kits whose results are in the folder already.

    Raises:
        UserError: not a folder of timings.
    """
    if not _is_timed(folder / PLAN):
        raise UserError(
            "neither a run folder nor a folder of timings",
            expected="a run folder (it has config.yaml), or a folder TABLE.samples that `hwnas"
            f" profile` made (it has {PLAN})",
            found=f"a {PLAN} that `hwnas profile` did not make"
            if (folder / PLAN).exists()
            else f"neither config.yaml nor {PLAN}",
            where=folder,
        )
    if (folder / REBUILT).is_dir():
        yield left_behind("models that were timed", folder / REBUILT)
    for kit in sorted(folder.glob("results-*-kit.zip")):
        if kit.with_name(kit.name.replace("-kit.zip", ".jsonl")).is_file():
            yield left_behind("packed kit", kit)


def _is_timed(path: Path) -> bool:
    """Whether a file is a plan of hwnas: other programs have files of this name, and models."""
    try:
        plan = read_json(path)
        return bool(plan_in(path.parent, plan).ids) and all(
            item["file"].startswith(f"{REBUILT}/") and item["sha256"] for item in plan["items"]
        )
    except (UserError, AttributeError, KeyError, TypeError):
        return False


def kits(transport: Transport, home: dict[str, int]) -> list[Leftover]:
    """Kits on a device; see `CleaningTransport`."""
    return transport.leftovers(home) if isinstance(transport, CleaningTransport) else []


def samples_of(run: RunDir, device: str) -> dict[str, int]:
    """Sizes in bytes of a device's results files in the run folder, by name."""
    found: dict[str, int] = {}
    for path in run.root.rglob(f"{device}/results-*.jsonl"):
        found[path.stem] = max(path.stat().st_size, found.get(path.stem, 0))
    return found


def _kept(left: Leftover, why: str) -> Leftover:
    return Leftover(left.what, left.where, 0, left.remove, f"{left.n_bytes / 1e6:.1f} MB: {why}")
