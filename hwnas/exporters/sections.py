"""Parses names of formats: `onnx`, `onnx:int8`, `litert:fp16`, or a section of settings."""

from __future__ import annotations

from typing import Any

__all__ = ["format_section"]

PRECISIONS_OF_ONNX = {"fp32": "onnx", "fp16": "fp16", "int8": "int8"}
"""ONNX formats by precision; each one is a separate module."""


def format_section(given: Any) -> Any:
    """The section `{name: ..., ...}` of a format; other values are returned unchanged.

    `NAME:PRECISION` is the format NAME with its setting `precision`. `onnx:int8` and `onnx:fp16`
    are the formats `int8` and `fp16`.
    """
    if isinstance(given, str):
        name, colon, precision = given.strip().partition(":")
        given = {"name": name, "precision": precision} if colon else {"name": name}
    if not isinstance(given, dict) or given.get("name") != "onnx" or "precision" not in given:
        return given
    precision = given["precision"]
    name = PRECISIONS_OF_ONNX.get(precision, f"onnx:{precision}")
    return {"name": name, **{k: v for k, v in given.items() if k not in ("name", "precision")}}
