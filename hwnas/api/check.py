"""`hwnas check`: finds damaged or altered files of a run folder."""

from __future__ import annotations

from pathlib import Path

from hwnas.api.result import Folder, Listing
from hwnas.core.command import command_line
from hwnas.core.rundir import RunDir
from hwnas.core.store import explained
from hwnas.pipeline.stored import require_run, stored_config
from hwnas.studies.check_run import check_run

__all__ = ["check"]


def check(folder: Folder) -> Listing:
    """Damaged files in a run folder, one per row; no rows if nothing is damaged.

    Files of finished stages are compared with their hashes, and bundles with their manifests.
    Records of settings and data contain a hash of themselves; those of earlier versions have none.
    All other files of hwnas in the folder must be readable. Nothing is changed. The fact `fix` is
    the command that rebuilds files on which results depend.

    Raises:
        UserError: not a run folder, or a folder with links, pipes or devices in it.
    """
    run = RunDir(Path(folder))
    with explained("look into the run folder", run.root):
        run.check()
    require_run(run)
    found = check_run(run)
    rows = [
        {"file": str(damage.file), "stage": damage.stage or None, "problem": damage.problem}
        for damage in found.damages
    ]
    shown = f"{found.hashed} files with a hash, {found.parsed} without"
    facts = {
        "run": str(run.root),
        "hashed": found.hashed,
        "parsed": found.parsed,
        "fix": command_line("run", stored_config(run), "--run", run.root) if rows else None,
    }
    return Listing(rows, title=f"{run.root}: {len(rows)} damaged; {shown}", facts=facts)
