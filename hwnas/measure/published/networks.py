"""Published latencies of whole networks (data sets of HELP, 2106.08630), with codes of our spaces.

One folder per space with a `latency.npz` (read without pickle): architectures, and a column of
milliseconds per device. The last part of a column's name is the batch size if it is one of
`BATCHES`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwnas.core.arrays import read_npz
from hwnas.core.errors import Invalid, UserError, parts_of
from hwnas.core.stats import require_positive
from hwnas.interfaces import FloatArray
from hwnas.measure.published import DOWNLOAD_AGAIN, unknown_column
from hwnas.spaces import fbnet, mobilenet_v3, nasbench201
from hwnas.spaces.graphs import live_graph
from hwnas.spaces.space import Codes, SearchSpace

__all__ = ["Measurements", "batch_of", "group_of", "read_measurements"]

BATCHES = (1, 32, 64, 256)
MAX_BYTES = 1024**3
MAX_NETWORKS = 1_000_000
IMAGENET_CLASSES, CIFAR100_CLASSES = 1000, 100

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Measurements:
    """Published networks and their latencies.

    codes: [n, d] of `space`.
    latency_ms: [n, columns], positive; a column is a device and batch size.
    live_codes: [n, d], with `none` for edges of a cell that are on no path from input to output,
        because runtimes remove them. In spaces without cells, equal to `codes`.
    """

    space: SearchSpace
    codes: Codes
    live_codes: Codes
    latency_ms: FloatArray
    columns: tuple[str, ...]

    def column(self, name: str) -> FloatArray:
        """Latencies of one column in ms, [n].

        Raises:
            UserError: unknown column.
        """
        if name not in self.columns:
            raise unknown_column(f"the data set has no column {name!r}", name, self.columns)
        return self.latency_ms[:, self.columns.index(name)]


def group_of(column: str) -> str:
    """The machine of a column: its name without the batch size."""
    return re.sub(rf"_({'|'.join(map(str, BATCHES))})$", "", column)


def batch_of(column: str) -> int:
    """Batch size of a column; 1 if the name has none."""
    return int(column[len(group_of(column)) + 1 :] or 1)


def read_measurements(folder: Path) -> Measurements:
    """The published networks and latencies in `folder`/latency.npz.

    The names of its arrays determine the space.

    Raises:
        UserError: the file is missing, malformed, or of an unknown space.
    """
    path = Path(folder) / "latency.npz"
    try:
        arrays: Arrays = read_npz(path, at_most=MAX_BYTES)
        columns = tuple(str(name) for name in arrays["devices"])
        latency_ms = arrays["latency_ms"].astype(np.float64)
        reader = next(read for keys, read in _READERS if keys <= set(arrays))
        if not 0 < len(latency_ms) <= MAX_NETWORKS:
            raise Invalid(f"1 to {MAX_NETWORKS} networks", f"{len(latency_ms)} networks")
        space, codes = reader(arrays)
        if latency_ms.shape != (len(codes), len(columns)):
            shape = [len(codes), len(columns)]
            raise Invalid(
                f"latencies of shape {shape}", f"latencies of shape {list(latency_ms.shape)}"
            )
    except FileNotFoundError as error:
        raise UserError(
            "file not found",
            expected="the folder of a data set, with latency.npz",
            where=path,
            fix="check the path",
        ) from error
    except StopIteration as error:
        spaces = " or ".join(f"({', '.join(sorted(keys))})" for keys, _ in _READERS)
        raise UserError(
            "the measurements belong to no known space",
            expected=f"the arrays of one space: {spaces}",
            found=f"the arrays {', '.join(sorted(arrays))}",
            where=path,
        ) from error
    except UserError:
        raise
    except Exception as error:  # a damaged file can raise many kinds of errors
        raise UserError(
            "malformed measurements", **parts_of(error), where=path, fix=DOWNLOAD_AGAIN
        ) from error
    require_positive(latency_ms, "latencies must be positive and finite", where=path)
    return Measurements(space, codes, _live(space, codes), latency_ms, columns)


def _fbnet(arrays: Arrays) -> tuple[SearchSpace, Codes]:
    space = fbnet.build(fbnet.Config(), num_classes=CIFAR100_CLASSES)
    names = [str(name) for name in arrays["op_names"]]
    codes = _zeros(space, len(arrays["arch"]))
    blocks = [c for c, choice in enumerate(space.choices) if choice.role == "op"]
    for column, chosen in zip(blocks, arrays["arch"].T, strict=True):
        values = space.choices[column].values
        codes[:, column] = np.array([values.index(name) for name in names])[chosen]
    return space, codes


def _mobilenet_v3(arrays: Arrays) -> tuple[SearchSpace, Codes]:
    """Converts the depth of each stage, and kernel and expansion of its 4 blocks, to codes."""
    space = mobilenet_v3.build(mobilenet_v3.Config(), num_classes=IMAGENET_CLASSES)
    codes = _zeros(space, len(arrays["r"]))
    chosen = {"resolution": arrays["r"]}
    for s in range(5):
        chosen[f"stage{s + 1}.depth"] = arrays["d"][:, s]
        for b in range(4):
            chosen[f"stage{s + 1}.block{b}.kernel"] = arrays["ks"][:, 4 * s + b]
            chosen[f"stage{s + 1}.block{b}.expand"] = arrays["e"][:, 4 * s + b]
    for column, choice in enumerate(space.choices):
        if choice.name in chosen:
            codes[:, column] = _codes_of(choice.values, chosen[choice.name])
    return space, space.normalise(codes)


def _nasbench201(arrays: Arrays) -> tuple[SearchSpace, Codes]:
    space = nasbench201.build(nasbench201.Config(), num_classes=10)
    columns = [c for c, choice in enumerate(space.choices) if choice.role == "op"]
    names = space.choices[columns[0]].values
    codes = _zeros(space, len(arrays["arch"]))
    for row, text in enumerate(arrays["arch"]):
        ops = re.findall(r"(\w+)~\d", str(text))
        codes[row, columns] = [names.index(op) for op in ops]
    return space, codes


def _live(space: SearchSpace, codes: Codes) -> Codes:
    """Codes with `none` for all operators of a cell that are on no path through it."""
    if space.macro.is_chain:
        return codes
    columns = [c for c, choice in enumerate(space.choices) if choice.role == "op"]
    none = space.choices[columns[0]].values.index("none")
    is_dead = live_graph(space, codes)[0][:, 1:-1] < 0
    live: Codes = codes.copy()
    live[:, columns] = np.where(is_dead, none, codes[:, columns])
    return live


def _codes_of(values: tuple[Any, ...], chosen: NDArray[Any]) -> NDArray[np.int16]:
    """Indices of `chosen` in `values`."""
    known: NDArray[Any] = np.array(values)
    position: NDArray[np.int64] = np.searchsorted(known, chosen)
    if not (known[np.minimum(position, len(known) - 1)] == chosen).all():
        raise Invalid(f"only the values {values}", "other values")
    codes: NDArray[np.int16] = position.astype(np.int16)
    return codes


def _zeros(space: SearchSpace, n: int) -> Codes:
    return np.zeros((n, len(space.choices)), dtype=np.int16)


_READERS: tuple[tuple[set[str], Callable[[Arrays], tuple[SearchSpace, Codes]]], ...] = (
    ({"ks", "e", "d", "r"}, _mobilenet_v3),
    ({"arch", "op_names"}, _fbnet),
    ({"arch"}, _nasbench201),
)
