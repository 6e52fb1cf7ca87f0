"""Shared code of the verbs: prints results, parses texts of the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hwnas.cli.output import Format, emit

if TYPE_CHECKING:
    from hwnas.api.result import Listing, Result
    from hwnas.latency.table import LatencyTable

__all__ = ["names", "show", "show_plan", "show_status", "show_table", "sizes"]


def show(result: Result, format: Format) -> None:
    """Print what a public function returned: `to_dict()` as JSON, or its rows as a table."""
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
    """What a verb with `--dry-run` would run in a run folder, checked; `only`: as of `plan`."""
    import logging

    import hwnas

    found = hwnas.plan(folder, config=config, settings=settings, only=only)
    show_status(found, format)
    log = logging.getLogger("hwnas.cli")
    log.info("checked: %s", ", ".join(found.facts["checked"]) or "nothing is left to do")
    for text in found.facts["unchecked"]:
        log.info("not checked: %s", text)


def show_status(found: Listing, format: Format) -> None:
    """Print the status of stages, and what there is to say of the data."""
    import logging

    show(found, format)
    for note in found.facts["notes"]:
        logging.getLogger("hwnas.cli").warning("note: %s", note)


def show_table(table: LatencyTable, format: Format, *, path: Any = None) -> None:
    """Print what a table is of, how good its estimates are, and where it was written."""
    import logging

    from hwnas.api.table import describe

    show(describe(table), format)
    if path is not None:
        logging.getLogger("hwnas.cli").info("table: %s", path)


def names(text: str | None) -> list[str] | None:
    """Names between commas."""
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def sizes(text: str | None) -> list[int] | None:
    """Whole numbers between commas: resolutions.

    Raises:
        UserError: something else.
    """
    from hwnas.core.errors import UserError

    try:
        return None if text is None else [int(size) for size in names(text) or ()]
    except ValueError as error:
        raise UserError(
            "cannot read the resolutions", expected="px, e.g. 128,160,192", found=text
        ) from error
