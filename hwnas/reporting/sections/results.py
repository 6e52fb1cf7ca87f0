"""The result table of a report: every network on every device (`results.html.j2`)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

__all__ = ["NetRow", "by_device", "highlights"]


@dataclass(frozen=True)
class NetRow:
    """One network on one device; None = not measured. Rows of one device are consecutive.

    test_top1: accuracy of `file`, the file that the device runs.
    fp32_top1: accuracy of the float32 file, if that is another file.
    is_winner: whether the network is the winner for the device.
    top1_error: standard error of test_top1.
    test_perplexity: of `file`, if it is a language model.
    pace: time that the machine takes now for work that took 1 when the table was measured;
    latencies are at the speed of the table.
    energy_mj, limit_mj: estimated energy of one run, and its limit.
    """

    name: str
    macs: int
    params: int
    test_top1: float | None = None
    forecast_ms: float | None = None
    measured_ms: float | None = None
    constraint_met: bool | None = None
    key: str = ""
    device: str = ""
    file: str = ""
    fp32_top1: float | None = None
    limit_ms: float | None = None
    is_winner: bool = False
    top1_error: float | None = None
    pace: float | None = None
    test_perplexity: float | None = None
    energy_mj: float | None = None
    limit_mj: float | None = None

    @property
    def error(self) -> float | None:
        """Signed relative error of the latency estimate."""
        if self.forecast_ms is None or not self.measured_ms:
            return None
        return self.forecast_ms / self.measured_ms - 1


def by_device(table: Iterable[NetRow]) -> list[tuple[str, list[NetRow]]]:
    """Groups consecutive rows by device: (name of the device, its rows)."""
    return [(name, list(rows)) for name, rows in groupby(table, lambda row: row.device)]


def highlights(table: Iterable[NetRow]) -> list[tuple[str, str]]:
    """Accuracy and latency of the winner of every device, as (value, description)."""
    found, devices = [], by_device(table)
    for device, rows in devices:
        winner = next((row for row in rows if row.is_winner), rows[0])
        there = f" on {device}" if len(devices) > 1 else ""
        if winner.test_perplexity is not None:
            shown = f"{winner.test_perplexity:.1f}"
            found.append((shown, f"test perplexity of the winner{there}"))
        elif winner.test_top1 is not None:
            error = f" \u00b1 {winner.top1_error:.2%}" if winner.top1_error is not None else ""
            found.append((f"{winner.test_top1:.2%}{error}", f"test top-1 of the winner{there}"))
        if winner.measured_ms is not None:
            share = _share(winner.measured_ms, rows)
            found.append((f"{winner.measured_ms:.3g} ms", f"measured latency{there}{share}"))
        elif winner.forecast_ms is not None:
            found.append(
                (f"{winner.forecast_ms:.3g} ms", f"estimated latency{there}, not measured")
            )
        if winner.constraint_met is not None and winner.limit_ms is not None:
            verdict = "limit met" if winner.constraint_met else "limit not met"
            found.append((verdict, f"{winner.limit_ms:.3g} ms{there or ' of latency'}"))
        if winner.error is not None:
            pace = f", machine's pace {winner.pace:.2f}" if winner.pace else ""
            found.append((f"{winner.error:+.1%}", f"error of its latency estimate{there}{pace}"))
    return found


def _share(measured_ms: float, rows: Iterable[NetRow]) -> str:
    largest = next((row for row in rows if row.name == "largest"), None)
    if largest is None or not largest.measured_ms:
        return ""
    return f", {measured_ms / largest.measured_ms:.0%} of the largest"
