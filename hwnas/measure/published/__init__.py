"""Reads published latencies.

`convert` makes tables (one module per format), `networks` reads latencies of whole networks.
"""

from __future__ import annotations

__all__ = ["DOWNLOAD_AGAIN", "OTHER_FORMAT"]

OTHER_FORMAT = (
    "give the format of this file: `hwnas table convert FORMAT FILE`; `hwnas table convert --help`"
    " lists the formats"
)
DOWNLOAD_AGAIN = "copy or download the file again"
