"""Operators in LiteRT, in 8 bits and in fp32, and depthwise windows whole and by rows.

    python benchmarks/litert_operators.py

Prints JSON, per operator and size: microseconds in fp32 and 8 bits, and their ratio. A chain of 10
operators less one of 2, so that conversions at the ends do not count; all files take turns, and a
round counts by the fastest of some runs, in processor time. A depthwise window of 49 taps: `by
rows`, as hwnas writes it; `whole`; `groups`, as a convolution of groups of 8 channels, most of
whose weights are 0.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping

import numpy as np

from hwnas.builders.tflite_graph import INPUT, OUTPUT, Graph, Op, Tensor, package
from hwnas.builders.tflite_nodes import row_parts
from hwnas.builders.tflite_precision import to_precision

SIZES = ((40, 72), (20, 120), (10, 480), (5, 960))  # px, channels
SHORT, LONG = 2, 10  # operators of a chain
GROUP = 8
RANDOM = np.random.default_rng(0)


class Chain:
    """A graph of operators that keep the size of the maps [1, px, px, channels]."""

    def __init__(self, px: int, channels: int) -> None:
        self.graph, self.read, self.n = Graph(), INPUT, 0
        self.shape = (1, px, px, channels)
        self.graph.add(Tensor(INPUT, self.shape))

    def emit(self, kind: str, *more: str, read: str = "", px: int = 0, **options: object) -> str:
        """Add an operator; `px` of its output, by default the chain's."""
        self.n += 1
        name = f"value{self.n}"
        _, size, _, channels = self.shape
        self.graph.add(Tensor(name, (1, px or size, px or size, channels)))
        self.graph.ops.append(Op(kind, (read or self.read, *more), name, options))
        return name

    def window(self, kind: str, shape: tuple[int, ...], read: str = "", **options: object) -> str:
        """Add a convolution with random weights of a shape."""
        weight = (RANDOM.standard_normal(shape) / np.sqrt(np.prod(shape[1:3]))).astype(np.float32)
        bias = np.zeros(self.shape[3], np.float32)
        names = (f"weight{self.n}", f"bias{self.n}")
        more = [self.graph.constant(*pair) for pair in zip(names, (weight, bias), strict=True)]
        fixed = {"strideW": 1, "strideH": 1, "dilationWFactor": 1, "dilationHFactor": 1}
        return self.emit(kind, *more, read=read, **{**fixed, "padding": "SAME", **options})

    def serialized(self, precision: str) -> bytes:
        """The file."""
        self.graph.ops[-1] = Op(
            self.graph.ops[-1].kind,
            self.graph.ops[-1].inputs,
            OUTPUT,
            self.graph.ops[-1].options,
        )
        self.graph.add(Tensor(OUTPUT, self.shape))
        return to_precision(self.graph, precision).serialized()  # type: ignore[arg-type]


def depthwise(chain: Chain, kernel: int, *, by_rows: bool) -> str:
    """One window, or a sum of rows."""
    channels, total = chain.shape[3], ""
    parts = row_parts(kernel) if by_rows else [range(kernel)]
    for rows in parts:
        shape, dilated = (1, len(rows), kernel, channels), {"dilationHFactor": rows.step}
        made = chain.window("DEPTHWISE_CONV_2D", shape, depthMultiplier=1, **dilated)
        total = chain.emit("ADD", made, read=total) if total else made
    return total


def pointwise(chain: Chain) -> str:
    """A 1x1 convolution to as many channels."""
    channels = chain.shape[3]
    return chain.window("CONV_2D", (channels, 1, 1, channels))


def grouped(chain: Chain, kernel: int) -> str:
    """A convolution of groups of `GROUP` channels."""
    return chain.window("CONV_2D", (chain.shape[3], kernel, kernel, GROUP))


OPERATORS: Mapping[str, Callable[[Chain], str]] = {
    "conv 1x1": pointwise,
    "depthwise 3": lambda chain: depthwise(chain, 3, by_rows=True),
    "depthwise 5": lambda chain: depthwise(chain, 5, by_rows=True),
    "depthwise 7 by rows": lambda chain: depthwise(chain, 7, by_rows=True),
    "depthwise 7 whole": lambda chain: depthwise(chain, 7, by_rows=False),
    "depthwise 7 groups": lambda chain: grouped(chain, 7),
    "add": lambda chain: chain.emit("ADD", chain.read),
    "multiply": lambda chain: chain.emit("MUL", chain.read),
    "hard-swish": lambda chain: chain.emit("HARD_SWISH"),
}


def opened(content: bytes) -> Callable[[], None]:
    """Runs a file once."""
    model = package("interpreter").Interpreter(model_content=content, num_threads=1)
    model.allocate_tensors()
    (given,) = model.get_input_details()
    model.set_tensor(given["index"], RANDOM.standard_normal(given["shape"]).astype(np.float32))
    invoke: Callable[[], None] = model.invoke
    return invoke


def microseconds(files: Mapping[object, Callable[[], None]], rounds: int, runs: int) -> dict:
    """Median over rounds of the fastest run."""
    found: dict[object, list[float]] = {key: [] for key in files}
    for _ in range(rounds):
        for key, run in files.items():
            run()
            times = []
            for _ in range(runs):
                begin = time.thread_time()
                run()
                times.append(time.thread_time() - begin)
            found[key].append(min(times))
    return {key: 1e6 * float(np.median(times)) for key, times in found.items()}


def main() -> None:
    """Time every operator at every size."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--runs", type=int, default=4)
    parser.add_argument("--format", choices=["json"], default="json")
    args = parser.parse_args()
    result = []
    for px, channels in SIZES:
        for name, operator in OPERATORS.items():
            files = {}
            for precision in ("fp32", "int8"):
                for length in (SHORT, LONG):
                    chain = Chain(px, channels)
                    for _ in range(length):
                        chain.read = operator(chain)
                    files[precision, length] = opened(chain.serialized(precision))
            us = microseconds(files, args.rounds, args.runs)
            each = {p: (us[p, LONG] - us[p, SHORT]) / (LONG - SHORT) for p in ("fp32", "int8")}
            row = {"operator": name, "px": px, "channels": channels}
            row |= {f"{p}_us": round(each[p], 2) for p in each}
            result.append(row | {"ratio": round(each["int8"] / each["fp32"], 3)})
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
