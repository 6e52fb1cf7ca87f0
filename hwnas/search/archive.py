"""The memory of a search: every arch that was priced, once, in growing columns."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwnas.core.errors import UserError
from hwnas.core.pareto import non_dominated
from hwnas.core.records import SCHEMA_VERSION
from hwnas.core.store import append_jsonl, read_jsonl, write_text
from hwnas.interfaces import FloatArray
from hwnas.search.hashing import CodeIndex
from hwnas.spaces.space import Codes, SearchSpace

__all__ = ["Archive", "Describe", "Rows"]

Rows = NDArray[np.intp]
Describe = Callable[[Codes], Mapping[str, NDArray[Any]]]

FORECAST = ("predicted", "predicted_std")


class Archive:
    """Archs deduplicated by codes; a row never moves.

    Columns: `codes` [n, d], `predicted` and `predicted_std` (forecast), `supernet` (NaN where not
    evaluated), `score` (the blend where evaluated, else the forecast), `feasible`, and one cost
    column per metric key. On file it is a log: one JSON line per `append_to`, holding the rows and
    evaluations since the line before: saving costs what is new, and a prefix is a past state.
    Columns are written as base64 of little-endian arrays: digits would take longer than the search.
    """

    def __init__(self, space: SearchSpace, cost_keys: tuple[str, ...]) -> None:
        self.space, self.cost_keys = space, cost_keys
        self._index = CodeIndex(len(space.choices))
        floats = ("predicted", "predicted_std", "supernet", "score", *cost_keys)
        self._columns: dict[str, NDArray[Any]] = {name: np.empty(0) for name in floats}
        self._columns["feasible"] = np.empty(0, dtype=bool)
        self._n_saved = 0
        self._evaluated: list[int] = []
        self._n_evaluated_saved = 0

    def __len__(self) -> int:
        return len(self._index)

    def column(self, name: str) -> NDArray[Any]:
        """One column of all rows, read-only."""
        view = self._index.codes if name == "codes" else self._columns[name][: len(self)]
        view.flags.writeable = False
        return view

    @property
    def evaluated(self) -> Rows:
        """Evaluated rows, in the order of their evaluation."""
        return np.asarray(self._evaluated, dtype=np.intp)

    # --- writing ------------------------------------------------------------------------------

    def record(self, codes: Codes, describe: Describe) -> Rows:
        """Row of every arch of `codes`; the new ones (distinct, in order) are described first.

        `describe` returns `predicted`, `predicted_std`, `feasible` and every cost: [m] of m archs.
        If it raises, the archive is of no further use.
        """
        begin = len(self)
        rows, fresh = self._index.add(codes)
        if len(fresh):
            new = describe(codes[fresh])
            new = {**new, "supernet": np.full(len(fresh), np.nan), "score": new["predicted"]}
            self._reserve(len(self))
            for name, column in self._columns.items():
                column[begin : len(self)] = new[name]
        return rows

    def _reserve(self, n: int) -> None:
        capacity = len(self._columns["score"])
        if n > capacity:
            grown = max(n, 2 * capacity, 1024)
            for name, old in self._columns.items():
                self._columns[name] = np.empty(grown, dtype=old.dtype)
                self._columns[name][:capacity] = old

    def set_supernet(self, rows: Rows, supernet: FloatArray, score: FloatArray) -> None:
        """Note evaluations of some rows, and the blend that becomes their score."""
        self._columns["supernet"][rows], self._columns["score"][rows] = supernet, score
        self._evaluated += rows.tolist()

    def set_forecast(self, mean: FloatArray, std: FloatArray, score: FloatArray) -> None:
        """Replace forecasts and scores of all rows: [n] each."""
        for name, values in (("predicted", mean), ("predicted_std", std), ("score", score)):
            self._columns[name][: len(self)] = values

    # --- reading ------------------------------------------------------------------------------

    def top(
        self, k: int, among: NDArray[np.bool_] | None = None, by: FloatArray | None = None
    ) -> Rows:
        """Up to k rows of highest score, best first (ties: older first); default: feasible ones.

        `by` [n] replaces the score.
        """
        candidates = np.flatnonzero(self.column("feasible") if among is None else among)
        scores = (self.column("score") if by is None else by)[candidates]
        if k < len(candidates):  # cut before sorting, keeping all ties of the k-th
            kth = np.partition(scores, len(scores) - k)[len(scores) - k]
            candidates, scores = candidates[scores >= kth], scores[scores >= kth]
        return candidates[np.argsort(-scores, kind="stable")][:k]

    def front(self, key: str) -> Rows:
        """Rows that no other beats in both cost `key` and score, cheapest first."""
        points = np.stack([self.column(key), -self.column("score")], axis=1)
        kept = np.flatnonzero(non_dominated(points))
        return kept[np.argsort(points[kept, 0], kind="stable")]

    # --- file ---------------------------------------------------------------------------------

    def append_to(self, path: Path) -> None:
        """Append what is new since the last `append_to` or `load`, as one line."""
        new = slice(self._n_saved, len(self))
        rows = self.evaluated[self._n_evaluated_saved :]
        line = {
            "schema_version": SCHEMA_VERSION,
            "space": self.space.id,
            "codes": _pack(self.column("codes")[new], "u1"),
            "feasible": _pack(self.column("feasible")[new], "u1"),
            "columns": {
                name: _pack(self.column(name)[new], "<f8") for name in (*FORECAST, *self.cost_keys)
            },
            "evaluated": {
                "rows": rows.tolist(),
                "supernet": self.column("supernet")[rows].tolist(),
                "score": self.column("score")[rows].tolist(),
            },
        }
        append_jsonl(path, line)
        self._n_saved, self._n_evaluated_saved = len(self), len(self._evaluated)

    @classmethod
    def load(cls, path: Path, space: SearchSpace, *, n_lines: int | None = None) -> Archive:
        """Read an archive; with `n_lines`, as it was after so many lines, cutting off later ones.

        Raises:
            UserError: the file is of another space, or broken, or shorter than `n_lines`.
        """
        lines = read_jsonl(path)
        if not lines or (n_lines is not None and len(lines) < n_lines):
            raise UserError(
                "the archive of a search is empty or incomplete",
                expected=f"{n_lines or 'some'} lines",
                found=len(lines),
                where=path,
                fix="remove the folder of this search and run it again",
            )
        if n_lines is not None and len(lines) > n_lines:
            kept = path.read_bytes().split(b"\n")[:n_lines]
            write_text(path, b"\n".join([*kept, b""]).decode())
        try:
            return cls._replay(lines[:n_lines], space)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise UserError("broken archive", found=repr(error), where=path) from error

    @classmethod
    def _replay(cls, lines: list[dict[str, Any]], space: SearchSpace) -> Archive:
        archive = cls(space, tuple(key for key in lines[0]["columns"] if key not in FORECAST))
        for line in lines:
            if line["schema_version"] != SCHEMA_VERSION or line["space"] != space.id:
                raise UserError(
                    "archive of another space or version",
                    expected=f"{space.id}, version {SCHEMA_VERSION}",
                    found=f"{line['space']}, version {line['schema_version']}",
                )
            codes = _unpack(line["codes"], "u1").astype(np.int16).reshape(-1, len(space.choices))
            columns = {name: _unpack(text, "<f8") for name, text in line["columns"].items()}
            columns["feasible"] = _unpack(line["feasible"], "u1")
            before = len(archive)
            archive.record(codes, lambda new, columns=columns: columns)  # type: ignore[misc]
            if len(archive) != before + len(codes):
                raise ValueError("an arch is there twice")
            evaluated = line["evaluated"]
            rows = np.asarray(evaluated["rows"], dtype=np.intp)
            supernet, score = np.asarray(evaluated["supernet"]), np.asarray(evaluated["score"])
            archive.set_supernet(rows, supernet, score)
        archive._n_saved, archive._n_evaluated_saved = len(archive), len(archive._evaluated)
        return archive


def _pack(values: NDArray[Any], dtype: str) -> str:
    return base64.b64encode(values.astype(dtype).tobytes()).decode("ascii")


def _unpack(text: str, dtype: str) -> NDArray[Any]:
    return np.frombuffer(base64.b64decode(text, validate=True), dtype=dtype)
