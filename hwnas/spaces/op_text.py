"""Formats an operator as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hwnas.spaces.ops import OpSpec

__all__ = ["op_text"]

WITHOUT_WINDOW = ("pool", "norm", "identity", "concat", "cut")
VECTORS = ("embed", "join", "highway", "fold", "recall", "store", "activation", "product", "blend")


def op_text(op: OpSpec) -> str:
    """One line with the kind, the shapes, and the settings that differ from their defaults."""
    text = f"{op.kind} {op.in_channels}>{op.out_channels}"
    if op.kind in VECTORS:
        begins = f" from{op.mid_channels}" if op.mid_channels else ""
        return text + begins + (f" {op.act}" if op.act != "none" else "")
    text += f" {op.in_hw}>{op.out_hw}px"
    if op.kind not in WITHOUT_WINDOW:
        sizes = f"{op.start_kernel}+{op.kernel}" if op.kind == "uib" else op.kernel
        text += f" k{sizes}s{op.stride}"
    if op.dilation > 1:
        text += f" d{op.dilation}"
    if op.pad_more:
        text += f" pad{op.padding}+{op.pad_more}"
    if op.mid_channels:
        text += f" mid{op.mid_channels}"
    if op.groups > 1:
        text += f" g{op.groups}"
    if op.expand_groups > 1:
        text += f" expand_g{op.expand_groups}"
    if op.se_channels:
        text += f" se{op.se_channels}"
        if (op.se_act, op.se_gate) != ("relu", "hard_sigmoid"):
            text += f"({op.se_act}, {op.se_gate})"
    if op.norm != "bn":
        text += f" norm={op.norm}"
    text += (f" {op.act}" if op.act != "none" else "") + (" skip" * op.skip)
    return text + (f" then {op.out_act}" if op.out_act != "none" else "")
