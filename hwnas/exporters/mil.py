"""Interprets ML programs of Core ML in torch: the operators of common image classifiers.

Arithmetic is float32. Every value is rounded to the type that the program declares for it.
Processors that multiply in half precision and add in single precision round in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hwnas.exporters.mil_layers import batch_norm, conv, conv_transpose, layer_norm, pool, sizes
from hwnas.exporters.opened import CannotRunHere
from hwnas.interfaces import Images

if TYPE_CHECKING:
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
                if op.outputs[0].name not in values:
                    found = KNOWN[op.op_type](_values(op, values))
                    parts = found if isinstance(found, list) else [found]
                    for output, part in zip(op.outputs, parts, strict=True):
                        values[output.name] = _rounded(part, output)
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


def _dequantized(v: Mapping[str, Any]) -> Tensor:
    """int8 weights times a scale per channel along `axis`."""
    data, axis = v["quantized_data"], int(v.get("axis", 0))
    shape = [-1 if i == axis else 1 for i in range(data.dim())]

    def along(name: str) -> Any:
        value = v[name]
        return value.reshape(shape) if hasattr(value, "reshape") else value

    found: Tensor = (data - along("zero_point")) * along("scale")
    return found.float()


def _reduced(kind: str, v: Mapping[str, Any]) -> Tensor:
    """`kind`: `mean`, `sum` or `amax` of torch."""
    axes, keeps = sizes(v.get("axes"), 0, 0), bool(v.get("keep_dims", False))
    found: Tensor = getattr(v["x"], kind)(axes, keepdim=keeps)
    return found


def _cast(v: Mapping[str, Any]) -> Tensor:
    found: Tensor = v["x"]
    if v["dtype"] == "bool":
        return found.bool()
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


def _cropped(v: Mapping[str, Any]) -> Tensor:
    found: Tensor = v["x"]
    for axis, name in ((2, "crop_height"), (3, "crop_width")):
        first, last = sizes(v[name], 2, 0)
        found = found.narrow(axis, first, found.shape[axis] - first - last)
    return found


def _pad(v: Mapping[str, Any]) -> Tensor:
    from torch.nn import functional

    pairs, mode = sizes(v["pad"], 0, 0), v.get("mode", "constant")
    flat = [n for i in range(len(pairs) - 2, -1, -2) for n in pairs[i : i + 2]]
    if mode == "constant":
        return functional.pad(v["x"], flat, value=float(v.get("constant_val", 0)))
    while len(flat) > 2 and flat[-2:] == [0, 0]:  # torch repeats and reflects the last axes only
        flat = flat[:-2]
    return functional.pad(v["x"], flat, mode=mode)


def _matmul(v: Mapping[str, Any]) -> Tensor:
    x, y = (
        v[name].mT if v.get(f"transpose_{name}") and v[name].dim() > 1 else v[name] for name in "xy"
    )
    found: Tensor = x @ y
    return found


def _gelu(v: Mapping[str, Any]) -> Tensor:
    from torch.nn import functional

    if v.get("mode") == "SIGMOID_APPROXIMATION":
        found: Tensor = v["x"] * (1.702 * v["x"]).sigmoid()
        return found
    return functional.gelu(
        v["x"], approximate="tanh" if v.get("mode") == "TANH_APPROXIMATION" else "none"
    )


def _prelu(v: Mapping[str, Any]) -> Tensor:
    from torch.nn import functional

    return functional.prelu(v["x"], v["alpha"])


def _split(v: Mapping[str, Any]) -> Sequence[Tensor]:
    x, axis = v["x"], int(v["axis"])
    if v.get("split_sizes") is not None:
        return list(x.split(sizes(v["split_sizes"], 0, 0), axis))
    return list(x.chunk(int(v["num_splits"]), axis))


def _sliced(v: Mapping[str, Any]) -> Tensor:
    """A range of every axis; negative strides do not occur."""
    x = v["x"]
    n = x.dim()

    def is_set(name: str, axis: int) -> bool:
        mask = v.get(name)
        return mask is not None and bool(mask[axis])

    steps = sizes(v.get("stride"), n, 1)
    at: list[Any] = []
    for axis, (begin, end) in enumerate(zip(v["begin"].tolist(), v["end"].tolist(), strict=True)):
        if is_set("squeeze_mask", axis):
            at.append(begin)
            continue
        first = None if is_set("begin_mask", axis) else begin
        at.append(slice(first, None if is_set("end_mask", axis) else end, steps[axis]))
    found: Tensor = x[tuple(at)]
    return found


def _upsampled(mode: str, v: Mapping[str, Any]) -> Tensor:
    from torch.nn import functional

    factors = [float(v.get(f"scale_factor_{side}", 1)) for side in ("height", "width")]
    corners = {} if mode == "nearest" else {"align_corners": bool(v.get("align_corners", True))}
    return functional.interpolate(v["x"], scale_factor=factors, mode=mode, **corners)


def _shuffled(v: Mapping[str, Any]) -> Tensor:
    from torch.nn import functional

    return functional.pixel_shuffle(v["x"], int(v["upscale_factor"]))


def _rsqrt(v: Mapping[str, Any]) -> Tensor:
    found: Tensor = (v["x"] + v.get("epsilon", 1e-12)).rsqrt()
    return found


def _expanded(v: Mapping[str, Any]) -> Tensor:
    found: Tensor = v["x"]
    for axis in sizes(v["axes"], 0, 0):
        found = found.unsqueeze(axis)
    return found


KNOWN: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
    "add": lambda v: v["x"] + v["y"],
    "avg_pool": lambda v: pool(v, is_max=False),
    "batch_norm": batch_norm,
    "cast": _cast,
    "clip": lambda v: v["x"].clamp(v["alpha"], v["beta"]),
    "concat": _concat,
    "crop": _cropped,
    "constexpr_affine_dequantize": _dequantized,
    "conv": conv,
    "conv_transpose": conv_transpose,
    "elu": lambda v: v["x"].relu() + v.get("alpha", 1.0) * v["x"].clamp(max=0).expm1(),
    "exp": lambda v: v["x"].exp(),
    "expand_dims": _expanded,
    "gelu": _gelu,
    "layer_norm": layer_norm,
    "leaky_relu": lambda v: v["x"].relu() + v.get("alpha", 0.01) * v["x"].clamp(max=0),
    "linear": _linear,
    "matmul": _matmul,
    "max_pool": lambda v: pool(v, is_max=True),
    "mul": lambda v: v["x"] * v["y"],
    "pad": _pad,
    "pixel_shuffle": _shuffled,
    "pow": lambda v: v["x"] ** v["y"],
    "prelu": _prelu,
    "real_div": lambda v: v["x"] / v["y"],
    "reduce_max": lambda v: _reduced("amax", v),
    "reduce_mean": lambda v: _reduced("mean", v),
    "reduce_sum": lambda v: _reduced("sum", v),
    "relu": lambda v: v["x"].relu(),
    "relu6": lambda v: v["x"].clamp(0, 6),
    "reshape": lambda v: v["x"].reshape(sizes(v["shape"], 0, 0)),
    "rsqrt": _rsqrt,
    "sigmoid": lambda v: v["x"].sigmoid(),
    "sigmoid_hard": _sigmoid_hard,
    "silu": lambda v: v["x"] * v["x"].sigmoid(),
    "slice_by_index": _sliced,
    "softmax": lambda v: v["x"].softmax(int(v.get("axis", -1))),
    "split": _split,
    "sqrt": lambda v: v["x"].sqrt(),
    "square": lambda v: v["x"].square(),
    "squeeze": lambda v: v["x"].squeeze(sizes(v["axes"], 0, 0)),
    "sub": lambda v: v["x"] - v["y"],
    "tanh": lambda v: v["x"].tanh(),
    "thresholded_relu": _thresholded,
    "transpose": lambda v: v["x"].permute(sizes(v["perm"], 0, 0)),
    "upsample_bilinear": lambda v: _upsampled("bilinear", v),
    "upsample_nearest_neighbor": lambda v: _upsampled("nearest", v),
}
"""Functions by the MIL name of an operator: they compute its values from its inputs.

An operator with several outputs returns a list.
"""
