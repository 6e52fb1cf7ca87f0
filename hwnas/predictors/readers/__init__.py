"""Readers: file formats of labelled archs. One file per format, with one `READER`."""

from hwnas.core.registry import Registry

REGISTRY = Registry(kind="reader", package="hwnas.predictors.readers")

__all__ = ["REGISTRY"]
