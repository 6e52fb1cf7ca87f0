"""The memory of a search: every arch that was priced, once, in growing columns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwnas.core.errors import UserError
from hwnas.core.records import SCHEMA_VERSION
from hwnas.core.store import append_jsonl, read_jsonl, write_text
from hwnas.interfaces import FloatArray
from hwnas.search.constraints import Costs
from hwnas.search.pareto import non_dominated
from hwnas.spaces.space import Codes, SearchSpace

__all__ = ["Archive"]

Rows = NDArray[np.intp]


class Archive:
    """Archs deduplicated by codes; a row never moves.

    Columns: `codes` [n, d], `predicted` and `predicted_std` (forecast), `supernet` (NaN where not
    evaluated), `score` (the blend where evaluated, else the forecast), `feasible`, and one cost
    column per metric key. On file it is a log: one JSON line per `append_to`, holding the rows and
    evaluations since the line before: saving costs what is new, and a prefix is a past state.
    Codes are written as two hex digits per choice, row after row.
    """

    def __init__(self, space: SearchSpace, cost_keys: tuple[str, ...]) -> None:
        self.space, self.cost_keys = space, cost_keys
        self._index: dict[bytes, int] = {}
        floats = ("predicted", "predicted_std", "supernet", "score", *cost_keys)
        self._columns: dict[str, NDArray[Any]] = {name: np.empty(0) for name in floats}
        self._columns["feasible"] = np.empty(0, dtype=bool)
        self._columns["codes"] = space.codes([])
        self._n_saved = 0
        self._evaluated: list[int] = []
        self._n_evaluated_saved = 0

    def __len__(self) -> int:
        return len(self._index)

    def column(self, name: str) -> NDArray[Any]:
        """One column of all rows, read-only."""
        view = self._columns[name][: len(self)]
        view.flags.writeable = False
        return view

    @property
    def evaluated(self) -> Rows:
        """Evaluated rows, in the order of their evaluation."""
        return np.asarray(self._evaluated, dtype=np.intp)

    # --- writing ------------------------------------------------------------------------------

    def unseen(self, codes: Codes) -> Codes:
        """The distinct rows of `codes` that are not in the archive, in order."""
        fresh = {
            key: row for row, key in enumerate(self.space.keys(codes)) if key not in self._index
        }
        return codes[list(fresh.values())]

    def add(
        self,
        codes: Codes,
        *,
        predicted: FloatArray,
        predicted_std: FloatArray,
        costs: Costs,
        feasible: NDArray[np.bool_],
    ) -> None:
        """Append archs that are `unseen`."""
        begin = len(self)
        self._index.update(zip(self.space.keys(codes), range(begin, begin + len(codes))))
        if len(self) != begin + len(codes):
            raise ValueError("add() takes distinct archs that the archive does not hold")
        new = {
            "codes": codes,
            "predicted": predicted,
            "predicted_std": predicted_std,
            "supernet": np.nan,
            "score": predicted,
            "feasible": feasible,
        } | {key: costs[key] for key in self.cost_keys}
        self._reserve(len(self))
        for name, values in new.items():
            self._columns[name][begin : len(self)] = values

    def _reserve(self, n: int) -> None:
        capacity = len(self._columns["codes"])
        if n > capacity:
            grown = max(n, 2 * capacity, 1024)
            for name, old in self._columns.items():
                self._columns[name] = np.empty((grown, *old.shape[1:]), dtype=old.dtype)
                self._columns[name][: len(old)] = old

    def rows(self, codes: Codes) -> Rows:
        """Row of every arch of `codes`; all must be in the archive."""
        keys = self.space.keys(codes)
        return np.fromiter((self._index[key] for key in keys), dtype=np.intp, count=len(keys))

    def set_supernet(self, rows: Rows, supernet: FloatArray, score: FloatArray) -> None:
        """Note evaluations of some rows, and the blend that becomes their score."""
        self._columns["supernet"][rows], self._columns["score"][rows] = supernet, score
        self._evaluated += rows.tolist()

    # --- reading ------------------------------------------------------------------------------

    def top(self, k: int, among: NDArray[np.bool_] | None = None) -> Rows:
        """Up to k rows of highest score, best first (ties: older first); default: feasible ones."""
        candidates = np.flatnonzero(self.column("feasible") if among is None else among)
        scores = self.column("score")[candidates]
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
        names = ("predicted", "predicted_std", "feasible", *self.cost_keys)
        rows = self.evaluated[self._n_evaluated_saved :]
        line = {
            "schema_version": SCHEMA_VERSION,
            "space": self.space.id,
            "codes": self.column("codes")[new].astype(np.uint8).tobytes().hex(),
            "columns": {name: self.column(name)[new].tolist() for name in names},
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
        fixed = {"predicted", "predicted_std", "feasible"}
        archive = cls(space, tuple(key for key in lines[0]["columns"] if key not in fixed))
        for line in lines:
            if line["schema_version"] != SCHEMA_VERSION or line["space"] != space.id:
                raise UserError(
                    "archive of another space or version",
                    expected=f"{space.id}, version {SCHEMA_VERSION}",
                    found=f"{line['space']}, version {line['schema_version']}",
                )
            codes = np.frombuffer(bytes.fromhex(line["codes"]), dtype=np.uint8)
            columns = {name: np.asarray(values) for name, values in line["columns"].items()}
            archive.add(
                codes.astype(np.int16).reshape(-1, len(space.choices)),
                predicted=columns["predicted"],
                predicted_std=columns["predicted_std"],
                costs=columns,
                feasible=columns["feasible"].astype(bool),
            )
            evaluated = line["evaluated"]
            rows = np.asarray(evaluated["rows"], dtype=np.intp)
            supernet, score = np.asarray(evaluated["supernet"]), np.asarray(evaluated["score"])
            archive.set_supernet(rows, supernet, score)
        archive._n_saved, archive._n_evaluated_saved = len(archive), len(archive._evaluated)
        return archive
