"""Samples on a remote device: which local folder began them, and how they are copied back.

A device has one folder per plan, even if several folders on this machine time the plan. Each local
folder begins without samples, and continues only the samples that it began itself.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shlex
import shutil
from pathlib import Path

from hwnas.core.errors import UserError
from hwnas.core.json_data import strict_json
from hwnas.core.resources import kit_module
from hwnas.core.store import read_json, write_bytes
from hwnas.devices.reach import Reach, call
from hwnas.devices.remote_files import words

__all__ = ["RESULTS", "Unlike", "fetch_samples", "give_samples"]

log = logging.getLogger(__name__)

RESULTS = "results.jsonl"
MOST_HEADER = 1 << 16  # bytes; a longer first line is no header
SIZE = f"if [ -f {RESULTS} ]; then wc -c < {RESULTS}; else echo 0; fi"
HEADER = f"head -n 1 {RESULTS} | head -c {MOST_HEADER}"


class Unlike(UserError):
    """The samples on the device do not continue those on this machine."""


def give_samples(reach: Reach, there: str, plan: Path, results: Path) -> None:
    """Prepares the folder `there` on the device so that new samples continue `results`.

    Samples of another folder or plan are set aside on the device, and restored when that folder
    continues. If `results` is missing, an empty file is made. It marks the samples that are then
    added on the device as its own.
    """
    begin = f"cd {shlex.quote(there)} || exit"
    (size,) = words(reach, f"{begin}\n{SIZE}", "[0-9]{1,18}")
    n_there, own = int(size), _header(results)
    if n_there:
        found = call(reach.command(f"{begin}\n{HEADER}"), where=reach.where).strip()
        if not (_is_of(plan, found) if own == "" else own == found):
            _set_aside(reach, there, found, of_plan=_is_of(plan, found), results=results)
            n_there = 0
    if n_there == 0 and own:
        kept = _aside(own)
        script = f"{begin}\nif [ -f {kept} ]; then mv {kept} {RESULTS}; fi\n{SIZE}"
        n_there = int(words(reach, script, "[0-9]{1,18}")[0])
    if own is None:
        write_bytes(results, b"")
    elif results.stat().st_size > n_there:  # the device lost its results
        reach.push(results, f"{there}/{RESULTS}")


def _set_aside(reach: Reach, there: str, header: str, *, of_plan: bool, results: Path) -> None:
    name, place = _aside(header), f"{reach.where}:{there}"
    if of_plan:
        log.warning(
            "%s has samples of the same models, but of another results folder than %s. They are"
            " kept on the device as %s, until the command is repeated for that other folder. This"
            " timing %s.",
            *(place, results.parent, name),
            f"continues from the samples in {results.parent}"
            if _header(results)
            else "starts from the beginning",
        )
    else:
        log.warning(
            "%s/%s has samples of another plan, or cannot be read. The file is kept there as %s.",
            *(place, RESULTS, name),
        )
    call(
        reach.command(f"cd {shlex.quote(there)} && mv {RESULTS} {name}"),
        where=reach.where,
    )


def fetch_samples(reach: Reach, there: str, results: Path) -> None:
    """Replaces the local results by those of the device, if the device has more samples.

    Raises:
        Unlike: the samples are not a file, or do not continue the local samples.
    """
    arrived = results.with_name(f".{results.name}.arriving")
    _remove(arrived)
    try:
        reach.pull(f"{there}/{RESULTS}", arrived)
        if not arrived.is_file():  # adb copies folders, too
            raise Unlike(
                "the samples on the device are not in a file",
                expected="a file",
                found="a folder",
                where=f"{reach.where}:{there}/{RESULTS}",
                fix="remove this folder from the device",
            )
        if not results.is_file():
            os.replace(arrived, results)
        elif arrived.stat().st_size > results.stat().st_size:
            _require_continued(results, arrived, f"{reach.where}:{there}/{RESULTS}")
            os.replace(arrived, results)
    finally:
        _remove(arrived)


def _require_continued(results: Path, arrived: Path, where: str) -> None:
    """Refuses results that do not begin with the whole lines of those that are here."""
    content = results.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    with open(arrived, "rb") as stream:
        if stream.read(len(whole)) == whole:
            return
    raise Unlike(
        "the samples on the device do not continue those on this machine",
        expected=f"a file that begins with the lines of {results}",
        found="a file that begins with other lines",
        where=where,
        fix="remove one of the two files, and repeat the command",
    )


def _header(results: Path) -> str | None:
    """The first line of results, which is different in every session; empty: not yet whole.

    None: there are no results.
    """
    if not results.is_file():
        return None
    with open(results, "rb") as stream:
        line = stream.readline(MOST_HEADER)
    return line.decode(errors="replace").strip() if line.endswith(b"\n") else ""


def _is_of(plan: Path, header: str) -> bool:
    """Whether a header belongs to results of a plan."""
    try:
        found = strict_json(header)["plan_hash"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return False
    return bool(found == kit_module("bench_protocol").plan_hash(read_json(plan)))


def _aside(header: str) -> str:
    """Name of the file on the device that keeps samples with this header."""
    return f"aside-{hashlib.sha256(header.encode()).hexdigest()[:16]}.jsonl"


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
