"""`hwnas doctor`: versions, optional packages, devices, caches, and what is slow here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from hwnas.api.result import Listing, Row
from hwnas.studies.installation import installation, optional_packages, rivals
from hwnas.studies.machine import caches, devices, memory, processors

__all__ = ["doctor"]

SHOWN_ALONE = ("hwnas", "python")


def doctor() -> Listing:
    """Checks the installation and this machine. Nothing is changed, downloaded or sent.

    Other distributions that install a module `hwnas` are named, because they overwrite files of
    this package.

    Returns:
        A row per fact: `about` (versions, name, optional, devices, processors, memory, caches),
            `what`, `found`, `state` and `fix`. A state is `ok`, `absent` (something optional),
            `slow` (work takes longer than it needs to, or timings are noisy), or `problem`
            (commands fail). Facts: how many are a `problem`, and how many `slow`.
    """
    found = [
        *rivals(),
        *installation(),
        *optional_packages(),
        *devices(),
        *processors(),
        *memory(),
        *caches(),
    ]
    n = {state: sum(one.state == state for one in found) for state in ("problem", "slow", "absent")}
    title = f"{n['problem']} problems, {n['slow']} slow, {n['absent']} optional parts absent"
    rows = [{**asdict(one), "fix": one.fix or None} for one in found]
    facts = {"problems": n["problem"], "slow": n["slow"]}
    return Listing(rows, title=title, facts=facts, shown=_short(rows))


def _short(rows: Sequence[Row]) -> list[Row]:
    """The rows for a terminal: required packages that are as they should be share a row."""
    is_usual = [
        row["about"] == "versions" and row["state"] == "ok" and row["what"] not in SHOWN_ALONE
        for row in rows
    ]
    usual = [row for row, joins in zip(rows, is_usual, strict=True) if joins]
    others = [row for row, joins in zip(rows, is_usual, strict=True) if not joins]
    if not usual:
        return others
    found = ", ".join(f"{row['what']} {row['found']}" for row in usual)
    joined = {**usual[0], "what": f"{len(usual)} packages", "found": found}
    position = sum(row["about"] in ("name", "versions") for row in others)
    return [*others[:position], joined, *others[position:]]
