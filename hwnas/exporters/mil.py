"""Interprets ML programs of Core ML in torch: the operators that our networks consist of.

Arithmetic is float32. Every value is rounded to the type that the program declares for it, as
processors do that multiply in half precision and add in single precision.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from hwnas.exporters.opened import CannotRunHere
from hwnas.interfaces import Images

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["KNOWN", "Interpreted"]


class Interpreted:
    """A function of an ML program; calling it with images [1, C, H, W] returns logits."""

    def __init__(self, function: Any, *, where: object) -> None:
        """Checks all operators.

        Raises:
            CannotRunHere: names the operators that the interpreter lacks.
        """
        (self._input,) = function.inputs
        (self._output,) = function.outputs
        self._steps = [op for op in function.operations if op.op_type != "const"]
        missing = sorted({op.op_type for op in self._steps} - KNOWN.keys())
        if missing:
            raise CannotRunHere(
                f"the interpreter of hwnas lacks the operators {', '.join(missing)}",
                where=where,
                fix="check the package on a Mac",
            )
        self._constants: dict[str, Tensor] = {}
        for op in self._steps:
            if op.op_type.startswith("constexpr_"):
                found = KNOWN[op.op_type](_values(op, {}))
                self._constants[op.outputs[0].name] = _rounded(found, op.outputs[0])

    def __call__(self, x: Images) -> Images:
        """Logits [1, classes]."""
        import torch

        values = {**self._constants, self._input: torch.from_numpy(x)}
        with torch.inference_mode():
            for op in self._steps:
                (output,) = op.outputs
                if output.name not in values:
                    found = KNOWN[op.op_type](_values(op, values))
                    values[output.name] = _rounded(found, output)
        logits: Images = values[self._output.name].numpy()
        return logits


def _values(op: Any, values: Mapping[str, Tensor]) -> dict[str, Any]:
    """Inputs of an operator: tensors, and settings as Python values."""

    def value(given: Any) -> Any:
        if isinstance(given, (list, tuple)):
            return [value(one) for one in given]
        if given.name in values:
            return values[given.name]
        return _constant(given.val)

    return {name: value(given) for name, given in op.inputs.items() if given is not None}


def _constant(value: Any) -> Any:
    import torch

    if isinstance(value, np.ndarray) and value.ndim:
        if value.dtype.kind == "f":
            return torch.from_numpy(value.astype(np.float32))
        return torch.from_numpy(value.astype(np.int64)) if value.dtype.kind in "iu" else value
    return value.item() if isinstance(value, (np.ndarray, np.generic)) else value


def _rounded(value: Tensor, variable: Any) -> Tensor:
    """The value in the declared type; half precision is stored in float32."""
    return value.half().float() if "fp16" in str(variable.dtype) else value


def _conv(v: Mapping[str, Any]) -> Tensor:
    from torch.nn import functional

    x, weight = v["x"], v["weight"]
    strides = _sizes(v.get("strides"), 2, 1)
    dilations = _sizes(v.get("dilations"), 2, 1)
    reach = [(k - 1) * d + 1 for k, d in zip(weight.shape[2:], dilations, strict=True)]
    x = functional.pad(x, _padding(v, x, reach, strides))
    return functional.conv2d(
        x, weight, v.get("bias"), strides, dilation=dilations, groups=int(v.get("groups", 1))
    )


def _pool(v: Mapping[str, Any], is_max: bool) -> Tensor:
    from torch.nn import functional

    x, kernel = v["x"], _sizes(v["kernel_sizes"], 2, 1)
    strides = _sizes(v.get("strides"), 2, 1)
    pads = _padding(v, x, kernel, strides)
    if v.get("ceil_mode"):
        for axis in range(2):
            size = x.shape[2 + axis] + pads[2 - 2 * axis] + pads[3 - 2 * axis]
            pads[3 - 2 * axis] += -(size - kernel[axis]) % strides[axis]
    if is_max:
        return functional.max_pool2d(functional.pad(x, pads, value=-np.inf), kernel, strides)
    found = functional.avg_pool2d(functional.pad(x, pads), kernel, strides)
    if v.get("exclude_padding_from_average") or v.get("ceil_mode"):
        inside = functional.pad(x.new_ones(x.shape), pads)
        return found / functional.avg_pool2d(inside, kernel, strides)
    return found


def _sizes(given: Any, n: int, default: int) -> list[int]:
    return [default] * n if given is None else [int(size) for size in given]


def _padding(v: Mapping[str, Any], x: Tensor, reach: list[int], strides: list[int]) -> list[int]:
    """(left, right, top, bottom) of `torch.nn.functional.pad`."""
    kind = v.get("pad_type", "valid")
    if kind == "custom":
        top, bottom, left, right = _sizes(v["pad"], 4, 0)
        return [left, right, top, bottom]
    found = []
    for axis in (1, 0) if kind.startswith("same") else ():
        size, stride = x.shape[2 + axis], strides[axis]
        total = max((-(-size // stride) - 1) * stride + reach[axis] - size, 0)
        small = total // 2
        found += [total - small, small] if kind == "same_lower" else [small, total - small]
    return found or [0, 0, 0, 0]


def _dequantized(v: Mapping[str, Any]) -> Tensor:
    """int8 weights times a scale per channel along `axis`."""
    data, axis = v["quantized_data"], int(v.get("axis", 0))
    shape = [-1 if i == axis else 1 for i in range(data.dim())]

    def along(name: str) -> Any:
        value = v[name]
        return value.reshape(shape) if hasattr(value, "reshape") else value

    found: Tensor = (data - along("zero_point")) * along("scale")
    return found.float()


def _reduce_mean(v: Mapping[str, Any]) -> Tensor:
    found: Tensor = v["x"].mean(_sizes(v.get("axes"), 0, 0), keepdim=bool(v.get("keep_dims", 0)))
    return found


def _cast(v: Mapping[str, Any]) -> Tensor:
    found: Tensor = v["x"]
    return found.float() if v["dtype"].startswith("fp") else found.long()


def _sigmoid_hard(v: Mapping[str, Any]) -> Tensor:
    found: Tensor = (v["x"] * v.get("alpha", 0.2) + v.get("beta", 0.5)).clamp(0, 1)
    return found


def _thresholded(v: Mapping[str, Any]) -> Tensor:
    x, least = v["x"], v.get("alpha", 1.0)
    found: Tensor = x * (x >= least)
    return found


def _linear(v: Mapping[str, Any]) -> Tensor:
    from torch.nn import functional

    return functional.linear(v["x"], v["weight"], v.get("bias"))


def _concat(v: Mapping[str, Any]) -> Tensor:
    import torch

    return torch.cat(v["values"], int(v["axis"]))


def _pad(v: Mapping[str, Any]) -> Tensor:
    from torch.nn import functional

    pairs = _sizes(v["pad"], 0, 0)
    flat = [n for i in range(len(pairs) - 2, -1, -2) for n in pairs[i : i + 2]]
    return functional.pad(v["x"], flat, value=float(v.get("constant_val", 0)))


KNOWN: Mapping[str, Callable[[Mapping[str, Any]], torch.Tensor]] = {
    "add": lambda v: v["x"] + v["y"],
    "avg_pool": lambda v: _pool(v, is_max=False),
    "cast": _cast,
    "clip": lambda v: v["x"].clamp(v["alpha"], v["beta"]),
    "concat": _concat,
    "constexpr_affine_dequantize": _dequantized,
    "conv": _conv,
    "expand_dims": lambda v: _expanded(v),
    "linear": _linear,
    "matmul": lambda v: v["x"] @ v["y"],
    "max_pool": lambda v: _pool(v, is_max=True),
    "mul": lambda v: v["x"] * v["y"],
    "pad": _pad,
    "real_div": lambda v: v["x"] / v["y"],
    "reduce_mean": _reduce_mean,
    "relu": lambda v: v["x"].relu(),
    "relu6": lambda v: v["x"].clamp(0, 6),
    "reshape": lambda v: v["x"].reshape(_sizes(v["shape"], 0, 0)),
    "sigmoid": lambda v: v["x"].sigmoid(),
    "sigmoid_hard": _sigmoid_hard,
    "silu": lambda v: v["x"] * v["x"].sigmoid(),
    "squeeze": lambda v: v["x"].squeeze(_sizes(v["axes"], 0, 0)),
    "sub": lambda v: v["x"] - v["y"],
    "thresholded_relu": _thresholded,
    "transpose": lambda v: v["x"].permute(_sizes(v["perm"], 0, 0)),
}
"""Maps the MIL name of an operator to the function that computes its value from its inputs."""


def _expanded(v: Mapping[str, Any]) -> Tensor:
    found: Tensor = v["x"]
    for axis in _sizes(v["axes"], 0, 0):
        found = found.unsqueeze(axis)
    return found
