"""Reads results files of the device kit as untrusted input.

Every number is checked before memory is allocated for it. Duplicate entries, and results of another
plan, are refused. `samples` computes statistics.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hwnas.core.errors import Invalid, UserError, parts_of
from hwnas.core.store import iter_jsonl
from hwnas.latency.plan import PROTOCOL, Plan

__all__ = ["MAX_RESULTS_BYTES", "Results", "Turn", "read_results"]

MAX_RESULTS_BYTES = 256 * 1024 * 1024
MAX_NS = 10**13  # almost three hours, longer than any run
MAX_ROUNDS = 1_000_000
MAX_SAMPLES = 1001  # per turn
MAX_TEXT = 300
MAX_FACT = 1e15
HEADER_TEXTS = ("runtime", "runtime_version", "provider", "precision", "interrupted_runs")


@dataclass(frozen=True)
class Turn:
    """One turn of an item in a round; `item` -1, -2, ...: extra turns of the plan's reference.

    nanoseconds: of the cold run and the hot runs.
    interrupted: runs to ignore, because the process was preempted during them.
    """

    round: int
    item: int
    nanoseconds: tuple[int, ...]
    interrupted: tuple[int, ...]


@dataclass(frozen=True)
class Results:
    """A results file: its header, all turns in order, and the warnings of its last run."""

    header: dict[str, Any]
    turns: tuple[Turn, ...]
    warnings: tuple[str, ...]


def read_results(plan: Plan) -> Results:
    """The content of a plan's results file; a partial last line is ignored.

    Raises:
        UserError: the file is missing, too large, malformed, or belongs to another plan or
            protocol.
    """
    if plan.results.is_file() and (size := plan.results.stat().st_size) > MAX_RESULTS_BYTES:
        raise UserError(
            "results are too large",
            expected="at most 256 MiB",
            found=f"{size / 2**20:.0f} MiB",
            where=plan.results,
            fix="restore a copy of the file, or remove it and time the models again",
        )
    lines = iter_jsonl(plan.results)
    header = next(lines, {})
    if header.get("protocol") != PROTOCOL:
        raise UserError(
            "these results are not from the kit of this version of hwnas",
            expected=f"protocol {PROTOCOL!r}",
            found=f"protocol {_shown(header.get('protocol'))}",
            where=plan.results,
            fix="time the models again with the kit of this version (`hwnas profile pack`)",
        )
    if header.get("plan_hash") != plan.hash:
        raise UserError(
            "these results are of another plan",
            expected=f"plan {plan.hash!r}",
            found=f"plan {_shown(header.get('plan_hash'))}",
            where=plan.results,
            fix="repeat the command with the space, device, settings and seed for which these"
            " results were timed; they determine the plan",
        )
    try:
        _check_header(header)
        has_gaps = header["interrupted_runs"] == "dropped"
        turns: list[Turn] = []
        warnings: tuple[str, ...] = ()
        for line in lines:
            if set(line) == {"warnings"}:
                warnings = tuple(_text(warning, "warnings") for warning in line["warnings"])
            else:
                turns += _turns(line, len(plan.ids), has_gaps=has_gaps)
        if len({(turn.round, turn.item) for turn in turns}) != len(turns):
            raise Invalid(
                "at most one turn of each model in a round", "two turns of one model in one round"
            )
        if turns and (last := max(turn.round for turn in turns)) >= len(turns):
            most = f"round numbers from 0 to {len(turns) - 1}, because there are {len(turns)} turns"
            raise Invalid(most, f"the round number {last}")
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            "malformed results",
            **parts_of(error),
            where=plan.results,
            fix="restore a copy of the file, or remove it and time the models again",
        ) from error
    return Results(header, tuple(turns), warnings)


def _turns(line: dict[str, Any], n_items: int, *, has_gaps: bool) -> list[Turn]:
    if not isinstance(line["turns"], list):
        raise Invalid("a list of turns", f"{line['turns']!r:.40}")
    marks: list[list[int]] = [[] for _ in line["turns"]]
    for turn, sample in line["preempted"]:
        marks[_whole(turn, 0, len(marks) - 1, "preempted, turn")].append(sample)
    turns = []
    for (number, item, *nanoseconds), interrupted in zip(line["turns"], marks, strict=True):
        if not 2 <= len(nanoseconds) <= MAX_SAMPLES:
            raise Invalid(f"2 to {MAX_SAMPLES} samples per turn", len(nanoseconds), "turns")
        last = len(nanoseconds) - 1
        marked = tuple(_whole(sample, 0, last, "preempted, sample") for sample in interrupted)
        turns.append(
            Turn(
                _whole(number, 0, MAX_ROUNDS, "turns, round"),
                _whole(item, -n_items, n_items - 1, "turns, item"),
                tuple(_whole(value, 1, MAX_NS, "turns, nanoseconds") for value in nanoseconds),
                marked if has_gaps else (),
            )
        )
    return turns


def _whole(value: Any, least: int, most: int, key: str) -> int:
    """Returns `value`. key: the field that has it, for the error."""
    if type(value) is not int or not least <= value <= most:
        raise Invalid(f"a whole number in [{least}, {most}]", f"{value!r:.40}", key)
    return value


def _check_header(header: dict[str, Any]) -> None:
    """Allows only short texts and numbers, because these facts are shown in tables and reports."""
    for key in HEADER_TEXTS:
        _text(header[key], key)
    for key, value in header["host"].items():
        place = f"host, {_text(key, 'host')}"
        if isinstance(value, list):
            [_whole(number, 0, 1 << 20, place) for number in value]
        elif isinstance(value, (int, float)) and abs(value) <= MAX_FACT:
            continue  # NaN and infinity are excluded
        elif value is not None:
            _text(value, place)
    _text(header["host"]["cpu"], "host, cpu")


def _text(value: Any, key: str) -> str:
    """Returns `value`. key: the field that has it, for the error."""
    if not isinstance(value, str) or len(value) > MAX_TEXT or not value.isprintable():
        expected = f"a printable text of at most {MAX_TEXT} characters"
        raise Invalid(expected, f"{value!r:.40}", key)
    return value


def _shown(value: object) -> str:
    return f"{value!r:.200}"
