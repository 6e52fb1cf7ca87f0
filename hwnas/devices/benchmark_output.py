"""Reads what the official benchmark_model of TensorFlow Lite or LiteRT prints."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

__all__ = ["BinaryRun", "OperatorTime", "read_output"]

# The warm-up, then the timed runs. The same line with the prefix is that of the profiler.
RUNS = re.compile(r"(?<!\(microseconds\): )\bcount=([0-9]+) (first=.*|curr=.*)")
NUMBER = re.compile(r"([a-z0-9]+)=([0-9.]+(?:e[+-]?[0-9]+)?)(?=\s|$)")
INITIALIZATION = "Profiling Info for Benchmark Initialization"
REGULAR = "Profiling Info for Regular Benchmark Runs"
TABLE = re.compile(r"=+ Run Order =+")
BUILT_IN = re.compile(r"[A-Z][A-Z0-9_]+")  # operators of the file; delegates name theirs otherwise
MAX_CHARACTERS = 4_000_000
MAX_NUMBER = 1e15  # maximum number of runs or microseconds (three centuries)


@dataclass(frozen=True)
class OperatorTime:
    """A row of the profile: one operator, or one part of a delegate.

    kind: such as `CONV_2D`, or `Convolution (NHWC, F32) IGEMM` inside XNNPACK.
    n_calls: per run of the model.
    """

    kind: str
    name: str
    average_ms: float
    n_calls: int

    @property
    def is_delegated(self) -> bool:
        """Whether a delegate such as XNNPACK runs the operator, not a kernel of the interpreter."""
        return BUILT_IN.fullmatch(self.kind) is None


@dataclass(frozen=True)
class BinaryRun:
    """One run of the binary on one model.

    n_runs: number of timed runs. first_us: the first run of the process. average_us: over the timed
        runs.
    operators: in the order of running; empty without `--enable_op_profiling`.
    """

    n_runs: int
    first_us: float
    average_us: float
    operators: tuple[OperatorTime, ...] = ()


def read_output(text: str) -> BinaryRun:
    """Parses the output of the binary.

    Raises:
        ValueError: the text is not the output of a finished run; the error has its last line.
    """
    text = text[:MAX_CHARACTERS]
    runs = [_numbers(match) for match in RUNS.finditer(text)]
    if not runs:
        said = [line.strip() for line in text.splitlines() if line.strip()]
        raise ValueError(said[-1][:300] if said else "no output")
    first, timed = runs[0], runs[-1]
    found = BinaryRun(
        n_runs=int(timed["count"]),
        first_us=first.get("first", first["curr"]),
        average_us=timed.get("avg", timed["curr"]),  # one run has only `curr`
        operators=tuple(_operators(text)),
    )
    if not (found.n_runs > 0 and found.first_us > 0 and found.average_us > 0):
        raise ValueError(f"a latency of 0 us in {RUNS.search(text)[0]!r}")  # type: ignore[index]
    return found


def _numbers(match: re.Match[str]) -> dict[str, float]:
    found = {name: float(value) for name, value in NUMBER.findall(match[2])}
    if "curr" not in found:
        raise ValueError(f"an incomplete line: {match[0][:200]!r}")
    found = {"count": float(match[1]), **found}
    if not all(value < MAX_NUMBER for value in found.values()):
        raise ValueError(f"a number out of range: {match[0][:200]!r}")
    return found


def _operators(text: str) -> Iterator[OperatorTime]:
    """Rows of the profile of the timed runs; the initialization has a profile of its own."""
    if REGULAR in text:
        text = text.partition(REGULAR)[2]
    elif INITIALIZATION in text:
        return
    title = TABLE.search(text)
    if title is None:
        return
    lines = iter(text[title.end() :].splitlines()[1:])
    columns = [cell.strip(" []").lower() for cell in _cells(next(lines, ""))]
    places = [columns.index(name) for name in ("node type", "avg ms", "times called", "name")]
    for line in lines:
        cells = _cells(line)
        if len(cells) != len(columns):
            break
        kind, average, n_calls, name = (cells[place].strip() for place in places)
        found = OperatorTime(kind, name, float(average), int(n_calls))
        if not (0 <= found.average_ms < MAX_NUMBER and 0 <= found.n_calls < MAX_NUMBER):
            raise ValueError(f"a number out of range: {line.strip()[:200]!r}")
        yield found


def _cells(line: str) -> Sequence[str]:
    """Cells between tabs; what is before the first one may be the prefix of a log."""
    return line.split("\t")[1:]
