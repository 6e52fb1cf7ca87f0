"""Reads published latencies.

`convert` makes tables (one module per format), `networks` reads latencies of whole networks.
"""

from __future__ import annotations

from collections.abc import Iterable

from hwnas.core.errors import UserError, did_you_mean

__all__ = ["DOWNLOAD_AGAIN", "OTHER_FORMAT", "unknown_column"]

OTHER_FORMAT = (
    "give the format of this file: `hwnas table convert FORMAT FILE`; `hwnas table convert --help`"
    " lists the formats"
)
DOWNLOAD_AGAIN = "copy or download the file again"


def unknown_column(problem: str, column: str, known: Iterable[str]) -> UserError:
    """The error to raise for a device or a column that the published file does not have."""
    names = tuple(known)
    return UserError(
        problem,
        expected=f"one of {', '.join(names)}",
        found=column,
        where="--device",
        fix=did_you_mean(column, names, otherwise="use one of the expected names"),
    )
