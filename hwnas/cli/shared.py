"""Shared code of the verbs: prints results, parses text of the command line."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from hwnas.cli.output import Format, emit

if TYPE_CHECKING:
    from hwnas.api.result import Listing, Result
    from hwnas.latency.table import LatencyTable

__all__ = [
    "names",
    "say_time",
    "show",
    "show_plan",
    "show_planned",
    "show_status",
    "show_table",
    "show_verdict",
    "sizes",
]


def show(result: Result, format: Format) -> None:
    """Prints the result of a public function: `to_dict()` as JSON, or its rows as a table."""
    facts = result.to_dict()
    rows = facts.pop("table")
    if format is Format.table:
        rows = getattr(result, "shown", ()) or rows
    emit(rows, format=format, title=result.title, **facts)


def show_plan(
    folder: Any,
    format: Format,
    *,
    config: str | None = None,
    settings: Any = None,
    only: str | None = None,
) -> None:
    """Prints the plan of a verb with `--dry-run`, after all checks. `only`: as in `plan`."""
    import hwnas

    show_planned(hwnas.plan(folder, config=config, settings=settings, only=only), format)


def show_planned(found: Listing, format: Format) -> None:
    """Prints a plan, the estimated time, and what was checked."""
    import logging

    show_status(found, format)
    log = logging.getLogger("hwnas.cli")
    if format is Format.table and (rows := found.facts.get("latencies")):
        emit(rows, format=format, title="estimated latencies that the space reaches")
    say_time(found)
    is_done = all(row["status"] in ("done", "returns") for row in found if row["now"])
    otherwise = "nothing is left to do" if is_done else "the stages, which are up to date"
    log.info("checked: %s", ", ".join(found.facts["checked"]) or otherwise)
    for text in found.facts["unchecked"]:
        log.info("not checked: %s", text)


def say_time(planned: Listing) -> None:
    """Logs the estimated time of a planned command, unless nothing is left to do."""
    import logging

    from hwnas.core.progress import duration

    if left := planned.facts.get("left_s"):
        is_here = planned.facts.get("is_here", True)
        speed = "on this machine" if is_here else "if the device is as fast as this machine"
        logging.getLogger("hwnas.cli").info("about %s in all %s", duration(left), speed)


def show_verdict(verdict: Any) -> None:
    """Prints the verdict on the winner below a table; `verdict`: its summary or None."""
    if verdict is not None:
        sys.stdout.write(f"{verdict['sentence']}\n")


def show_status(found: Listing, format: Format) -> None:
    """Prints the status of stages, and notes on the data."""
    import logging

    show(found, format)
    for note in found.facts["notes"]:
        logging.getLogger("hwnas.cli").warning("note: %s", note)


def show_table(table: LatencyTable, format: Format, *, path: Any = None) -> None:
    """Prints the description of a table, the quality of its estimates, and its path."""
    import logging

    from hwnas.api.table import describe

    show(describe(table), format)
    if path is not None:
        logging.getLogger("hwnas.cli").info("table: %s", path)


def names(text: str | None) -> list[str] | None:
    """Splits text at commas; None stays None."""
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def sizes(text: str | None) -> list[int] | None:
    """Parses resolutions: integers separated by commas; None stays None.

    Raises:
        UserError: the text has another form.
    """
    from hwnas.core.errors import UserError

    try:
        return None if text is None else [int(size) for size in names(text) or ()]
    except ValueError as error:
        raise UserError(
            "cannot read the resolutions",
            expected="whole numbers of px, separated by commas, e.g. 128,160,192",
            found=text,
            where="--resolutions",
        ) from error
